r"""How states lie in a store: the tables, their keys and their values, made and parsed in this one place.

    meta          "snapshot"                   → Marker (layout, position, root, reducers, rebuilt_to, steered) ‖ check
    states        name 00 (length, value)*     → saved_at (8 bytes) ‖ StoredSlot, or nothing: it is gone ‖ check
    changes       saved_at (8 bytes) ‖ state key → nothing: exactly one for each state, where it was saved last
    quarantined   name 00 index (8 bytes)      → the state key that stands still at this event; a tick may stop
                  hash of the state key (16)       many, so each has a row of its own
    attested      name 00 size (8 bytes)       → digests of a reducer's states at a size (`replay.attesting`)
    backlog       provisional subject, 8 bytes;  → indices, 8 bytes each, in chunks of 1,024: a save rewrites
                  number of the chunk, 4 bytes     the last one and adds more, however long the backlog is

`saved_at` is the position of the save that wrote a state, so `changes` lists, in order, what is new since a position:
for streams, and for mirrors.  `check` is the CRC-32 of the rest (4 bytes): a count that lost a bit on the disk would
look like any other count.

>>> state_key("event_count", ("ann",))
b'event_count\x00\x00\x03ann'

Who writes: `replay.holding`.  Who reads: `replay.reader`.  What becomes of what is damaged: `replay.damage`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from archive import IntegrityError, Log, StorageFailed, Store, View, Write
from reducers import Key, Reducer, Slot, StateError
from replay.reasons import reason_of

TABLES: Final = ("meta", "states", "changes", "quarantined", "attested", "backlog")
MAP_SIZE: Final = 1 << 36
"""Bytes that the states of a module may grow to in a shard: a front maps all of them, so 2,000 files must have room."""
LAYOUT: Final = 5
"""Of these tables; states of another layout are not recognised, hence rebuilt."""
CHUNK: Final = 1_024
"""Indices of a backlog under one key."""
SNAPSHOT: Final = b"snapshot"
KEY_SIZE_MAX: Final = 500
AT_SIZE: Final = 8
CHECK_SIZE: Final = 4

Identity = tuple[str, int, str]
"""(name, version, code digest) of a reducer."""


class Marker(msgspec.Struct, frozen=True):
    """What a snapshot stands for."""

    layout: int
    position: int
    root: bytes
    reducers: list[Identity]
    rebuilt_to: int = 0
    """Before this position these states are being rebuilt, and are no answer to anybody."""
    steered: int = 0
    """Skips and retries of entries 0…steered-1 are in these states; at least the position."""
    refused: int = 0
    """How often what was kept here could not be gone on from, and was begun anew."""
    lacking: dict[str, int] = {}
    """By reducer: how many events before the position lack a field of its scope, of those that this shard counts."""

    @property
    def rebuilding(self) -> bool:
        """Whether these states have not yet seen what the log held when they were begun."""
        return self.position < self.rebuilt_to


class StoredSlot(msgspec.Struct, frozen=True, array_like=True):
    """A state as it is kept."""

    version: int
    key: tuple[str, ...]
    changed_at: int
    """Where the state was last replaced, as far as was noticed (`reducers.Slot`): no part of the state, and compared
    with nothing."""
    error: str | None
    error_index: int | None
    encoding: bytes
    shown: bytes | None = None
    """JSON of what readers are shown, if that is not the state itself: they need not run its module's code."""

    @property
    def size(self) -> int:
        """How many bytes state and what is shown of it take."""
        return len(self.encoding) + (0 if self.shown is None else len(self.shown))


