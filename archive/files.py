"""Files that are whole or not there: write, sync, rename, sync the directory.

A rename is atomic, but only a synced directory remembers it, and only a synced file has its bytes.  Leave one of
the four steps out and a power cut can leave an empty file under the final name.

>>> import tempfile, pathlib
>>> with tempfile.TemporaryDirectory() as folder:
...     path = pathlib.Path(folder) / "a"
...     write_whole(path, b"whole")
...     path.read_bytes(), oct(path.stat().st_mode & 0o777)
(b'whole', '0o600')
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Final

from archive.errors import Unavailable

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system answers where there is no room: on a disk, of a quota, or in a file."""
_SCARCE: Final = {
    errno.EMFILE: "let this process open more files (ulimit -n)",
    errno.ENFILE: "let this machine open more files (sysctl fs.file-max)",
    errno.ENOMEM: "no memory or no addresses left to map it: fewer shards or modules, or no `ulimit -v`",
    errno.EAGAIN: "try again shortly",
}
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def lacking(number: int | None, path: Path) -> Unavailable | None:
    """Return what to raise where the system was out of something, other than room, for a file; else None.

    >>> lacking(errno.EMFILE, Path("log"))
    Unavailable('log: Too many open files; let this process open more files (ulimit -n)')
    """
    return Unavailable(f"{path}: {os.strerror(number)}; {_SCARCE[number]}") if number in _SCARCE else None


def forbidden(number: int | None, path: Path) -> OSError | None:
    """Return what to raise where a file may not be opened: what the system says, with its name; else None.

    >>> forbidden(errno.EACCES, Path("log"))
    PermissionError(13, 'Permission denied')
    """
    return OSError(number, os.strerror(number), os.fspath(path)) if number in _FORBIDDEN else None


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`, durably: after any crash it holds the old bytes or the new ones."""
    write_parts(path, (data,), lambda: path, mode=mode)


def write_parts(path: Path, parts: Iterable[bytes], final: Callable[[], Path], *, mode: int = 0o600) -> Path:
    """Write a file part by part, as `write_whole` does, and return its path.

    `final` is asked for that when all is written, since a name may tell what is in the file; `path` tells where the
    parts are gathered.  Of several processes that write one file, the last to end has it.  Raises OSError that names
    the file, also where a write fails: the system names none then.
    """
    with naming(path):
        temporary, descriptor = _gathering(path, mode)
        try:
            try:
                for part in parts:
                    left = memoryview(part)
                    while left:
                        left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, path := final())
        except Exception:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    return path


def _gathering(path: Path, mode: int) -> tuple[Path, int]:
    """Return name and descriptor of a new file beside another one, in which no other process writes.

    What lies there of processes that were killed is removed.  So is whatever has our own name: to write through a link
    would be to write somewhere else, and into a file that is there, with somebody's mode.
    """
    own = os.getpid()
    for left in path.parent.glob(f"{escape(path.name)}.*.tmp"):
        number = left.name[len(path.name) + 1 : -4]
        if number.isdecimal() and (int(number) == own or not _runs(int(number))):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.name}.{own}.tmp")
    return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the system's errors name the file at `path`, also where a write fails: the system names none then.

    >>> with naming(Path("states/0")):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'states/0'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, mode: int = 0o700) -> None:
    """Make a folder, and those above it, durably: a name that is not synced can be gone after a power cut."""
    missing = [one for one in (path, *path.parents) if not one.is_dir()]
    for folder in reversed(missing):
        folder.mkdir(mode=mode, exist_ok=True)
        sync_folder(folder.parent)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from any other that has, or gets, its name (device, inode); None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
