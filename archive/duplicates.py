"""Has any event id been accepted twice?  Answered for a log of any length in a fixed amount of memory.

To find equal ones among n ids, all of them must be remembered somewhere: here in a file without a name, 16 bytes an
id, as sorted runs.  At the end the space of hashes is halved, and each half again, until what lies in a piece fits
into memory; equal ids fall into the same piece, whichever run they stand in.  A piece that cannot be halved, because
all in it are the same, need not be: it is read run by run.

Eight bytes of a hash say *perhaps*.  Of those that have them in common the whole hashes, 16 bytes, are compared, each
with each: of A, B and A it is the third that repeats the first.  Where they are too many for that, the other halves of
their hashes are sorted into runs again.

>>> hashes = {0: bytes(7) + b"5" + bytes(8), 1: bytes(7) + b"9" + bytes(8), 7: bytes(7) + b"9" + bytes(8)}
>>> with IdRuns() as runs:
...     runs.add(np.array([[0x35, 0x39], [0, 1]], dtype=np.uint64))
...     runs.add(np.array([[0x39], [7]], dtype=np.uint64))
...     list(runs.repeated(hashes.__getitem__))
[(1, 7)]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
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

    def repeated(self, whole: Callable[[int], bytes]) -> Iterator[tuple[int, int]]:
        """Yield (index, later index) of entries whose ids are the same; `whole` returns the hash of an entry's id."""
        for alike in self._alike():
            few = list(islice(alike, self._piece_ids + 1))
            if len(few) <= self._piece_ids:
                yield from _equal(few, whole)
            else:
                yield from self._told_apart(chain(few, alike), whole)

    def _told_apart(self, alike: Iterator[int], whole: Callable[[int], bytes]) -> Iterator[tuple[int, int]]:
        """Yield the equal ones among more entries than fit into memory, whose hashes begin alike."""
        with IdRuns(self._piece_ids) as rest:
            while some := list(islice(alike, self._piece_ids)):
                table = np.array([[int.from_bytes(whole(one)[8:]) for one in some], some], dtype=np.uint64)
                rest.add(table[:, np.argsort(table[0], kind="stable")])
            for same in rest._alike():
                yield from pairwise(same)

    def _alike(self) -> Iterator[Iterator[int]]:
        """Yield the indices, in order, of entries whose hashes begin alike; each to be read before the next."""
        if not self._lengths:
            return
        self._file.flush()
        words: Words = np.memmap(self._file, dtype=np.uint64, mode="r")
        runs, at = [], 0
        for length in self._lengths:
            runs.append(words[at : at + 2 * length].reshape(2, length))
            at += 2 * length
        parts = [(0, length) for length in self._lengths]
        yield from _between(runs, parts, 0, _WORDS, self._piece_ids)


Parts = list[tuple[int, int]]
"""For each run, from where to where."""


def _between(
    runs: list[Words], parts: Parts, first: int, stop: int, piece_ids: int
) -> Iterator[Iterator[int]]:
    """Yield those alike among ids with first <= hash < stop, which are these parts of the runs."""
    count = sum(end - start for start, end in parts)
    if stop - first == 1:
        if count > 1:
            yield _indices(runs, parts)
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


def _within(parts: list[Words]) -> Iterator[Iterator[int]]:
    """Yield those alike in a piece that fits into memory."""
    table = np.concatenate(parts, axis=1)
    table = table[:, np.lexsort((table[1], table[0]))]
    again = np.concatenate(([False], table[0][1:] == table[0][:-1], [False]))
    starts = np.flatnonzero(~again[:-1] & again[1:])
    stops = np.flatnonzero(again[:-1] & ~again[1:]) + 1
    for start, stop in zip(starts, stops, strict=True):
        yield iter(table[1, start:stop].tolist())


def _indices(runs: list[Words], parts: Parts) -> Iterator[int]:
    """Yield the indices in a piece of one hash: in a run they are in order, and runs follow one another."""
    for run, (start, end) in zip(runs, parts, strict=True):
        for at in range(start, end):
            yield int(run[1, at])


def _equal(alike: list[int], whole: Callable[[int], bytes]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of equal ones, each with the last before it."""
    last: dict[bytes, int] = {}
    for index in alike:
        identifier = whole(index)
        if identifier in last:
            yield last[identifier], index
        last[identifier] = index
