"""Drives reducers along the log; everything here may be deleted and rebuilt.

    Runner.step → fold a slice        States.save → states and position in one commit
    replay_digests, live_digests, compare → is what we showed what the log says?

Read `runner` first, then `routing` (which shard) and `states` (where they are kept).
"""

from __future__ import annotations

from replay.audit import Difference, Digests, compare, live_digests, replay_digests
from replay.routing import PARTITION_KEY, Routing, routing_field, shard_of
from replay.runner import Runner, locked_fields
from replay.states import TABLES as STATE_TABLES
from replay.states import Snapshot, StateReader, States, StoredSlot, Waiting, state_key

__all__ = [
    "PARTITION_KEY",
    "STATE_TABLES",
    "Difference",
    "Digests",
    "Routing",
    "Runner",
    "Snapshot",
    "StateReader",
    "States",
    "StoredSlot",
    "Waiting",
    "compare",
    "live_digests",
    "locked_fields",
    "replay_digests",
    "routing_field",
    "shard_of",
    "state_key",
]
