"""Steering: what the control entries of a log say is done, live as replayed, for any number of shards, after any death.

The judge is a plain fold over the list of events, without those that were skipped.
"""

from __future__ import annotations

from typing import Any

import pytest

from archive import Retry, Skip
from reducers import Event, fold, reducer
from replay import Gathered, Holding, Only, Runner, feed, replay_key, run_to
from tests.faults import Crash
from tests.replay.classroom import CLASSROOM, ordered
from tests.replay.kept import Kept, activation, caught_up, judge_stores, quarrel, world_of
from tests.replay.stored import tables
from tests.world import (
    bare,
    beats,
    connection,
    event,
    frames,
    plain_fold,
    run,
    seen,
    slots_of,
    tick_at,
    touchy,
    union,
)

SHARDS = (1, 2, 3, 5)


# --- skip ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("keys_max", [1, 100_000])
def test_a_skipped_event_leaves_no_trace(shards: int, keys_max: int) -> None:
    """States after a skip are those of the log without the event: for live workers, after a restart, in a replay.

    Skipped are an event, one that came before its identity, and a tick.
    """
    kept, (at, early, at_tick) = quarrel()
    world = kept.world
    world.keys_max = keys_max
    live = caught_up(world, shards)
    assert union(live) == kept.fold()
    for name, index in (("touchy", at), ("touchy", early), ("beats", at_tick)):
        kept.skip(name, index)
        for one in live:
            run(one, world.source)
        assert union(live) == union(caught_up(world, shards)) == world.digest(shards) == kept.fold()
        judge_stores(world)
        kept.append(event("ann", "after"), event("kim", "after"), tick_at(60 * world.size))


@pytest.mark.parametrize("shards", [1, 3])
def test_a_key_that_stands_still_again_can_be_skipped_again(shards: int) -> None:
    """Behind a skipped event the key goes on, up to the next that fails, and from there the same once more."""
    kept = Kept(world_of([touchy]))
    first, _, second, _ = kept.append(*[event("ann", kind) for kind in ("bad", "good", "bad", "good")])
    live = caught_up(kept.world, shards)
    for index, state, at in ((first, 1, second), (second, 2, None)):
        kept.skip("touchy", index)
        for one in live:
            run(one, kept.world.source)
        (slot,) = [found for one in live for found in slots_of(one, "touchy").values()]
        assert (slot.state, slot.error_index) == (state, at)
        assert union(live) == kept.fold() == kept.world.digest(shards)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_key_of_nothing_but_a_skipped_event_is_gone(shards: int) -> None:
    """Where no event is left, there is no state: not in memory, not in the store, not in the replay."""
    kept = Kept(world_of([touchy, seen]))
    (at, _) = kept.append(event("ann", "bad"), event("bob"))
    live = caught_up(kept.world, shards)
    kept.skip("touchy", at)
    for one in live:
        run(one, kept.world.source)
        one.save(kept.world.source)
    assert [key for one in live for key in slots_of(one, "touchy")] == [("bob",)]
    assert union(live) == kept.fold() == kept.world.digest()
    judge_stores(kept.world)
    kept.append(event("ann"))
    assert union(caught_up(kept.world, shards)) == kept.fold()


@pytest.mark.parametrize("shards", [1, 3])
def test_any_event_can_be_skipped(shards: int) -> None:
    """Also one at which nobody stands still is taken out: early, late, a tick; a control entry never was in."""
    kept, _ = quarrel()
    live = caught_up(kept.world, shards)
    for name in ("seen", "beats", "everyone", "class_size", "touchy"):
        for index in range(kept.world.size):
            kept.skip(name, index)
        for one in live:
            run(one, kept.world.source)
    assert union(live) == union(caught_up(kept.world, shards)) == kept.world.digest() == kept.fold()
    assert slots_of(live[0], "seen") == {}


def test_each_index_alone_can_be_skipped() -> None:
    """One skip, of each entry in turn and for each reducer: live and replayed states agree with the list."""
    kept, _ = quarrel()
    size = kept.world.size
    live = bare(kept.world)
    run(live, kept.world.source)
    for index in range(size):
        for one in kept.world.reducers:
            kept.skip(one.name, index)
        run(live, kept.world.source)
        assert union([live]) == kept.fold()


def test_an_event_that_waits_for_its_identity_can_be_skipped() -> None:
    """A skip may come before the binding: the event is passed over when the binding brings it."""
    kept, lo = Kept(world_of()), connection()
    indices = kept.append(*frames(lo, {"event": "a"}, {"event": "bad"}))
    live = caught_up(kept.world, 1)
    kept.skip("touchy", indices[1])
    run(live[0], kept.world.source)
    kept.append(*frames(lo, {"event": "b", "user_id": "ann"}))
    run(live[0], kept.world.source)
    assert slots_of(live[0], "touchy")["testcase-ann",].error is None
    assert union(live) == kept.fold() == kept.world.digest(3)


