"""How an event changes a slot: quarantine is part of the fold, and a split changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Event
from reducers import Slot, fold, fold_one, reducer


def at(index: int, data: Any, student: str = "ann") -> Event:
    """An event at `index` with this data."""
    return Event(
        index=index, type="t", source="s", keys={"student": student}, data=data, received_ms=0, time_ms=0
    )


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
