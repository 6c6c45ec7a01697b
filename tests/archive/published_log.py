"""Large logs in a moment, signed at the sizes where tiles change: control entries, planned and committed in bulk.

    log = SignedLog.of([1, 255, 256, 257])
    with log.open(256) as view: read_tile(view, Tile(0, 0))

The reference beside it recomputes tiles from the leaves by the words of C2SP tlog-tiles and RFC 6962, and shares no
code with `archive` or `merkle`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256

from archive import TABLES, ControlDraft, Head, Log, LogSource, MemoryStore, plan
from merkle import Ed25519Signer, sign_note
from tests.archive.site import ORIGIN

BOUNDARIES = (1, 255, 256, 257, 65_535, 65_536, 65_537, 66_000)
"""Sizes at which a tile is begun, full, or followed by the next, on levels 0, 1 and 2."""


@dataclass
class SignedLog:
    """A log with a checkpoint at each of `sizes`, and at no other size."""

    store: MemoryStore
    sizes: Sequence[int]

    @staticmethod
    def of(sizes: Sequence[int], *, name: str = "n", origin: str = ORIGIN) -> SignedLog:
        """Return a log with one commit up to each size; `name` makes its entries differ from another's."""
        store, head = MemoryStore(TABLES), Head()
        for size in sizes:
            drafts = [ControlDraft({"control": "origin", name: number}) for number in range(head.size, size)]
            planned = plan(head, origin, drafts, 1_700_000_000, b"", _signer(origin))
            store.commit(planned.writes)
            head = planned.head
        return SignedLog(store, sizes)

    @property
    def source(self) -> LogSource:
        """Where readers get the whole log from."""
        return LogSource(self.store, lambda: self.sizes[-1])

    def open(self, size: int) -> AbstractContextManager[Log]:
        """Return the log as it was when `size` was published."""
        return self.source.open(size)

    def leaves(self) -> list[bytes]:
        """Return all leaves."""
        with self.open(self.sizes[-1]) as log:
            return [leaf for _, leaf in log.leaves(0, log.size)]


def _signer(origin: str) -> Callable[[str], bytes]:
    signer = Ed25519Signer(origin, bytes(32))
    return lambda text: sign_note(text, [signer])


def reference_levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return for each tile level all its hashes: level L+1 is made of the full tiles of level L, nothing else."""
    levels = [[sha256(b"\0" + leaf).digest() for leaf in leaves]]
    while len(levels[-1]) >= 256:
        row = levels[-1]
        levels.append([_perfect(row[at : at + 256]) for at in range(0, len(row) - 255, 256)])
    return levels


def _perfect(row: Sequence[bytes]) -> bytes:
    if len(row) == 1:
        return row[0]
    half = len(row) // 2
    return sha256(b"\1" + _perfect(row[:half]) + _perfect(row[half:])).digest()
