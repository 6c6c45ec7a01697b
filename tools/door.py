"""The archiver's door: requests come in from a socket, go through two stages in groups, and are answered.

Requests that arrive while a commit is under way wait together and make the next one: no timer, a lone writer waits
for one commit, a crowd shares one.  A crowd that is large need not wait for its turn to be *prepared*:

    commit thread     | keep 7 ............. | keep 8 ............. |
    prepare thread         | prepare 8 |          | prepare 9 |
    loop              takes, closes groups, answers 6 | 7 | 8

A group is closed as soon as nothing is under way, or ahead of its turn once preparing it takes so long that it pays:
a smaller one would only be split from those who are about to come.  Where nothing is under way one thread does both,
one after the other.

A lone writer waits for nobody, and nobody for him: where a group is small and all there is, the loop keeps it itself.
What comes meanwhile lies in its socket, as it would lie in the queue; two hand-overs from thread to thread are saved,
which take as long as a sync of the disk (docs/adr/0069-lone-writers.md).

All answers of a commit are sent, then `Published` to everybody, before any answer of the next commit.  What anybody is
told of the log's size is the size of the last commit that was answered.

What is kept, and in which order it becomes durable: `archive.archiver`.  The process around it: `tools.archiver`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple, Protocol, cast

from archive import (
    FRONT,
    Answer,
    Append,
    Appended,
    Archiver,
    FormatError,
    Head,
    Prepared,
    Published,
    Refusal,
    Steer,
    Steering,
    StorageFailed,
    Submission,
    Subscribe,
    Unavailable,
    decode_frames,
    encode_frame,
    parse_steering,
    steering_body,
)
from tools.process import say

COMMIT_ENTRIES_MAX = 4_096
COMMIT_BYTES_MAX = 32 << 20
QUEUE_BYTES_MAX = 128 << 20
AHEAD_ENTRIES_MIN = 256
"""So many entries are prepared while another commit is under way: about 2 ms, as long as a commit takes at least."""
AHEAD_BYTES_MIN = 1 << 20
LONE_ENTRIES_MAX = 16
LONE_BYTES_MAX = 64 << 10
"""What is no longer a lone writer's: a crowd's next requests are to be read while this group is kept."""


class Sender(Protocol):
    """Whoever asks."""

    def send(self, frame: bytes) -> None:
        """Take an answer."""

    def wake(self, frame: bytes) -> None:
        """Be told that the log was published up to some size."""

    def pause(self) -> None:
        """Send nothing for now."""

    def go_on(self) -> None:
        """Send again."""


class _Request(NamedTuple):
    connection: Sender
    ticket: int
    submissions: list[Submission]
    size: int
    steering: Steering | None = None
    """A control entry to append, in a block of its own."""

    @property
    def asked(self) -> int:
        """How many answers it gets."""
        return 1 if self.steering is not None else len(self.submissions)


class _Group:
    """Requests that share a commit, and what becomes of them."""

    def __init__(self, requests: list[_Request]) -> None:
        self.requests = requests
        self.size = sum(request.size for request in requests)
        self.submissions = [one for request in requests for one in request.submissions]
        self.controls = [steering_body(one.steering) for one in requests if one.steering is not None]
        self.ready = Event()
        """Whether it was prepared, well or not."""
        self.prepared: Prepared | None = None
        self.error: BaseException | None = None
        self.answers: list[Answer] = []
        self.head = Head()

    def refuse(self, error: Unavailable) -> None:
        """Answer that nothing was kept."""
        self.answers = [Refusal("unavailable", str(error))] * (len(self.submissions) + len(self.controls))


class Door:
    """Takes requests from connections, gives them to the archiver in groups, and answers.

    A group is closed at the request with which it has `entries_max` entries, at the latest; one of at most `lone_max`
    may be a lone writer's.
    """

    def __init__(
        self, archiver: Archiver, entries_max: int = COMMIT_ENTRIES_MAX, lone_max: int = LONE_ENTRIES_MAX
    ) -> None:
        self._entries_max, self._lone_max = entries_max, lone_max
        self.archiver, self.process = archiver, os.urandom(8)
        self.head = archiver.head
        """The log after the last commit that was answered."""
        self.connections: set[Sender] = set()
        self._queue: deque[_Request] = deque()
        self._entries = self._bytes = 0
        self._under_way: deque[_Group] = deque()
        self._stopping = self._woken = self._broken = False
        self._ended: asyncio.Future[None] | None = None

    def take(self, connection: Sender, request: Append | Steer, size: int) -> None:
        """Queue a request; connections that fill the queue are read no further until it has room."""
        if isinstance(request, Append):
            taken = _Request(connection, request.ticket, request.submissions, size)
        elif (steering := self._steering(connection, request)) is not None:
            taken = _Request(connection, request.ticket, [], size, steering)
        else:
            return
        self._queue.append(taken)
        self._entries, self._bytes = self._entries + taken.asked, self._bytes + size
        self._wake()
        if self._bytes > QUEUE_BYTES_MAX:
            for one in self.connections:
                one.pause()

    def connection(self) -> asyncio.Protocol:
        """Return what takes up one connection."""
        return _Connection(self)

    def greeting(self) -> bytes:
        """Return what somebody is told who wants to be woken: where the log stands."""
        return encode_frame(Published(self.head.size, self.process))

    def _steering(self, connection: Sender, request: Steer) -> Steering | None:
        """Return what may be appended; anything else is refused here, so that no commit fails over it."""
        try:
            if (steering := parse_steering(request.body)) is not None:
                return steering
            refusal = Refusal("invalid", "this kind of control entry is the archiver's own")
        except FormatError as error:
            refusal = Refusal("invalid", str(error))
        root = self.head.frontier.root()
        connection.send(encode_frame(Appended(request.ticket, [refusal], self.head.size, root)))
        return None

    def stop(self) -> None:
        """Finish what is queued, then end `run`."""
        self._stopping = True
        self._wake()

    async def run(self) -> None:
        """Commit group after group until stopped; raise what the archiver must not survive."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        with self._committing, self._preparing:
            self._wake()
            await self._ended

    # --- on the loop -----------------------------------------------------------------------------

    def _wake(self) -> None:
        """Look soon, once for all that arrives in this turn of the loop, at what can be begun."""
        if not self._woken and self._ended is not None and (not self._under_way or self._closes()):
            self._woken = True
            self._loop.call_soon(self._go_on)

    def _closes(self) -> bool:
        """Return whether the queue is to make a group now."""
        if not self._under_way:
            return bool(self._queue)
        much = self._entries >= AHEAD_ENTRIES_MIN or self._bytes >= AHEAD_BYTES_MIN
        return much and len(self._under_way) == 1

    def _go_on(self, answered: _Group | None = None) -> None:
        """Begin what can be begun, and only then answer: the commit thread shall not wait for that."""
        self._woken = False
        assert self._ended is not None
        try:
            if self._ended.done():
                return
            if self._closes():
                group = self._group()
                if answered is None and self._is_lone(group):
                    answered = self._keep_here(group)
                else:
                    self._begin(group)
            if answered is not None:
                self._answer(answered)
            if self._stopping and not self._queue and not self._under_way:
                self._ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it, and the archiver would hang
            self._broken = True
            self._ended.set_exception(error)

    def _begin(self, group: _Group) -> None:
        before = self._under_way[-1] if self._under_way else None
        self._under_way.append(group)
        if before is not None:
            self._preparing.submit(self._prepare, group, before)
        self._committing.submit(self._keep_there, group, alone=before is None)

    def _is_lone(self, group: _Group) -> bool:
        """Return whether a group that was just closed is small, and all there is."""
        small = (
            sum(request.asked for request in group.requests) <= self._lone_max
            and group.size <= LONE_BYTES_MAX
        )
        return small and not (self._under_way or self._queue)

    def _keep_here(self, group: _Group) -> _Group:
        """Keep a lone writer's group at once; nothing else is done meanwhile."""
        self._under_way.append(group)
        self._keep(group, alone=True)
        self._under_way.popleft()
        if group.error is not None:
            raise group.error
        return group

    def _finished(self, group: _Group) -> None:
        """Take up what the commit thread has done with the oldest group."""
        first = self._under_way.popleft()
        assert first is group
        if group.error is None:
            self._go_on(group)
        elif self._ended is not None and not self._ended.done():
            self._ended.set_exception(group.error)

    def _group(self) -> _Group:
        requests: list[_Request] = []
        entries = size = 0
        while self._queue and (not requests or (entries < self._entries_max and size < COMMIT_BYTES_MAX)):
            if requests and (requests[-1].steering or self._queue[0].steering):
                break  # a control entry has a block of its own
            request = self._queue.popleft()
            requests.append(request)
            entries, size = entries + request.asked, size + request.size
        self._entries, self._bytes = self._entries - entries, self._bytes - size
        if self._bytes < QUEUE_BYTES_MAX // 2:
            for one in self.connections:
                one.go_on()
        return _Group(requests)

    def _answer(self, group: _Group) -> None:
        self.head, at = group.head, 0
        size, root = self.head.size, self.head.frontier.root()
        for request in group.requests:
            end = at + request.asked
            request.connection.send(encode_frame(Appended(request.ticket, group.answers[at:end], size, root)))
            at = end
        wake = self.greeting()
        for connection in self.connections:
            connection.wake(wake)

    # --- in the threads --------------------------------------------------------------------------

    def _prepare(self, group: _Group, before: _Group | None = None) -> None:
        if before is not None:
            before.ready.wait()  # groups stand in the log in the order in which they were closed
        try:
            group.prepared = self.archiver.prepare(group.submissions, group.controls)
        except BaseException as error:  # noqa: BLE001 - raised when it is this group's turn
            group.error = error
        finally:
            group.ready.set()

    def _keep_there(self, group: _Group, *, alone: bool) -> None:
        self._keep(group, alone=alone)
        self._loop.call_soon_threadsafe(self._finished, group)

    def _keep(self, group: _Group, *, alone: bool) -> None:
        try:
            if alone:
                self._prepare(group)
            group.ready.wait()
            self._commit(group)
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            group.error, self._broken = error, True

    def _commit(self, group: _Group) -> None:
        if self._broken:
            raise StorageFailed("the archiver stopped before this was kept")
        try:
            if group.error is not None:
                error, group.error = group.error, None
                raise error
            assert group.prepared is not None
            group.answers = self.archiver.commit(group.prepared)
        except Unavailable as error:
            if self.archiver.failed:  # kept, and not sealed: only a new start can tell
                raise
            group.refuse(error)
        group.head = self.archiver.head


class _Connection(asyncio.Protocol):
    """A connection over a socket."""

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
                self.wake(self._door.greeting())
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
