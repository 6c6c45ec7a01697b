"""A clock that follows the wall clock, but none of its leaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from archive import ManualClock, SteadyClock, both_us

HOUR_US = 3_600_000_000


class Time:
    """A wall clock and a monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.wall_us, self.tick_us = 1_700_000_000_000_000, 5
        self.warned: list[int] = []
        self.clock = SteadyClock(lambda: self.wall_us, lambda: self.tick_us, warn=self.warned.append)

    def turn(self, wall_us: int, tick_us: int) -> int:
        """Let both clocks go on, and return what the steady one says."""
        self.wall_us += wall_us
        self.tick_us += tick_us
        return self.clock.now_us()


def test_small_corrections_are_followed() -> None:
    """A wall clock that is put right by up to an hour is believed, in both directions."""
    time = Time()
    for change_us in (0, 1_000, -1_000, HOUR_US, -HOUR_US):
        assert time.turn(1_000 + change_us, 1_000) == time.wall_us
    assert time.clock.refused == 0


def test_a_leap_is_not_followed() -> None:
    """A wall clock that leaps, forwards or back, is not believed; time goes on from where it was."""
    for leap_us in (HOUR_US + 1, -HOUR_US - 1, 365 * 24 * HOUR_US):
        time = Time()
        start_us = time.clock.now_us()
        assert time.turn(leap_us + 10, 10) == start_us + 10
        assert time.turn(10, 10) == start_us + 20
        assert time.clock.refused == 2
        assert time.warned == [leap_us], "a person is told once, and by how much"
        assert time.turn(-leap_us + 10, 10) == start_us + 30 == time.wall_us
        assert time.clock.refused == 2


@given(st.lists(st.tuples(st.integers(-(10**12), 10**12), st.integers(0, 10**10)), max_size=20))
def test_no_step_is_further_than_an_hour_from_the_monotonic_clock(turns: list[tuple[int, int]]) -> None:
    """Whatever the wall clock does, time goes on by the ticks, give or take an hour."""
    time = Time()
    before_us = time.clock.now_us()
    for wall_us, tick_us in turns:
        now_us = time.turn(wall_us, tick_us)
        assert abs(now_us - before_us - tick_us) <= HOUR_US
        before_us = now_us


def test_the_real_clocks() -> None:
    """By default it reads the machine's clocks, in microseconds of Unix time."""
    clock = SteadyClock()
    first_us, second_us = clock.now_us(), clock.now_us()
    assert 1_600_000_000_000_000 < first_us < 10_000_000_000_000_000
    assert abs(second_us - first_us) < HOUR_US
    assert clock.refused == 0


def test_a_manual_clock_stands_still() -> None:
    """Time in tests goes on when a test says so."""
    clock = ManualClock(7)
    assert clock.now_us() == clock.now_us() == 7
    clock.time_us += 3
    assert clock.now_us() == 10


def test_a_successor_believes_what_was_believed_before_the_leap() -> None:
    """A process that is started while the clock is wrong knows how both clocks stood when all began."""
    wall, tick = both_us()
    clock = SteadyClock(lambda: wall + 86_400_000_000 + 5, lambda: tick + 5, since=(wall, tick))
    assert (clock.now_us(), clock.refused) == (wall + 5, 1)
    taken_in = SteadyClock(lambda: wall + 86_400_000_000 + 5, lambda: tick + 5)
    assert (taken_in.now_us(), taken_in.refused) == (wall + 86_400_000_000 + 5, 0)
