"""Reading many entries at once: what a replay does with every row of the log.

    for bundle, (end, asked, indices, places, subjects, answers) in log.picked(start, stop, share, known):
        ...                                              what is wanted by kind, routes and share, without any key
    for piece in read_many(indices, bundles, places, subjects, vault):
        ...                                              decrypted, authenticated and read, all at once

One entry by itself is `archive.entry.open_row`; what an opened entry means, `archive.event`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archive.datakey import DataKey
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

Read = Event | Opened | None


def read_many(
    indices: list[int],
    bundles: Sequence[bytes],
    places: list[int],
    subjects: Sequence[tuple[int, ...]],
    vault: Vault,
    special: str = "module:",
) -> Iterator[list[Read]]:
    """Yield for each row what it is, by the simplest name that says it all, in lists of PIECE (the last is shorter):

    - its Event, where sender and header say nothing that changes what the payload means;
    - what was Opened, where they do, or the payload is no JSON: the caller knows the circumstances;
    - None, where one of its subjects is erased.

    A row is given by its bundle and its place there (`archive.picking.row_at`).  Senders whose name begins with
    `special` are of the second kind.  Raises IntegrityError or FormatError for a row that is not sound, when it comes
    to it.  Fold a piece before asking for the next one, and it is still in the processor's cache.
    """
    for start in range(0, len(indices), PIECE):
        part = slice(start, start + PIECE)
        columns = indices[part], bundles[part], places[part]
        keys = vault.data_keys(subjects[part])
        some = [key for key in keys if key is not None]
        if len(some) == len(keys):  # as nearly always
            yield _read(kernel, *columns, some, special)
            continue
        kept = [at for at, key in enumerate(keys) if key is not None]
        found: list[Read] = [None] * len(keys)
        numbers, wholes, starts = columns
        numbers, starts = [numbers[at] for at in kept], [starts[at] for at in kept]
        read = _read(kernel, numbers, [wholes[at] for at in kept], starts, some, special)
        for at, one in zip(kept, read, strict=True):
            found[at] = one
        yield found


def _read(
    by: Kernel,
    indices: list[int],
    bundles: Sequence[bytes],
    places: list[int],
    keys: Sequence[DataKey],
    special: str,
) -> list[Read]:
    """Return events and openings: the usual ones by the kernel, the others one by one."""
    found: list[Read] = by.read_events(indices, bundles, places, keys, special.encode(), HOW)
    unusual = [at for at, one in enumerate(found) if one is None]
    if not unusual:
        return found
    opened = by.open_rows(
        [parse_row(row_at(bundles[at], places[at])) for at in unusual], [keys[at] for at in unusual]
    )
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
