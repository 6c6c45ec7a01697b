"""Reading private rows in bulk, without their keys: are they all there, whole, and each about one entry.

A row's checksum finds bit rot, not tampering: that is what the commitment in the leaf is for (`archive.openings`).
The hash of an event's id stands openly at the head of its row, so ids can be compared without the vault.

>>> from archive.bundles import bundle
>>> found = Findings()
>>> scan_rows([(bytes(8), bundle([b""], 4))], 0, 1, found).empty, list(found)
({0}, [])
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from archive.cutting import BUNDLE_ENTRIES
from archive.entry import parse_row
from archive.errors import FormatError
from archive.findings import Findings, span
from archive.kernel import kernel

EachRows = Callable[[int, list[bytes]], None]
"""Is called with some whole rows that follow one another, and the index of the first."""


@dataclass
class Rows:
    """What a stretch of rows says openly."""

    empty: set[int] = field(default_factory=set)
    """Indices whose row has no bytes, as that of a control entry must have."""
    identifiers: bytearray = field(default_factory=bytearray)
    indices: array[int] = field(default_factory=lambda: array("Q"))
    """Id hashes, 16 bytes each, one after the other, and the entries that carry them."""
    unread: set[int] = field(default_factory=set)
    """Indices about which a finding was made already."""


def scan_rows(
    pairs: Iterable[tuple[bytes, bytes]], start: int, stop: int, found: Findings, each: EachRows | None = None
) -> Rows:
    """Return what (key, bundle) pairs say about the rows start <= index < stop.

    Findings go to `found`: "rows", "row".  `each` is called with all rows that are whole.
    """
    rows, expected = Rows(), start
    for key, value in pairs:
        index = int.from_bytes(key)
        if len(key) != 8 or index < expected or index >= stop:
            found.add("rows", expected, f"rows stand under key {key.hex()}, where none may begin", "order")
            continue
        _missing(rows, expected, index, found)
        expected = _bundle(index, value, rows, found, each)
        if expected > stop or (expected - 1) // BUNDLE_ENTRIES != index // BUNDLE_ENTRIES:
            found.add("rows", index, f"its bundle holds {expected - index} rows, which is too many", "stray")
    _missing(rows, expected, stop, found)
    return rows


def _missing(rows: Rows, start: int, stop: int, found: Findings) -> None:
    if start < stop:
        rows.unread.update(range(start, stop))
        found.add("rows", start, f"{span(start, stop - 1)}: its private row is missing", "missing")


def _bundle(first: int, value: bytes, rows: Rows, found: Findings, each: EachRows | None) -> int:
    """Read one bundle; return the index after its last row.

    What is plain is left to the kernel, all at once; what is not is looked at here.
    """
    at, end, index = 0, len(value), first
    while at < end:
        start = at
        at, count, identifiers, places = kernel.plain_rows(value, start)
        rows.identifiers += b"".join(identifiers)
        rows.indices.extend([index + place for place in places])
        if each is not None and count:
            each(index, kernel.unbundle(value[start:at], 4))
        index += count
        if at < end:
            start, at = at + 4, at + 4 + int.from_bytes(value[at : at + 4])
            if at > end:
                rows.unread.add(index)
                detail = f"private rows end within one, at byte {end} instead of {at}"
                found.add("rows", index, detail, "unreadable")
                return index + 1
            _unusual(index, value[start:at], rows, found)
            index += 1
    return index


def _unusual(index: int, row: bytes, rows: Rows, found: Findings) -> None:
    """Look at a row that is not plain: empty, damaged, or of no known form."""
    if not row:
        rows.empty.add(index)
        return
    rows.unread.add(index)
    if crc32(row[:-4]) != int.from_bytes(row[-4:]):
        found.add("row", index, "private row: checksum differs, its bytes changed on disk")
        return
    try:
        parse_row(row)
    except FormatError as error:
        found.add("row", index, str(error), "unreadable")


def id_table(rows: Rows) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """Return (first 8 bytes of the id hash, index) of all ids, shape (2, n), sorted by the first."""
    prefixes = np.frombuffer(rows.identifiers, dtype=">u8")[::2].astype(np.uint64)
    order = np.argsort(prefixes, kind="stable")
    return np.stack((prefixes[order], np.frombuffer(rows.indices, dtype=np.uint64)[order]))
