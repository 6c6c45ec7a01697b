"""Power fails at each call, and the disk keeps what it likes of what was not synced.

For whole files: the old bytes or the new ones, never anything else.  For the seal: never less than was sealed, and a
log that was never sealed can begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from archive import IntegrityError, Seal, SealFile, write_whole
from archive.seal import FILE_SIZE, SLOTS
from tests.disk import PowerLost, SimDisk

LOTS = 60
FILE = "/data/keys/log.key"
SEAL = "/data/log/seal"
OLD, NEW = b"o" * 1_300, b"n" * 2_900
ROOTS = [bytes([number]) * 32 for number in range(9)]


def every_power_cut(
    begin: Callable[[], SimDisk], act: Callable[[SimDisk], None], without: frozenset[str] = frozenset()
) -> Iterator[tuple[SimDisk, SimDisk]]:
    """Yield the disk before and after a power cut at each call of `act`, with many lots; last after the end."""
    number, cut = 0, True
    while cut:
        number += 1
        disk = begin()
        disk.fail_at, disk.calls, disk.without = number, [], without
        try:
            act(disk)
            cut = False
        except PowerLost:
            pass
        for lot in range(LOTS):
            yield disk, disk.power_lost(Random(lot))


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[[SimDisk], None]:
    """Return the act of writing the new file."""

    def act(disk: SimDisk) -> None:
        with disk.installed(monkeypatch):
            write_whole(Path(FILE), NEW)

    return act


def old_file() -> SimDisk:
    """Return a disk with the old file."""
    disk = SimDisk()
    file = disk._file(disk.open(FILE, 0o101))
    file.write(0, OLD)
    file.sync()
    disk.synced = dict(disk.seen)
    return disk


def test_a_file_is_old_or_new_whenever_power_fails(write: Callable[[SimDisk], None]) -> None:
    """Whatever the disk kept, the file is whole; once `write_whole` has returned, it is the new one."""
    found = set()
    for disk, after in every_power_cut(old_file, write):
        content = after.content(FILE)
        assert content in {OLD, NEW}
        done = len(disk.calls) < disk.fail_at
        assert content == NEW or not done, "what was written is gone"
        found.add((content, done))
    assert found == {(OLD, False), (NEW, False), (NEW, True)}


@pytest.mark.parametrize("without", ["file", "folder"])
def test_each_sync_is_needed(write: Callable[[SimDisk], None], without: str) -> None:
    """Leave out the sync of the file, or that of the folder, and this page notices: it does bite."""
    broken = 0
    for disk, after in every_power_cut(old_file, write, frozenset({without})):
        content, done = after.content(FILE), len(disk.calls) < disk.fail_at
        broken += content not in {OLD, NEW} or (done and content != NEW)
    assert broken > 10


# --- the seal ------------------------------------------------------------------------------------


def sealing(count: int, monkeypatch: pytest.MonkeyPatch, told: list[int]) -> Callable[[SimDisk], None]:
    """Return the act of opening the seal and sealing sizes 0, 1, …; `told` notes what was sealed."""

    def act(disk: SimDisk) -> None:
        told.clear()
        with disk.installed(monkeypatch):
            seal = SealFile(Path(SEAL))
            for size in range(count):
                seal.write(size, ROOTS[size], size)
                told.append(size)

    return act


def read(disk: SimDisk, monkeypatch: pytest.MonkeyPatch) -> Seal | None:
    """Return the seal that a start finds."""
    with disk.installed(monkeypatch):
        seal = SealFile(Path(SEAL))
        found = seal.last
        seal.write(8, ROOTS[8], 8)
        again = SealFile(Path(SEAL)).last
    assert again is not None
    assert again.size == 8, "after a power cut the seal goes on"
    return found


def test_what_was_sealed_is_found_whenever_power_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start finds the last seal or the one under way, never less; and before the first one it can begin."""
    told: list[int] = []
    outcomes = set()
    for _, after in every_power_cut(SimDisk, sealing(4, monkeypatch, told)):
        seal = read(after, monkeypatch)
        size = -1 if seal is None else seal.size
        last = told[-1] if told else -1
        assert last <= size <= last + 1
        outcomes.add(size - last)
    assert outcomes == {0, 1}


def test_the_very_first_seal_may_be_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at each byte, the first seal reads as none: nothing was committed after it, so a start goes on."""
    whole = SimDisk()
    sealing(1, monkeypatch, [])(whole)
    content = whole.content(SEAL)
    assert content is not None
    at = SLOTS[1]
    for cut in range(96):
        disk = SimDisk()
        with disk.installed(monkeypatch):
            file = disk._file(disk.open(SEAL, 0o101))
            file.write(0, content[: at + cut].ljust(FILE_SIZE, b"\0"))
            seal = SealFile(Path(SEAL))
            assert seal.last is None, cut
            seal.write(0, ROOTS[0], 0)
            assert SealFile(Path(SEAL)).last == Seal(1, 0, ROOTS[0], 0)


def test_a_seal_that_is_not_synced_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sync, what was sealed can be less after a power cut: this page bites."""
    told: list[int] = []
    less = 0
    for _, after in every_power_cut(SimDisk, sealing(4, monkeypatch, told), frozenset({"file"})):
        with suppress(IntegrityError):
            seal = read(after, monkeypatch)
            less += (-1 if seal is None else seal.size) < (told[-1] if told else -1)
    assert less > 10
