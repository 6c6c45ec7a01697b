"""Which seconds are logged: each that a reducer asks for, once, and never a night of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from archive import Event
from reducers import due as due_for
from reducers import reducer, tick
from tools.ticker import Ticker, periods


def seconds(ticker: Ticker, wanted: set[int], now_s: int) -> list[int]:
    """Return the seconds that are due, and let them be logged."""
    found = [int(str(one.id).removeprefix("tick/")) for one in ticker.due(wanted, now_s)]
    ticker.logged()
    return found


PERIODS = st.sets(st.sampled_from([1, 2, 5, 7, 60, 3_600]), min_size=1)


@given(PERIODS, st.lists(st.integers(1, 200), max_size=30), st.integers(0, 10**9))
def test_each_second_is_logged_once_ascending_and_no_more_than_a_period_late(
    wanted: set[int], steps: list[int], start_s: int
) -> None:
    """Whatever the pauses between two looks, each tick is the newest of a period, and none is missing at the end."""
    ticker, now_s, found = Ticker(), start_s, list[int]()
    for step_s in [0, *steps]:
        now_s += step_s
        fresh = seconds(ticker, wanted, now_s)
        assert fresh == sorted(fresh)
        assert all(
            any(second % one == 0 and now_s - one < second <= now_s for one in wanted) for second in fresh
        )
        found += fresh
        assert {now_s - now_s % one for one in wanted} <= set(found), "the newest of each period is there"
    later = [second for at, second in enumerate(found) if second in found[:at]]
    assert later == [], "a second was asked for twice"


def test_a_server_that_was_down_for_a_night_logs_one_tick_of_each_period() -> None:
    """Time passed once, and not thirty thousand times."""
    ticker = Ticker()
    seconds(ticker, {1, 60}, 1_000_000)
    assert seconds(ticker, {1, 60}, 1_030_000) == [1_029_960, 1_030_000]


def test_a_clock_that_was_set_back_logs_nothing_until_it_reaches_the_log_again() -> None:
    """Time does not go backwards for anybody: neither for a ticker that saw the later time, nor after a restart."""
    ticker = Ticker(lambda: 6_000)
    seconds(ticker, {60}, 6_000)
    assert [seconds(ticker, {60}, now_s) for now_s in (5_000, 5_999, 6_059, 6_060)] == [[], [], [], [6_060]]
    restarted = Ticker(lambda: 6_000)
    assert [seconds(restarted, {60}, now_s) for now_s in (5_000, 5_999, 6_000)] == [[], [], [6_000]]


class Clocks:
    """A worker's clock, and that of an archiver that follows no leap: its time is that of the newest entry."""

    def __init__(self, now_s: int) -> None:
        self.now_s, self.off_s, self.newest_s = now_s, 0, now_s
        self.ticker = Ticker(lambda: self.newest_s)

    def look(self, wanted: set[int], after_s: int = 0) -> list[int]:
        """Let time pass, have what is due logged, and return it."""
        self.now_s += after_s
        found = seconds(self.ticker, wanted, self.now_s + self.off_s)
        if found:
            self.newest_s = self.now_s
        return found


def test_a_clock_that_leaps_a_year_ahead_is_not_followed_and_ticks_go_on_once_it_is_put_right() -> None:
    """While it is wrong, no tick is more than an hour ahead of the log; put right, no minute is missed."""
    clocks = Clocks(1_700_000_040)
    assert clocks.look({60}) == [1_700_000_040]
    clocks.off_s = 365 * 86_400
    ahead = [second for _ in range(10) for second in clocks.look({60}, 60)]
    assert ahead
    assert max(ahead) <= clocks.now_s + 3_600
    clocks.off_s = 0
    right = [clocks.look({60}, 60) for _ in range(10)]
    assert right == [[1_700_000_700 + 60 * count] for count in range(10)]


def test_a_ticker_that_starts_while_the_clock_is_a_year_ahead_logs_no_tick_of_that_year() -> None:
    """A restart does not believe the clock either, for the log says what time it is."""
    clocks = Clocks(1_700_000_040)
    clocks.off_s = 365 * 86_400
    assert clocks.look({60}) == [1_700_003_640]


@given(PERIODS, st.integers(86_400, 10**7), st.lists(st.integers(-(10**9), 10**9), max_size=20))
def test_however_a_clock_jumps_no_tick_is_ahead_of_the_log_and_none_is_missing_in_the_end(
    wanted: set[int], start_s: int, jumps: list[int]
) -> None:
    """Jumps of any size, one after another: once the clock is right again, the newest of each period is in the log."""
    clocks, log = Clocks(start_s), set[int]()
    for jump_s in jumps:
        clocks.off_s = jump_s
        found = clocks.look(wanted, 1)
        assert all(second <= clocks.now_s + 3_600 for second in found)
        log |= set(found)
    clocks.off_s = 0
    log |= {*clocks.look(wanted, 1), *clocks.look(wanted)}
    assert {clocks.now_s - clocks.now_s % one for one in wanted} <= log


def test_after_a_night_asleep_time_goes_on_and_a_day_is_a_period_as_any_other() -> None:
    """A log in which nothing was written for long is no clock that leaped: ticks reach the present again."""
    clocks = Clocks(86_400)
    assert clocks.look({60, 86_400}) == [86_400]
    assert clocks.look({60, 86_400}, 8 * 3_600) == [86_400 + 3_600]
    assert clocks.look({60, 86_400}) == [86_400 + 8 * 3_600]
    assert clocks.look({86_400}, 16 * 3_600) == [2 * 86_400]


def test_a_period_that_comes_later_gets_its_own_newest() -> None:
    """A module that was added takes ticks from then on; what others had is not asked for again."""
    ticker = Ticker()
    assert seconds(ticker, {60}, 7_200) == [7_200]
    assert seconds(ticker, {60, 3_600}, 7_230) == [7_200], "the id makes it one entry"
    assert seconds(ticker, {60, 3_600}, 7_231) == []


@given(PERIODS, st.integers(0, 10**9))
def test_the_wait_ends_when_the_next_tick_is_due(wanted: set[int], now_s: int) -> None:
    """One who sleeps so long misses none and wakes for none in vain."""
    wait_s = Ticker().wait_s(wanted, float(now_s))
    assert wait_s is not None
    ticker = Ticker()
    seconds(ticker, wanted, now_s)
    assert ticker.due(wanted, now_s + int(wait_s)) != []
    assert ticker.due(wanted, now_s + int(wait_s) - 1) == []
    assert Ticker().wait_s(set(), 1.0) is None


def test_periods_are_those_of_reducers_that_take_ticks() -> None:
    """And a tick that is logged for them is one that they are folded over."""

    @reducer(ticks=90)
    def slow(state: int, event: Event) -> int:
        return state + event.index

    @reducer()
    def none(state: int, event: Event) -> int:
        return state + event.index

    assert periods([slow, none]) == {90}
    (second,) = seconds(Ticker(), periods([slow, none]), 200)
    assert due_for(slow, tick(0, 1_000 * second))
