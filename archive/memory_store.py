"""A store in dictionaries: the double that tests, examples and the simulator run on.

It is never kinder than the real one: keys are limited alike, a view does not see later commits, a refused
batch leaves nothing.

>>> store = MemoryStore(("t",))
>>> store.commit([Write("t", b"a", b"1"), Write("t", b"b", b"2")])
>>> with store.view() as view:
...     list(view.scan("t", b"b")), view.last("t")
([(b'b', b'2')], (b'b', b'2'))
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from archive.ports import KEY_SIZE_MAX, View, Write


class _MemoryView:
    def __init__(self, tables: dict[str, dict[bytes, bytes]]) -> None:
        self._tables = tables
        self._keys: dict[str, list[bytes]] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        values, keys = self._tables[table], self._sorted(table)
        for at in range(bisect_left(keys, start), len(keys)):
            if stop is not None and keys[at] >= stop:
                return
            yield keys[at], values[keys[at]]

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        keys = self._sorted(table)
        return (keys[-1], self._tables[table][keys[-1]]) if keys else None

    def count(self, table: str) -> int:
        return len(self._tables[table])

    def _sorted(self, table: str) -> list[bytes]:
        if table not in self._keys:
            self._keys[table] = sorted(self._tables[table])
        return self._keys[table]


class MemoryStore:
    """A Store in memory; durable as long as the object lives."""

    def __init__(self, tables: Sequence[str]) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {table: {} for table in tables}
        self._view: _MemoryView | None = None

    @contextmanager
    def view(self) -> Iterator[View]:
        """Return a consistent view of the store."""
        if self._view is None:
            self._view = _MemoryView(self._tables)
        yield self._view

    def commit(self, writes: Sequence[Write]) -> None:
        """Apply all of `writes`, or none where one is malformed (ValueError)."""
        for write in writes:
            if not 0 < len(write.key) <= KEY_SIZE_MAX or write.table not in self._tables:
                raise ValueError(f"key of {len(write.key)} bytes in table {write.table!r}")
        touched = {write.table for write in writes}
        # Views share the dictionaries of the moment they were taken; a commit replaces, never mutates.
        tables = {name: dict(rows) if name in touched else rows for name, rows in self._tables.items()}
        for write in writes:
            if write.value is None:
                tables[write.table].pop(write.key, None)
            else:
                tables[write.table][write.key] = write.value
        self._tables, self._view = tables, None

    def close(self) -> None:
        """Do nothing: what is in memory ends with the process."""
