"""The other side of a cell: folds what it is given, holds the states, and knows neither log nor keys nor files.

    tenant = Tenant(load(ref).reducers, word)
    done = tenant.answer(piece)

It folds as `replay.holding` does, with the same `fold_one`; what it does not do is to decide anything.  Which events go
into which state, what is saved and what is emitted is the worker's business (`replay.cell`).

`word` is memory shared with the worker: which task runs, counted from 1 on within a piece, and on through the states
that are encoded at its end.  It only grows, so that a worker can tell standing still from being slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reducers import Key, Message, Reducer, ReducerError, Slot, StateError, fold_one, tick_of
from replay.attempt import Word
from replay.cell_wire import Done, Given, Halt, Piece, Said, Task, from_wire
from replay.folded import private, reason_of, shown_of
from replay.layout import StoredSlot

Slots = dict[tuple[int, Key], "Slot[Any]"]


class _Halted(Exception):
    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.reason)
        self.halt = halt


class Tenant:
    """The states that a cell holds of one module."""

    def __init__(self, reducers: Sequence[Reducer[Any]], word: Word) -> None:
        self._reducers, self._word = list(reducers), word
        self._spaces: dict[int, Slots] = {}

    def answer(self, piece: Piece) -> Done:
        """Fold a piece and return what came of it; where it halts, the states held are of no use any more."""
        self._word[0] = 0
        if piece.fresh:
            self._spaces.pop(piece.space, None)
        slots = self._spaces.setdefault(piece.space, {})
        for key in piece.dropped:
            slots.pop(key, None)
        try:
            self._take(slots, piece.given)
            said, last = self._fold(slots, piece)
            changed = []
            for count, (key, task) in enumerate(last.items(), len(piece.tasks) + 1):
                self._word[0] = count
                changed.append(self._given(slots, key, task))
        except _Halted as halted:
            return Done([], [], halted.halt)
        finally:
            self._word[0] = 0
        return Done(changed, said)

    def _take(self, slots: Slots, given: Sequence[Given]) -> None:
        for one in given:
            stored = one.slot
            try:
                state = self._reducers[one.reducer].decode(stored.encoding)
            except ReducerError as error:
                raise _Halted(Halt(0, reason_of(error), unreadable=True)) from None
            slots[one.reducer, stored.key] = Slot(state, stored.changed_at, stored.error, stored.error_index)

    def _fold(self, slots: Slots, piece: Piece) -> tuple[list[Said], dict[tuple[int, Key], int]]:
        """Return what was emitted, and the last task that changed each key."""
        events = [from_wire(one) for one in piece.events]
        said: list[Said] = []
        last: dict[tuple[int, Key], int] = {}
        for number, task in enumerate(piece.tasks):
            self._word[0] = number + 1
            key, out = (task.reducer, task.key), list[Message]()
            before = slots.get(key)
            after = self._folded(task, before, events[task.event], number, out if task.emits else None)
            if after is not before:
                slots[key], last[key] = after, number
                if piece.careful:
                    self._given(slots, key, number)
            said += [Said(number, one.type, one.keys, one.data) for one in out]
        return said, last

    def _folded(
        self, task: Task, before: Slot[Any] | None, event: Any, number: int, out: list[Message] | None
    ) -> Slot[Any]:
        reducer = self._reducers[task.reducer]
        own = tick_of(event, reducer.scope, task.key) if task.tick else event
        try:
            return fold_one(reducer, before, private(own), out)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the worker is told
            raise _Halted(Halt(number, reason_of(error))) from None

    def _given(self, slots: Slots, key: tuple[int, Key], task: int) -> Given:
        reducer, slot = self._reducers[key[0]], slots[key]
        try:
            encoding = reducer.encode(slot.state)
        except (StateError, MemoryError, RecursionError) as error:
            raise _Halted(Halt(task, reason_of(error), encoding=True)) from None
        shown = None if reducer.viewer is None else shown_of(reducer, slot.state)
        stored = StoredSlot(
            reducer.version, key[1], slot.changed_at, slot.error, slot.error_index, encoding, shown
        )
        return Given(key[0], stored)
