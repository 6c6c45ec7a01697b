"""treering keys: keys are made once, shown to anybody, and changed under the lock of the one writer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, Log, load_size, read_key, ring_of, take_lock
from merkle import Ed25519Verifier, decode_vkey
from tools import keys
from tools.archiver import build
from tools.process import EXIT_GOOD, EXIT_USAGE


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with a log that was started once."""
    folder = DataFolder(tmp_path / "data")
    folder.create()
    build(folder, "example.org/log", None).open({"software": "test"})
    return folder.path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run the command with --json and return what it printed."""
    assert keys.main([*arguments, "--json"]) == EXIT_GOOD, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_key_is_made_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each type; the file's key is the one whose verifier key is printed."""
    for kind, number in keys.TYPES.items():
        path = tmp_path / kind
        made = said(capsys, "generate", "example.com/k", "--out", str(path), "--type", kind)
        assert made["vkey"] == read_key(path).verifier.encode()
        assert decode_vkey(made["vkey"]).encode().split("+")[0] == "example.com/k"
        assert path.stat().st_mode & 0o777 == 0o600
        assert keys.TYPES[made["type"]] == number


def test_a_key_that_cannot_be_made_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there, a folder that is not, a name that no key can have: nothing is written."""
    there = tmp_path / "there"
    there.write_text("precious")
    for name, out, complaint in (
        ("k", there, "no key is ever overwritten"),
        ("k", tmp_path / "no" / "key", "there is no such folder"),
        ("a b", tmp_path / "key", "not a key name"),
    ):
        assert keys.main(["generate", name, "--out", str(out)]) == EXIT_USAGE
        assert complaint in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["there"]
    assert there.read_text() == "precious"


def test_a_rotation_is_told_and_can_be_followed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old key, the last size that it signs, and the new key; `vkey` and `history` agree with the log."""
    first = said(capsys, "vkey", "--data", str(data))["vkey"]
    assert said(capsys, "history", "--data", str(data))["keys"] == [{"from_size": 0, "vkey": first}]
    told = said(capsys, "rotate", "--data", str(data))
    assert told["old"] == first
    assert said(capsys, "vkey", "--data", str(data))["vkey"] == told["new"]
    expected = [
        {"from_size": 0, "vkey": first},
        {"from_size": told["last_size_of_old"] + 1, "vkey": told["new"]},
    ]
    assert said(capsys, "history", "--data", str(data))["keys"] == expected
    store = DataFolder(data).open_log()
    with store.view() as view:
        log = Log(view, load_size(view))
        ring = ring_of(log, Ed25519Verifier.decode(first))
        assert [ring.open(note).size for _, note in log.checkpoints()][-1] == told["last_size_of_old"]
    store.close()


def test_a_dry_run_changes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which key would be replaced."""
    before = {path.name: path.read_bytes() for path in (data / "keys").iterdir()}
    told = said(capsys, "rotate", "--data", str(data), "--dry-run")
    assert told == {"old": said(capsys, "vkey", "--data", str(data))["vkey"], "new": None, "dry_run": True}
    assert {path.name: path.read_bytes() for path in (data / "keys").iterdir()} == before


def test_a_running_log_is_not_rotated(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever holds the log's lock is its writer: the command says to stop it first."""
    assert take_lock(data / "log" / "0" / "lock") > 0
    assert keys.main(["rotate", "--data", str(data)]) == EXIT_USAGE
    assert "stop it first" in capsys.readouterr().err


def test_no_log_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a log is named, and nothing is made in it."""
    for command in ("vkey", "history", "rotate"):
        assert keys.main([command, "--data", str(tmp_path)]) == EXIT_USAGE
        assert str(tmp_path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
