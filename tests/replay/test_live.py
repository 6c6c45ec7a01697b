"""Live states as an auditor takes them: of one moment, read only, and never of half a rebuild."""

from __future__ import annotations

from typing import Any

import pytest

from archive import Event, MemoryStore, NotFound, Skip, Store, Write
from reducers import Module, entry_digest, reducer
from replay import (
    STATE_TABLES,
    Catalogue,
    Holding,
    Runner,
    Sweep,
    catalogue_of,
    compare_live,
    holding_of,
    read_live,
    state_key,
)
from tests.replay.kept import quarrel
from tests.replay.stored import tables
from tests.replay.test_sweep import sweep_of
from tests.world import World, connection, event, frames, run, seen, touchy

MODULE = Module("pair", (seen, touchy))
CATALOGUE = catalogue_of(MODULE)


def saved(world: World, shards: int = 1, size: int | None = None) -> list[Store]:
    """Return the stores of all shards, which have seen `size` entries."""
    stores: list[Store] = []
    for shard in range(shards):
        store = MemoryStore(STATE_TABLES)
        holding = Holding(MODULE.reducers, store, "pair")
        with world.source.open() as log:
            holding.resume(log)
        holding.rebuilt_to = 0
        runner = Runner([holding], world.vault(), shard=shard, shards=shards)
        run(runner, world.source, size)
        runner.save(world.source)
        stores.append(store)
    return stores


def classroom() -> World:
    """Return a world with students, a quarantine and an identity that came late."""
    world = World(reducers=[seen, touchy])
    world.append([event(name, kind) for name in ("ann", "bob", "eve") for kind in ("good", "bad", "good")])
    world.append(frames(connection(), {"event": "a"}, {"event": "b", "user_id": "kim"}, {"event": "c"}))
    return world


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_live_states_are_those_of_a_replay_that_stops_where_they_stand(shards: int) -> None:
    """Each shard at a position of its own, and compared as it is: nobody need wait for anybody."""
    world = classroom()
    for shard in range(shards):
        size = 4 + 3 * shard
        stores = saved(world, shards, size)
        live = read_live(stores[shard], CATALOGUE, shard, shards)
        sweep = sweep_of(world)
        entries: dict[str, Any] = {}
        for identity, entry in sweep.to(world.source, size).delta.items():
            entries.setdefault(identity[0], {})[identity] = entry
        assert live.position == size
        assert compare_live([live], entries, world.vault().route_key, ["seen", "touchy"]) == []
        assert live.entries or shards > 1


@pytest.mark.parametrize("keys_max", [0, 1_000], ids=["evicted", "restarted"])
def test_a_state_that_equals_the_one_before_it_differs_in_nothing(keys_max: int) -> None:
    """A constant that was stored and read again is another object, and no change: no honest worker is accused."""

    @reducer()
    def phase(state: str, event: Event) -> str:  # noqa: ARG001 - whatever it was
        return "writing" if event.type == "keystroke" else "idle"

    module = Module("phases", (phase,))
    world, store = World(reducers=list(module.reducers)), MemoryStore(STATE_TABLES)
    runners: list[Runner] = []
    for _ in range(3):
        world.append([event("ann", "keystroke")])
        if keys_max or not runners:
            holding = Holding(module.reducers, store, "phases", keys_max=keys_max)
            with world.source.open() as log:
                holding.resume(log)
            holding.rebuilt_to = 0
            runners.append(Runner([holding], world.vault()))
        run(runners[-1], world.source)
        runners[-1].save(world.source)
    live = read_live(store, catalogue_of(module), 0, 1)
    sweep = Sweep([Runner([Holding(module.reducers)], world.vault())])
    entries = {
        "phase": {one: entry for one, entry in sweep.to(world.source, live.position).delta.items() if entry}
    }
    assert len(live.entries) == 1
    assert compare_live([live], entries, world.vault().route_key, ["phase"]) == []


def test_what_differs_in_one_shard_is_named_and_the_others_are_left_alone() -> None:
    """A state that was taken away, in a shard that is compared alone, is the only thing that is found."""
    world = classroom()
    stores = saved(world, 2)
    route_key = world.vault().route_key
    lives = [read_live(store, CATALOGUE, shard, 2) for shard, store in enumerate(stores)]
    shard, victim = next((n, live) for n, live in enumerate(lives) if live.entries)
    name, _, key = min(one for one in victim.entries if one[0] == "touchy")
    stores[shard].commit([Write("states", state_key(name, key), None)])
    entries: dict[str, Any] = {}
    for identity, entry in sweep_of(world).to(world.source, world.size).delta.items():
        entries.setdefault(identity[0], {})[identity] = entry
    for number, store in enumerate(stores):
        live = read_live(store, CATALOGUE, number, 2)
        found = compare_live([live], entries, route_key, ["seen", "touchy"])
        assert [(one.key, one.what) for one in found] == ([(key, "missing")] if number == shard else [])
        assert compare_live([live], entries, route_key, ["seen"]) == []


