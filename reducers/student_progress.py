"""How far a student has come in each class, and the word to the class at every hundredth edit and tenth minute.

One of two modules that show how modules talk.  A state of a *student* cannot know what others do, and a state of a
*class* need not know who they are.  So this one counts, and says to the class, now and then, that *somebody* has
reached something; `reducers.class_progress` counts those.

    keystrokes of ann ─► student_progress[ann] ─► progress.milestone {class: 7b, edits: 100} ─► class_progress[7b]

>>> from archive import Event
>>> from reducers.message import Message, Outbox
>>> def save(index: int) -> Event:
...     keys = {"student": "ann", "class": "7b"}
...     return Event(index=index, type=EDIT, source="s", keys=keys, data={}, received_ms=0, time_ms=1_000 * index)
>>> said: list[Message] = []
>>> state = student_progress.initial()
>>> for index in range(100):
...     state = student_progress.apply(state, save(index), Outbox(said))
>>> [each.data for each in said]
[{'measure': 'students', 'reached': 1}, {'measure': 'edits', 'reached': 100}]

A Learning Observer client says its class when it likes; what came before counts for the first class that it names.  An
event without a class counts for the class last named.  Time is the sum of short gaps, as in `reducers.time_on_task`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from archive import Event
from reducers.definition import reducer
from reducers.message import RESERVED, Emit

EDIT: Final = "google_docs_save"
MILESTONE: Final = "progress.milestone"
EDITS_STEP: Final = 100
MINUTES_STEP: Final = 10
STEPS_MAX: Final = 200
"""Steps of each measure that a class is told of: 20,000 edits, 33 hours."""
CLASSES_MAX: Final = 20
"""Classes of one student; events of any further one count for nothing."""
GAP_MS_MAX: Final = 60_000
_MINUTE_MS: Final = 60_000


class Work(msgspec.Struct, frozen=True):
    """What one student did in one class, and of how many steps the class was told."""

    edits: int = 0
    active_ms: int = 0
    told_edits: int = 0
    told_minutes: int = 0


class StudentProgress(msgspec.Struct, frozen=True):
    """Work by class; "" stands for the class that is not known yet."""

    current: str = ""
    """The class that was named last."""
    last_ms: int | None = None
    """Client time of the last event."""
    classes: dict[str, Work] = {}


def view(state: StudentProgress) -> dict[str, Any]:
    """Return edits and whole minutes for each class, and the class that was named last."""
    work = {
        name: {"edits": one.edits, "minutes": one.active_ms // _MINUTE_MS}
        for name, one in sorted(state.classes.items())
    }
    return {"class": state.current, "classes": work}


@reducer(scope=("student",), version=1, view=view)
def student_progress(state: StudentProgress, event: Event, emit: Emit) -> StudentProgress:
    """Count an event for its class, and tell the class of the steps that the student has reached by it."""
    if event.source.startswith(RESERVED):
        return state  # what modules say about a student is no work of his
    room = event.keys.get("class") or state.current
    classes = dict(state.classes)
    if room not in classes and len(classes) == CLASSES_MAX:
        return state
    if room and not state.current:  # the first that is named: what came before was for this one
        before = classes.pop("", Work())
        _tell(emit, room, "students", 1)
    elif room not in classes:
        before = Work()
        if room:
            _tell(emit, room, "students", 1)
    else:
        before = classes[room]
    classes[room] = _told(_counted(before, state.last_ms, event), room, emit)
    return StudentProgress(room, event.time_ms, classes)


def _counted(work: Work, last_ms: int | None, event: Event) -> Work:
    gap_ms = -1 if last_ms is None else event.time_ms - last_ms
    edits, active_ms = work.edits + (event.type == EDIT), gap_ms if 0 <= gap_ms <= GAP_MS_MAX else 0
    return Work(edits, work.active_ms + active_ms, work.told_edits, work.told_minutes)


def _told(work: Work, room: str, emit: Emit) -> Work:
    if not room:
        return work
    edits = min(work.edits // EDITS_STEP, STEPS_MAX)
    minutes = min(work.active_ms // (MINUTES_STEP * _MINUTE_MS), STEPS_MAX)
    if (edits, minutes) == (work.told_edits, work.told_minutes):
        return work  # as nearly always
    for step in range(work.told_edits + 1, edits + 1):
        _tell(emit, room, "edits", step * EDITS_STEP)
    for step in range(work.told_minutes + 1, minutes + 1):
        _tell(emit, room, "minutes", step * MINUTES_STEP)
    return Work(work.edits, work.active_ms, edits, minutes)


def _tell(emit: Emit, room: str, measure: str, reached: int) -> None:
    emit(MILESTONE, keys={"class": room}, data={"measure": measure, "reached": reached})
