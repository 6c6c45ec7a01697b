"""Has any event id been accepted twice?  Answered for a log of any length in a fixed amount of memory.

To find equal ones among n ids, all of them must be remembered somewhere: here in a file without a name, 16 bytes an
id, as sorted runs.  At the end the space of hashes is halved, and each half again, until what lies in a piece fits
into memory; equal ids fall into the same piece, whichever run they stand in.  A piece that cannot be halved, because
all in it are the same, need not be: it is read run by run.  Eight bytes of a hash say *perhaps*; the rows decide.

>>> with IdRuns() as runs:
...     runs.add(np.array([[5, 9], [0, 1]], dtype=np.uint64))
...     runs.add(np.array([[9], [7]], dtype=np.uint64))
...     list(runs.repeated())
[(1, 7)]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

PIECE_IDS = 1 << 17
"""Ids that are compared at once, at most: 48 bytes each while it lasts."""
_WORDS = 1 << 64
"""How many different hashes of 8 bytes there are."""


class IdRuns:
    """Runs of (first 8 bytes of an id hash, index), each sorted by the first, on disk."""

    def __init__(self, piece_ids: int = PIECE_IDS) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._lengths: list[int] = []
        self._piece_ids = piece_ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all runs."""
        self._file.close()

    def add(self, table: Words) -> None:
        """Keep one sorted run, shape (2, n)."""
        if table.shape[1]:
            self._file.write(table.tobytes())
            self._lengths.append(table.shape[1])

    def repeated(self) -> Iterator[tuple[int, int]]:
        """Yield (index, later index) of entries whose ids are perhaps the same."""
        if not self._lengths:
            return
        self._file.flush()
        words: Words = np.memmap(self._file, dtype=np.uint64, mode="r")
        runs, at = [], 0
        for length in self._lengths:
            runs.append(words[at : at + 2 * length].reshape(2, length))
            at += 2 * length
        whole = [(0, length) for length in self._lengths]
        yield from _between(runs, whole, 0, _WORDS, self._piece_ids)


Parts = list[tuple[int, int]]
"""For each run, from where to where."""


def _between(
    runs: list[Words], parts: Parts, first: int, stop: int, piece_ids: int
) -> Iterator[tuple[int, int]]:
    """Yield the pairs among ids with first <= hash < stop, which are these parts of the runs."""
    count = sum(end - start for start, end in parts)
    if stop - first == 1:
        yield from _same(runs, parts)
    elif count > piece_ids:
        middle = (first + stop) // 2
        cuts = [
            start + _lower(run[0, start:end], middle) for run, (start, end) in zip(runs, parts, strict=True)
        ]
        below = [(start, cut) for (start, _), cut in zip(parts, cuts, strict=True)]
        above = [(cut, end) for (_, end), cut in zip(parts, cuts, strict=True)]
        yield from _between(runs, below, first, middle, piece_ids)
        yield from _between(runs, above, middle, stop, piece_ids)
    elif count:
        yield from _within([run[:, start:end] for run, (start, end) in zip(runs, parts, strict=True)])


def _lower(hashes: Words, edge: int) -> int:
    """Return how many of these sorted hashes are less than `edge`."""
    return int(np.searchsorted(hashes, np.uint64(edge)))


def _within(parts: list[Words]) -> Iterator[tuple[int, int]]:
    """Yield the pairs in a piece that fits into memory."""
    table = np.concatenate(parts, axis=1)
    table = table[:, np.lexsort((table[1], table[0]))]
    for at in np.flatnonzero(table[0][1:] == table[0][:-1]):
        yield int(table[1, at]), int(table[1, at + 1])


def _same(runs: list[Words], parts: Parts) -> Iterator[tuple[int, int]]:
    """Yield the pairs in a piece of one hash: in a run its indices are in order, and runs follow one another."""
    last: int | None = None
    for run, (start, end) in zip(runs, parts, strict=True):
        for at in range(start, end):
            index = int(run[1, at])
            if last is not None:
                yield last, index
            last = index
