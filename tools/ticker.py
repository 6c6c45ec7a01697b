"""Ticks: which seconds have to be written into the log, so that time passes for reducers.

A reducer with a period of 60 is folded over ticks at whole minutes.  What is asked for here is the newest such second
of each period, once it has begun and if it was not logged yet; so a server that was down for a night logs one tick of
each period, and not a night of them.  States are a function of what is logged, not of what time it was.

>>> ticker = Ticker()
>>> [one.id for one in ticker.due({60, 3_600}, 7_300)]
['tick/7200', 'tick/7260']
>>> ticker.logged({60, 3_600}, 7_300)
>>> ticker.due({60, 3_600}, 7_319), ticker.wait_s({60, 3_600}, 7_319.5)
([], 0.5)

The id is the second, so however many servers and modules ask for it, a tick stands in the log once.  A clock that was
set back gives nothing until it has reached the log again.

Who sends them: `tools.post`.  What a tick is: `reducers.ticks`, docs/formats/message.md; why: docs/adr/0051-ticks.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from archive import Submission
from reducers import Reducer
from replay import tick_submission


def periods(reducers: Iterable[Reducer]) -> set[int]:  # type: ignore[type-arg]
    """Return the periods, in seconds, of the ticks that these reducers take."""
    return {one.ticks for one in reducers if one.ticks is not None}


class Ticker:
    """Remembers what is logged; `not_before_s` is the archive time of the last entry that it found in the log."""

    def __init__(self, not_before_s: int = 0) -> None:
        self._not_before_s = not_before_s
        self._logged: dict[int, int] = {}
        """By period: the last second of it that is in the log."""

    def due(self, wanted: Set[int], now_s: int) -> list[Submission]:
        """Return a tick for each second that has begun and is missing, ascending."""
        if now_s < self._not_before_s:
            return []
        newest = {now_s - now_s % one for one in wanted if now_s - now_s % one > self._logged.get(one, -1)}
        return [tick_submission(second) for second in sorted(newest)]

    def logged(self, wanted: Set[int], now_s: int) -> None:
        """Take note that what was due is in the log."""
        self._logged |= {one: max(now_s - now_s % one, self._logged.get(one, -1)) for one in wanted}

    def wait_s(self, wanted: Set[int], now_s: float) -> float | None:
        """Return how many seconds it is until the next tick is due; None: no reducer takes any."""
        return min((one - now_s % one for one in wanted), default=None)
