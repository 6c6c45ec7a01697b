"""Cold keys: how few states are in memory, when they were saved, and how often a worker began, does not show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Skip, Store, Submission
from reducers import Slot
from replay import Holding, Runner, feed
from tests.replay.kept import Kept, caught_up, judge_stores, quarrel, world_of
from tests.replay.stored import judge_tables, loaded, save, tables, world
from tests.world import beats, event, everyone, pages, run, seen, slots_of, tick_at, touchy, union

names = st.sampled_from(["ann", "bob", "eve", "kim", "joe"])
kinds = st.sampled_from(["good", "bad", "fragile"])
entries: st.SearchStrategy[list[Submission]] = st.lists(
    st.builds(event, names, kinds, doc_id=st.sampled_from("de"))
    | st.integers(1, 5).map(lambda number: tick_at(60 * number)),
    max_size=25,
)
deeds = st.lists(st.sampled_from(["step", "save", "restart", "lose"]), max_size=25)


@given(entries, deeds, st.integers(1, 3), st.integers(1, 3))
def test_what_is_in_memory_does_not_show(
    sent: list[Submission], deeds: list[str], keys_max: int, shards: int
) -> None:
    """With one to three states in memory, saves, restarts and deaths at any moment, states are those of the list."""
    kept = Kept(world_of(keys_max=keys_max))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "SLICE_ENTRIES", 3)
        live = kept.world.runners(shards)
        for at, deed in enumerate(deeds):
            kept.append(*sent[at * 2 : at * 2 + 2])
            shard = at % shards
            if deed == "lose":
                live[shard].step(kept.world.source)
            if deed in {"restart", "lose"}:
                live[shard] = kept.world.runner(shard, shards)
            live[shard].step(kept.world.source)
            if deed == "save":
                live[shard].save(kept.world.source)
                judge_stores(kept.world)
        for one in live:
            run(one, kept.world.source)
        assert union(live) == kept.fold() == union(caught_up(kept.world, shards))


@pytest.mark.parametrize("keys_max", [0, 1, 2, 3])
def test_a_save_leaves_no_more_than_the_limit(keys_max: int) -> None:
    """After every save at most that many states are in memory, and all of them can still be had."""
    kept = Kept(world_of([seen, pages], keys_max=keys_max))
    (one,) = caught_up(kept.world, 1)
    for number in range(6):
        kept.append(event(f"s{number}", doc_id="d"), event(f"s{number // 2}"))
        run(one, kept.world.source)
        one.save(kept.world.source)
        (holding,) = one.holdings
        assert sum(map(len, holding.slots.values())) <= keys_max
        assert set(slots_of(one, "seen")) == {(f"s{each}",) for each in range(number + 1)}
        assert union([one]) == kept.fold()


def test_what_changed_last_stays() -> None:
    """What is forgotten is what has not changed for longest, so that a lesson in progress is in memory."""
    kept = Kept(world_of([touchy], keys_max=2))
    (one,) = caught_up(kept.world, 1)
    for name, want in (
        ("ann", {"ann"}),
        ("bob", {"ann", "bob"}),
        ("ann", {"ann", "bob"}),
        ("eve", {"ann", "eve"}),
    ):
        kept.append(event(name))
        run(one, kept.world.source)
        one.save(kept.world.source)
        assert {key[0] for key in one.holdings[0].slots["touchy"]} == want


def test_what_is_not_saved_is_not_forgotten() -> None:
    """Between two saves memory holds all that changed, however much it is: there is nowhere else to have it from."""
    kept = Kept(world_of([touchy], keys_max=1))
    (one,) = caught_up(kept.world, 1)
    kept.append(*[event(f"s{number}") for number in range(9)])
    run(one, kept.world.source)
    assert len(one.holdings[0].slots["touchy"]) == 9
    assert union([one]) == kept.fold()


def test_a_replay_forgets_nothing() -> None:
    """Without a store there is no limit: a replay's states live in memory only."""
    kept, _ = quarrel()
    one = Runner([Holding(kept.world.reducers, keys_max=1)], kept.world.vault())
    run(one, kept.world.source)
    one.save(kept.world.source)
    assert union([one]) == kept.fold()


@pytest.mark.parametrize("keys_max", [1, 2, 100])
def test_a_tick_reaches_keys_that_are_on_the_disk(store: Store, keys_max: int) -> None:
    """Whether a key is in memory, in the store, or gone: a tick goes to each that has a state, once."""
    kept = Kept(world_of([beats, everyone]))
    holding = Holding(kept.world.reducers, store, "all", keys_max=keys_max)
    runner = Runner([holding], kept.world.vault())
    first = kept.append(*[event(name) for name in ("ann", "bob", "eve", "kim")])
    run(runner, kept.world.source)
    runner.save(kept.world.source)
    kept.skip("beats", first[1])  # of Bob nothing is left
    kept.append(tick_at(60), event("joe"), tick_at(90), tick_at(120), event("ann"))
    again = Holding(kept.world.reducers, store, "all", keys_max=keys_max)
    with kept.world.source.open() as log:
        again.resume(log)
    runner = Runner([again], kept.world.vault())
    run(runner, kept.world.source)
    runner.save(kept.world.source)
    assert slots_of(runner, "beats")["ann",].state == ["e", "ann at 60", "ann at 120", "e"]
    assert slots_of(runner, "beats")["joe",].state == ["e", "joe at 120"]
    assert ("bob",) not in slots_of(runner, "beats")
    assert union([runner]) == kept.fold()
    judge_tables(tables(store))


def test_a_state_that_is_gone_is_gone_though_its_row_is_there(store: Store) -> None:
    """A key without a state is None from memory and from the store, and a new event begins it from nothing."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2), ("d", "bob"): Slot(1, 2)}, position=2)
    save(store, made, {("d", "ann"): None})
    holding = loaded(store, made, keys_max=1)
    for _ in range(2):
        assert holding.get(pages, ("d", "ann")) is None
        assert holding.keys(pages) == [("d", "bob")]


def test_a_skip_finds_its_key_on_the_disk() -> None:
    """The key that stands still at an event is found in memory or in the store, and no more once it goes on."""
    kept = Kept(world_of([touchy], keys_max=1))
    indices = kept.append(*[event(name, "bad") for name in ("ann", "bob", "eve")], event("kim"))
    (one,) = caught_up(kept.world, 1)
    holding: Any = one.holdings[0]
    assert holding.quarantined_at(touchy, indices[0]) == [("ann",)]
    assert set(holding.slots["touchy"]) <= {("kim",), ("ann",), ("eve",), ("bob",)}
    kept.skip("touchy", indices[0])
    run(one, kept.world.source)
    assert holding.quarantined_at(touchy, indices[0]) == []
    one.save(kept.world.source)
    assert holding.quarantined_at(touchy, indices[0]) == []
    kept.world.steer(Skip("touchy", indices[0]))
    assert union(caught_up(kept.world, 1)) == kept.fold()
    judge_stores(kept.world)
