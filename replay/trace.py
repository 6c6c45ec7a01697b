"""A trace: each change of each state of one reducer, in the order of the fold: two traces part where two folds part.

    for line in traced(Traced([reducer], module.name), vault, source, start, stop, states=True): ...
    parted = first_difference(ours, theirs)      # lockstep: only what was seen last is kept

Two folds that are to be compared may be of two versions, or of two machines.  A trace begins with all states at its
start, so whoever knows that both agree there need not trace what comes before.  Lines are JSON:

    [-1, -1, ["ann"], digest, null, {"events":2}]        before the first event: a state at the start
    [41, 41, ["ann"], digest, null, {"events":3}]        folded at entry 41, the event of entry 41: the state changed

The digest is the entry digest with version 0 (docs/formats/state.md), for versions are to be compared; the last two are
the index at which the key stands still, and the state, if it was asked for.  A fold that returns an equal state has not
changed it, whatever object it returns.

Who runs the two folds: `tools.bisecting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec

from archive import FormatError, LogSource, NotFound, Unavailable, Vault
from reducers import Key, Reducer, Slot, StatePair, entry_digest
from replay.holding import Holding
from replay.paths import At, differing_encodings
from replay.portion import Portion
from replay.routing import Routing
from replay.runner import Runner, run_to
from replay.steering import Gathered

UNTOLD = b"null"
ALWAYS = 1 << 63
"""An index beyond all: whatever changes is noted."""
START = -1
"""In place of an index: a state at the start of a trace."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One state after one event."""

    due: int
    """Index at which the event was folded: its own, or that of the binding which gave it to a person."""
    at: int
    """Index of the event."""
    key: tuple[str, ...]
    digest: str
    """Hex; "" if the key has no state any more."""
    error_index: int | None = None
    state: msgspec.Raw = msgspec.Raw(UNTOLD)
    """JSON; null, which no state is, if the trace does not tell."""

    @property
    def order(self) -> tuple[int, int, Key]:
        """What the fold goes by."""
        return (self.due, self.at, self.key)

    @property
    def says(self) -> tuple[int, int, Key, str]:
        """All in which two folds that agree are equal."""
        return (*self.order, self.digest)


class Parted(NamedTuple):
    """The first event at which two folds part."""

    at: int
    """Its index; `START`: they differ already where the traces begin."""
    due: int
    key: Key
    ours: Line | None
    """The state after it on either side; None: there is none, or the trace does not tell."""
    theirs: Line | None

    @property
    def places(self) -> list[At]:
        """Where the states differ, if both are told."""
        found: list[At] = []
        one, other = self.ours, self.theirs
        if one is None or other is None:
            return found
        if one.error_index != other.error_index:
            found.append(At("quarantined", one.error_index, other.error_index))
        here, there = bytes(one.state), bytes(other.state)
        if UNTOLD not in {here, there}:
            found += differing_encodings(here, there)
        return found


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


def encode_line(line: Line) -> bytes:
    """Return a line of a trace, without its end."""
    return _encode(line)


def decode_line(data: bytes) -> Line:
    """Return a line of a trace; raise FormatError if it is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"not a line of a trace: {error}") from None


class Traced(Holding):
    """A holding that remembers what changed, and at which event, until it is taken."""

    def __init__(self, reducers: Sequence[Reducer[Any]], module: str = "") -> None:
        super().__init__(reducers, module=module)
        self.changed: list[tuple[int, int, Key, Slot[Any] | None]] = []

    def fold(self, portion: Portion, routing: Routing) -> None:
        """Fold events one by one, as far as they are this module's."""
        (reducer,) = self.reducers
        for item in portion:
            if self.stopped is None:
                self._clean(since=ALWAYS)
                super().fold(Portion.of([item]), routing)
                slots, changed = self.slots[reducer.name], sorted(self._dirty[reducer.name])
                self.changed += [(item.due, item.at, key, slots[key]) for key in changed]


def traced(
    holding: Traced, vault: Vault, source: LogSource, start: int, stop: int, *, states: bool
) -> Iterator[Line]:
    """Yield the trace of entries start…stop-1 of the one reducer of a holding, which stands at nothing yet.

    What steers the fold of 0…stop-1 is known from the beginning, so no key is ever folded again.  Raises Unavailable
    if the reducer cannot go on, NotFound if the log is shorter.
    """
    steering = Gathered()
    with source.open() as log:
        steering.extend(log, stop)
    runner = Runner([holding], vault, steering=steering)
    (reducer,) = holding.reducers
    last: dict[Key, str] = {}
    _run(runner, holding, source, start)
    holding.changed.clear()
    for key in sorted(holding.keys(reducer)):
        line = _line(reducer, START, START, key, holding.get(reducer, key), states)
        last[key] = line.digest
        yield line
    while runner.position < stop:
        before = runner.position
        runner.step(source, stop)
        runner.sent()
        for due, at, key, slot in holding.changed:
            line = _line(reducer, due, at, key, slot, states)
            if last.get(key, "") != line.digest:
                last[key] = line.digest
                yield line
        holding.changed.clear()
        _check(holding)
        if runner.position == before:
            raise NotFound(f"the log has only {before} entries, not {stop}")


def _run(runner: Runner, holding: Holding, source: LogSource, size: int) -> None:
    run_to(runner, source, size)
    runner.sent()
    _check(holding)


def _check(holding: Holding) -> None:
    if holding.stopped is not None:
        why = holding.stopped
        raise Unavailable(f"reducer {why.reducer} stopped at entry {why.at}: {why.reason}")


def _line(reducer: Reducer[Any], due: int, at: int, key: Key, slot: Slot[Any] | None, states: bool) -> Line:
    if slot is None:
        return Line(due, at, key, "")
    encoding = reducer.encode(slot.state)
    digest = comparable(StatePair(reducer.name, reducer.version, key, encoding, slot.error_index))
    return Line(due, at, key, digest.hex(), slot.error_index, msgspec.Raw(encoding if states else UNTOLD))


def comparable(pair: StatePair) -> bytes:
    """Return the entry digest of a state as it would be of any version of its reducer."""
    return entry_digest(StatePair(pair.name, 0, pair.key, pair.encoding, pair.error_index))


def first_difference(ours: Iterator[Line], theirs: Iterator[Line]) -> Parted | None:
    """Return where two traces of one stretch part, or None; neither is read further than that."""
    known: dict[Key, Line] = {}
    for one, other in zip_longest(ours, theirs):
        if one is not None and other is not None and one.says == other.says:
            known[one.key] = one
            continue
        if one is not None and other is not None and one.order == other.order:
            return Parted(one.at, one.due, one.key, one, other)
        # One of the two changed a state which the other left as it was.
        if other is None or (one is not None and one.order < other.order):
            assert one is not None
            return Parted(one.at, one.due, one.key, one, known.get(one.key))
        return Parted(other.at, other.due, other.key, known.get(other.key), other)
    return None
