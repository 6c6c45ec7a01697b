"""Rows whose bytes change on disk: what stands before and after them stays as it was.

    rot(store, 7)               a bit of what is encrypted
    rot(store, 7, FORM)         the byte that says that it is a row
    rot(store, 7, NUMBER)       the last byte of the first subject's number, or its first one, HUGE
    rot(store, 7, ID)           the first byte of its id hash, if it is about one subject
    rot_length(store, 7)        the length before a row: from there on the bundle cannot be taken apart
    rot_file(folder, 7)         as `rot`, in a database that lies on the disk, and is at rest

What a reader does then: `archive.subject`, `archive.receipt`.
"""

from __future__ import annotations

from archive import DataFolder, Store, Write
from archive.bundles import bundle, unbundle

CLOSED, FORM, NUMBER, HUGE, ID = -20, 0, 11, 4, 12


def rot(store: Store, index: int, place: int = CLOSED, table: str = "rows") -> None:
    """Flip a bit of a private row, or of a leaf."""
    key, parts = bundle_of(store, index, table)
    at = index - int.from_bytes(key)
    part = bytearray(parts[at])
    part[place] ^= 1
    parts[at] = bytes(part)
    store.commit([Write(table, key, bundle(parts, _WIDTHS[table]))])


def rot_file(folder: DataFolder, index: int, place: int = CLOSED) -> None:
    """Flip a bit of a private row where it lies in the file."""
    store = folder.open_log()
    key, rows = bundle_of(store, index)
    store.close()
    row = rows[index - int.from_bytes(key)]
    changed = bytearray(row)
    changed[place] ^= 1
    path = folder.log / "data.mdb"
    content = path.read_bytes()
    assert row in content
    path.write_bytes(content.replace(row, changed))


def rot_length(store: Store, index: int) -> None:
    """Make the length of a row too large for its bundle."""
    key, rows = bundle_of(store, index)
    value = bytearray(bundle(rows, 4))
    value[sum(4 + len(row) for row in rows[: index - int.from_bytes(key)])] ^= 0x80
    store.commit([Write("rows", key, bytes(value))])


def bundle_of(store: Store, index: int, table: str = "rows") -> tuple[bytes, list[bytes]]:
    """Return the key of the bundle that holds an entry, and all that is in it."""
    with store.view() as view:
        key, value = [pair for pair in view.scan(table) if int.from_bytes(pair[0]) <= index][-1]
    return key, list(unbundle(value, _WIDTHS[table]))


_WIDTHS = {"rows": 4, "leaves": 2}
"""Bytes of a length, by table."""
