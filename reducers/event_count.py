"""How many events a student has sent.

The smallest useful reducer, and the one to copy.  It counts every event that names a student, of any type.

>>> from archive import Event
>>> e = Event(index=0, type="t", source="s", keys={"student": "ann"}, data={}, received_ms=0, time_ms=0)
>>> event_count.apply(event_count.initial(), e)
EventCount(events=1)

When they were sent: `reducers.last_activity` and `reducers.time_on_task`.
"""

from __future__ import annotations

import msgspec

from archive import Event
from reducers.definition import reducer


class EventCount(msgspec.Struct, frozen=True):
    """The number of events seen."""

    events: int = 0


@reducer(scope=("student",), version=1)
def event_count(state: EventCount, event: Event) -> EventCount:  # noqa: ARG001 - it counts whatever comes
    """Count one more event."""
    return EventCount(state.events + 1)
