"""How an event changes a slot: quarantine is part of the fold, and a split changes nothing."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Event
from reducers import Emit, Key, Message, Reducer, Run, Slot, Word, fold, fold_one, fold_run, reducer


def at(index: int, data: Any, student: str = "ann") -> Event:
    """An event at `index` with this data."""
    return Event(
        index=index, type="t", source="s", keys={"student": student}, data=data, received_ms=0, time_ms=0
    )


CLOCK: Any = time
"""Reached in a way that a look at a reducer's code does not see."""


class MuteError(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


@reducer()
def picky(state: int, event: Event) -> int:
    """Add numbers, keep the state at 0, and raise whatever exception comes."""
    if isinstance(event.data, BaseException):
        raise event.data
    return state if event.data == 0 else state + event.data


def test_a_new_key_begins_with_the_first_state() -> None:
    """The first event of a key makes its slot, even where the event changes nothing."""
    assert fold_one(picky, None, at(7, 5)) == Slot(5, 7)
    assert fold_one(picky, None, at(7, 0)) == Slot(0, 7)


def test_an_event_that_changes_nothing_returns_the_very_slot() -> None:
    """Whoever writes states behind can tell by identity what needs no writing."""
    slot = Slot(5, 7)
    assert fold_one(picky, slot, at(8, 0)) is slot
    assert fold_one(picky, slot, at(8, 1)) == Slot(6, 8)


def test_an_exception_quarantines_the_key_for_good() -> None:
    """The last good state, the error and the index are kept, and no later event changes them."""
    slot = fold_one(picky, Slot(5, 7), at(8, ValueError("no such verb")))
    assert slot == Slot(5, 8, "ValueError: no such verb", 8)
    assert fold_one(picky, slot, at(9, 1)) is slot
    assert fold_one(picky, slot, at(9, KeyError("x"))) is slot


def test_an_exception_at_the_first_event_keeps_the_first_state() -> None:
    """A key may be quarantined before it ever had a state."""
    assert fold_one(picky, None, at(3, KeyError("x"))) == Slot(0, 3, "KeyError: 'x'", 3)


def test_a_missing_return_is_quarantined_like_any_exception() -> None:
    """Returning None is a bug of the reducer, at a place that replay finds again."""
    made = reducer(name="forgetful")(_forgetful)
    slot = fold_one(made, None, at(3, 1))
    assert slot.error is not None
    assert slot.error.startswith("TypeError: reducer 'forgetful' returned None")
    assert slot.error_index == 3


def _forgetful(_state: int, _event: Event) -> int:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    "stop", [MemoryError(), RecursionError(), KeyboardInterrupt(), SystemExit(), GeneratorExit()]
)
def test_what_depends_on_the_machine_is_never_a_quarantine(stop: BaseException) -> None:
    """Memory, recursion and cancellation stop the module; they must not become part of any state."""
    with pytest.raises(type(stop)):
        fold_one(picky, Slot(5, 7), at(8, stop))


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("x" * 999), "ValueError: " + "x" * 188),
        (ValueError("half \ud83d"), "ValueError: half ?"),
        (MuteError(), "MuteError: (its message cannot be read)"),
        (FileNotFoundError(2, "gone"), "FileNotFoundError: [Errno 2] gone"),
    ],
)
def test_an_error_can_always_be_stored_and_shown(error: Exception, shown: str) -> None:
    """The text is bounded at 200 characters, encodable, and there even where the exception gives none."""
    slot = fold_one(picky, None, at(0, error))
    assert slot.error == shown
    assert len(slot.error) <= 200
    slot.error.encode()


def test_a_quarantine_harms_its_key_only() -> None:
    """Other keys of the same reducer go on, and an event without the key field is passed over."""
    stray = Event(index=3, type="t", source="s", keys={}, data=1, received_ms=0, time_ms=0)
    slots = fold(picky, [at(0, 1), at(1, ValueError("x")), at(2, 5, "bob"), stray, at(4, 1)])
    assert slots == {("ann",): Slot(1, 1, "ValueError: x", 1), ("bob",): Slot(5, 2)}


DATA = st.integers(-3, 3) | st.just("not a number")


@given(st.lists(st.tuples(DATA, st.sampled_from(["ann", "bob", "eve"])), max_size=20), st.integers(0, 20))
def test_folding_a_split_equals_folding_the_whole(rows: list[tuple[Any, str]], cut: int) -> None:
    """Wherever the events are cut, quarantines included; and the slots begun from stay as they were."""
    events = [at(index, data, student) for index, (data, student) in enumerate(rows)]
    first = fold(picky, events[:cut])
    kept = dict(first)
    assert fold(picky, events[cut:], first) == fold(picky, events)
    assert first == kept


# --- many events at once -------------------------------------------------------------------------


@reducer(scope=("student", "doc"))
def telling(state: int, event: Event, emit: Emit) -> int:
    """Say what comes, and raise it where it is an exception."""
    emit("t.said", keys={}, data=type(event.data).__name__)
    if isinstance(event.data, BaseException):
        raise event.data
    return state if event.data == 0 else state + event.data


@reducer(scope=())
def nothing_at_two(state: int, event: Event) -> int:
    """Count all events in one state; forget to return it at a 2, and read the clock at a 3."""
    if event.data == 3:
        getattr(CLOCK, CLOCK.__name__)()
    return state + 1 if event.data != 2 else None  # type: ignore[return-value]


