"""A world and the list of all that was kept in it: the model that states are held against.

kept = Kept(world_of([touchy]))
(at,) = kept.append(event("ann", "bad"))
kept.skip("touchy", at)
assert union(caught_up(kept.world, shards=2)) == kept.fold()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from archive import Activate, ActiveReducer, Skip, Submission
from reducers import Reducer
from replay import Runner
from tests.replay.classroom import ordered, passed_over
from tests.replay.stored import judge_tables, tables
from tests.world import World, connection, event, frames, plain_fold, run, steered_reducers, tick_at


def world_of(reducers: Iterable[Reducer[Any]] = (), **options: Any) -> World:
    """Return a world that runs these reducers, or one of every kind."""
    return World(reducers=list(reducers) or steered_reducers(), **options)


class Kept:
    """A world, and the list of all that was kept in it: the model."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.submissions: list[tuple[int, Submission]] = []
        self.skips: dict[str, set[int]] = {}

    def append(self, *submissions: Submission) -> list[int]:
        """Append, and return the indices."""
        indices = [receipt.index for receipt in self.world.append(submissions)]
        self.submissions += zip(indices, submissions, strict=True)
        return indices

    def skip(self, reducer: str, index: int) -> None:
        """Append a skip."""
        self.world.steer(Skip(reducer, index))
        self.skips.setdefault(reducer, set()).add(index)

    def fold(self) -> bytes:
        """Return the digest of the plain fold."""
        skips = passed_over(self.skips, self.submissions)
        return plain_fold(self.world.reducers, ordered(self.submissions), skips)


def quarrel() -> tuple[Kept, list[int]]:
    """Return a world in which Ann and two others stand still, and where; events come before, between and after."""
    kept = Kept(world_of())
    late = connection()
    kept.append(event("ann"), event("bob", "bad", doc_id="d"), event("ann", **{"class": "7a"}))
    kept.append(*frames(late, {"event": "good"}, {"event": "bad", "class": "7b"}, {"event": "good"}))
    at = kept.append(event("ann", "bad"), event("ann", "good"), event("eve", "fragile"), tick_at(60))
    kept.append(*frames(late, {"event": "good", "user_id": "kim"}, {"event": "good"}))
    kept.append(event("ann", "bad"), event("ann"), event("eve"), event("bob"), tick_at(120))
    (early,) = [index for index, one in kept.submissions if b"bad" in one.payload and one.extra.get("conn")]
    return kept, [at[0], early, at[3]]


def caught_up(world: World, shards: int) -> list[Runner]:
    """Return workers that have gone on from what they saved, caught up and saved."""
    runners = world.runners(shards)
    for one in runners:
        run(one, world.source)
        one.save(world.source)
    return runners


def judge_stores(world: World) -> None:
    """Judge the tables of every shard that ever was."""
    for store in world.states.values():
        judge_tables(tables(store))


def activation(*reducers: Reducer[Any], module: str = "all", undo: bool = False) -> Activate:
    """Return the entry that makes these a module's active reducers."""
    rows = [ActiveReducer(one.name, one.version, one.scope, one.code_digest) for one in reducers]
    return Activate(module, tuple(rows), undo=undo)
