"""The seal: the last signed size and root, kept apart from the database.

A database cannot tell that it is old: a restored backup is consistent with itself.  The seal is a second,
tiny memory, written and synced after each commit and before anything is published.  At start the database must
reach it.  On the same disk it cannot reveal a rolled-back *disk*, so its path can be set to another one.

Two slots are written in turn, each with a checksum, so that a torn write costs the newest slot only, and the
size in it was not published yet.  Layout: docs/formats/block.md.

>>> slot = encode_seal(Seal(1, 5, b"r" * 32, 0))
>>> len(slot), newest_seal(slot + b"torn")
(512, Seal(turn=1, size=5, root=b'rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr', block=0))
"""

from __future__ import annotations

import fcntl
import os
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from archive.errors import IntegrityError, Locked, StorageFailed

SLOT_SIZE: Final = 512
_MAGIC: Final = b"TRSEAL1\0"


class Seal(NamedTuple):
    """What a slot holds."""

    turn: int
    size: int
    root: bytes
    block: int


def encode_seal(seal: Seal) -> bytes:
    """Return the 512 bytes of a slot."""
    body = _MAGIC + seal.turn.to_bytes(8) + seal.size.to_bytes(8) + seal.root + seal.block.to_bytes(8)
    return (body + sha256(body).digest()).ljust(SLOT_SIZE, b"\0")


def decode_seal(slot: bytes) -> Seal | None:
    """Return what a slot holds, or None if it is empty or torn."""
    body = slot[:64]
    if len(slot) != SLOT_SIZE or body[:8] != _MAGIC or slot[64:96] != sha256(body).digest():
        return None
    return Seal(
        int.from_bytes(body[8:16]), int.from_bytes(body[16:24]), body[24:56], int.from_bytes(body[56:64])
    )


def newest_seal(data: bytes) -> Seal | None:
    """Return the newest seal among the slots of `data`, or None if none is whole."""
    slots = (decode_seal(data[at : at + SLOT_SIZE]) for at in (0, SLOT_SIZE))
    return max((seal for seal in slots if seal is not None), default=None)


class SealFile:
    """The seal in a file.  `write` returns only after the bytes are synced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if new:
            os.fsync(self._file)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
        data = os.pread(self._file, 2 * SLOT_SIZE, 0)
        self.last = newest_seal(data)
        if self.last is None and data.strip(b"\0"):
            raise IntegrityError(f"{path}: both slots of the seal are damaged; run verify-log, then reseal")

    def write(self, size: int, root: bytes, block: int) -> None:
        """Seal a size; raise StorageFailed if it cannot be known whether the bytes are kept."""
        turn = self.last.turn + 1 if self.last else 1
        seal = Seal(turn, size, root, block)
        try:
            os.pwrite(self._file, encode_seal(seal), turn % 2 * SLOT_SIZE)
            os.fdatasync(self._file)
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error.strerror}") from error
        self.last = seal

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class MemorySeal:
    """A seal in memory, for tests and the simulator."""

    def __init__(self) -> None:
        self.last: Seal | None = None

    def write(self, size: int, root: bytes, block: int) -> None:
        """Seal a size."""
        self.last = Seal(self.last.turn + 1 if self.last else 1, size, root, block)

    def close(self) -> None:
        """Do nothing."""


def take_lock(path: Path) -> int:
    """Return a descriptor that holds the one lock of a log until it closes; raise Locked if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Locked(f"{path}: another archiver writes this log; stop it first") from None
    return descriptor
