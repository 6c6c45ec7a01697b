"""Promise: what the format page lets an entry say, a log may hold: it verifies, is backed up, and folds as it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from archive import Activate, DataFolder, Skip
from reducers import available, load
from replay import module_folder
from tests.tools.left import Installed as Left
from tests.world import event
from tools import backup, doctor, replay, upgrade, verify_log
from tools.loading import gathered, identities, spoken_to
from tools.process import EXIT_GOOD, EXIT_USAGE

MODULE = "activity"


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """Return what a server left: an event was skipped before it came, and a module was switched off."""
    made = Left(tmp_path / "data")
    made.steer(Activate(MODULE, identities(load(available()[MODULE]).reducers)))
    skip = made.steer(Skip("event_count", 6))
    made.append(*(event(name) for name in ("ann", "ann", "ann", "bob")))
    assert skip < 6 < made.front.archiver.head.size
    made.steer(Activate(MODULE, ()))
    made.append(event("ann"))
    made.close()
    return made


def test_it_verifies_and_is_backed_up(left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads the page writes such entries, and must not be called a forger, nor be left without a backup."""
    vkey = left.front.signer.verifier.encode()
    assert verify_log.main([str(left.data), "--vkey", vkey]) == EXIT_GOOD
    assert backup.main([str(tmp_path / "saved"), "--data", str(left.data)]) == EXIT_GOOD
    assert verify_log.main([str(tmp_path / "saved"), "--vkey", vkey]) == EXIT_GOOD
    assert capsys.readouterr().out.count("verified: 10 entries") == 3, "a backup checks itself"


def test_a_replay_folds_what_the_workers_folded(left: Left, capsys: pytest.CaptureFixture[str]) -> None:
    """The event that was skipped beforehand is in no state, neither live nor replayed."""
    assert replay.main(["--data", str(left.data), "--json", "--check"]) == EXIT_GOOD
    assert json.loads(capsys.readouterr().out)["equal"] is True
    assert replay.main(["--data", str(left.data), "--reducer", "event_count", "--out", "-"]) == EXIT_GOOD
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    states = {line["key"]["student"]: line["state"] for line in lines if "key" in line}
    assert states == {"ann": {"events": 3}, "bob": {"events": 1}}


def test_a_module_that_is_switched_off_needs_no_states(
    left: Left, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only of a module that is active a check asks where its states are; the next start makes it active again."""
    shutil.rmtree(module_folder(left.data / "state", 0, MODULE))
    assert replay.main(["--data", str(left.data), "--check"]) == EXIT_GOOD
    assert upgrade.main(["--data", str(left.data), "--module", MODULE]) == EXIT_GOOD
    assert f"{MODULE}: " in (said := capsys.readouterr().out)
    assert "is new" in said
    checked = [one.about for one in doctor.check_modules(DataFolder(left.data)) if not one.good]
    assert checked == []


def test_states_beyond_the_log_have_not_spoken_for_it(tmp_path: Path) -> None:
    """States of a longer log: an activation that went back to where they stand would be refused, and none needs to."""
    left = Left(tmp_path / "data")
    left.steer(Activate(MODULE, identities(load(available()[MODULE]).reducers)))
    short = gathered(left.front.source)
    left.append(event("ann"))
    steering = gathered(left.front.source)
    left.close()
    assert spoken_to(left.data / "state", 0, MODULE, steering) == 4
    assert spoken_to(left.data / "state", 0, MODULE, short) is None


def test_a_module_that_is_active_needs_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to compare with is no agreement."""
    left = Left(tmp_path / "data")
    left.append(event("ann"))
    left.steer(Activate(MODULE, identities(load(available()[MODULE]).reducers)))
    left.close()
    shutil.rmtree(module_folder(left.data / "state", 0, MODULE))
    assert replay.main(["--data", str(left.data), "--check"]) == EXIT_USAGE
    assert "it is active, and has no live states" in capsys.readouterr().out
