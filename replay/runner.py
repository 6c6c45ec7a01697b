"""The runner: take the next slice of the log, fold it, and keep states and position together.

A live worker calls `step` for ever; a replay calls it up to a size.  There is no second code path, which is
why what a replay gives is what the dashboard showed, or one of the two is broken.

    load    copy the rows of a slice out of the database, and end the view
    fold    open those that are ours, apply the reducers (pure)
    save    write changed states and the position in one commit

**Late identity.**  Entries of a subject that nobody knows yet are not folded; their indices wait in
`backlog`.  At the binding entry they are folded, in ascending order, before anything later; however many they
are, they are loaded in pieces no larger than a slice.  The backlog is a function of the log up to the position,
so it is saved with it, and the position does not move before a binding is wholly folded.

**Rebuilding.**  States that begin from nothing have to see what the log held at that moment before they are an
answer; until then every save says so (`states.Marker.rebuilt_to`).

Where states are kept is `replay.states`; how a state is folded, `reducers.fold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from archive import (
    ROW_BINDING,
    ROW_EVENT,
    Event,
    InvalidEvent,
    Log,
    LogSource,
    NotFound,
    Opened,
    Row,
    Vault,
    keys_of,
    open_row,
    parse_json,
    parse_opening,
    parse_row,
    read_event,
)
from reducers import Key, Reducer, Slot, StatePair, fold_one, pair_of
from replay.routing import Routing
from replay.states import States, Waiting

SLICE_ENTRIES = 4_096
SLICE_BYTES_MAX = 32 << 20

Slots = dict[Key, Slot[Any]]


class _Work(msgspec.Struct, frozen=True, gc=False):
    """One entry to fold; an entry of a backlog comes with the binding that gives it to a person."""

    at: int
    row: Row
    reducers: list[Reducer[Any]]
    binding: Row | None


class _Bound(msgspec.Struct, frozen=True, gc=False):
    """A binding, and the backlog that is to be folded at it."""

    binding: Row
    indices: list[int]


class Runner:
    """The states of one shard, and how much of the log they have seen.

    `states` is where they are kept; without it they live in memory only (a replay).
    """

    def __init__(
        self,
        reducers: Iterable[Reducer[Any]],
        vault: Vault,
        *,
        shard: int = 0,
        shards: int = 1,
        states: States | None = None,
    ) -> None:
        self.reducers = list(reducers)
        self.position = 0
        self.slots: dict[str, Slots] = {reducer.name: {} for reducer in self.reducers}
        self.backlog: dict[int, list[int]] = {}
        self.erased = 0
        self._vault, self._states = vault, states
        self._routing = Routing(self.reducers, shard, shards)
        self._dirty: set[tuple[str, Key]] = set()
        self._touched: dict[int, int] = {}
        """Backlogs that changed since the last save → how many of their indices are stored as they are."""
        self._stored: dict[int, int] = {}
        """How many indices of each backlog are stored."""
        self._saved = self._rebuilt_to = 0

    @property
    def unsaved(self) -> bool:
        """Whether the position moved since the last save."""
        return self.position != self._saved

    def resume(self, source: LogSource) -> None:
        """Go on from the saved states if they are of this log and these reducers, else start from nothing."""
        if self._states is None:
            return
        with source.open() as log:
            snapshot, size = self._states.load(self.reducers, log), log.size
        if snapshot is None:
            self._states.clear()
            self._rebuilt_to = size
            return
        self.position = self._saved = snapshot.position
        self.slots, self.backlog = snapshot.slots, snapshot.backlog
        self._stored = {subject: len(indices) for subject, indices in self.backlog.items()}
        self._rebuilt_to = snapshot.rebuilt_to

    def step(self, source: LogSource, until: int | None = None) -> int:
        """Take the next slice of the log (up to `until`, if given) and return how many entries it had.

        0 means caught up.  Raises IntegrityError where an entry cannot be what was committed.
        """
        # The view ends before the folding begins: an open one pins pages for as long as reducers take.
        with source.open() as log:
            stop = min(log.size if until is None else until, self.position + SLICE_ENTRIES)
            work, end = self._load(log, stop)
        for one in work:
            for entry in (one,) if isinstance(one, _Work) else self._backlog_of(one, source):
                self._fold(entry)
        taken, self.position = end - self.position, end
        return taken

    def save(self, source: LogSource) -> None:
        """Write what changed since the last save, and the position, in one commit."""
        if self._states is None or not self.unsaved:
            return
        with source.open() as log:
            root = log.root(self.position)
        changed = [(self._reducer(name), key, self.slots[name][key]) for name, key in self._dirty]
        backlog = {
            subject: Waiting(self.backlog.get(subject, []), kept, self._stored.get(subject, 0))
            for subject, kept in self._touched.items()
        }
        self._states.save(self.position, root, self.reducers, changed, backlog, self._rebuilt_to)
        for subject, waiting in backlog.items():
            self._stored[subject] = len(waiting.indices)
            if not waiting.indices:
                del self._stored[subject]
        self._dirty.clear()
        self._touched.clear()
        self._saved = self.position

    def pairs(self) -> Iterator[StatePair]:
        """Yield every state with what its digest commits to."""
        for reducer in self.reducers:
            for key, slot in self.slots[reducer.name].items():
                yield pair_of(reducer, key, slot)

    # --- load ------------------------------------------------------------------------------------

    def _load(self, log: Log, stop: int) -> tuple[list[_Work | _Bound], int]:
        """Return what of the slice is ours to fold, in folding order, and where the slice ends."""
        work: list[_Work | _Bound] = []
        size, end = 0, self.position
        for index, data in log.rows(self.position, stop):
            if size > SLICE_BYTES_MAX:
                break
            end, size = index + 1, size + len(data)
            if not data:
                continue
            row = parse_row(data)
            if row.kind == ROW_BINDING:
                work.append(_Bound(row, self._taken(row)))
            elif row.provisional:
                subject = row.subjects[0]
                self._touched.setdefault(subject, self._stored.get(subject, 0))
                self.backlog.setdefault(subject, []).append(index)
            elif row.kind == ROW_EVENT and (reducers := self._routing.concerned(row)):
                work.append(_Work(index, row, reducers, None))
        return work, end

    def _taken(self, binding: Row) -> list[int]:
        """Take the backlog of a binding's provisional subject, and return what of it may be ours."""
        subject = binding.subjects[1]
        self._touched[subject] = 0
        indices = self.backlog.pop(subject, [])
        return indices if self._routing.bound_here(binding) else []

    def _backlog_of(self, bound: _Bound, source: LogSource) -> Iterator[_Work]:
        """Yield the entries of a backlog that are ours, in order; no view is open while one is out."""
        at = 0
        while at < len(bound.indices):
            with source.open() as log:
                piece, at = self._piece(log, bound, at)
            yield from piece

    def _piece(self, log: Log, bound: _Bound, at: int) -> tuple[list[_Work], int]:
        """Return what is ours of a backlog from its `at`-th entry on, a slice at most, and where that ends."""
        piece: list[_Work] = []
        size, stop = 0, min(at + SLICE_ENTRIES, len(bound.indices))
        while at < stop and size <= SLICE_BYTES_MAX:
            data = log.row(bound.indices[at])
            row = parse_row(data)
            if row.kind == ROW_EVENT and (reducers := self._routing.concerned(row, bound.binding)):
                piece.append(_Work(bound.indices[at], row, reducers, bound.binding))
            at, size = at + 1, size + len(data)
        return piece, at

    # --- fold ------------------------------------------------------------------------------------

    def _fold(self, one: _Work) -> None:
        event = self._event(one)
        if event is None:
            return
        for reducer in one.reducers:
            key = reducer.key_of(event)
            if key is None:
                continue
            slots = self.slots[reducer.name]
            before = slots.get(key)
            if before is None and not self._routing.holds(reducer, key, self._vault.route_key):
                continue
            after = fold_one(reducer, before, event)
            if after is not before:
                slots[key] = after
                self._dirty.add((reducer.name, key))

    def _event(self, one: _Work) -> Event | None:
        """Return the event of an entry, or None if it is erased or cannot be read by anybody."""
        try:
            opened = self._open(one.row)
            binding = None if one.binding is None else self._open(one.binding)
        except NotFound:
            self.erased += 1
            return None
        header, keys = opened.header, keys_of(opened.header)
        try:
            lock = locked_fields(opened)
            if binding is not None:
                keys = {**keys, **keys_of(binding.header)}
                lock = {**locked_fields(binding), **lock}
            received_ms = header.received_us // 1_000
            return read_event(one.at, header.form, header.source, keys, received_ms, opened.payload, lock)
        except InvalidEvent:
            return None

    def _open(self, row: Row) -> Opened:
        return parse_opening(open_row(row, self._vault.data_key(row.subjects)))

    def _reducer(self, name: str) -> Reducer[Any]:
        return next(reducer for reducer in self.reducers if reducer.name == name)


def locked_fields(opened: Opened) -> dict[str, Any]:
    """Return the LO fields that were locked when an entry was received."""
    lock = opened.header.extra.get("lock")
    found = parse_json(lock) if lock else {}
    return found if isinstance(found, dict) else {}
