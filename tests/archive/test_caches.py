"""What the archiver remembers equals what the rows say, whatever became of the files in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Caches, Log, MemoryStore, caches
from archive.plan import TABLES
from tests.archive import spec

PREFIXES = (bytes(7) + b"\x01", b"ABCDEFGH", b"\xff" * 8, bytes(8))
IDS = [prefix + bytes(7) + bytes([end]) for prefix in PREFIXES for end in range(1, 9)]
KEY, OPENING = bytes(32), bytes(64)

Pair = tuple[int | None, bytes]
"""Subject (None for a control entry) and id hash of an entry."""


class Rows(Log):
    """A log that has nothing but rows: the history that caches are a function of."""

    def __init__(self, entries: list[Pair]) -> None:
        with MemoryStore(TABLES).view() as view:
            super().__init__(view, len(entries))
        self._entries = entries
        self.read = 0

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the rows, each as the page has it."""
        for index, (subject, identifier) in enumerate(self._entries[start:stop], start):
            numbers = [subject or 0, 99]
            self.read += 1
            row = spec.row(1, numbers, identifier, [], bytes(12), KEY, OPENING)
            yield index, b"" if subject is None else row

    def root(self, size: int | None = None) -> bytes:
        """Return a hash that stands for the first `size` entries."""
        return spec.sha256(repr(self._entries[: self.size if size is None else size]).encode())


def history(*numbers: int) -> list[Pair]:
    """Return entries of these subjects, ids taken in turn; a negative number is a control entry."""
    ids = iter(IDS)
    return [(None, bytes(16)) if number < 0 else (number, next(ids)) for number in numbers]


def assert_right(cache: Caches, entries: list[Pair]) -> None:
    """Hold a cache against the entries themselves."""
    assert cache.size == len(entries)
    for subject in {subject for subject, _ in entries if subject is not None} | {5000}:
        assert cache.sequence(subject) == sum(one == subject for one, _ in entries)
    where = {identifier: index for index, (_, identifier) in enumerate(entries) if identifier != bytes(16)}
    for identifier, found in zip(IDS, cache.candidates(IDS), strict=True):
        perhaps = {index for other, index in where.items() if other[:8] == identifier[:8]}
        assert set(found) <= perhaps
        assert len(set(found)) == len(found)
        assert identifier not in where or where[identifier] in found
    assert cache.candidates([]) == []


def nobody(tag: bytes, count: Callable[[int], int], guess: Sequence[int]) -> None:
    """Be asked whose an entry is: no row of these is rotten."""
    raise AssertionError(tag, count, guess)


@contextmanager
def tiny(entries: int, ratio: int) -> Iterator[Path]:
    """Yield an empty folder, while caches are saved after so few entries and merged at this ratio."""
    folder = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "SAVE_ENTRIES", entries)
        patch.setattr(caches, "MERGE_RATIO", ratio)
        patch.setattr(caches, "SLICE_IDS", 1 + ratio % 3)  # as many slices as ids, or half as many
        yield folder
    shutil.rmtree(folder)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), st.integers(-1, 3), st.booleans()),
        st.tuples(st.sampled_from(["save", "force", "restart", "crash"]), st.just(0), st.just(False)),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 6), st.sampled_from([0, 1, 4]), st.randoms(use_true_random=False))
def test_caches_equal_a_dictionary(
    steps: list[tuple[str, int, bool]], entries_min: int, ratio: int, random: object
) -> None:
    """Learning, saving, loading and forgetting, in any order, gives what counting the entries gives."""
    ids = list(IDS)
    random.shuffle(ids)  # type: ignore[attr-defined]
    with tiny(entries_min, ratio) as folder:
        cache, entries = Caches(folder), list[Pair]()
        for step, subject, named in steps:
            if step == "learn":
                private = subject >= 0
                identifier = ids.pop() if private and named and ids else bytes(16)
                entries.append((subject if private else None, identifier))
                cache.learn(len(entries) - 1, *entries[-1])
            elif step in ("save", "force"):
                cache.save(Rows(entries).root(), force=step == "force")
            else:
                if step == "restart":
                    cache.save(Rows(entries).root(), force=True)
                cache = Caches(folder)
                cache.load(Rows(entries), nobody)
            assert_right(cache, entries)


def saved(folder: Path, entries: list[Pair], batch: int) -> None:
    """Save caches of these entries, after each batch."""
    cache = Caches(folder)
    for index, pair in enumerate(entries):
        cache.learn(index, *pair)
        if (index + 1) % batch == 0:
            cache.save(Rows(entries[: index + 1]).root(), force=True)


def loaded(folder: Path, entries: list[Pair]) -> tuple[Caches, int]:
    """Return caches that took up the folder, and how many rows they had to read."""
    rows, cache = Rows(entries), Caches(folder)
    cache.load(rows, nobody)
    return cache, rows.read


ENTRIES = history(0, 1, 0, -1, 2, 0, 1, 1, 2, 0)


