"""What the archiver remembers so that it need not ask: sequence numbers and ids.

Both are functions of the rows.  So neither is written on the commit path: they live in memory, are saved now and
then, and what a crash loses is read again from the rows since.  A random B-tree put for each id halved a
prototype, and cost more as the log grew; sorted immutable runs do not.

An id's run holds (first 8 bytes of its hash, index), 16 bytes an id, sorted, in a memory-mapped file.  Eight bytes
say *perhaps*; the row itself decides.  Runs are merged geometrically, so that few have to be searched.

>>> caches = Caches()
>>> caches.learn(0, 7, b"i" * 16)
>>> caches.sequence(7), caches.sequence(8), caches.candidates([b"i" * 16, b"j" * 16])
(1, 0, [[0], []])
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from archive.entry import NO_ID, Draft, parse_row
from archive.files import write_whole
from archive.log import Log

SAVE_ENTRIES = 131_072
MERGE_RATIO = 4

_NAME: Final = re.compile(r"(ids|sequences)-(\d{1,19})-(\d{1,19})-([0-9a-f]{16})-([0-9a-f]{8})", re.ASCII)
"""Kind, start, stop, root of the log at `stop`, CRC-32 of the file."""

Words = npt.NDArray[np.uint64]


class _Run(NamedTuple):
    """Ids of the entries start…stop-1, sorted by the first 8 bytes of their hash."""

    start: int
    stop: int
    table: Words  # shape (2, n): prefixes, indices


class Caches:
    """Next sequence numbers by subject, and indices by id, of the entries 0…size-1.

    Without a folder nothing is saved.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._sequences = array("Q")
        self._recent: dict[bytes, int] = {}
        self._runs: list[_Run] = []
        self._saved = 0
        self.size = 0

    def sequence(self, subject: int) -> int:
        """Return how many entries a subject has as its primary one."""
        return self._sequences[subject] if subject < len(self._sequences) else 0

    def learn(self, index: int, subject: int | None, identifier: bytes) -> None:
        """Take note of entry `index` (None for a control entry's subject); entries come in order."""
        if subject is not None:
            if subject >= len(self._sequences):
                self._sequences.extend([0] * (subject + 1024 - len(self._sequences)))
            self._sequences[subject] += 1
            if identifier != NO_ID:
                self._recent[identifier] = index
        self.size = index + 1

    def learn_block(self, first: int, drafts: Sequence[Draft | None]) -> None:
        """Take note of a whole block whose first index is `first`; None stands for a control entry."""
        sequences, recent = self._sequences, self._recent
        for index, draft in enumerate(drafts, first):
            if draft is None:
                continue
            if (subject := draft.subject) >= len(sequences):
                sequences.extend([0] * (subject + 1024 - len(sequences)))
            sequences[subject] += 1
            if draft.identifier != NO_ID:
                recent[draft.identifier] = index
        self.size = first + len(drafts)

    def candidates(self, identifiers: Sequence[bytes]) -> list[list[int]]:
        """Return for each id hash the indices that may carry it: mostly none or one."""
        found = [[index] if (index := self._recent.get(one)) is not None else [] for one in identifiers]
        if self._runs and identifiers:
            prefixes = np.frombuffer(b"".join([one[:8] for one in identifiers]), dtype=">u8").astype(
                np.uint64
            )
            for run in self._runs:
                _search(run.table, prefixes, found)
        return found

    def catch_up(self, log: Log) -> None:
        """Learn the entries of `log` that are not known yet."""
        for index, row in log.rows(self.size, log.size):
            parsed = parse_row(row) if row else None
            self.learn(index, parsed.subjects[0] if parsed else None, parsed.identifier if parsed else NO_ID)

    def load(self, log: Log) -> None:
        """Take up what was saved for this log, then learn the rest from its rows.

        Saved files that do not belong to this history (their name holds a root) are not used.
        """
        if self._folder is not None:
            with suppress(OSError):  # no space, or unreadable: the rows say the same
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._load_saved(self._folder, log)
        self.catch_up(log)

    def save(self, root: bytes, *, force: bool = False) -> bool:
        """Save what is known at a block's end with this root, if enough is new; return whether it was.

        A disk that does not take the files is no harm: all is still in memory, and in the rows.
        """
        new = self.size - self._saved
        if self._folder is None or new == 0 or (new < SAVE_ENTRIES and not force):
            return False
        try:
            runs = self._frozen(self._folder, root)
            name = f"sequences-0-{self.size}-{root.hex()[:16]}"
            _write_checked(self._folder, name, self._sequences.tobytes())
        except OSError:
            return False
        self._runs, self._recent, self._saved = runs, {}, self.size
        with suppress(OSError):
            self._sweep(self._folder)
        return True

    def _frozen(self, folder: Path, root: bytes) -> list[_Run]:
        """Return the runs and one of the recent ids, merged with those before that are not much larger."""
        runs, start, pieces = self._runs[:], self._saved, [_sorted_run(self._recent)]
        while runs and runs[-1].table.shape[1] <= MERGE_RATIO * sum(p.shape[1] for p in pieces):
            run = runs.pop()
            start, pieces = run.start, [run.table, *pieces]
        table = np.concatenate(pieces, axis=1)
        table = table[:, np.argsort(table[0], kind="stable")]
        path = _write_checked(folder, f"ids-{start}-{self.size}-{root.hex()[:16]}", table.tobytes())
        return [*runs, _Run(start, self.size, _mapped(path))]

    def _sweep(self, folder: Path) -> None:
        """Remove files that newer ones replace; a file that stays by accident is only dead weight."""
        live = {("ids", run.start, run.stop) for run in self._runs} | {("sequences", 0, self.size)}
        for path in folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found is None or (found[1], int(found[2]), int(found[3])) not in live:
                path.unlink(missing_ok=True)

    def _load_saved(self, folder: Path, log: Log) -> None:
        whole = [(found, path) for path in folder.iterdir() if (found := _whole(path, log))]
        runs = {int(found[2]): (int(found[3]), path) for found, path in whole if found[1] == "ids"}
        sequences = {int(found[3]): path for found, path in whole if found[1] == "sequences"}
        chain, end = [], 0
        while end in runs:
            start, (end, path) = end, runs[end]
            chain.append(_Run(start, end, _mapped(path)))
        if end in sequences:
            self._sequences = array("Q", sequences[end].read_bytes())
            self._runs, self._saved, self.size = chain, end, end


