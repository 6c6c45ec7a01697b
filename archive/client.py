"""The archiver, seen from another process: submit, and get answers; be told when the log grows.

Submissions made in one turn of the event loop travel as one message, and many messages are under way at once:
nobody waits for a commit before sending the next event.  Answers come in the order of submission.

**When the archiver dies,** what was not sent waits for the next one, and what was under way is *unknown*: kept or not.
Where a frame of a connection is unknown, the log itself can tell, because each entry's header names its connection and
frame, and nothing unanswered can stand before the size that was last published to us.  So with `settle` (see
`archive.settling`) those that were kept are answered, and the others are sent again, in their order: each is kept once,
and the sender notices nothing.  What the log cannot tell apart, such as requests without an id, raises `Unknown`, and
the caller must not pretend either way.

    client = ArchiverClient(folder.socket)
    await client.start()
    receipt = (await client.submit([submission]))[0]

The messages: `archive.wire`.  The other end: `tools.archiver`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from archive.errors import ArchiveError, FormatError, Unavailable, Unknown
from archive.wire import (
    BACK,
    Answer,
    Append,
    Appended,
    Published,
    Receipt,
    Submission,
    Subscribe,
    decode_frames,
    encode_frame,
)

RETRY_S = 0.05
READY_WAIT_S = 30.0
"""How long frames wait for an archiver that is away, before their connections are closed."""
BEAT_S, BEATS_MISSED_MAX = 1.0, 5
"""How often the archiver is asked whether it answers, and how often it may fail to before it counts as away."""
IN_FLIGHT_BYTES_MAX = 64 << 20
MESSAGE_BYTES_MAX = 32 << 20


Answers = asyncio.Future[list[Answer]]
Settle = Callable[[int, Sequence[Submission]], Sequence[Receipt | None]]
"""Given a size, and submissions of which none can stand before it: the receipts of those that the log holds."""


class _Part(NamedTuple):
    """Submissions that came in one call, and who waits for their answers."""

    submissions: Sequence[Submission]
    future: Answers


class ArchiverClient:
    """One connection to the archiver, kept up; use it from one event loop.

    `woken(size)` is called whenever the log was published up to a new size.
    """

    def __init__(
        self, socket: Path, woken: Callable[[int], None] | None = None, settle: Settle | None = None
    ) -> None:
        self._socket, self.woken, self.settle = socket, woken, settle
        self._transport: asyncio.Transport | None = None
        self._waiting: list[_Part] = []
        self._under_way: deque[tuple[int, list[_Part]]] = deque()
        self._unknown: list[_Part] = []
        self._known_size = self._unheard_size = 0
        self._process = b""
        self._giving_up: asyncio.TimerHandle | None = None
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ticket = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self._heard = self._silent = False
        self._open, self._closed = asyncio.Event(), asyncio.Event()
        self.checkpoint: tuple[int, bytes] = (0, bytes(32))
        self.beat_s = BEAT_S

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the archiver just now."""
        return self._open.is_set()

    @property
    def answers(self) -> bool:
        """Whether the archiver has answered within the last seconds, and not only holds the connection open.

        A process that was stopped, or hangs, keeps its socket: what is sent to it waits, and nobody is told anything.
        """
        return self.connected and not self._silent

    async def start(self) -> None:
        """Connect in the background and stay connected."""
        self._tasks = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """Disconnect for good; whoever still waits is told so at once."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()  # what was not sent yet must not be, now that nobody waits for it
            self.lost()
        self._give_up()

    async def ready(self, wait_s: float = READY_WAIT_S) -> None:
        """Wait until the archiver can be reached; raise Unavailable if that takes longer than `wait_s`."""
        if not self._open.is_set():
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
        if not self._open.is_set():
            _fail(future, Unavailable("the archiver is not running; try again shortly"))
            return future
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(_Part(submissions, future))
        return future

    def _flush(self) -> None:
        if self._transport is None or not self._open.is_set() or not self._waiting:
            return  # what waits is sent by the next connection
        waiting, self._waiting = self._waiting, []
        for group in _groups(waiting):
            self._ticket += 1
            frame = encode_frame(Append(self._ticket, [one for part in group for one in part.submissions]))
            self._under_way.append((len(frame), group))
            self._count(len(frame))
            self._transport.write(frame)

    def received(self, message: Appended | Published) -> None:
        """Take in one message of the archiver."""
        self._heard, self._silent = True, False
        if isinstance(message, Published):
            # Comes after all answers of its commit.  An answer's size is no such bound: what else of ours was in
            # that commit may still be unanswered, and below it.
            is_news = message.size > self._known_size  # else it only says that it is there
            self._known_size = max(self._known_size, message.size)
            if not self._open.is_set():
                self._greeted(message.process)
            if is_news and self.woken is not None:
                self.woken(message.size)
            return
        size, parts = self._under_way.popleft()
        self.checkpoint = (message.size, message.root)
        self._count(-size)
        at = 0
        for submissions, future in parts:
            if not future.done():
                future.set_result(message.answers[at : at + len(submissions)])
            at += len(submissions)

    def opened(self, transport: asyncio.Transport) -> None:
        """Take up a new connection; it is open once the archiver has said who it is."""
        self._transport = transport
        self._unheard_size = self._known_size
        transport.write(encode_frame(Subscribe()))

    def _greeted(self, process: bytes) -> None:
        """Settle what is unknown, then open for new submissions."""
        if self._giving_up is not None:
            self._giving_up.cancel()
        unknown, self._unknown = self._unknown, []
        # The same archiver may still be about to keep what was under way: then nobody can tell.
        if process == self._process:
            _fail_all(unknown)
        else:
            self._waiting = self._settled(unknown) + self._waiting
        self._process = process
        self._open.set()
        self._flush()

    def _settled(self, unknown: list[_Part]) -> list[_Part]:
        """Answer what the log holds and return what must be sent again."""
        if not unknown or self.settle is None:
            return []
        try:
            found = list(
                self.settle(self._unheard_size, [one for part in unknown for one in part.submissions])
            )
        except ArchiveError:
            _fail_all(unknown)
            return []
        again, at = [], 0
        for part in unknown:
            receipts = found[at : at + len(part.submissions)]
            at += len(part.submissions)
            kept: list[Answer] = [receipt for receipt in receipts if receipt is not None]
            if not kept:
                again.append(part)
            elif len(kept) < len(receipts):
                _fail_all([part])
            elif not part.future.done():
                part.future.set_result(kept)
        return again

    def lost(self) -> None:
        """Give up a connection: whatever was under way is unknown until the next one, if there is to be one."""
        if self._transport is None:
            return  # `stop` has done so already
        self._transport = None
        self._open.clear()
        under_way, self._under_way = self._under_way, deque()
        self._count(-self._bytes)
        for _, parts in under_way:
            for part in parts:
                told = self.settle is not None and all("conn" in one.extra for one in part.submissions)
                (self._unknown.append if told else _fail_part)(part)
        if self._giving_up is not None:
            self._giving_up.cancel()
        if not self._ended:
            self._giving_up = asyncio.get_running_loop().call_later(READY_WAIT_S, self._give_up)
        self._closed.set()

    def _give_up(self) -> None:
        """Tell everybody who still waits that the archiver did not come back."""
        if self._giving_up is not None:
            self._giving_up.cancel()
        unknown, self._unknown = self._unknown, []
        waiting, self._waiting = self._waiting, []
        _fail_all(unknown)
        for part in waiting:
            _fail(part.future, Unavailable("the archiver is not running; try again shortly"))

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes < IN_FLIGHT_BYTES_MAX:
            self._room.set()
        else:
            self._room.clear()

    async def _watch(self) -> None:
        """Ask again and again whether the archiver answers; one question at a time, or they would pile up."""
        missed = 0
        while True:
            await asyncio.sleep(self.beat_s)
            missed = 0 if self._heard or not self._open.is_set() else missed + 1
            self._heard, self._silent = False, missed >= BEATS_MISSED_MAX
            if not missed and self._open.is_set() and self._transport is not None:
                self._transport.write(encode_frame(Subscribe()))

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


def _groups(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Yield parts in groups whose messages stay far below the largest frame."""
    group: list[_Part] = []
    size = 0
    for part in parts:
        more = sum(map(_size, part.submissions))
        if group and size + more > MESSAGE_BYTES_MAX:
            yield group
            group, size = [], 0
        group.append(part)
        size += more
    if group:
        yield group


def _size(one: Submission) -> int:
    """Return how many bytes a submission takes on its way, about."""
    return len(one.payload) + sum(len(value) for value in one.extra.values() if isinstance(value, bytes))


def _fail_part(part: _Part) -> None:
    _fail(part.future, Unknown("the archiver went away; this event may be kept or not"))


def _fail_all(parts: Sequence[_Part]) -> None:
    for part in parts:
        _fail_part(part)


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
