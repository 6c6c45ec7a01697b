"""treering upgrade: what is active, what is installed, and which states would change: seen beforehand, not after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archive import Activate, ActiveReducer
from reducers import available, load
from replay import catalogue_of
from tests.tools.left import Left, package, write_package
from tests.world import event
from tools.loading import identities, states_place
from tools.upgrade import main

ESSAY = '''
    """Marks of an essay."""
    from typing import Any
    from reducers import Event, reducer

    @reducer(scope=("student",), version=1)
    def marks(state: dict[str, Any], event: Event) -> dict[str, Any]:
        """Count by type, two levels deep."""
        by = dict(state.get("by", {}))
        by[event.type] = by.get(event.type, 0) + 1
        return {"by": by}

    REDUCERS = [marks]
'''


def left_with(tmp_path: Path, name: str, *, close: bool = True) -> Left:
    """Return what a server left that ran the module as it is installed now, having activated it.

    If it is not to be closed, its states have seen the log all the same.
    """
    left = Left(tmp_path / "data")
    rows = [
        ActiveReducer(one.name, one.version, one.scope, one.code_digest)
        for one in load(available()[name]).reducers
    ]
    left.steer(Activate(name, tuple(rows)))
    left.append(*(event(who, kind) for who in ("ann", "bob", "eve") for kind in ("a", "b")))
    left.append(event("ann", "c"))
    left.front.reduce()
    if close:
        left.close()
    return left


def run(capsys: pytest.CaptureFixture[str], left: Left, *argv: object) -> tuple[int, Any]:
    """Run treering upgrade with --json; return exit code and report."""
    code = main(["--data", str(left.data), "--json", *map(str, argv)])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else printed.err


def module(report: Any, name: str) -> Any:
    """Return the row of a module in a list."""
    return next(row for row in report["modules"] if row["module"] == name)


@pytest.mark.parametrize(
    ("change", "what", "changes"),
    [
        (("", ""), "as installed", []),
        (("version=1", "version=2"), "10 entries are folded again", ["marks 1 -> 2"]),
        (("two levels", "two deep levels"), "10 entries are folded again", ["marks 1 has other code"]),
        (("def marks", "def notes"), "10 entries are folded again", ["notes 1 is new", "marks is gone"]),
        (("version=1", "version=0"), "cannot be loaded", None),
    ],
)
def test_the_list_says_what_the_next_start_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    what: str,
    changes: list[str] | None,
) -> None:
    """What is new, other or gone in the installed module, and what it costs; nothing is written."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u")
    body = ESSAY.replace(*change).replace("[marks]", "[notes]" if "def notes" in change[1] else "[marks]")
    with package(tmp_path / "lib", "essay_u", body, monkeypatch):
        before = {
            path: path.read_bytes()
            for path in left.data.rglob("*.*")
            if path.is_file() and path.suffix != ".mdb"
        }
        code, report = run(capsys, left)
        assert code == 0
        row = module(report, "essay_u")
        assert what in row["what"]
        assert row.get("changes", []) == (changes or [])
        assert {path: path.read_bytes() for path in before} == before
    main(["--data", str(left.data)])
    assert "touchy: is not installed: its states stay as they are" in capsys.readouterr().out


def test_a_version_that_went_back_would_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list says beforehand what the start would refuse, and by which command it is meant."""
    with package(tmp_path / "lib", "essay_u", ESSAY.replace("version=1", "version=3"), monkeypatch):
        left = left_with(tmp_path, "essay_u")
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        row = module(run(capsys, left, "--module", "essay_u")[1], "essay_u")
    assert row["what"].startswith("would not start: ")
    assert "treering undo essay_u" in row["what"]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.process)])
def test_what_would_change_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    """Another version that counts "c" double: one state of three changes, in one field; versions alone change none."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u")
    body = ESSAY.replace("version=1", "version=2")
    with package(tmp_path / "lib", "essay_u", body, monkeypatch):
        assert run(capsys, left, "--diff", "--module", "essay_u")[0] == 0
    body = body.replace("+ 1", '+ (2 if event.type == "c" else 1)')
    with package(tmp_path / "lib", "essay_u", body, monkeypatch):
        code, report = run(capsys, left, "--diff", "--jobs", jobs)
        (row,) = report["reducers"]
        assert (code, row["reducer"]) == (1, "marks")
        assert (row["same"], row["changed"], row["new"], row["gone"]) == (2, 1, 0, 0)
        places = [{"path": "$['by']['c']", "ours": 2, "theirs": 1}]
        assert row["shown"] == [{"key": {"student": "ann"}, "places": places}]
        assert main(["--data", str(left.data), "--diff"]) == 1
        printed = capsys.readouterr().out
        assert "marks: 2 of 3 states are the same, 1 changed, 0 new, 0 gone" in printed
        assert "$['by']['c']: 1 now, 2 as installed" in printed


