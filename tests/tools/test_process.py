"""What services and commands say, and when."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from merkle import Ed25519Signer
from tools import front, witness
from tools.process import FILES_MAX, raise_files, say, with_times


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


def test_what_others_wrote_cannot_forge_a_line_nor_move_the_cursor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a module is shown as one line of text: no line breaks, colours or reversals of its own."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    text = "bad\n2026-01-01 00:00:00 treering: all is well\r\x1b[2J\x9b31m\u202e\u2028zoë"
    with with_times():
        say(f"module f: {text}")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.removesuffix("\n").isprintable()
    assert "bad\\n2026-01-01 00:00:00 treering: all is well\\r\\x1b[2J\\x9b31m\\u202e\\u2028zoë" in said


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1_024, 20_000, 20_000),
        (1_024, 1 << 20, FILES_MAX),
        (1_024, resource.RLIM_INFINITY, FILES_MAX),
        (1_024, 1_024, 1_024),
        (100_000, 1 << 20, 100_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, FILES_MAX),
    ],
)
def test_a_process_takes_the_files_that_it_may_have(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int
) -> None:
    """Up to the hard limit, which stays, and to a number that is enough; never fewer than before."""
    now = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda _, to: now.__setitem__(slice(None), to))
    assert raise_files() == expected
    assert now == [soft if soft == resource.RLIM_INFINITY else expected, hard]


class Asked(Exception):
    """A program has asked for files."""


def test_a_front_and_a_witness_ask_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hold a file for each connection; nobody has to know of `ulimit` for that."""

    def asked() -> int:
        raise Asked

    monkeypatch.setattr(front, "raise_files", asked)
    with pytest.raises(Asked):
        front.main(["--data", "x", "--shards", "1", "--fd", "0"])
    monkeypatch.setattr(witness, "raise_files", asked)
    monkeypatch.setattr(witness, "listen", lambda _: 1 / 0)  # it must not come so far
    state, log = tmp_path / "state", Ed25519Signer("example.com/log", bytes(32)).verifier.encode()
    with pytest.raises(Asked):
        witness.main(["--state", str(state), "--log", log, "--listen", "127.0.0.1:0"])
