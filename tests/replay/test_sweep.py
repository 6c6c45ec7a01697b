"""One pass that stops on its way says at each stop what a replay that ends there would say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import NotFound, Skip
from reducers import Event, digest_of_entries, reducer
from replay import Entries, Gathering, Holding, Runner, Stop, Sweep, in_order
from tests.replay.kept import quarrel, world_of
from tests.world import World, event, touchy


def sweep_of(world: World, shard: int = 0, shards: int = 1, **options: Any) -> Sweep:
    """Return a sweep of a shard of a world, from nothing."""
    holding = Holding(world.reducers, module="all")
    return Sweep([Runner([holding], world.vault(), shard=shard, shards=shards)], **options)


def gathered(world: World, sizes: list[int], shards: int) -> list[tuple[Stop, bytes]]:
    """Return each stop of a replay as so many shards, with the digest of all states there."""
    gathering, found = Gathering(sizes, shards), []
    for shard in reversed(range(shards)):
        sweep = sweep_of(world, shard, shards)
        for size in sizes:
            gathering.take(shard, sweep.to(world.source, size, afresh=size == sizes[-1]))
            found += [(stop, digest_at(gathering.entries)) for stop in gathering.ready()]
    return found


def digest_at(entries: dict[str, Entries]) -> bytes:
    """Return the state digest of everything that was gathered."""
    return digest_of_entries({one: entry.digest for each in entries.values() for one, entry in each.items()})


@pytest.mark.parametrize("shards", [1, 3])
def test_each_stop_is_a_replay_to_its_size(shards: int) -> None:
    """Whatever was skipped, bound or ticked between two stops, each is what a fresh replay to its size gives."""
    kept, bad = quarrel()
    for index in bad:
        kept.skip("touchy", index)
        kept.append(event("ann"), event("bob"))
    world = kept.world
    sizes = list(range(1, world.size + 1))
    found = gathered(world, sizes, shards)
    assert [stop.size for stop, _ in found] == sizes
    assert [digest for _, digest in found] == [world.digest(size=size) for size in sizes]


@given(st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=12), st.data())
def test_a_stop_tells_what_changed_and_nothing_else(kinds: list[str], data: st.DataObject) -> None:
    """The deltas of any choice of stops, one after the other, make the states of each of them."""
    world = World(reducers=[touchy])
    world.append([event(data.draw(st.sampled_from(["ann", "bob"])), kind) for kind in kinds])
    sizes = sorted({*data.draw(st.lists(st.integers(1, world.size), max_size=4)), world.size})
    sweep, before = sweep_of(world), Entries()
    for size in sizes:
        stop = sweep.to(world.source, size)
        assert all(before.get(one) != entry for one, entry in stop.delta.items())
        before |= {one: entry for one, entry in stop.delta.items() if entry is not None}
        digests = {one: entry.digest for one, entry in before.items()}
        assert digests == world.digests(size=size)


def test_a_key_that_loses_its_last_event_is_gone() -> None:
    """A skip takes the only event of a state: the next stop says that there is none any more."""
    world = World(reducers=[touchy])
    (receipt,) = world.append([event("ann")])
    world.append([event("bob")])
    sweep = sweep_of(world)
    assert len(sweep.to(world.source, world.size).delta) == 2
    world.steer(Skip("touchy", receipt.index))
    world.append([event("bob")])
    delta = sweep.to(world.source, world.size).delta
    assert delta["touchy", 1, ("ann",)] is None
    assert delta["touchy", 1, ("bob",)] is not None


@reducer(scope=("student",), version=1)
def careless(state: list[int], event: Event) -> list[int]:
    """Change the state that it was given, and return it: forbidden, and not seen by who goes by identity."""
    state.append(event.index)
    return state


def test_what_claims_to_be_unchanged_is_looked_into_at_the_end() -> None:
    """A reducer that changes its state in place cannot hide it from an audit: what it holds is told afresh."""
    world = World(reducers=[careless])
    world.append([event("ann"), event("ann"), event("ann")])
    sweep = sweep_of(world)
    sweep.to(world.source, 3)
    assert sweep.to(world.source, 4).delta == {}
    assert len(sweep.to(world.source, 5, afresh=True).delta) == 1


@reducer(scope=("student",), version=1, default={})
def unspeakable(state: dict[str, Any], event: Event) -> dict[str, Any]:
    """Come to a state that has no encoding, at each event that is called so."""
    return {"nan": float("nan")} if event.type == "nan" else {**state, "ok": True}


def test_a_module_that_cannot_go_on_stops_alone() -> None:
    """A state without an encoding stops its module, which is said with reducer and event; the others go on."""
    world = World(reducers=[touchy, unspeakable])
    world.append([event("ann"), event("ann", "nan"), event("bob")])
    holdings = [Holding([touchy], module="touchy"), Holding([unspeakable], module="unspeakable")]
    sweep = Sweep([Runner(holdings, world.vault())])
    assert sweep.to(world.source, 3).stopped == {}
    for _ in range(2):
        stop = sweep.to(world.source, world.size)
        assert (stop.stopped["unspeakable"].reducer, stop.stopped["unspeakable"].at) == ("unspeakable", 3)
    assert [(one.reducer, one.key) for one in sweep.states()] == [("touchy", ("ann",)), ("touchy", ("bob",))]


def test_a_sweep_beyond_the_log_ends() -> None:
    """A size that the log has not reached is an error that says so."""
    world = World(reducers=[touchy])
    with pytest.raises(NotFound, match="only 2 entries, not 3"):
        sweep_of(world).to(world.source, 3)


def test_progress_adds_up_to_the_size() -> None:
    """Whoever shows progress is told of every entry once, however many stops there are."""
    world = quarrel()[0].world
    sweep, steps = sweep_of(world), list[int]()
    for size in (3, 4, world.size):
        sweep.to(world.source, size, steps.append)
    assert sum(steps) == world.size == sweep.position


def test_states_come_in_order_whatever_the_shards() -> None:
    """Three shards together tell the same states in the same order as one, with what the digest commits to."""
    world = quarrel()[0].world
    sweeps = [sweep_of(world, shard, shards) for shards in (1, 3) for shard in range(shards)]
    for sweep in sweeps:
        sweep.to(world.source, world.size)
    alone, together = list(sweeps[0].states()), list(in_order(one.states() for one in sweeps[1:]))
    assert alone == together
    assert len(alone) == len(world.digests())
    assert any(one.error_index is not None and one.error for one in alone)


def test_encodings_are_told_where_they_are_asked_for() -> None:
    """Whoever must say in what two states differ gets the states; whoever compares digests does not carry them."""
    world = world_of([touchy])
    world.append([event("ann", "good"), event("ann", "bad")])
    (entry,) = sweep_of(world, encodings=True).to(world.source, world.size).delta.values()
    assert entry is not None
    assert (entry.encoding, entry.error_index) == (b"1", 3)
    (bare,) = sweep_of(world).to(world.source, world.size).delta.values()
    assert bare is not None
    assert (bare.encoding, bare.digest) == (None, entry.digest)