@pytest.mark.parametrize(("ratio", "files"), [(0, 6), (100, 2)])
def test_what_was_saved_is_not_read_again(ratio: int, files: int) -> None:
    """A start reads the rows since the last save only; runs are merged by the ratio, old ones removed."""
    with tiny(1, ratio) as folder:
        saved(folder, ENTRIES, 2)
        assert len(list(folder.iterdir())) == files
        cache, read = loaded(folder, [*ENTRIES, (7, IDS[-1])])
        assert read == 1
        assert_right(cache, [*ENTRIES, (7, IDS[-1])])


def test_a_save_that_was_killed_between_its_files_costs_that_save_only() -> None:
    """Its merged run lies beside those that it replaces, and no sequences belong to it: the save before counts."""
    with tiny(1, 100) as folder:
        saved(folder, ENTRIES[:6], 6)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        cache, _ = loaded(folder, ENTRIES[:9])
        cache.save(Rows(ENTRIES[:9]).root(), force=True)
        for path in folder.glob("sequences-*"):
            path.unlink()
        for name, content in before.items():
            (folder / name).write_bytes(content)
        cache, read = loaded(folder, ENTRIES)
        assert read == len(ENTRIES) - 6
        assert_right(cache, ENTRIES)


def test_saving_waits_for_enough() -> None:
    """Nothing is written for a few entries, for none, or without a folder; force writes what there is."""
    with tiny(3, 4) as folder:
        cache = Caches(folder)
        cache.load(Rows(ENTRIES[:2]), nobody)
        assert not cache.save(Rows(ENTRIES[:2]).root())
        assert list(folder.iterdir()) == []
        assert cache.save(Rows(ENTRIES[:2]).root(), force=True)
        assert not cache.save(Rows(ENTRIES[:2]).root(), force=True)
        cache.catch_up(Rows(ENTRIES[:5]), nobody)
        assert cache.save(Rows(ENTRIES[:5]).root())
    without = Caches()
    without.load(Rows(ENTRIES), nobody)
    assert not without.save(Rows(ENTRIES).root(), force=True)


def damage_nothing(folder: Path) -> None:
    """Leave the files as they are."""
    del folder


def remove(kind: str) -> Callable[[Path], None]:
    """Return how to remove the first file of a kind."""
    return lambda folder: min(folder.glob(f"{kind}-*")).unlink()


def cut(kind: str, size: int) -> Callable[[Path], None]:
    """Return how to cut some bytes off the end of a file."""

    def cut(folder: Path) -> None:
        path = min(folder.glob(f"{kind}-*"))
        path.write_bytes(path.read_bytes()[:-size])

    return cut


def flip(kind: str) -> Callable[[Path], None]:
    """Return how to change one bit of a file."""

    def flip(folder: Path) -> None:
        path = min(folder.glob(f"{kind}-*"))
        data = path.read_bytes()
        path.write_bytes(bytes((data[0] ^ 1,)) + data[1:])

    return flip


def strangers(folder: Path) -> None:
    """Lay files into the folder that nobody saved."""
    for name in (
        "places-x",
        "places-0-99-00",
        "sequences",
        "sequences-x-y-z",
        "places-0-4-abc.tmp",
        "note.txt",
        "ids-0-5-0123456789abcdef-01234567",  # as an earlier version named them
        "places-0-0--",
    ):
        (folder / name).write_bytes(b"?" * 16)


@pytest.mark.parametrize(
    ("damage", "read"),
    [
        (damage_nothing, 0),
        (strangers, 0),
        (remove("places"), 10),
        (remove("sequences"), 10),
        (cut("places", 12), 10),
        (cut("places", 1), 10),
        (cut("sequences", 8), 10),
        (cut("sequences", 3), 10),
        (flip("places"), 10),
        (flip("sequences"), 10),
    ],
)
@pytest.mark.parametrize("ratio", [0, 100])
def test_damaged_files_are_rebuilt_from_the_rows(
    damage: Callable[[Path], None], read: int, ratio: int
) -> None:
    """A file that is missing, short or rotten is not believed: a wrong number would give a tag twice."""
    with tiny(1, ratio) as folder:
        saved(folder, ENTRIES, 5)
        damage(folder)
        cache, count = loaded(folder, ENTRIES)
        assert count == read
        assert_right(cache, ENTRIES)
        cache.save(Rows(ENTRIES).root(), force=True)
        assert_right(loaded(folder, ENTRIES)[0], ENTRIES)


def test_files_of_another_history_are_not_used() -> None:
    """Caches of a log that went another way, or further, say nothing about this one."""
    other = history(3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3)
    with tiny(1, 0) as folder:
        saved(folder, other, 5)
        for entries in (ENTRIES, other[:4]):
            cache, read = loaded(folder, entries)
            assert read == len(entries)
            assert_right(cache, entries)
            cache.save(Rows(entries).root(), force=True)
            assert_right(loaded(folder, entries)[0], entries)
