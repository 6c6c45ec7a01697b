"""The one source of truth: what was appended, in order, for ever.

Events come in as submissions, become entries (a public leaf and a private row), and are committed in blocks by the
one archiver of a log.  Readers see the log up to its published size and nothing beyond.

    Submission → Archiver.step → Receipt          Log(view, published) → rows → open_entry → Event

Read `entry` and `block` for the formats, `plan` and `archiver` for the commit, `log` for reading, `vault` for who is
behind a subject number.
"""

from __future__ import annotations

from archive.archiver import Archiver
from archive.block import Block, decode_block
from archive.caches import Caches
from archive.client import ArchiverClient, Unknown
from archive.clock import ManualClock, SteadyClock
from archive.entry import (
    LEAF_CONTROL,
    LEAF_PRIVATE,
    ROW_BINDING,
    ROW_EVENT,
    ROW_FRAME,
    ROW_REFUSED,
    Header,
    Leaf,
    Opened,
    Row,
    check_row,
    commitment_of,
    control_body,
    field_code,
    keys_of,
    open_entry,
    open_row,
    parse_leaf,
    parse_opening,
    parse_row,
    routing_hash,
    tag_of,
)
from archive.errors import (
    ArchiveError,
    Conflict,
    FormatError,
    IntegrityError,
    InvalidEvent,
    Locked,
    NotFound,
    StorageFailed,
    Unavailable,
)
from archive.event import Event, parse_json, read_event, type_of
from archive.files import sync_folder, write_whole
from archive.folder import DataFolder, read_secret
from archive.fsck import Finding, Tally, check_log
from archive.lmdb_store import LmdbStore
from archive.log import Log, LogSource, load_head, load_size
from archive.memory_store import MemoryStore
from archive.plan import APPEND_TABLES, TABLES, ControlDraft, Draft, Head, Planned, node_key, plan
from archive.ports import Clock, Random, Store, View, Write
from archive.published import MemoryPublished, PublishedSize
from archive.seal import MemorySeal, Seal, SealFile, newest_seal, take_lock
from archive.vault import SubjectKeys, Vault
from archive.wire import (
    FRONT,
    Answer,
    Append,
    Appended,
    Published,
    Receipt,
    Refusal,
    Submission,
    Subscribe,
    decode_frames,
    encode_frame,
)

__all__ = [
    "APPEND_TABLES",
    "FRONT",
    "LEAF_CONTROL",
    "LEAF_PRIVATE",
    "ROW_BINDING",
    "ROW_EVENT",
    "ROW_FRAME",
    "ROW_REFUSED",
    "TABLES",
    "Answer",
    "Append",
    "Appended",
    "ArchiveError",
    "Archiver",
    "ArchiverClient",
    "Block",
    "Caches",
    "Clock",
    "Conflict",
    "ControlDraft",
    "DataFolder",
    "Draft",
    "Event",
    "Finding",
    "FormatError",
    "Head",
    "Header",
    "IntegrityError",
    "InvalidEvent",
    "Leaf",
    "LmdbStore",
    "Locked",
    "Log",
    "LogSource",
    "ManualClock",
    "MemoryPublished",
    "MemorySeal",
    "MemoryStore",
    "NotFound",
    "Opened",
    "Planned",
    "Published",
    "PublishedSize",
    "Random",
    "Receipt",
    "Refusal",
    "Row",
    "Seal",
    "SealFile",
    "SteadyClock",
    "StorageFailed",
    "Store",
    "SubjectKeys",
    "Submission",
    "Subscribe",
    "Tally",
    "Unavailable",
    "Unknown",
    "Vault",
    "View",
    "Write",
    "check_log",
    "check_row",
    "commitment_of",
    "control_body",
    "decode_block",
    "decode_frames",
    "encode_frame",
    "field_code",
    "keys_of",
    "load_head",
    "load_size",
    "newest_seal",
    "node_key",
    "open_entry",
    "open_row",
    "parse_json",
    "parse_leaf",
    "parse_opening",
    "parse_row",
    "plan",
    "read_event",
    "read_secret",
    "routing_hash",
    "sync_folder",
    "tag_of",
    "take_lock",
    "type_of",
    "write_whole",
]
