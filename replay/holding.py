"""A holding: one module in one shard, its states and what folds events into them.

Everything about a module that can go wrong ends here and harms no other: its states, its position, its store are its
own.  Three things may happen to it beside going on:

    a key is quarantined     an exception is the event's result: part of the fold (`reducers.fold`)
    the module stops         memory, recursion, a state that cannot be encoded, a store that cannot be read: nothing is
                             skipped, its position stays
    a key is folded again    a skip or a retry in the log (`replay.runner`)

A portion is folded by one reducer after the other: none sees another's states, so their order does not show, and what
one needs stays at hand.  The usual event, of a key whose state is in memory, is `reducers.fold_run`'s; here is what
is not usual: a key that is seen for the first time or is to be looked up, a tick, a message.

    holding = Holding(module.reducers, store, module.name)
    holding.resume(log)
    holding.fold(portion, routing)
    holding.save(position, root, backlog)

How states are kept is the business of `replay.held`; where the events come from, of `replay.feed`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from archive import ActiveReducer, Event, Store, Unavailable, field_code
from reducers import BUILTIN, Key, Message, Reducer, Run, Slot, StateError, addressed, fold_one, fold_run
from replay.attempt import IDLE, word_of
from replay.folded import Outgoing, outgoing, private, stopped_by
from replay.held import KEYS_MAX, Held
from replay.portion import Item, Portion
from replay.routing import Routing
from replay.steering import Gathered


class Watch(Protocol):
    """Looks after a process that several modules share: `tools.metering`."""

    def before(self, holding: Holding, /) -> None:
        """Take note that a module begins to fold a portion."""

    def after(self, holding: Holding, /) -> None:
        """Take note that it has folded it; a module that takes too much is stopped here."""


class Holding(Held):
    """The states of one module in one shard.  Without a store they live in memory only (a replay)."""

    def __init__(
        self,
        reducers: Iterable[Reducer[Any]],
        store: Store | None = None,
        module: str = "",
        *,
        keys_max: int = KEYS_MAX,
    ) -> None:
        super().__init__(reducers, store, module, keys_max=keys_max)
        self.outbox: list[Outgoing] = []
        self.watch: Watch | None = None
        """Whoever looks after the process that this module shares with others."""
        self._private = any(one.module not in BUILTIN for one in self.reducers)
        self._needed = {one.name: frozenset(map(field_code, one.certain)) for one in self.reducers}
        self._skips: dict[str, frozenset[int]] = {}
        self._emits_from: int | None = None
        self._speaks_as: list[ActiveReducer] | None = None

    def apart(self, reducer: Reducer[Any]) -> Holding:
        """Return an empty holding of one reducer, without a store: to fold some of its keys anew.

        It says what a fold from the beginning would say, so that a restart at another time says nothing new; what was
        said before is in the log, and stands once.
        """
        alone = Holding([reducer], module=self.module)
        alone.attempt, alone._speaks_as = self.attempt, self.identities
        return alone

    def steer(self, steering: Gathered) -> None:
        """Take over which events are passed over, and from where on messages are emitted."""
        skips = {reducer.name: steering.skipped(reducer.name) for reducer in self.reducers}
        self._skips = {name: indices for name, indices in skips.items() if indices}
        self._emits_from = steering.emits_from(self.module, self._speaks_as or self.identities)

    def keys_of(self, reducer: Reducer[Any], items: Sequence[Item]) -> list[Key | None]:
        """Return the key that each of these events goes to, None where it goes to none; they are no ticks."""
        return [reducer.key_of(item.event) for item in items]

    def count(self, tally: Mapping[frozenset[bytes], int]) -> None:
        """Count what each reducer passed over for want of a field; a tally says how many events had which (codes)."""
        for codes, times in tally.items():
            for name, needed in self._needed.items():
                if not needed <= codes:
                    self.lacking[name] += times

    def fold(self, portion: Portion, routing: Routing) -> None:
        """Fold events in order, as far as they are this module's.

        Where the module cannot go on, `stopped` says why, and the states must not be saved.  If that is because a
        stored state cannot be read, all of them are removed, and the next start begins anew.  Raises Unavailable where
        its store cannot be read just now.
        """
        if self.watch is not None:
            self.watch.before(self)
        try:
            self._fold(portion, routing)
            if (
                self.watch is not None
            ):  # while the word stands: it may end this process, to the module's blame
                self.watch.after(self)
        except StateError as error:
            self.unreadable(error)
        except Unavailable:  # nobody's doing
            self.attempt[0] = IDLE
            raise
        self.attempt[0] = IDLE  # whatever else is raised, or does not even return, leaves its word

    def _fold(self, portion: Portion, routing: Routing) -> None:
        for reducer in self.reducers:
            own = portion.concerning(reducer).without(self._skips.get(reducer.name, ()))
            if own.tick:
                self._fold_tick(reducer, own.item(0), routing)
            elif reducer.emits and self._emits_from is not None:
                mute = bisect_left(range(len(own)), self._emits_from, key=own.due)
                self._fold_run(reducer, own, 0, mute, None, routing)
                self._fold_run(reducer, own, mute, len(own), [], routing)
            else:
                self._fold_run(reducer, own, 0, len(own), None, routing)
            if self.stopped is not None:
                return

    def _fold_run(
        self,
        reducer: Reducer[Any],
        portion: Portion,
        place: int,
        stop: int,
        out: list[Message] | None,
        routing: Routing,
    ) -> None:
        """Fold the events from `place` up to `stop`; what they say into `out` goes to the outbox, event by event."""
        events, name = portion.events, reducer.name
        own = private if self._private else None
        run = Run(reducer, self.slots[name], self._dirty[name], self._since, self.attempt, own)
        while place < stop and self.stopped is None:
            error: BaseException | None = None
            if not reducer.keyed:  # else only the reducer can say whether an event's key is at hand
                place, error = fold_run(run, events, place, stop, out)
            if error is not None:
                self.stopped = stopped_by(name, events[place].index, error)
            elif out:
                self._say(reducer, portion.item(place - 1), out)
            elif place < stop:
                self._fold_key(reducer, events[place], routing, out)
                if out:
                    self._say(reducer, portion.item(place), out)
                place += 1

    def _fold_key(
        self, reducer: Reducer[Any], event: Event, routing: Routing, out: list[Message] | None
    ) -> None:
        """Fold an event into its key, wherever the state is: in memory, stored, or not there yet."""
        self.attempt[0] = word_of(event.index)
        try:
            if (key := reducer.key_of(event)) is None:
                return
            before = self.get(reducer, key)
            if before is not None or routing.holds(reducer, key):
                self._fold_one(reducer, key, before, event, out)
        except (StateError, Unavailable):
            raise
        except BaseException as error:  # noqa: BLE001 - a stored state that is too much just now, or anything
            self.stopped = stopped_by(reducer.name, event.index, error)

    def _fold_tick(self, reducer: Reducer[Any], item: Item, routing: Routing) -> None:
        """Fold a tick into each key that there is."""
        self.attempt[0] = word_of(item.at)
        try:
            for beat, (key, event) in enumerate(self._addressed(reducer, item)):
                if beat:
                    self.attempt[0] = word_of(item.at, beat)
                before = self.get(reducer, key)
                if before is not None or routing.holds(reducer, key):
                    out: list[Message] | None = None
                    if reducer.emits and self._emits_from is not None and item.due >= self._emits_from:
                        out = []
                    self._fold_one(reducer, key, before, event, out)
                    self._say(reducer, item, out or [], key)
                if self.stopped is not None:
                    return
        except (StateError, Unavailable):
            raise
        except BaseException as error:  # noqa: BLE001 - a stored state that is too much just now, or anything
            self.stopped = stopped_by(reducer.name, item.at, error)

    def _addressed(self, reducer: Reducer[Any], item: Item) -> Sequence[tuple[Key, Event]]:
        """Return the keys that an event goes to, each with the event as it sees it: of a tick, all that there are."""
        if item.tick:
            return addressed(reducer, item.event, self.keys(reducer))
        key = reducer.key_of(item.event)
        return () if key is None else ((key, item.event),)

    def _fold_one(
        self,
        reducer: Reducer[Any],
        key: Key,
        before: Slot[Any] | None,
        event: Event,
        out: list[Message] | None,
    ) -> None:
        try:
            after = fold_one(reducer, before, private(event) if self._private else event, out)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it stops this module and no other
            self.stopped = stopped_by(reducer.name, event.index, error)
            return
        if after is not before:
            self.put(reducer, key, after)

    def _say(self, reducer: Reducer[Any], item: Item, out: list[Message], key: Key | None = None) -> None:
        """Put what a reducer said at an event into the outbox."""
        if out:
            spoken = reducer.key_of(item.event) if key is None else key
            assert spoken is not None
            self.outbox += outgoing(self.module, reducer, spoken, out, item)
            out.clear()
