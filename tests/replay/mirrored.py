"""A shard's own store as a worker leaves it, for tests of who copies and reads it: written by the layout, not a fold.

`Shard` is the model as well: it remembers, for each position of its log, which states there were.
"""

from __future__ import annotations

from hashlib import sha256

from archive import MemoryStore, Store, View, Write
from replay import STATE_TABLES
from replay.layout import (
    AT_SIZE,
    LAYOUT,
    SNAPSHOT,
    Marker,
    StoredSlot,
    decode_stored,
    encode_marker,
    encode_stored,
    name_of,
    quarantine_key,
    read_marker,
    state_key,
)

NAME = "event_count"
Contents = dict[str, bytes]
"""By student: the encoding of the state."""


class Shard:
    """The local store of a shard, its log, and its states at each position at which it was saved."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = store or MemoryStore(STATE_TABLES)
        self.position = self.rebuilt_to = 0
        self.log = "first"
        self.states: dict[str, tuple[bytes, int | None]] = {}
        """By student: encoding, index of the event at which the key stands still."""
        self.history: dict[int, Contents] = {}

    def root(self, size: int) -> bytes:
        """Return the root of the log at a size."""
        return sha256(f"{self.log} {size}".encode()).digest()

    def is_ours(self, size: int, root: bytes) -> bool:
        """Tell whether the log had this root at this size."""
        return size <= self.position and self.root(size) == root

    def save(self, changes: dict[str, bytes | None], stuck: int | None = None) -> None:
        """Append as many entries as there are changes, and save; None: the key has no state any more."""
        self.position += max(1, len(changes))
        for student, encoding in changes.items():
            self.states.pop(student, None)
            if encoding is not None:
                self.states[student] = (encoding, stuck)
                stuck = None
        self._write(set(changes), self.position)

    def erase(self, student: str) -> None:
        """Remove a student's state without a trace, as one more entry says."""
        self.position += 1
        self.states.pop(student, None)
        data = state_key(NAME, (student,))
        with self.store.view() as view:
            old = view.get("states", data)
            writes = [] if old is None else [*_forget(view, data), Write("states", data, None)]
        self.store.commit([*writes, self._marker()])
        self._remember()

    def lose(self) -> None:
        """Lose the store: it is empty, as when a worker begins anew."""
        with self.store.view() as view:
            writes = [Write(table, key, None) for table in STATE_TABLES for key, _ in view.scan(table)]
        self.store.commit(writes)

    def rebuild(self, *, done: bool) -> None:
        """Fold anew what the log holds by now, half of it or all."""
        self.rebuilt_to = self.position
        students = sorted(self.states)
        position = self.position if done else max(0, self.position - 1)
        half = students[: len(students) // 2]
        if half:
            self._write(set(half), max(1, position - 1), remember=False)
        self._write(set(students) if done else set(half), position, remember=done)

    def begin_another_log(self) -> None:
        """Set the log back to nothing, as after a restore of another one."""
        self.lose()
        self.log += "'"
        self.position = self.rebuilt_to = 0
        self.states, self.history = {}, {}

    def _write(self, students: set[str], saved_at: int, *, remember: bool = True) -> None:
        writes: list[Write] = []
        with self.store.view() as view:
            for student in sorted(students):
                data = state_key(NAME, (student,))
                writes += _forget(view, data)
                encoding, index = self.states.get(student, (None, None))
                slot = encoding and StoredSlot(1, (student,), saved_at, None, index, encoding)
                writes.append(Write("states", data, encode_stored(saved_at, slot or None)))
                writes.append(Write("changes", saved_at.to_bytes(AT_SIZE) + data, b""))
                if index is not None:
                    writes.append(Write("quarantined", quarantine_key(NAME, index, data), data))
        self.store.commit([*writes, self._marker(saved_at)])
        if remember:
            self._remember()

    def _marker(self, position: int | None = None) -> Write:
        at = self.position if position is None else position
        marker = Marker(LAYOUT, at, self.root(at), [(NAME, 1, "code")], self.rebuilt_to)
        return Write("meta", SNAPSHOT, encode_marker(marker))

    def _remember(self) -> None:
        self.history[self.position] = {student: encoding for student, (encoding, _) in self.states.items()}


def _forget(view: View, data: bytes) -> list[Write]:
    old = view.get("states", data)
    if old is None:
        return []
    before = decode_stored(old)
    writes = [Write("changes", old[:AT_SIZE] + data, None)]
    if before is not None and before.error_index is not None:
        writes.append(Write("quarantined", quarantine_key(name_of(data), before.error_index, data), None))
    return writes


def position_of(store: Store) -> int | None:
    """Return the position of a store that answers, or None."""
    with store.view() as view:
        marker = read_marker(view.get("meta", SNAPSHOT))
    return None if marker is None or marker.rebuilding else marker.position


def same(one: Store, other: Store) -> bool:
    """Tell whether two stores hold the same states, and list them as changes in keeping with that."""
    with one.view() as mine, other.view() as theirs:
        for view in (mine, theirs):
            listed = {value[:AT_SIZE] + key for key, value in view.scan("states")}
            assert [key for key, _ in view.scan("changes")] == sorted(listed)
        states = [
            [(key, decode_stored(value)) for key, value in view.scan("states")] for view in (mine, theirs)
        ]
        rest = [[list(view.scan(table)) for table in ("meta", "quarantined")] for view in (mine, theirs)]
    return states[0] == states[1] and rest[0] == rest[1]
