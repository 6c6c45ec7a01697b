"""A sweep: one replay that stops at sizes on its way, and says at each what has changed since the stop before.

    sweep = Sweep([Runner(holdings, vault, shard=0, shards=2)])
    stop = sweep.to(source, 1_000)         # Stop: what the states of this shard came to at size 1,000
    stop = sweep.to(source, 25_537)        # only what is new since then
    for state in sweep.states(): ...       # in the order of reducers and keys

At a stop the fold has read neither entries nor steering behind it: what stands there is what the rule of
docs/formats/control.md says of that size, whatever was skipped later.  So one pass can be held against every
attestation of a log, and against live states that stand at different positions.  A stop costs the states that changed,
and a look at the others.

What the stops of several shards come to, `Gathering` puts together; what they are held against is `replay.audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from heapq import merge
from typing import Any, NamedTuple

from archive import LogSource, NotFound
from reducers import Identity, Key, Reducer, Slot, StateError, entry_digest, pair_of
from replay.attempt import IDLE, word_of
from replay.folded import Stopped, shown_of, stopped_by
from replay.holding import Holding
from replay.runner import Runner


class Entry(NamedTuple):
    """What one state comes to."""

    digest: bytes
    """The entry digest (docs/formats/state.md)."""
    encoding: bytes | None = None
    """The state itself, if it was asked for."""
    error_index: int | None = None
    seen: bytes = b""
    """Hash of what readers are shown in place of the state, if that is something else (`seen_as`)."""


Entries = dict[Identity, Entry]
Delta = dict[Identity, "Entry | None"]
"""What changed; None: this key has no state any more."""


class Stop(NamedTuple):
    """Where a sweep stands."""

    size: int
    delta: Delta
    erased: int
    """How many entries up to here could not be read, since their subject was erased."""
    stopped: dict[str, Stopped]
    """Modules that could not go on, and are not in later deltas."""


class FoldedState(NamedTuple):
    """One state as a replay leaves it."""

    reducer: str
    version: int
    key: Key
    encoding: bytes
    changed_at: int
    error_index: int | None
    error: str | None


class Sweep:
    """Runners of one shard on their way through a log, each from where it stands.

    With `encodings`, stops tell the states themselves, too: for whoever must say in what two of them differ.
    """

    def __init__(self, runners: Sequence[Runner], *, encodings: bool = False) -> None:
        self.stopped: dict[str, Stopped] = {}
        self._runners, self._encodings = list(runners), encodings
        self._told: dict[str, dict[Key, tuple[Slot[Any], Entry]]] = {}
        self._encoding = ("", 0)

    @property
    def position(self) -> int:
        """How much of the log the one that is furthest behind has seen."""
        return min((runner.position for runner in self._runners), default=0)

    def to(
        self,
        source: LogSource,
        size: int,
        progress: Callable[[int], None] = lambda _: None,
        *,
        afresh: bool = False,
    ) -> Stop:
        """Fold up to `size` and return what changed; with `afresh`, look into states that claim to be unchanged, too.

        `progress` is called with the number of entries of each slice.  Raises NotFound if the log is shorter.
        """
        for runner in self._runners:
            _run(runner, source, size, progress)
            self.stopped |= runner.stopped
        delta = self._delta(afresh=afresh)
        return Stop(size, delta, self._erased(), dict(self.stopped))

    def states(self) -> Iterator[FoldedState]:
        """Yield every state in the order of (reducer, version, key)."""
        slots = [
            (reducer, key, slot)
            for holding in self._holdings()
            for reducer in holding.reducers
            for key, slot in holding.slots[reducer.name].items()
            if slot is not None
        ]
        for reducer, key, slot in sorted(slots, key=lambda one: (one[0].name, one[0].version, one[1])):
            yield folded_state(reducer, key, slot)

    def _delta(self, *, afresh: bool) -> Delta:
        """Return what changed; by identity of slots, as a worker decides what is to be saved.

        A module with a state that cannot be encoded stops here, as it does where a worker saves.
        """
        delta: Delta = {}
        for holding in self._holdings():
            try:
                for reducer in holding.reducers:
                    delta |= self._changed(holding, reducer, afresh=afresh)
            except (StateError, MemoryError, RecursionError) as error:
                holding.stopped = stopped_by(*self._encoding, error)
                self.stopped[holding.module] = holding.stopped
        return delta

    def _changed(self, holding: Holding, reducer: Reducer[Any], *, afresh: bool) -> Delta:
        told, there, changed = self._told.setdefault(reducer.name, {}), set[Key](), Delta()
        beat = 0
        for key, slot in holding.slots[reducer.name].items():
            if slot is None:
                continue
            there.add(key)
            before = told.get(key)
            if before is not None and before[0] is slot and not afresh:
                continue
            self._encoding = reducer.name, slot.changed_at
            beat += 1
            holding.attempt[0] = word_of(
                slot.changed_at, beat
            )  # what a state is made of is the author's, too
            entry = _entry(reducer, key, slot, self._encodings)
            holding.attempt[0] = IDLE
            if before is None or before[1] != entry:
                changed[reducer.name, reducer.version, key] = entry
            told[key] = slot, entry
        for key in told.keys() - there if len(there) < len(told) else ():  # all its events were skipped
            del told[key]
            changed[reducer.name, reducer.version, key] = None
        return changed

    def _holdings(self) -> list[Holding]:
        return [one for runner in self._runners for one in runner.holdings if one.stopped is None]

    def _erased(self) -> int:
        return max((runner.erased for runner in self._runners), default=0)


def folded_state(reducer: Reducer[Any], key: Key, slot: Slot[Any]) -> FoldedState:
    """Return a state as a replay leaves it; raise StateError where it has no encoding."""
    encoding = reducer.encode(slot.state)
    return FoldedState(
        reducer.name, reducer.version, key, encoding, slot.changed_at, slot.error_index, slot.error
    )


def _run(runner: Runner, source: LogSource, size: int, progress: Callable[[int], None]) -> None:
    while runner.position < size and runner.holdings:
        before = runner.position
        runner.step(source, size)
        runner.sent()  # what modules say was delivered when it was said
        if runner.position == before and runner.holdings:
            raise NotFound(f"the log has only {before} entries, not {size}")
        progress(runner.position - before)


def _entry(reducer: Reducer[Any], key: Key, slot: Slot[Any], with_encoding: bool) -> Entry:
    pair = pair_of(reducer, key, slot)
    shown = None if reducer.viewer is None else shown_of(reducer, slot.state)
    encoding = pair.encoding if with_encoding else None
    return Entry(entry_digest(pair), encoding, pair.error_index, seen_as(shown))


def seen_as(shown: bytes | None) -> bytes:
    """Return 16 bytes that stand for what readers see in place of a state; none where they see the state (None).

    Where the state changed last (`changed_at`) is not in it: that goes by the identity of objects, which a state that
    was stored and read again has lost, so two honest folds may differ in it.
    """
    return b"" if shown is None else sha256(shown).digest()[:16]


class Gathering:
    """Puts together what the sweeps of all shards said, stop by stop.

    >>> gathering = Gathering([1_000, 2_000], shards=2)
    >>> gathering.take(0, Stop(1_000, {("n", 1, ("ann",)): Entry(b"a")}, 0, {}))
    >>> gathering.take(0, Stop(2_000, {}, 0, {}))
    >>> [stop.size for stop in gathering.ready()]
    []
    >>> gathering.take(1, Stop(1_000, {}, 0, {}))
    >>> [(stop.size, len(gathering.entries["n"])) for stop in gathering.ready()]
    [(1000, 1)]
    """

    def __init__(self, sizes: Iterable[int], shards: int) -> None:
        self.entries: dict[str, Entries] = {}
        """All states, by reducer, at the stop that `ready` yielded last."""
        self._sizes, self._shards = list(sizes), shards
        self._waiting: dict[int, dict[int, Stop]] = {size: {} for size in self._sizes}

    def take(self, shard: int, stop: Stop) -> None:
        """Take what a shard said."""
        self._waiting[stop.size][shard] = stop

    def ready(self) -> Iterator[Stop]:
        """Yield each next stop that all shards have reached, `entries` having been brought there."""
        while self._sizes and len(self._waiting[self._sizes[0]]) == self._shards:
            size = self._sizes.pop(0)
            yield self._brought(size, list(self._waiting.pop(size).values()))

    def _brought(self, size: int, stops: Sequence[Stop]) -> Stop:
        delta: Delta = {}
        stopped: dict[str, Stopped] = {}
        for stop in stops:
            assert delta.keys().isdisjoint(stop.delta), "two shards hold the same key"
            delta |= stop.delta
            stopped |= stop.stopped
        for identity, entry in delta.items():
            entries = self.entries.setdefault(identity[0], {})
            if entry is None:
                del entries[identity]
            else:
                entries[identity] = entry
        return Stop(size, delta, sum(stop.erased for stop in stops), stopped)


def in_order(parts: Iterable[Iterable[FoldedState]]) -> Iterator[FoldedState]:
    """Yield the states of several sweeps, each of which is in order, in order."""
    return merge(*parts, key=lambda state: (state.reducer, state.version, state.key))
