"""Promise: a check that leaves out states or attestations says so and does not call the rest equal, unless asked to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive import Activate, ActiveReducer, Attest
from reducers import BUILTIN, available, load
from replay import STATUS_FILE, ModuleStatus, Record, ShardStatus, module_folder, write_status
from tests.tools.left import Installed, forget, package, write_package
from tests.world import event
from tools import replay
from tools.loading import identities

TWO = '''
    """Counts."""
    from reducers import Event, reducer

    @reducer(scope=("student",))
    def first(state: int, event: Event) -> int:
        """Count."""
        return state + 1

    @reducer(scope=("student",))
    def second(state: int, event: Event) -> int:
        """Count."""
        return state + 2

    REDUCERS = [first, second]
'''
ONE = TWO.replace("[first, second]", "[first]")
OTHERS = ("--module", "activity", "--module", "writing", "--module", "progress", "--module", "classes")


def check(capsys: pytest.CaptureFixture[str], data: Path, *argv: str) -> tuple[int, Any, str]:
    """Return the exit code of a check, its report as JSON, and its last line for people, which must agree."""
    arguments = ["--data", str(data), "--check", *argv]
    code = replay.main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert replay.main(arguments) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert [one.removeprefix("NOT COMPARED: ") for one in lines[:-1] if one.startswith("NOT COMPARED: ")] == (
        report["incomplete"]
    )
    return code, report, lines[-1]


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a module of two reducers in a folder, and return it."""
    with package(tmp_path / "lib", "counts", TWO, monkeypatch) as folder:
        yield folder


def left(tmp_path: Path, *, attested: bool = False, active: bool = False) -> Installed:
    """Return what a server left that ran all that is installed."""
    made = Installed(tmp_path / "data")
    if active:
        made.steer(Activate("counts", identities(load(available()["counts"]).reducers)))
    made.append(*(event(name) for name in ("ann", "bob", "eve")))
    if attested:
        made.attest("second", 4)
        made.attest("event_count", 4)
    made.close()
    return made


def uninstall(lib: Path) -> None:
    """Remove the package."""
    shutil.rmtree(lib / "counts-1.0.dist-info")


