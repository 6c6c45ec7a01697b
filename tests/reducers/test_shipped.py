"""The small reducers that come with the package, each against a definition written another way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from archive import Event
from reducers import fold, shipped
from reducers.conforming import checker
from reducers.event_count import EventCount, event_count
from reducers.last_activity import LastActivity, last_activity
from reducers.time_on_task import TimeOnTask, time_on_task

KEY = {"student": "ann", "doc_id": "essay"}
TIMES = st.lists(
    st.integers(-5, 5) | st.integers(0, 200_000) | st.sampled_from([0, 60_000, 60_001]), min_size=1
)


def stream(times_ms: list[int]) -> list[Event]:
    """Events at these client times, of differing types."""
    return [
        Event(index=index, type=f"t{index}", source="s", keys=KEY, data={}, received_ms=0, time_ms=time_ms)
        for index, time_ms in enumerate(times_ms)
    ]


@given(TIMES)
def test_events_are_counted(times_ms: list[int]) -> None:
    """Every event of a student counts once."""
    assert fold(event_count, stream(times_ms))[("ann",)].state == EventCount(len(times_ms))


@given(TIMES)
def test_the_last_activity_is_the_latest_by_the_client(times_ms: list[int]) -> None:
    """The greatest client time wins, the later entry among equals, whatever the order of arrival."""
    time_ms, index = max((time_ms, index) for index, time_ms in enumerate(times_ms))
    assert fold(last_activity, stream(times_ms))[("ann",)].state == LastActivity(time_ms, f"t{index}", index)


def test_a_time_before_1970_is_an_activity() -> None:
    """A client's clock may say anything; the first event always counts."""
    assert fold(last_activity, stream([-9]))[("ann",)].state == LastActivity(-9, "t0", 0)


@given(TIMES)
def test_time_on_task_is_the_sum_of_short_gaps(times_ms: list[int]) -> None:
    """Gaps of 0 to 60 s count, others do not, and each is measured from the event before."""
    total_ms = sum(b - a for a, b in pairwise(times_ms) if 0 <= b - a <= 60_000)
    state = fold(time_on_task, stream(times_ms))[("ann", "essay")].state
    assert state == TimeOnTask(total_ms, times_ms[-1])


def test_a_gap_of_a_minute_counts_and_a_longer_one_does_not() -> None:
    """The boundary is inclusive."""
    assert fold(time_on_task, stream([0, 60_000]))[("ann", "essay")].state.total_ms == 60_000
    assert fold(time_on_task, stream([0, 60_001]))[("ann", "essay")].state.total_ms == 0


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
commands = (
    st.fixed_dictionaries({}, optional=dict.fromkeys(("ty", "s", "ibi", "si", "ei", "sm"), json_values))
    | json_values
)
bundles = st.lists(
    st.fixed_dictionaries({"commands": st.lists(commands, max_size=3)}) | json_values, max_size=2
)
odd_data = json_values | st.fixed_dictionaries(
    {},
    optional={
        "bundles": bundles | json_values,
        "event": json_values,
        "edits": json_values,
        "minutes": json_values,
        "timestamp": json_values,
    },
)
KINDS = ["google_docs_save", "keystroke", "student_progress.progress", "progress", "treering.tick", "x"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), odd_data, st.integers(-5, 1 << 40)), max_size=8))
def test_whatever_clients_send_the_states_are_of_their_types(sent: list[tuple[str, Any, int]]) -> None:
    """Shipped reducers are not held against their types at every event: here they are, and it changes nothing."""
    keys = {"student": "ann", "doc_id": "d", "class": "7a", "resource": "r"}
    events = [
        Event(index=at, type=kind, source="s", keys=keys, data=data, received_ms=at, time_ms=time_ms)
        for at, (kind, data, time_ms) in enumerate(sent)
    ]
    for one in shipped():
        assert one.fits is None
        fits = checker(one.state_type)
        assert fits is not None
        for slot in fold(one, [event for event in events if event.type != "treering.tick"]).values():
            assert slot.error is None, (one.name, slot.error)
            assert fits(slot.state), (one.name, slot.state)
