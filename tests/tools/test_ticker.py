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
    ticker.logged(wanted, now_s)
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
    ticker = Ticker()
    seconds(ticker, {60}, 6_000)
    assert [seconds(ticker, {60}, now_s) for now_s in (5_000, 5_999, 6_059, 6_060)] == [[], [], [], [6_060]]
    restarted = Ticker(not_before_s=6_000)
    assert [seconds(restarted, {60}, now_s) for now_s in (5_000, 5_999, 6_000)] == [[], [], [6_000]]


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
    ticker.logged(wanted, now_s)
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
