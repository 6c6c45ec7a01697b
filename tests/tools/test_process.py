"""What services and commands say, and when."""

from __future__ import annotations

import re

import pytest

from tools.process import say, with_times


def test_what_a_service_says_begins_with_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read later than it is said; a command's words are read at once."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    say("a command")
    with with_times():
        say("a service")
    say("a command")
    before, during, after = capsys.readouterr().err.splitlines()
    assert before == after == "a command"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d a service", during)


def test_the_journal_notes_times_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under systemd a second time would be noise."""
    monkeypatch.setenv("JOURNAL_STREAM", "9:12345")
    with with_times():
        say("a service")
    assert capsys.readouterr().err == "a service\n"
