"""How long a student has worked on a document: the sum of the short gaps between events.

A gap of up to 60 s between two consecutive events counts as work, a longer one as absence.  Times are the
client's.  A clock that was set back gives a negative gap, which counts nothing; the next gap is measured from
the new time all the same, so that one bad clock does not stop the sum until it has been caught up with.

>>> from archive import Event
>>> def at(time_ms: int) -> Event:
...     keys = {"student": "ann", "doc_id": "essay"}
...     return Event(index=0, type="t", source="s", keys=keys, data={}, received_ms=0, time_ms=time_ms)
>>> state = time_on_task.initial()
>>> for time_ms in (0, 30_000, 100_000, 90_000, 95_000):
...     state = time_on_task.apply(state, at(time_ms))
>>> state
TimeOnTask(total_ms=35000, last_ms=95000)

What they wrote meanwhile: `reducers.reconstruct`.
"""

from __future__ import annotations

import msgspec

from archive import Event
from reducers.definition import reducer

GAP_MS_MAX = 60_000


class TimeOnTask(msgspec.Struct, frozen=True):
    """Time spent, and the client time from which the next gap is measured."""

    total_ms: int = 0
    last_ms: int | None = None
    """Client time of the last event, even if it went backwards; None before any event."""


@reducer(scope=("student", "doc_id"), version=1)
def time_on_task(state: TimeOnTask, event: Event) -> TimeOnTask:
    """Add the gap since the last event if it is from 0 to 60 s."""
    gap_ms = -1 if state.last_ms is None else event.time_ms - state.last_ms
    counted_ms = gap_ms if 0 <= gap_ms <= GAP_MS_MAX else 0
    return TimeOnTask(state.total_ms + counted_ms, event.time_ms)
