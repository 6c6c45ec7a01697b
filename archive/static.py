"""A log as plain files that any web server or bucket can serve, brought up to date again and again.

    DIR/checkpoint                the newest exported checkpoint, always written last
    DIR/tile/...                  tiles and bundles, in the paths of C2SP tlog-tiles

Whoever reads the checkpoint must find every tile of its size.  So an export is a row of stages, each of which ends
at a signed size: write its files under other names, sync each, rename it, sync every folder on the way to it, and
only then replace the checkpoint in the same four steps.  After a crash or a power cut at any point the old checkpoint
or the new one is there, with all that belongs to it, and the next export goes on from it.  Where witnesses must have
signed as well, few sizes may be shown: then the checkpoint is replaced once, at the end.

A folder is synced even if it was there before: an export that was killed may have made it and not synced it.

What a tile holds is `archive.tiles`; the command is `tools.export`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from archive.errors import IntegrityError, Locked, StorageFailed, Unavailable
from archive.files import NO_SPACE, make_folder, sync_folder
from archive.log import Log, LogSource
from archive.tiles import read_bundle, read_tile
from merkle import (
    TILE_WIDTH,
    Bundle,
    Checkpoint,
    MerkleError,
    Tile,
    tile_rows,
    tiles_between,
)

CHECKPOINT: Final = "checkpoint"
STAGE_ENTRIES: Final = 65_536
FILES_AT_ONCE: Final = 64


class Disk(Protocol):
    """The calls through which an export touches a folder; names are relative, "" is the folder itself."""

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None."""

    def make_folder(self, name: str) -> None:
        """Make a folder whose parent exists; do nothing if it is there."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file; a power cut may still lose or tear it."""

    def sync(self, name: str) -> None:
        """Make the bytes of a file that was just written durable, not its name."""

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`, in the same folder, at once; a power cut may still undo it."""

    def sync_folder(self, name: str) -> None:
        """Make the names in a folder durable."""

    def remove(self, name: str) -> None:
        """Remove a folder that holds files only; do nothing if it is not there."""


@dataclass
class Exported:
    """What an export did: it found `before` entries, there are `size` now, in so many new files and bytes."""

    before: int = 0
    size: int = 0
    files: int = 0
    bytes: int = 0


def export_tiles(
    source: LogSource,
    size: int,
    disk: Disk,
    *,
    note: bytes | None = None,
    stage_entries: int = STAGE_ENTRIES,
    progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Bring a static log up to `size`, a published one, and say what was done.

    `note` is the checkpoint of that size as the outside should see it, with cosignatures: then no stage before the last
    ends with a checkpoint, since none but this one may be shown.  By default each ends with the log's own.  `progress`
    is called with the entries of each stage.  Raises IntegrityError if the folder holds another log, or one that this
    log does not continue; what is there already is then left alone.
    """
    found = disk.read(CHECKPOINT)
    with source.open(size) as log:
        old = exported_size(log, found)
    disk.sync_folder("")  # a killed export may have put the checkpoint there and not synced it
    done, edges = Exported(before=old, size=old), list[int]()
    while done.size < size:
        with source.open(size) as log:
            stop, own = log.covering(min(done.size + stage_entries, size) - 1)
        _put_files(source, done, stop, disk)
        edges.append(done.size)
        if note is None or stop == size:
            found = note or own
            _put_checkpoint(disk, found)
            while edges:
                _remove_outgrown(disk, edges.pop(), stop)
        progress(stop - done.size)
        done.size = stop
    if note is not None and note != found:
        _put_checkpoint(disk, note)  # the same size, cosigned by others meanwhile
    return done


def exported_size(log: Log, note: bytes | None) -> int:
    """Return the size of the static log whose checkpoint is `note`, 0 for None.

    Raises IntegrityError unless it is a beginning of this log.  No key is needed: the roots are compared.
    """
    if note is None:
        return 0
    try:
        checkpoint = _unsigned(note)
    except (MerkleError, UnicodeDecodeError) as error:
        raise IntegrityError(f"the folder holds a damaged log: {error}; name an empty one") from None
    _check_prefix(log, checkpoint)
    return checkpoint.size


def files_between(old: int, new: int) -> Iterator[Tile | Bundle]:
    """Yield the tiles and bundles that a static log of size `new` has and one of size `old` has not."""
    for tile in tiles_between(old, new):
        yield tile
        if tile.level == 0:
            yield Bundle(tile.index, tile.width)


class FolderDisk:
    """A Disk on a real folder, which is made if it is missing; one export at a time.

    Raises Locked while another export writes there.  Files are made readable for everybody, as far as the umask
    lets them: what is here is public.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path, mode=0o755)
        self._path = path
        self._open: dict[str, int] = {}
        self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Locked(f"{path}: another export writes here; wait for it to end") from None

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def make_folder(self, name: str) -> None:
        """Make a folder whose parent exists."""
        try:
            (self._path / name).mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise _translated(error, self._path / name) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file, and keep it open for `sync`: an error that comes late must reach the same descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            descriptor = self._open[name] = os.open(self._path / name, flags, 0o644)
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            raise _translated(error, self._path / name) from error

    def sync(self, name: str) -> None:
        """Make the bytes of a file durable."""
        descriptor = self._open.pop(name)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _translated(error, self._path / name) from error
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`."""
        try:
            os.rename(self._path / old, self._path / new)
        except OSError as error:
            raise _translated(error, self._path / new) from error

    def sync_folder(self, name: str) -> None:
        """Make the names in a folder durable."""
        try:
            sync_folder(self._path / name)
        except OSError as error:
            raise _translated(error, self._path / name) from error

    def remove(self, name: str) -> None:
        """Remove a folder that holds files only."""
        folder = self._path / name
        with suppress(FileNotFoundError):
            for file in folder.iterdir():
                file.unlink(missing_ok=True)
            folder.rmdir()

    def close(self) -> None:
        """Let the next export write."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        os.close(self._lock)


