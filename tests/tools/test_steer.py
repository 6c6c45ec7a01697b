"""What a person is told who wants to retry what is not stopped: there is always something that he can do next."""

from __future__ import annotations

from pathlib import Path

import pytest

from api import SHARDS_FILE
from archive import DataFolder, LmdbStore
from reducers import Module, Slot
from replay import (
    STATE_TABLES,
    STATUS_FILE,
    Holding,
    ModuleStatus,
    Record,
    ShardStatus,
    on_folder,
    write_status,
)
from replay.escalation import State
from tests.world import pages
from tools import steer
from tools.loading import states_place


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


def test_what_is_parked_is_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command, where there is something to retry."""
    folder = folder_of(tmp_path, "parked", 0)
    assert steer.retry(["essay", "--data", str(folder.path), "--dry-run"]) == 0
    assert "module essay is to be tried again" in capsys.readouterr().out
