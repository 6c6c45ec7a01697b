"""When a student was last active, by the client's clock, and doing what.

Events come late and out of order (queues on the client, a back-dated identity), so the last entry of the
log is not always the latest activity: the greatest client time is.  Of equal times the later entry counts.

>>> from archive import Event
>>> def at(index: int, type: str, time_ms: int) -> Event:
...     keys = {"student": "ann"}
...     return Event(index=index, type=type, source="s", keys=keys, data={}, received_ms=0, time_ms=time_ms)
>>> state = last_activity.apply(last_activity.initial(), at(4, "keystroke", 2_000))
>>> last_activity.apply(state, at(5, "mouseclick", 1_000))
LastActivity(time_ms=2000, type='keystroke', index=4)

How a client's time is read is the business of `archive.event`; how long they were active, of
`reducers.time_on_task`.
"""

from __future__ import annotations

import msgspec

from archive import Event
from reducers.definition import reducer


class LastActivity(msgspec.Struct, frozen=True):
    """The latest event by the client's clock; before any event, index is -1."""

    time_ms: int = 0
    """Unix milliseconds."""
    type: str = ""
    index: int = -1


@reducer(scope=("student",), version=1)
def last_activity(state: LastActivity, event: Event) -> LastActivity:
    """Keep the event with the greatest client time."""
    if state.index >= 0 and event.time_ms < state.time_ms:
        return state
    return LastActivity(event.time_ms, event.type, event.index)
