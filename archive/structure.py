"""The database file as pages: is each where it must be, and is none lost or used twice.

What the log says is checked by reading it (`archive.fsck`).  Beside that the file has a life of its own: B-tree pages,
lists of free pages, two meta pages.  Damage there can wait unseen for years, until a write takes a page that is still
in use.  py-lmdb has an auditor for this that reads the file as plain bytes, without LMDB, which a file that was made to
deceive could crash.  The file must be at rest while it is read.

A file that was cut short is a case of its own: LMDB maps it into memory, and touching what is missing kills the
process.  So `missing_bytes` is asked before anything opens the file (`archive.lmdb_store`).  It costs two small reads;
the list of free pages is read only where the file ends before its last page.  That alone is no damage: pages that one
transaction took at the end and gave up again were never written.

    lacking = missing_bytes(Path("data/log/0"))       0, or bytes that are in use and not there
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lmdb.verify

from archive.findings import Finding

_ORDER = "<" if sys.byteorder == "little" else ">"
_MAGIC = 0xBEEFC0DE
_META = struct.Struct(_ORDER + "16x II QQ I 36x Q 48x QQ")
"""Page header, magic, version, address, map size, the table of free pages (its first field is the page size, its last
its root), the main table, last page, transaction: `MDB_meta` of LMDB 0.9, in the machine's byte order."""
_PAGE = struct.Struct(_ORDER + "8x 2x HHH")
"""Page header: flags, where free space begins and ends.  After it, the places of the nodes, two bytes each."""
_NODE = struct.Struct(_ORDER + "HHHH")
_NUMBER = struct.Struct(_ORDER + "Q")
_BRANCH, _BIG_DATA, _NO_PAGE = 1, 1, (1 << 64) - 1
_PAGE_SIZES = (4_096, 8_192, 16_384, 32_768, 65_536)
_TRIES = 16
"""How often a file that somebody writes meanwhile is looked at again."""


def check_structure(folder: Path) -> list[Finding]:
    """Return what is wrong with the pages of a database at rest, at most a thousand findings."""
    try:
        problems = lmdb.verify.verify(os.fspath(folder), subdir=True)  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError) as error:
        problems = [str(error)]
    return [Finding("structure", None, str(problem)) for problem in problems[:1_000]]


def missing_bytes(folder: Path) -> int:
    """Return how many bytes a database file lacks up to the last page in use; 0 where its meta pages say nothing.

    The file may be written meanwhile.
    """
    with (folder / "data.mdb").open("rb") as file:
        for _ in range(_TRIES):
            meta = _newest_meta(file)
            lacking = 0 if meta is None else _lacking(file, meta)
            if not lacking or _newest_meta(file) == meta:
                return lacking
    return 0  # somebody commits to it faster than it can be looked at: what is read next is there


class _Meta(NamedTuple):
    transaction: int
    page_size: int
    last_page: int
    free_root: int


class _NotThere(Exception):
    """A page of the list of free pages is beyond the end, or is none."""


def _newest_meta(file: BinaryIO) -> _Meta | None:
    found = []
    for at in (0, *_PAGE_SIZES):
        file.seek(at)
        if len(data := file.read(_META.size)) < _META.size:
            break
        magic, _, _, _, page_size, free_root, last_page, transaction = _META.unpack(data)
        if magic == _MAGIC and page_size in _PAGE_SIZES and at in {0, page_size}:
            found.append(_Meta(transaction, page_size, last_page, free_root))
    return max(found, default=None)


def _lacking(file: BinaryIO, meta: _Meta) -> int:
    size = os.fstat(file.fileno()).st_size
    whole, end = size // meta.page_size, meta.last_page + 1
    if whole >= end:
        return 0
    try:
        free = {number for number in _free_pages(file, meta, whole) if whole <= number < end}
    except (_NotThere, struct.error):
        return end * meta.page_size - size
    while end > whole and end - 1 in free:
        end -= 1
    return max(0, end * meta.page_size - size)


def _free_pages(file: BinaryIO, meta: _Meta, whole: int) -> Iterator[int]:
    """Yield the pages that the file lists as free, of which the first `whole` pages are there."""
    waiting = [] if meta.free_root == _NO_PAGE else [meta.free_root]
    for _ in range(whole):
        if not waiting:
            return
        page = _read(file, waiting.pop() * meta.page_size, meta.page_size)
        flags, lower, _ = _PAGE.unpack_from(page)
        for at in range(_PAGE.size, lower, 2):
            node = int.from_bytes(page[at : at + 2], sys.byteorder)
            low, high, node_flags, key_size = _NODE.unpack_from(page, node)
            if flags & _BRANCH:
                waiting.append(low | high << 16 | node_flags << 32)
                continue
            start, length = node + _NODE.size + key_size, low | high << 16
            if node_flags & _BIG_DATA:
                first = _NUMBER.unpack_from(page, start)[0]
                data = _read(file, first * meta.page_size + _PAGE.size, length)
            else:
                data = page[start : start + length]
            count, *pages = (number for (number,) in _NUMBER.iter_unpack(data))
            yield from pages[:count]
    if waiting:
        raise _NotThere


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    try:
        file.seek(at)
        data = file.read(length)
    except (OSError, OverflowError):  # a place that no file has
        raise _NotThere from None
    if len(data) < length:
        raise _NotThere
    return data