def _write_checked(folder: Path, name: str, data: bytes) -> Path:
    path = folder / f"{name}-{crc32(data):08x}"
    write_whole(path, data)
    return path


def _whole(path: Path, log: Log) -> re.Match[str] | None:
    """Return the parts of a saved file's name if it is of this history and its bytes are those written.

    A short sequence file would give a sequence number twice, a short run forget ids: no harm may go unseen.
    """
    found = _NAME.fullmatch(path.name)
    if found is None or not int(found[2]) < int(found[3]) <= log.size:
        return None
    belongs = log.root(int(found[3])).hex()[:16] == found[4]
    return found if belongs and f"{crc32(path.read_bytes()):08x}" == found[5] else None


def _sorted_run(recent: dict[bytes, int]) -> Words:
    if not recent:
        return np.empty((2, 0), dtype=np.uint64)
    joined = np.frombuffer(b"".join(recent), dtype=">u8")
    prefixes = joined[::2].astype(np.uint64)
    indices = np.fromiter(recent.values(), dtype=np.uint64, count=len(recent))
    order = np.argsort(prefixes, kind="stable")
    return np.stack((prefixes[order], indices[order]))


def _mapped(path: Path) -> Words:
    if os.path.getsize(path) == 0:
        return np.empty((2, 0), dtype=np.uint64)
    words: Words = np.memmap(path, dtype=np.uint64, mode="r").reshape(2, -1)
    return words


def _search(table: Words, prefixes: Words, found: list[list[int]]) -> None:
    left = np.searchsorted(table[0], prefixes, side="left")
    right = np.searchsorted(table[0], prefixes, side="right")
    hits: Iterable[np.intp] = np.flatnonzero(right > left)
    for at in hits:
        found[at].extend(int(index) for index in table[1, left[at] : right[at]])
