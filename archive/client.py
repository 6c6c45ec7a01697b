"""The archiver, seen from another process: submit, and get answers; be told when the log grows.

Submissions made in one turn of the event loop travel as one message, and many messages are under way at once:
nobody waits for a commit before sending the next event.  Answers come in the order of submission.

If the connection breaks, what was under way is *unknown*: kept or not.  Those futures raise `Unknown`, and the
caller must not pretend either way.  The client connects again by itself.

    client = ArchiverClient(folder.socket, wake)
    await client.start()
    receipt = (await client.submit([submission]))[0]

The messages: `archive.wire`.  The other end: `tools.archiver`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from archive.errors import FormatError, Unavailable
from archive.wire import (
    BACK,
    Answer,
    Append,
    Appended,
    Published,
    Submission,
    Subscribe,
    decode_frames,
    encode_frame,
)

RETRY_S = 0.05
READY_WAIT_S = 10.0
IN_FLIGHT_BYTES_MAX = 64 << 20


class Unknown(Unavailable):
    """The archiver went away before it answered: what was sent may be kept or not; ask, or send it with an id."""


Answers = asyncio.Future[list[Answer]]


class ArchiverClient:
    """One connection to the archiver, kept up; use it from one event loop.

    `woken(size)` is called whenever the log was published up to a new size.
    """

    def __init__(self, socket: Path, woken: Callable[[int], None] | None = None) -> None:
        self._socket, self.woken = socket, woken
        self._transport: asyncio.Transport | None = None
        self._waiting: list[tuple[Sequence[Submission], Answers]] = []
        self._under_way: deque[tuple[int, list[tuple[int, Answers]]]] = deque()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ticket = 0
        self._task: asyncio.Task[None] | None = None
        self._open, self._closed = asyncio.Event(), asyncio.Event()
        self.checkpoint: tuple[int, bytes] = (0, bytes(32))

    @property
    def connected(self) -> bool:
        """Whether the archiver can be reached just now."""
        return self._transport is not None

    async def start(self) -> None:
        """Connect in the background and stay connected."""
        self._task = asyncio.create_task(self._stay_connected())

    async def stop(self) -> None:
        """Disconnect for good."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.close()

    async def ready(self, wait_s: float = READY_WAIT_S) -> None:
        """Wait until the archiver can be reached; raise Unavailable if that takes longer than `wait_s`."""
        if self._transport is None:
            try:
                await asyncio.wait_for(self._open.wait(), wait_s)
            except TimeoutError:
                raise Unavailable("the archiver is not running; try again shortly") from None

    async def room(self) -> None:
        """Wait until fewer than 64 MiB are under way: call it before reading more from a sender."""
        await self._room.wait()

    def submit(self, submissions: Sequence[Submission]) -> Answers:
        """Send submissions; the future gives one answer each.

        It raises Unavailable if the archiver is down (nothing was sent), Unknown if it went away meanwhile.
        """
        future: Answers = asyncio.get_running_loop().create_future()
        if self._transport is None:
            future.set_exception(Unavailable("the archiver is not running; try again shortly"))
            return future
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((submissions, future))
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._transport is None:
            for _, future in waiting:
                _fail(future, Unavailable("the archiver is not running; try again shortly"))
            return
        self._ticket += 1
        frame = encode_frame(Append(self._ticket, [one for submissions, _ in waiting for one in submissions]))
        self._under_way.append((len(frame), [(len(submissions), future) for submissions, future in waiting]))
        self._count(len(frame))
        self._transport.write(frame)

    def received(self, message: Appended | Published) -> None:
        """Take in one message of the archiver."""
        if isinstance(message, Published):
            if self.woken is not None:
                self.woken(message.size)
            return
        size, parts = self._under_way.popleft()
        self.checkpoint = (message.size, message.root)
        self._count(-size)
        at = 0
        for count, future in parts:
            if not future.done():
                future.set_result(message.answers[at : at + count])
            at += count

    def opened(self, transport: asyncio.Transport) -> None:
        """Take up a new connection."""
        self._transport = transport
        self._open.set()
        transport.write(encode_frame(Subscribe()))

    def lost(self) -> None:
        """Give up a connection: whatever was under way is unknown."""
        self._transport = None
        self._open.clear()
        under_way, self._under_way = self._under_way, deque()
        self._count(-self._bytes)
        for _, parts in under_way:
            for _, future in parts:
                _fail(future, Unknown("the archiver went away; this event may be kept or not"))
        self._closed.set()

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes < IN_FLIGHT_BYTES_MAX:
            self._room.set()
        else:
            self._room.clear()

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._closed.clear()
            try:
                await loop.create_unix_connection(lambda: _Connection(self), str(self._socket))
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            await self._closed.wait()


def _fail(future: Answers, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # the sender may have gone; an error nobody reads is not worth a log line


class _Connection(asyncio.Protocol):
    def __init__(self, client: ArchiverClient) -> None:
        self._client = client
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._client.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            messages, _ = decode_frames(self._buffer, BACK)
        except FormatError:
            assert self._transport is not None
            self._transport.abort()
            return
        for message in messages:
            self._client.received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._client.lost()
