"""The audit names what differs, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archive import NotFound, Skip, Unavailable, Write
from reducers import Event, digest_of_entries, reducer
from replay import Difference, Digests, compare, live_digests, replay_digests, state_key
from replay.layout import decode_stored, encode_stored
from tests.world import World, connection, event, frames, run, seen, touchy

identities = st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.tuples(st.sampled_from("xyz")))
digests = st.dictionaries(identities, st.sampled_from([b"1", b"2"]), max_size=6)


def audited(shards: int = 2) -> World:
    """Return a world of a few events whose workers have saved all."""
    world = World(reducers=[seen, touchy])
    world.append([event(name, kind) for name in ("ann", "bob", "eve") for kind in ("good", "bad")])
    world.append(frames(connection(), {"event": "a"}, {"event": "b", "user_id": "ann"}))
    for one in world.runners(shards):
        run(one, world.source)
        one.save(world.source)
    return world


def live(world: World, shards: int = 2) -> tuple[list[int], Digests]:
    """Return what the workers have saved."""
    return live_digests([world.reader(shard, shards) for shard in range(shards)], ["seen", "touchy"])


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_live_states_equal_the_replay(shards: int) -> None:
    """What workers hold is what the log says, quarantined keys included, for any number of either's
    shards.
    """
    world = audited(shards)
    positions, found = live(world, shards)
    assert positions == [world.size] * shards
    assert len(found) == 8
    assert compare(world.digests(3), found) == []
    assert digest_of_entries(found) == world.digest()


def test_a_state_that_was_altered_is_named() -> None:
    """Altered, removed and invented states are each found under their reducer and key."""
    world = audited(1)
    store, reader = world.states[0, 1], world.reader()
    places = dict(reader.scan("touchy")[1])
    value = {slot.key[0]: place for place, slot in places.items()}
    with store.view() as view:
        bob = view.get("states", value["bob"])
        ann = view.get("states", value["ann"])
    assert bob is not None
    assert ann is not None
    second, first = decode_stored(bob), decode_stored(ann)
    assert second is not None
    assert first is not None
    assert second.encoding == b"1"
    altered, invented = replace(second, encoding=b"2"), replace(first, key=("zoe",))
    store.commit(
        [
            Write("states", value["bob"], encode_stored(1, altered)),
            Write("states", value["ann"], None),
            Write("states", state_key("touchy", ("zoe",)), encode_stored(1, invented)),
        ]
    )
    assert compare(world.digests(), live(world, 1)[1]) == [
        Difference("touchy", ("ann",), "missing"),
        Difference("touchy", ("bob",), "differs"),
        Difference("touchy", ("zoe",), "extra"),
    ]


def test_a_quarantine_that_moved_is_named() -> None:
    """Two equal last good states differ if one stands still since another event."""
    one, other = World(reducers=[touchy]), World(reducers=[touchy])
    one.append([event("ann", "good"), event("ann", "bad"), event("ann", "bad")])
    other.append([event("ann", "good"), event("ann", "quiet-bad"), event("ann", "bad")])
    other.append([event("ann", "good")])
    found = compare(one.digests(), other.digests())
    assert found == [Difference("touchy", ("ann",), "differs")]


def test_a_replay_stops_at_its_size() -> None:
    """The states at an earlier size are those of that many entries."""
    world = audited()
    small = World(reducers=world.reducers)
    small.append([event("ann", kind) for kind in ("good", "bad")])
    assert world.digests(size=small.size).keys() == small.digests().keys()
    assert world.digest(size=4) == small.digest()
    assert world.digest(size=0) == digest_of_entries({})


def test_a_replay_beyond_the_log_ends() -> None:
    """A size that the log has not reached is an error that says so, not a wait without end."""
    world = audited()
    with pytest.raises(NotFound, match=f"only {world.size} entries"):
        replay_digests(world.source, world.reducers, world.vault(), size=world.size + 1)


@reducer(scope=("student",), version=1)
def greedy(state: int, event: Event) -> int:
    """Take more memory than there is, at each event that is called "big"."""
    if event.type == "big":
        raise MemoryError
    return state + 1


def test_a_replay_that_cannot_go_on_says_where_and_what_to_do() -> None:
    """States are not compared with a fold that has not come to its end; skipped, the event is no obstacle any more."""
    world = World(reducers=[seen, greedy])
    _, big = world.append([event("ann"), event("ann", "big")])
    with pytest.raises(Unavailable, match=f"reducer greedy stopped at entry {big.index}: MemoryError.*skip"):
        replay_digests(world.source, world.reducers, world.vault(), size=world.size)
    world.steer(Skip("greedy", big.index))
    assert len(world.digests()) == 2


def test_progress_adds_up_to_the_size() -> None:
    """Whoever shows progress is told of every entry once."""
    world = audited()
    steps: list[int] = []
    replay_digests(world.source, world.reducers, world.vault(), size=world.size, progress=steps.append)
    assert sum(steps) == world.size


@given(digests, digests)
def test_compare_is_the_difference_of_two_tables(first: Digests, second: Digests) -> None:
    """Equal exactly where nothing is found; one finding for each state in which they differ; sides mirror."""
    found = compare(first, second)
    assert (found == []) == (first == second)
    both = first.keys() | second.keys()
    assert len(found) == len([one for one in both if first.get(one) != second.get(one)])
    mirror = {"missing": "extra", "extra": "missing", "differs": "differs"}
    assert [one._replace(what=mirror[one.what]) for one in found] == compare(second, first)
