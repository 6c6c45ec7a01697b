"""States on disk: one shard's states and its position, written in one commit.

States are derived: whatever is wrong with them, deleting this folder and replaying the log gives them back.
What must never happen is an answer that looks right and is not.  So a snapshot says which log (root at its
position), which reducers (name, version, code) and which position it stands for, and is used only if all of
that still holds.  States that were begun anew also carry the size of the log at that moment, and are no answer
before they have seen as much: what is half rebuilt looks like a class that has done half its work.

    meta      "snapshot"                        → layout, position, root, reducers, rebuilt_to
    states    name 00 (length, value)*          → version, key, changed_at, error, error_index, encoding
    backlog   provisional subject, 8 bytes;     → indices, 8 bytes each, in chunks of 1,024: a save rewrites
              number of the chunk, 4 bytes        the last one and adds more, however long the backlog is

Who writes: `replay.runner`.  Who reads: `api.states`, through `StateReader`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from archive import Log, NotFound, Store, View, Write
from reducers import Key, Reducer, ReducerError, Slot

TABLES = ("meta", "states", "backlog")
LAYOUT = 2
"""Of these tables; states of another layout are not recognised, hence rebuilt."""
CHUNK = 1_024
"""Indices of a backlog under one key."""
_SNAPSHOT = b"snapshot"
_KEY_SIZE_MAX = 500


class Marker(msgspec.Struct, frozen=True):
    """What a snapshot stands for."""

    layout: int
    position: int
    root: bytes
    reducers: list[tuple[str, int, str]]
    """(name, version, code digest) of each reducer."""
    rebuilt_to: int = 0
    """Before this position these states are being rebuilt, and are no answer to anybody."""

    @property
    def rebuilding(self) -> bool:
        """Whether these states have not yet seen what the log held when they were begun."""
        return self.position < self.rebuilt_to


class StoredSlot(msgspec.Struct, frozen=True, array_like=True):
    """A state as it is kept."""

    version: int
    key: tuple[str, ...]
    changed_at: int
    error: str | None
    error_index: int | None
    encoding: bytes


class Snapshot(NamedTuple):
    """A shard's states as of a position."""

    position: int
    slots: dict[str, dict[Key, Slot[Any]]]
    backlog: dict[int, list[int]]
    rebuilt_to: int


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


_encode = msgspec.msgpack.Encoder().encode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode
_decode_slot = msgspec.msgpack.Decoder(StoredSlot).decode


