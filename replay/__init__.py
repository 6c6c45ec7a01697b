"""Drives reducers along the log; everything here may be deleted and rebuilt.

    Runner.step → fold a slice        Runner.save → states and position in one commit for each module
    replay_digests, live_digests, compare → is what we showed what the log says?

Read `runner` first, then `feed` (the log as events), `holding` (a module's states in one shard), `routing` (which
shard), `layout` (how states are stored) and `catalogue` (what there is, for readers).
"""

from __future__ import annotations

from replay.attempt import IDLE, IMPORTING, attempts_file, index_of, read_attempts, word_of
from replay.attesting import (
    Difference as AttestedDifference,
)
from replay.attesting import (
    Joined,
    Judged,
    compared,
    forget_note,
    is_attested,
    joined,
    judged,
    next_attested,
    notes,
    passed_by,
    take_note,
)
from replay.audit import Difference, Digests, compare, compare_live, live_digests, replay_digests
from replay.catalogue import (
    SHARDS_FILE,
    Catalogue,
    ReducerInfo,
    catalogue_of,
    catalogues,
    generation_of,
    info_of,
    module_folder,
    read_catalogue,
    shard_folder,
    stood_at,
    tidy,
    without_catalogue,
    write_catalogue,
)
from replay.cell import CellDied, CellHolding, remote
from replay.cell_wire import (
    FRAME_BYTES_MAX,
    Done,
    Hello,
    Piece,
    Refused,
    decode_back,
    decode_piece,
    encode_frame,
)
from replay.choosing import ReadStore, Status, Stores, memory_folder, states_name
from replay.crew import Crew
from replay.damage import Damaged, complain, damage_of, drop_complaint, emptied, is_complained_of
from replay.escalation import (
    LEVELS,
    Fault,
    Kind,
    Level,
    Record,
    State,
    begun,
    interrupted,
    not_loaded,
    reached,
    rested,
    retried,
    struck,
)
from replay.feed import MODULE_SENDER, TICK_SENDER, Feed, locked_fields
from replay.folded import Outgoing, Stopped
from replay.holding import Holding
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
from replay.live import Live, holding_of, read_live
from replay.messages import HOPS_MAX, message_id, submission_of, tick_submission, too_far
from replay.mirror import MIRRORED, Mirror
from replay.paths import ABSENT, At, differing, differing_encodings
from replay.portion import Item, Portion
from replay.reader import StateReader, after
from replay.redis_link import RedisLink
from replay.redis_store import RedisStore
from replay.routing import PARTITION_KEY, TICK_FIELD, Only, Routing, home_of, routing_field, shard_of
from replay.runner import Runner, replay_key, run_to
from replay.status import STATUS_FILE, ModuleStatus, ShardStatus, on_folder, read_status, write_status
from replay.steering import Gathered
from replay.sweep import Entries, Entry, FoldedState, Gathering, Stop, Sweep, folded_state, in_order
from replay.tenant import Tenant
from replay.trace import (
    START,
    Line,
    Parted,
    Traced,
    comparable,
    decode_line,
    encode_line,
    first_difference,
    traced,
)
from replay.unsent import Count, Unsent, read_unsent

__all__ = [
    "ABSENT",
    "FRAME_BYTES_MAX",
    "HOPS_MAX",
    "IDLE",
    "IMPORTING",
    "LEVELS",
    "MIRRORED",
    "MODULE_SENDER",
    "PARTITION_KEY",
    "SHARDS_FILE",
    "START",
    "STATE_TABLES",
    "STATUS_FILE",
    "TICK_FIELD",
    "TICK_SENDER",
    "At",
    "AttestedDifference",
    "Catalogue",
    "CellDied",
    "CellHolding",
    "Count",
    "Crew",
    "Damaged",
    "Difference",
    "Digests",
    "Done",
    "Entries",
    "Entry",
    "Fault",
    "Feed",
    "FoldedState",
    "Gathered",
    "Gathering",
    "Hello",
    "Holding",
    "Identity",
    "Item",
    "Joined",
    "Judged",
    "Kind",
    "Level",
    "Line",
    "Live",
    "Marker",
    "Mirror",
    "ModuleStatus",
    "Only",
    "Outgoing",
    "Parted",
    "Piece",
    "Portion",
    "ReadStore",
    "Record",
    "RedisLink",
    "RedisStore",
    "ReducerInfo",
    "Refused",
    "Routing",
    "Runner",
    "ShardStatus",
    "State",
    "StateReader",
    "Status",
    "Stop",
    "Stopped",
    "StoredSlot",
    "Stores",
    "Sweep",
    "Tenant",
    "Traced",
    "Unsent",
    "Waiting",
    "after",
    "attempts_file",
    "begun",
    "catalogue_of",
    "catalogues",
    "comparable",
    "compare",
    "compare_live",
    "compared",
    "complain",
    "damage_of",
    "decode_back",
    "decode_line",
    "decode_piece",
    "differing",
    "differing_encodings",
    "drop_complaint",
    "emptied",
    "encode_frame",
    "encode_line",
    "first_difference",
    "folded_state",
    "forget_note",
    "generation_of",
    "holding_of",
    "home_of",
    "identities_of",
    "in_order",
    "index_of",
    "info_of",
    "interrupted",
    "is_attested",
    "is_complained_of",
    "joined",
    "judged",
    "live_digests",
    "locked_fields",
    "memory_folder",
    "message_id",
    "module_folder",
    "name_of",
    "next_attested",
    "not_loaded",
    "notes",
    "on_folder",
    "passed_by",
    "reached",
    "read_attempts",
    "read_catalogue",
    "read_live",
    "read_marker",
    "read_status",
    "read_unsent",
    "remote",
    "replay_digests",
    "replay_key",
    "rested",
    "retried",
    "routing_field",
    "run_to",
    "shard_folder",
    "shard_of",
    "state_key",
    "states_name",
    "stood_at",
    "struck",
    "submission_of",
    "take_note",
    "tick_submission",
    "tidy",
    "too_far",
    "traced",
    "without_catalogue",
    "word_of",
    "write_catalogue",
    "write_status",
]
