"""A module in a cell, as its worker sees it: a holding whose states are bytes, and whose fold is a question.

    worker                                              cell (`replay.tenant`)
    log, keys, states, position, messages               the module's code
    which event goes into which state         ->        fold
    what changed                              <-

Whose states an event goes into the worker tells from its key fields; where only code of the module can tell
(`reducers.Reducer.keyed`), the cell is asked first, and cannot say that it is another student's.

The worker never imports the module.  In place of each reducer stands a `Remote`, whose states are encodings that came
from the cell; so saving, digests, quarantines and rebuilding are those of any holding.  What the cell answers is held
against what it was asked: keys that were not in the piece, events that were not, messages of a reducer that emits none,
are a breach, which stops the module as a crash does.

What one piece may take, and what happens to a cell that does not answer, is the business of who asks (`ask`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec

from archive import Event, FormatError, Store
from reducers import Key, Message, Outbox, Reducer, Slot, StateError
from replay.attempt import word_of
from replay.cell_wire import (
    Done,
    Given,
    Halt,
    Keyed,
    Piece,
    Question,
    Task,
    WireEvent,
    data_of,
    to_wire,
)
from replay.escalation import Kind
from replay.folded import Stopped, outgoing
from replay.held import KEYS_MAX
from replay.holding import Holding
from replay.layout import StoredSlot
from replay.portion import Item, Portion
from replay.remote import Sealed, checked, checked_key
from replay.routing import Routing

TASKS_MAX = 1_024
PIECE_BYTES_MAX = 8 << 20
DROPPED_MAX = 1_000
"""Keys that a cell is told to forget one by one; beyond that it forgets all, and is given what it needs."""


class CellDied(Exception):
    """A cell gives no answer any more; `task` is what it was doing, counted from 0, or None.

    The reason is in our own words (`ours`), unless it quotes what the cell has said.
    """

    def __init__(
        self, reason: str, task: int | None = None, kind: Kind = "died", *, ours: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason, self.task, self.kind, self.ours = reason, task, kind, ours


Ask = Callable[[Piece | Question], Done | Keyed]
"""Returns the answer, Done to a Piece, Keyed to a Question; raises CellDied."""


class _Ended(Exception):
    def __init__(self, stopped: Stopped) -> None:
        super().__init__(stopped.reason)
        self.stopped = stopped


class _Batch:
    """What goes into one piece; `items` and `keys` are those of its tasks."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.items: list[Item] = []
        self.given: list[Given] = []
        self.keys: dict[tuple[str, Key], Slot[Sealed] | None] = {}
        """Of this piece, with the state before it."""
        self.size = 0
        self._events: list[WireEvent] = []
        self._last = -1

    def add(
        self, item: Item, place: int, reducer: Reducer[Any], key: Key, slot: Slot[Any] | None, *, held: bool
    ) -> None:
        """Add a task; its event goes along once, and the state unless the cell holds it."""
        if self._last != item.at or not self._events:
            self._events.append(to_wire(item.event))
            self._last = item.at
            self.size += len(msgspec.msgpack.encode(self._events[-1]))
        self.size += sum(map(len, key))
        if (reducer.name, key) not in self.keys:
            self.keys[reducer.name, key] = slot
            if (
                slot is not None
            ):  # what is held counts, too: all of it may have to be sent, and may be answered
                self.size += len(slot.state.encoding) + sum(map(len, key))
                if not held:
                    self.given.append(_given(place, reducer, key, slot))
        self.items.append(item)
        self.tasks.append(Task(len(self._events) - 1, place, key, False, item.tick))

    def emitting(self) -> None:
        """Let the task that was added last emit messages."""
        self.tasks[-1] = msgspec.structs.replace(self.tasks[-1], emits=True)

    def piece(self, space: int, dropped: list[tuple[int, Key]], *, fresh: bool) -> Piece:
        """Return what is sent to the cell."""
        return Piece(space, self._events, self.tasks, self.given, dropped, fresh)


