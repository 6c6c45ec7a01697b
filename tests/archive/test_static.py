"""A static log can be verified at every moment, whatever the power does; and it is the log that is served."""

from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from archive import (
    Exported,
    FolderDisk,
    IntegrityError,
    Locked,
    StorageFailed,
    Unavailable,
    export_tiles,
    files_between,
    read_bundle,
    read_tile,
)
from archive.static import CHECKPOINT
from merkle import Bundle, Tile, encode_bundle, tiles_between
from tests.archive.published_log import SignedLog, reference_levels
from tests.archive.static_disk import Folder, StaticDisk, Stopped

SIZES = (1, 90, 255, 300, 700, 1_100)
SEEDS = 200


@cache
def signed() -> SignedLog:
    """Return a log of 1,100 entries in six commits."""
    return SignedLog.of(SIZES)


@cache
def levels() -> list[list[bytes]]:
    """Return its hashes by the reference."""
    return reference_levels(leaves())


@cache
def leaves() -> list[bytes]:
    """Return its leaves."""
    return signed().leaves()


@cache
def notes() -> dict[bytes, int]:
    """Return its signed checkpoints, and the size that each is of."""
    with signed().open(SIZES[-1]) as log:
        return {note: size for size, note in log.checkpoints()}


def export(disk: StaticDisk, size: int, stage_entries: int = 400) -> Exported:
    """Bring a disk up to a size, by default in stages smaller than the log."""
    return export_tiles(signed().source, size, disk, stage_entries=stage_entries)


def faults(disk: StaticDisk, least: int) -> list[str]:
    """Return what a verifier finds wrong with a static log that once was at size `least`, a line each."""
    note = disk.file(CHECKPOINT)
    if note is None:
        return ["the checkpoint is gone"] if least else []
    size = notes().get(note)
    if size is None:
        return ["the checkpoint is damaged"]
    if size < least:
        return [f"the checkpoint is of size {size}, after {least}"]
    found = []
    for tile in tiles_between(0, size):
        start = tile.index * 256
        if disk.file(tile.path()) != b"".join(levels()[tile.level][start : start + tile.width]):
            found.append(f"{tile.path()} is missing or wrong")
        bundle = Bundle(tile.index, tile.width)
        if tile.level == 0 and disk.file(bundle.path()) != encode_bundle(
            leaves()[start : start + tile.width]
        ):
            found.append(f"{bundle.path()} is missing or wrong")
    return found


def test_an_export_is_the_log_that_is_served() -> None:
    """Every file is byte for byte the tile or bundle of the log, and the checkpoint is the log's own."""
    disk = StaticDisk()
    done = export(disk, 1_100)
    assert (done.before, done.size) == (0, 1_100)
    with signed().open(1_100) as log:
        for place in files_between(0, 1_100):
            data = read_tile(log, place) if isinstance(place, Tile) else read_bundle(log, place)
            assert disk.file(place.path()) == data
        assert disk.file(CHECKPOINT) == log.checkpoint()[1]
    assert faults(disk, 1_100) == []


def test_a_second_export_writes_only_what_is_new() -> None:
    """From 700 to 1,100: the rest of the third tile, two further ones, level 1, with bundles; then nothing."""
    disk = StaticDisk()
    export(disk, 700)
    done = export(disk, 1_100)
    assert (done.before, done.size, done.files) == (700, 1_100, 7)
    calls = disk.calls
    again = export(disk, 1_100)
    assert (again.files, again.bytes, disk.calls) == (0, 0, calls + 2)
    assert faults(disk, 1_100) == []


def test_outgrown_partial_tiles_go_after_the_full_one_is_there() -> None:
    """What is full is no longer kept in parts; the parts of the newest size stay."""
    disk = StaticDisk()
    for size in SIZES:
        export(disk, size)
    assert disk.file(Bundle(0, 90).path()) is None
    assert disk.file(Tile(0, 1, 44).path()) is None
    assert disk.file(Tile(0, 0).path()) is not None
    assert disk.file(Tile(0, 4, 76).path()) is not None


def test_no_partial_tile_ever_stands_in_the_place_of_a_full_one() -> None:
    """A file at the path of a full tile has 8,192 bytes, at every size on the way."""
    disk = StaticDisk()
    for size in SIZES:
        export(disk, size)
        for level in (0, 1):
            for index in range(5):
                data = disk.file(Tile(level, index).path())
                assert data is None or len(data) == 8_192