def test_a_skip_of_what_is_yet_to_come_waits() -> None:
    """A skip of an index that the log has not reached holds when it is reached, and disturbs nothing before."""
    kept = Kept(world_of([touchy]))
    kept.append(event("ann"))
    live = caught_up(kept.world, 1)
    kept.skip("touchy", kept.world.size + 1)
    run(live[0], kept.world.source)
    kept.append(event("ann", "bad"))
    kept.append(event("ann"))
    run(live[0], kept.world.source)
    assert union(live) == kept.fold() == kept.world.digest()


def test_a_skip_of_another_reducer_is_nobodys() -> None:
    """A skip names its reducer: others keep the event, and a reducer that is not here changes nothing."""
    kept, (at, _, _) = quarrel()
    live = caught_up(kept.world, 2)
    kept.skip("nobody", at)
    for one in live:
        run(one, kept.world.source)
    assert union(live) == kept.fold() == kept.world.digest(2)


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
def test_states_at_a_size_know_the_steering_below_it(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay to any size is the fold of that many entries, with the skips among them and no others."""
    kept, (at, early, at_tick) = quarrel()
    for name, index in (("touchy", at), ("beats", at_tick), ("touchy", early), ("seen", early)):
        kept.skip(name, index)
        kept.append(event("ann", "more"))
    monkeypatch.setattr(feed, "SLICE_ENTRIES", cut)
    world = kept.world
    stepped = bare(world)
    with world.source.open() as log:
        gathered = Gathered()
        for size in range(world.size + 1):
            gathered.extend(log, size)
            part = [one for one in kept.submissions if one[0] < size]
            skips = {one.name: gathered.skipped(one.name) for one in world.reducers}
            want = plain_fold(world.reducers, ordered(part), skips)
            assert world.digest(size=size) == want
            run_to(stepped, world.source, size)
            assert union([stepped]) == want


@pytest.mark.parametrize("lost", range(4))
def test_a_worker_may_die_at_any_moment_of_a_skip(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was folded again and not saved is folded again at the next start: nothing is half skipped."""
    kept, (at, early, at_tick) = quarrel()
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 2)
    world = kept.world
    caught_up(world, 1)
    for name, index in (("touchy", at), ("beats", at_tick), ("touchy", early)):
        kept.skip(name, index)
        kept.append(*[event("ann", "more") for _ in range(5)])
    while (one := world.runner()).position < world.size:
        one.step(world.source)
        one.save(world.source)
        for _ in range(lost):
            one.step(world.source)
    assert union([world.runner()]) == kept.fold() == world.digest()


def test_a_worker_that_dies_while_it_folds_again_does_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A death within the replay of one key leaves what was saved as it was, and the next start begins it anew."""
    kept, (at, _, _) = quarrel()
    world = kept.world
    (one,) = caught_up(world, 1)
    before = tables(world.states[0, 1])
    kept.skip("touchy", at)
    monkeypatch.setattr(one, "_anew", raise_crash)
    with pytest.raises(Crash):
        one.step(world.source)
    assert tables(world.states[0, 1]) == before
    assert union(caught_up(world, 1)) == kept.fold()


def raise_crash(*_: Any) -> None:
    """Die."""
    raise Crash


def test_what_is_skipped_is_not_skipped_again_at_every_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store remembers up to where skips and retries are in its states, so that a start costs no replay."""
    kept, (at, early, _) = quarrel()
    kept.skip("touchy", at)
    kept.world.steer(Retry(reducer="touchy", index=early))
    caught_up(kept.world, 1)
    kept.append(event("ann"))
    one = kept.world.runner()
    monkeypatch.setattr(one, "_anew", raise_crash)
    run(one, kept.world.source)
    assert union([one]) == kept.fold()


# --- retry ---------------------------------------------------------------------------------------


class Weather:
    """What a reducer must not depend on, and in this test does."""

    bad = True


def moody(state: int, event: Event) -> int:  # noqa: ARG001 - only the weather counts
    """Count, if the weather is good."""
    if Weather.bad:
        raise ValueError("rain")
    return state + 1


