"""Taking the live states for an audit, while their server runs or after it.

    taken = live_states(folder, state, catalogues, size)

A replay that stops where they stand can be held against live states of any position; but what has just been sent should
be in them, so they are given a moment to come to the size, as long as they move at all.

What is done with them: `tools.replay_check`, `tools.upgrade_diff`.  How one store is read: `replay.live`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from archive import DataFolder, NotFound, Store
from replay import Catalogue, Damaged, Live, StateReader, read_live
from tools.offline import shards_of, states_of

PATIENCE_S = 3.0
"""How long states that stand still are waited for."""
WAIT_S_MAX = 60.0
LOOK_EVERY_S = 0.05


class Taken(NamedTuple):
    """Live states, and what is missing of them, by module."""

    lives: list[Live]
    missing: dict[str, str]
    notes: list[str]
    """What else is to be said of them."""


class _Shard(NamedTuple):
    catalogue: Catalogue
    shard: int
    store: Store


def live_states(
    folder: DataFolder,
    state: Path,
    catalogues: Iterable[Catalogue],
    size: int,
    *,
    encodings: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Taken:
    """Return the states of every shard of these modules, of a moment at which they have seen `size`, if they get there.

    Raises NotFound if no server ever ran here.
    """
    shards = shards_of(state)
    taken = Taken([], {}, [])
    with ExitStack() as stack:
        opened: list[_Shard] = []
        for one in catalogues:
            try:
                for shard in range(shards):
                    store = stack.enter_context(states_of(folder, state, one, shard, shards))
                    opened.append(_Shard(one, shard, store))
            except NotFound as error:
                taken.missing[one.module] = str(error)
        _await(opened, size, clock, sleep)
        for each in opened:
            try:
                taken.lives.append(
                    read_live(each.store, each.catalogue, each.shard, shards, encodings=encodings)
                )
            except (NotFound, Damaged) as error:
                taken.missing[each.catalogue.module] = str(error)
    return taken


def _await(
    opened: Sequence[_Shard], size: int, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Wait until all have seen `size`; not for those that do not move."""
    started = moved = clock()
    before: list[int] = []
    while (now := clock()) - started < WAIT_S_MAX:
        positions = [_position(one) for one in opened]
        if all(position >= size for position in positions):
            return
        moved = now if positions != before else moved
        if now - moved > PATIENCE_S:
            return
        before = positions
        sleep(LOOK_EVERY_S)


def _position(one: _Shard) -> int:
    reader = StateReader(one.store, one.catalogue.identities)
    try:
        return reader.position()
    except Damaged:
        return -1
    except NotFound:
        rebuilding = reader.rebuilding()
        return -1 if rebuilding is None else min(rebuilding[0], rebuilding[1] - 1)
