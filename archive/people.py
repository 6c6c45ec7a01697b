"""Everybody in the vault, held against a log: is each found by her name, and is nothing of hers said to be another's.

Two lies need no key, only a hand in the database.

*A person who is cut in two.*  The vault finds somebody by her name in a table.  Take that row away, and her next event
makes a second subject of the same name, which her past is not part of.  So each name must lead to its subject.

*An entry that is said to be an erased person's.*  Of a person whose secret is destroyed nothing can be opened, so
nothing can be checked: write noise beside anybody's last leaf, and say that it is about her.  But the leaf bears a
mark, and the one that somebody's next entry would bear can be computed for everybody whose secret there is.  If a leaf
that is said to be nobody's bears one of these, it is hers.

    gone = Gone()
    gone.add(index, tag)                      for each private entry whose row is about somebody who is erased
    check_people(vault, sequences, gone)      -> findings "names" and "sequence"

Tags wait in a file, 24 bytes each; of each living subject 16 bytes are in memory.  What rows say of themselves, where
they can be opened: `archive.openings`.  Layouts: docs/formats/vault.md, docs/formats/entry.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from archive.entry import tag_of
from archive.findings import Finding
from archive.vault import Vault

GONE: Final = np.dtype([("tag", ">u8", 2), ("index", ">u8")])
"""A private entry of somebody who is erased: its tag, and where it stands."""
PIECE: Final = 1 << 16
"""So many are looked up at once."""

Tags = npt.NDArray[np.uint64]


class Gone:
    """Private entries that nobody can open any more, on disk."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, records: bytes) -> None:
        """Keep some, as `gone` gives them."""
        self._file.write(records)
        self.count += len(records) // GONE.itemsize

    def bearing(self, tags: Tags) -> Iterator[int]:
        """Yield the index of each that bears one of these tags, shape (n, 2), sorted by their first halves."""
        self._file.flush()
        kept = np.memmap(self._file, dtype=GONE, mode="r") if self.count and len(tags) else np.empty(0, GONE)
        for start in range(0, len(kept), PIECE):
            piece = kept[start : start + PIECE]
            wanted = piece["tag"].astype(np.uint64)
            # Two tags that begin alike are as likely as two that are the same: nobody has seen one.
            at = np.minimum(np.searchsorted(tags[:, 0], wanted[:, 0]), len(tags) - 1)
            yield from piece["index"][(tags[at] == wanted).all(axis=1)].tolist()


def gone(index: int, tag: bytes) -> bytes:
    """Return the record of a private entry that nobody can open any more."""
    return tag + index.to_bytes(8)


def check_people(vault: Vault, count: Callable[[int], int], gone: Gone) -> Iterator[Finding]:
    """Yield what is wrong with anybody in the vault, `count(number)` being how many entries a subject has.

    About 10 µs for each subject.
    """
    people, tags = vault.everybody(), list[bytes]()
    while some := list(islice(people, PIECE)):
        for keys, leads_to in some:
            if leads_to != keys.number:
                where = "nowhere" if leads_to is None else f"to subject {leads_to}"
                detail = (
                    f"the name of subject {keys.number} leads {where}: what comes next of her is kept apart"
                )
                yield Finding("names", None, detail)
        if gone.count:
            tags.append(b"".join([tag_of(keys.tag_key, count(keys.number) + 1) for keys, _ in some]))
    table: Tags = np.frombuffer(b"".join(tags), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    for index in gone.bearing(table[np.argsort(table[:, 0], kind="stable")]):
        detail = "its row is about somebody who is not in the vault, its mark is that of one who is: it was replaced"
        yield Finding("sequence", index, detail)