def test_live_states_of_a_module_that_is_not_installed(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They answer people, and nobody held them against anything; whoever leaves the module out is not told of it."""
    data = left(tmp_path).data
    assert check(capsys, data)[0] == 0
    uninstall(lib)
    code, report, verdict = check(capsys, data)
    assert (code, report["equal"], verdict[:18]) == (2, False, "NOT ALL COMPARED: ")
    (said,) = report["incomplete"]
    assert said.startswith(
        "module counts: it is not installed, and has live states; install it or, if it is not"
    )
    assert said.endswith(f"move {module_folder(data / 'state', 0, 'counts')} away")
    for argv in (OTHERS, ("--reducer", "event_count")):
        code, report, verdict = check(capsys, data, *argv)
        assert (code, report["incomplete"], verdict[:7]) == (0, [], "equal: ")
    shutil.rmtree(module_folder(data / "state", 0, "counts"))
    assert check(capsys, data)[0] == 0


def test_a_catalogue_of_what_was_left_out_is_nobody_s_trouble(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is of states that nobody asked for; asked for, or all together, they are named."""
    data = left(tmp_path).data
    (module_folder(data / "state", 0, "counts") / "catalogue.json").unlink()
    assert check(capsys, data, "--module", "activity")[:2][0] == 0
    for argv in ((), ("--module", "counts")):
        assert "its catalogue cannot be read" in check(capsys, data, *argv)[1]["incomplete"][0]
    assert lib.is_dir()


def test_live_states_of_a_reducer_that_its_module_lacks(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The module is installed and replayed; what it had once, and has no more, is named with how much there is."""
    data = left(tmp_path, attested=True, active=True).data
    assert check(capsys, data)[0] == 0
    write_package(lib, "counts", ONE)
    forget("counts")
    for argv in ((), ("--module", "counts")):
        code, report, verdict = check(capsys, data, *argv)
        assert (code, verdict[:18]) == (2, "NOT ALL COMPARED: ")
        attested, live = report["incomplete"]
        assert live.startswith(
            "reducer second: it has 3 live states, and module counts as installed has no such "
        )
        assert attested.startswith(
            "module counts: it is active, and not installed as it is; these attestations "
        )
        assert "not judged: 1 of second; install it" in attested
        assert report["attestations"]["not_judged"] == {"second": 1}
    for argv in (("--reducer", "first"), ("--module", "activity")):
        assert check(capsys, data, *argv)[1]["incomplete"] == []


def test_a_backup_with_attestations_of_a_module_that_is_not_installed(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup is judged by its attestations: those that nobody could judge are named."""
    data = left(tmp_path, attested=True, active=True).data
    shutil.rmtree(data / "state")
    assert check(capsys, data)[0] == 0
    uninstall(lib)
    code, report, _ = check(capsys, data)
    assert (code, report["attestations"]["equal"]) == (2, 1)
    assert "these attestations were not judged: 1 of second" in report["incomplete"][0]
    code, report, _ = check(capsys, data, *OTHERS)
    assert (code, report["attestations"]["not_judged"]) == (0, {})


def test_attestations_of_a_reducer_that_was_given_up_are_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No module has it any more by the log itself, so that nobody is shown its states."""
    made = Installed(tmp_path / "data")
    made.append(event("ann"))
    made.steer(Activate("counts", (ActiveReducer("second", 1, ("student",), "0" * 64),)))
    made.steer(Attest(2, "second", 1, "0" * 64, 1, "1" * 64))
    made.steer(Activate("counts", ()))
    made.close()
    code, report, _ = check(capsys, made.data)
    assert (code, report["attestations"]["not_judged"]) == (0, {"second": 1})
    assert "1 attestations are of reducers that no module has any more" in report["notes"]


def test_a_module_that_never_ran_here_is_no_gap_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody was shown anything of it: it is not folded, and not counted; who names it is told that it never ran."""
    data = left(tmp_path).data
    whole = check(capsys, data)[1]
    fatal = TWO.replace("return state + 1", "import os; os._exit(7)")
    with package(tmp_path / "lib", "counts", fatal, monkeypatch):
        code, report, verdict = check(capsys, data)
        assert (code, verdict[:7], report["state_digest"]) == (0, "equal: ", whole["state_digest"])
        assert report["notes"][-1].endswith("modules that are installed, and never ran here: counts")
        assert check(capsys, data, *OTHERS)[1]["notes"] == []
    with package(tmp_path / "lib2", "counts", TWO, monkeypatch):
        for argv in (("--module", "counts"), ("--reducer", "first")):
            code, report, verdict = check(capsys, data, *argv)
            assert (code, verdict[:14]) == (2, "NOT COMPARED: ")
            (said,) = report["incomplete"]
            assert said.startswith("module counts: it never ran on this server, and there is nothing to hold")


def test_a_server_that_runs_some_of_what_is_installed_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Built-in modules are always installed: starting the server, whose settings name others, would change nothing."""
    data = left(tmp_path).data
    for name in ("classes", "progress", "writing"):
        shutil.rmtree(module_folder(data / "state", 0, name))
    code, report, verdict = check(capsys, data)
    assert (code, report["equal"], report["compared"]) == (0, True, {"activity": report["states"]})
    assert "never ran here: classes, progress, writing" in report["notes"][-1]
    assert f" of {len(BUILTIN['activity'])} reducers " in verdict


def test_attestations_alone_show_that_a_module_ran(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its states were shown to somebody once: without them the check is not whole."""
    data = left(tmp_path, attested=True).data
    shutil.rmtree(module_folder(data / "state", 0, "counts"))
    code, report, _ = check(capsys, data)
    assert (code, len(report["incomplete"])) == (2, 1)
    assert lib.is_dir()


@pytest.mark.parametrize("served", [(), ("activity",), ("activity", "counts")])
def test_states_that_were_moved_away_are_asked_for_while_a_server_runs_the_module(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str], served: tuple[str, ...]
) -> None:
    """Of a module that runs here no more nobody is shown anything; what is attested of it is judged all the same."""
    made = left(tmp_path, attested=True, active=True)
    shutil.rmtree(module_folder(made.data / "state", 0, "counts"))
    shard = ModuleStatus({"0": ShardStatus(Record("shared", "running"), 0.0)})
    write_status(made.front.folder.run / STATUS_FILE, dict.fromkeys(served, shard))
    code, report, _ = check(capsys, made.data)
    assert report["attestations"]["equal"] == 2
    if served == ("activity",):
        assert (code, report["incomplete"]) == (0, [])
        assert report["notes"][-1].endswith("do not run here any more, and have no live states: counts")
    else:
        assert code == 2
        assert report["incomplete"] == [
            "module counts: it is active, and has no live states; start the server, they are made anew"
        ]
    assert lib.is_dir()


def test_states_that_nothing_was_held_against_are_not_counted(
    tmp_path: Path, lib: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as those of a module that was switched off: what is called equal is equal to something."""
    whole = check(capsys, left(tmp_path / "whole", active=True).data)[1]
    made = Installed(tmp_path / "data")
    made.steer(Activate("counts", identities(load(available()["counts"]).reducers)))
    made.append(*(event(name) for name in ("ann", "bob", "eve")))
    made.steer(Activate("counts", ()))
    made.close()
    shutil.rmtree(module_folder(made.data / "state", 0, "counts"))
    code, report, verdict = check(capsys, made.data)
    assert (code, verdict[:7], report["states"]) == (0, "equal: ", whole["states"] - 2 * 3)
    assert sum(report["compared"].values()) == report["states"]
    assert lib.is_dir()


def test_a_module_that_was_renamed_is_replayed_under_its_new_name_only(
    tmp_path: Path, lib: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the log its reducers are another's now: what lies under the old name answers nobody, and is a note."""
    made = Installed(tmp_path / "data")
    old = load(available()["counts"])
    made.steer(Activate("counts", identities(old.reducers)))
    made.append(event("ann"))
    made.steer(Activate("tally", identities(old.reducers)))
    made.close()
    uninstall(lib)
    place = module_folder(made.data / "state", 0, "tally")
    shutil.copytree(module_folder(made.data / "state", 0, "counts"), place)
    catalogue = place / "catalogue.json"
    catalogue.write_bytes(catalogue.read_bytes().replace(b'"counts"', b'"tally"'))
    with package(tmp_path / "lib2", "tally", TWO, monkeypatch):
        code, report, verdict = check(capsys, made.data)
    assert (code, verdict[:7], report["compared"]["tally"]) == (0, "equal: ", 2)
    assert report["notes"] == [
        "module counts is not replayed: its reducers are those of tally now; its states answer nobody"
    ]
