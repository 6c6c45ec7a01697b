"""What a person is told who wants to retry what is not stopped: there is always something that he can do next."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from api import SHARDS_FILE
from archive import TABLES, Activate, ActiveReducer, DataFolder, LmdbStore, Receipt, Skip, Steering, Write
from reducers import BUILTIN, Module, Slot
from replay import (
    STATE_TABLES,
    STATUS_FILE,
    Fault,
    Holding,
    ModuleStatus,
    Record,
    ShardStatus,
    on_folder,
    read_status,
    write_status,
)
from replay.escalation import State
from tests.tools.left import SHARDS, Left
from tests.world import event, pages
from tools import steer
from tools.loading import identities, states_place


def folder_of(path: Path, state: State, still: int) -> DataFolder:
    """Return a folder with a module in some state, of which so many states stand still."""
    folder = DataFolder(path)
    folder.create()
    (folder.state / SHARDS_FILE).write_text("1\n")
    write_status(
        folder.run / STATUS_FILE, {"essay": ModuleStatus({"0": ShardStatus(Record("shared", state), 0.0)})}
    )
    module = Module("essay", (pages,))
    store = LmdbStore(states_place(folder.state, 0, module, 0, 1), STATE_TABLES)
    holding = Holding(module.reducers, store, "essay")
    for at in range(still):
        holding.put(pages, ("d", f"student {at}"), Slot(1, at, "ValueError: no", at))
    holding.save(2, bytes(32), {})
    store.close()
    return folder


@pytest.mark.parametrize(
    ("state", "still", "says"),
    [
        (
            "running",
            0,
            "runs in every shard: there is nothing to retry. A version that you installed is run by the",
        ),
        (
            "running",
            2,
            "some of its states stand still: treering retry pages 0{on}; treering retry pages 1{on}\n",
        ),
        ("running", 9, "treering retry pages 4{on} (and 4 more)"),
        ("pausing", 0, "is tried again by itself in a moment"),
    ],
)
def test_who_retries_what_is_not_stopped_is_told_what_to_do_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: State, still: int, says: str
) -> None:
    """Nothing is written; exit code 1."""
    folder = folder_of(tmp_path, state, still)
    assert steer.retry(["essay", "--data", str(folder.path)]) == 1
    assert says.format(on=on_folder(folder.path)) in capsys.readouterr().err


def waiting(path: Path) -> tuple[DataFolder, int]:
    """Return what a server left of which module activity waits at an event of Ann, and the index of that."""
    left = Left(path / "data")
    (at,) = left.append(event("ann", "typed"))
    left.close()
    folder = DataFolder(left.data)
    fault = Fault("rotten", at, 0, 0.0, "private row: it was altered", "event_count")
    status = ModuleStatus({"0": ShardStatus(Record("shared", "parked", last=fault), 0.0)})
    write_status(folder.run / STATUS_FILE, {"activity": status})
    return folder, at


def rot(folder: DataFolder, index: int) -> None:
    """Flip a bit of the last private row."""
    store = LmdbStore(folder.log, TABLES)
    with store.view() as view:
        key, rows = list(view.scan("rows"))[-1]
    assert int.from_bytes(key) <= index
    store.commit([Write("rows", key, rows[:-20] + bytes([rows[-20] ^ 1]) + rows[-19:])])
    store.close()


@pytest.mark.parametrize("rotten", [False, True])
def test_an_entry_is_skipped_for_all_who_wait_at_it_whether_or_not_it_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, rotten: bool
) -> None:
    """What cannot be opened has no type that could be shown, and is no reason to refuse."""
    folder, at = waiting(tmp_path)
    if rotten:
        rot(folder, at)
    on = ["--data", str(folder.path), "--dry-run"]
    kind = "" if rotten else " (typed)"
    assert steer.skip(["--all", str(at), *on, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = [place.rpartition(":")[2] for place in BUILTIN["activity"]]
    assert sorted(told["reducers"]) == sorted(names)
    assert told["decision"].endswith(f"are to pass over entry {at}{kind}")
    assert steer.skip(["event_count", str(at), *on]) == 0
    assert f"is to pass over entry {at}{kind}: nothing was written" in capsys.readouterr().out


class Client:
    """Takes control entries, and gives them these indices."""

    def __init__(self, *indices: int) -> None:
        self.indices = iter(indices)
        self.taken: list[Steering] = []

    def __call__(self, _: Path) -> Client:
        """Connect."""
        return self

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def steer(self, steering: Steering) -> Receipt:
        """Take one."""
        self.taken.append(steering)
        index = next(self.indices)
        return Receipt(index, index + 1)


def test_all_entries_that_were_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One decision about several reducers is several entries: whoever looks for them finds each."""
    folder, at = waiting(tmp_path)
    count = len(BUILTIN["activity"])
    assert count > 1
    skip = ["--all", str(at), "--data", str(folder.path)]
    client = Client(*range(20, 20 + 2 * count, 2))
    monkeypatch.setattr(steer, "DirectClient", client)
    assert steer.skip([*skip, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["entries"] == list(range(20, 20 + 2 * count, 2))
    assert {one.reducer for one in client.taken if isinstance(one, Skip)} == set(told["reducers"])
    monkeypatch.setattr(steer, "DirectClient", Client(*range(20, 20 + count)))
    assert steer.skip(skip) == 0
    said = capsys.readouterr().out
    assert said.endswith(f": {steer._said(range(20, 20 + count))}\n")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([7], "entry 7 says so"),
        ([7, 8], "entries 7, 8 say so"),
        ([7, 8, 9, 10], "entries 7 to 10 say so"),
        ([7, 9, 10, 11, 12, 14], "entries 7, 9 to 12, 14 say so"),
    ],
)
def test_many_entries_in_a_row_are_a_range(entries: list[int], says: str) -> None:
    """A few are named one by one; what somebody else wrote in between is not named."""
    assert steer._said(entries) == says


