"""Shrinking: what is left still fails, nothing of it can be left out, and it comes to an end."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from reducers import StateError
from reducers.laws import Fault
from reducers.shrink import shrink


def needs(*wanted: int) -> object:
    """A law that is broken by events which hold all of these, in this order."""

    def law(_reducer: object, events: Sequence[int]) -> Fault | None:
        position, rest = 0, list(wanted)
        for position, event in enumerate(events):  # noqa: B007 - it is used after the loop
            if rest and event == rest[0]:
                rest.pop(0)
                if not rest:
                    break
        return None if rest else Fault(position + 1, f"{wanted}")

    return law


@given(st.sets(st.integers(0, 60), min_size=1, max_size=5), st.integers(61, 90))
def test_only_what_is_needed_is_left(wanted: set[int], size: int) -> None:
    """Whatever the law needs, in order, out of many events, is what remains."""
    law = needs(*sorted(wanted))
    events = list(range(size))
    first = law(None, events)  # type: ignore[operator]
    kept, fault = shrink(law, None, events, first)  # type: ignore[arg-type]
    assert kept == sorted(wanted)
    assert fault.prefix_size == len(kept)


def test_it_gives_up_after_so_many_tries() -> None:
    """A law that takes processes is not tried for ever; what was found by then is returned."""
    tries = []

    def law(_reducer: object, events: Sequence[int]) -> Fault | None:
        tries.append(len(events))
        return Fault(len(events), "x") if len(events) > 40 else None

    kept, fault = shrink(law, None, list(range(64)), Fault(64, "x"), tries_max=5)
    assert len(tries) == 5
    assert len(kept) == fault.prefix_size <= 64


def test_another_failure_is_not_taken_for_this_one() -> None:
    """Events that break the reducer in another way are no smaller example."""

    def law(_reducer: object, events: Sequence[int]) -> Fault | None:
        if 1 not in events:
            raise StateError("r", "cannot be encoded")
        return Fault(len(events), "x") if 3 in events else None

    assert shrink(law, None, [0, 1, 2, 3], Fault(4, "x"))[0] == [1, 3]


def test_a_single_event_and_none_at_all_are_left_alone() -> None:
    """A fault of the source needs no events."""
    law = needs(0)
    assert shrink(law, None, [0], Fault(1, "x")) == ([0], Fault(1, "x"))  # type: ignore[arg-type]
    assert shrink(law, None, [0, 1], Fault(0, "x")) == ([], Fault(0, "x"))  # type: ignore[arg-type]