def one_lot(seed: int, without: frozenset[str] = frozenset()) -> list[str]:
    """Return what is wrong after exports of a growing log, each stopped at a random call or not at all.

    After each the machine loses power, or only the process is killed.  What must stay is what an export has
    finished, and what was seen at the beginning of a later one.
    """
    random, disk, size, least = Random(seed), StaticDisk(), 0, 0
    for _ in range(5):
        size = random.choice([one for one in SIZES if one >= size])
        disk.fail_at, disk.calls, disk.without = random.randrange(1, 120), 0, without
        try:
            least = export(disk, size, random.choice((1, 256, 9_999))).size
        except Stopped:
            pass
        except IntegrityError as error:
            return [str(error)]
        disk = disk.killed() if random.random() < 0.4 else disk.power_lost(random)
        if found := faults(disk, least):
            return found
    disk.without = without
    export(disk, SIZES[-1])
    return faults(disk, SIZES[-1])


def test_power_cuts_and_kills_leave_a_log_that_verifies() -> None:
    """At 200 seeds: the checkpoint never goes back, every tile of its size is there, and the next export goes on."""
    assert {seed: found for seed in range(SEEDS) if (found := one_lot(seed))} == {}


@pytest.mark.parametrize("without", ["sync", "sync_folder"])
def test_a_step_left_out_is_noticed(without: str) -> None:
    """The same lots find an export that does not sync its files, or its folders: the test above can fail."""
    assert sum(1 for seed in range(SEEDS) if one_lot(seed, frozenset({without}))) > SEEDS // 4


def test_a_checkpoint_that_a_killed_export_left_is_made_durable_by_the_next() -> None:
    """Killed between rename and sync: the new checkpoint is seen, and once a later export began it stays."""
    left = [disk for at in range(1, 200) if (disk := killed_at(at)) is not None]
    unsynced = [disk for disk in left if disk.root.seen[CHECKPOINT] is not disk.root.synced[CHECKPOINT]]
    assert len(unsynced) == 1, "there is one call between the rename and the sync"
    (disk,) = unsynced
    assert faults(disk, 700) == []
    export(disk, 700)
    assert all(faults(disk.power_lost(Random(seed)), 700) == [] for seed in range(50))


def killed_at(at: int) -> StaticDisk | None:
    """Return the disk after an export from 300 to 700 was killed at a call, or None if it ended before."""
    disk = StaticDisk()
    export(disk, 300)
    disk.fail_at, disk.calls = at, 0
    try:
        export(disk, 700)
    except Stopped:
        return disk.killed()
    return None


def names(folder: Folder) -> set[str]:
    """Return the paths of all files below a folder."""
    found = set()
    for name, entry in folder.seen.items():
        found |= {f"{name}/{below}" for below in names(entry)} if isinstance(entry, Folder) else {name}
    return found


def test_where_one_checkpoint_may_be_shown_no_other_ever_is() -> None:
    """Stopped at any call from 300 to 1,100 entries: the old or the cosigned one, with all that belongs to it."""
    with signed().open(1_100) as log:
        own = log.checkpoint()[1]
    cosigned, at, ended, disk = own + "— w AAAAAA==\n".encode(), 0, False, StaticDisk()
    while not ended:
        at, disk = at + 1, StaticDisk()
        export(disk, 300)
        disk.fail_at, disk.calls = at, 0
        with suppress(Stopped):
            export_tiles(signed().source, 1_100, disk, note=cosigned, stage_entries=256)
            ended = True
        left = disk.power_lost(Random(at))
        if left.file(CHECKPOINT) == cosigned:
            left.write(CHECKPOINT, own)
            assert faults(left, 1_100) == []
        else:
            assert notes()[left.file(CHECKPOINT) or b""] == 300
            assert faults(left, 300) == []
    assert disk.file(CHECKPOINT) == cosigned
    plain = StaticDisk()
    export(plain, 300)
    export(plain, 1_100, stage_entries=9_999)
    left_behind = names(disk.root) - names(plain.root)
    assert left_behind == {Tile(1, 0, 2).path()}, "a part of a tile that is not full yet stays, as ever"


