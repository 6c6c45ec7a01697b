"""Ticks: time that passes is an entry like any other, and reaches every key that there is, in every shard, once."""

from __future__ import annotations

import pytest

from archive import Submission
from reducers import TICK, Event, reducer
from replay import TICK_SENDER, feed
from tests.replay.classroom import CLASSROOM
from tests.replay.kept import Kept, caught_up, judge_stores, world_of
from tests.world import (
    bare,
    beats,
    connection,
    event,
    everyone,
    frames,
    run,
    seen,
    slots_of,
    steered_reducers,
    tick_at,
    union,
)

SHARDS = (1, 2, 3, 5)


@reducer(scope=("class",), version=1, ticks=60)
def rounds(state: int, event: Event) -> int:
    """Count the minutes that a class has lasted: not spread by student."""
    return state + 1 if event.type == TICK else state


@reducer(scope=("doc_id", "student"), version=1, ticks=180)
def visits(state: list[str], event: Event) -> list[str]:
    """Keep who was there; a tick says so with the fields of its key."""
    return [*state, f"{event.keys['student']} in {event.keys['doc_id']}, {event.type}"]


def beaten() -> Kept:
    """Return the classroom with a tick every few events, some of a second that is nobody's."""
    kept = Kept(world_of([*steered_reducers(), rounds, visits]))
    for start in range(0, len(CLASSROOM), 7):
        kept.append(*CLASSROOM[start : start + 7], tick_at(30 * (start // 7)))
    return kept


@pytest.mark.parametrize("shards", SHARDS)
def test_ticks_are_the_same_for_any_number_of_shards(shards: int) -> None:
    """Live and replayed, the union of all shards is the plain fold: no key misses a tick, and none has it twice."""
    kept = beaten()
    assert union(caught_up(kept.world, shards)) == kept.world.digest(shards) == kept.fold()
    judge_stores(kept.world)
    assert slots_of(caught_up(kept.world, 1)[0], "visits")


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_ticks_do_not_show_how_the_log_was_cut(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices, saves and restarts between ticks change nothing, with hardly a state in memory."""
    monkeypatch.setattr(feed, "SLICE_ENTRIES", entries)
    kept = beaten()
    kept.world.keys_max = 2
    while (one := kept.world.runner()).position < kept.world.size:
        one.step(kept.world.source)
        one.step(kept.world.source)
        one.save(kept.world.source)
        one.step(kept.world.source)
    assert union([kept.world.runner()]) == kept.fold()


def test_a_tick_is_for_whoever_is_due() -> None:
    """A reducer sees the seconds that are multiples of its period, with their time; one that takes none sees none."""
    kept = Kept(world_of([beats, everyone, seen, rounds]))
    kept.append(event("ann", **{"class": "7a"}))
    kept.append(*[tick_at(second) for second in (1, 59, 60, 61, 90, 120, 150, 180, 240)])
    one = bare(kept.world)
    run(one, kept.world.source)
    assert slots_of(one, "beats")["ann",].state == ["e", *[f"ann at {at}" for at in (60, 120, 180, 240)]]
    assert slots_of(one, "everyone")[()].state == {"e": 1, TICK: 2}
    assert slots_of(one, "rounds")["7a",].state == 4
    assert len(slots_of(one, "seen")["ann",].state) == 1


def test_a_tick_begins_no_state_but_that_of_all() -> None:
    """Where nobody was, nothing happens; the one state of a global reducer begins with the first event, or tick."""
    kept = Kept(world_of([beats, everyone]))
    kept.append(tick_at(120))
    for shards in SHARDS:
        live = caught_up(kept.world, shards)
        assert union(live) == kept.fold()
        assert [key for one in live for key in slots_of(one, "everyone")] == [()]
        assert [key for one in live for key in slots_of(one, "beats")] == []


def test_who_waits_for_an_identity_has_no_ticks_yet() -> None:
    """A person who is bound later was nobody when the tick came: the events count at the binding, behind it."""
    kept, lo = Kept(world_of([beats])), connection()
    kept.append(*frames(lo, {"event": "early"}), tick_at(60))
    kept.append(*frames(lo, {"event": "late", "user_id": "ann"}), tick_at(120))
    one = bare(kept.world)
    run(one, kept.world.source)
    assert slots_of(one, "beats")["testcase-ann",].state == ["early", "late", "testcase-ann at 120"]
    assert union([one]) == kept.fold()


@pytest.mark.parametrize("sender", ["", "somebody", TICK_SENDER + "s", "module:writing"])
def test_what_somebody_else_sends_is_no_tick(sender: str) -> None:
    """Whatever an event calls itself, only the server's own sender makes time pass: others are their key's alone."""
    made = tick_at(60)
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    kept = Kept(world_of([beats, everyone]))
    kept.append(event("ann"), event("bob"))
    keys = {**made.keys, "student": "ann"}
    kept.world.append([Submission(**fields | {"sender": sender, "subject": "student:ann", "keys": keys})])
    one = bare(kept.world)
    run(one, kept.world.source)
    assert slots_of(one, "beats")["bob",].state == ["e"]
    assert len(slots_of(one, "beats")["ann",].state) == 2
