"""A store on LMDB: one memory-mapped file, many readers, one writer, two synchronous writes a commit.

Readers in other processes map the same file and never wait for the writer.  The price is that an open read
transaction pins every page that was current when it began; so views are short, and dead readers are cleared at
start.  `metasync=False` and `writemap=True` would be faster and would break the promise of `commit`.

Traps kept out here: an environment must not be opened twice in a process or across a fork; a first open that
was killed leaves an empty file which a read-only open rejects; `append=True` answers False, silently, for a key
that is not the greatest.

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
from typing import Any

import lmdb

from archive.errors import IntegrityError, NotFound, StorageFailed, Unavailable
from archive.ports import KEY_SIZE_MAX, View, Write

MAP_SIZE = 1 << 40
READERS_MAX = 512


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


class LmdbStore:
    """A Store in one LMDB environment.

    `append` names the tables whose keys only ever grow (denser pages).  `durable=False` leaves the sync to the
    operating system: for state that can be rebuilt, never for the log.
    Raises NotFound if `read_only` and nothing was ever written there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tables: Sequence[str],
        *,
        append: Sequence[str] = (),
        read_only: bool = False,
        map_size: int = MAP_SIZE,
    ) -> None:
        folder = Path(path)
        if read_only:
            _refuse_uninitialised(folder)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._env = lmdb.open(
                os.fspath(folder),
                map_size=map_size,
                max_dbs=len(tables),
                max_readers=READERS_MAX,
                readonly=read_only,
                mode=0o600,
                # Read-ahead turns one random look-up into a hundred pages once the log outgrows memory.
                readahead=False,
            )
            if not read_only:
                self._env.reader_check()
            self._tables = {name: self._env.open_db(name.encode(), create=not read_only) for name in tables}
        except lmdb.NotFoundError:
            self._env.close()
            raise NotFound(f"{folder}: never initialised; start the server once") from None
        except lmdb.Error as error:
            raise _translated(error, folder) from error
        self._append = frozenset(append)
        self._path = folder

    @contextmanager
    def view(self) -> Iterator[View]:
        """Return a consistent view; it sees no later commit."""
        try:
            transaction = self._env.begin()
        except lmdb.Error as error:
            raise _translated(error, self._path) from error
        with transaction:
            yield _LmdbView(transaction, self._tables)

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all of `writes` durable, or none."""
        for write in writes:
            if not 0 < len(write.key) <= KEY_SIZE_MAX or write.table not in self._tables:
                raise ValueError(f"key of {len(write.key)} bytes in table {write.table!r}")
        try:
            with self._env.begin(write=True) as transaction:
                for table, key, value in writes:
                    self._apply(transaction, table, key, value)
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    def _apply(self, transaction: lmdb.Transaction, table: str, key: bytes, value: bytes | None) -> None:
        database = self._tables[table]
        if value is None:
            transaction.delete(key, db=database)
        elif not transaction.put(key, value, db=database, append=table in self._append):
            raise IntegrityError(f"table {table}: key {key.hex()} is not beyond the last one")

    def close(self) -> None:
        """Close the environment; no view may be open."""
        self._env.close()


def _refuse_uninitialised(folder: Path) -> None:
    data = folder / "data.mdb"
    if not data.exists() or data.stat().st_size == 0:
        raise NotFound(f"{folder}: never initialised; start the server once")


def _translated(error: lmdb.Error, path: Path) -> Exception:
    """Say what the caller should do about an LMDB error."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else None
    text = str(error)
    no_space = isinstance(error, lmdb.MapFullError | lmdb.DiskError) or code == errno.ENOSPC
    if no_space or os.strerror(errno.ENOSPC) in text:
        return Unavailable(f"{path}: no space left; make room, nothing of this request was kept")
    if isinstance(error, lmdb.ReadersFullError):
        return Unavailable(f"{path}: more than {READERS_MAX} readers")
    if isinstance(
        error, lmdb.CorruptedError | lmdb.PageNotFoundError | lmdb.InvalidError | lmdb.VersionMismatchError
    ):
        return IntegrityError(f"{path}: not a sound LMDB file: {text}")
    return StorageFailed(f"{path}: {text}")