def _unsigned(note: bytes) -> Checkpoint:
    return Checkpoint.decode(note.decode().partition("\n\n")[0] + "\n")


def _check_prefix(log: Log, checkpoint: Checkpoint) -> None:
    origin = _unsigned(log.checkpoint()[1]).origin
    if checkpoint.origin != origin:
        raise IntegrityError(f"the folder holds the log {checkpoint.origin}, not {origin}; name an empty one")
    if checkpoint.size > log.size:
        raise IntegrityError(
            f"the folder holds {checkpoint.size} entries, but only {log.size} can be shown: the log was set back; "
            "run verify-log"
        )
    if log.root(checkpoint.size) != checkpoint.root:
        raise IntegrityError(
            f"the log does not continue the {checkpoint.size} entries in the folder, though it has their name; "
            "keep the folder as evidence, and run verify-log"
        )


def _put_files(source: LogSource, done: Exported, stop: int, disk: Disk) -> None:
    """Write the files of a stage, then sync every folder that leads to one of them."""
    folders: dict[str, None] = {}
    places = files_between(done.size, stop)
    while part := list(islice(places, FILES_AT_ONCE)):
        for name, data in _read_files(source, stop, part):
            _make_folders(disk, name, folders)
            _put(disk, name, data)
            done.files += 1
            done.bytes += len(data)
    for folder in reversed(folders):
        disk.sync_folder(folder)


def _read_files(source: LogSource, size: int, places: Sequence[Tile | Bundle]) -> list[tuple[str, bytes]]:
    """Return some files' bytes; the view ends before the slow part, so that it pins no pages."""
    with source.open(size) as log:
        return [
            (place.path(), read_tile(log, place) if isinstance(place, Tile) else read_bundle(log, place))
            for place in places
        ]


def _make_folders(disk: Disk, name: str, folders: dict[str, None]) -> None:
    parents = ["" if parent == PurePosixPath() else str(parent) for parent in PurePosixPath(name).parents]
    for folder in reversed(parents):
        if folder not in folders:
            if folder:
                disk.make_folder(folder)
            folders[folder] = None


def _put(disk: Disk, name: str, data: bytes) -> None:
    """Write a file whole: until its folder is synced, the old file or the new one is there."""
    temporary = f"{name}.tmp"
    disk.write(temporary, data)
    disk.sync(temporary)
    disk.rename(temporary, name)


def _put_checkpoint(disk: Disk, note: bytes) -> None:
    _put(disk, CHECKPOINT, note)
    disk.sync_folder("")


def _remove_outgrown(disk: Disk, old: int, new: int) -> None:
    """Remove the partial tiles of the old right-hand edge whose full tile is there now (C2SP allows it)."""
    for row in tile_rows(old):
        full_at = (row.full + 1) * TILE_WIDTH ** (row.level + 1)
        if row.partial and new >= full_at:
            disk.remove(f"{Tile(row.level, row.full).path()}.p")
            if row.level == 0:
                disk.remove(f"{Bundle(row.full).path()}.p")


def _translated(error: OSError, path: Path) -> Exception:
    if error.errno in NO_SPACE:
        return Unavailable(f"{path}: no space left; make room and export again, what was there still stands")
    return StorageFailed(f"{path}: {error.strerror}; what was exported before still stands")
