"""A folder that loses power: the double of `archive.FolderDisk`, with folders inside folders.

Every folder keeps its names twice, as seen and as synced, and every file its bytes.  When power fails, each name that
was not synced is the old one or the new one, each by its own lot (a rename may keep its old name, its new one, both
or none), and each file that was not synced is empty, torn at some byte, or whole.  A folder whose own name is lost is
lost with all that is in it, however well that was synced.

    disk = StaticDisk(fail_at=7)
    try: export_tiles(source, size, disk)
    except Stopped: disk = disk.power_lost(Random(seed))        # or disk.killed(): nothing is lost
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random


class Stopped(BaseException):
    """The process died, or the power failed, before this call; no `except Exception` survives it."""


@dataclass
class File:
    """Bytes as seen and as synced."""

    seen: bytes = b""
    synced: bytes = b""

    def after(self, random: Random) -> File:
        """Return the file as it is found after a power cut."""
        cut = random.choice((0, random.randrange(len(self.seen) + 1), len(self.seen)))
        found = self.seen if self.seen == self.synced else self.seen[:cut]
        return File(found, found)


@dataclass
class Folder:
    """Names as seen and as synced."""

    seen: dict[str, Folder | File] = field(default_factory=dict)
    synced: dict[str, Folder | File] = field(default_factory=dict)

    def after(self, random: Random) -> Folder:
        """Return the folder as it is found after a power cut."""
        found: dict[str, Folder | File] = {}
        for name in sorted(self.seen.keys() | self.synced.keys()):
            entry = random.choice((self.seen, self.synced)).get(name)
            if entry is not None:
                found[name] = entry.after(random)
        return Folder(found, dict(found))


@dataclass
class StaticDisk:
    """A Disk in memory whose call number `fail_at` (from 1, 0 for never) raises Stopped before it does anything.

    `without` names calls that do nothing, to see that somebody notices.
    """

    root: Folder = field(default_factory=Folder)
    fail_at: int = 0
    without: frozenset[str] = frozenset()
    calls: int = 0

    def power_lost(self, random: Random) -> StaticDisk:
        """Return the disk as it is found after a power cut at this moment."""
        return StaticDisk(self.root.after(random))

    def killed(self) -> StaticDisk:
        """Return the disk as the next process finds it: all that was written is seen, and not yet synced."""
        return StaticDisk(self.root)

    def file(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None; no call of an export."""
        folder: Folder | File | None = self.root
        for part in name.split("/"):
            folder = folder.seen.get(part) if isinstance(folder, Folder) else None
        return folder.seen if isinstance(folder, File) else None

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None."""
        self._step()
        return self.file(name)

    def make_folder(self, name: str) -> None:
        """Make a folder."""
        self._step()
        parent, last = self._parent(name)
        parent.seen.setdefault(last, Folder())

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        self._step()
        parent, last = self._parent(name)
        entry = parent.seen.setdefault(last, File())
        assert isinstance(entry, File), f"{name} is a folder"
        entry.seen = data

    def sync(self, name: str) -> None:
        """Sync a file."""
        self._step()
        parent, last = self._parent(name)
        entry = parent.seen[last]
        if "sync" not in self.without and isinstance(entry, File):
            entry.synced = entry.seen

    def rename(self, old: str, new: str) -> None:
        """Rename a file in its folder."""
        self._step()
        parent, last = self._parent(old)
        parent.seen[self._parent(new)[1]] = parent.seen.pop(last)

    def sync_folder(self, name: str) -> None:
        """Sync the names in a folder."""
        self._step()
        folder = self._folder(name)
        if "sync_folder" not in self.without:
            folder.synced = dict(folder.seen)

    def remove(self, name: str) -> None:
        """Remove a folder."""
        self._step()
        parent, last = self._parent(name)
        parent.seen.pop(last, None)

    def _folder(self, name: str) -> Folder:
        folder: Folder | File = self.root
        for part in name.split("/") if name else []:
            assert isinstance(folder, Folder), f"{name}: a file is on the way"
            folder = folder.seen[part]
        assert isinstance(folder, Folder), f"{name} is a file"
        return folder

    def _parent(self, name: str) -> tuple[Folder, str]:
        parent, _, last = name.rpartition("/")
        return self._folder(parent), last

    def _step(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise Stopped(f"at call {self.fail_at}")
