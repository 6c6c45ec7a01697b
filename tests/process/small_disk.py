"""A disk that can be filled and emptied again, while a server runs on it.

    with small_disk("tmpfs", tmp_path) as disk, serving(disk.data) as server:
        disk.fill(server)
        ...
        disk.empty(server)

"tmpfs" is a file system of its own, 24 MiB (it takes the right to mount).  "limit" is a limit on the size of files of
the server's processes, which anybody may set: a file cannot grow, as under a quota.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.process.served import Served, children

SIZE = "24m"


@dataclass
class SmallDisk:
    """Where the data folder is, and how to fill the disk under it."""

    data: Path

    def fill(self, server: Served) -> None:
        """Leave no room."""
        raise NotImplementedError

    def empty(self, server: Served) -> None:
        """Give the room back."""
        raise NotImplementedError


class _Mounted(SmallDisk):
    def fill(self, server: Served) -> None:
        del server
        with suppress(OSError), (self.data.parent / "ballast").open("wb", buffering=0) as ballast:
            for block in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while ballast.write(bytes(block)):
                        pass

    def empty(self, server: Served) -> None:
        del server
        (self.data.parent / "ballast").unlink()


class _Limited(SmallDisk):
    def fill(self, server: Served) -> None:
        # Any page more than the largest database has is one too many; smaller files have their blocks.
        self._limit(server, (self.data / "log" / "0" / "data.mdb").stat().st_size)

    def empty(self, server: Served) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(server: Served, size: int) -> None:
        for pid in (server.process.pid, *children(server.process.pid)):
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def may_mount() -> bool:
    """Return whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0 or not _mount(Path(folder)):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(kind: str, folder: Path) -> Iterator[SmallDisk]:
    """Yield a small disk, and put everything away."""
    if kind == "limit":
        yield _Limited(folder / "data")
        return
    place = folder / "d"  # short: the path of a socket in it has a limit
    place.mkdir()
    assert _mount(place)
    try:
        yield _Mounted(place / "data")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
