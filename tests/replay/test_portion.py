"""A portion is its items, however little of them it keeps; what concerns a reducer of it keeps its circumstances."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from archive import Event
from reducers import Reducer
from replay.budget import BUDGET
from replay.portion import Item, Portion, portions_of
from tests.world import class_size, seen, touchy

ANSWERS: list[list[Reducer[Any]]] = [[seen], [seen, touchy], [class_size], [seen, touchy, class_size]]


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Draw items in folding order: usual ones, backlog, messages and ticks."""
    made, due = list[Item](), 100
    for _ in range(draw(st.integers(0, 8))):
        due += draw(st.integers(1, 3))
        at = due - draw(st.sampled_from([0, 0, 0, 50]))
        event = Event(index=at, type="t", source="s", keys={}, data={}, received_ms=0, time_ms=0)
        who, hops = draw(st.sampled_from(ANSWERS)), draw(st.sampled_from([0, 0, 3]))
        tick, budget = draw(st.sampled_from([False, False, True])), draw(st.sampled_from([BUDGET, BUDGET, 7]))
        made.append(Item(at, due, event, who, (due,), hops, tick, budget))
    return made


@given(items())
def test_portions_give_their_items_back(some: list[Item]) -> None:
    """Nothing is lost, doubled or moved, and a tick stands alone."""
    portions = list(portions_of(some))
    assert [item for portion in portions for item in portion] == some
    assert all(len(portion) == 1 for portion in portions if portion.tick)
    assert [portion.due(at) for portion in portions for at in range(len(portion))] == [
        one.due for one in some
    ]


@given(items(), st.sets(st.integers(50, 120)))
def test_what_concerns_a_reducer_is_told_with_its_circumstances(some: list[Item], skipped: set[int]) -> None:
    """Whoever is left out, the others keep their index, whom they are about, and how they came."""
    portion = Portion.of(some)
    for reducer in (seen, touchy, class_size):
        due = [one for one in some if reducer in one.reducers and skipped.isdisjoint((one.at, one.due))]
        assert list(portion.concerning(reducer).without(skipped)) == due
    assert portion.without(()) is portion
