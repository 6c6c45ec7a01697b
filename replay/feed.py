"""The feed: the log, slice by slice, as events that somebody here folds.

    load    copy the rows of a slice out of the database, and end the view
    open    decrypt and read those that concern a reducer of ours

**Late identity.**  Entries of a subject that nobody knows yet are not folded; their indices wait in `backlog`.  At the
binding entry they are folded, in ascending order, before anything later; however many they are, they are loaded in
pieces no larger than a slice.  The backlog is a function of the log up to the position, so it is saved with the states.

**Ticks** are entries, too: `Item.tick` says that every key of the reducers of that period is to see it.

What is folded with it is `replay.holding`; who turns the wheel, `replay.runner`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

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
    read_many,
    rows_of,
)
from reducers import Reducer, due, tick
from replay.layout import Waiting
from replay.routing import Routing

SLICE_ENTRIES = 4_096
PIECE = 128
"""Events folded together: they are opened a piece at a time, and still in the processor's cache."""
SLICE_BYTES_MAX = 32 << 20
MODULE_SENDER = "module:"
"""How the sender of every message of a module begins; nobody outside can be it (`api.ingest`)."""
TICK_SENDER = MODULE_SENDER + "treering.tick"


class Item(msgspec.Struct, frozen=True, gc=False):
    """An event to fold, and for whom."""

    at: int
    """Index of its entry."""
    due: int
    """Index at which it is folded: its own, or that of the binding which gave it to a person."""
    event: Event
    reducers: list[Reducer[Any]]
    subjects: tuple[int, ...]
    """Numbers of those whom it is about: a message that comes of it is about them, too."""
    hops: int = 0
    """How many messages led to it."""
    tick: bool = False


class _Work(msgspec.Struct, frozen=True, gc=False):
    """One entry to open; an entry of a backlog comes with the binding that gives it to a person."""

    at: int
    due: int
    row: Row
    reducers: list[Reducer[Any]]
    binding: Row | None


class _Run(NamedTuple):
    """Entries that no binding is about, one after the other: three lists of one length."""

    indices: list[int]
    rows: list[Row]
    reducers: list[list[Reducer[Any]]]


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
        run = _Run([], [], [])
        work: list[_Run | _Bound] = [run]
        size, end = 0, self.position
        seen, concerned = self.routing.seen, self.routing.concerned
        for first, rows in rows_of(log, self.position, stop):
            for index, row in enumerate(rows, first):
                if size > SLICE_BYTES_MAX:
                    return work, end
                end = index + 1
                if row is None:
                    continue
                size += len(row.ciphertext)
                if row.kind == ROW_BINDING:
                    run = _Run([], [], [])
                    work += [_Bound(index, row, self._taken(row)), run]
                elif row.provisional:
                    self._wait(row.subjects[0], index)
                elif row.kind == ROW_EVENT:
                    if (reducers := seen.get(row.routes)) is None:
                        reducers = concerned(row)
                    if reducers:
                        run.indices.append(index)
                        run.rows.append(row)
                        run.reducers.append(reducers)
        return work, end

    def pieces(self, work: list[_Run | _Bound], source: LogSource) -> Iterator[list[Item]]:
        """Yield the events of a slice in order, in short lists; no view is open meanwhile."""
        for one in work:
            if isinstance(one, _Run):
                yield from self._items(one)
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

    def _backlog_of(self, bound: _Bound, source: LogSource) -> Iterator[list[Item]]:
        at = 0
        while at < len(bound.indices):
            with source.open() as log:
                piece, at = self._piece(log, bound, at)
            yield [item for work in piece if (item := self._item(work)) is not None]

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

    def _items(self, run: _Run) -> Iterator[list[Item]]:
        """Yield the events of a run, in pieces that were opened together."""
        found = read_many(run.indices, run.rows, self._vault, MODULE_SENDER)
        items: list[Item] = []
        for index, row, reducers, read in zip(*run, found, strict=True):
            if isinstance(read, Event):
                items.append(Item(index, index, read, reducers, row.subjects))
            elif read is None:
                self.erased += 1
            elif (item := self._special(_Work(index, index, row, reducers, None), read, None)) is not None:
                items.append(item)
            if len(items) == PIECE:
                yield items
                items = []
        yield items

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
