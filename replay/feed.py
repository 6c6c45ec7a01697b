"""The feed: the log, slice by slice, as events that somebody here folds.

    load    copy the rows of a slice out of the database, and end the view
    open    decrypt and read those that concern a reducer of ours

**Late identity.**  Entries of a subject that nobody knows yet are not folded; their indices wait in `backlog`.  At the
binding entry they are folded, in ascending order, before anything later; however many they are, they are loaded in
pieces no larger than a slice.  The backlog is a function of the log up to the position, so it is saved with the states.

**Rotten rows.**  A row that cannot be opened, or is of no known form, is `Rotten` in place of an event: what its event
says nobody knows, so whoever needs it stops there, and nobody else (`replay.runner`).

**Ticks** are entries, too: `Portion.tick` says that every key of the reducers of that period is to see it.

What is folded with it is `replay.holding`; who turns the wheel, `replay.runner`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from archive import (
    PIECE_BYTES,
    ROW_BINDING,
    ROW_EVENT,
    Event,
    FormatError,
    Header,
    IntegrityError,
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
    outline,
    parse_json,
    parse_opening,
    parse_row,
    read_event,
    read_many,
    row_at,
    subjects_at,
)
from reducers import Reducer, due, tick
from replay.budget import BUDGET, unwritten
from replay.layout import Waiting
from replay.portion import Item, Portion, portions_of
from replay.routing import Routing

SLICE_ENTRIES = 4_096
SLICE_BYTES_MAX = 32 << 20
MODULE_SENDER = "module:"
"""How the sender of every message of a module begins; nobody outside can be it (`api.ingest`)."""
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
    reducers: list[list[Reducer[Any]]]

    def extend(
        self,
        indices: Iterable[int],
        bundle: bytes,
        places: Sequence[int],
        reducers: Iterable[list[Reducer[Any]]],
    ) -> None:
        """Add entries of one bundle behind these."""
        self.indices.extend(indices)
        self.bundles.extend([bundle] * len(places))
        self.places.extend(places)
        self.reducers.extend(reducers)

    def part(self, start: int, stop: int) -> _Run:
        """Return the entries from place `start` up to `stop`."""
        part = slice(start, stop)
        return _Run(self.indices[part], self.bundles[part], self.places[part], self.reducers[part])

    def about(self, at: int) -> tuple[int, ...]:
        """Return whom the entry at a place is about."""
        return subjects_at(self.bundles[at], self.places[at])


class Rotten(msgspec.Struct, frozen=True, gc=False):
    """An entry whose private row cannot be read, though nobody was erased."""

    at: int
    reducers: list[Reducer[Any]]
    """Those that it may concern."""
    reason: str


_Unsound = (IntegrityError, FormatError)
_ALONE = 256
"""Rows that are read one by one where one of them is not sound: as many as a bundle has, at most."""
_Picked = tuple[int, int, list[int], list[int], list[list[Reducer[Any]] | None], dict[bytes, int]]
"""As `archive` says it of a bundle."""


class Bound(msgspec.Struct, frozen=True, gc=False):
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
        self.tally: Counter[bytes] = Counter()
        """How many events had which outline, until somebody takes it."""
        self.routing = routing
        self._vault = vault

    def load(self, log: Log, until: int | None = None) -> tuple[list[_Run | Bound | Rotten], int]:
        """Return what of the next slice is ours, in folding order, and where the slice ends.  Nothing moves yet."""
        stop = min(log.size if until is None else until, self.position + SLICE_ENTRIES)
        work: list[_Run | Bound | Rotten] = []
        run, size, position, routing = _Run([], [], [], []), 0, self.position, self.routing
        for bundle, picked in self._picked(log, position, stop):
            if isinstance(picked, Rotten):
                work += [run, picked]
                run, position = _Run([], [], [], []), picked.at + 1
                continue
            end, asked, indices, places, answers, tally = picked
            # A sixth of the time of `update`, for the one or two that there are.
            for kind, many in tally.items():
                self.tally[kind] += many
            if not asked:
                run.extend(indices, bundle, places, cast("list[list[Reducer[Any]]]", answers))
            else:
                for index, place, known in zip(indices, places, answers, strict=True):
                    row = parse_row(row_at(bundle, place))
                    if row.kind == ROW_BINDING:
                        work += [run, Bound(index, row, self._taken(row))]
                        run = _Run([], [], [], [])
                    elif row.provisional:
                        self._wait(row.subjects[0], index)
                    elif reducers := routing.concerned(row) if known is None else known:
                        run.extend([index], bundle, [place], [reducers])
            size, position = size + len(bundle), end
            if size > SLICE_BYTES_MAX:
                break
        return [*work, run], position

    def portions(self, work: list[_Run | Bound | Rotten], source: LogSource) -> Iterator[Portion | Rotten]:
        """Yield the events of a slice in order, a portion at a time; no view is open meanwhile."""
        for one in work:
            if isinstance(one, _Run):
                yield from self._opened(one)
            elif isinstance(one, Rotten):
                yield one
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

    def _picked(self, log: Log, start: int, stop: int) -> Iterator[tuple[bytes, _Picked | Rotten]]:
        """Yield each bundle with what is wanted of it; one of which a row is none, row by row."""
        share, seen = self.routing.share, self.routing.seen
        while start < stop:
            try:
                for bundle, picked in log.picked(start, stop, share, seen):
                    start = picked[0]
                    yield bundle, picked
                return
            except FormatError:
                end = min(stop, start + _ALONE)
                yield from (one for index in range(start, end) for one in self._picked_alone(log, index))
                start = end

    def _picked_alone(self, log: Log, index: int) -> Iterator[tuple[bytes, _Picked | Rotten]]:
        """Yield the row of an entry as a bundle of its own, if it is wanted; its form says what it is, or nothing."""
        try:
            data = log.row(index)
            row = parse_row(data) if data else None
        except FormatError as error:
            yield b"", Rotten(index, self.routing.everyone, str(error))
            return
        wanted = row is not None and (row.kind in {ROW_EVENT, ROW_BINDING} or row.provisional)
        count = 1 if wanted else 0
        plain = row is not None and row.kind == ROW_EVENT and not row.provisional
        tally = {outline(row.routes, self.routing.share): 1} if row is not None and plain else {}
        picked: _Picked = (index + 1, count, [index] * count, [4] * count, [None] * count, tally)
        yield len(data).to_bytes(4) + data, picked

    def _wait(self, subject: int, index: int) -> None:
        self.touched.setdefault(subject, self.stored.get(subject, 0))
        self.backlog.setdefault(subject, []).append(index)

    def _taken(self, binding: Row) -> list[int]:
        """Take the backlog of a binding's provisional subject, and return what of it may be ours."""
        subject = binding.subjects[1]
        self.touched[subject] = 0
        indices = self.backlog.pop(subject, [])
        return indices if self.routing.bound_here(binding) else []

    def _backlog_of(self, bound: Bound, source: LogSource) -> Iterator[Portion | Rotten]:
        at = 0
        while at < len(bound.indices):
            with source.open() as log:
                piece, at = self._piece(log, bound, at)
            yield from _in_order(one if isinstance(one, Rotten) else self._item(one) for one in piece)

    def _piece(self, log: Log, bound: Bound, at: int) -> tuple[list[_Work | Rotten], int]:
        """Return what is ours of a backlog from its `at`-th entry on, a slice at most, and where that ends."""
        piece: list[_Work | Rotten] = []
        size, stop = 0, min(at + SLICE_ENTRIES, len(bound.indices))
        while at < stop and size <= PIECE_BYTES:
            try:
                data = log.row(bound.indices[at])
                row = parse_row(data)
            except FormatError as error:
                piece.append(Rotten(bound.indices[at], self.routing.everyone, str(error)))
                at += 1
                continue
            if row.kind == ROW_EVENT:
                self.tally[outline(bound.binding.routes + row.routes, self.routing.share)] += 1
                reducers = self.routing.concerned(row, bound.binding)
            else:
                reducers = []
            if reducers:
                piece.append(_Work(bound.indices[at], bound.at, row, reducers, bound.binding))
            at, size = at + 1, size + len(data)
        return piece, at

    def _opened(self, run: _Run) -> Iterator[Portion | Rotten]:
        """Yield the events of a run, in pieces that were opened together."""
        at = 0
        for piece in self._read(run):
            if piece is None:
                stop = min(at + _ALONE, len(run.indices))
                yield from _in_order(self._alone(run.part(place, place + 1)) for place in range(at, stop))
                at = stop
                continue
            found, plain = piece
            part = run.part(at, at + len(found))
            if plain:  # as nearly always
                yield Portion(cast("list[Event]", found), part.reducers, part.about)
            else:
                yield from portions_of(self._items(part, found))
            at += len(found)

    def _read(self, run: _Run) -> Iterator[tuple[list[Read], bool] | None]:
        """Yield what the rows of a run are, in pieces; None in place of `_ALONE` rows of which one is not sound."""
        at = 0
        while at < len(run.indices):
            rest = run.part(at, len(run.indices)) if at else run
            try:
                for piece in read_many(*rest[:3], self._vault, MODULE_SENDER):
                    yield piece
                    at += len(piece.read)
            except _Unsound:
                yield None
                at += _ALONE

    def _alone(self, one: _Run) -> Item | Rotten | None:
        """Return the event of a run of one entry, None if it is erased or nobody can read it."""
        try:
            ((found, _),) = read_many(*one[:3], self._vault, MODULE_SENDER)
            return next(self._items(one, found), None)
        except _Unsound as error:
            return Rotten(one.indices[0], one.reducers[0], str(error))

    def _items(self, run: _Run, found: Sequence[Read]) -> Iterator[Item]:
        for index, bundle, place, reducers, read in zip(*run, found, strict=True):
            if isinstance(read, Event):
                yield Item(index, index, read, reducers, subjects_at(bundle, place))
            elif read is None:
                self.erased += 1
            else:
                work = _Work(index, index, parse_row(row_at(bundle, place)), reducers, None)
                if (item := self._special(work, read, None)) is not None:
                    yield item

    def _item(self, one: _Work) -> Item | Rotten | None:
        """Return the event of an entry, or None if it is erased or cannot be read by anybody."""
        at = one.at
        try:
            opened, at = self._open(one.row), one.due
            binding = None if one.binding is None else self._open(one.binding)
            return self._special(one, opened, binding)
        except NotFound:
            self.erased += 1
            return None
        except _Unsound as error:
            return Rotten(at, one.reducers, str(error))

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
        hops, budget = _led(header)
        return Item(one.at, one.due, event, one.reducers, one.row.subjects, hops, budget=budget)

    def _open(self, row: Row) -> Opened:
        return parse_opening(open_row(row, self._vault.data_key(row.subjects)))


def _in_order(items: Iterable[Item | Rotten | None]) -> Iterator[Portion | Rotten]:
    """Yield items as portions, and between them what is rotten where it stands."""
    waiting: list[Item] = []
    for one in items:
        if isinstance(one, Rotten):
            yield from portions_of(waiting)
            waiting = []
            yield one
        elif one is not None:
            waiting.append(one)
    yield from portions_of(waiting)


def _led(header: Header) -> tuple[int, int]:
    """Return how many messages led to an entry, and how many may come of it; only a message says so itself."""
    if not header.sender.startswith(MODULE_SENDER):
        return 0, BUDGET
    hops = header.extra.get("hops", 0)
    return hops, header.extra.get("budget", unwritten(hops))


def locked_fields(opened: Opened) -> dict[str, Any]:
    """Return the LO fields that were locked when an entry was received."""
    lock = opened.header.extra.get("lock")
    found = parse_json(lock) if lock else {}
    return found if isinstance(found, dict) else {}
