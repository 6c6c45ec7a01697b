"""States as others see them; every answer comes with the position it stands on.

A reader runs no module's code: what is shown to people was made by the worker that keeps the states.  While states are
being rebuilt there is no answer at all (`NotFound`), because half a class looks like a class that did half its work;
nor is there one from states that are damaged (`replay.damage.Damaged`).

    reader = StateReader(store, identities)
    position, slot = reader.get("event_count", ("ann",))

What the tables hold: `replay.layout`.  Who answers queries with this: `api.states`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from msgspec import DecodeError

from archive import NotFound, Store, View
from reducers import Key
from replay.damage import Damaged, reading, stored_at
from replay.layout import (
    AT_SIZE,
    KEY_SIZE_MAX,
    SNAPSHOT,
    Identity,
    Marker,
    StoredSlot,
    key_data,
    marker_in,
    name_of,
    quarantined_by,
    state_key,
)

Rows = list[tuple[bytes, StoredSlot]]
MANY: Final = 1 << 62
"""No bound."""


class Changes(NamedTuple):
    """What changed of a reducer's states."""

    position: int
    rows: list[tuple[bytes, StoredSlot | None]]
    """(database key, state), None where the key has no state any more."""
    begun: int
    """How large the log was when these states were begun: others are others', whatever their position."""
    next: bytes
    """Where to go on."""
    more: bool
    """Whether there is more already."""


