"""What a worker says when it takes up a module's states, and cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive import LmdbStore
from reducers import Module, available, load
from replay import SHARDS_FILE, STATE_TABLES, Runner, StateReader
from tests.world import World, event, pages, run
from tools.loading import holding_at, states_place

MODULE = Module("essay", (pages,))


def kept(folder: Path, world: World) -> int:
    """Take up the states in a folder for a world's log, catch up, save, and return how often they were refused."""
    holding = holding_at(folder, MODULE, world.source)
    runner = Runner([holding], world.vault())
    run(runner, world.source)
    runner.save(world.source)
    assert holding.store is not None
    holding.store.close()
    store = LmdbStore(folder, STATE_TABLES)
    try:
        return StateReader(store).refused()
    finally:
        store.close()


def test_states_of_another_log_are_said_to_be_so_once_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody else would know why a module folds the whole log again; what is in order is passed over in silence."""
    one, other, shorter = World(), World(), World()
    one.append([event("ann", doc_id="d")])
    other.append([event("bob", doc_id="d"), event("bob", doc_id="e")])
    assert [kept(tmp_path, one), kept(tmp_path, one)] == [0, 0]
    assert capsys.readouterr().err == ""
    for world, count, why in (
        (
            other,
            1,
            f"they stand on other entries than the first {one.size} of this log: they are of another log",
        ),
        (
            shorter,
            2,
            f"they have seen {other.size} entries, this log has {shorter.size}: it is another, or an older",
        ),
    ):
        assert kept(tmp_path, world) == count
        (line,) = capsys.readouterr().err.splitlines()
        assert f"states of module essay in {tmp_path} are not used: {why}" in line
        assert kept(tmp_path, world) == count
        assert capsys.readouterr().err == ""


def test_how_many_shards_there_are_is_written_again_with_the_states(tmp_path: Path) -> None:
    """Who removes all states while a server runs takes the number along, which commands on the folder need."""
    states_place(tmp_path, 0, load(available()["activity"]), 1, 3)
    assert (tmp_path / SHARDS_FILE).read_text() == "3\n"
    (tmp_path / SHARDS_FILE).write_text("4\n")
    states_place(tmp_path, 0, load(available()["activity"]), 0, 3)
    assert (tmp_path / SHARDS_FILE).read_text() == "4\n", "a start says it first"