@pytest.mark.parametrize("power", [True, False], ids=["power cut", "kill"])
def test_an_export_stopped_at_each_call_can_be_taken_up(power: bool) -> None:
    """One after the other, at every call from the first to the last; the old size or a newer one verifies."""
    at = 0
    while True:
        at += 1
        disk = StaticDisk()
        export(disk, 300)
        disk.fail_at, disk.calls = at, 0
        try:
            export(disk, 1_100)
        except Stopped:
            after = disk.power_lost(Random(at)) if power else disk.killed()
            assert faults(after, 300) == []
            export(after, 1_100)
            assert faults(after, 1_100) == []
            continue
        break
    assert at > 50, "the export had hardly any steps"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (SignedLog.of([300], origin="example.org/other"), "holds the log example.org/other"),
        (SignedLog.of([300], name="m"), "does not continue the 300 entries"),
        (SignedLog.of([1_300]), "only 1100 can be shown"),
    ],
    ids=["another log", "a fork", "a newer state"],
)
def test_a_folder_that_is_not_a_beginning_of_the_log_is_left_alone(other: SignedLog, reason: str) -> None:
    """Another log, a fork under the same name, or a newer state than ours: refused, and nothing is changed."""
    disk = StaticDisk()
    export_tiles(other.source, other.sizes[-1], disk)
    before = disk.calls
    with pytest.raises(IntegrityError, match=reason):
        export(disk, 1_100)
    assert disk.calls == before + 1, "something was touched"


def test_a_damaged_checkpoint_is_refused() -> None:
    """A folder whose checkpoint cannot be read is not taken for an empty one."""
    disk = StaticDisk()
    disk.write(CHECKPOINT, b"nonsense")
    with pytest.raises(IntegrityError, match="damaged"):
        export(disk, 300)


def test_on_a_real_disk_nothing_is_renamed_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is synced under its other name, then renamed; the checkpoint comes after all folders are synced."""
    calls = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(first: Any, *rest: Any) -> Any:
            path = Path(f"/proc/self/fd/{first}").readlink() if name == "fsync" else first
            calls.append((name, os.path.relpath(path, tmp_path)))
            return real(first, *rest)

        monkeypatch.setattr(os, name, call)

    spy("fsync")
    spy("rename")
    with closing(FolderDisk(tmp_path / "out")) as disk:
        export_tiles(signed().source, 300, disk)
    assert calls[0] == ("fsync", "."), "the folder itself is made durable"
    renames = [at for at, (name, _) in enumerate(calls) if name == "rename"]
    assert all(calls[at - 1] == ("fsync", calls[at][1]) for at in renames)
    last = renames[-1]
    assert calls[last][1] == f"out/{CHECKPOINT}.tmp"
    assert calls[last + 1 :] == [("fsync", "out")]
    folders = {path for name, path in calls[renames[-2] : last] if name == "fsync"}
    parents = {str(Path(path).parent) for name, path in calls[:last] if name == "rename"}
    assert folders >= {"out", "out/tile", *parents}


def test_a_full_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was exported is harmed, and the next export goes on when there is room again."""
    out = tmp_path / "out"
    with closing(FolderDisk(out)) as disk:
        export_tiles(signed().source, 300, disk)
    before = (out / CHECKPOINT).read_bytes()

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, closing(FolderDisk(out)) as disk:
        patch.setattr(os, "write", full)
        with pytest.raises(Unavailable, match="make room and export again"):
            export_tiles(signed().source, 1_100, disk)
    assert (out / CHECKPOINT).read_bytes() == before
    with closing(FolderDisk(out)) as disk:
        assert export_tiles(signed().source, 1_100, disk).before == 300


def test_a_failed_sync_is_not_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be known to be on the disk is not renamed, and no checkpoint speaks of it."""

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(FolderDisk(tmp_path)) as disk:
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(StorageFailed):
            export_tiles(signed().source, 300, disk)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("call", ["mkdir", "rename"])
def test_no_space_for_a_name_is_said_as_no_space_for_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A folder's own blocks can be what does not fit any more: the file is named, with what helps."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with closing(FolderDisk(tmp_path)) as disk:
        monkeypatch.setattr(os, call, full)
        with pytest.raises(Unavailable, match="no space left; make room and export again"):
            export_tiles(signed().source, 300, disk)


def test_a_real_folder_is_written_and_taken_up(tmp_path: Path) -> None:
    """The same on a real disk: readable files in new folders, taken up by a later export, one at a time."""
    out = tmp_path / "a" / "public"
    with closing(FolderDisk(out)) as disk:
        export_tiles(signed().source, 700, disk)
        with pytest.raises(Locked, match="another export"):
            FolderDisk(out)
    with closing(FolderDisk(out)) as disk:
        done = export_tiles(signed().source, 1_100, disk, stage_entries=1)
    assert done.before == 700
    model = StaticDisk()
    export(model, 700)
    export(model, 1_100)
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert all(model.file(name) == data for name, data in files.items())
    assert len(files) == 13
    assert (out / CHECKPOINT).stat().st_mode & 0o444 == 0o444
