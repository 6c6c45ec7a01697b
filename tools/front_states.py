"""How a front opens the states of one shard: here or, where a copy of them is kept there, in Redis.

    shelf.open_store = reading(stores, services)

It stands apart from `tools.stores`, which every worker loads: what a front is made of, FastAPI above all, takes longer
to load than all the rest of a worker, and memory that a worker has no use for.  When a copy is good enough to be read:
`replay.choosing`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from api import Place, Services, open_states
from archive import Store, control_body, parse_leaf
from replay import Stores, states_name, trouble_in


def reading(stores: Stores, services: Services) -> Callable[[Place], Store]:
    """Return how a front opens the states of one shard: here or, where a copy is kept there, in Redis."""

    def ours(size: int, root: bytes) -> bool:
        with services.log() as log:
            return size <= log.size and log.root(size) == root

    def opened(place: Place) -> Store:
        if stores.link is None:
            return open_states(place)
        with services.log() as log:
            origin = str(control_body(parse_leaf(log.leaf(0)))["origin"])
        partition = services.folder.partition
        about = states_name(origin, partition, place.module, place.generation, place.shard, place.shards)
        return stores.reading(lambda: open_states(place), about, ours, partial(trouble_in, place.folder))

    return opened
