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

from reducers import Key, Message, Reducer, Slot, Word, fold_one, tick_of
from replay.cell_wire import (
    FRAME_BYTES_MAX,
    STATE_BYTES_MAX,
    Done,
    Given,
    Halt,
    Keyed,
    Piece,
    Question,
    Said,
    Task,
    encode_frame,
    from_wire,
    to_said,
)
from replay.folded import private, shown_of
from replay.layout import StoredSlot
from replay.reasons import reason_of

Slots = dict[tuple[int, Key], "Slot[Any]"]
_UNSAID = Halt(0, "TooLarge", unsaid=True)
_TOO_LARGE = b'{"view_failed":"TooLarge"}'


class _Halted(Exception):
    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.reason)
        self.halt = halt


class Tenant:
    """The states that a cell holds of one module."""

    def __init__(self, reducers: Sequence[Reducer[Any]], word: Word) -> None:
        self._reducers, self._word = list(reducers), word
        self._spaces: dict[int, Slots] = {}

    def framed(self, message: Piece | Question) -> bytes:
        """Return the answer to a piece or a question as it is sent; one that is too large says so instead."""
        asked = isinstance(message, Question)
        try:
            return encode_frame(self.keys(message) if isinstance(message, Question) else self.answer(message))
        except (ValueError, TypeError, OverflowError, MemoryError, RecursionError):
            return encode_frame(Keyed([], _UNSAID) if asked else Done([], [], _UNSAID))

    def keys(self, question: Question) -> Keyed:
        """Return whose states events go into."""
        keys: list[Key | None] = []
        self._word[0] = 0
        try:
            events = [from_wire(one) for one in question.events]
            for event, reducer in question.asked:
                self._word[0] = len(keys) + 1
                keys.append(self._reducers[reducer].key_of(events[event]))
        except BaseException as error:  # noqa: BLE001 - the module's code: whatever it is, the worker is told
            memory = isinstance(error, MemoryError)
            return Keyed([], Halt(len(keys), reason_of(error), memory=memory))
        finally:
            self._word[0] = 0
        return Keyed(keys)

    def answer(self, piece: Piece) -> Done:
        """Fold a piece and return what came of it; where it halts, the states held are of no use any more."""
        self._word[0] = 0
        if piece.fresh:
            self._spaces.pop(piece.space, None)
        slots = self._spaces.setdefault(piece.space, {})
        for key in piece.dropped:
            slots.pop(key, None)
        try:
            self._take(slots, piece)
            said, last = self._fold(slots, piece)
            changed, size = list[Given](), 0
            for count, (key, task) in enumerate(last.items(), len(piece.tasks) + 1):
                self._word[0] = count
                changed.append(one := self._given(slots, key, task))
                size += len(one.slot.encoding) + len(one.slot.shown or b"")
                if size > FRAME_BYTES_MAX:
                    raise _Halted(_UNSAID)
        except _Halted as halted:
            return Done([], [], halted.halt)
        finally:
            self._word[0] = 0
        return Done(changed, said)

    def _take(self, slots: Slots, piece: Piece) -> None:
        for one in piece.given:
            stored = one.slot
            try:
                state = self._reducers[one.reducer].decode(stored.encoding)
            except BaseException as error:  # noqa: BLE001 - a state's class is the author's: it may raise anything
                whose = (one.reducer, stored.key)
                task = next((n for n, each in enumerate(piece.tasks) if (each.reducer, each.key) == whose), 0)
                elsewhere = isinstance(
                    error, MemoryError | RecursionError
                )  # then it may be read another time
                raise _Halted(Halt(task, reason_of(error), unreadable=not elsewhere)) from None
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
            said += [to_said(number, one) for one in out]
        return said, last

    def _folded(
        self, task: Task, before: Slot[Any] | None, event: Any, number: int, out: list[Message] | None
    ) -> Slot[Any]:
        reducer = self._reducers[task.reducer]
        own = tick_of(event, reducer.scope, task.key) if task.tick else event
        try:
            return fold_one(reducer, before, private(own), out)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the worker is told
            memory = isinstance(error, MemoryError)
            raise _Halted(Halt(number, reason_of(error), memory=memory)) from None

    def _given(self, slots: Slots, key: tuple[int, Key], task: int) -> Given:
        reducer, slot = self._reducers[key[0]], slots[key]
        try:
            encoding = reducer.encode(slot.state)
        except BaseException as error:  # noqa: BLE001 - to look at a state may run the author's code
            raise _Halted(Halt(task, reason_of(error), encoding=True)) from None
        if len(encoding) > STATE_BYTES_MAX:
            raise _Halted(Halt(task, f"TooLarge: a state of {len(encoding):,} bytes", encoding=True))
        shown = None if reducer.viewer is None else shown_of(reducer, slot.state)
        if shown is not None and len(shown) > STATE_BYTES_MAX:
            shown = _TOO_LARGE
        stored = StoredSlot(
            reducer.version, key[1], slot.changed_at, slot.error, slot.error_index, encoding, shown
        )
        return Given(key[0], stored)
