"""Reading many entries at once: what a replay does with every row of the log.

    for first, rows in rows_of(log, start, stop):        taken apart, bundle by bundle
        choose those that are wanted by kind, routes and subjects, without any key
    read_many(indices, wanted, vault)                    decrypted, authenticated and read, all at once

One entry by itself is `archive.entry.open_row`; what an opened entry means, `archive.event`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archive.datakey import DataKey
from archive.entry import Opened, Row, keys_of
from archive.errors import InvalidEvent, NotFound
from archive.event import HOW, Event, read_event
from archive.kernel import Kernel, kernel
from archive.log import Log
from archive.vault import Vault

PLAIN_EXTRA = frozenset({"id", "conn", "frame"})
"""What a header may hold beside its fields and yet mean nothing but its payload."""

PIECE = 128
"""Entries opened and decoded at once.  Measured: 1.8 us an event; with 4,096 at once, 2.7."""

Read = Event | Opened | None


def rows_of(log: Log, start: int, stop: int) -> Iterator[tuple[int, list[Row | None]]]:
    """Yield (first index, private rows from there on) for start <= index < stop; None stands for a control entry.

    A list is a bundle of the database or a part of one, so at most 256 rows and about 1 MiB, or one row that is
    larger.  Raises FormatError or IntegrityError as `Log.rows` does.
    """
    for first, datas in log.row_lists(start, stop):
        yield first, kernel.parse_rows(datas)


def read_many(
    indices: Sequence[int], rows: Sequence[Row], vault: Vault, special: str = "module:"
) -> Iterator[Read]:
    """Yield for each row what it is, by the simplest name that says it all:

    - its Event, where sender and header say nothing that changes what the payload means;
    - what was Opened, where they do, or the payload is no JSON: the caller knows the circumstances;
    - None, where one of its subjects is erased.

    Senders whose name begins with `special` are of the second kind.  Raises IntegrityError or FormatError for a
    row that is not sound, when it comes to it.  A piece is read at a time: fold what comes before asking for more,
    and it is still in the processor's cache.
    """
    for start in range(0, len(rows), PIECE):
        piece = rows[start : start + PIECE]
        keys = [_key_of(row, vault) for row in piece]
        kept = [at for at, key in enumerate(keys) if key is not None]
        some = [key for key in keys if key is not None]
        found: list[Read] = [None] * len(piece)
        read = _read(kernel, [indices[start + at] for at in kept], [piece[at] for at in kept], some, special)
        for at, one in zip(kept, read, strict=True):
            found[at] = one
        yield from found


def _read(
    by: Kernel, indices: list[int], rows: Sequence[Row], keys: Sequence[DataKey], special: str
) -> list[Read]:
    """Return events and openings: the usual ones by the kernel, the others one by one."""
    found: list[Read] = by.read_events(indices, rows, keys, special.encode(), HOW)
    unusual = [at for at, one in enumerate(found) if one is None]
    opened = by.open_rows([rows[at] for at in unusual], [keys[at] for at in unusual])
    for at, one in zip(unusual, opened, strict=True):
        found[at] = _meaning(indices[at], one, special)
    return found


def _meaning(index: int, opened: Opened, special: str) -> Event | Opened:
    header = opened.header
    if header.sender.startswith(special) or not header.extra.keys() <= PLAIN_EXTRA:
        return opened
    try:
        received_ms = header.received_us // 1_000
        return read_event(index, header.form, header.source, keys_of(header), received_ms, opened.payload)
    except InvalidEvent:
        return opened


def _key_of(row: Row, vault: Vault) -> DataKey | None:
    try:
        return vault.data_key(row.subjects)
    except NotFound:
        return None
