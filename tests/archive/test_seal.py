"""The seal: a database that is older than what was signed is refused, whatever the way it became old."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from archive import (
    IntegrityError,
    LmdbStore,
    Locked,
    MemorySeal,
    MemoryStore,
    Receipt,
    Seal,
    SealFile,
    StorageFailed,
    Store,
    Unavailable,
    Write,
    newest_seal,
    take_lock,
)
from archive.plan import APPEND_TABLES, TABLES
from archive.seal import FILE_SIZE, SLOT_SIZE, SLOTS, encode_seal
from archive.vault import TABLES as VAULT_TABLES
from tests.archive.site import Site, event
from tests.checker import table

ROOTS = [bytes([number]) * 32 for number in range(9)]


def copy(store: Store, tables: Sequence[str]) -> Store:
    """Return a store with the same content, as a backup has it."""
    backup = MemoryStore(tables)
    backup.commit([Write(name, *pair) for name in tables for pair in table(store, name)])
    return backup


def test_a_database_behind_its_seal_is_refused() -> None:
    """A restored backup must never go on under the same name; the message says so, and nothing is written."""
    site = Site()
    site.start().step([event(b"1")])
    backup = copy(site.log, TABLES)
    site.start().step([event(b"2")])
    sealed = site.seal.last
    site.log = backup
    for _ in range(2):
        with pytest.raises(
            IntegrityError, match="has 3 entries, but 5 were signed and sealed: it is an older copy"
        ):
            site.start()
    assert (len(table(site.log, "blocks")), site.seal.last) == (2, sealed)


def test_an_empty_database_behind_a_seal_is_refused() -> None:
    """Losing the whole database is no reason to begin anew."""
    site = Site()
    site.start()
    site.log = MemoryStore(TABLES)
    with pytest.raises(IntegrityError, match="has 0 entries, but 2 were"):
        site.start()


def test_a_database_ahead_of_its_seal_goes_on() -> None:
    """After a crash between commit and seal the database is ahead, and what it holds is kept and sealed."""
    site = Site()
    archiver = site.start()
    old = site.seal.last
    archiver.step([event(b"1")])
    site.seal.last = old
    site.published.set(2)
    archiver = site.start()
    assert archiver.step([event(b"2")]) == [Receipt(4, 5)]
    assert [entry.payload for entry in site.events()] == [b"1", b"2"]
    assert site.published.get() == site.seal.last.size == 5  # type: ignore[union-attr]


def test_a_database_with_another_history_is_refused() -> None:
    """A database of the right size with other entries is not the one that was sealed."""
    site, other = Site(), Site()
    site.start().step([event(b"1")])
    other.clock.time_us += 10**6
    other.start().step([event(b"1"), event(b"2")])
    site.log, site.vault = other.log, other.vault
    with pytest.raises(IntegrityError, match="first 3 entries are not those that were sealed"):
        site.start()


def test_a_log_without_a_seal_is_refused() -> None:
    """The seal is written before the first commit; a log without one has lost it."""
    site = Site()
    site.start()
    site.seal = MemorySeal()
    with pytest.raises(IntegrityError, match="no seal"):
        site.start()


def test_each_start_seals_what_it_found() -> None:
    """The seal never lags behind what a start publishes."""
    site = Site()
    site.start()
    assert site.seal.last is not None
    assert (site.seal.last.size, site.seal.last.block) == (2, 0)
    site.start()
    assert (site.seal.last.size, site.seal.last.block) == (3, 1)


# --- the file ------------------------------------------------------------------------------------


def sealed(path: Path, count: int) -> list[bytes]:
    """Write `count` seals to a file, sizes 1, 2, …; return the file's bytes after each."""
    seal, states = SealFile(path), []
    for number in range(1, count + 1):
        seal.write(number, ROOTS[number], number - 1)
        states.append(path.read_bytes())
    seal.close()
    return states


def test_a_seal_file_gives_back_the_newest(tmp_path: Path) -> None:
    """After reopening, the last seal written counts, and turns go on."""
    path = tmp_path / "seal"
    for number in range(1, 6):
        seal = SealFile(path)
        seal.write(number, ROOTS[number], number)
        seal.close()
        assert SealFile(path).last == Seal(number, number, ROOTS[number], number)
    assert path.stat().st_size == FILE_SIZE
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_seal_file_is_empty(tmp_path: Path) -> None:
    """Before the first write there is no seal, also where the first open was killed."""
    assert SealFile(tmp_path / "seal").last is None
    assert SealFile(tmp_path / "seal").last is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_torn_slot_costs_the_newest_seal_only(tmp_path: Path, count: int) -> None:
    """However much of a slot was written when power failed, the seal before it is found; none before the first."""
    path = tmp_path / "seal"
    before, after = [bytes(FILE_SIZE), *sealed(path, count)][-2:]
    at = SLOTS[count % 2]
    old, new = before[at : at + SLOT_SIZE], after[at : at + SLOT_SIZE]
    assert after == before[:at] + new + before[at + SLOT_SIZE :], "a write touches one slot"
    for cut in range(1, SLOT_SIZE):
        torn = bytearray(after)
        torn[at : at + SLOT_SIZE] = new[:cut] + old[cut:]
        path.write_bytes(torn)
        seal = SealFile(path)
        size = count if new[:cut] + old[cut:] == new else count - 1
        assert (seal.last.size if seal.last else 0) == size, cut
        seal.write(7, ROOTS[7], 6)
        seal.close()
        assert newest_seal(path.read_bytes()) == Seal(size + 1, 7, ROOTS[7], 6)


