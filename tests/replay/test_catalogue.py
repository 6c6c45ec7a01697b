"""Generations: an upgrade leaves the states that there are until there are better ones, and nothing for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive import LmdbStore
from reducers import Event, Module, Reducer, reducer
from replay import (
    STATE_TABLES,
    Catalogue,
    Holding,
    Runner,
    catalogue_of,
    generation_of,
    has_answered,
    info_of,
    note_answer,
    run_to,
    shard_folder,
    stood_at,
    tidy,
)
from tests.world import World, event


def count_all(state: int, event: Event) -> int:  # noqa: ARG001 - it counts whatever comes
    """Count whatever comes."""
    return state + 1


def version(number: int) -> Module:
    """Return a version of a module."""
    made: Reducer[int] = reducer(version=number, name="counts")(count_all)
    return Module("counts", (made,))


def saved(world: World, place: Path, module: Module, shard: int, shards: int, size: int) -> None:
    """Let a worker of one shard fold up to `size`, and save."""
    folder = shard_folder(place, generation_of(map(info_of, module.reducers)), shard, shards)
    folder.mkdir(parents=True, exist_ok=True)
    store = LmdbStore(folder, STATE_TABLES)
    holding = Holding(module.reducers, store, module.name)
    with world.source.open() as log:
        holding.resume(log)
    runner = Runner([holding], world.vault(), shard=shard, shards=shards)
    run_to(runner, world.source, size)
    runner.save(world.source)
    store.close()


@pytest.fixture
def world() -> World:
    """Return a world with some events."""
    made = World()
    made.append([event("ann"), event("bob"), event("ann")])
    return made


def names(place: Path) -> set[str]:
    """Return the generations that there are."""
    return {each.name for each in place.iterdir()}


def test_a_generation_stands_where_its_last_shard_stands(world: World, tmp_path: Path) -> None:
    """All shards must be there and whole; another number of shards counts by itself."""
    one = version(1)
    about = catalogue_of(one)
    assert stood_at(tmp_path, about) is None
    saved(world, tmp_path, one, 0, 2, world.size)
    assert stood_at(tmp_path, about) is None
    saved(world, tmp_path, one, 1, 2, world.size)
    assert stood_at(tmp_path, about) == world.size
    world.append([event("ann")])
    saved(world, tmp_path, one, 0, 2, world.size)
    assert stood_at(tmp_path, about) == world.size - 1
    saved(world, tmp_path, one, 0, 1, world.size)
    assert stood_at(tmp_path, about) == world.size


def test_a_second_upgrade_keeps_the_states_that_are_whole(world: World, tmp_path: Path) -> None:
    """Upgraded again before the first upgrade was through, what answered goes on answering."""
    first = catalogue_of(version(1))
    saved(world, tmp_path, version(1), 0, 1, world.size)
    second = catalogue_of(version(2), first, whole=stood_at(tmp_path, first) is not None)
    assert second.previous is not None
    assert second.previous.generation == first.generation
    saved(world, tmp_path, version(2), 0, 1, 3)  # half of the way
    third = catalogue_of(version(3), second, whole=stood_at(tmp_path, second) is not None)
    assert third.previous is not None
    assert third.previous.generation == first.generation
    saved(world, tmp_path, version(2), 0, 1, world.size)
    whole = catalogue_of(version(3), second, whole=stood_at(tmp_path, second) is not None)
    assert whole.previous is not None
    assert whole.previous.generation == second.generation
    back = catalogue_of(version(1), third, whole=False)
    assert back.previous is None


def test_what_nobody_reads_is_removed(world: World, tmp_path: Path) -> None:
    """Older generations and other numbers of shards go; the present one and the one before it stay."""
    catalogue: Catalogue | None = None
    for number in (1, 2, 3):
        saved(world, tmp_path, version(number), 0, 1, world.size)
        catalogue = catalogue_of(version(number), catalogue)
    assert catalogue is not None
    assert catalogue.previous is not None
    saved(world, tmp_path, version(3), 0, 2, world.size)
    assert len(tidy(tmp_path, catalogue, 1)) == 2
    assert names(tmp_path) == {catalogue.generation, catalogue.previous.generation}
    assert names(tmp_path / catalogue.generation) == {"0-of-1"}
    assert tidy(tmp_path, catalogue, 1) == []


def test_a_generation_that_has_answered_is_known_for_every_number_of_shards(tmp_path: Path) -> None:
    """Of a shard, once it was shown; of another number of shards, once all of one number were."""
    (tmp_path / "g").mkdir()
    assert not has_answered(tmp_path, "g", 0, 2)
    note_answer(tmp_path, "g", 0, 2)
    assert [has_answered(tmp_path, "g", *place) for place in ((0, 2), (1, 2), (0, 4))] == [True, False, False]
    note_answer(tmp_path, "g", 1, 2)
    assert has_answered(tmp_path, "g", 3, 4)
    assert not has_answered(tmp_path, "h", 0, 2), "another generation is another matter"
    note_answer(tmp_path, "h", 0, 2)
    assert not has_answered(tmp_path, "h", 0, 2), "where nothing can be written nothing fails"
