"""The seal: the last signed size and root, kept apart from the database.

A database cannot tell that it is old: a restored backup is consistent with itself.  The seal is a second,
tiny memory, written and synced after each commit and before anything is published.  At start the database must
reach it.  On the same disk it cannot reveal a rolled-back *disk*, so its path can be set to another one.

Two slots are written in turn, each with a checksum, so that a torn write costs the newest slot only, and the
size in it was not published yet.  They lie 4 KiB apart, since a drive may tear no less than that at once.  The file
has its full size from the start: a disk that fills up later has room for the seal.  Layout: docs/formats/block.md.

>>> slot = encode_seal(Seal(1, 5, b"r" * 32, 0))
>>> len(slot), newest_seal(slot + b"torn")
(512, Seal(turn=1, size=5, root=b'rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr', block=0))
"""

from __future__ import annotations

import errno
import fcntl
import os
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from archive.errors import LOST_SEAL, ArchiveError, IntegrityError, Locked, StorageFailed, Unavailable
from archive.files import NO_SPACE, forbidden, lacking, sync_folder

SLOT_SIZE: Final = 512
SLOTS: Final = (0, 4_096)
FILE_SIZE: Final = SLOTS[-1] + SLOT_SIZE
_OLD_SLOT: Final = 512
"""Where the second slot lay in files made before they were set apart: read, and never written again."""
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
    return max((seal for seal in _slots(data).values() if seal is not None), default=None)


def all_seals(data: bytes) -> list[Seal]:
    """Return what all slots of `data` hold, the newest first; torn and empty ones are left out."""
    return sorted({seal for seal in _slots(data).values() if seal is not None}, reverse=True)


def _slots(data: bytes) -> dict[int, Seal | None]:
    return {at: decode_seal(data[at : at + SLOT_SIZE]) for at in (*SLOTS, _OLD_SLOT)}


class SealFile:
    """The seal in a file.  `write` returns only after the bytes are synced.

    `last` is the newest seal, None where nothing was ever sealed.  Raises IntegrityError if there was a seal and
    no slot is whole, Unavailable if there is no space for a new file or the system lacks something, PermissionError
    where this user may not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._reserve()
            data = os.pread(self._file, FILE_SIZE, 0)
        except OSError as error:
            self.close()
            refused = lacking(error.errno, path) or forbidden(error.errno, path)
            raise refused or _translated(error, path) from error
        self.last = newest_seal(data)
        # The very first seal goes to the second slot.  While the first one is blank no entry was ever committed
        # after it, so what is torn beside it is that first write, and nothing is lost.
        if self.last is None and data[:SLOT_SIZE].strip(b"\0"):
            self.close()
            raise IntegrityError(
                f"{path}: both slots of the seal are damaged; see docs/recovery.md, lost seal",
                section=LOST_SEAL,
            )
        self._next = SLOTS[1] if self.last is None else _other(data, self.last)

    def _reserve(self) -> None:
        """Give a new file its whole size, in blocks that exist, and its name; what it holds is kept."""
        if os.fstat(self._file).st_size < FILE_SIZE:
            os.posix_fallocate(self._file, 0, FILE_SIZE)
            os.fsync(self._file)
            sync_folder(self._path.parent)

    def write(self, size: int, root: bytes, block: int) -> None:
        """Seal a size; raise StorageFailed if it cannot be known whether the bytes are kept.

        Unavailable says that there was no space (a file system that copies on write needs some for every write).
        """
        seal = Seal(self.last.turn + 1 if self.last else 1, size, root, block)
        try:
            if os.pwrite(self._file, encode_seal(seal), self._next) != SLOT_SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._file)
        except OSError as error:
            raise _translated(error, self._path) from error
        self.last, self._next = seal, SLOTS[self._next == SLOTS[0]]

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _other(data: bytes, newest: Seal) -> int:
    """Return the slot that may be lost: not the one with the newest seal."""
    return SLOTS[_slots(data)[SLOTS[1]] != newest]


def _translated(error: OSError, path: Path) -> ArchiveError:
    if error.errno in NO_SPACE:
        return Unavailable(f"{path}: no space left for the seal; make room")
    return StorageFailed(f"{path}: {error.strerror}", path)


class MemorySeal:
    """A seal in memory, for tests and the simulator."""

    def __init__(self) -> None:
        self.last: Seal | None = None

    def write(self, size: int, root: bytes, block: int) -> None:
        """Seal a size."""
        self.last = Seal(self.last.turn + 1 if self.last else 1, size, root, block)

    def close(self) -> None:
        """Do nothing."""


def take_lock(path: Path, other: str = "archiver writes this log") -> int:
    """Return a descriptor that holds a lock until it closes; raise Locked, naming the `other`, if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Locked(f"{path}: another {other}; stop it first") from None
    return descriptor
