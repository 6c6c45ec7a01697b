"""What is known of all states together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from api import Shelf, open_states
from archive import LmdbStore, Unavailable
from reducers import Module, Slot, shipped
from replay import (
    STATE_TABLES,
    STATUS_FILE,
    Fault,
    Holding,
    ModuleStatus,
    Record,
    ShardStatus,
    catalogue_of,
    module_folder,
    shard_folder,
    write_catalogue,
    write_status,
)
from tests.api.front import Front
from tests.world import event


def stateless(front: Front) -> set[str]:
    """Return the reducers that have no state, of all modules."""
    shelf = front.services.shelf
    return {info.name for one in shelf.modules() for info in shelf.stateless(one)}


def lacking(front: Front) -> dict[str, int]:
    """Return how many events each reducer passed over for want of a field, of all modules."""
    shelf = front.services.shelf
    return {name: count for one in shelf.modules() for name, count in shelf.lacking(one).items()}


def test_a_reducer_without_any_state_is_told(tmp_path: Path) -> None:
    """A scope of which a field is misspelt, or that no event has, gives an empty reducer: that can be seen."""
    front = Front(tmp_path / "data", 2)
    try:
        assert stateless(front) == set(), "before anything was saved nobody can tell"
        front.archiver.step([event("ann")])
        front.reduce()
        before = stateless(front)
        assert "event_count" not in before
        assert "class_progress" in before
        assert (lacking(front)["class_progress"], lacking(front)["event_count"]) == (1, 0)
        front.archiver.step([event("ann", **{"class": "7a"})])
        front.reduce()
        assert "class_progress" not in stateless(front)
        assert (lacking(front)["class_progress"], lacking(front)["event_count"]) == (1, 0)
        with front.client() as http:
            told = http.get("/metrics").text
        assert 'treering_events_without_scope_total{reducer="class_progress"} 1.0' in told
    finally:
        front.close()


def saved(folder: Path, events: int) -> None:
    """Save states of one module and one shard at a place that holds none."""
    store = LmdbStore(folder, STATE_TABLES)
    reducer = shipped().get("event_count")
    holding = Holding([reducer], store, "activity")
    holding.put(reducer, ("ann",), Slot({"events": events}, events))
    holding.save(events, bytes(32), {})
    store.close()


def test_states_that_were_removed_are_not_read_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody removes stays mapped: readers would be told of a moment that has long passed."""
    monkeypatch.setattr("api.shelf.LOOK_EVERY_S", -1.0)
    place = module_folder(tmp_path, 0, "activity")
    catalogue = catalogue_of(Module("activity", (shipped().get("event_count"),)), None, whole=False)
    write_catalogue(place, catalogue)
    shelf = Shelf(tmp_path, 1, open_states)
    folder = shard_folder(place, catalogue.generation, 0, 1)
    saved(folder, 5)
    assert shelf.standing("event_count", 0).reader.position() == 5
    shutil.rmtree(folder)
    assert shelf.position(catalogue, 0) == 5, "nobody has looked yet"
    saved(folder, 7)
    assert shelf.standing("event_count", 0).reader.position() == 7
    shutil.rmtree(folder)
    shelf.modules()
    assert shelf.position(catalogue, 0) is None


def test_who_has_no_states_and_waits_for_a_person_says_so(tmp_path: Path) -> None:
    """A teacher who is told to ask again shortly would ask for ever."""
    place = module_folder(tmp_path, 0, "activity")
    write_catalogue(
        place, catalogue_of(Module("activity", (shipped().get("event_count"),)), None, whole=False)
    )
    shelf = Shelf(tmp_path, 2, open_states)
    shelf.waits = lambda module, shard: f"{module} rotten at entry 8" if shard else ""
    with pytest.raises(Unavailable, match="being rebuilt; ask again shortly"):
        shelf.standing("event_count", 0)
    with pytest.raises(Unavailable, match=r"waits for a person: activity rotten at entry 8$"):
        shelf.standing("event_count", 1)


def test_why_a_module_waits_comes_from_its_status(front: Front) -> None:
    """Only where it waits for a person: who is started again by itself is back in a moment."""
    fault = Fault("rotten", 8, 5, 1.0, "its row is altered")
    status = ModuleStatus(
        {
            "0": ShardStatus(Record("shared", "parked", last=fault), 1.0),
            "1": ShardStatus(Record("shared", "pausing", last=fault), 1.0),
        }
    )
    write_status(front.folder.run / STATUS_FILE, {"activity": status})
    assert front.services.waits("activity", 0) == "rotten at entry 8: its row is altered"
    assert front.services.waits("activity", 1) == ""
    assert front.services.waits("activity", 2) == front.services.waits("other", 0) == ""
