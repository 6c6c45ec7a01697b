"""The one source of truth: what was appended, in order, for ever.

Events come in as submissions, become entries (a public leaf and a private row), and are committed in blocks by the
one archiver of a log.  Readers see the log up to its published size and nothing beyond.

    Submission → Archiver.step → Receipt          Log(view, published) → rows → open_entry → Event

Read `entry` and `block` for the formats, `plan` and `archiver` for the commit, `log` for reading, `vault` for who is
behind a subject number.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from archive.attested import Attestations
from archive.belonging import check_begun, check_log_there, check_vault_there, mark_begun
from archive.block import NO_BLOCK, Block, decode_block
from archive.client import ArchiverClient
from archive.clock import ManualClock, SteadyClock, both_us
from archive.direct import DirectClient
from archive.entry import (
    LEAF_CONTROL,
    LEAF_PRIVATE,
    ROW_BINDING,
    ROW_EVENT,
    ROW_FRAME,
    ROW_REFUSED,
    Draft,
    Header,
    Leaf,
    Opened,
    Row,
    check_row,
    commitment_of,
    control_body,
    encode_control,
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
    Unknown,
)
from archive.event import VALUES_MAX, Event, parse_json, read_event, type_of
from archive.files import NO_SPACE, identity_of, make_folder, naming, sync_folder, write_whole
from archive.filing import PROMISED, header_version, header_version_at
from archive.findings import CHECKS, KINDS, Finding, Findings, Tally, checks_of
from archive.folder import DataFolder
from archive.kernel import kernel_files
from archive.keyfile import PrivateKey, encode_key, parse_key, read_key, read_secret, write_new_key
from archive.keyring import (
    KeyRing,
    next_key_id,
    read_rotation,
    ring_of,
    rotation_body,
    rotation_statement,
    rotations_of,
)
from archive.lmdb_store import LmdbStore
from archive.log import Log, LogSource, PublishedLog, load_head, load_size, size_of
from archive.memory_store import MemoryStore
from archive.picking import Share, outline, row_at, subjects_at
from archive.plan import APPEND_TABLES, TABLES, ControlDraft, Head, Planned, node_key, plan
from archive.ports import Clock, Random, Store, View, Write
from archive.prepared import Prepared
from archive.published import MemoryPublished, PublishedSize
from archive.reading import PIECE_BYTES, Read, read_many
from archive.receipt import Opening, Prover, check_opening, check_receipt, open_entry_of
from archive.rotation import current_signer, find_signer, rotate, take_up
from archive.seal import MemorySeal, Seal, SealFile, all_seals, encode_seal, newest_seal, take_lock
from archive.settling import settle
from archive.static import Disk, Exported, FolderDisk, export_tiles, exported_size, files_between
from archive.steering import (
    Activate,
    ActiveReducer,
    Attest,
    Retry,
    Skip,
    Steering,
    parse_steering,
    steering_body,
)
from archive.stopped import (
    REMEDIES,
    Stopped,
    check_disk,
    disk_of,
    forget_stopped,
    is_distrusted,
    read_stopped,
    remedy_of,
    write_stopped,
)
from archive.structure import check_structure, missing_bytes
from archive.subject import Claim, SubjectEntries, check_complete, entries_of_subject
from archive.tiles import TileNodes, read_bundle, read_tile
from archive.vault import SubjectKeys, Vault
from archive.wire import (
    FRONT,
    Answer,
    Append,
    Appended,
    Published,
    Receipt,
    Refusal,
    Steer,
    Submission,
    Subscribe,
    decode_frames,
    encode_frame,
)
from archive.witnessing import Target, read_cosigned, shown_outside, write_cosigned

if TYPE_CHECKING:
    from archive.archiver import Archiver
    from archive.caches import Caches
    from archive.fsck import Check, Given, check_log
    from archive.leafscan import Leaves, scan_leaves
    from archive.remembered import Remembered
    from archive.resume import Resume
    from archive.stretch import STRETCH, Job, Keys, OneKey, check_stretch, joined_root
    from archive.stretch import Answer as StretchAnswer

__all__ = [
    "APPEND_TABLES",
    "CHECKS",
    "FRONT",
    "KINDS",
    "LEAF_CONTROL",
    "LEAF_PRIVATE",
    "NO_BLOCK",
    "NO_SPACE",
    "PIECE_BYTES",
    "PROMISED",
    "REMEDIES",
    "ROW_BINDING",
    "ROW_EVENT",
    "ROW_FRAME",
    "ROW_REFUSED",
    "STRETCH",
    "TABLES",
    "VALUES_MAX",
    "Activate",
    "ActiveReducer",
    "Answer",
    "Append",
    "Appended",
    "ArchiveError",
    "Archiver",
    "ArchiverClient",
    "Attest",
    "Attestations",
    "Block",
    "Caches",
    "Check",
    "Claim",
    "Clock",
    "Conflict",
    "ControlDraft",
    "DataFolder",
    "DirectClient",
    "Disk",
    "Draft",
    "Event",
    "Exported",
    "Finding",
    "Findings",
    "FolderDisk",
    "FormatError",
    "Given",
    "Head",
    "Header",
    "IntegrityError",
    "InvalidEvent",
    "Job",
    "KeyRing",
    "Keys",
    "Leaf",
    "Leaves",
    "LmdbStore",
    "Locked",
    "Log",
    "LogSource",
    "ManualClock",
    "MemoryPublished",
    "MemorySeal",
    "MemoryStore",
    "NotFound",
    "OneKey",
    "Opened",
    "Opening",
    "Planned",
    "Prepared",
    "PrivateKey",
    "Prover",
    "Published",
    "PublishedLog",
    "PublishedSize",
    "Random",
    "Read",
    "Receipt",
    "Refusal",
    "Remembered",
    "Resume",
    "Retry",
    "Row",
    "Seal",
    "SealFile",
    "Share",
    "Skip",
    "SteadyClock",
    "Steer",
    "Steering",
    "Stopped",
    "StorageFailed",
    "Store",
    "StretchAnswer",
    "SubjectEntries",
    "SubjectKeys",
    "Submission",
    "Subscribe",
    "Tally",
    "Target",
    "TileNodes",
    "Unavailable",
    "Unknown",
    "Vault",
    "View",
    "Write",
    "all_seals",
    "both_us",
    "check_begun",
    "check_complete",
    "check_disk",
    "check_log",
    "check_log_there",
    "check_opening",
    "check_receipt",
    "check_row",
    "check_stretch",
    "check_structure",
    "check_vault_there",
    "checks_of",
    "commitment_of",
    "control_body",
    "current_signer",
    "decode_block",
    "decode_frames",
    "disk_of",
    "encode_control",
    "encode_frame",
    "encode_key",
    "encode_seal",
    "entries_of_subject",
    "export_tiles",
    "exported_size",
    "field_code",
    "files_between",
    "find_signer",
    "forget_stopped",
    "header_version",
    "header_version_at",
    "identity_of",
    "is_distrusted",
    "joined_root",
    "kernel_files",
    "keys_of",
    "load_head",
    "load_size",
    "make_folder",
    "mark_begun",
    "missing_bytes",
    "naming",
    "newest_seal",
    "next_key_id",
    "node_key",
    "open_entry",
    "open_entry_of",
    "open_row",
    "outline",
    "parse_json",
    "parse_key",
    "parse_leaf",
    "parse_opening",
    "parse_row",
    "parse_steering",
    "plan",
    "read_bundle",
    "read_cosigned",
    "read_event",
    "read_key",
    "read_many",
    "read_rotation",
    "read_secret",
    "read_stopped",
    "read_tile",
    "remedy_of",
    "ring_of",
    "rotate",
    "rotation_body",
    "rotation_statement",
    "rotations_of",
    "routing_hash",
    "row_at",
    "scan_leaves",
    "settle",
    "shown_outside",
    "size_of",
    "steering_body",
    "subjects_at",
    "sync_folder",
    "tag_of",
    "take_lock",
    "take_up",
    "type_of",
    "write_cosigned",
    "write_new_key",
    "write_stopped",
    "write_whole",
]

_AT_NEED = {
    "Archiver": "archiver.Archiver",
    "Caches": "caches.Caches",
    "Check": "fsck.Check",
    "Given": "fsck.Given",
    "check_log": "fsck.check_log",
    "Leaves": "leafscan.Leaves",
    "scan_leaves": "leafscan.scan_leaves",
    "Remembered": "remembered.Remembered",
    "Resume": "resume.Resume",
    "STRETCH": "stretch.STRETCH",
    "Job": "stretch.Job",
    "Keys": "stretch.Keys",
    "OneKey": "stretch.OneKey",
    "StretchAnswer": "stretch.Answer",
    "check_stretch": "stretch.check_stretch",
    "joined_root": "stretch.joined_root",
}
"""What only who writes or checks a log needs.  It brings numpy, a third of the time and a quarter of the memory that a
process starts with; fronts, workers and most commands do neither (PEP 562)."""


if not TYPE_CHECKING:  # so that a wrong name is still found without running anything

    def __getattr__(name: str) -> object:
        if name not in _AT_NEED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _AT_NEED[name].split(".")
        found: object = getattr(import_module(f"{__name__}.{module}"), attribute)
        globals()[name] = found
        return found
