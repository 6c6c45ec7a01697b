"""The two modules that talk: what a student's work says to a class, and what the class makes of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Event
from reducers import Message, check, fold, load, source_of
from reducers.class_progress import PROGRESS, ClassProgress, class_progress
from reducers.modules import available
from reducers.student_progress import (
    CLASSES_MAX,
    EDIT,
    EDITS_STEP,
    MILESTONE,
    MINUTES_STEP,
    STEPS_MAX,
    StudentProgress,
    Work,
    student_progress,
)


def at(
    index: int,
    type_: str = EDIT,
    room: str | None = "7b",
    *,
    student: str = "ann",
    time_ms: int | None = None,
) -> Event:
    """Return an event of a student, a second after the one before."""
    keys = {"student": student} if room is None else {"student": student, "class": room}
    when_ms = 1_000 * index if time_ms is None else time_ms
    return Event(
        index=index, type=type_, source="pad", keys=keys, data={}, received_ms=when_ms, time_ms=when_ms
    )


def heard(index: int, message: Message, source: str = PROGRESS) -> Event:
    """Return the event that a message becomes."""
    return Event(
        index=index,
        type=message.type,
        source=source,
        keys=message.keys,
        data=message.data,
        received_ms=0,
        time_ms=0,
    )


def folded(events: list[Event]) -> tuple[dict[str, StudentProgress], list[Message]]:
    """Return the states by student, and what was said."""
    said: list[Message] = []
    slots = fold(student_progress, events, out=said)
    assert all(slot.error is None for slot in slots.values())
    return {key[0]: slot.state for key, slot in slots.items()}, said


STREAM = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from([None, "", "7a", "7b"]),
        st.sampled_from([EDIT, "keystroke"]),
        st.integers(0, 200_000),
    ),
    max_size=40,
)


def stream(steps: list[tuple[str, str | None, str, int]]) -> list[Event]:
    """Return events at such gaps."""
    events, now_ms = [], 0
    for index, (student, room, type_, gap_ms) in enumerate(steps):
        now_ms += gap_ms
        events.append(at(index, type_, room, student=student, time_ms=now_ms))
    return events


@given(STREAM)
def test_the_laws_hold_for_both(steps: list[tuple[str, str | None, str, int]]) -> None:
    """The contract of reducers, with their messages."""
    events = stream(steps)
    check(student_progress, events, processes=False)
    said = folded(events)[1]
    check(class_progress, [heard(index, one) for index, one in enumerate(said)], processes=False)


def test_the_laws_hold_in_other_processes() -> None:
    """With another hash seed and time zone."""
    events = [at(index, room="7b" if index % 3 else "7a") for index in range(120)]
    check(student_progress, events)
    check(class_progress, [heard(index, one) for index, one in enumerate(folded(events)[1])])


def test_a_class_is_told_of_each_step_once() -> None:
    """A student is told of as he comes, then at each hundredth edit and each tenth minute; nobody is named."""
    minutes = 25
    events = [at(index, time_ms=index * 5_000) for index in range(minutes * 12 + 1)]
    said = folded(events)[1]
    assert [(one.data["measure"], one.data["reached"]) for one in said] == [
        ("students", 1),
        ("edits", 100),
        ("minutes", 10),
        ("edits", 200),
        ("minutes", 20),
        ("edits", 300),
    ]
    assert {one.type for one in said} == {MILESTONE}
    assert all(one.keys == {"class": "7b"} for one in said)


def test_what_came_before_the_class_was_known_counts_for_the_first_one() -> None:
    """A client that says its class late has worked for it all the same."""
    early = [at(index, room=None) for index in range(150)]
    states, said = folded([*early, at(150), at(151, room="7a"), at(152, room=None)])
    assert [(one.keys["class"], one.data["measure"], one.data["reached"]) for one in said] == [
        ("7b", "students", 1),
        ("7b", "edits", 100),
        ("7a", "students", 1),
    ]
    assert states["ann"].classes == {"7b": Work(151, 150_000, 1, 0), "7a": Work(2, 2_000, 0, 0)}
    assert student_progress.view(states["ann"]) == {
        "class": "7a",
        "classes": {"7a": {"edits": 2, "minutes": 0}, "7b": {"edits": 151, "minutes": 2}},
    }


def test_two_classes_in_turn_are_two_counts() -> None:
    """Somebody who goes to and fro is in each class once."""
    events = [at(index, room="7a" if index % 2 else "7b") for index in range(2 * EDITS_STEP)]
    told = Counter((one.keys["class"], one.data["measure"]) for one in folded(events)[1])
    assert told == {(room, measure): 1 for room in ("7a", "7b") for measure in ("students", "edits")}


def test_what_modules_say_about_a_student_is_not_his_work() -> None:
    """A message with the key of a student changes nothing here."""
    other = Event(
        index=0,
        type=EDIT,
        source=source_of("coach"),
        keys={"student": "ann"},
        data={},
        received_ms=0,
        time_ms=0,
    )
    assert folded([other])[0] == {"ann": StudentProgress()}


def test_a_state_stays_small_whatever_is_sent() -> None:
    """Classes beyond the twentieth count for nothing, steps beyond the last are not told."""
    states, said = folded([at(index, room=f"class {index}") for index in range(CLASSES_MAX + 5)])
    assert (len(states["ann"].classes), len(said)) == (CLASSES_MAX, CLASSES_MAX)
    far = StudentProgress("7b", 0, {"7b": Work(edits=10**9, told_edits=STEPS_MAX - 1)})
    out: list[Message] = []
    after = student_progress.apply(far, at(1), _Emit(out))
    assert after.classes["7b"].told_edits == STEPS_MAX
    assert [one.data for one in out] == [{"measure": "edits", "reached": STEPS_MAX * EDITS_STEP}]


class _Emit:
    """Hears what is said."""

    def __init__(self, out: list[Message]) -> None:
        self.out = out

    def __call__(self, type: str, *, keys: dict[str, str], data: Any = None) -> None:  # noqa: A002 - an event's word
        self.out.append(Message(type, keys, data))


@given(STREAM.map(stream))
def test_a_class_counts_its_students_by_step(events: list[Event]) -> None:
    """Whatever the order, the counts are those of the states of the students, counted by hand."""
    states, said = folded(events)
    slots = fold(class_progress, [heard(index, one) for index, one in enumerate(said)])
    for room in ("7a", "7b"):
        works = [one.classes[room] for one in states.values() if room in one.classes]
        state = slots[(room,)].state if (room,) in slots else ClassProgress()
        assert state.students == len(works)
        assert state.edits == _by_hand([one.edits // EDITS_STEP for one in works])
        assert state.minutes == _by_hand([one.active_ms // 60_000 // MINUTES_STEP for one in works])


def _by_hand(steps: list[int]) -> tuple[int, ...]:
    return tuple(sum(one >= step for one in steps) for step in range(1, max(steps, default=0) + 1))


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("pad", {"measure": "edits", "reached": 100}),
        ("treering", {"measure": "edits", "reached": 100}),
        (PROGRESS, {"measure": "edits", "reached": 150}),
        (PROGRESS, {"measure": "edits", "reached": 0}),
        (PROGRESS, {"measure": "edits", "reached": -100}),
        (PROGRESS, {"measure": "edits", "reached": 100.0}),
        (PROGRESS, {"measure": "edits", "reached": True}),
        (PROGRESS, {"measure": "edits", "reached": (STEPS_MAX + 1) * EDITS_STEP}),
        (PROGRESS, {"measure": ["edits"], "reached": 100}),
        (PROGRESS, {"measure": "pages", "reached": 100}),
        (PROGRESS, [1]),
    ],
)
def test_a_class_believes_its_own_module_only(source: str, data: Any) -> None:
    """Neither what others send nor what a later version may say changes a count, or stops it."""
    event = heard(0, Message(MILESTONE, {"class": "7b"}, data), source)
    assert fold(class_progress, [event])[("7b",)].state == ClassProgress()


def test_both_are_modules_of_their_own() -> None:
    """One can be switched off, or fail, without the other."""
    found = available()
    modules = [load(found[name]) for name in ("progress", "classes")]
    assert [[one.name for one in module.reducers] for module in modules] == [
        ["student_progress"],
        ["class_progress"],
    ]
    assert [one.reducers[0].emits for one in modules] == [True, False]
