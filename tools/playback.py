"""What has been sent, what was answered, and what must be sent again.  Pure: no socket, no clock.

A sender may lose its connection at any moment, and then cannot know which of the unanswered frames were kept.
So it remembers each frame until that is answered, and sends the unanswered ones again on the next connection:
every frame is kept at least once.  Servers answer in order, so a disagreement is noticed at once.

    connected() → send(), send(), … → answer(message) → …    lost? → connected() → …

**A new connection knows nothing.**  What the old one had learnt goes first: the frame by which it knew its
student (the one answered by `auth`), and every `lock_fields`.  If it had not learnt its student yet and a
frame still to come will say it, all frames are sent again: the old ones belong to a connection that can no
longer be told whose it was.

>>> play = Playback([Line(1, b'{"event":"a","user_id":"x"}'), Line(2, b'{"event":"b"}')])
>>> play.connected()
>>> play.send().frame, play.send().frame
(0, 1)
>>> play.answer('{"status":"auth","user_id":"x"}')
>>> play.answer('{"status":"ack","frame":0,"index":7,"size":9}').index
7
>>> play.connected()                    # the connection was lost
>>> [play.send().line.number for _ in range(play.waiting)]
[1, 2]

The sockets around it are `tools.player`; the other end of the protocol is `api.lo`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from archive import InvalidEvent, read_event

RETRY_STATUS = frozenset({429, 502, 503, 504})
TOO_LARGE = "larger than the server takes (close 1009)"


class Line(NamedTuple):
    """One event of a file: the number of its line, from 1, and its bytes."""

    number: int
    data: bytes


class Sent(NamedTuple):
    """One sending of a line; over HTTP, connection and frame have no number."""

    line: Line
    connection: int | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer to a sending: acknowledged, or refused for a reason; where it is kept, if anywhere."""

    sent: Sent
    index: int | None
    size: int | None
    reason: str | None = None
    repeated: bool = False
    """Whether the line had been answered before, on an earlier connection."""


class WrongAnswer(Exception):
    """The server's answer does not fit what was sent: it does not speak this protocol, or has a bug."""


