"""Ticks: how time passes for a reducer, which has no clock.

A tick is an entry of the log, hence the same in every replay.  A reducer made with `@reducer(ticks=60)` is
folded over those whose time is a whole multiple of 60 seconds, once for each key that it holds: that is how
"has written nothing for ten minutes" becomes a state, though nothing arrived.

    @reducer(scope=("student",), ticks=60)
    def idle(state: Idle, event: Event) -> Idle:
        if event.type == TICK:
            return replace(state, idle_ms=event.time_ms - state.last_ms)
        ...

>>> from reducers.definition import reducer
>>> @reducer(ticks=60)
... def count(state: int, event: Event) -> int:
...     return state + 1
>>> [due(count, tick(index, 1_000 * second)) for index, second in enumerate((30, 60, 90, 120))]
[False, True, False, True]

Who logs ticks and brings them to the states: `replay`.  In tests, `tick` makes one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from archive import Event
from reducers.base import Key, Reducer

TICK = "treering.tick"
"""The type of a tick.  Types that begin with "treering." are the system's."""
SOURCE = "treering"


def tick(index: int, time_ms: int) -> Event:
    """Return the tick at `index` of the log, whose time is `time_ms` (Unix milliseconds, whole seconds)."""
    return Event(
        index=index, type=TICK, source=SOURCE, keys={}, data={}, received_ms=time_ms, time_ms=time_ms
    )


def is_tick(event: Event) -> bool:
    """Return whether this is a tick of the system."""
    return event.type == TICK and event.source == SOURCE


def due(reducer: Reducer[Any], event: Event) -> bool:
    """Return whether `reducer` is folded over this tick: its time is a multiple of the reducer's period."""
    return reducer.ticks is not None and event.time_ms // 1_000 % reducer.ticks == 0


def tick_of(event: Event, scope: tuple[str, ...], key: Key) -> Event:
    """Return the tick as the fold of one key sees it: with the fields of that key."""
    return msgspec.structs.replace(event, keys=dict(zip(scope, key, strict=True)))
