"""Who sends: each producer knows what it was told, and does what such a client does when it is told nothing.

    requests = producer.next(random, now)      → what goes into the archiver's queue
    producer.answered(request, answers)        → or `producer.unknown(request)`: kept or not, nobody knows

With ids, whatever was not acknowledged is sent again.  Without, nothing ever is.  A Learning Observer connection ends
with the first frame that was not kept for certain; the next one begins again with the first frame that was not
acknowledged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from archive import Answer, Receipt, Refusal, Submission
from tests.world import connection, event, frames

STUDENTS = ("ann", "bob", "eve", "kim")
Fingerprint = tuple[bytes, Any, Any, Any]


def fingerprint(payload: bytes, extra: dict[str, Any]) -> Fingerprint:
    """Return what tells one entry that was meant from any other: no two that are sent are alike in all of it."""
    return payload, extra.get("conn"), extra.get("frame"), extra.get("bind")


class Request(NamedTuple):
    """Some submissions on their way, and whose they are."""

    producer: Producer
    submissions: list[Submission]
    note: Any = None


@dataclass
class Told:
    """All that producers were told, and all that they sent: what the judges go by."""

    sent: dict[Fingerprint, Submission] = field(default_factory=dict)
    receipts: dict[int, Fingerprint] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    """The size in the receipt of an index."""

    def note(self, one: Submission, receipt: Receipt) -> None:
        """Write down a receipt; it must not contradict an earlier one."""
        mark = fingerprint(one.payload, one.extra)
        assert self.receipts.setdefault(receipt.index, mark) == mark, "two events were given one index"
        assert self.sizes.setdefault(receipt.index, receipt.size) == receipt.size, (
            "a receipt changed its size"
        )


class Producer:
    """Somebody who sends."""

    def __init__(self, name: str, told: Told) -> None:
        self.name, self.told = name, told
        self._count = 0

    def event(self, random: Random, **fields: Any) -> Submission:
        """Return an event that nobody sent before."""
        self._count += 1
        keys = random.choice(({}, {"doc_id": "essay"}, {"class": "7a", "doc_id": "poem"}))
        name = random.choice(("typed", "typed", "saved", "bad"))
        one = event(random.choice(STUDENTS), name, f"{self.name} {self._count}", **keys)
        return self.send(Submission(**{name: getattr(one, name) for name in one.__struct_fields__} | fields))

    def send(self, one: Submission) -> Submission:
        """Note what is sent."""
        self.told.sent[fingerprint(one.payload, one.extra)] = one
        return one

    def next(self, random: Random) -> list[Request]:
        """Return what this producer sends now."""
        raise NotImplementedError

    def answered(self, request: Request, answers: list[Answer]) -> None:
        """Take answers."""
        for one, answer in zip(request.submissions, answers, strict=True):
            if isinstance(answer, Receipt):
                self.told.note(one, answer)
            else:
                assert answer.reason == "unavailable", answer

    def unknown(self, request: Request) -> None:
        """Hear nothing."""


class Plain(Producer):
    """Sends events without ids, each once."""

    def next(self, random: Random) -> list[Request]:
        """Return one request of a few events."""
        return [Request(self, [self.event(random) for _ in range(random.randint(1, 4))])]


class Careful(Producer):
    """Sends events with ids, again until they are acknowledged, and now and then another event under an old id."""

    def __init__(self, name: str, told: Told) -> None:
        super().__init__(name, told)
        self._open: deque[Submission] = deque()
        self._done: list[tuple[Submission, Receipt]] = []

    def next(self, random: Random) -> list[Request]:
        """Return new events, what is open, what was acknowledged long ago, or a conflict."""
        lot = random.random()
        if self._done and lot < 0.15:
            return [Request(self, [random.choice(self._done)[0]])]
        if self._done and lot < 0.25:
            old = random.choice(self._done)[0]
            return [Request(self, [self.event(random, id=old.id, sender=self.name)], "conflict")]
        if self._open and lot < 0.7:
            return [Request(self, list(self._open))]
        new = [self.event(random, sender=self.name) for _ in range(random.randint(1, 4))]
        new = [Submission(**{**fields(one), "id": f"{self._count}-{at}"}) for at, one in enumerate(new)]
        self._open += new
        return [Request(self, new)]

    def answered(self, request: Request, answers: list[Answer]) -> None:
        """Take answers: the same receipt every time, and no receipt at all for other content."""
        if request.note == "conflict":
            assert all(isinstance(one, Refusal) for one in answers), "two events under one id were kept"
            return
        super().answered(request, answers)
        for one, answer in zip(request.submissions, answers, strict=True):
            if isinstance(answer, Receipt):
                assert dict(self._by_id()).get(one.id, answer) == answer, "another receipt for the same event"
                if one in self._open:
                    self._open.remove(one)
                    self._done.append((one, answer))

    def _by_id(self) -> list[tuple[str | None, Receipt]]:
        return [(one.id, receipt) for one, receipt in self._done]


def fields(one: Submission) -> dict[str, Any]:
    """Return the fields of a submission."""
    return {name: getattr(one, name) for name in one.__struct_fields__}


class Browser(Producer):
    """A Learning Observer client that counts acknowledgements."""

    def __init__(self, name: str, told: Told, number: int) -> None:
        super().__init__(name, told)
        self._number = number
        self._unacked: deque[bytes] = deque()
        self._connect()

    def _connect(self) -> None:
        self._number += 100
        self._connection = connection(self._number)
        self._submitted = 0
        self._broken = False

    def next(self, random: Random) -> list[Request]:
        """Return requests of one frame each: those that the last connection lost, or new ones."""
        if self._broken:
            self._connect()
        while len(self._unacked) < self._submitted + random.randint(1, 3):
            self._unacked.append(self._frame(random))
        data = self._unacked[self._submitted]
        self._submitted += 1
        submissions = [self.send(one) for one in frames(self._connection, data)]
        return [Request(self, submissions, self._number)]

    def _frame(self, random: Random) -> bytes:
        self._count += 1
        lot, mark = random.random(), f'"n":"{self.name} {self._count}"'
        if lot < 0.1:
            return f'{{"event":"lock_fields","fields":{{"user_id":"{random.choice(STUDENTS)}"}},{mark}}}'.encode()
        if lot < 0.15:
            return f'{{"event":{mark}'.encode()
        if lot < 0.25:
            return f'{{"event":"typed","user_id":"{random.choice(STUDENTS)}",{mark}}}'.encode()
        return f'{{"event":"typed","doc_id":"essay",{mark}}}'.encode()

    def answered(self, request: Request, answers: list[Answer]) -> None:
        """Count an acknowledgement; a connection that is broken gets none, whatever was kept."""
        if request.note != self._number or self._broken:
            return
        if not all(isinstance(one, Receipt) for one in answers):
            self._broken = True
            return
        super().answered(request, answers)
        self._unacked.popleft()
        self._submitted -= 1

    def unknown(self, request: Request) -> None:
        """Give the connection up."""
        self._broken = self._broken or request.note == self._number
