"""A log with rotten rows can be backed up, if that is asked for: the backup names them, and nothing else passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archive import DataFolder, LmdbStore
from archive.plan import TABLES
from tests.archive.rotting import CLOSED, rot
from tests.tools.backed_up import grow, run_backup
from tools import restore
from tools.process import EXIT_FINDING, EXIT_GOOD


def damage(path: Path, index: int, table: str = "rows") -> None:
    """Flip a bit of an entry in a table of a log."""
    store = LmdbStore(path, TABLES)
    rot(store, index, CLOSED if table == "rows" else -1, table)
    store.close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data folder of a log of seven entries, of which the fourth has a rotten row."""
    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    grow(tmp_path / "data", 0)
    damage(DataFolder(tmp_path / "data").log, 3)
    return tmp_path / "data"


def test_damage_is_accepted_where_that_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the word there is no backup, and the way out is named; with it, it names the entries, and is restored."""
    target = tmp_path / "saved"
    assert run_backup(target, data, "--with-keys") == EXIT_FINDING
    assert "--accept-damage" in capsys.readouterr().err
    assert run_backup(target, data, "--with-keys", "--accept-damage") == EXIT_GOOD
    assert "entry 3: row" in capsys.readouterr().out
    assert "entry 3: row" in json.loads((target / "backup.json").read_bytes())["damage"]
    back = tmp_path / "back"
    assert restore.main([str(target), "--data", str(back), "--at-least", "7"]) == EXIT_GOOD
    assert grow(back, 10) > 7


@pytest.mark.parametrize(
    ("table", "spoil"),
    [("leaves", lambda path: damage(path, 5, "leaves")), ("rows", lambda path: damage(path, 5))],
)
def test_no_other_damage_is_accepted(
    data: Path, tmp_path: Path, table: str, spoil: Callable[[Path], None]
) -> None:
    """What all can check is whole or there is no backup; and a backup that rots is not the one that was made."""
    target = tmp_path / "saved"
    if table == "leaves":
        spoil(DataFolder(data).log)
        assert run_backup(target, data, "--accept-damage") == EXIT_FINDING
        assert not target.exists()
        return
    assert run_backup(target, data, "--with-keys", "--accept-damage") == EXIT_GOOD
    spoil(DataFolder(target).log)
    assert restore.main([str(target), "--data", str(tmp_path / "back"), "--at-least", "7"]) != EXIT_GOOD


def test_a_log_without_damage_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The word costs nothing where it was not needed, and what is written stays readable by all."""
    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    grow(tmp_path / "sound", 0)
    assert run_backup(tmp_path / "saved", tmp_path / "sound", "--accept-damage") == EXIT_GOOD
    assert "with damage" not in capsys.readouterr().out
    assert "damage" not in json.loads((tmp_path / "saved" / "backup.json").read_bytes())
