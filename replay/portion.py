"""A portion: some events of the log that are opened together and folded together, in order.

Nearly all events are of the usual kind: folded at their own index, led to by no message, and concerning the same
reducers as the event before.  So a portion is columns, not things: its events, whom each concerns, whom each is about;
and only what is odd has an `Item` of its own.  Whoever wants things asks for them, one by one.

    portion.events                       what is folded
    portion.concerning(reducer)          the part of it that a reducer may have to fold
    for item in portion: ...             each event with its circumstances

A tick is a portion by itself, since it is for every key.  Who makes portions: `replay.feed`; who folds them,
`replay.holding`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from archive import Event
from reducers import Reducer
from replay.budget import BUDGET


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
    budget: int = BUDGET
    """How many messages may come of it (`replay.budget`)."""

    @property
    def odd(self) -> bool:
        """Whether it is not of the usual kind."""
        return self.due != self.at or bool(self.hops) or self.tick or self.budget != BUDGET


class Portion:
    """Events, in order; whom each concerns; and by place (from 0) whom it is about, and those that are odd."""

    __slots__ = ("_about", "_odd", "events", "reducers")

    def __init__(
        self,
        events: list[Event],
        reducers: list[list[Reducer[Any]]],
        about: Callable[[int], tuple[int, ...]],
        odd: dict[int, Item] | None = None,
    ) -> None:
        self.events, self.reducers = events, reducers
        self._about, self._odd = about, odd if odd is not None else {}

    @classmethod
    def of(cls, items: Sequence[Item]) -> Portion:
        """Return a portion of these items."""
        odd = {at: one for at, one in enumerate(items) if one.odd}
        return cls(
            [one.event for one in items],
            [one.reducers for one in items],
            [one.subjects for one in items].__getitem__,
            odd,
        )

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Item]:
        return map(self.item, range(len(self.events)))

    def item(self, place: int) -> Item:
        """Return the event at a place with its circumstances."""
        if (odd := self._odd.get(place)) is not None:
            return odd
        event = self.events[place]
        return Item(event.index, event.index, event, self.reducers[place], self._about(place))

    def due(self, place: int) -> int:
        """Return the index at which the event at a place is folded; it never decreases within a portion."""
        odd = self._odd.get(place)
        return self.events[place].index if odd is None else odd.due

    @property
    def tick(self) -> bool:
        """Whether this is a tick."""
        return bool(self._odd) and any(one.tick for one in self._odd.values())

    def concerning(self, reducer: Reducer[Any]) -> Portion:
        """Return the part of it that may concern a reducer: usually all of it, or nothing."""
        column = self.reducers
        if column and column.count(column[0]) == len(column):
            return self if reducer in column[0] else _NOTHING
        return self._only([at for at, one in enumerate(column) if reducer in one])

    def without(self, indices: Collection[int]) -> Portion:
        """Return it without the events of these indices, and those that a binding at one of them gave to a person."""
        met = any(event.index in indices for event in self.events) if indices else False
        if not met and not (indices and any(one.due in indices for one in self._odd.values())):
            return self
        return self._only(
            [
                at
                for at, event in enumerate(self.events)
                if event.index not in indices and self.due(at) not in indices
            ]
        )

    def _only(self, places: Sequence[int]) -> Portion:
        events, reducers, about = self.events, self.reducers, self._about
        odd = {now: self._odd[at] for now, at in enumerate(places) if at in self._odd} if self._odd else {}
        return Portion(
            [events[at] for at in places],
            [reducers[at] for at in places],
            lambda place: about(places[place]),
            odd,
        )


_NOTHING = Portion([], [], [].__getitem__)


def portions_of(items: Iterable[Item]) -> Iterator[Portion]:
    """Yield items as portions: all of them as one, but for ticks, which stand alone."""
    waiting: list[Item] = []
    for item in items:
        if item.tick and waiting:
            yield Portion.of(waiting)
            waiting = []
        waiting.append(item)
        if item.tick:
            yield Portion.of(waiting)
            waiting = []
    if waiting:
        yield Portion.of(waiting)
