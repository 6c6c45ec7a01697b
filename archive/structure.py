"""The database file as pages: is each where it must be, and is none lost or used twice.

What the log says is checked by reading it (`archive.fsck`).  Beside that the file has a life of its own: B-tree pages,
lists of free pages, two meta pages.  Damage there can wait unseen for years, until a write takes a page that is still
in use.  py-lmdb has an auditor for this that reads the file as plain bytes, without LMDB, which a file that was made to
deceive could crash.  The file must be at rest while it is read.

A file that was cut short is a case of its own: LMDB maps it into memory, and touching what is missing kills the
process.  So `missing_bytes` is asked before anything opens the file.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import lmdb.verify

from archive.findings import Finding

_MAGIC = 0xBEEFC0DE
_META = struct.Struct(("<" if sys.byteorder == "little" else ">") + "16x II QQ I 44x 48x QQ")
"""Page header, magic, version, address, map size, then two tables (the first begins with the page size), last page,
transaction: `MDB_meta` of LMDB 0.9, in the machine's byte order."""
_PAGE_SIZES = (4_096, 8_192, 16_384, 32_768, 65_536)


def check_structure(folder: Path) -> list[Finding]:
    """Return what is wrong with the pages of a database at rest, at most a thousand findings."""
    try:
        problems = lmdb.verify.verify(os.fspath(folder), subdir=True)  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError) as error:
        problems = [str(error)]
    return [Finding("structure", None, str(problem)) for problem in problems[:1_000]]


def missing_bytes(folder: Path) -> int:
    """Return how many bytes a database file is shorter than its meta pages say; 0 where they say nothing."""
    path = folder / "data.mdb"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(2 * _PAGE_SIZES[-1])
    return max(0, _least_size(head) - size)


def _least_size(head: bytes) -> int:
    newest, least = -1, 0
    for at in (0, *_PAGE_SIZES):
        if len(head) < at + _META.size:
            break
        magic, _, _, _, page_size, last_page, transaction = _META.unpack_from(head, at)
        if magic == _MAGIC and page_size in _PAGE_SIZES and at in {0, page_size} and transaction > newest:
            newest, least = transaction, (last_page + 1) * page_size
    return least
