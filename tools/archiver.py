"""The archiver as a process: everything it is made of, and a socket in front of it.

What happens between socket and log is `tools.door`.

    python -m tools.archiver --data DIR       ready when it prints "ready"; SIGTERM or end of input drains

Exit codes: 0 drained, 3 must not be started again by a machine (see the message, and run/archiver-0.stopped), 4 try
again shortly.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    check_begun,
    check_disk,
    check_log_there,
    check_vault_there,
    current_signer,
    disk_of,
    forget_stopped,
    is_distrusted,
    load_size,
    mark_begun,
    read_stopped,
    write_stopped,
)
from merkle import Ed25519Signer, MerkleError, sign_note
from reducers import shipped
from tools.door import Door
from tools.process import (
    EXIT_AGAIN,
    EXIT_STOP,
    clocks,
    exit_of,
    quick_turns,
    quiet_collector,
    say,
    watch_parent,
    with_times,
)
from tools.restoring import check_restored
from tools.software import software


def build(
    folder: DataFolder,
    origin: str | None,
    seal: Path | None,
    *,
    restoring: bool = False,
    since: tuple[int, int] | None = None,
) -> Archiver:
    """Open everything the archiver needs, making what is missing; the caller holds the folder's locks.

    Raises InvalidEvent if `origin` is not the name that the log has already, or a restore into the folder has not ended
    (only that one is `restoring`), StorageFailed if its disk has failed the last one, and what opening raises.
    """
    if not restoring:
        check_restored(folder)
    check_disk(folder.stopped, _files(folder, seal))
    if not (folder.log / "data.mdb").exists():
        check_begun(folder.begun, 0)  # before there is an empty one in its place
    store = folder.open_log(read_only=False)
    signer = current_signer(folder, store, os.urandom, origin or new_origin(folder.partition))
    if origin is not None and origin != signer.name:
        raise InvalidEvent(
            f"origin {origin}: this log is {signer.name}, and a log keeps its name; leave origin out, or "
            "choose another data folder for another log"
        )
    with store.view() as view:
        size = load_size(view)
    check_vault_there(folder.path / "vault" / "data.mdb", size)
    vault = folder.open_vault(os.urandom, read_only=False)
    check_log_there(size, vault.admitted, len(list(folder.log.parent.glob("*/data.mdb"))))
    return Archiver(
        signer.name,
        store,
        vault,
        caches=Caches(folder.log / "caches"),
        seal=SealFile(seal or folder.log / "seal"),
        published=PublishedSize(folder.published, writable=True),
        clock=SteadyClock(warn=_disbelieve, since=since),
        random=os.urandom,
        sign=lambda text: _sign(text, signer),
    )


def begin(
    archiver: Archiver, folder: DataFolder, why: dict[str, Any], follows: dict[str, Any] | None = None
) -> None:
    """Open an archiver, and note beside its key that it has signed a log from now on.

    Every start entry says which software it is; `why` is what this one says besides (docs/formats/entry.md).
    """
    archiver.open({**software(), "reducers": shipped().fingerprint(), **why}, follows)
    try:
        mark_begun(folder.begun, archiver.origin)
    except (OSError, Unavailable) as error:
        # No room there, or it may only be read: no reason to take no events.
        say(
            f"archiver: {error}: that this key has signed a log could not be noted beside it, and is tried at the next "
            "start; until then, nobody would notice if the disk of the log were not mounted"
        )


def _files(folder: DataFolder, seal: Path | None) -> list[Path]:
    """Return what an archiver writes and must be able to trust."""
    return [folder.log / "data.mdb", folder.path / "vault" / "data.mdb", seal or folder.log / "seal"]


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


@with_times()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the archiver of one log."""
    parser = argparse.ArgumentParser(prog="tools.archiver", description="Keep one log.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--origin", help="name of a log that is new; by default a random one")
    parser.add_argument("--configuration", help="digest of the settings, for the record")
    parser.add_argument("--seal", type=Path, help="where the seal lies; best on another disk")
    parser.add_argument("--clock", type=clocks, help="what both clocks showed when the server began")
    arguments = parser.parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    archiver: Archiver | None = None
    try:
        folder.create()
        folder.take_locks()
        archiver = build(folder, arguments.origin, arguments.seal, since=arguments.clock)
        forget_stopped(folder.stopped)
        begin(archiver, folder, {"purpose": "serve", "configuration": arguments.configuration})
        asyncio.run(serve(folder, archiver))
    except Unavailable as error:
        say(f"archiver: {error}")
        return EXIT_AGAIN
    except (ArchiveError, MerkleError) as error:
        return _stopped(folder, error, archiver, arguments.seal)
    except OSError as error:
        if exit_of(error) == EXIT_STOP:
            return _stopped(folder, StorageFailed(str(error)), archiver, arguments.seal)
        say(f"archiver: {error}")
        return exit_of(error)
    return 0


def _stopped(folder: DataFolder, error: Exception, archiver: Archiver | None, seal: Path | None) -> int:
    """Say why no restart helps, where the operator is and where he may look later.

    What the last one wrote of a file that failed it stays as long as that file is there.
    """
    say(f"archiver stopped: {error}")
    last = read_stopped(folder.stopped)
    if not is_distrusted(last, _files(folder, seal)):
        failed = (archiver is not None and archiver.failed) or os.strerror(errno.EIO) in str(error)
        file = (error.file if isinstance(error, StorageFailed) else None) or folder.log / "data.mdb"
        # A file of before that failed, and is away just now, may come back.
        disk = disk_of(file) if failed else last.disk if last is not None else ""
        write_stopped(folder.stopped, error, time.time(), disk=disk)
    return EXIT_STOP


if __name__ == "__main__":
    sys.exit(main())
