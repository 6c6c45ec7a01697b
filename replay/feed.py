"""The feed: the log, slice by slice, as events that somebody here folds.

    load    copy the rows of a slice out of the database, and end the view
    open    decrypt and read those that concern a reducer of ours

**Late identity.**  Entries of a subject that nobody knows yet are not folded; their indices wait in `backlog`.  At the
binding entry they are folded, in ascending order, before anything later; however many they are, they are loaded in
pieces no larger than a slice.  The backlog is a function of the log up to the position, so it is saved with the states.

**Ticks** are entries, too: `Portion.tick` says that every key of the reducers of that period is to see it.

What is folded with it is `replay.holding`; who turns the wheel, `replay.runner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

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
    Read,
    Row,
    Vault,
    keys_of,
    open_row,
    parse_json,
    parse_opening,
    parse_row,
    read_event,
    read_many,
    row_at,
)
from reducers import Reducer, due, tick
from replay.layout import Waiting
from replay.portion import Item, Portion, portions_of
from replay.routing import Routing

SLICE_ENTRIES = 4_096
SLICE_BYTES_MAX = 32 << 20
MODULE_SENDER = "module:"
"""How the sender of every message of a module begins; nobody outside can be it (`api.ingest`)."""
_EVENTS: Final = {Event}
TICK_SENDER = MODULE_SENDER + "treering.tick"


class _Work(msgspec.Struct, frozen=True, gc=False):
    """One entry to open; an entry of a backlog comes with the binding that gives it to a person."""

    at: int
    due: int
    row: Row
    reducers: list[Reducer[Any]]
    binding: Row | None


class _Run(NamedTuple):
    """Entries that no binding is about, one after the other: lists of one length.

    A row stays in its bundle, at its place, until it is opened: so it is copied once only.
    """

    indices: list[int]
    bundles: list[bytes]
    places: list[int]
    subjects: list[tuple[int, ...]]
    reducers: list[list[Reducer[Any]]]

    def extend(
        self,
        indices: Iterable[int],
        bundle: bytes,
        places: Sequence[int],
        subjects: Iterable[tuple[int, ...]],
        reducers: Iterable[list[Reducer[Any]]],
    ) -> None:
        """Add entries of one bundle behind these."""
        self.indices.extend(indices)
        self.bundles.extend([bundle] * len(places))
        self.places.extend(places)
        self.subjects.extend(subjects)
        self.reducers.extend(reducers)


class _Bound(msgspec.Struct, frozen=True, gc=False):
    """A binding, and the backlog that is to be folded at it."""

    at: int
    binding: Row
    indices: list[int]


class Feed:
    """Reads a log from a position on, for the reducers of a `Routing`."""

    def __init__(
        self, vault: Vault, routing: Routing, position: int = 0, backlog: dict[int, list[int]] | None = None
    ) -> None:
        self.position, self.backlog = position, backlog if backlog is not None else {}
        self.touched: dict[int, int] = {}
        """Backlogs that changed since the last save → how many of their indices are stored as they are."""
        self.stored = {subject: len(indices) for subject, indices in self.backlog.items()}
        """How many indices of each backlog are stored, at most."""
        self.erased = 0
        self.routing = routing
        self._vault = vault

    def load(self, log: Log, until: int | None = None) -> tuple[list[_Run | _Bound], int]:
        """Return what of the next slice is ours, in folding order, and where the slice ends.  Nothing moves yet."""
        stop = min(log.size if until is None else until, self.position + SLICE_ENTRIES)
        work: list[_Run | _Bound] = []
        run, size, position, routing = _Run([], [], [], [], []), 0, self.position, self.routing
        for bundle, picked in log.picked(position, stop, routing.share, routing.seen):
            end, asked, indices, places, subjects, answers = picked
            if not asked:
                run.extend(indices, bundle, places, subjects, cast("list[list[Reducer[Any]]]", answers))
            else:
                for index, place, about, known in zip(indices, places, subjects, answers, strict=True):
                    row = parse_row(row_at(bundle, place))
                    if row.kind == ROW_BINDING:
                        work += [run, _Bound(index, row, self._taken(row))]
                        run = _Run([], [], [], [], [])
                    elif row.provisional:
                        self._wait(about[0], index)
                    elif reducers := routing.concerned(row) if known is None else known:
                        run.extend([index], bundle, [place], [about], [reducers])
            size, position = size + len(bundle), end
            if size > SLICE_BYTES_MAX:
                break
        return [*work, run], position

    def portions(self, work: list[_Run | _Bound], source: LogSource) -> Iterator[Portion]:
        """Yield the events of a slice in order, a portion at a time; no view is open meanwhile."""
        for one in work:
            if isinstance(one, _Run):
                yield from self._opened(one)
            elif one.indices:
                yield from self._backlog_of(one, source)

    def waiting(self) -> dict[int, Waiting]:
        """Return what became of the backlogs since the last save that every store has made."""
        for subject in self.touched:
            # Of several stores some may make this save: what they hold then must be removed by the next one.
            self.stored[subject] = max(self.stored.get(subject, 0), len(self.backlog.get(subject, [])))
        return {
            subject: Waiting(self.backlog.get(subject, []), kept, self.stored[subject])
            for subject, kept in self.touched.items()
        }

    def kept(self) -> None:
        """Take note that the backlogs are stored as they are."""
        for subject in self.touched:
            self.stored[subject] = len(self.backlog.get(subject, []))
            if not self.stored[subject]:
                del self.stored[subject]
        self.touched.clear()

    def _wait(self, subject: int, index: int) -> None:
        self.touched.setdefault(subject, self.stored.get(subject, 0))
        self.backlog.setdefault(subject, []).append(index)

    def _taken(self, binding: Row) -> list[int]:
        """Take the backlog of a binding's provisional subject, and return what of it may be ours."""
        subject = binding.subjects[1]
        self.touched[subject] = 0
        indices = self.backlog.pop(subject, [])
        return indices if self.routing.bound_here(binding) else []

    def _backlog_of(self, bound: _Bound, source: LogSource) -> Iterator[Portion]:
        at = 0
        while at < len(bound.indices):
            with source.open() as log:
                piece, at = self._piece(log, bound, at)
            yield from portions_of(item for work in piece if (item := self._item(work)) is not None)

    def _piece(self, log: Log, bound: _Bound, at: int) -> tuple[list[_Work], int]:
        """Return what is ours of a backlog from its `at`-th entry on, a slice at most, and where that ends."""
        piece: list[_Work] = []
        size, stop = 0, min(at + SLICE_ENTRIES, len(bound.indices))
        while at < stop and size <= SLICE_BYTES_MAX:
            data = log.row(bound.indices[at])
            row = parse_row(data)
            if row.kind == ROW_EVENT and (reducers := self.routing.concerned(row, bound.binding)):
                piece.append(_Work(bound.indices[at], bound.at, row, reducers, bound.binding))
            at, size = at + 1, size + len(data)
        return piece, at

    def _opened(self, run: _Run) -> Iterator[Portion]:
        """Yield the events of a run, in pieces that were opened together."""
        at = 0
        for found in read_many(*run[:4], self._vault, MODULE_SENDER):
            part = slice(at, at + len(found))
            if set(map(type, found)) == _EVENTS:  # as nearly always
                yield Portion(cast("list[Event]", found), run.reducers[part], run.subjects[part])
            else:
                cut = _Run(
                    run.indices[part],
                    run.bundles[part],
                    run.places[part],
                    run.subjects[part],
                    run.reducers[part],
                )
                yield from portions_of(self._items(cut, found))
            at += len(found)

    def _items(self, run: _Run, found: Sequence[Read]) -> Iterator[Item]:
        for index, bundle, place, subjects, reducers, read in zip(*run, found, strict=True):
            if isinstance(read, Event):
                yield Item(index, index, read, reducers, subjects)
            elif read is None:
                self.erased += 1
            else:
                work = _Work(index, index, parse_row(row_at(bundle, place)), reducers, None)
                if (item := self._special(work, read, None)) is not None:
                    yield item

    def _item(self, one: _Work) -> Item | None:
        """Return the event of an entry, or None if it is erased or cannot be read by anybody."""
        try:
            opened = self._open(one.row)
            binding = None if one.binding is None else self._open(one.binding)
        except NotFound:
            self.erased += 1
            return None
        return self._special(one, opened, binding)

    def _special(self, one: _Work, opened: Opened, binding: Opened | None) -> Item | None:
        """Return the event of an opened entry, all circumstances considered; None if nobody can read it."""
        header, keys = opened.header, keys_of(opened.header)
        try:
            lock = locked_fields(opened)
            if binding is not None:
                keys = {**keys, **keys_of(binding.header)}
                lock = {**locked_fields(binding), **lock}
            received_ms = header.received_us // 1_000
            event = read_event(one.at, header.form, header.source, keys, received_ms, opened.payload, lock)
        except InvalidEvent:
            return None
        if header.sender == TICK_SENDER:
            event = tick(one.at, event.time_ms)
            ticking = [reducer for reducer in one.reducers if due(reducer, event)]
            return Item(one.at, one.due, event, ticking, (), 0, tick=True)
        hops = header.extra.get("hops", 0) if header.sender.startswith(MODULE_SENDER) else 0
        return Item(one.at, one.due, event, one.reducers, one.row.subjects, hops)

    def _open(self, row: Row) -> Opened:
        return parse_opening(open_row(row, self._vault.data_key(row.subjects)))


def locked_fields(opened: Opened) -> dict[str, Any]:
    """Return the LO fields that were locked when an entry was received."""
    lock = opened.header.extra.get("lock")
    found = parse_json(lock) if lock else {}
    return found if isinstance(found, dict) else {}
