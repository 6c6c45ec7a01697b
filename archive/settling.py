"""Settling what is unknown after an archiver died: the log tells which frames it kept.

Each entry that came over a WebSocket names its connection (8 random bytes) and its frame in the header.  A front that
knows at which size it last heard from the dead archiver looks at the entries since: what is there was kept, what is not
there was not, because the new archiver holds the log's lock, and so the old one is gone.

Who asks is `archive.client`; the headers are `archive.entry`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from archive.entry import PROVISIONAL
from archive.kernel import kernel
from archive.log import Log
from archive.vault import Vault
from archive.wire import Receipt, Submission

PIECE: Final = 1_024
"""Entries that are opened at once."""


class Mark(NamedTuple):
    """What tells an entry of a connection from all others: a frame may be followed by a binding entry."""

    connection: bytes
    frame: int
    kind: int


def mark_of(one: Submission) -> Mark | None:
    """Return the mark of a submission, or None if it came over no connection."""
    connection, frame = one.extra.get("conn"), one.extra.get("frame")
    if isinstance(connection, bytes) and isinstance(frame, int):
        return Mark(connection, frame, one.kind & ~PROVISIONAL)
    return None


def settle(log: Log, vault: Vault, size: int, submissions: Sequence[Submission]) -> list[Receipt | None]:
    """Return for each submission its receipt if an entry from index `size` on is it, else None.

    Costs one decryption for each entry since `size`: what one archiver kept between its last answer and its death.
    Raises IntegrityError or FormatError for a row that is not sound.
    """
    marks = [mark_of(one) for one in submissions]
    found = _kept(log, vault, size, {mark for mark in marks if mark is not None})
    return [None if mark is None else found.get(mark) for mark in marks]


def _kept(log: Log, vault: Vault, start: int, wanted: set[Mark]) -> dict[Mark, Receipt]:
    """Return the receipts of those that are in the log; while this looks, a whole classroom waits: so many at once."""
    kept, size = {}, 0
    for at in range(start, log.size, PIECE):
        for index, mark in _marks(vault, list(log.rows(at, at + PIECE))):
            if mark in wanted:
                if index >= size:  # in the next block
                    size = log.covering(index)[0]
                kept[mark] = Receipt(index, size)
    return kept


def _marks(vault: Vault, entries: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, Mark]]:
    """Yield (index, mark) of the private entries among these; not of erased ones, nobody waits for them."""
    private = [(index, data) for index, data in entries if data]
    rows = [row for row in kernel.parse_rows([data for _, data in private]) if row is not None]
    keys = vault.data_keys([row.subjects for row in rows])
    there = [
        (index, row, key) for (index, _), row, key in zip(private, rows, keys, strict=True) if key is not None
    ]
    opened = kernel.open_rows([row for _, row, _ in there], [key for _, _, key in there])
    for (index, row, _), one in zip(there, opened, strict=True):
        extra = one.header.extra
        yield index, Mark(extra.get("conn", b""), extra.get("frame", -1), row.kind)
