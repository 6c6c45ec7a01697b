"""The tamper matrix: every case is noticed by the check that must notice it, and every check is needed for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archive import CHECKS, NotFound
from tests.golden import golden_copy
from tools import drill
from tools.drill import CASES, Bench, Result
from tools.drill_case import WHO, Case
from tools.drill_copy import _size_of_copy
from tools.verify_folder import Outcome, Request, verify_folder

NAMES = [case.name for case in CASES]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Run the whole drill once, on a little log made for it."""
    bench = Bench.on(tmp_path_factory.mktemp("drill"), data=None)
    assert bench.verify(bench.copy(), Case("untouched", "rot", "", lambda _: None, vault=True)).findings == []
    return {case.name: bench.run(case) for case in CASES}


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_noticed_as_it_must_be(results: dict[str, Result], name: str) -> None:
    """What can be noticed is, by an expected check; what cannot be is not claimed to be."""
    result = results[name]
    assert result.as_expected, (
        f"{name}: expected {result.case.expected}, found by {result.checks}: {result.finding}"
    )


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_is_needed(results: dict[str, Result], check: str) -> None:
    """Without this check, some tampering would go unnoticed: there is a case that it alone finds."""
    assert [name for name, result in results.items() if result.checks == (check,)] != []


def test_every_finding_about_an_entry_names_checkpoints(results: dict[str, Result]) -> None:
    """A finding says up to which signed checkpoint the log is right, and from which one on it is in doubt."""
    about_entries = [one.finding for one in results.values() if one.finding.startswith("entry")]
    placed = [text for text in about_entries if "first in doubt: " in text]
    assert len(placed) >= len(about_entries) - 4, "only what no stretch finds has no place"


def test_a_gap_is_found_where_it_is(results: dict[str, Result]) -> None:
    """The entry after the one that was taken out is named, not the first one of its subject."""
    assert int(results["event taken out"].finding.split()[1].rstrip(":")) > 300


def test_cases_are_told_apart_and_explained() -> None:
    """Each case has a name and a story of its own, and says who could do it."""
    assert len(set(NAMES)) == len({case.story for case in CASES}) == len(CASES)
    assert {case.who for case in CASES} == set(WHO)
    assert {check for case in CASES for check in case.expected} == set(CHECKS)


def test_the_drill_says_so_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says what was done, whether it was noticed, and what nobody could notice."""
    monkeypatch.setattr(
        drill, "CASES", [case for case in CASES if case.name in {"bit in a node", "disk set back unseen"}]
    )
    assert drill.main([]) == 0
    printed = capsys.readouterr().out
    assert "untouched: verified" in printed
    assert "noticed by 'nodes', which checks that every stored hash of the tree" in printed
    assert "2 of 2 came out as they must" in printed


def test_a_blind_checker_fails_the_drill(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If verify-log found nothing, the drill would say so and end with 1."""

    def blind(request: Request) -> Outcome:
        outcome = verify_folder(request)
        outcome.findings.clear()
        return outcome

    monkeypatch.setattr(drill, "CASES", [case for case in CASES if case.name == "bit in a node"])
    monkeypatch.setattr(drill, "verify_folder", blind)
    assert drill.main(["--json"]) == 1
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert (case["as_expected"], case["found_by"]) == (False, [])


def test_a_real_log_is_copied_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --data the first entries of a log are copied, and without its vault what takes one is left out."""
    with golden_copy(tmp_path / "golden") as folder:
        files = [path for path in folder.path.rglob("*") if path.is_file() and path.name != "lock.mdb"]
        before = {path: path.read_bytes() for path in files}
        assert drill.main(["--data", str(folder.path), "--entries", "500", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert 300 <= report["entries"] <= 500
        assert [case["case"] for case in report["cases"]] == [
            case.name for case in CASES if not case.needs_vault
        ]
        assert before == {path: path.read_bytes() for path in files}


def test_a_copy_ends_at_the_commit_that_is_nearest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number may be asked for; below what a drill takes, and between two commits, the next one that will do."""
    assert [_size_of_copy([200, 290, 314, 500], n) for n in (0, 300, 313, 314, 499, 9_000)] == [
        *[314] * 5,
        500,
    ]
    monkeypatch.setattr(drill, "CASES", [case for case in CASES if case.name == "bit in a node"])
    for entries in ("1", "300", "314"):
        assert drill.main(["--entries", entries, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["entries"] == 314
    for sizes in ([], [2, 299]):
        with pytest.raises(
            NotFound, match=f"only {max(sizes, default=0)} entries can be copied.*leave --data out"
        ):
            _size_of_copy(sizes, 1_000)


def test_without_a_log_there_is_no_drill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder is a mistake in the call, and stays empty."""
    assert drill.main(["--data", str(tmp_path)]) == 2
    assert "there is no log" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
