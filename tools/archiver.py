"""The archiver as a process: a socket in front of `archive.Archiver`, and group commit.

Requests that arrive while a commit is under way wait together and make the next one: no timer, a lone writer waits
for one commit, a crowd shares one.  The commit runs in a thread, because most of it is waiting for the disk;
there is one such thread, so commits never overlap.

    python -m tools.archiver --data DIR       ready when it prints "ready"; SIGTERM or end of input drains

Exit codes: 0 drained, 3 must not be started again by a machine (see the message), 4 try again shortly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import secrets
import signal
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

from archive import (
    FRONT,
    Answer,
    Append,
    Appended,
    ArchiveError,
    Archiver,
    Caches,
    DataFolder,
    FormatError,
    InvalidEvent,
    Published,
    PublishedSize,
    Receipt,
    Refusal,
    SealFile,
    SteadyClock,
    Steer,
    Steering,
    Submission,
    Subscribe,
    Unavailable,
    current_signer,
    decode_frames,
    encode_frame,
    parse_steering,
    steering_body,
    take_lock,
)
from merkle import Ed25519Signer, MerkleError, sign_note
from reducers import shipped
from tools.process import EXIT_AGAIN, EXIT_STOP, exit_of, quiet_collector, say, version, watch_parent

COMMIT_ENTRIES_MAX = 4_096
COMMIT_BYTES_MAX = 32 << 20
QUEUE_BYTES_MAX = 128 << 20


class _Request(NamedTuple):
    connection: _Connection
    ticket: int
    submissions: list[Submission]
    size: int
    steering: Steering | None = None
    """A control entry to append, in a block of its own."""


class Door:
    """Takes requests from connections, gives them to the archiver in groups, and answers."""

    def __init__(self, archiver: Archiver) -> None:
        self.archiver, self.process = archiver, os.urandom(8)
        self.connections: set[_Connection] = set()
        self._queue: deque[_Request] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._stopping = False

    def take(self, connection: _Connection, request: Append | Steer, size: int) -> None:
        """Queue a request; connections that fill the queue are read no further until it has room."""
        if isinstance(request, Append):
            self._queue.append(_Request(connection, request.ticket, request.submissions, size))
        elif (steering := self._steering(connection, request)) is not None:
            self._queue.append(_Request(connection, request.ticket, [], size, steering))
        else:
            return
        self._bytes += size
        self._arrived.set()
        if self._bytes > QUEUE_BYTES_MAX:
            for one in self.connections:
                one.pause()

    def _steering(self, connection: _Connection, request: Steer) -> Steering | None:
        """Return what may be appended; anything else is refused here, so that no commit fails over it."""
        try:
            if (steering := parse_steering(request.body)) is not None:
                return steering
            refusal = Refusal("invalid", "this kind of control entry is the archiver's own")
        except FormatError as error:
            refusal = Refusal("invalid", str(error))
        head = self.archiver.head.size
        connection.send(encode_frame(Appended(request.ticket, [refusal], head, self.archiver.root)))
        return None

    def stop(self) -> None:
        """Finish what is queued, then end `run`."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Commit group after group until stopped; raise what the archiver must not survive."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="commit") as thread:
            while True:
                await self._arrived.wait()
                group = self._group()
                if group:
                    answers = await loop.run_in_executor(thread, self._step, group)
                    self._answer(group, answers)
                elif self._stopping:
                    return
                else:
                    self._arrived.clear()

    def _group(self) -> list[_Request]:
        group: list[_Request] = []
        entries = size = 0
        while self._queue and (not group or (entries < COMMIT_ENTRIES_MAX and size < COMMIT_BYTES_MAX)):
            if group and (group[-1].steering or self._queue[0].steering):
                break  # a control entry has a block of its own
            request = self._queue.popleft()
            group.append(request)
            entries, size = entries + len(request.submissions), size + request.size
        self._bytes -= size
        if self._bytes < QUEUE_BYTES_MAX // 2:
            for one in self.connections:
                one.go_on()
        return group

    def _step(self, group: Sequence[_Request]) -> list[Answer]:
        submissions = [one for request in group for one in request.submissions]
        steering = group[0].steering
        try:
            if steering is not None:
                index = self.archiver.control(steering_body(steering))
                return [Receipt(index, self.archiver.head.size)]
            return self.archiver.step(submissions)
        except Unavailable as error:
            if self.archiver.failed:  # kept, and not sealed: only a new start can tell
                raise
            return [Refusal("unavailable", str(error))] * max(len(submissions), 1)

    def _answer(self, group: Sequence[_Request], answers: Sequence[Answer]) -> None:
        size, root, at = self.archiver.head.size, self.archiver.root, 0
        for request in group:
            end = at + (len(request.submissions) if request.steering is None else 1)
            request.connection.send(encode_frame(Appended(request.ticket, list(answers[at:end]), size, root)))
            at = end
        wake = encode_frame(Published(size, self.process))
        for connection in self.connections:
            connection.wake(wake)


class _Connection(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self._door = door
        self._buffer = bytearray()
        self._subscribed = self._full = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._door.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._door.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        before = len(self._buffer)
        try:
            messages, left = decode_frames(self._buffer, FRONT)
        except FormatError as error:
            say(f"archiver: a connection was closed: {error}")
            assert self._transport is not None
            self._transport.abort()
            return
        for message in messages:
            if isinstance(message, Subscribe):
                self._subscribed = True
                self.wake(encode_frame(Published(self._door.archiver.head.size, self._door.process)))
            else:
                self._door.take(self, message, (before - left) // len(messages))

    def send(self, frame: bytes) -> None:
        """Send an answer; the front may be gone, its entries are kept all the same."""
        if self._transport is not None:
            self._transport.write(frame)

    def wake(self, frame: bytes) -> None:
        """Send a wake-up, unless the reader has not even taken the last ones: it will read to the end anyway."""
        if self._subscribed and not self._full and self._transport is not None:
            self._transport.write(frame)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def pause(self) -> None:
        """Read no further for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


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
    server = await loop.create_unix_server(lambda: _Connection(door), str(folder.socket))
    folder.socket.chmod(0o600)
    loop.add_signal_handler(signal.SIGTERM, door.stop)
    loop.add_signal_handler(signal.SIGINT, door.stop)
    watch_parent(door.stop)
    quiet_collector()
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
        say(f"archiver stopped: {error}")
        return EXIT_STOP
    except OSError as error:
        say(f"archiver: {error}")
        return exit_of(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