def test_keys_that_come_and_go_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reducer that is new, one that is gone, and one whose keys have another shape."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u")
    renamed = ESSAY.replace("def marks", "def notes").replace("[marks]", "[notes]")
    with package(tmp_path / "lib", "essay_u", renamed, monkeypatch):
        code, report = run(capsys, left, "--diff", "--module", "essay_u")
        found = {row["reducer"]: (row["new"], row["gone"], row["changed"]) for row in report["reducers"]}
        assert (code, found) == (1, {"marks": (0, 3, 0), "notes": (3, 0, 0)})
    reshaped = ESSAY.replace('scope=("student",), version=1', "scope=(), version=2")
    with package(tmp_path / "lib", "essay_u", reshaped, monkeypatch):
        code, report = run(capsys, left, "--diff", "--module", "essay_u")
        (row,) = report["reducers"]
        assert (code, row["new"], row["gone"]) == (1, 1, 3)


def test_a_quarantine_that_would_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last good state may be the same; that the key goes on is a change, and so is what comes of it."""
    failing = ESSAY.replace(
        "        by = dict", '        if event.type == "b":\n            raise ValueError\n        by = dict'
    )
    with package(tmp_path / "lib", "essay_u", failing, monkeypatch):
        left = left_with(tmp_path, "essay_u")
    with package(tmp_path / "lib", "essay_u", ESSAY.replace("version=1", "version=2"), monkeypatch):
        code, report = run(capsys, left, "--diff", "--module", "essay_u", "--limit", "2")
        (row,) = report["reducers"]
        assert (code, row["changed"], len(row["shown"])) == (1, 3, 2)
        assert [place["path"] for place in row["shown"][1]["places"]] == ["quarantined", "$['by']['b']"]


def test_what_has_taken_over_would_change_nothing_and_says_on_demand_what_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is active is what is installed: exit code 0.  --before names the states of before as what they are."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u", close=False)
        before = catalogue_of(load(available()["essay_u"])).generation
    body = ESSAY.replace("version=1", "version=2").replace("+ 1", '+ (2 if event.type == "c" else 1)')
    with package(tmp_path / "lib", "essay_u", body, monkeypatch):
        new = load(available()["essay_u"])
        left.steer(Activate("essay_u", identities(new.reducers)))
        left.close(reduce=False)
        states_place(left.data / "state", 0, new, 0, 2)
        row = module(run(capsys, left, "--module", "essay_u")[1], "essay_u")
        assert (row["what"], row.get("changes", [])) == ("as installed", [])
        code, report = run(capsys, left, "--diff")
        assert (code, report["reducers"], report["against"]) == (0, [], {})
        code, report = run(capsys, left, "--before")
        assert (code, report["against"]) == (1, {"essay_u": before})
        assert (report["reducers"][0]["same"], report["reducers"][0]["changed"]) == (2, 1)
        assert main(["--data", str(left.data), "--diff", "--before"]) == 1
        assert "$['by']['c']: 1 before, 2 as installed" in capsys.readouterr().out


def test_while_a_start_goes_over_the_states_that_are_active_are_those_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """New states are begun and not activated yet: what the log says is active counts, and it would change."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u")
    body = ESSAY.replace("version=1", "version=2").replace("+ 1", '+ (2 if event.type == "c" else 1)')
    with package(tmp_path / "lib", "essay_u", body, monkeypatch):
        states_place(left.data / "state", 0, load(available()["essay_u"]), 0, 2)
        code, report = run(capsys, left, "--diff")
        (row,) = report["reducers"]
        assert (code, row["changed"], row["same"]) == (1, 1, 2)
        (place,) = row["shown"][0]["places"]
        assert (place["theirs"], place["ours"]) == (1, 2)
        assert main(["--data", str(left.data), "--diff"]) == 1
        assert "1 now, 2 as installed" in capsys.readouterr().out


def test_where_nothing_differs_there_is_nothing_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is installed is what runs; and a module that does not load is a reason to say that not all was told."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u")
        assert main(["--data", str(left.data), "--diff"]) == 0
        assert "nothing would change: what is installed is what runs" in capsys.readouterr().out
        assert main(["--data", str(left.data), "--before"]) == 0
        assert "nothing to compare: no states of before" in capsys.readouterr().out
    write_package(tmp_path / "lib", "essay_u", "import nothing_of_this_name")
    with package(tmp_path / "lib", "essay_u", "import nothing_of_this_name", monkeypatch):
        assert main(["--data", str(left.data), "--diff"]) == 2
        assert "module essay_u: " in capsys.readouterr().err


def test_a_module_that_never_ran_is_not_said_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What has no states yet changes none, which is another thing than being what runs."""
    left = left_with(tmp_path, "activity")
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        code, report = run(capsys, left, "--diff", "--module", "essay_u")
        assert (code, report["reducers"], report["without_states"]) == (0, [], ["essay_u"])
        assert main(["--data", str(left.data), "--diff", "--module", "essay_u"]) == 0
        assert capsys.readouterr().out == "essay_u: has no states yet; there is nothing to compare\n"


def test_a_new_version_that_cannot_go_on_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be parked; that is better known before than after."""
    with package(tmp_path / "lib", "essay_u", ESSAY, monkeypatch):
        left = left_with(tmp_path, "essay_u")
    body = ESSAY.replace("version=1", "version=2").replace(
        "        by = dict", "        raise MemoryError\n        by = dict"
    )
    with package(tmp_path / "lib", "essay_u", body, monkeypatch):
        code, report = run(capsys, left, "--diff")
        assert code == 2
        assert "reducer marks stops at entry 3: MemoryError" in report["not_compared"]["essay_u"]