@pytest.mark.parametrize("shards", [1, 3])
def test_a_retry_folds_the_key_again(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that stands still for a reason that is gone goes on as if nothing had been; others are not touched."""
    monkeypatch.setattr(Weather, "bad", True)
    kept = Kept(world_of([reducer(scope=("student",), version=1)(moody), touchy]))
    at, _, other, _ = kept.append(event("ann"), event("ann"), event("bob"), event("bob"))
    live = caught_up(kept.world, shards)
    monkeypatch.setattr(Weather, "bad", False)
    kept.world.steer(Retry(reducer="moody", index=at))
    for one in live:
        run(one, kept.world.source)
    slots = {key: slot for one in live for key, slot in slots_of(one, "moody").items()}
    assert (slots["ann",].state, slots["ann",].error_index) == (2, None)
    assert slots["bob",].error_index == other
    kept.world.steer(Retry(reducer="moody", index=other))
    assert union(caught_up(kept.world, shards)) == kept.fold()
    judge_stores(kept.world)


def test_a_retry_of_what_still_fails_changes_nothing() -> None:
    """A key that fails at its event again stands still there again, with the digest that it had."""
    kept, (at, early, at_tick) = quarrel()
    live = caught_up(kept.world, 2)
    for name, index in (("touchy", at), ("touchy", early), ("beats", at_tick), ("seen", at)):
        kept.world.steer(Retry(reducer=name, index=index))
    for one in live:
        run(one, kept.world.source)
    assert union(live) == kept.fold() == kept.world.digest(2)


def test_many_keys_that_one_tick_stopped_are_many() -> None:
    """A tick may stop any number of keys: each has its row in the table, and each is taken up again."""
    kept = Kept(world_of([beats, touchy]))
    kept.append(*[event(name, "fragile") for name in ("ann", "bob", "eve")], event("kim"))
    (at,) = kept.append(tick_at(60))
    (one,) = caught_up(kept.world, 1)
    assert kept.world.reader().quarantined(99) == [("beats", at)] * 3
    assert sorted(one.holdings[0].quarantined_at(beats, at)) == [("ann",), ("bob",), ("eve",)]
    judge_stores(kept.world)
    kept.skip("beats", at)
    assert union(caught_up(kept.world, 1)) == kept.fold() == kept.world.digest()
    assert kept.world.reader().quarantined(99) == []
    judge_stores(kept.world)


# --- what is gathered ---


def test_steering_that_cannot_be_read_steers_nothing() -> None:
    """Control entries of a later version, and of other kinds, are passed over; those that can be read count."""
    kept = Kept(world_of([touchy]))
    (at,) = kept.append(event("ann", "bad"))
    kept.world.archiver.control({"control": "skip", "reducer": "touchy", "index": at, "until": 9})
    kept.world.archiver.control({"control": "explode"})
    assert kept.world.digest() == kept.fold()
    kept.skip("touchy", at)
    assert kept.world.digest() == kept.fold()


def test_what_was_gathered_is_known_by_name() -> None:
    """Activations, versions, retries of modules and the last change are at hand, in the order of the log."""
    world = world_of([touchy, seen])
    first = world.steer(activation(touchy))
    world.steer(Retry(module="all"))
    again = world.steer(Retry(module="all"))
    skip = world.steer(Skip("touchy", 2))
    last = world.steer(activation(touchy, seen))
    gathered = Gathered()
    with world.source.open() as log:
        assert [index for index, _ in gathered.extend(log, again)] == [first, first + 1]
        assert [index for index, _ in gathered.extend(log)] == [again, skip, last]
        assert gathered.extend(log) == []
    assert gathered.size == world.size
    assert gathered.retried("all") == again
    assert gathered.retried("else") is None
    assert gathered.versions("all") == {"touchy": 1, "seen": 1}
    assert gathered.versions("else") == {}
    assert gathered.active("else") is None
    found = gathered.active("all")
    assert found is not None
    assert found[0] == last


# --- one key alone -------------------------------------------------------------------------------


def test_a_key_alone_is_what_it_is_among_all() -> None:
    """Replaying one key, of any reducer, gives exactly its part of the whole replay: skips, bindings, ticks and all."""
    kept, (at, early, at_tick) = quarrel()
    kept.append(*CLASSROOM)
    kept.skip("touchy", at)
    kept.skip("beats", at_tick)
    world = kept.world
    whole = bare(world)
    run(whole, world.source)
    assert union([whole]) == kept.fold()
    for one in world.reducers:
        slots = slots_of(whole, one.name)
        assert slots
        for key, slot in slots.items():
            alone = replay_key(world.source, world.vault(), one, key, world.size)
            assert {each: alone.get(one, each) for each in alone.keys(one)} == {key: slot}
    assert early < at


def test_a_key_alone_is_steered_like_all_others() -> None:
    """Folded up to one size after the other, a key alone meets skips behind their events, ticks among them."""
    kept, (at, early, at_tick) = quarrel()
    kept.skip("beats", at_tick)
    kept.skip("touchy", at)
    kept.skip("touchy", early)
    world = kept.world
    for one, key in ((beats, ("eve",)), (beats, ("ann",)), (touchy, ("ann",)), (touchy, ("testcase-kim",))):
        alone = Holding([one])
        runner = Runner([alone], world.vault(), only=Only(one, key))
        for size in range(world.size + 1):
            run_to(runner, world.source, size)
        whole = replay_key(world.source, world.vault(), one, key, world.size)
        assert alone.get(one, key) == whole.get(one, key) is not None
        assert alone.keys(one) == [key]


def test_a_key_that_nobody_has_is_nothing() -> None:
    """Replaying a key that no event is about gives no state."""
    kept, _ = quarrel()
    alone: Holding = replay_key(kept.world.source, kept.world.vault(), touchy, ("nobody",), kept.world.size)
    assert alone.keys(touchy) == []


def test_a_key_at_an_earlier_size_is_what_it_was() -> None:
    """Replayed to a size, a key is what the fold of that many entries gives it."""
    kept, _ = quarrel()
    for size in range(kept.world.size + 1):
        alone = replay_key(kept.world.source, kept.world.vault(), seen, ("ann",), size)
        events = ordered([one for one in kept.submissions if one[0] < size])
        want = fold(seen, events).get(("ann",))
        assert alone.get(seen, ("ann",)) == want
