"""The archiver as a process: everything it is made of, and a socket in front of it.

What happens between socket and log is `tools.door`.

    python -m tools.archiver --data DIR       ready when it prints "ready"; SIGTERM or end of input drains

Exit codes: 0 drained, 3 must not be started again by a machine (see the message, and run/archiver-0.stopped), 4 try
again shortly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from archive import (
    ArchiveError,
    Archiver,
    Caches,
    DataFolder,
    InvalidEvent,
    PublishedSize,
    SealFile,
    SteadyClock,
    StorageFailed,
    Unavailable,
    current_signer,
    forget_stopped,
    take_lock,
    write_stopped,
)
from merkle import Ed25519Signer, MerkleError, sign_note
from reducers import shipped
from tools.door import Door, quick_turns
from tools.process import EXIT_AGAIN, EXIT_STOP, exit_of, quiet_collector, say, version, watch_parent


def build(folder: DataFolder, origin: str | None, seal: Path | None) -> Archiver:
    """Open everything the archiver needs, making what is missing; the caller holds the log's lock.

    Raises InvalidEvent if `origin` is not the name that the log has already, and what opening raises.
    """
    store = folder.open_log(read_only=False)
    signer = current_signer(folder, store, os.urandom, origin or new_origin(folder.partition))
    if origin is not None and origin != signer.name:
        raise InvalidEvent(
            f"origin {origin}: this log is {signer.name}, and a log keeps its name; leave origin out, or "
            "choose another data folder for another log"
        )
    return Archiver(
        signer.name,
        store,
        folder.open_vault(os.urandom, read_only=False),
        caches=Caches(folder.log / "caches"),
        seal=SealFile(seal or folder.log / "seal"),
        published=PublishedSize(folder.published, writable=True),
        clock=SteadyClock(warn=_disbelieve),
        random=os.urandom,
        sign=lambda text: _sign(text, signer),
    )


def new_origin(partition: int) -> str:
    """Return a name for a new log that no other log will have."""
    return f"treering.local/{secrets.token_hex(8)}/{partition}"


def _sign(text: str, signer: Ed25519Signer) -> bytes:
    return sign_note(text, [signer])


def _disbelieve(off_us: int) -> None:
    say(
        f"archiver: the machine's clock jumped by {off_us / 1e6:,.0f} s and is not followed; "
        "put it right, or restart to believe it (docs/recovery.md)"
    )


async def serve(folder: DataFolder, archiver: Archiver) -> None:
    """Serve one log until SIGTERM or the end of the parent."""
    door = Door(archiver)
    running = asyncio.create_task(door.run())
    loop = asyncio.get_running_loop()
    folder.socket.unlink(missing_ok=True)
    server = await loop.create_unix_server(door.connection, str(folder.socket))
    folder.socket.chmod(0o600)
    loop.add_signal_handler(signal.SIGTERM, door.stop)
    loop.add_signal_handler(signal.SIGINT, door.stop)
    watch_parent(door.stop)
    quiet_collector()
    quick_turns()
    print("ready", flush=True)
    try:
        await running
    finally:
        server.close()
        for connection in list(door.connections):
            connection.pause()
        archiver.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the archiver of one log."""
    parser = argparse.ArgumentParser(prog="tools.archiver", description="Keep one log.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--origin", help="name of a log that is new; by default a random one")
    parser.add_argument("--configuration", help="digest of the settings, for the record")
    parser.add_argument("--seal", type=Path, help="where the seal lies; best on another disk")
    arguments = parser.parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        folder.create()
        take_lock(folder.log / "lock")
        forget_stopped(folder.stopped)
        archiver = build(folder, arguments.origin, arguments.seal)
        archiver.open(
            {
                "software": f"treering {version()}",
                "python": platform.python_version(),
                "reducers": shipped().fingerprint(),
                "configuration": arguments.configuration,
            }
        )
        asyncio.run(serve(folder, archiver))
    except Unavailable as error:
        say(f"archiver: {error}")
        return EXIT_AGAIN
    except (ArchiveError, MerkleError) as error:
        return _stopped(folder, error)
    except OSError as error:
        if exit_of(error) == EXIT_STOP:
            return _stopped(folder, StorageFailed(str(error)))
        say(f"archiver: {error}")
        return exit_of(error)
    return 0


def _stopped(folder: DataFolder, error: Exception) -> int:
    """Say why no restart helps, where the operator is and where he may look later."""
    say(f"archiver stopped: {error}")
    write_stopped(folder.stopped, error, time.time())
    return EXIT_STOP


if __name__ == "__main__":
    sys.exit(main())