KINDS: list[Reducer[Any]] = [picky, telling, nothing_at_two]
happenings = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", None]),
        st.sampled_from([0, 1, 2, 3, ValueError("no"), MuteError()]),
    ),
    max_size=12,
)


def events_of(happened: Sequence[tuple[str | None, Any]]) -> list[Event]:
    """Return events at 10, 11, …; one without a student lacks a key field."""
    made = []
    for index, (student, data) in enumerate(happened, 10):
        keys = {"doc": "d"} if student is None else {"student": student, "doc": "d"}
        made.append(Event(index=index, type="t", source="s", keys=keys, data=data, received_ms=0, time_ms=0))
    return made


class Batch:
    """Folds events as a holding does: `fold_run` as far as it goes, `fold_one` for a key that it does not know."""

    def __init__(
        self,
        of: Reducer[Any],
        since: int = 1 << 63,
        own: Callable[[Event], Event] | None = None,
        word: Word | None = None,
    ) -> None:
        self.slots: dict[Key, Slot[Any] | None] = {}
        self.said: list[tuple[int, Message]] = []
        self.word = array("Q", [0]) if word is None else word
        self.run = Run(of, self.slots, set(), since, self.word, own)

    def fold(self, events: Sequence[Event], *, heard: bool) -> BaseException | None:
        """Fold all of them, or up to what stops a module."""
        place, of = 0, self.run.reducer
        out: list[Message] | None = [] if heard else None
        while place < len(events):
            place, error = fold_run(self.run, events, place, len(events), out)
            if error is not None:
                return error
            if not out and place < len(events):
                key = of.key_of(events[place])
                assert key is not None, "it stopped at an event that is nobody's"
                self.slots[key] = fold_one(of, self.slots.get(key), events[place], out)
                self.run.changed.add(key)
                place += 1
            self.said += [(events[place - 1].index, one) for one in out or []]
            if out:
                out.clear()
        return None


@given(st.sampled_from(KINDS), happenings, st.booleans(), st.integers(0, 12))
def test_many_events_are_folded_like_each(
    of: Reducer[Any], happened: list[tuple[str | None, Any]], heard: bool, cut: int
) -> None:
    """Slots, quarantines and messages are those of a plain fold, and of each message it is known when it was said."""
    events, plain, said = events_of(happened), dict[Key, Slot[Any]](), list[tuple[int, Message]]()
    for event in events:
        if (key := of.key_of(event)) is not None:
            out: list[Message] = []
            plain[key] = fold_one(of, plain.get(key), event, out)
            said += [(event.index, one) for one in out]
    batch = Batch(of)
    assert batch.fold(events[:cut], heard=heard) is None
    assert batch.fold(events[cut:], heard=heard) is None
    assert batch.slots == plain == fold(of, events)
    assert batch.said == (said if heard else [])
    assert batch.run.changed == plain.keys()


@given(happenings, st.integers(10, 22))
def test_what_changed_is_noted_unless_it_is_noted_already(
    happened: list[tuple[str | None, Any]], saved: int
) -> None:
    """Of slots that changed since the last save all are noted, whatever changed before."""
    events = events_of(happened)
    before, batch = Batch(picky), Batch(picky, since=saved)
    assert before.fold(events[: saved - 10], heard=False) is None
    batch.slots.update(before.slots)
    assert batch.fold(events[saved - 10 :], heard=False) is None
    assert batch.run.changed == {
        key for key, slot in batch.slots.items() if slot is not before.slots.get(key)
    }


@pytest.mark.parametrize(
    "stop", [MemoryError(), RecursionError(), KeyboardInterrupt(), SystemExit()], ids=repr
)
def test_what_stops_a_module_is_handed_back_at_its_event(stop: BaseException) -> None:
    """It is no result: the key stays as it was, the word names the event, and what came before is folded."""
    batch = Batch(picky)
    assert batch.fold([at(5, 1), at(6, 2), at(7, stop), at(8, 4)], heard=False) is stop
    assert batch.slots == {("ann",): Slot(3, 6)}
    assert fold_run(batch.run, [at(7, 1), at(8, stop)], 0, 2) == (1, stop)
    assert batch.word[0] == 9


def test_each_event_is_announced_before_it_is_folded_and_copied() -> None:
    """Whatever a copy or a reducer does to its process, the word says at which event."""
    noticed: list[int] = []
    word = array("Q", [0])

    @reducer()
    def noticing(state: int, event: Event) -> int:
        noticed.append(word[0])
        return state + int(event.data)

    def copy(event: Event) -> Event:
        noticed.append(word[0])
        return event

    batch = Batch(noticing, own=copy, word=word)
    batch.slots[("ann",)] = Slot(0, 0)
    assert batch.fold([at(5, 1), at(6, 2)], heard=False) is None
    assert noticed == [6, 6, 7, 7]


def test_a_fold_within_a_reducer_does_not_end_its_guard() -> None:
    """What a reducer folds by itself, it folds guarded, and so is whatever it does then, in any cut of the log."""

    @reducer()
    def nesting(state: int, event: Event) -> int:
        fold_one(picky, None, event)
        if event.data == 2:
            getattr(CLOCK, CLOCK.__name__)()
        return state + int(event.data)

    batch = Batch(nesting)
    batch.slots[("ann",)] = Slot(0, 0)
    assert batch.fold([at(5, 1), at(6, 2)], heard=False) is None
    slot = batch.slots["ann",]
    assert slot is not None
    assert (slot.state, slot.error_index) == (1, 6)
    assert slot.error is not None
    assert slot.error.startswith("PurityError: reducer 'nesting' reaches for the clock")
