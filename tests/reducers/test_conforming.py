"""A state in memory is what it would be after a restart: exactly of its type, or the key is quarantined.

The judge of the test itself is the decoder: what it gives back fits, and what fits is given back with the same types.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import Counter
from typing import Annotated, Any, Literal, NamedTuple, NewType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reducers import Event, Reducer, Run, Slot, StateError, check, fold, fold_one, fold_run, reducer
from reducers.conforming import checker

Number = NewType("Number", int)


class Colour(enum.Enum):
    """What a state may hold beside numbers and texts."""

    RED = "red"


class Pair(NamedTuple):
    """Two things under names."""

    left: int
    right: str


@dataclasses.dataclass(frozen=True)
class Point:
    """A dataclass."""

    x: float
    y: float = 0.0


class Node(msgspec.Struct, frozen=True):
    """A type that has itself as a part."""

    value: int
    below: list[Node] = []


class Desk(msgspec.Struct, frozen=True):
    """A state as authors write them."""

    words: int = 0
    score: float = 0.0
    name: str | None = None
    marks: tuple[int, ...] = ()
    points: dict[str, Point] = {}


KINDS: list[Any] = [
    bool, int, float, str, None, int | None, str | None, int | float | None, list[int], list[float], set[str],
    frozenset[int], tuple[int, ...], tuple[int, str], dict[str, int], dict[str, list[float]], Literal["a", 1], Number,
    Annotated[int, msgspec.Meta(ge=0)], Colour, Pair, Point, Node, Desk, list[Desk], dict[str, Any], list[Any], dict,
]  # fmt: skip
LONG_WAY: list[Any] = [Annotated[int, msgspec.Meta(ge=0)]]
"""What no expression tells."""
PAIR: Any = Pair
POINT: Any = Point
NODE: Any = Node
DESK: Any = Desk
"""The classes, as code calls them that nobody has checked."""
VALUES: list[Any] = [
    True, 0, 1, -1, 1 << 70, 1.0, 0.5, math.inf, math.nan, "", "a", None, [], [1], [1.0], [1, 1.0], ["a"], (1,),
    (), (1, "a"), {1}, {"a"}, frozenset({1}), {"a": 1}, {"a": [1.0]}, {"a": [1]}, {1: 1}, {"a": None}, Colour.RED,
    PAIR(1, "a"), PAIR("a", "a"), POINT(1.0), POINT(1), NODE(1), NODE(1, [NODE(2)]), NODE(1, [NODE("a")]),
    NODE(1, (NODE(2),)), DESK(), DESK(words="many"), DESK(score=5), DESK(marks=[1]), DESK(marks=("a",)),
    DESK(points={"p": POINT(1.0)}), DESK(points={"p": POINT(1)}), DESK(name=5), [DESK()], [DESK(words=1.0)], [None],
]  # fmt: skip


def shape(value: Any) -> Any:
    """Return what tells two values apart of which one would behave otherwise."""
    if isinstance(value, msgspec.Struct):
        return type(value), [shape(getattr(value, name)) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), [shape(getattr(value, one.name)) for one in dataclasses.fields(value)]
    if isinstance(value, dict):
        return type(value), sorted((shape(key), shape(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(repr, value))
    return type(value), repr(value)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_fits_is_what_comes_back(kind: Any) -> None:
    """A value fits if storing it and reading it again gives the same, types and all; bare containers take anything."""
    fits, decoder = checker(kind), msgspec.json.Decoder(kind)
    for value in VALUES:
        try:
            again = decoder.decode(msgspec.json.encode(value))
            same = shape(again) == shape(value)
        except (TypeError, ValueError, msgspec.ValidationError):
            same = False
        if fits is None or kind in (dict[str, Any], list[Any], dict):
            continue
        if fits(value):
            assert same or value == 1 << 70, f"{value!r} fits {kind}"
        elif same:
            assert kind in LONG_WAY, f"{value!r} does not fit {kind}"


def test_a_class_of_ones_own_becomes_what_it_will_be() -> None:
    """A counter makes keys that are missing, a dict does not: after a restart it is a dict, and so it is at once."""

    @reducer(default=dict)
    def kinds(state: dict, event: Event) -> dict:  # type: ignore[type-arg]
        """Count in what is a counter only until it was stored."""
        after = dict(state) if state else Counter[str]()
        after[event.data] += 1
        return after

    slot = fold(kinds, [at(0, "a"), at(1, "b")])["ann",]
    assert (slot.state, slot.error) == ({"a": 1}, "KeyError: 'b'")


@pytest.mark.parametrize("kind", [Any, object, Any | None])
def test_what_says_nothing_is_not_asked(kind: Any) -> None:
    """Where the type has nothing to hold a state against, no event pays for it."""
    assert checker(kind) is None


@reducer()
def desk(state: Desk, event: Event) -> Desk:
    """Keep what an event says, unchecked, as one is tempted to."""
    return msgspec.structs.replace(state, **event.data)


@reducer()
def total(state: float, event: Event) -> float:
    """Add up whatever numbers come."""
    return state + event.data if state else event.data  # type: ignore[no-any-return]


def at(index: int, data: Any) -> Event:
    """Return an event of Ann."""
    return Event(
        index=index, type="t", source="s", keys={"student": "ann"}, data=data, received_ms=0, time_ms=0
    )


def stored(one: Reducer[Any], slot: Slot[Any]) -> Slot[Any]:
    """Return a slot as it is after a restart."""
    return msgspec.structs.replace(slot, state=one.decode(one.encode(slot.state)))


numbers = st.integers(-5, 5) | st.floats(-5, 5)
fields = st.fixed_dictionaries(
    {},
    optional={
        "words": numbers | st.text(max_size=2) | st.booleans(),
        "score": numbers | st.just(math.inf),
        "name": st.text(max_size=2) | st.none() | numbers,
        "marks": st.lists(st.integers(0, 3) | st.just("x"), max_size=3),
        "points": st.dictionaries(st.text(max_size=1), numbers, max_size=2),
    },
)


@pytest.mark.parametrize("one", [desk, total], ids=["desk", "total"])
@given(data=st.data())
def test_where_a_state_is_kept_does_not_show(one: Reducer[Any], data: st.DataObject) -> None:
    """Whatever clients send, a fold that stores and reads its state after every event is the fold that never does."""
    sent = data.draw(st.lists(fields if one is desk else numbers, max_size=8))
    events = [at(index, value) for index, value in enumerate(sent)]
    kept: Slot[Any] | None = None
    for event in events:
        kept = fold_one(one, None if kept is None else stored(one, kept), event)
    whole = fold(one, events)
    if kept is None:
        assert whole == {}
        return
    (slot,) = whole.values()
    assert (one.encode(slot.state), slot.error_index) == (one.encode(kept.state), kept.error_index)
    assert shape(slot.state) == shape(kept.state)


@given(st.lists(fields, min_size=1, max_size=8))
def test_a_run_is_the_fold_one_by_one(sent: list[dict[str, Any]]) -> None:
    """The loop that folds most events holds states against their type as well."""
    events = [at(index, value) for index, value in enumerate(sent)]
    whole = fold(desk, events)
    slots: dict[tuple[str, ...], Slot[Any] | None] = {("ann",): fold_one(desk, None, events[0])}
    run = Run(desk, slots, set(), 0, [0])
    place, error = fold_run(run, events, 1, len(events))
    assert (place, error) == (len(events), None)
    found, want = slots["ann",], whole["ann",]
    assert found is not None
    assert (shape(found.state), found.error_index, found.error) == (
        shape(want.state),
        want.error_index,
        want.error,
    )


def test_a_state_that_cannot_be_of_its_type_is_quarantined() -> None:
    """One event stops its own key, which keeps its last good state; the error names field and types, and no value."""
    slot = fold(desk, [at(0, {"words": 1}), at(1, {"words": "many"}), at(2, {"words": 3})])["ann",]
    assert (slot.state.words, slot.error_index) == (1, 1)
    assert slot.error is not None
    assert "it returned what is no Desk" in slot.error
    assert "$.words" in slot.error
    assert "many" not in slot.error


def test_a_whole_number_is_a_float_where_the_type_says_so() -> None:
    """Browsers write 5.0 as 5: that is lawful, and nothing is quarantined."""
    slot = fold(total, [at(0, 5), at(1, 1.5)])["ann",]
    assert (slot.state, slot.error) == (6.5, None)
    assert type(fold(total, [at(0, 5)])["ann",].state) is float
    check(total, [at(index, value) for index, value in enumerate((5, 1.5, 2))])


def test_the_very_first_state_is_held_against_its_type() -> None:
    """Also where an event changes nothing: a default is written by hand, too."""

    @reducer(default=list)
    def lazy(state: tuple[int, ...], event: Event) -> tuple[int, ...]:
        """Change nothing."""
        del event
        return state

    assert fold(lazy, [at(0, None)])["ann",].state == ()


def test_what_is_no_state_says_so() -> None:
    """A state as it would be read again, or the reason why there is none."""
    assert total.normal(5) == 5.0
    with pytest.raises(StateError, match="it returned what is no Desk"):
        desk.normal(DESK(words="many"))
