"""What the routes work with is opened when it is first needed, from what other processes wrote."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from msgspec.structs import replace

from api import Services, Shelf, open_states
from archive import ManualClock, Unavailable
from reducers import UnknownReducer
from replay import module_folder, write_catalogue
from tests.api.front import DirectClient, Front, not_started
from tests.world import event


def left_behind(path: Path, shards: int = 2) -> Front:
    """Return a front that kept one event, reduced it, and stopped."""
    front = Front(path, shards)
    front.archiver.step([event("ann")])
    front.reduce()
    front.close()
    return front


def opened(front: Front, expected: Collection[str] = (), shards: int = 2) -> Services:
    """Return services as a new process makes them."""
    expected = expected or [one.module for one in front.services.shelf.modules()]
    shelf = Shelf(front.folder.state, shards, open_states, expected)
    return Services(front.folder, DirectClient(None), shelf, ManualClock())


def test_everything_is_read_from_files(tmp_path: Path) -> None:
    """Log, published size, vault and states, without the processes that wrote them, and without modules' code."""
    services = opened(left_behind(tmp_path / "data"))
    assert services.published() == 3
    with services.log() as log:
        assert log.size == 3
    shelf = services.shelf
    catalogue, info = shelf.find("event_count")
    shard = shelf.home(info, ("ann",), services.vault.route_key)
    position, slot = shelf.standing("event_count", shard).reader.get("event_count", ("ann",))
    assert (position, slot and slot.encoding) == (3, b'{"events":1}')
    assert [shelf.position(catalogue, one) for one in (0, 1)] == [3, 3]


def test_modules_that_are_not_run_have_no_states(tmp_path: Path) -> None:
    """What a module left behind is not shown once the server does not run it any more."""
    services = opened(left_behind(tmp_path / "data"), ["activity"])
    with pytest.raises(UnknownReducer, match="touchy"):
        services.shelf.find("touchy")


def test_a_module_that_said_nothing_yet_is_starting(tmp_path: Path) -> None:
    """An unknown reducer may be one of a module that is still starting: ask again, instead of 404."""
    services = opened(left_behind(tmp_path / "data"), ["activity", "nlp"])
    assert services.shelf.missing() == ["nlp"]
    with pytest.raises(Unavailable, match="nlp is starting"):
        services.shelf.find("essay_words")


def test_a_module_that_failed_before_it_said_anything_is_not_starting(tmp_path: Path) -> None:
    """Who asks again shortly, for ever, is never answered: nobody has the reducer now, and this is who may have it."""
    shelf = opened(left_behind(tmp_path / "data"), ["activity", "nlp", "slow"]).shelf
    failed = {("nlp", 0): "no such package", ("nlp", 1): "no such package", ("slow", 0): "parked"}
    shelf.waits = lambda module, shard: failed.get((module, shard), "")
    with pytest.raises(Unavailable, match="module slow is starting"):
        shelf.find("essay_words")
    failed["slow", 1] = "parked"
    with pytest.raises(
        UnknownReducer, match=r"'essay_words'.* module nlp: no such package; module slow: parked$"
    ):
        shelf.find("essay_words")
    assert shelf.find("event_count")[0].module == "activity"


def test_of_two_modules_the_one_that_runs_has_the_reducer(tmp_path: Path) -> None:
    """The other one failed because of the name, and what it left behind stands still."""
    shelf = opened(left_behind(tmp_path / "data"), ["activity", "a_before"]).shelf
    (activity,) = shelf.modules()
    state = tmp_path / "data" / "state"
    write_catalogue(module_folder(state, 0, "a_before"), replace(activity, module="a_before"))
    shelf = Shelf(state, 2, open_states, ["activity", "a_before"])
    assert shelf.find("event_count")[0].module == "a_before"
    shelf.waits = lambda module, _: "its reducer is named like one" if module == "a_before" else ""
    assert shelf.find("event_count")[0].module == "activity"


def test_another_number_of_shards_meets_no_old_states(tmp_path: Path) -> None:
    """States of two shards are not those of three: until its workers have run, there are none."""
    shelf = opened(left_behind(tmp_path / "data"), shards=3).shelf
    catalogue, _ = shelf.find("event_count")
    assert [shelf.position(catalogue, shard) for shard in range(3)] == [None] * 3
    with pytest.raises(Unavailable, match="rebuilt"):
        shelf.standing("event_count", 0)


def test_before_the_first_start_nothing_is_there(tmp_path: Path) -> None:
    """Each part says that it is not there yet, and is there as soon as it is."""
    services = not_started(tmp_path / "data")
    for ask in (
        services.published,
        services.log,
        lambda: services.vault,
        lambda: services.shelf.find("event_count"),
    ):
        with pytest.raises(Unavailable):
            ask()
    left_behind(tmp_path / "data")
    assert services.published() == 3
    with services.log() as log:
        assert log.size == 3