def test_where_nobody_waits_nothing_is_skipped_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An entry that stops nobody is skipped by name only: it would change states that are in order."""
    folder, at = waiting(tmp_path)
    assert steer.skip(["--all", str(at + 1), "--data", str(folder.path)]) == 1
    assert f"no module waits at entry {at + 1}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        steer.skip([str(at), "--data", str(folder.path)])
    assert "name a reducer, or say --all" in capsys.readouterr().err


def test_a_rotten_entry_is_first_looked_for_in_a_backup(tmp_path: Path) -> None:
    """What is told to help is no command that gives an event up, unless there is nothing else."""
    folder, at = waiting(tmp_path)
    said = read_status(folder.run / STATUS_FILE)["activity"].remedy("activity", folder.path)
    assert said.index("restore a backup") < said.index(f"treering skip --all {at} --data {folder.path}")


def test_what_is_parked_is_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command, where there is something to retry."""
    folder = folder_of(tmp_path, "parked", 0)
    assert steer.retry(["essay", "--data", str(folder.path), "--dry-run"]) == 0
    assert "module essay is to be tried again" in capsys.readouterr().out


def renamed(path: Path) -> tuple[DataFolder, int]:
    """Return what a server left of which module zold is called anew now, and where a state stands still in both."""
    left = Left(path / "data")
    (at,) = left.append(event("ann", "typed"))
    for name in ("zold", "anew"):
        left.steer(Activate(name, identities([pages])))
    left.close()
    folder = DataFolder(left.data)
    for name, entry in (("zold", at + 1), ("anew", at)):
        store = LmdbStore(states_place(folder.state, 0, Module(name, (pages,)), 0, SHARDS), STATE_TABLES)
        holding = Holding([pages], store, name)
        holding.put(pages, ("d", "ann"), Slot(1, entry, "ValueError: no", entry))
        holding.save(2, bytes(32), {})
        store.close()
    return folder, at


def test_after_a_rename_a_decision_is_about_the_module_that_has_the_reducer_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies under the old name, which comes last in the alphabet, stands still elsewhere, and answers nobody."""
    folder, at = renamed(tmp_path)
    on = ["--data", str(folder.path), "--dry-run"]
    assert steer.retry(["pages", str(at), *on, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["module"] == "anew"
    assert steer.skip(["pages", str(at), *on]) == 0
    assert "reducer pages of module anew is to pass over" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("active", "installed", "code", "says"),
    [
        (None, 1, 1, "was never active"),
        (2, 2, 1, "runs this version already"),
        (2, 3, 1, "no older version is installed"),
        (2, 1, 0, "is to run pages 1: nothing was written"),
    ],
)
def test_only_what_is_older_is_gone_back_to(
    active: int | None,
    installed: int,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To write that something newer is active would silence what runs, until the server starts again."""

    def reducers(version: int) -> tuple[ActiveReducer, ...]:
        return (ActiveReducer("pages", version, ("student",), f"{version}" * 64),)

    now = None if active is None else (5, Activate("activity", reducers(active)))
    monkeypatch.setattr(steer, "_installed", lambda *_: reducers(installed))
    monkeypatch.setattr(steer, "_source", lambda _: None)
    monkeypatch.setattr(steer, "gathered", lambda _: SimpleNamespace(active=lambda _: now))
    assert steer.undo(["activity", "--data", str(tmp_path), "--dry-run"]) == code
    said = capsys.readouterr()
    assert says in said.out + said.err


def test_who_goes_back_speaks_for_what_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last that the newer version has seen and the undo nobody spoke: nothing is left unsaid."""
    newer, older = (ActiveReducer("pages", version, ("student",), f"{version}" * 64) for version in (2, 1))
    monkeypatch.setattr(steer, "_installed", lambda *_: (older,))
    monkeypatch.setattr(steer, "_source", lambda _: None)
    active = SimpleNamespace(active=lambda _: (5, Activate("activity", (newer,))))
    monkeypatch.setattr(steer, "gathered", lambda _: active)
    monkeypatch.setattr(steer, "spoken_to", lambda *_: 17)
    (decided,), _ = steer._undo(DataFolder(tmp_path), SimpleNamespace(name="activity"))  # type: ignore[arg-type]
    assert decided == Activate("activity", (older,), undo=True, since=17)
