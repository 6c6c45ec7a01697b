"""Doubles that fail on purpose, each failure with both of its outcomes.

A process can die, and a disk can refuse, at every step of a commit.  An atomic step has then exactly two
outcomes: it was *lost*, or it was *kept* though nobody was told.  One `Schedule` counts the steps of all
doubles together, so that a test which walks `at` through 1, 2, … until a run ends untouched has tried each.

>>> from archive import MemoryStore, Write
>>> inner = MemoryStore(("t",))
>>> store = CrashingStore(inner, Schedule(at=1, outcome=Outcome.KEPT), "log")
>>> store.commit([Write("t", b"a", b"1")])
Traceback (most recent call last):
tests.faults.Crash: step 1, log: the write reached the disk but the answer was lost
>>> with inner.view() as view:
...     view.get("t", b"a")
b'1'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Protocol

from archive import Seal, Store, View, Write


class Crash(BaseException):
    """The process died here.  A BaseException, so that no `except Exception` survives it."""


class Outcome(Enum):
    """What became of the step at which something failed."""

    LOST = "the write never reached the disk"
    KEPT = "the write reached the disk but the answer was lost"


@dataclass
class Schedule:
    """Counts steps; number `at` (from 1, 0 for never) ends in `error` instead of an answer.

    After a `Crash` every further step raises again: a dead process writes nothing.
    """

    at: int = 0
    outcome: Outcome = Outcome.LOST
    error: Callable[[str], BaseException] = Crash
    steps: list[str] = field(default_factory=list)
    """The names of the steps so far, in order."""

    @property
    def touched(self) -> bool:
        """Whether the failure happened."""
        return 0 < self.at <= len(self.steps)

    def step(self, name: str, action: Callable[[], object]) -> None:
        """Do `action`, or fail as planned."""
        self.steps.append(name)
        here, seen = f"step {self.at}, {name}", len(self.steps)
        if self.touched and seen > self.at and self.error is Crash:
            raise Crash(f"{here}: after the end")
        if seen != self.at:
            action()
            return
        if self.outcome is Outcome.KEPT:
            action()
        raise self.error(f"{here}: {self.outcome.value}")


def every_crash() -> Iterator[Schedule]:
    """Yield schedules LOST and KEPT at step 1, 2, … until both runs at a step end untouched."""
    for at in count(1):
        pair = [Schedule(at, outcome) for outcome in Outcome]
        yield from pair
        if not any(schedule.touched for schedule in pair):
            return


@dataclass
class CrashingStore:
    """A Store that delegates to `inner`; each commit is a step."""

    inner: Store
    schedule: Schedule
    name: str

    def view(self) -> AbstractContextManager[View]:
        """Return the inner store's view."""
        return self.inner.view()

    def commit(self, writes: Sequence[Write]) -> None:
        """Commit, or fail."""
        self.schedule.step(self.name, lambda: self.inner.commit(writes))

    def close(self) -> None:
        """Leave the inner store open: the disk outlives the process."""


class _Sealing(Protocol):
    last: Seal | None

    def write(self, size: int, root: bytes, block: int) -> None: ...


class CrashingSeal:
    """A seal that delegates to `inner`; each write is a step."""

    def __init__(self, inner: _Sealing, schedule: Schedule) -> None:
        self._inner, self._schedule = inner, schedule
        self.last = inner.last

    def write(self, size: int, root: bytes, block: int) -> None:
        """Write, or fail."""
        self._schedule.step("seal", lambda: self._inner.write(size, root, block))
        self.last = self._inner.last


class _Publishing(Protocol):
    def get(self) -> int: ...
    def set(self, size: int) -> None: ...


@dataclass
class CrashingPublished:
    """A published size that delegates to `inner`; each store is a step."""

    inner: _Publishing
    schedule: Schedule

    def get(self) -> int:
        """Return what was published."""
        return self.inner.get()

    def set(self, size: int) -> None:
        """Publish, or fail."""
        self.schedule.step("publish", lambda: self.inner.set(size))
