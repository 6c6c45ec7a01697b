"""Watching a reducer call by call, for its test: what the guard cannot see, the profiler can.

The guard wraps Python's modules, so C code that asks the system by itself passes it, above all
`datetime.datetime.now()` deep in a library.  Python's profiler is told of every call of a C function, with
the function itself.  That is too slow for a live worker (about a microsecond a call), and cheap for the few
hundred events of a test.

>>> from reducers import shipped
>>> reducer = shipped().get("event_count")
>>> with watching(reducer) as seen, active(reducer):
...     _ = dt.datetime.now(dt.UTC)
>>> [each.partition(" at ")[0] for each in seen]
["reducer 'event_count' reaches for the clock (datetime.datetime.now)"]

What is refused at run time: `reducers.guard`.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from reducers.base import Reducer
from reducers.forbidden import sentence
from reducers.guard import active, place_of, running
from reducers.purity import value_fault

__all__ = ["active", "dt", "watching"]


@contextmanager
def watching(reducer: Reducer[Any]) -> Iterator[list[str]]:
    """Yield a list to which a sentence is added for each thing that `reducer` reaches for inside the block."""
    seen: list[str] = []

    def profile(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or running.reducer is None:
            return
        fault = value_fault(function)
        where = None if fault is None else place_of(frame, reducer)
        if fault is not None and where is not None:
            seen.append(sentence(reducer.name, *fault, where))

    before, running.refused = sys.getprofile(), ""
    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        if running.refused and not seen:
            seen.append(running.refused)
