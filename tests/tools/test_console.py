"""What commands say: results to programs, progress and failures to people."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools import cli, console
from tools.process import PYTHON


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


def test_a_failure_is_one_line_whatever_others_wrote_into_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in a file or a name is shown, and does nothing to the terminal."""
    console.fail("x\n\x1b[31mtreering: all is well")
    assert capsys.readouterr().err == "treering: x\\n\\x1b[31mtreering: all is well\n"


def printing(text: str, before: str) -> Callable[[Sequence[str]], int]:
    """Return a command that prints, takes care of errors of its files, and puts away what it has begun."""

    def run(arguments: Sequence[str]) -> int:
        assert arguments == ["--count", "3"]
        Path(before).touch()
        try:
            print(text, end="", flush="now" in text)  # noqa: T201 - what commands do
        except OSError:
            return 2
        finally:
            Path(before).unlink()
        return 1

    return run


@contextmanager
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Let standard output be a pipe; yield its other end."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "argv", ["treering", "--count", "3"])
        yield reading


@pytest.mark.parametrize("text", ["a line\n" * 20_000, "said now", "little, and late"])
def test_a_command_whose_reader_goes_away_ends_in_good_order(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`treering doctor | head`: no traceback, no word of a broken file, nothing half done, and no verdict either."""
    with piped(monkeypatch) as reading:
        os.close(reading)
        with pytest.raises(SystemExit) as ended:
            console.as_program(printing(text, f"{tmp_path}/begun"))
    assert ended.value.code == console.EXIT_UNREAD
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_is_what_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is read to its end has its own exit code, and not a byte less or more arrives."""
    with piped(monkeypatch) as reading:
        assert console.as_program(printing("zoë\n", f"{tmp_path}/begun")) == 1
    with os.fdopen(reading) as stream:
        assert stream.read() == "zoë\n"


def test_output_that_the_disk_does_not_take_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`treering doctor > report` on a full disk: a sentence and exit code 2, where 1 would say "something is wrong"."""
    monkeypatch.setattr(sys, "argv", ["treering", "--count", "3"])
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            console.as_program(printing("much", f"{tmp_path}/begun"))
    assert ended.value.code == 2
    assert "what was to be printed: No space left on device" in capsys.readouterr().err


def test_a_command_without_standard_output_ends_as_it_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shell may close it (`>&-`)."""
    monkeypatch.setattr(sys, "argv", ["treering", "--count", "3"])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert console.as_program(printing("unheard", f"{tmp_path}/begun")) == 1


def test_ctrl_c_is_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever ends a command knows that he did: no traceback, what was begun is put away, and a shell's exit code."""
    monkeypatch.setattr(sys, "argv", ["treering"])

    def command(_: Sequence[str]) -> int:
        with console.progress("working", 3), (tmp_path / "begun").open("w") as file:
            try:
                raise KeyboardInterrupt
            finally:
                Path(file.name).unlink()

    monkeypatch.setattr(sys, "stdout", None)
    assert console.as_program(command) == console.EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err == "treering: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize(
    "command", [["tools.cli", "--help"], ["tools.cli", "doctor", "--help"], ["tools.verify_log", "-h"]]
)
def test_each_program_may_be_piped_into_one_that_reads_no_more(command: list[str]) -> None:
    """Both entry points are run in that way: by their scripts, `treering` and `verify-log`, and by `python -m`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PYTHON, *command], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (console.EXIT_UNREAD, b"")


def test_rates_of_nothing_are_numbers() -> None:
    """A command that took no time divides by nothing."""
    assert console.rate(0, 0.0) == "0/s"
    assert console.number(1_234_567) == "1,234,567"


def test_a_command_that_there_is_not_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: who mistypes a command reads which word was wrong, and what may have been meant."""
    assert cli.main(["nwe"]) == 2
    assert capsys.readouterr().err.endswith("treering: there is no command 'nwe'; 'new' is near\n")
    assert cli.main(["xyzzy"]) == 2
    assert capsys.readouterr().err.endswith("treering: there is no command 'xyzzy'\n")
