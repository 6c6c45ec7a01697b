"""Has any event id been accepted twice?  Answered for a log of any length in a fixed amount of memory.

To find equal ones among n ids, all of them must be remembered somewhere: here in a file without a name, 16 bytes an
id, as sorted runs.  At the end the space of hashes is walked from one end to the other in slices that fit into memory;
equal ids fall into the same slice, whichever run they stand in.  Eight bytes of a hash say *perhaps*; the rows decide.

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

SLICE_IDS = 1 << 19


class IdRuns:
    """Runs of (first 8 bytes of an id hash, index), each sorted by the first, on disk."""

    def __init__(self, slice_ids: int = SLICE_IDS) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._lengths: list[int] = []
        self._slice_ids = slice_ids

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
        slices = -(-sum(self._lengths) // self._slice_ids)
        for number in range(slices):
            yield from _within([_part(run, number, slices) for run in runs])


def _part(run: Words, number: int, slices: int) -> Words:
    """Return a run's ids in one of `slices` equal parts of the space of hashes."""
    edges = [(number << 64) // slices, ((number + 1) << 64) // slices]
    start, stop = (
        np.searchsorted(run[0], np.uint64(edge)) if edge < 1 << 64 else run.shape[1] for edge in edges
    )
    return run[:, start:stop]


def _within(parts: list[Words]) -> Iterator[tuple[int, int]]:
    table = np.concatenate(parts, axis=1)
    table = table[:, np.lexsort((table[1], table[0]))]
    for at in np.flatnonzero(table[0][1:] == table[0][:-1]):
        yield int(table[1, at]), int(table[1, at + 1])