class States:
    """The states of one shard in a Store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(
        self,
        position: int,
        root: bytes,
        reducers: Iterable[Reducer[Any]],
        changed: Iterable[tuple[Reducer[Any], Key, Slot[Any]]],
        backlog: Mapping[int, Waiting],
        rebuilt_to: int = 0,
    ) -> None:
        """Write changed slots, changed backlogs and the position, all or nothing."""
        writes = [
            Write("states", state_key(reducer.name, key), _encode(_stored(reducer, key, slot)))
            for reducer, key, slot in changed
        ]
        for subject, waiting in backlog.items():
            for number, packed in waiting.chunks():
                writes.append(Write("backlog", subject.to_bytes(8) + number.to_bytes(4), packed))
        marker = Marker(LAYOUT, position, root, _identities(reducers), rebuilt_to)
        self._store.commit([*writes, Write("meta", _SNAPSHOT, _encode(marker))])

    def load(self, reducers: Sequence[Reducer[Any]], log: Log) -> Snapshot | None:
        """Return the saved states, or None unless they are of this log and of exactly these reducers."""
        by_name = {reducer.name: reducer for reducer in reducers}
        slots: dict[str, dict[Key, Slot[Any]]] = {name: {} for name in by_name}
        with self._store.view() as view:
            marker = read_marker(view.get("meta", _SNAPSHOT))
            if marker is None or marker.reducers != _identities(reducers):
                return None
            if marker.position > log.size or log.root(marker.position) != marker.root:
                return None
            try:
                for data, value in view.scan("states"):
                    name, stored = data.partition(b"\0")[0].decode(), _decode_slot(value)
                    slots[name][stored.key] = _slot(by_name[name], stored)
                backlog = _backlog(view)
            except (ReducerError, msgspec.DecodeError, KeyError, ValueError):
                return None
        # A log that was set back to a copy is rebuilt as soon as all of it is.
        return Snapshot(marker.position, slots, backlog, min(marker.rebuilt_to, log.size))

    def clear(self) -> None:
        """Remove everything, the marker first to go with the rest in one commit."""
        with self._store.view() as view:
            writes = [Write(table, key, None) for table in TABLES for key, _ in view.scan(table)]
        if writes:
            self._store.commit(writes)


class StateReader:
    """One shard's states as others see them; every answer comes with the position it stands on.

    With `reducers`, states that other reducers (or another version, or other code) left behind are none.
    """

    def __init__(self, store: Store, reducers: Iterable[Reducer[Any]] | None = None) -> None:
        self._store = store
        self._reducers = None if reducers is None else _identities(reducers)

    def position(self) -> int:
        """Return how much of the log the states have seen; raise NotFound while they are being rebuilt."""
        with self._store.view() as view:
            return self._position(view)

    def rebuilding(self) -> tuple[int, int] | None:
        """Return (position, size to reach) of states that are being rebuilt; None: they are not, or not yet."""
        with self._store.view() as view:
            marker = self._marker(view)
        return (marker.position, marker.rebuilt_to) if marker is not None and marker.rebuilding else None

    def get(self, name: str, key: Key) -> tuple[int, StoredSlot | None]:
        """Return (position, state or None) of one key; raise NotFound while states are being rebuilt."""
        with self._store.view() as view:
            position = self._position(view)
            value = view.get("states", state_key(name, key))
            return position, None if value is None else _decode_slot(value)

    def everything(self, names: Iterable[str]) -> tuple[int, list[tuple[str, StoredSlot]]]:
        """Return (position, all states of these reducers), of one moment."""
        with self._store.view() as view:
            position = self._position(view)
            found = [
                (name, _decode_slot(value))
                for name in names
                for _, value in _with_prefix(view.scan("states", state_key(name, ())), state_key(name, ()))
            ]
        return position, found

    def scan(
        self, name: str, prefix: Key = (), after: bytes = b"", limit: int | None = None
    ) -> tuple[int, list[tuple[bytes, StoredSlot]]]:
        """Return (position, states) of one reducer whose keys begin with `prefix`, in the order of database
        keys.

        Each comes with its database key; `after` is the last one that was seen, `limit` how many at most.
        """
        # A database key that ends in a hash holds only this much of the prefix; the state knows all of it.
        begin = _key_data(name, prefix)[: _KEY_SIZE_MAX - 32]
        found: list[tuple[bytes, StoredSlot]] = []
        with self._store.view() as view:
            position = self._position(view)
            for data, value in _with_prefix(view.scan("states", max(begin, after)), begin):
                if data > after and (slot := _decode_slot(value)).key[: len(prefix)] == prefix:
                    found.append((data, slot))
                if len(found) == limit:
                    break
        return position, found

    def first(
        self, name: str, count: int, size: int, least: int
    ) -> tuple[list[tuple[bytes, StoredSlot]], bool]:
        """Return a reducer's first states by database key, and whether these are all of them.

        They are at most `count`, and after the first `least` end with the one that fills `size` bytes.
        """
        found: list[tuple[bytes, StoredSlot]] = []
        with self._store.view() as view:
            self._position(view)
            for data, value in _with_prefix(view.scan("states", state_key(name, ())), state_key(name, ())):
                if len(found) == count or (size <= 0 and len(found) >= least):
                    return found, False
                found.append((data, _decode_slot(value)))
                size -= len(value)
        return found, True

    def _position(self, view: View) -> int:
        marker = self._marker(view)
        if marker is None or marker.rebuilding:
            raise NotFound("these states are being rebuilt; ask again shortly")
        return marker.position

    def _marker(self, view: View) -> Marker | None:
        marker = read_marker(view.get("meta", _SNAPSHOT))
        ours = marker is not None and self._reducers in (None, marker.reducers)
        return marker if ours else None


def _backlog(view: View) -> dict[int, list[int]]:
    """Return the backlogs that are stored; raise ValueError if a chunk is missing, torn or too long."""
    found: dict[int, list[int]] = {}
    for key, data in view.scan("backlog"):
        indices = found.setdefault(int.from_bytes(key[:8]), [])
        if len(key) != 12 or len(indices) != int.from_bytes(key[8:]) * CHUNK:
            raise ValueError(f"the backlog has no chunk {key.hex()}")
        indices += array("Q", data)
    return found


def _with_prefix(rows: Iterator[tuple[bytes, bytes]], prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    for data, value in rows:
        if not data.startswith(prefix):
            return
        yield data, value


def state_key(name: str, key: Key) -> bytes:
    r"""Return the database key of a state; one that is too long for the store ends in its hash.

    >>> state_key("event_count", ("ann",))
    b'event_count\x00\x00\x03ann'
    """
    data = _key_data(name, key)
    return data if len(data) <= _KEY_SIZE_MAX else data[: _KEY_SIZE_MAX - 32] + sha256(data).digest()


def _key_data(name: str, key: Key) -> bytes:
    parts = [value.encode() for value in key]
    return name.encode() + b"\0" + b"".join([len(part).to_bytes(2) + part for part in parts])


def read_marker(data: bytes | None) -> Marker | None:
    """Return the marker in `data`, or None if there is none that can be read, or one of another layout."""
    try:
        marker = None if data is None else _decode_marker(data)
    except msgspec.DecodeError:
        return None
    return marker if marker is not None and marker.layout == LAYOUT else None


def _identities(reducers: Iterable[Reducer[Any]]) -> list[tuple[str, int, str]]:
    return sorted((reducer.name, reducer.version, reducer.code_digest) for reducer in reducers)


def _stored(reducer: Reducer[Any], key: Key, slot: Slot[Any]) -> StoredSlot:
    encoding = reducer.encode(slot.state)
    return StoredSlot(reducer.version, key, slot.changed_at, slot.error, slot.error_index, encoding)


def _slot(reducer: Reducer[Any], stored: StoredSlot) -> Slot[Any]:
    return Slot(reducer.decode(stored.encoding), stored.changed_at, stored.error, stored.error_index)
