"""Rotten rows: who needs one stops there and says which, nobody else notices, and a skip lets the fold go on.

The judge is a plain fold over the list of events, without those that were skipped: it never sees a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from archive import ROW_BINDING, MemoryStore, Skip, Write
from reducers import Reducer
from replay import STATE_TABLES, Crew, Holding, Runner, Sweep
from tests.archive.rotting import CLOSED, FORM, rot
from tests.replay.classroom import CLASSROOM, ordered
from tests.replay.kept import Kept, caught_up, judge_stores, world_of
from tests.world import (
    World,
    bare,
    class_size,
    connection,
    event,
    frames,
    pages,
    plain_fold,
    run,
    seen,
    slots_of,
    tick_at,
    union,
)


def skip_everywhere(kept: Kept, index: int) -> None:
    """Let every reducer pass over an entry."""
    for one in kept.world.reducers:
        kept.skip(one.name, index)


def classroom(reducers: Iterable[Reducer[Any]] = ()) -> tuple[Kept, dict[str, int]]:
    """Return a classroom, and the indices of some entries of every kind in it."""
    kept = Kept(world_of(reducers))
    for start in range(0, len(CLASSROOM), 7):
        kept.append(*CLASSROOM[start : start + 7])
    lo = connection(9)
    first = kept.append(*frames(lo, {"event": "early"}, {"event": "bad", "class": "7a"}))
    (tick, last) = kept.append(tick_at(60), event("ann", doc_id="essay"))
    kept.append(*frames(lo, {"event": "said", "user_id": "kim"}))
    binding = max(index for index, one in kept.submissions if one.kind == ROW_BINDING)
    kept.append(event("ann", "bad"), event("bob"), event("kim", "after"), tick_at(120))
    return kept, {"event": last, "early": first[1], "binding": binding, "tick": tick}


def test_events_beside_a_rotten_row_are_counted_once() -> None:
    """A bundle that has to be read row by row counts what lacks a field as one that is whole."""
    kept = Kept(world_of([pages]))  # of a document of a student
    kept.append(event("ann"), event("ann", doc_id="d"), event("bob"), event("eve"))
    (at,) = kept.append(event("bob", doc_id="d"))
    kept.append(event("eve"))
    rot(kept.world.site.log, at, FORM)
    kept.skip("pages", at)
    (runner,) = caught_up(kept.world, 1)
    assert runner.holdings[0].lacking == {"pages": 4}


@pytest.mark.parametrize("place", [CLOSED, FORM])
def test_a_module_stops_at_a_rotten_row_and_what_it_saved_stays(place: int) -> None:
    """It is said which entry, which reducer and why; nothing is saved beyond it, and what was saved is as it was."""
    kept = Kept(world_of([seen]))
    kept.append(event("ann"), event("bob"))
    caught_up(kept.world, 1)
    position, before = kept.world.size, kept.fold()
    (at, _) = kept.append(event("ann", "lost"), event("bob"))
    rot(kept.world.site.log, at, place)
    for _ in range(2):  # trying again changes nothing
        one = kept.world.runner()
        run(one, kept.world.source)
        one.save(kept.world.source)
        why = one.stopped["all"]
        assert (why.reducer, why.at, why.kind, why.ours) == ("seen", at, "rotten", True)
        assert why.told.startswith("Rotten: private row")
        assert "docs/recovery.md" in why.told
        again = kept.world.runner()
        assert (again.position, union([again])) == (position, before)


def test_who_does_not_need_a_rotten_row_goes_on() -> None:
    """A module that the entry cannot concern does not notice; nor does another shard."""
    world = world_of([])
    stores = {"all": MemoryStore(STATE_TABLES), "classes": MemoryStore(STATE_TABLES)}
    world.append([event("ann"), event("bob", **{"class": "7a"}), event("eve", **{"class": "7a"})])
    rot(world.site.log, 2)
    holdings = [Holding([seen], stores["all"], "all"), Holding([class_size], stores["classes"], "classes")]
    crew = Crew(holdings, world.vault())
    while crew.step(world.source):
        crew.save(world.source)
    assert {name: one.at for name, one in crew.stopped.items()} == {"all": 2}
    (left,) = crew.holdings
    assert (left.module, left.position) == ("classes", world.size)
    assert [slot.state for slot in slots_of(crew.runners[0], "class_size").values()] == [["bob", "eve"]]
    stopped = 0
    for shard in range(8):
        one = Runner([Holding([seen], module="all")], world.vault(), shard=shard, shards=8)
        run(one, world.source)
        stopped += bool(one.stopped)
    assert stopped == 1


@pytest.mark.parametrize("place", [CLOSED, FORM])
@pytest.mark.parametrize("kind", ["event", "early", "tick"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_skip_lets_the_fold_go_on_without_the_row(shards: int, kind: str, place: int) -> None:
    """The states are those of the log without the entry: for live workers, after a restart, and in a replay."""
    kept, indices = classroom()
    rot(kept.world.site.log, indices[kind], place)
    stopped = [name for one in caught_up(kept.world, shards) for name in one.stopped]
    assert stopped, "somebody needs it"
    skip_everywhere(kept, indices[kind])
    live = caught_up(kept.world, shards)
    assert not any(one.stopped for one in live)
    assert union(live) == kept.world.digest(shards) == kept.fold()
    judge_stores(kept.world)


@pytest.mark.parametrize("rotten", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_skipped_binding_passes_over_what_waited_for_it(shards: int, *, rotten: bool) -> None:
    """Whether or not its row can be read: so all copies of a log come to the same states."""
    kept, indices = classroom()
    live = [] if rotten else caught_up(kept.world, shards)
    if rotten:
        rot(kept.world.site.log, indices["binding"])
        assert any(one.stopped for one in caught_up(kept.world, shards))
    skip_everywhere(kept, indices["binding"])
    for one in live:
        run(one, kept.world.source)
    want = kept.fold()
    assert want != plain_fold(kept.world.reducers, ordered(kept.submissions))
    assert union(live or caught_up(kept.world, shards)) == kept.world.digest(shards) == want


@pytest.mark.parametrize("kind", ["event", "early", "tick"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_row_that_rots_after_it_was_folded_can_be_skipped_all_the_same(shards: int, kind: str) -> None:
    """Nobody can see any more whose state it went into: so all are folded again, without it."""
    kept, indices = classroom()
    live = caught_up(kept.world, shards)
    rot(kept.world.site.log, indices[kind])
    kept.append(event("ann", "later"))
    for one in live:
        run(one, kept.world.source)
        assert not one.stopped, "what was folded before is as it was"
    skip_everywhere(kept, indices[kind])
    for one in live:
        run(one, kept.world.source)
    assert union(live) == kept.world.digest(shards) == kept.fold()


def test_who_has_not_skipped_it_stops_at_it_still() -> None:
    """A skip is of one reducer: what another one would need is not passed over behind its back."""
    kept = Kept(world_of([seen, pages]))
    (at, _) = kept.append(event("ann", doc_id="essay"), event("ann"))
    rot(kept.world.site.log, at)
    kept.skip("seen", at)
    one = kept.world.runner()
    run(one, kept.world.source)
    assert (one.stopped["all"].reducer, one.stopped["all"].at) == ("pages", at)


def test_many_rotten_rows_are_named_one_after_the_other() -> None:
    """The sound ones between them keep their order, in a row of entries that are read together."""
    kept = Kept(world_of([seen]))
    every = kept.append(*[event(name, str(n)) for n in range(150) for name in ("ann", "bob")])
    bad = [every[0], every[1], every[77], every[255], every[256], every[299]]
    for number, at in enumerate(bad):
        rot(kept.world.site.log, at, FORM if number % 3 == 2 else CLOSED)
    for at in bad:
        one = kept.world.runner()
        run(one, kept.world.source)
        assert one.stopped["all"].at == at
        kept.skip("seen", at)
    assert union(caught_up(kept.world, 1)) == kept.world.digest(3) == kept.fold()


def test_a_rotten_row_of_nobody_stops_nobody() -> None:
    """An entry of a subject that was erased is not read, whatever became of its row."""
    kept = Kept(world_of([seen]))
    (at, _) = kept.append(event("ann"), event("bob"))
    rot(kept.world.site.log, at)
    keys = kept.world.vault().find("student:ann")
    assert keys is not None
    kept.world.site.vault.commit([Write("subjects", keys.number.to_bytes(8), None)])
    one = bare(kept.world)
    run(one, kept.world.source)
    assert (one.stopped, one.erased, list(slots_of(one, "seen"))) == ({}, 1, [("bob",)])


def test_a_replay_names_the_entry_and_honours_the_skip() -> None:
    """A sweep says where it could not go on, as live workers do, and nothing of that module beyond it."""
    kept = Kept(world_of([seen]))
    (_, at, _) = kept.append(event("ann"), event("ann", "lost"), event("ann"))
    rot(kept.world.site.log, at)
    assert swept(kept.world).stopped["all"].at == at
    skipping = kept.world.steer(Skip("seen", at))
    assert swept(kept.world, skipping).stopped["all"].at == at, "up to there nobody had decided it"
    assert swept(kept.world).stopped == {}


def swept(world: World, size: int | None = None) -> Any:
    """Return where a replay stops."""
    return Sweep([bare(world)]).to(world.source, world.size if size is None else size)