def test_states_that_are_no_answer_are_not_taken() -> None:
    """Nothing there, of other reducers, or half rebuilt: whoever compared would find what nobody was ever shown."""
    world = classroom()
    (store,) = saved(world)
    with pytest.raises(NotFound, match="being rebuilt"):
        read_live(MemoryStore(STATE_TABLES), CATALOGUE, 0, 1)
    other: Catalogue = catalogue_of(Module("pair", (touchy,)))
    with pytest.raises(NotFound, match="being rebuilt"):
        read_live(store, other, 0, 1)
    holding = Holding(MODULE.reducers, fresh := MemoryStore(STATE_TABLES), "pair")
    with world.source.open() as log:
        holding.resume(log)
    runner = Runner([holding], world.vault())
    run(runner, world.source, 5)
    runner.save(world.source)
    with pytest.raises(NotFound, match="being rebuilt"):
        read_live(fresh, CATALOGUE, 0, 1)


def test_encodings_come_where_they_are_asked_for() -> None:
    """A state is told with what its digest commits to, the quarantine included."""
    (store,) = saved(classroom())
    bare, full = (read_live(store, CATALOGUE, 0, 1, encodings=flag).entries for flag in (False, True))
    assert {one: entry.digest for one, entry in bare.items()} == {
        one: entry.digest for one, entry in full.items()
    }
    ann = full["touchy", 1, ("ann",)]
    assert (ann.encoding, ann.error_index) == (b"1", 3)
    assert bare["touchy", 1, ("ann",)].encoding is None


# --- going on from a snapshot --------------------------------------------------------------------


def test_whoever_goes_on_from_a_snapshot_comes_to_the_same() -> None:
    """Wherever a worker had saved, backlogs and quarantines included, and without a byte written."""
    kept, bad = quarrel()
    world = kept.world
    world.reducers = [seen, touchy]
    kept.skip("touchy", bad[0])
    world.append([event("ann")])
    for size in range(1, world.size + 1):
        (store,) = saved(world, 1, size)
        before = tables(store)
        with world.source.open() as log:
            holding = holding_of(store, MODULE, log)
        assert (holding.position, holding.store) == (size, None)
        runner = Runner([holding], world.vault())
        run(runner, world.source)
        assert {one.identity: entry_digest(one) for one in runner.pairs()} == world.digests(), size
        assert tables(store) == before


def test_a_part_of_a_module_can_be_taken() -> None:
    """Whoever asks for one reducer does not carry the states of the others."""
    world = classroom()
    (store,) = saved(world)
    with world.source.open() as log:
        holding = holding_of(store, MODULE, log, ["touchy"])
    assert [one.name for one in holding.reducers] == ["touchy"]
    assert len(holding.keys(touchy)) == 4


def test_a_snapshot_of_something_else_is_refused() -> None:
    """Of other reducers, of another log, or damaged: the answer is to start from nothing, never a wrong state."""
    world, other = classroom(), World(reducers=[seen, touchy])
    other.append([event("zoe")] * 20)
    (store,) = saved(world)
    with world.source.open() as log:
        with pytest.raises(NotFound, match="no snapshot of module pair"):
            holding_of(store, Module("pair", (touchy,)), log)
        with pytest.raises(NotFound, match="no snapshot"):
            holding_of(MemoryStore(STATE_TABLES), MODULE, log)
    with other.source.open() as log, pytest.raises(NotFound, match="not of this log"):
        holding_of(store, MODULE, log)
    place = state_key("touchy", ("ann",))
    with store.view() as view:
        value = view.get("states", place)
    assert value is not None
    store.commit([Write("states", place, value[:12] + b"\xff" + value[13:])])
    with world.source.open() as log, pytest.raises(NotFound, match="cannot be read"):
        holding_of(store, MODULE, log)


def test_a_skip_that_was_read_ahead_is_told() -> None:
    """Live states say up to where steering is in them, so that a comparison knows when it would compare amiss."""
    world = classroom()
    store = MemoryStore(STATE_TABLES)
    holding = Holding(MODULE.reducers, store, "pair")
    runner = Runner([holding], world.vault())
    skip = world.steer(Skip("touchy", 3))
    while runner.position < 5:
        runner.step(world.source, 5, ahead=True)
    runner.save(world.source)
    live = read_live(store, CATALOGUE, 0, 1)
    assert live.position == 5
    assert live.steered > skip
