"""The law of order: a reducer may not rely on the order of a dict in its state, which storing forgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from archive import Event
from reducers import ContractError, Emit, Reducer, reducer
from reducers.contract import check


@reducer()
def recent(state: dict[str, int], event: Event) -> dict[str, int]:
    """Keep the two types that came last, in the order in which they came: which storing forgets."""
    kept = {**{name: at for name, at in state.items() if name != event.type}, event.type: event.index}
    while len(kept) > 2:
        del kept[next(iter(kept))]
    return kept


@dataclass(frozen=True)
class Room:
    """A state with a dict inside."""

    desks: dict[str, dict[str, int]] = field(default_factory=dict)
    last: str = ""


@reducer()
def seated(state: Room, event: Event) -> Room:
    """Keep whose desk stands last, which only the order of a dict tells, two levels deep."""
    inner = {**state.desks.get("a", {}), event.type: event.index}
    return Room({"a": inner}, next(reversed(state.desks.get("a", {})), ""))


@reducer()
def naming(state: dict[str, int], event: Event, emit: Emit) -> dict[str, int]:
    """Say which type came first, by the order of the state."""
    emit("naming.first", keys={"class": "7b"}, data=next(iter(state), None))
    return {**state, event.type: event.index}


@reducer()
def choosy(state: dict[str, int], event: Event) -> dict[str, int]:
    """Stand still where the type that came last is one of the last of the alphabet."""
    if next(reversed(state), "") > "type-3":
        raise ValueError("no")
    return {**state, event.type: event.index}


@reducer(view=list)
def listed(state: dict[str, int], event: Event) -> dict[str, int]:
    """Show a list in the order of a dict."""
    return {**state, event.type: event.index}


@reducer(view=lambda state: 1 // (next(reversed(state), "") == max(state, default="")))
def unshowable(state: dict[str, int], event: Event) -> dict[str, int]:
    """Fail to be shown in another order than that of the alphabet."""
    return {**state, event.type: event.index}


def alphabetical(size: int) -> list[Event]:
    """Return events of one student whose types come in the order of the alphabet."""
    return [
        Event(
            index=at,
            type=f"type-{at}",
            source="s",
            keys={"student": "ann"},
            data={},
            received_ms=at,
            time_ms=at,
        )
        for at in range(size)
    ]


UNORDERED: list[tuple[Reducer[Any], int]] = [
    (recent, 3),
    (seated, 3),
    (naming, 3),
    (choosy, 6),
    (listed, 2),
    (unshowable, 2),
]


@pytest.mark.parametrize(("unlawful", "size"), UNORDERED, ids=[each.name for each, _ in UNORDERED])
def test_a_reducer_that_relies_on_the_order_of_a_dict_is_caught(unlawful: Reducer[Any], size: int) -> None:
    """Though the events of the test come in the order in which storing sorts them: states, messages and views."""
    with pytest.raises(ContractError, match="a state's dicts have no order: keep a list, or sort") as caught:
        check(unlawful, alphabetical(8), processes=False)
    assert (caught.value.law, caught.value.prefix_size) == ("order", size)
    assert len(caught.value.events) <= size
    check(unlawful, alphabetical(size - 1), processes=False)


def test_a_reducer_that_sorts_may_keep_dicts() -> None:
    """Whatever a state holds, and however deep: what does not look at the order is lawful."""

    @reducer(view=sorted)
    def newest(state: dict[str, Any], event: Event) -> dict[str, Any]:
        kept = {
            **state,
            event.type: {"at": event.index, "big": 1 << 80, "f": -0.0, "n": [{"b": None, "a": 0.1}]},
        }
        return dict(sorted(kept.items(), key=lambda item: -item[1]["at"])[:2])

    assert set(check(newest, alphabetical(8), processes=False)[("ann",)].state) == {"type-6", "type-7"}