@pytest.mark.parametrize("count", [2, 3])
def test_a_torn_sector_of_4096_bytes_costs_the_newest_seal_only(tmp_path: Path, count: int) -> None:
    """A drive that loses the whole 4 KiB around a write still has the seal before."""
    path = tmp_path / "seal"
    state = bytearray(sealed(path, count)[-1])
    at = SLOTS[count % 2] // 4096 * 4096
    state[at : at + 4096] = b"?" * len(state[at : at + 4096])
    path.write_bytes(state)
    last = SealFile(path).last
    assert last is not None
    assert last.size == count - 1


def test_a_seal_file_of_the_old_layout_goes_on(tmp_path: Path) -> None:
    """Files whose second slot lay at 512 are read; the first write leaves the newest slot alone."""
    path = tmp_path / "seal"
    for turn in (4, 5):
        slots = {one % 2: encode_seal(Seal(one, one, ROOTS[one], one)) for one in (turn - 1, turn)}
        path.write_bytes(slots[0] + slots[1])
        seal = SealFile(path)
        assert seal.last == Seal(turn, turn, ROOTS[turn], turn)
        seal.write(6, ROOTS[6], 6)
        assert path.read_bytes()[:1024] == slots[0] + slots[1]
        seal.write(7, ROOTS[7], 7)
        seal.close()
        assert SealFile(path).last == Seal(turn + 2, 7, ROOTS[7], 7)


def test_two_damaged_slots_are_refused(tmp_path: Path) -> None:
    """No seal at all where there was one is damage, and nobody may begin anew over it."""
    path = tmp_path / "seal"
    state = bytearray(sealed(path, 2)[-1])
    for at in SLOTS:
        state[at + 40] ^= 1
    path.write_bytes(state)
    with pytest.raises(IntegrityError, match="both slots of the seal are damaged"):
        SealFile(path)


def test_a_full_disk_has_room_for_the_seal(tmp_path: Path) -> None:
    """The file has all its blocks from the start, so that no seal needs space that may be gone."""
    path = tmp_path / "seal"
    SealFile(path).close()
    assert (path.stat().st_size, path.stat().st_blocks * 512 >= FILE_SIZE) == (FILE_SIZE, True)


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_a_seal_without_space_stops_until_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What is kept and not sealed is answered by nobody: the archiver ends, and a new start finds it."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "seal"
    site, seal = Site(), SealFile(path)
    site.seal = seal
    archiver = site.start()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(Unavailable, match="no space left for the seal"):
            archiver.step([event(b"1")])
    assert archiver.failed
    with pytest.raises(StorageFailed, match="stopped"):
        archiver.step([event(b"2")])
    seal.close()
    site.seal = SealFile(path)
    site.start()
    assert [entry.payload for entry in site.events()] == [b"1"]


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_a_failed_sync_is_storage_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """An I/O error under the seal stops the archiver: it cannot be known what the disk kept."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    path = tmp_path / "seal"
    site, seal = Site(), SealFile(path)
    site.seal = seal
    archiver = site.start()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageFailed, match="Input/output error"):
            archiver.step([event(b"1")])
    with pytest.raises(StorageFailed, match="stopped"):
        archiver.step([event(b"2")])
    seal.close()
    site.seal = SealFile(path)
    site.start()
    assert [entry.payload for entry in site.events()] == [b"1"]


def test_one_log_has_one_archiver(tmp_path: Path) -> None:
    """The second one is told so, until the first ends."""
    first = take_lock(tmp_path / "lock")
    for _ in range(2):
        with pytest.raises(Locked, match="another archiver writes this log"):
            take_lock(tmp_path / "lock")
    os.close(first)
    os.close(take_lock(tmp_path / "lock"))


def test_a_whole_log_on_disk(tmp_path: Path) -> None:
    """Seal file and LMDB together: three starts, and the judge finds nothing."""
    site = Site()
    for number in range(3):
        log = LmdbStore(tmp_path / "log", TABLES, append=APPEND_TABLES)
        vault = LmdbStore(tmp_path / "vault", VAULT_TABLES)
        site.log, site.vault, site.seal = log, vault, SealFile(tmp_path / "seal")
        site.start().step([event(b"%d %d" % (number, one)) for one in range(300)])
        assert len(site.events()) == 300 * (number + 1)
        for one in (log, vault, site.seal):
            one.close()
