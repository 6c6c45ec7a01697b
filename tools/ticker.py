"""Ticks: which seconds have to be written into the log, so that time passes for reducers.

A reducer with a period of 60 is folded over ticks at whole minutes.  What is asked for here is the newest such second
of each period, once it has begun and if it was not logged yet; so a server that was down for a night logs one tick of
each period, and not a night of them.  States are a function of what is logged, not of what time it was.

>>> ticker = Ticker()
>>> [one.id for one in ticker.due({60, 3_600}, 7_300)]
['tick/7200', 'tick/7260']
>>> ticker.logged()
>>> ticker.due({60, 3_600}, 7_319), ticker.wait_s({60, 3_600}, 7_319.5)
([], 0.5)

The id is the second, so however many servers and modules ask for it, a tick stands in the log once.

**A clock that jumps.**  The archiver follows no leap of more than an hour (`archive.clock`), and its time is in the
newest entry; so no tick is more than an hour, or one period, ahead of that.  While the clock is behind it, nothing is
asked for.  What was logged ahead counts only as long as the clock agrees: once it is put right, ticks go on.

Who sends them: `tools.post`.  What a tick is: `reducers.ticks`, docs/formats/message.md; why: docs/adr/0051-ticks.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from archive import Submission
from reducers import Reducer
from replay import tick_submission

AHEAD_S_MAX = 3_600
"""How far ahead of the newest entry a tick may be: as far as the archiver lets a clock leap."""


def periods(reducers: Iterable[Reducer]) -> set[int]:  # type: ignore[type-arg]
    """Return the periods, in seconds, of the ticks that these reducers take."""
    return {one.ticks for one in reducers if one.ticks is not None}


class Ticker:
    """Remembers what is logged; `newest_s` tells the archive time of the newest entry in the log, Unix seconds."""

    def __init__(self, newest_s: Callable[[], int] | None = None) -> None:
        self._newest_s = newest_s
        self._logged: dict[int, int] = {}
        """By period: the last second of it that is in the log."""
        self._due: dict[int, int] = {}
        """By period: what was said to be due last."""

    def due(self, wanted: Set[int], now_s: int) -> list[Submission]:
        """Return a tick for each second that has begun and is missing, ascending."""
        self._due = {}
        ahead = any(second > now_s for second in self._logged.values())
        if not ahead and not self._missing(wanted, now_s, now_s):
            return []
        newest_s = now_s if self._newest_s is None else self._newest_s()
        if now_s < newest_s:
            return []
        # The log is not ahead, so what is logged ahead came of a clock that has been put right since.
        self._logged = {one: second for one, second in self._logged.items() if second <= now_s}
        self._due = self._missing(wanted, now_s, newest_s)
        return [tick_submission(second) for second in sorted(set(self._due.values()))]

    def logged(self) -> None:
        """Take note that what was said to be due last is in the log."""
        self._logged |= self._due
        self._due = {}

    def wait_s(self, wanted: Set[int], now_s: float) -> float | None:
        """Return how many seconds it is until the next tick is due; None: no reducer takes any."""
        return min((one - now_s % one for one in wanted), default=None)

    def _missing(self, wanted: Set[int], now_s: int, newest_s: int) -> dict[int, int]:
        """Return the newest second of each period, if it is missing, no further ahead of the log than it may be."""
        found = {}
        for one in wanted:
            until_s = min(now_s, newest_s + max(AHEAD_S_MAX, one))
            found[one] = until_s - until_s % one
        return {one: second for one, second in found.items() if second > self._logged.get(one, -1)}
