"""What commands say: results to programs, progress and failures to people."""

from __future__ import annotations

import io
import json
import sys

import pytest

from tools import console


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """A log or a pipe gets no bar."""
    with console.progress("sending", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("total", "expected"), [(1_000, "1000/1000"), (None, "1000/?")])
def test_progress_ends_with_the_whole_count(
    total: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However seldom the bar is drawn, what it shows in the end is exact, with or without a total."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with console.progress("sending", total) as advance:
        for _ in range(1_000):
            advance(1)
    assert "sending" in screen.getvalue()
    assert expected in screen.getvalue()


def test_progress_lets_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar ends, the error goes on."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyError), console.progress("sending", 3):
        raise KeyError


def test_results_and_failures_go_their_own_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that reads the result does not meet the failure in it; `main` can return what `fail` does."""
    console.print_json({"a": [1, "é"]})
    assert console.fail("port 8400 is taken; choose another") == 1
    assert console.fail("unknown file", 2) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": [1, "é"]}
    assert err == "treering: port 8400 is taken; choose another\ntreering: unknown file\n"


def test_rates_of_nothing_are_numbers() -> None:
    """A command that took no time divides by nothing."""
    assert console.rate(0, 0.0) == "0/s"
    assert console.number(1_234_567) == "1,234,567"
