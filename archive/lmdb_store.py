"""A store on LMDB: one memory-mapped file, many readers, one writer, two synchronous writes a commit.

Readers in other processes map the same file and never wait for the writer.  The price is that an open read
transaction pins every page that was current when it began; so views are short, and dead readers are cleared at
start.  `metasync=False` and `writemap=True` would be faster and would break the promise of `commit`.

Traps kept out here: an environment must not be opened twice in a process or across a fork; a first open that
was killed leaves an empty file which a read-only open rejects; `append=True` answers False, silently, for a key
that is not the greatest; a reader that was killed pins pages until somebody checks; the lock file is sparse, so on a
full disk the next reader would die by SIGBUS, and so would whoever opens a file that was cut short; after a failed
write of its first page an environment refuses all else; a write cut short by a full disk is called an I/O error.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     store = LmdbStore(folder, ("t",))
...     store.commit([Write("t", b"a", b"1")])
...     with store.view() as view:
...         view.get("t", b"a")
...     store.close()
b'1'
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock
from typing import Any

import lmdb

from archive.errors import IntegrityError, NotFound, StorageFailed, Unavailable
from archive.files import NO_SPACE, forbidden, lacking, make_folder, sync_folder
from archive.ports import KEY_SIZE_MAX, View, Write
from archive.structure import missing_bytes

MADE_ANEW = "move its folder away while no server runs: what is derived is made anew from the log"
DATA = "data.mdb"
MAP_SIZE = 1 << 40
"""Bytes that a file may grow to, and addresses that each process takes for it: of those it has 2^47 for all."""
READERS_MAX = 512
LOCK_FILE_SIZE = 40_960
"""More than READERS_MAX readers need."""
CHECK_READERS_EVERY = 256
"""Commits between two looks for readers that died."""
PROBE_SIZE = 1 << 20
VIEWS_END_S = 30.0
"""How long an environment that must be opened anew waits for the views of other threads to end."""


class _LmdbView:
    def __init__(self, transaction: lmdb.Transaction, tables: dict[str, Any]) -> None:
        self._transaction, self._tables = transaction, tables

    def get(self, table: str, key: bytes) -> bytes | None:
        value = self._transaction.get(key, db=self._tables[table])
        return None if value is None else bytes(value)

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(db=self._tables[table]) as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            rows: Iterator[Any] = cursor.iternext(keys=True, values=True)
            for key, value in rows:
                if stop is not None and key >= stop:
                    return
                yield key, value

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        with self._transaction.cursor(db=self._tables[table]) as cursor:
            item: Any = cursor.item() if cursor.last() else None
            return None if item is None else (item[0], item[1])

    def count(self, table: str) -> int:
        return int(self._transaction.stat(self._tables[table])["entries"])


class LmdbStore:
    """A Store in one LMDB environment.

    `append` names the tables whose keys only ever grow (denser pages); `remedy` says what to do about a file that is
    damaged.  Raises NotFound if `read_only` and nothing was ever written there, PermissionError if this user may
    not, IntegrityError if the file was cut short: reading on would kill the process.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tables: Sequence[str],
        *,
        append: Sequence[str] = (),
        read_only: bool = False,
        map_size: int = MAP_SIZE,
        remedy: str = MADE_ANEW,
    ) -> None:
        folder, self._remedy = Path(path), remedy
        self._path, self._names, self._append = folder, tuple(tables), frozenset(append)
        self._read_only, self._map_size = read_only, map_size
        self._commits = self._views = 0
        self._gate, self._is_waited = Lock(), False
        self._ended = Condition(self._gate)
        if read_only:
            _refuse_uninitialised(folder)
            self._open()
            return
        try:
            make_folder(folder)
            _reserve_lock_file(folder)
            self._open()
            # LMDB syncs what is in its file, and leaves the file's name to us.
            sync_folder(folder)
        except OSError as error:
            raise _translated_os(error, folder) from error

    def _open(self) -> None:
        folder, read_only = self._path, self._read_only
        _refuse_cut_short(folder, self._remedy)
        try:
            self._env = lmdb.open(
                os.fspath(folder),
                map_size=self._map_size,
                max_dbs=len(self._names),
                max_readers=READERS_MAX,
                readonly=read_only,
                mode=0o600,
                # Read-ahead turns one random look-up into a hundred pages once the log outgrows memory.
                readahead=False,
            )
        except lmdb.Error as error:
            raise forbidden(_number(error), folder) or _translated(error, folder) from error
        try:
            if not read_only:
                self._env.reader_check()
            self._tables = {
                name: self._env.open_db(name.encode(), create=not read_only) for name in self._names
            }
        except lmdb.Error as error:
            self._env.close()  # an environment can be opened once in a process: leave it for the next try
            if isinstance(error, lmdb.NotFoundError):
                raise _nothing_there(folder) from None
            raise _translated(error, folder) from error

    @contextmanager
    def view(self) -> Iterator[View]:
        """Return a consistent view; it sees no later commit."""
        with self._gate:  # not while the environment is opened anew
            try:
                transaction = self._env.begin()
            except lmdb.Error as error:
                raise _translated(error, self._path) from error
            self._views += 1
        try:
            with transaction:
                yield _LmdbView(transaction, self._tables)
        except lmdb.BadTxnError as error:  # what was read before has failed, and LMDB says so only now
            raise _unsound(error, self._path) from error
        except lmdb.Error as error:  # a page that is no page: damage shows where it is read
            raise _translated(error, self._path) from error
        finally:
            with self._gate:
                self._views -= 1
                if self._is_waited:  # to tell nobody would cost a quarter of a view
                    self._ended.notify_all()

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all of `writes` durable, or none."""
        for write in writes:
            if not 0 < len(write.key) <= KEY_SIZE_MAX or write.table not in self._tables:
                raise ValueError(f"key of {len(write.key)} bytes in table {write.table!r}")
        number = 0
        try:
            with self._env.begin(write=True) as transaction:
                number = transaction.id()
                for table, key, value in writes:
                    self._apply(transaction, table, key, value)
        except lmdb.Error as error:
            failure = _translated(error, self._path)
            if isinstance(failure, StorageFailed) and self._is_full(error, writes):
                failure = _no_space(self._path)
            if isinstance(failure, Unavailable):
                self._nothing_kept(number)
            raise failure from error
        self._commits += 1
        if self._commits % CHECK_READERS_EVERY == 0:
            self.clear_dead_readers()

    def _is_full(self, error: lmdb.Error, writes: Sequence[Write]) -> bool:
        """Return whether an I/O error was a write cut short: there is no room for another one of its size."""
        if os.strerror(errno.EIO) not in str(error):
            return False
        return not _has_room(self._path, PROBE_SIZE + 2 * sum(len(write.value or b"") for write in writes))

    def _nothing_kept(self, number: int) -> None:
        """Make sure that transaction `number`, which found no space, left nothing; else raise StorageFailed.

        Where LMDB wrote pages that nothing refers to yet, nothing was kept.  Where it failed in the page that
        makes them count, it refuses everything from then on: so look again, with the old page synced, once
        other threads have ended their views.  Until then they may begin others: one may need a second to end the first.
        """
        try:
            self._env.begin(write=True).abort()
        except lmdb.PanicError:
            with self._gate:
                self._is_waited = True
                if not self._ended.wait_for(lambda: not self._views, VIEWS_END_S):
                    what = (
                        f"{self._path}: a commit found no space, and a view that does not end is in the way"
                    )
                    raise StorageFailed(what, self._path / DATA) from None
                self._is_waited = False
                self._env.close()
                self._open()
            try:
                self._env.sync(True)
            except lmdb.Error as error:
                raise _failed(error, self._path) from error
            if self._env.info()["last_txnid"] >= number:
                what = f"{self._path}: a commit that failed is there all the same"
                raise StorageFailed(what, self._path / DATA) from None

    def copy(self, folder: Path) -> None:
        """Copy what is committed to another folder, compacted and synced, while others read and write.

        The copy is of one moment, and pins pages until it is done.  Raises Unavailable if it does not fit there,
        StorageFailed if it cannot be written, IntegrityError if a page of this one cannot be read.
        """
        try:
            make_folder(folder)
            self._env.copy(os.fspath(folder), compact=True)
            descriptor = os.open(folder / DATA, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fchmod(descriptor, 0o600)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(folder)
        except lmdb.Error as error:
            raise _translated_copy(error, self._path, folder) from error
        except OSError as error:
            if error.errno in NO_SPACE:
                raise _no_copy(folder) from error
            raise _translated_os(error, folder) from error

    def clear_dead_readers(self) -> int:
        """Free the places of readers that were killed, and with them the pages that they pin; return how many."""
        return int(self._env.reader_check())

    def _apply(self, transaction: lmdb.Transaction, table: str, key: bytes, value: bytes | None) -> None:
        database = self._tables[table]
        if value is None:
            transaction.delete(key, db=database)
        elif not transaction.put(key, value, db=database, append=table in self._append):
            raise IntegrityError(f"table {table}: key {key.hex()} is not beyond the last one")

    def readers(self) -> list[int]:
        """Return the process ids of all who have a reading slot; one that is dead pins pages until it is cleared."""
        lines = self._env.readers().splitlines()[1:]
        return [int(line.split()[0]) for line in lines if line.split()]

    def close(self) -> None:
        """Close the environment; no view may be open."""
        self._env.close()


def _refuse_uninitialised(folder: Path) -> None:
    data = folder / DATA
    if not data.exists() or data.stat().st_size == 0:
        raise _nothing_there(folder)


def _nothing_there(folder: Path) -> NotFound:
    return NotFound(
        f"{folder}: there is no database; a server makes one when it starts in a new folder. If there was one, it is "
        "gone: docs/recovery.md, The database is older than its seal"
    )


def _refuse_cut_short(folder: Path, remedy: str) -> None:
    try:
        lacking = missing_bytes(folder)
    except FileNotFoundError:
        return  # it is about to be made
    except OSError as error:
        raise _translated_os(error, folder) from error
    if lacking:
        raise IntegrityError(
            f"{folder / 'data.mdb'}: cut short, {lacking:,} bytes shorter than it says itself; {remedy}"
        )


def _reserve_lock_file(folder: Path) -> None:
    """Make the lock file in blocks that exist: a store into a hole of a full disk kills the process."""
    descriptor = os.open(folder / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, LOCK_FILE_SIZE)
    finally:
        os.close(descriptor)


def _no_space(path: Path) -> Unavailable:
    return Unavailable(f"{path}: no space left; make room, nothing of this request was kept")


def _has_room(folder: Path, needed: int) -> bool:
    """Return whether a database can grow by so many bytes; where nobody can say, it can."""
    try:
        descriptor = os.open(folder / DATA, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, needed)
        finally:
            os.close(descriptor)
    except OSError as found:
        return found.errno not in NO_SPACE
    return True


def _no_copy(folder: Path) -> Unavailable:
    return Unavailable(f"{folder}: no space left for the copy; make room there, or copy to another disk")


def _translated_copy(error: lmdb.Error, path: Path, folder: Path) -> Exception:
    """Say where a copy failed: LMDB reads `path` in memory and writes to `folder`, and tells only what went wrong."""
    if refused := lacking(_number(error), folder) or forbidden(_number(error), folder):
        return refused
    failure = _translated(error, path)
    if isinstance(failure, IntegrityError):
        return failure
    if isinstance(failure, Unavailable) or not _has_room(folder, PROBE_SIZE):
        return _no_copy(folder)
    return _failed(error, folder)


def _translated_os(error: OSError, path: Path) -> Exception:
    if error.errno in NO_SPACE:
        return _no_space(path)
    refused = lacking(error.errno, path) or forbidden(error.errno, path)
    return refused or StorageFailed(f"{path}: {error.strerror}", path / DATA)


def _number(error: lmdb.Error) -> int | None:
    """Return the system's number of an error, LMDB's own where it is negative; what the binding raises has none."""
    return getattr(error, "code", None)


def _failed(error: lmdb.Error, path: Path) -> StorageFailed:
    return StorageFailed(f"{path}: {error}", path / DATA)


def _translated(error: lmdb.Error, path: Path) -> Exception:
    """Say what the caller should do about an LMDB error."""
    text = str(error)
    if isinstance(error, lmdb.MapFullError):
        return Unavailable(
            f"{path / DATA}: the file has reached its largest size, and room on the disk is no help; begin another "
            "log, or keep states in more shards. Nothing of this request was kept"
        )
    if isinstance(error, lmdb.DiskError) or any(os.strerror(code) in text for code in NO_SPACE):
        return _no_space(path)
    if refused := lacking(_number(error), path):
        return refused
    if isinstance(error, lmdb.ReadersFullError):
        return Unavailable(f"{path}: more than {READERS_MAX} readers")
    if isinstance(
        error, lmdb.CorruptedError | lmdb.PageNotFoundError | lmdb.InvalidError | lmdb.VersionMismatchError
    ):
        return _unsound(error, path)
    return _failed(error, path)


def _unsound(error: lmdb.Error, path: Path) -> IntegrityError:
    return IntegrityError(f"{path}: not a sound LMDB file: {error}")
