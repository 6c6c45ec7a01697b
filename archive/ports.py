"""What the archive asks of the world: an ordered store, a clock, randomness.  Nothing else.

A port is named by what it promises, not by what stands behind it.  `archive.lmdb_store` and
`archive.memory_store` keep the same promises and pass the same contract test, so that every crash that a test
invents happens to the code that runs in production.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

KEY_SIZE_MAX = 511


class Write(NamedTuple):
    """One key to set in a table, or to delete where `value` is None."""

    table: str
    key: bytes
    value: bytes | None


class View(Protocol):
    """The store as it stood at one moment; valid until its context ends."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) with start <= key < stop, in key order."""

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """Return the greatest key of a table with its value, or None."""

    def count(self, table: str) -> int:
        """Return how many keys a table has, without reading them."""


class Store(Protocol):
    """Ordered bytes in named tables, with atomic and durable batches."""

    def view(self) -> AbstractContextManager[View]:
        """Return a consistent view.  Keep it short: an open view pins space on disk."""

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all of `writes` durable, or none.

        Raises Unavailable where nothing was written and the caller may try again (no space),
        StorageFailed where it cannot be known (an I/O error in a sync).
        """

    def close(self) -> None:
        """Release the store; closing twice is allowed."""


class Clock(Protocol):
    """The only source of time."""

    def now_us(self) -> int:
        """Return Unix time in microseconds."""


class Random(Protocol):
    """The only source of randomness."""

    def __call__(self, size: int, /) -> bytes:
        """Return `size` fresh random bytes."""
