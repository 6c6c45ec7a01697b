"""What the workers hold, as an auditor takes it: all states of one module in one shard, of one moment, read only.

    live = read_live(store, catalogue, shard=0, shards=2)     # position, steering, entries: of one view
    holding = holding_of(store, module, log)                  # to go on folding from there, in memory alone

Live states go on while somebody looks at them, so everything is copied out in one view.  They may stand at any
position, each shard and module at its own; `replay.audit` holds each against a replay that stops there.  States that
are damaged are no states: `Damaged`, or NotFound for whoever can as well begin from nothing.

Who answers queries reads with `replay.reader`, who keeps states is `replay.holding`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from archive import IntegrityError, Log, NotFound, StorageFailed, Store, View
from reducers import Module, Reducer, ReducerError, Slot, StatePair, entry_digest
from replay.catalogue import Catalogue
from replay.damage import reading, stored_at
from replay.holding import Holding
from replay.layout import (
    SNAPSHOT,
    Marker,
    StoredSlot,
    identities_of,
    marker_in,
    name_of,
    read_backlog,
    read_marker,
)
from replay.routing import home_of
from replay.sweep import Entries, Entry, seen_as


@dataclass(frozen=True)
class Live:
    """The states of one module in one shard."""

    catalogue: Catalogue
    shard: int
    shards: int
    position: int
    steered: int
    """Skips and retries of entries 0…steered-1 are in these states; at least the position."""
    root: bytes
    """The log's root at the position, as the worker knew it."""
    entries: Entries

    def holds(self, name: str, key: tuple[str, ...], route_key: bytes) -> bool:
        """Return whether a key of one of its reducers belongs to this shard."""
        scope = next(info.scope for info in self.catalogue.reducers if info.name == name)
        return home_of(name, scope, key, route_key, self.shards) == self.shard


def read_live(
    store: Store, catalogue: Catalogue, shard: int, shards: int, *, encodings: bool = False
) -> Live:
    """Return the states in a store; raise NotFound if there are none of this catalogue, or they are being rebuilt.

    Raises Damaged if one of them cannot be read.
    """
    entries: Entries = {}
    with reading(catalogue.module), store.view() as view:
        marker = marker_in(view.get("meta", SNAPSHOT))
        if marker is None or marker.reducers != catalogue.identities or marker.rebuilding:
            raise NotFound(f"the states of module {catalogue.module} are being rebuilt; ask again shortly")
        for data, value in view.scan("states"):
            if (slot := stored_at(data, value)) is not None:
                pair = StatePair(name_of(data), slot.version, slot.key, slot.encoding, slot.error_index)
                encoding = slot.encoding if encodings else None
                seen = seen_as(slot.shown)
                entries[pair.identity] = Entry(entry_digest(pair), encoding, slot.error_index, seen)
    return Live(catalogue, shard, shards, marker.position, marker.steered, marker.root, entries)


def holding_of(store: Store, module: Module, log: Log, names: Collection[str] = ()) -> Holding:
    """Return a module's saved states in memory, to go on from; nothing is written, now or later.

    With `names`, those of these reducers alone.  Raises NotFound if what is saved is not of this module as it is
    installed, or not of this log.
    """
    reducers = {one.name: one for one in module.reducers if not names or one.name in names}
    holding = Holding(reducers.values(), module=module.name)
    try:
        with store.view() as view:
            marker = _marker(view, module, log)
            holding.position, holding.steered = marker.position, marker.steered
            holding.backlog = read_backlog(view)
            for data, value in view.scan("states"):
                reducer, stored = reducers.get(name_of(data)), stored_at(data, value)
                if reducer is not None and stored is not None:
                    holding.put(reducer, stored.key, _slot(reducer, stored))
    except (ReducerError, IntegrityError, StorageFailed, msgspec.DecodeError, ValueError) as error:
        raise NotFound(
            f"a saved state of module {module.name} cannot be read ({error}); start from nothing"
        ) from None
    return holding


def _slot(reducer: Reducer[Any], stored: StoredSlot) -> Slot[Any]:
    return Slot(reducer.decode(stored.encoding), stored.changed_at, stored.error, stored.error_index)


def _marker(view: View, module: Module, log: Log) -> Marker:
    marker = read_marker(view.get("meta", SNAPSHOT))
    if marker is None or marker.reducers != identities_of(module.reducers):
        raise NotFound(f"there is no snapshot of module {module.name} as it is installed; start from nothing")
    if marker.position > log.size or log.root(marker.position) != marker.root:
        raise NotFound(
            f"the snapshot of module {module.name} is not of this log, or beyond it; start from nothing"
        )
    return marker
