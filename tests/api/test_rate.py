"""How fast the log grows: what is kept for it stays small, and what is said stays true."""

from __future__ import annotations

import pytest

from api.rate import STEP_US, WINDOW_US, Rate

MILLISECOND_US = 1_000


def test_a_steady_rate_is_told_as_it_is() -> None:
    """Five entries each millisecond are five thousand a second, however often one looks."""
    rate = Rate()
    for tick in range(20_000):
        told = rate.seen(tick * MILLISECOND_US, 5 * tick)
        assert told == (pytest.approx(5_000) if tick else 0.0)


def test_what_is_kept_does_not_grow_with_the_wake_ups() -> None:
    """A thousand sizes a second leave one for each tenth of it."""
    rate = Rate()
    for tick in range(30_000):
        rate.seen(tick * MILLISECOND_US, tick)
    assert len(rate._seen) <= WINDOW_US // STEP_US + 1


def test_a_log_that_stands_still_comes_to_rest() -> None:
    """Ten seconds after the last entry the rate is 0."""
    rate = Rate()
    rate.seen(0, 0)
    assert rate.seen(1_000_000, 50) == 50.0
    told = [rate.seen(second * 1_000_000, 50) for second in range(2, 13)]
    assert told[0] == 25.0
    assert told == sorted(told, reverse=True)
    assert told[-1] == 0.0