class Playback:
    """One file as one Learning Observer connection, over as many real connections as it takes.

    At most `window` frames are unanswered at a time; connections are numbered from `first_connection`.
    """

    def __init__(self, lines: Sequence[Line], window: int = 256, first_connection: int = 0) -> None:
        assert window > 0
        self._lines, self._window = lines, window
        self._connection, self._frame = first_connection - 1, 0
        self._queue: deque[int] = deque()
        self._in_flight: deque[tuple[int, Sent]] = deque()
        self._answered: set[int] = set()
        self._refused: set[int] = set()
        self._locks: set[int] = set()
        self._identity: int | None = None
        self._named = False
        self._start = 0
        self._begun = 0

    @property
    def connections(self) -> int:
        """The number that the next connection will have."""
        return self._connection + 1

    @property
    def done(self) -> bool:
        """Whether every line is answered."""
        return len(self._answered) == len(self._lines)

    @property
    def begun(self) -> int:
        """How many lines were sent at all, answered or not."""
        return self._begun

    @property
    def upcoming(self) -> int | None:
        """The position in `lines` of what is sent next, or None if all was sent on this connection."""
        return self._queue[0] if self._queue else None

    @property
    def waiting(self) -> int:
        """How many sendings this connection still has before it."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """How many sendings are unanswered."""
        return len(self._in_flight)

    @property
    def full(self) -> bool:
        """Whether an answer must come before the next sending."""
        return len(self._in_flight) >= self._window

    def connected(self) -> None:
        """Begin a new connection; what is unanswered on the old one will be sent again."""
        self._connection, self._frame, self._named = self._connection + 1, 0, False
        self._in_flight.clear()
        self._queue = deque(self._to_send())

    def _to_send(self) -> list[int]:
        open_lines = [at for at in range(self._start, len(self._lines)) if at not in self._answered]
        if self._identity is None and any(names_someone(self._lines[at].data) for at in open_lines):
            return [at for at in range(self._start, len(self._lines)) if at not in self._refused]
        learnt = self._locks | ({self._identity} if self._identity is not None else set())
        return [*sorted(learnt), *open_lines]

    def send(self) -> Sent:
        """Take the next sending; the caller records it, then sends its bytes."""
        assert not self.full
        at = self._queue.popleft()
        sent = Sent(self._lines[at], self._connection, self._frame)
        self._frame += 1
        self._begun = max(self._begun, at + 1)
        self._in_flight.append((at, sent))
        return sent

    def answer(self, message: str | bytes) -> Settled | None:
        """Take in an answer; return what it settles, if anything; raise WrongAnswer."""
        reply = _object(message)
        status = reply.get("status")
        if status == "auth":
            self._named = True
        if status not in {"ack", "refused"}:
            return None
        if not self._in_flight or reply.get("frame") != self._in_flight[0][1].frame:
            expected = f"frame {self._in_flight[0][1].frame}" if self._in_flight else "no frame"
            raise WrongAnswer(f"the server answers frame {reply.get('frame')}, while {expected} awaits one")
        reason = str(reply.get("reason") or "no reason given") if status == "refused" else None
        at, sent = self._in_flight.popleft()
        repeated = self._settle(at, reason)
        return Settled(sent, *_place(reply), reason, repeated)

    def refuse_largest(self) -> Settled | None:
        """Settle the largest unanswered frame as too large, after a close with 1009.

        The frame that was too large is among these, so the largest of them is too large as well.
        """
        if not self._in_flight:
            return None
        at, sent = max(self._in_flight, key=lambda pair: len(pair[1].line.data))
        self._in_flight.remove((at, sent))
        return Settled(sent, None, None, TOO_LARGE, self._settle(at, TOO_LARGE))

    def _settle(self, at: int, reason: str | None) -> bool:
        repeated = at in self._answered
        self._answered.add(at)
        if reason is not None:
            self._refused.add(at)
            return repeated
        event = _glance(self._lines[at].data).event
        if event == "lock_fields":
            self._locks.add(at)
        if self._named:
            self._identity, self._named = at, False
        if event == "terminate":  # what follows is another conversation
            self._start, self._identity, self._locks = at + 1, None, set()
        return repeated


class _Glance(msgspec.Struct):
    event: str = ""
    user_id: Any = None
    fields: Any = None


_decode_glance = msgspec.json.Decoder(_Glance).decode


def _glance(frame: bytes) -> _Glance:
    try:
        return _decode_glance(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Glance()


def names_someone(frame: bytes) -> bool:
    """Return whether a frame says who its student is, itself or by locking fields.

    >>> names_someone(b'{"event":"lock_fields","fields":{"user_id":"x"}}'), names_someone(b'{"event":"x"}')
    (True, False)
    """
    glance = _glance(frame)
    locks = glance.event == "lock_fields" and isinstance(glance.fields, dict)
    locked = glance.fields.get("user_id") if locks else None
    return any(user_id is not None and user_id != "" for user_id in (glance.user_id, locked))


def is_frame(line: bytes) -> bool:
    """Return whether a line is a Learning Observer frame: an object with a string "event".

    >>> is_frame(b'{"event": "keystroke"}'), is_frame(b'{"type": "PushEvent"}'), is_frame(b"[1")
    (True, False, False)
    """
    return bool(_glance(line).event)


def settle(lines: Sequence[Line], status: int, body: bytes) -> list[Settled | None]:
    """Return what the answer to a request settles, one for each of its lines; None is to be sent again.

    A server that says `"again": false` has kept what has no id, and cannot vouch for it yet: a second time would be a
    second event.
    """
    results = _results(body)
    if results is not None and len(results) == len(lines):
        return [_settle_one(line, result) for line, result in zip(lines, results, strict=True)]
    problem = _try_object(body)
    if status in RETRY_STATUS and problem.get("again") is not False:
        return [None] * len(lines)
    reason = str(problem.get("detail") or f"HTTP {status}, an answer that does not fit {len(lines)} events")
    place = _place(problem.get("recorded"))
    return [Settled(Sent(line), *place, reason) for line in lines]


def refusal_of(body: bytes) -> str:
    """Return what an answer says of why nothing, or not all, was kept; nothing if it says nothing.

    >>> refusal_of(b'{"detail": "no space left"}'), refusal_of(b'{"receipts": [{"error": {"detail": "later"}}]}')
    ('no space left', 'later')
    """
    errors = [one.get("error") for one in _results(body) or [] if isinstance(one, dict)]
    found = next((one for one in errors if isinstance(one, dict)), _try_object(body))
    return str(found.get("detail") or "")


def _settle_one(line: Line, result: Any) -> Settled | None:
    error = result.get("error") if isinstance(result, dict) else {}
    if error is None:
        index, size = _place(result)
        return Settled(Sent(line), index, size, None if index is not None else "a receipt without an index")
    error = error if isinstance(error, dict) else {}
    if error.get("status") in RETRY_STATUS and error.get("again") is not False:
        return None
    return Settled(Sent(line), *_place(error.get("recorded")), str(error.get("detail") or "no reason given"))


def _results(body: bytes) -> list[Any] | None:
    receipts = _try_object(body).get("receipts")
    return receipts if isinstance(receipts, list) else None


def _place(value: Any) -> tuple[int | None, int | None]:
    place = value if isinstance(value, dict) else {}
    index, size = place.get("index"), place.get("size")
    return (index if isinstance(index, int) else None, size if isinstance(size, int) else None)


def _object(message: str | bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = None
    if not isinstance(value, dict):
        raise WrongAnswer(f"the server answered {message[:80]!r}; expected a JSON object")
    return value


def _try_object(body: bytes) -> dict[str, Any]:
    try:
        return _object(body)
    except WrongAnswer:
        return {}


def batches(lines: Iterable[Line], events_max: int, bytes_max: int = 8 << 20) -> Iterator[list[Line]]:
    """Part lines into requests; one that is larger than `bytes_max` by itself goes alone."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= events_max or size + len(line.data) > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.data) + 1
    if batch:
        yield batch


def due_s(lines: Iterable[Line], form: str) -> Iterator[float]:
    """Yield when each line is due, in seconds after the first that has a client time; never backwards.

    A line without a client time is due with the one before.

    >>> times = [b'{"timestamp": 5000}', b"{}", b'{"timestamp": 7500}', b'{"timestamp": 6000}']
    >>> list(due_s([Line(n, data) for n, data in enumerate(times, 1)], "lo"))
    [0.0, 0.0, 2.5, 2.5]
    """
    first_ms, due_ms = -1, 0
    for line in lines:
        time_ms = _client_time_ms(line.data, form)
        if first_ms < 0:
            first_ms = time_ms
        if time_ms >= 0:
            due_ms = max(due_ms, time_ms - first_ms)
        yield due_ms / 1000


def _client_time_ms(data: bytes, form: str) -> int:
    try:
        return read_event(0, form, "", {}, -1, data).time_ms
    except InvalidEvent:
        return -1
