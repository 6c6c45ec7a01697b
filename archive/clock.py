"""The only source of time, and a guard against clocks that jump.

A log's time never decreases; a clock that leaps a year ahead would pin every later entry to that year.  So
the wall clock is followed only while it agrees with the monotonic one to within an hour; else time goes on from where
it was, and `refused` counts how often the wall clock was not believed.

>>> ticks = iter([0, 10, 20])
>>> walls = iter([1_000, 1_010, 1_000_000_000_000])
>>> clock = SteadyClock(lambda: next(walls), lambda: next(ticks), jump_us_max=100)
>>> clock.now_us(), clock.now_us(), clock.refused
(1010, 1020, 1)
"""

from __future__ import annotations

import time
from collections.abc import Callable

JUMP_US_MAX = 3_600_000_000
_BOOT_TIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def wall_us() -> int:
    """Return the machine's Unix time in microseconds."""
    return time.time_ns() // 1_000


def monotonic_us() -> int:
    """Return the machine's monotonic time in microseconds; it goes on while the machine sleeps, where that is known."""
    return (time.clock_gettime_ns(_BOOT_TIME) if _BOOT_TIME is not None else time.monotonic_ns()) // 1_000


def both_us() -> tuple[int, int]:
    """Return what the wall clock and the monotonic one show now, in microseconds, for `SteadyClock(since=...)`."""
    return wall_us(), monotonic_us()


class SteadyClock:
    """A Clock that follows the wall clock, but not its leaps.

    `warn` is called with the difference in microseconds whenever it begins to disbelieve.  A process believes the wall
    clock that it starts with, unless it is told `since`: what both clocks showed (`both_us`) when somebody did believe.
    So the successor of one that died while the clock was wrong is not taken in.
    """

    def __init__(
        self,
        wall: Callable[[], int] = wall_us,
        monotonic: Callable[[], int] = monotonic_us,
        *,
        jump_us_max: int = JUMP_US_MAX,
        warn: Callable[[int], None] = lambda _: None,
        since: tuple[int, int] | None = None,
    ) -> None:
        self._wall, self._monotonic, self._jump_us_max = wall, monotonic, jump_us_max
        self._wall_us, self._tick_us = since or (wall(), monotonic())
        self._warn, self._believed = warn, True
        self.refused = 0

    def now_us(self) -> int:
        """Return Unix time in microseconds."""
        wall_us, tick_us = self._wall(), self._monotonic()
        expected_us = self._wall_us + tick_us - self._tick_us
        self._tick_us = tick_us
        believed = abs(wall_us - expected_us) <= self._jump_us_max
        if self._believed and not believed:
            self._warn(wall_us - expected_us)
        self._believed = believed
        self.refused += not believed
        self._wall_us = wall_us if believed else expected_us
        return self._wall_us


class ManualClock:
    """A Clock that tests turn by hand."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self.time_us = now_us

    def now_us(self) -> int:
        """Return the time that was set, Unix microseconds."""
        return self.time_us
