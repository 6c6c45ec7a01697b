"""A log of every format version that ever was is read, verified and replayed to the states of its time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, LmdbStore, Tally, check_log
from archive.plan import TABLES
from merkle import Ed25519Verifier
from reducers import digest_of_entries
from replay import replay_digests
from tests.archive.rotting import rot
from tests.golden import GOLDEN, NEWEST, VAULT_KEY, golden_copy, make, open_golden, reducers
from tools import verify_log

LOGS = pytest.mark.parametrize("golden", [GOLDEN, NEWEST], ids=lambda folder: folder.name)
REPORT = json.loads((GOLDEN.parent / "archive" / "report.json").read_text())


def expected_of(golden: Path) -> dict[str, Any]:
    """Return what was noted when a golden log was written."""
    expected: dict[str, Any] = json.loads((golden / "expected.json").read_text())
    return expected


@LOGS
def test_the_golden_log_verifies(tmp_path: Path, golden: Path) -> None:
    """Its leaves, tree, blocks, signatures and private rows are what its key and its vault say."""
    expected = expected_of(golden)
    with golden_copy(tmp_path / "golden", golden) as folder:
        source, size = open_golden(folder)
        vault, tally = folder.open_vault(os.urandom), Tally()
        verifier = Ed25519Verifier.decode(expected["vkey"])
        findings = list(check_log(source, size, verifier=verifier, vault=vault, tally=tally))
        vault.close()
    assert findings == []
    assert (size, tally.root.hex()) == (expected["size"], expected["root"])
    assert tally.opened == size - tally.control


def said_of(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what verify-log prints of a copy for programs, without how long it took and what is put in words."""
    verify_log.main([str(folder.path), "--vkey", expected_of(GOLDEN)["vkey"], "--vault", "--json"])
    return without_words(json.loads(capsys.readouterr().out))


def without_words(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without `seconds`, and its findings without `detail`; all of them must be there."""
    findings = [{name: one[name] for name in one.keys() - {"detail"}} for one in report["findings"]]
    assert all(isinstance(one["detail"], str) and one["detail"] for one in report["findings"])
    assert isinstance(report["seconds"], float)
    return {name: report[name] for name in report.keys() - {"seconds"}} | {"findings": findings}


def test_the_report_of_a_check_is_that_of_the_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden vector of docs/formats/findings.md: every member, of a sound log and of one with a flipped bit."""
    with golden_copy(tmp_path / "golden") as folder:
        assert said_of(folder, capsys) == without_words(REPORT["sound"])
        store = LmdbStore(folder.log, TABLES)
        rot(store, 7, -1, "leaves")
        store.close()
        assert said_of(folder, capsys) == without_words(REPORT["damaged"])


@LOGS
def test_the_golden_log_replays_to_its_states(tmp_path: Path, golden: Path) -> None:
    """The shipped reducers, at their versions, give the states that they gave when it was written."""
    expected = expected_of(golden)
    with golden_copy(tmp_path / "golden", golden) as folder:
        source, size = open_golden(folder)
        vault = folder.open_vault(os.urandom)
        digests = replay_digests(source, reducers(), vault, size=size)
        vault.close()
    assert len(digests) == expected["states"]
    assert digest_of_entries(digests).hex() == expected["state_digest"]


def test_the_golden_log_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's archiver writes the very same entries: same size, same root, same signature key."""
    monkeypatch.setenv("TREERING_VAULT_KEY", VAULT_KEY)
    make(tmp_path / "again")
    assert expected_of(tmp_path / "again") == expected_of(NEWEST)


def test_golden_logs_come_to_the_same_states() -> None:
    """What headers say besides changes no state: both logs hold the same events at the same places."""
    old, new = expected_of(GOLDEN), expected_of(NEWEST)
    assert {name for name in old if old[name] != new[name]} == {"root"}
