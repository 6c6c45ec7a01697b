"""What the archiver remembers so that it need not ask: sequence numbers and ids.

Both are functions of the rows.  So neither is written on the commit path: they live in memory, are saved now and
then, and what a crash loses is read again from the rows since.  A random B-tree put for each id halved a
prototype, and cost more as the log grew; sorted immutable runs do not.

A run holds, of the ids of some stretch of entries, the first 8 bytes of each hash, sorted, then where in the stretch
each stands, in 4 bytes: 12 bytes an id, in a memory-mapped file.  Eight bytes say *perhaps*; the row itself decides.
Runs are merged geometrically, so that few have to be searched.

>>> caches = Caches()
>>> caches.learn(0, 7, b"i" * 16)
>>> caches.sequence(7), caches.sequence(8), caches.candidates([b"i" * 16, b"j" * 16])
(1, 0, [[0], []])
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from archive.entry import NO_ID, Draft, Row, check_row, parse_leaf, parse_row
from archive.errors import FormatError, IntegrityError
from archive.files import write_parts
from archive.kernel import kernel
from archive.log import Log

SAVE_ENTRIES = 131_072
MERGE_RATIO = 4
STRETCH_MAX: Final = 1 << 32
"""Entries of one run at most: a place has 4 bytes."""
SLICE_IDS: Final = 1 << 16
"""Ids that are merged at once, roughly."""
PIECE_SIZE: Final = 1 << 20
_ID_SIZE: Final = 12

_NAME: Final = re.compile(r"(places|sequences)-(\d{1,19})-(\d{1,19})-([0-9a-f]{16})-([0-9a-f]{8})", re.ASCII)
"""Kind, start, stop, root of the log at `stop`, CRC-32 of the file."""

Whose = Callable[[bytes, Callable[[int], int], Sequence[int]], int | None]
"""`archive.vault.Vault.whose`."""
Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint32]


class _Run(NamedTuple):
    """Ids of the entries start…stop-1, sorted by the first 8 bytes of their hash."""

    start: int
    stop: int
    prefixes: Words
    places: Places
    """Index of each, less `start`."""


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

    @property
    def subjects(self) -> int:
        """One more than the greatest number of a subject that has entries."""
        numbers = reversed(range(len(self._sequences)))
        return 1 + next((number for number in numbers if self._sequences[number]), -1)

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
        subjects = [one.subject for one in drafts if one is not None]
        sequences = self._sequences
        if subjects and (most := max(subjects)) >= len(sequences):
            sequences.extend([0] * (most + 1024 - len(sequences)))
        for subject in subjects:
            sequences[subject] += 1
        identifiers = [NO_ID if one is None else one.identifier for one in drafts]
        self._recent.update(zip(identifiers, range(first, first + len(drafts)), strict=True))
        self._recent.pop(NO_ID, None)
        self.size = first + len(drafts)

    def candidates(self, identifiers: Sequence[bytes]) -> list[list[int]]:
        """Return for each id hash the indices that may carry it: mostly none or one."""
        found = [[index] if (index := self._recent.get(one)) is not None else [] for one in identifiers]
        for run in self._runs:
            for which, at in kernel.find_ids(run.prefixes, identifiers):
                found[which].append(run.start + int(run.places[at]))
        return found

    def catch_up(self, log: Log, whose: Whose) -> None:
        """Learn the entries of `log` that are not known yet.

        A row whose bytes changed is not believed about its subject: a number given twice would be signed, and stay.
        What it says of its id is, since an id that is found there is only refused.
        """
        for index, row in log.rows(self.size, log.size):
            parsed, sound = _taken_apart(row)
            if sound:
                subject = parsed.subjects[0] if parsed else None
            else:
                tag = parse_leaf(log.leaf(index)).tag
                subject = whose(tag, self.sequence, parsed.subjects[:1] if parsed else ())
            self.learn(index, subject, parsed.identifier if parsed else NO_ID)

    def load(self, log: Log, whose: Whose) -> None:
        """Take up what was saved for this log, then learn the rest from its rows; `whose` is the vault's.

        Saved files that do not belong to this history (their name holds a root) are not used.
        """
        if self._folder is not None:
            with suppress(OSError):  # no space, or unreadable: the rows say the same
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._load_saved(self._folder, log)
        self.catch_up(log, whose)

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
            _write_checked(self._folder, name, (self._sequences.tobytes(),))
        except OSError:
            return False
        self._runs, self._recent, self._saved = runs, {}, self.size
        with suppress(OSError):
            self._sweep(self._folder)
        return True

    def _frozen(self, folder: Path, root: bytes) -> list[_Run]:
        """Return the runs and one of the recent ids, merged with those before that are not much larger."""
        runs, merged = self._runs[:], [_sorted_run(self._recent, self._saved, self.size)]
        while runs and self.size - runs[-1].start <= STRETCH_MAX:
            if len(runs[-1].prefixes) > MERGE_RATIO * sum(len(run.prefixes) for run in merged):
                break
            merged.insert(0, runs.pop())
        start = merged[0].start
        path = _write_checked(folder, f"places-{start}-{self.size}-{root.hex()[:16]}", _merged(merged))
        return [*runs, _mapped(path, start, self.size)]

    def _sweep(self, folder: Path) -> None:
        """Remove files that newer ones replace; a file that stays by accident is only dead weight."""
        live = {("places", run.start, run.stop) for run in self._runs} | {("sequences", 0, self.size)}
        for path in folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found is None or (found[1], int(found[2]), int(found[3])) not in live:
                path.unlink(missing_ok=True)

    def _load_saved(self, folder: Path, log: Log) -> None:
        whole = [(found, path) for path in sorted(folder.iterdir()) if (found := _whole(path, log))]
        runs = {(int(found[2]), int(found[3])): path for found, path in whole if found[1] == "places"}
        sequences = {int(found[3]): path for found, path in whole if found[1] == "sequences"}
        for end in sorted(sequences, reverse=True):
            if chain := _chain(runs, end):
                self._sequences = array("Q", sequences[end].read_bytes())
                self._runs = [_mapped(runs[run], *run) for run in chain]
                self._saved = self.size = end
                return


def _chain(runs: Iterable[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """Return runs (start, stop) that follow one another from 0 to `end`, few where there is a choice; [] if none do.

    A save that was killed leaves a merged run beside those that it replaces, and beyond what the sequences know.

    >>> _chain([(0, 4), (4, 6), (0, 9), (6, 8)], 6)
    [(0, 4), (4, 6)]
    """
    chains: dict[int, list[tuple[int, int]]] = {0: []}
    for start, stop in sorted(runs):
        if start in chains and stop <= end:
            longer = [*chains[start], (start, stop)]
            chains[stop] = min(longer, chains.get(stop, longer), key=len)
    return chains.get(end, [])


def _taken_apart(row: bytes) -> tuple[Row | None, bool]:
    """Return the parts of a row, None if it is empty or none, and whether its bytes are those that were written."""
    if not row:
        return None, True
    parsed = None
    try:
        parsed = parse_row(row)
        check_row(row)
    except (FormatError, IntegrityError):
        return parsed, False
    return parsed, True


def _write_checked(folder: Path, name: str, parts: Iterable[bytes]) -> Path:
    check = 0

    def checked() -> Iterator[bytes]:
        nonlocal check
        for part in parts:
            check = crc32(part, check)
            yield part

    return write_parts(folder / name, checked(), lambda: folder / f"{name}-{check:08x}")


def _merged(runs: Sequence[_Run]) -> Iterator[bytes]:
    """Yield the bytes of one run made of several that follow one another: all prefixes, then all places.

    It goes through the hashes in slices, so that merging takes 4 bytes an id of memory, and not 40.
    """
    count = sum(len(run.prefixes) for run in runs)
    slices = -(-count // SLICE_IDS) or 1
    edges = np.array([(number << 64) // slices for number in range(1, slices)], dtype=np.uint64)
    cuts = [[0, *np.searchsorted(run.prefixes, edges).tolist(), len(run.prefixes)] for run in runs]
    kept: list[bytes] = []
    for number in range(slices):
        parts = [slice(cut[number], cut[number + 1]) for cut in cuts]
        prefixes = np.concatenate([run.prefixes[part] for run, part in zip(runs, parts, strict=True)])
        places = [
            run.places[part] + np.uint32(run.start - runs[0].start)
            for run, part in zip(runs, parts, strict=True)
        ]
        order = np.argsort(prefixes, kind="stable")
        kept.append(np.concatenate(places)[order].tobytes())
        yield prefixes[order].tobytes()
    yield from kept


def _whole(path: Path, log: Log) -> re.Match[str] | None:
    """Return the parts of a saved file's name if it is of this history and its bytes are those written.

    A short sequence file would give a sequence number twice, a short run forget ids: no harm may go unseen.
    """
    found = _NAME.fullmatch(path.name)
    if found is None or not int(found[2]) < int(found[3]) <= log.size:
        return None
    belongs = log.root(int(found[3])).hex()[:16] == found[4]
    return found if belongs and f"{_crc_of(path):08x}" == found[5] else None


def _crc_of(path: Path) -> int:
    """Return the CRC-32 of a file, of which no more than a piece is in memory."""
    check = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_SIZE):
            check = crc32(piece, check)
    return check


def _sorted_run(recent: dict[bytes, int], start: int, stop: int) -> _Run:
    joined = np.frombuffer(b"".join(recent), dtype=">u8")
    prefixes = joined[::2].astype(np.uint64)
    indices = np.fromiter(recent.values(), dtype=np.uint64, count=len(recent))
    order = np.argsort(prefixes, kind="stable")
    return _Run(start, stop, prefixes[order], (indices[order] - np.uint64(start)).astype(np.uint32))


def _mapped(path: Path, start: int, stop: int) -> _Run:
    count = os.path.getsize(path) // _ID_SIZE
    if count == 0:
        return _Run(start, stop, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint32))
    prefixes: Words = np.memmap(path, dtype=np.uint64, mode="r", shape=(count,))
    places: Places = np.memmap(path, dtype=np.uint32, mode="r", offset=8 * count, shape=(count,))
    return _Run(start, stop, prefixes, places)