class StateReader:
    """One shard's states of one module.

    With `identities`, states that other reducers (or another version, or other code) left behind are none.  Each
    question raises Damaged, naming `module`, where what it reads is damaged; `damaged` is told before.
    """

    def __init__(
        self,
        store: Store,
        identities: Iterable[Identity] | None = None,
        module: str = "",
        damaged: Callable[[Damaged], None] = lambda _: None,
    ) -> None:
        self._store, self._module, self._damaged = store, module, damaged
        self._identities = None if identities is None else sorted(identities)

    @property
    def store(self) -> Store:
        """Where the states lie."""
        return self._store

    def position(self) -> int:
        """Return how much of the log the states have seen; raise NotFound while they are being rebuilt."""
        with self._look() as view:
            return self._position(view)

    def rebuilding(self) -> tuple[int, int] | None:
        """Return (position, size to reach) of states that are being rebuilt; None: they are not, or not yet."""
        with self._look() as view:
            marker = self._marker(view)
        return (marker.position, marker.rebuilt_to) if marker is not None and marker.rebuilding else None

    def get(self, name: str, key: Key) -> tuple[int, StoredSlot | None]:
        """Return (position, state or None) of one key; raise NotFound while states are being rebuilt."""
        data = state_key(name, key)
        with self._look() as view:
            position = self._position(view)
            return position, stored_at(data, view.get("states", data))

    def everything(self, names: Iterable[str]) -> tuple[int, list[tuple[str, StoredSlot]]]:
        """Return (position, all states of these reducers), of one moment."""
        with self._look() as view:
            position = self._position(view)
            found = [(name, slot) for name in names for _, slot in _slots(view, name)]
        return position, found

    def scan(
        self, name: str, prefix: Key = (), after: bytes = b"", limit: int = MANY, size: int = MANY
    ) -> tuple[int, Rows]:
        """Return (position, states) of one reducer whose keys begin with `prefix`, in the order of database
        keys.

        Each comes with its database key; `after` is the last one that was seen.  They are at most `limit`, and end
        with the one that fills `size` bytes.
        """
        begin, found = self.begin(name, prefix), Rows()
        with self._look() as view:
            position = self._position(view)
            for data, value in _with_prefix(view.scan("states", max(begin, after)), begin):
                slot = stored_at(data, value)
                if slot is not None and data > after and slot.key[: len(prefix)] == prefix:
                    found.append((data, slot))
                    if len(found) == limit or (size := size - slot.size) <= 0:
                        break
        return position, found

    @staticmethod
    def begin(name: str, prefix: Key) -> bytes:
        """Return how all database keys begin of a reducer's states whose keys begin with `prefix`; others may, too.

        A database key that ends in a hash holds only this much of a prefix; the state knows all of it.
        """
        return key_data(name, prefix)[: KEY_SIZE_MAX - 32]

    def first(self, name: str, count: int, size: int) -> tuple[Rows, bool]:
        """Return a reducer's first states by database key, and whether these are all of them.

        They are at most `count`, and end with the one that fills `size` bytes.
        """
        found: Rows = []
        with self._look() as view:
            self._position(view)
            for data, slot in _slots(view, name):
                if len(found) == count or size <= 0:
                    return found, False
                found.append((data, slot))
                size -= slot.size
        return found, True

    def following(self, name: str, start: bytes, limit: int, size: int = MANY) -> Changes:
        """Return what changed of one reducer, in the order of saves, looking at `limit` rows at most.

        The states end with the one that fills `size` bytes.
        `start` is empty for all states that there are, `after(position)` for what was saved since, or the `next` of
        the call before.
        """
        found: list[tuple[bytes, StoredSlot | None]] = []
        with self._look() as view:
            position, begun, seen = self._position(view), self._begun(view), 0
            for data, _ in view.scan("changes", start):
                if seen == limit or size <= 0:
                    return Changes(position, found, begun, start, more=True)
                seen, start, key = seen + 1, data + b"\0", data[AT_SIZE:]
                if name_of(key) == name:
                    found.append((key, slot := _changed(view, key)))
                    size -= 0 if slot is None else slot.size
        return Changes(position, found, begun, start, more=False)

    def refused(self) -> int:
        """Return how often what was kept here was of no use to its worker (of another log, say), and begun anew."""
        with self._look() as view:
            marker = self._marker(view)
        return 0 if marker is None else marker.refused

    def lacking(self) -> dict[str, int]:
        """Return, by reducer, how many of the events that this shard counts lack a field of its scope."""
        with self._look() as view:
            marker = self._marker(view)
        return {} if marker is None else marker.lacking

    def quarantined(self, limit: int) -> list[tuple[str, int]]:
        """Return (reducer, index) of the keys that stand still, `limit` at most; none while states are rebuilt."""
        found: list[tuple[str, int]] = []
        with self._look() as view:
            if self._marker(view) is None:
                return found
            for data, _ in view.scan("quarantined"):
                found.append(quarantined_by(data))
                if len(found) == limit:
                    break
        return found

    @contextmanager
    def _look(self) -> Iterator[View]:
        try:
            with reading(self._module), self._store.view() as view:
                yield view
        except Damaged as error:
            self._damaged(error)
            raise

    def _position(self, view: View) -> int:
        marker = self._marker(view)
        if marker is None or marker.rebuilding:
            raise NotFound("these states are being rebuilt; ask again shortly")
        return marker.position

    def _begun(self, view: View) -> int:
        marker = self._marker(view)
        return 0 if marker is None else marker.rebuilt_to

    def _marker(self, view: View) -> Marker | None:
        marker = marker_in(view.get("meta", SNAPSHOT))
        ours = marker is not None and (self._identities is None or self._identities == marker.reducers)
        return marker if ours else None


def after(position: int) -> bytes:
    """Return where `StateReader.following` begins for what was saved after a position."""
    return (position + 1).to_bytes(AT_SIZE)


def _slots(view: View, name: str) -> Iterator[tuple[bytes, StoredSlot]]:
    for data, value in _with_prefix(view.scan("states", state_key(name, ())), state_key(name, ())):
        if (slot := stored_at(data, value)) is not None:
            yield data, slot


def _changed(view: View, data: bytes) -> StoredSlot | None:
    """Return a state that is listed as changed; raise DecodeError where there is none, as one that went says so."""
    if (value := view.get("states", data)) is None:
        raise DecodeError("a change is listed of a state that is not there")
    return stored_at(data, value)


def _with_prefix(rows: Iterator[tuple[bytes, bytes]], prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    for data, value in rows:
        if not data.startswith(prefix):
            return
        yield data, value