class CellHolding(Holding):
    """The states of one module in one shard, folded in a cell, which numbers the reducers as `places` says."""

    def __init__(
        self,
        reducers: Iterable[Reducer[Any]],
        ask: Ask,
        store: Store | None = None,
        module: str = "",
        *,
        places: dict[str, int] | None = None,
        space: int = 0,
        keys_max: int = KEYS_MAX,
    ) -> None:
        super().__init__(reducers, store, module, keys_max=keys_max)
        self._ask, self._space = ask, space
        self.tasks_max = TASKS_MAX
        """Of one piece; with 1, whatever a cell does to its worker is known to be that event's doing."""
        self._places = places or {one.name: place for place, one in enumerate(self.reducers)}
        self._held: dict[tuple[str, Key], None] = {}
        """States that the cell holds, too; what was used last stands last."""
        self._dropped: list[tuple[int, Key]] = []
        self._fresh = True
        self._found: dict[tuple[str, int], Key | None] = {}
        """By reducer and entry of this portion: the keys that the cell was asked for."""

    def apart(self, reducer: Reducer[Any]) -> Holding:
        """Return an empty holding of one reducer in the same cell, beside the states that are there."""
        places = {reducer.name: self._places[reducer.name]}
        alone = CellHolding([reducer], self._ask, module=self.module, places=places, space=self._space + 1)
        alone.attempt, alone._speaks_as = self.attempt, self.identities
        return alone

    def put(self, reducer: Reducer[Any], key: Key, slot: Slot[Any] | None) -> None:
        """Replace the state of a key; the cell is given it when it needs it."""
        super().put(reducer, key, slot)
        self._drop(reducer.name, key)

    def _fold(self, portion: Portion, routing: Routing) -> None:
        try:
            self._found = self._find(portion)
            batch = _Batch()
            for item in portion:
                for reducer in item.reducers:
                    if reducer.name in self._places and not self._skipped(reducer.name, item):
                        batch = self._add(batch, reducer, item, routing)
            self._send_off(batch)
        except _Ended as ended:
            self.stopped = ended.stopped

    def _addressed(self, reducer: Reducer[Any], item: Item) -> Sequence[tuple[Key, Event]]:
        if not reducer.keyed or item.tick:
            return super()._addressed(reducer, item)
        key = self._found[reducer.name, item.at]
        return () if key is None else ((key, item.event),)

    def _skipped(self, name: str, item: Item) -> bool:
        return not self._skips.get(name, frozenset()).isdisjoint((item.at, item.due))

    def _add(self, batch: _Batch, reducer: Reducer[Any], item: Item, routing: Routing) -> _Batch:
        emits = reducer.emits and self._emits_from is not None and item.due >= self._emits_from
        if item.tick and batch.tasks:  # which keys there are, is known only after what came before
            self._send_off(batch)
            batch = _Batch()
        for key, _ in self._addressed(reducer, item):
            if len(batch.tasks) >= self.tasks_max or batch.size >= PIECE_BYTES_MAX:
                self._send_off(batch)
                batch = _Batch()
            slot, name = self.get(reducer, key), (reducer.name, key)
            if slot is None and name not in batch.keys and not routing.holds(reducer, key):
                continue
            if slot is not None and slot.error_index is not None:
                continue  # it stands still, whatever comes
            batch.add(item, self._places[reducer.name], reducer, key, slot, held=name in self._held)
            if emits:
                batch.emitting()
        return batch

    # --- whose states ----------------------------------------------------------------------------

    def keys_of(self, reducer: Reducer[Any], items: Sequence[Item]) -> list[Key | None]:
        """Return the key that each of these events goes to; where the cell does not say, the module is stopped."""
        if not reducer.keyed:
            return super().keys_of(reducer, items)
        try:
            return self._keys([(reducer, item) for item in items])
        except _Ended as ended:
            self.stopped = ended.stopped
            return [None] * len(items)

    def _find(self, portion: Portion) -> dict[tuple[str, int], Key | None]:
        """Return, by reducer and entry, the keys of a portion that only the cell can tell."""
        keyed = {one.name for one in self.reducers if one.keyed}
        asked = [
            (reducer, item)
            for item in (portion if keyed and not portion.tick else ())
            for reducer in item.reducers
            if reducer.name in keyed and not self._skipped(reducer.name, item)
        ]
        keys = self._keys(asked)
        return {(reducer.name, item.at): key for (reducer, item), key in zip(asked, keys, strict=True)}

    def _keys(self, asked: Sequence[tuple[Reducer[Any], Item]]) -> list[Key | None]:
        """Ask in messages of bounded size."""
        keys: list[Key | None] = []
        while len(keys) < len(asked):
            keys += self._some_keys(asked[len(keys) : len(keys) + self.tasks_max])
        return keys

    def _some_keys(self, asked: Sequence[tuple[Reducer[Any], Item]]) -> list[Key | None]:
        """Return the keys of the first of these, as many as go into one message."""
        question, size, last = Question([], []), 0, -1
        for reducer, item in asked:
            if last != item.at:
                if size >= PIECE_BYTES_MAX:
                    break
                question.events.append(to_wire(item.event))
                size, last = size + len(msgspec.msgpack.encode(question.events[-1])), item.at
            question.asked.append((len(question.events) - 1, self._places[reducer.name]))
        names = [(reducer.name, item.at) for reducer, item in asked[: len(question.asked)]]
        self.attempt[0] = word_of(names[0][1])
        try:
            back = self._ask(question)
            assert isinstance(back, Keyed)
        except CellDied as died:
            name, at = names[min(died.task or 0, len(names) - 1)]
            raise _Ended(Stopped(name, at, died.reason, died.kind, died.ours)) from None
        if (halt := back.halt) is not None:
            name, at = names[min(halt.task, len(names) - 1)]
            raise _Ended(Stopped(name, at, halt.reason, "memory" if halt.memory else "stopped"))
        try:
            return [
                checked_key(reducer, item.event, key)
                for (reducer, item), key in zip(asked[: len(names)], back.keys, strict=True)
            ]
        except (FormatError, ValueError) as error:
            raise _Ended(Stopped("", names[0][1], f"Breach: {error}", "died")) from None

    # --- one piece -------------------------------------------------------------------------------

    def _send_off(self, batch: _Batch) -> None:
        if not batch.tasks:
            return
        piece = batch.piece(self._space, self._dropped, fresh=self._fresh)
        done = self._asked(batch, piece)
        if done.halt is not None and done.halt.encoding:  # once more, to find the event that did it
            done = self._asked(batch, self._careful(batch, piece))
            self._held = {}
        if done.halt is not None and done.halt.unsaid and len(batch.tasks) > 1:
            self._send_halves(batch)
            return
        if done.halt is not None:
            raise self._halted(batch, done.halt)
        try:
            self._take(batch, done)
        except (FormatError, TypeError, ValueError, RecursionError, msgspec.DecodeError) as error:
            raise _Ended(Stopped("", batch.items[0].at, f"Breach: {error}", "died")) from None
        self._fresh, self._dropped = False, []
        self._hold(batch)

    def _send_halves(self, batch: _Batch) -> None:
        """Have a batch folded in two pieces, from what was before it: in one, question or answer are too large."""
        self._forget_held()
        half = len(batch.tasks) // 2
        for numbers in (range(half), range(half, len(batch.tasks))):
            part = _Batch()
            for number in numbers:
                task, name = batch.tasks[number], self._name(batch.tasks[number])
                reducer, held = self._by_name[name], (name, task.key) in self._held
                slot = self.get(reducer, task.key)
                part.add(batch.items[number], task.reducer, reducer, task.key, slot, held=held)
                if task.emits:
                    part.emitting()
            self._send_off(part)

    def _asked(self, batch: _Batch, piece: Piece) -> Done:
        self.attempt[0] = word_of(batch.items[0].at)
        try:
            back = self._ask(piece)
            assert isinstance(back, Done)
            return back
        except CellDied as died:
            task = min(died.task or 0, len(batch.tasks) - 1)
            name, at = self._name(batch.tasks[task]), batch.items[task].at
            raise _Ended(Stopped(name, at, died.reason, died.kind, died.ours)) from None
        except (ValueError, OverflowError):  # it cannot even be asked
            return Done([], [], Halt(0, "TooLarge", unsaid=True))

    def _careful(self, batch: _Batch, piece: Piece) -> Piece:
        """Return the piece with every state that it needs, to be folded once more from the beginning."""
        given = [
            _given(self._places[name], self._by_name[name], key, slot)
            for (name, key), slot in batch.keys.items()
            if slot is not None
        ]
        return msgspec.structs.replace(piece, given=given, fresh=True, careful=True)

    def _halted(self, batch: _Batch, halt: Halt) -> _Ended:
        task = min(halt.task, len(batch.tasks) - 1)
        name, at = self._name(batch.tasks[task]), batch.items[task].at
        if halt.unreadable:
            self.attempt[0] = word_of(at)
            self.unreadable(StateError(name, halt.reason))
            assert self.stopped is not None
            return _Ended(self.stopped)
        if halt.unsaid:
            reason = "TooLarge: what comes of one event is more than can be sent"
            return _Ended(Stopped(name, at, reason, ours=True))
        return _Ended(Stopped(name, at, halt.reason, "memory" if halt.memory else "stopped"))

    def _name(self, task: Task) -> str:
        return next(name for name, place in self._places.items() if place == task.reducer)

    def _take(self, batch: _Batch, done: Done) -> None:
        """Put in what a cell says that changed; raise FormatError, TypeError or ValueError for a breach."""
        names = {place: name for name, place in self._places.items()}
        indices = {item.at for item in batch.items}
        for one in done.changed:
            name = names.get(one.reducer, "")
            if (name, one.slot.key) not in batch.keys:
                raise FormatError("a state that was not asked for")
            reducer = self._by_name[name]
            super().put(reducer, one.slot.key, checked(reducer, one.slot, indices))
        last = -1
        for number, group in groupby(done.said, key=lambda one: one.task):
            if number <= last or number >= len(batch.tasks) or not batch.tasks[number].emits:
                raise FormatError("a message that nobody can have emitted")
            last, out = number, list[Message]()
            emit = Outbox(out)
            for said in group:
                emit(said.type, keys=said.keys, data=data_of(said))
            task = batch.tasks[number]
            reducer = self._by_name[self._name(task)]
            self.outbox += outgoing(self.module, reducer, task.key, out, batch.items[number])

    # --- which states the cell holds -------------------------------------------------------------

    def _hold(self, batch: _Batch) -> None:
        for used in batch.keys:
            self._held.pop(used, None)
            self._held[used] = None
        for name, key in list(self._held)[: max(0, len(self._held) - self._keys_max)]:
            self._drop(name, key)

    def _drop(self, name: str, key: Key) -> None:
        if self._held.pop((name, key), 0) is None:
            self._dropped.append((self._places[name], key))
            if len(self._dropped) > DROPPED_MAX:
                self._forget_held()

    def _forget_held(self) -> None:
        """Begin anew with what the cell holds: it is given again what it needs."""
        self._fresh, self._held, self._dropped = True, {}, []


def _given(place: int, reducer: Reducer[Any], key: Key, slot: Slot[Any]) -> Given:
    stored = StoredSlot(
        reducer.version, key, slot.changed_at, slot.error, slot.error_index, slot.state.encoding
    )
    return Given(place, stored)