class Waiting(NamedTuple):
    """What became of one backlog since the last save: the first `kept` of `indices` are stored as they are.

    >>> [number for number, packed in Waiting([7] * 1_030, kept=1_024, stored=1_024).chunks()]
    [1]
    >>> list(Waiting([], kept=0, stored=1_025).chunks())
    [(0, None), (1, None)]
    """

    indices: list[int]
    """All that wait now; none once the subject is bound."""
    kept: int
    stored: int
    """How many indices the store holds, those that are to go included."""

    def chunks(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield (number, new content) of each chunk that changes; None: it goes."""
        for start in range(self.kept // CHUNK * CHUNK, len(self.indices), CHUNK):
            yield start // CHUNK, array("Q", self.indices[start : start + CHUNK]).tobytes()
        for number in range(-(-len(self.indices) // CHUNK), -(-self.stored // CHUNK)):
            yield number, None


_encoder = msgspec.msgpack.Encoder()
_decode_marker = msgspec.msgpack.Decoder(Marker).decode
_decode_slot = msgspec.msgpack.Decoder(StoredSlot).decode


def state_key(name: str, key: Key) -> bytes:
    r"""Return the database key of a state; one that is too long for the store ends in its hash."""
    data = key_data(name, key)
    return data if len(data) <= KEY_SIZE_MAX else data[: KEY_SIZE_MAX - 32] + sha256(data).digest()


def key_data(name: str, key: Key) -> bytes:
    """Return a reducer's name and the values of a key (or of its beginning), as long as they are."""
    parts = [value.encode() for value in key]
    return name.encode() + b"\0" + b"".join([len(part).to_bytes(2) + part for part in parts])


def key_in(data_key: bytes) -> Key | None:
    """Return the key that a database key stands for, None where it is too long to tell.

    >>> key_in(state_key("pages", ("d", "ann"))), key_in(state_key("all", ())), key_in(state_key("pages", ("d" * 600,)))
    (('d', 'ann'), (), None)
    """
    if len(data_key) == KEY_SIZE_MAX:
        return None
    parts, at = [], data_key.index(b"\0") + 1
    while at < len(data_key):
        start = at + 2
        at = start + int.from_bytes(data_key[at:start])
        parts.append(data_key[start:at].decode())
    return tuple(parts)


def name_of(data_key: bytes) -> str:
    """Return the name of the reducer that a database key belongs to."""
    return data_key.partition(b"\0")[0].decode()


def quarantine_key(name: str, index: int, data_key: bytes) -> bytes:
    """Return the database key under which it is found that the state at `data_key` stands still at event `index`."""
    return quarantine_prefix(name, index) + sha256(data_key).digest()[:16]


def quarantine_prefix(name: str, index: int) -> bytes:
    """Return how the database keys begin that tell who stands still at event `index`."""
    return name.encode() + b"\0" + index.to_bytes(8)


def quarantined_by(row: bytes) -> tuple[str, int]:
    """Return (reducer, index of the event) of a database key of the table `quarantined`."""
    name, _, rest = row.partition(b"\0")
    return name.decode(), int.from_bytes(rest[:8])


def encode_stored(saved_at: int, stored: StoredSlot | None) -> bytes:
    """Return the value of a state; None says that the key has no state any more."""
    data = saved_at.to_bytes(AT_SIZE)
    if stored is not None:
        data += _encoder.encode(stored)
    return data + crc32(data).to_bytes(CHECK_SIZE)


def decode_stored(value: bytes | None) -> StoredSlot | None:
    """Return the state in a value; raise msgspec.DecodeError if it is none, or not what was saved."""
    if value is None:
        return None
    data = value[:-CHECK_SIZE]
    if len(data) < AT_SIZE or crc32(data) != int.from_bytes(value[-CHECK_SIZE:]):
        raise msgspec.DecodeError("its checksum is another")
    return _decode_slot(data[AT_SIZE:]) if len(data) > AT_SIZE else None


def slot_of(reducer: Reducer[Any], value: bytes | None) -> Slot[Any] | None:
    """Return the slot in a stored value; raise StateError if it is none of this reducer."""
    stored = stored_of(reducer.name, value)
    if stored is None:
        return None
    try:
        state = reducer.decode(stored.encoding)
    except (MemoryError, RecursionError):
        raise  # that says nothing of the state: elsewhere it may be read
    except BaseException as error:  # noqa: BLE001 - a state's class is the author's: making one may raise anything
        raise StateError(reducer.name, f"a stored state cannot be read ({reason_of(error)})") from None
    return Slot(state, stored.changed_at, stored.error, stored.error_index)


def stored_of(name: str, value: bytes | None) -> StoredSlot | None:
    """Return the state in a value of a reducer's; raise StateError if it is none."""
    try:
        return decode_stored(value)
    except msgspec.DecodeError as error:
        raise StateError(name, f"a stored state cannot be read ({error})") from None


def all_stored(view: View, name: str) -> Iterator[StoredSlot]:
    """Yield every state of a reducer, in the order of their database keys; raise StateError at what is none."""
    prefix = state_key(name, ())
    for data, value in view.scan("states", prefix):
        if not data.startswith(prefix):
            return
        if (stored := stored_of(name, value)) is not None:
            yield stored


def state_writes(view: View, position: int, name: str, key: Key, stored: StoredSlot | None) -> list[Write]:
    """Return what a save at `position` writes of one state, None for one that is gone; StateError as `stored_of`."""
    data, writes = state_key(name, key), list[Write]()
    old = view.get("states", data)
    if old is not None:
        writes.append(Write("changes", old[:AT_SIZE] + data, None))
        before = stored_of(name, old)
        if before is not None and before.error_index is not None:
            writes.append(Write("quarantined", quarantine_key(name, before.error_index, data), None))
    if old is None and stored is None:
        return []
    writes.append(Write("states", data, encode_stored(position, stored)))
    writes.append(Write("changes", position.to_bytes(AT_SIZE) + data, b""))
    if stored is not None and stored.error_index is not None:
        writes.append(Write("quarantined", quarantine_key(name, stored.error_index, data), data))
    return writes


def backlog_writes(backlog: Mapping[int, Waiting]) -> list[Write]:
    """Return what a save writes of the backlogs."""
    return [
        Write("backlog", subject.to_bytes(8) + number.to_bytes(4), packed)
        for subject, waiting in backlog.items()
        for number, packed in waiting.chunks()
    ]


@contextmanager
def own(store: Store | None, name: str) -> Iterator[Store]:
    """Yield a module's store; damage to it is raised as StateError of reducer `name`: it is nobody else's business."""
    assert store is not None
    try:
        yield store
    except (IntegrityError, StorageFailed) as error:
        raise StateError(name, f"the store of its states is damaged ({error})") from error


def loaded(view: View, log: Log, identities: list[Identity]) -> tuple[Marker | None, dict[int, list[int]]]:
    """Return the marker and the backlogs of a snapshot of this log and these reducers; (None, {}) if it is none."""
    marker = read_marker(view.get("meta", SNAPSHOT))
    if marker is None or marker.reducers != identities:
        return None, {}
    if marker.position > log.size or log.root(marker.position) != marker.root:
        return None, {}
    try:
        return marker, read_backlog(view)
    except ValueError:
        return None, {}


def refusal(view: View, log: Log, identities: list[Identity]) -> tuple[str, int]:
    """Return why a snapshot cannot be gone on from, "" if there is none, and how often that was so, this one included.

    Call it where `loaded` found none.
    """
    if (data := view.get("meta", SNAPSHOT)) is None:
        return "", 0
    try:
        marker = marker_in(data)
    except msgspec.DecodeError:
        return "their marker cannot be read", 1
    if marker is None:
        return "they are of an older layout", 1
    why = "what waits for an identity cannot be read"
    if marker.reducers != identities:
        why = "other versions, or other code, made them"
    elif marker.position > log.size:
        why = f"they have seen {marker.position} entries, this log has {log.size}: it is another, or an older copy"
    elif log.root(marker.position) != marker.root:
        why = f"they stand on other entries than the first {marker.position} of this log: they are of another log"
    return why, marker.refused + 1


def encode_marker(marker: Marker) -> bytes:
    """Return the value of a marker."""
    data = _encoder.encode(marker)
    return data + crc32(data).to_bytes(CHECK_SIZE)


def read_marker(data: bytes | None) -> Marker | None:
    """Return the marker in `data`, or None if there is none that can be read, or one of another layout."""
    try:
        return marker_in(data)
    except msgspec.DecodeError:
        return None


def marker_in(data: bytes | None) -> Marker | None:
    """Return the marker in `data`, None if there is none or one of another layout; DecodeError if it is damaged."""
    if data is None:
        return None
    whole = data[-CHECK_SIZE:] == crc32(data[:-CHECK_SIZE]).to_bytes(CHECK_SIZE)
    if not whole and _is_older(data):
        return None
    if not whole:
        raise msgspec.DecodeError("the checksum of the marker is another")
    marker = _decode_marker(data[:-CHECK_SIZE])
    return marker if marker.layout == LAYOUT else None


def _is_older(data: bytes) -> bool:
    """Return whether a marker is of the layouts before 4, which had no checksum."""
    try:
        found = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(found, dict) and found.get("layout", 0) in range(4)


def read_backlog(view: View) -> dict[int, list[int]]:
    """Return the backlogs that are stored; raise ValueError if a chunk is missing, torn or too long."""
    found: dict[int, list[int]] = {}
    for key, data in view.scan("backlog"):
        indices = found.setdefault(int.from_bytes(key[:8]), [])
        if len(key) != 12 or len(indices) != int.from_bytes(key[8:]) * CHUNK:
            raise ValueError(f"the backlog has no chunk {key.hex()}")
        indices += array("Q", data)
    return found


def identities_of(reducers: Iterable[Reducer[Any]]) -> list[Identity]:
    """Return by what a snapshot knows its reducers again, in the order of their names."""
    return sorted((reducer.name, reducer.version, reducer.code_digest) for reducer in reducers)
