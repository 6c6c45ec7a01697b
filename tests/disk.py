"""A disk that loses power: it remembers what was synced, and for the rest draws a lot.

`SimDisk` has those calls of `os` through which `archive.files` and `archive.seal` touch a file system, and takes
the place of `os` in them.  Names and contents are kept twice, as seen and as synced.  When power fails,

- each name whose folder was not synced since keeps its old file or the new one, each by its own lot;
- each sector (512 bytes) written since its file's last sync is old or new, and one of them torn at any byte;
- a file that grew without a sync has its old length or the new one, holes full of zeros.

    with disk.installed(monkeypatch): write_whole(Path("/d/a"), b"new")
    after = disk.power_lost(random)          # another disk, as one finds it in the morning

The calls are numbered, and number `fail_at` raises PowerLost before it does anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from archive import files, seal

SECTOR = 512


class PowerLost(BaseException):
    """The lights went out; no `except Exception` or `OSError` survives it."""


@dataclass
class _File:
    """A file as it is seen, as it is synced, and which sectors differ by more than a look tells."""

    seen: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    dirty: set[int] = field(default_factory=set)

    def write(self, at: int, data: bytes) -> None:
        """Write, to the cache only."""
        if at > len(self.seen):
            self.seen.extend(bytes(at - len(self.seen)))
        self.seen[at : at + len(data)] = data
        self.dirty |= set(range(at // SECTOR, -(-(at + len(data)) // SECTOR)))

    def sync(self) -> None:
        """Make what is seen durable."""
        self.synced = bytes(self.seen)
        self.dirty.clear()

    def after(self, random: Random) -> _File:
        """Return the file as it is found after a power cut."""
        length = random.choice((len(self.synced), len(self.seen)))
        found = bytearray(self.synced[:length].ljust(length, b"\0"))
        torn = random.choice([*self.dirty, None])
        for sector in sorted(self.dirty):
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, length)
            cut = random.randrange(SECTOR + 1) if sector == torn else random.choice((0, SECTOR))
            stop = min(start + cut, end)
            if start < stop:
                found[start:stop] = self.seen[start:stop]
        return _File(bytearray(found), bytes(found))


@dataclass
class SimDisk:
    """Names and files, seen and synced; see the module."""

    fail_at: int = 0
    calls: list[str] = field(default_factory=list)
    seen: dict[str, _File] = field(default_factory=dict)
    synced: dict[str, _File] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    """Calls that are left out, to see that somebody notices."""
    _open: dict[int, str | _File] = field(default_factory=dict)
    _next: int = 1_000
    _position: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Let the modules that touch files touch these."""
        with monkeypatch.context() as patch:
            for module in (files, seal):
                patch.setattr(module, "os", self)
            yield

    def power_lost(self, random: Random) -> SimDisk:
        """Return the disk as it is found after a power cut at this moment."""
        found: dict[str, _File] = {}
        kept: dict[int, _File] = {}
        for name in sorted(self.seen.keys() | self.synced.keys()):
            file = random.choice((self.seen, self.synced)).get(name)
            if file is not None:
                found[name] = kept.setdefault(id(file), file.after(random))
        return SimDisk(seen=found, synced=dict(found))

    def content(self, name: str) -> bytes | None:
        """Return what a file holds, or None if there is none."""
        file = self.seen.get(name)
        return None if file is None else bytes(file.seen)

    # --- the calls of `os` -----------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Constants and helpers are those of `os`."""
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """Open a file or a folder."""
        del mode
        name = str(path)
        self._step(f"open {name}")
        self._next += 1
        if flags & os.O_DIRECTORY:
            self._open[self._next] = name
            return self._next
        if name not in self.seen:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "No such file", name)
            self.seen[name] = _File()
        file = self.seen[name]
        if flags & os.O_TRUNC and file.seen:
            file.dirty |= set(range(-(-len(file.seen) // SECTOR)))
            file.seen.clear()
        self._open[self._next], self._position[self._next] = file, 0
        return self._next

    def close(self, descriptor: int) -> None:
        """Close; the power may be off already."""
        del self._open[descriptor]

    def fstat(self, descriptor: int) -> Any:
        """Return the size."""
        return SimpleNamespace(st_size=len(self._file(descriptor).seen))

    def pread(self, descriptor: int, size: int, at: int) -> bytes:
        """Read."""
        return bytes(self._file(descriptor).seen[at : at + size])

    def write(self, descriptor: int, data: Any) -> int:
        """Write at the position, at most two sectors and a bit: a short write is no error."""
        part = bytes(data)[: 2 * SECTOR + 100]
        self._step("write")
        self._file(descriptor).write(self._position[descriptor], part)
        self._position[descriptor] += len(part)
        return len(part)

    def pwrite(self, descriptor: int, data: bytes, at: int) -> int:
        """Write at a place."""
        self._step("pwrite")
        self._file(descriptor).write(at, data)
        return len(data)

    def posix_fallocate(self, descriptor: int, at: int, size: int) -> None:
        """Make a file longer."""
        self._step("posix_fallocate")
        file = self._file(descriptor)
        file.seen.extend(bytes(max(0, at + size - len(file.seen))))

    def fdatasync(self, descriptor: int) -> None:
        """Sync a file."""
        self._sync("fdatasync", descriptor)

    def fsync(self, descriptor: int) -> None:
        """Sync a file, or the names in a folder."""
        self._sync("fsync", descriptor)

    def rename(self, old: Any, new: Any) -> None:
        """Give a file another name."""
        self._step("rename")
        self.seen[str(new)] = self.seen.pop(str(old))

    def unlink(self, path: Any) -> None:
        """Remove a name."""
        self._step("unlink")
        self.seen.pop(str(path), None)

    def _sync(self, call: str, descriptor: int) -> None:
        target = self._open[descriptor]
        kind = "folder" if isinstance(target, str) else "file"
        self._step(f"{call} {kind}")
        if kind in self.without:
            return
        if isinstance(target, _File):
            target.sync()
            return
        here = {name for name in self.seen.keys() | self.synced.keys() if str(Path(name).parent) == target}
        for name in here:
            if name in self.seen:
                self.synced[name] = self.seen[name]
            else:
                self.synced.pop(name)

    def _file(self, descriptor: int) -> _File:
        file = self._open[descriptor]
        assert isinstance(file, _File)
        return file

    def _step(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) == self.fail_at:
            raise PowerLost(f"at call {self.fail_at}: {call}")
