"""Reading many entries at once: what a replay does with every row of the log.

    for bundle, (end, asked, indices, places, answers, tally) in log.picked(start, stop, share, known):
        ...                                              what is wanted by kind, routes and share, without any key
    for piece in read_many(indices, bundles, places, vault):
        ...                                              decrypted, authenticated and read, all at once

One entry by itself is `archive.entry.open_row`; what an opened entry means, `archive.event`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from archive.entry import Opened, keys_of, parse_row
from archive.errors import InvalidEvent
from archive.event import HOW, Event, read_event
from archive.kernel import Kernel, kernel
from archive.picking import row_at
from archive.vault import Vault

PLAIN_EXTRA = frozenset({"id", "conn", "frame"})
"""What a header may hold beside its fields and yet mean nothing but its payload."""

PIECE = 128
"""Entries opened and decoded at once.  Measured: 1.8 us an event; with 4,096 at once, 2.7."""

PIECE_BYTES = 4 << 20
"""Bytes of rows that are opened at once, unless one alone has more: read, JSON may take fifty times its room."""

Read = Event | Opened | None


class Piece(NamedTuple):
    """What some rows are, in order."""

    read: list[Read]
    plain: bool
    """Whether all of them are events."""


def read_many(
    indices: list[int], bundles: Sequence[bytes], places: list[int], vault: Vault, special: str = "module:"
) -> Iterator[Piece]:
    """Yield for each row what it is, by the simplest name that says it all, up to PIECE rows at a time:

    - its Event, where sender and header say nothing that changes what the payload means;
    - what was Opened, where they do, or the payload is no JSON: the caller knows the circumstances;
    - None, where one of its subjects is erased.

    A row is given by its bundle and its place there (`archive.picking.row_at`).  Senders whose name begins with
    `special` are of the second kind.  Raises IntegrityError or FormatError for a row that is not sound, when it comes
    to it.  Fold a piece before asking for the next one, and it is still in the processor's cache.
    """
    start = 0
    while start < len(indices):
        part = slice(start, _end(bundles, places, start))
        yield _read(kernel, indices[part], bundles[part], places[part], vault, special)
        start = part.stop


def _end(bundles: Sequence[bytes], places: list[int], start: int) -> int:
    """Return where the piece ends that begins at `start`: at PIECE rows, or before they have too many bytes."""
    stop = min(start + PIECE, len(places))
    different = {id(one): one for one in bundles[start:stop]}.values()
    if sum(map(len, different)) <= PIECE_BYTES:  # as nearly always
        return stop
    room = PIECE_BYTES
    for at in range(start, stop):
        room -= int.from_bytes(bundles[at][places[at] - 4 : places[at]])
        if room < 0:
            return max(at, start + 1)
    return stop


def _read(
    by: Kernel, indices: list[int], bundles: Sequence[bytes], places: list[int], vault: Vault, special: str
) -> Piece:
    """Return events and openings: the usual ones by the kernel, the others one by one."""
    if vault.at_hand is None:
        vault.at_hand = by.Keys(vault.cached)
    keys = vault.at_hand
    if wanted := keys.unknown(bundles, places):
        vault.lay_out(wanted, keys)
    found: list[Read]
    found, left = by.read_events(indices, bundles, places, keys, special.encode(), HOW)
    if not left:  # as nearly always
        return Piece(found, plain=True)
    rows = [parse_row(row_at(bundles[at], places[at])) for at in left]
    there = [
        (at, row, key)
        for at, row, key in zip(left, rows, vault.data_keys([row.subjects for row in rows]), strict=True)
        if key is not None
    ]
    opened = by.open_rows([row for _, row, _ in there], [key for _, _, key in there])
    for (at, _, _), one in zip(there, opened, strict=True):
        found[at] = _meaning(indices[at], one, special)
    return Piece(found, plain=all(isinstance(found[at], Event) for at in left))


def _meaning(index: int, opened: Opened, special: str) -> Event | Opened:
    header = opened.header
    if header.sender.startswith(special) or not header.extra.keys() <= PLAIN_EXTRA:
        return opened
    try:
        received_ms = header.received_us // 1_000
        return read_event(index, header.form, header.source, keys_of(header), received_ms, opened.payload)
    except InvalidEvent:
        return opened
