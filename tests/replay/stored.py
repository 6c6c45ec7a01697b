"""States that stand in a store without a worker having folded anything: what readers and restarts are tested on.

    save(store, made, {("d", "ann"): Slot(1, 2)})        # two reducers, the states of `pages`, at position 3
    tables(store)                                        # everything that stands there, by table

`judge_tables` is the independent judge of a store: which rows there must be, worked out from the states alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import msgspec

from archive import Store
from reducers import Key, Reducer, Slot
from replay import STATE_TABLES, Holding, StoredSlot, Waiting
from tests.world import World, event, pages, seen

LONG = "é" * 512  # 1,024 bytes, the longest value of a key field
REDUCERS: list[Reducer[Any]] = [seen, pages]
Tables = dict[str, dict[bytes, bytes]]


def world() -> World:
    """Return a world with three entries of its own to stand on."""
    made = World(reducers=REDUCERS)
    made.append([event("ann")])
    return made


def save(
    store: Store,
    made: World,
    slots: Mapping[Any, Slot[Any] | None],
    position: int = 3,
    *,
    rebuilt_to: int = 0,
    backlog: Mapping[int, Waiting] | None = None,
) -> None:
    """Save slots of `pages`, as a worker that has folded nothing else."""
    holding = Holding(REDUCERS, store, "all")
    holding.rebuilt_to = rebuilt_to
    for key, slot in slots.items():
        holding.put(pages, key, slot)
    with made.source.open() as log:
        holding.save(position, log.root(position), backlog or {})


def loaded(store: Store, made: World, **options: Any) -> Holding:
    """Return a holding that goes on from what is saved, or begins anew."""
    holding = Holding(REDUCERS, store, "all", **options)
    with made.source.open() as log:
        holding.resume(log)
    return holding


def stored(state: int, changed_at: int = 2, key: Key = ("d", "ann")) -> StoredSlot:
    """Return a slot of `pages` as it is kept."""
    return StoredSlot(1, key, changed_at, None, None, str(state).encode())


def tables(store: Store) -> Tables:
    """Return all that is in a store."""
    with store.view() as view:
        return {table: dict(view.scan(table)) for table in STATE_TABLES}


def judge_tables(found: Tables) -> None:
    """Assert that `changes` and `quarantined` are what the states, read by hand, say that they must be."""
    changes: set[bytes] = set()
    quarantined: list[tuple[bytes, int, bytes]] = []
    for key, value in found["states"].items():
        assert value[-4:] == crc32(value[:-4]).to_bytes(4)
        changes.add(value[:8] + key)
        if value[8:-4] and (index := msgspec.msgpack.decode(value[8:-4])[4]) is not None:
            quarantined.append((key.partition(b"\0")[0], index, key))
    assert set(found["changes"]) == changes
    assert set(found["changes"].values()) <= {b""}
    rows = [(*_named(row), key) for row, key in found["quarantined"].items()]
    assert sorted(rows) == sorted(quarantined)
    if found["states"]:
        position = msgspec.msgpack.decode(found["meta"][b"snapshot"][:-4])["position"]
        assert all(int.from_bytes(one[:8]) <= position for one in changes)


def _named(row: bytes) -> tuple[bytes, int]:
    name, _, rest = row.partition(b"\0")
    return name, int.from_bytes(rest[:8])
