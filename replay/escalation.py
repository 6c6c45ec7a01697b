"""Escalation: where a module that does harm runs next, and when it is left alone until a person looks.

A table, not a policy engine.  One record for each module and shard; what happens to it is a fault, progress, a retry:

    runs        fault                          next
    shared      its own doing (`certain`)      a cell, after a pause: its neighbours are disturbed once
    shared      it crowds others (slow)        a process of its own, at once; that is no fault (elsewhere it is one)
    shared      they wait for it (blocking)    a process of its own, at once; if it stands still there, too: a cell
    shared      perhaps (killed from outside)  again, at once; the second time without progress: a cell
    own         any                            again, after a pause; the second time without progress: a cell
    cell        any                            again, after a pause; the second time without progress: parked
    anywhere    it cannot be loaded            failed: retrying by itself would change nothing
    anywhere    an entry is rotten             parked where it runs: that is nobody's doing, and stays so

*Own doing* is what nothing outside can do to a process: a signal of a fault, an end, memory, standing still.  A process
that was killed may have been somebody else's choice.  *Progress* is a position beyond the one that the last faults met;
it forgets them.  Much of it does not help for ever: ten faults within ten minutes park a module in a cell all the same.
Nothing is ever skipped: a parked module's position stays, until a person says `retry` or `skip`.

>>> record = struck(Record("shared"), Fault("died", 7, 5, 100.0, "SIGSEGV"))
>>> record.level, record.state, record.until_s - 100.0
('cell', 'pausing', 0.5)

Who looks: `tools.placing`.  What each level is: docs/modules.md.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec.structs import replace

Level = Literal["shared", "own", "cell"]
State = Literal["starting", "running", "pausing", "parked", "failed"]
Kind = Literal["died", "killed", "stalled", "memory", "stopped", "slow", "blocking", "rotten"]
"""How it ended: by its own doing, killed from outside, too long, too large, without a next state; or it crowds others,
or keeps them waiting for one event, which may take that long where nobody else waits; or an entry that it needs cannot
be read."""

LEVELS: Final[tuple[Level, ...]] = ("shared", "own", "cell")
STRIKES: Final = 2
"""Faults without progress that a level stands."""
WINDOW_S: Final = 600.0
"""Faults that are further apart have nothing to do with each other."""
FAULTS_MAX: Final = 10
"""Faults within the window that a module alone in its process may have, progress or not."""
PAUSE_S: Final = 0.5
WORKER_STOPS: Final = "its worker found what no restart mends; see its messages"
"""Why a module cannot be loaded that shares a worker with others, which is down until a person looks."""
PAUSE_S_MAX: Final = 60.0


class Fault(msgspec.Struct, frozen=True):
    """One death or stop of a module."""

    kind: Kind
    index: int | None
    """Index of the event that was folded; None: it was being imported."""
    position: int
    """Where its states stood when it was started; -1: that is not known any more."""
    at_s: float
    """When, in seconds of any clock that never goes back."""
    reason: str
    """What is told of it; it holds nothing of any event."""
    reducer: str = ""

    @property
    def what(self) -> str:
        """Return what it did, as a verb.

        >>> Fault("memory", 7, 5, 100.0, "MemoryError").what, Fault("died", 7, 5, 100.0, "SIGSEGV").what
        ('took too much memory', 'died')
        """
        return WHAT.get(self.kind, self.kind)


WHAT: Final[dict[Kind, str]] = {
    "memory": "took too much memory",
    "killed": "was killed",
    "slow": "crowded others",
    "blocking": "kept others waiting",
}


class Record(msgspec.Struct, frozen=True):
    """Where a module runs in one shard, and what it has done."""

    level: Level
    state: State = "starting"
    strikes: tuple[Fault, ...] = ()
    """Faults that count where it runs now: of the window, without progress since; oldest first."""
    recent: tuple[float, ...] = ()
    """When there was a fault where it runs now, progress or not."""
    last: Fault | None = None
    """The last fault, until there is progress."""
    deaths: int = 0
    """All faults that there ever were."""
    until_s: float = 0.0
    """When a pause is over."""
    failure: str = ""
    """Why it cannot be loaded."""
    went_back: bool = False
    """Whether that is because an older version than the last one is installed."""


def struck(record: Record, fault: Fault) -> Record:
    """Return where a module runs after a fault."""
    if fault.kind == "rotten":
        return replace(record, state="parked", last=fault)
    if fault.kind == "slow" and record.level == "shared":
        return replace(record, level="own", state="starting")
    if fault.kind == "blocking" and record.level == "shared":
        return replace(
            record, level="own", state="starting", strikes=(fault,), recent=(fault.at_s,), last=fault
        )
    strikes = (*(one for one in record.strikes if _counts(one, fault)), fault)
    recent = (*(at for at in record.recent if fault.at_s - at < WINDOW_S), fault.at_s)
    worn_out = len(strikes) >= STRIKES or len(recent) >= FAULTS_MAX
    known = replace(
        record, strikes=strikes, recent=recent, last=fault, deaths=record.deaths + 1, state="starting"
    )
    if record.level == "shared" and fault.kind == "killed" and not worn_out:
        return known
    if record.level == "cell" and worn_out:
        return replace(known, state="parked")
    if record.level == "shared" or worn_out:  # its strikes are counted anew where it can do less
        return replace(
            known, level="cell", state="pausing", strikes=(), recent=(), until_s=fault.at_s + PAUSE_S
        )
    pause_s = min(PAUSE_S * 2 ** (len(recent) - 1), PAUSE_S_MAX)
    return replace(known, state="pausing", until_s=fault.at_s + pause_s)


def _counts(old: Fault, new: Fault) -> bool:
    """Return whether an old fault still counts: there was no progress in between, as far as one can tell.

    States that stand where they stood have lost whatever was folded since; so has an event that is met again.
    """
    stood = 0 <= new.position <= old.position
    return new.at_s - old.at_s < WINDOW_S and (stood or new.index == old.index)


def reached(record: Record, position: int) -> Record:
    """Return the record of a module that runs and has saved a position: beyond its last fault, this is forgotten."""
    running = record if record.state == "running" else replace(record, state="running", until_s=0.0)
    last = record.last
    if last is None or position <= max(last.position, -1 if last.index is None else last.index):
        return running
    return replace(running, strikes=(), last=None)


def interrupted(record: Record, now_s: float) -> Record:
    """Return the record of a module whose worker ended without any fault of its: it is started again soon."""
    return replace(record, state="pausing", until_s=now_s + PAUSE_S)


def not_loaded(record: Record, why: str, *, went_back: bool = False) -> Record:
    """Return the record of a module that cannot be loaded."""
    return replace(record, state="failed", failure=why, went_back=went_back)


def rested(record: Record, now_s: float) -> Record:
    """Return the record with its pause over, if it is."""
    over = record.state == "pausing" and now_s >= record.until_s
    return replace(record, state="starting") if over else record


def retried(record: Record) -> Record:
    """Return the record of a module that a person wants to be tried again: alone, so that nobody is disturbed.

    What it met last is told until it is beyond it; an import is over once it has been hired.
    """
    level: Level = "own" if record.level == "shared" else record.level
    met = record.last is not None and record.last.index is not None
    return Record(level, deaths=record.deaths, last=record.last if met else None)


def begun(level: Level, before: Record | None) -> Record:
    """Return the record of a module when a server starts; `before` is what the server before it knew.

    A module that did harm and has not got beyond it begins where it can do none; but it does begin, since what was
    changed meanwhile may be just what it needed.
    """
    if before is None:
        return Record(level)
    moved = before.level == "cell" and before.last is not None
    if moved:
        return Record("cell", deaths=before.deaths, last=before.last)
    return Record(level, strikes=before.strikes, deaths=before.deaths, last=before.last)
