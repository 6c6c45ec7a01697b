"""The published size: one shared word, the horizon of everything that may be seen.

LMDB shows a commit to readers the moment it ends, which is before the seal.  A reader that looked at LMDB's head
could show an entry that a crash then takes back.  So readers look at this word only: the archiver stores it after
the seal, with one aligned 8-byte store, and readers map the same page.

A file that is new reads 0 until the archiver has opened its log.  No log is that short, it begins with its origin: so
a reader takes 0 for "not yet", never for a log without entries.

>>> import tempfile, pathlib
>>> with tempfile.TemporaryDirectory() as folder:
...     writer = PublishedSize(pathlib.Path(folder) / "published-0", writable=True)
...     writer.set(42)
...     PublishedSize(pathlib.Path(folder) / "published-0").get()
42
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from archive.errors import NotFound


class PublishedSize:
    """The word in a file of 8 bytes.  Raises NotFound for a reader while no archiver has published anything."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"{path}: no archiver has run here yet") from None
        try:
            if writable:
                # In a block that exists: the first store into a hole of a full disk would kill the process.
                os.posix_fallocate(descriptor, 0, 8)
                os.ftruncate(descriptor, 8)
            elif os.fstat(descriptor).st_size != 8:
                raise NotFound(f"{path}: no archiver has run here yet")
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(descriptor, 8, access=access)
        finally:
            os.close(descriptor)
        self._word = memoryview(self._map).cast("Q")
        if not writable and self._word[0] == 0:
            raise NotFound(f"{path}: the archiver has published nothing yet; it is about to start")

    def get(self) -> int:
        """Return the published size."""
        return self._word[0]

    def set(self, size: int) -> None:
        """Publish a size; it must be sealed."""
        self._word[0] = size


class MemoryPublished:
    """A published size in memory, for tests and the simulator."""

    def __init__(self) -> None:
        self._size = 0

    def get(self) -> int:
        """Return the published size."""
        return self._size

    def set(self, size: int) -> None:
        """Publish a size."""
        self._size = size
