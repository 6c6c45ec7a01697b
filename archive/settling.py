"""Settling what is unknown after an archiver died: the log tells which frames it kept.

Each entry that came over a WebSocket names its connection (8 random bytes) and its frame in the header.  A front that
knows at which size it last heard from the dead archiver looks at the entries since: what is there was kept, what is not
there was not, because the new archiver holds the log's lock, and so the old one is gone.

Who asks is `archive.client`; the headers are `archive.entry`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from archive.entry import PROVISIONAL, open_row, parse_opening, parse_row
from archive.errors import NotFound
from archive.log import Log
from archive.vault import Vault
from archive.wire import Receipt, Submission


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
    """
    marks = [mark_of(one) for one in submissions]
    found = _kept(log, vault, size, {mark for mark in marks if mark is not None})
    return [None if mark is None else found.get(mark) for mark in marks]


def _kept(log: Log, vault: Vault, start: int, wanted: set[Mark]) -> dict[Mark, Receipt]:
    kept = {}
    for index, data in log.rows(start, log.size):
        if not data:
            continue
        row = parse_row(data)
        try:
            extra = parse_opening(open_row(row, vault.data_key(row.subjects))).header.extra
        except NotFound:
            continue  # erased meanwhile: nobody waits for it
        mark = Mark(extra.get("conn", b""), extra.get("frame", -1), row.kind)
        if mark in wanted:
            kept[mark] = Receipt(index, log.covering(index)[0])
    return kept
