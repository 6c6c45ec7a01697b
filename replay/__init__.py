"""Drives reducers along the log; everything here may be deleted and rebuilt.

    Runner.step → fold a slice        Runner.save → states and position in one commit for each module
    replay_digests, live_digests, compare → is what we showed what the log says?

Read `runner` first, then `feed` (the log as events), `holding` (a module's states in one shard), `routing` (which
shard), `layout` (how states are stored) and `catalogue` (what there is, for readers).
"""

from __future__ import annotations

from replay.audit import Difference, Digests, compare, live_digests, replay_digests, replayed
from replay.catalogue import (
    Catalogue,
    ReducerInfo,
    catalogue_of,
    catalogues,
    generation_of,
    info_of,
    module_folder,
    read_catalogue,
    shard_folder,
    tidy,
    write_catalogue,
)
from replay.choosing import ReadStore, Status, Stores, memory_folder, states_name
from replay.crew import Crew
from replay.feed import MODULE_SENDER, TICK_SENDER, Feed, Item, locked_fields
from replay.holding import Holding, Outgoing, Stopped
from replay.layout import TABLES as STATE_TABLES
from replay.layout import (
    Identity,
    Marker,
    StoredSlot,
    Waiting,
    identities_of,
    name_of,
    read_marker,
    state_key,
)
from replay.mirror import MIRRORED, Mirror
from replay.reader import StateReader, after
from replay.redis_link import RedisLink
from replay.redis_store import RedisStore
from replay.routing import PARTITION_KEY, TICK_FIELD, Only, Routing, home_of, routing_field, shard_of
from replay.runner import Runner, replay_key, run_to
from replay.steering import Gathered

__all__ = [
    "MIRRORED",
    "MODULE_SENDER",
    "PARTITION_KEY",
    "STATE_TABLES",
    "TICK_FIELD",
    "TICK_SENDER",
    "Catalogue",
    "Crew",
    "Difference",
    "Digests",
    "Feed",
    "Gathered",
    "Holding",
    "Identity",
    "Item",
    "Marker",
    "Mirror",
    "Only",
    "Outgoing",
    "ReadStore",
    "RedisLink",
    "RedisStore",
    "ReducerInfo",
    "Routing",
    "Runner",
    "StateReader",
    "Status",
    "Stopped",
    "StoredSlot",
    "Stores",
    "Waiting",
    "after",
    "catalogue_of",
    "catalogues",
    "compare",
    "generation_of",
    "home_of",
    "identities_of",
    "info_of",
    "live_digests",
    "locked_fields",
    "memory_folder",
    "module_folder",
    "name_of",
    "read_catalogue",
    "read_marker",
    "replay_digests",
    "replay_key",
    "replayed",
    "routing_field",
    "run_to",
    "shard_folder",
    "shard_of",
    "state_key",
    "states_name",
    "tidy",
    "write_catalogue",
]
