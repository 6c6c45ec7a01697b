"""How far a class has come: how many of its students have reached each step, and never which.

It hears the module `progress` and nobody else: an event counts only if its source is that module's, which no sender
outside can take (docs/formats/message.md).  So what is counted of a class of thirty is some hundred messages, and not
every keystroke.

>>> from archive import Event
>>> def heard(measure: str, reached: int, source: str = PROGRESS) -> Event:
...     data, keys = {"measure": measure, "reached": reached}, {"class": "7b"}
...     return Event(index=0, type=MILESTONE, source=source, keys=keys, data=data, received_ms=0, time_ms=0)
>>> state = class_progress.initial()
>>> for event in (heard("students", 1), heard("edits", 100), heard("edits", 200, "somebody else")):
...     state = class_progress.apply(state, event)
>>> class_progress.view(state)
{'students': 1, 'edits': [{'reached': 100, 'students': 1}], 'minutes': []}

Who says it: `reducers.student_progress`.  A message is about its student as well, so erasing a student takes him out of
the count at the next rebuild.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from archive import Event
from reducers.definition import reducer
from reducers.message import source_of
from reducers.student_progress import EDITS_STEP, MILESTONE, MINUTES_STEP, STEPS_MAX

PROGRESS: Final = source_of("progress")
_STEPS: Final = {"edits": EDITS_STEP, "minutes": MINUTES_STEP}


class ClassProgress(msgspec.Struct, frozen=True):
    """How many students were seen, and how many have reached the first, second, … step of each measure."""

    students: int = 0
    edits: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()


def view(state: ClassProgress) -> dict[str, Any]:
    """Return the number of students, and for each step of each measure how many have reached it."""
    return {
        "students": state.students,
        "edits": _shown(state.edits, EDITS_STEP),
        "minutes": _shown(state.minutes, MINUTES_STEP),
    }


@reducer(scope=("class",), version=1, view=view)
def class_progress(state: ClassProgress, event: Event) -> ClassProgress:
    """Count a milestone of one of the students; leave the state as it is at anything else."""
    if event.source != PROGRESS or event.type != MILESTONE or not isinstance(event.data, dict):
        return state
    measure, reached = event.data.get("measure"), event.data.get("reached")
    if measure == "students":
        return msgspec.structs.replace(state, students=state.students + 1)
    step, rest = divmod(reached, _STEPS[measure]) if measure in _STEPS and type(reached) is int else (0, 0)
    if rest or not 1 <= step <= STEPS_MAX:
        return state  # of a later version of that module, which counts something else
    counts = state.edits if measure == "edits" else state.minutes
    after = _one_more(counts, step)
    return ClassProgress(
        state.students, *((after, state.minutes) if measure == "edits" else (state.edits, after))
    )


def _one_more(counts: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Return the counts with one more at `step` (from 1).

    >>> _one_more((5, 2), 2), _one_more((5,), 3)
    ((5, 3), (5, 0, 1))
    """
    padded = counts + (0,) * (step - len(counts))
    return (*padded[: step - 1], padded[step - 1] + 1, *padded[step:])


def _shown(counts: tuple[int, ...], unit: int) -> list[dict[str, int]]:
    return [{"reached": unit * step, "students": number} for step, number in enumerate(counts, 1)]
