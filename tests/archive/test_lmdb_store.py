"""What LMDB does not do by itself: room on a full disk, a way on after it, dead readers, copies.

What every store promises is in `test_store_contract`; faults below the process, in `tests/process/test_faults.py`.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from archive import (
    IntegrityError,
    LmdbStore,
    NotFound,
    SealFile,
    StorageFailed,
    Unavailable,
    Write,
    files,
    lmdb_store,
)
from archive.files import make_folder
from archive.lmdb_store import CHECK_READERS_EVERY, LOCK_FILE_SIZE
from tests.quota import files_at_most


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    """Return a store with one row."""
    store = LmdbStore(tmp_path / "log", ("t",))
    store.commit([Write("t", b"a", b"1")])
    yield store
    store.close()


def rows(store: LmdbStore) -> dict[bytes, bytes]:
    """Return all rows."""
    with store.view() as view:
        return {bytes(key): bytes(value) for key, value in view.scan("t")}


@pytest.mark.parametrize("room", [0, 1, 4096, 5000, 20_000])
def test_no_space_keeps_nothing_and_the_next_commit_works(
    store: LmdbStore, tmp_path: Path, room: int
) -> None:
    """Also where LMDB calls a write that was cut short an I/O error: it is a full disk, and says so."""
    with files_at_most((tmp_path / "log" / "data.mdb").stat().st_size + room):
        for _ in range(2):
            with pytest.raises(
                Unavailable, match="no space left; make room, nothing of this request was kept"
            ):
                store.commit([Write("t", b"big%d" % one, bytes(9_000)) for one in range(9)])
    assert rows(store) == {b"a": b"1"}
    store.commit([Write("t", b"b", b"2")])
    assert rows(store) == {b"a": b"1", b"b": b"2"}


def test_a_full_map_is_no_full_disk(tmp_path: Path) -> None:
    """Nothing is kept and the store goes on, as without space; but nobody is sent to make room on the disk."""
    store = LmdbStore(tmp_path / "log", ("t",), map_size=1 << 17)
    with pytest.raises(
        Unavailable, match=r"log/data\.mdb: the file has reached its largest size, and room .* no help"
    ):
        store.commit([Write("t", b"big%d" % one, bytes(9_000)) for one in range(30)])
    store.commit([Write("t", b"b", b"2")])
    assert rows(store) == {b"b": b"2"}
    store.close()


class Poisoned:
    """An environment after a failed write of the page that makes a commit count: it can be read, and no more."""

    def __init__(self, inner: lmdb.Environment) -> None:
        self.inner = inner

    def begin(self, write: bool = False) -> lmdb.Transaction:
        """Refuse to write."""
        if write:
            raise lmdb.PanicError("mdb_txn_begin: MDB_PANIC")
        return self.inner.begin()

    def close(self) -> None:
        """Close."""
        self.inner.close()


@pytest.mark.parametrize("kept", [False, True])
def test_an_environment_that_refuses_everything_is_looked_at_again(store: LmdbStore, kept: bool) -> None:
    """After a failed write of the page that makes a commit count: nothing kept, or the archiver must stop."""
    store.commit([Write("t", b"b", b"2")])
    number = store._env.info()["last_txnid"] + (0 if kept else 1)

    store._env = Poisoned(store._env)  # type: ignore[assignment]
    if kept:
        with pytest.raises(StorageFailed, match="there all the same"):
            store._nothing_kept(number)
        return
    store._nothing_kept(number)
    store.commit([Write("t", b"c", b"3")])
    assert rows(store) == {b"a": b"1", b"b": b"2", b"c": b"3"}


def test_a_view_of_another_thread_outlives_a_full_disk(store: LmdbStore) -> None:
    """What it reads is not taken from under it, also where it looks a second time before it ends."""
    number = store._env.info()["last_txnid"] + 1
    store._env = Poisoned(store._env)  # type: ignore[assignment]
    mending = threading.Thread(target=store._nothing_kept, args=(number,))
    with store.view() as view:
        mending.start()
        mending.join(0.2)
        assert mending.is_alive()
        assert rows(store) == dict(view.scan("t")) == {b"a": b"1"}
    mending.join(60)
    store.commit([Write("t", b"b", b"2")])
    assert rows(store) == {b"a": b"1", b"b": b"2"}


def test_a_view_that_does_not_end_stops_the_writer(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a while, not for ever; the reader goes on reading."""
    monkeypatch.setattr(lmdb_store, "VIEWS_END_S", 0.01)
    store._env = Poisoned(store._env)  # type: ignore[assignment]
    with store.view() as view:
        with pytest.raises(StorageFailed, match="a view that does not end"):
            store._nothing_kept(99)
        assert view.get("t", b"a") == b"1"


def test_the_lock_file_has_its_blocks(store: LmdbStore, tmp_path: Path) -> None:
    """On a full disk a new reader finds its place, instead of a hole that kills it."""
    assert rows(store)
    found = (tmp_path / "log" / "lock.mdb").stat()
    assert found.st_blocks * 512 >= LOCK_FILE_SIZE


def test_the_place_of_a_dead_reader_is_freed_by_commits(store: LmdbStore, tmp_path: Path) -> None:
    """Nobody has to ask: the writer looks now and then."""
    code = (
        "import os, sys\nfrom archive import LmdbStore\n"
        "with LmdbStore(sys.argv[1], ('t',), read_only=True).view() as view:\n"
        "    view.get('t', b'a')\n    os._exit(0)"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path / "log")], check=True, cwd=Path.cwd())
    held = store._env.readers().count("\n")
    for number in range(CHECK_READERS_EVERY):
        store.commit([Write("t", b"a", b"%d" % number)])
    assert store._env.readers().count("\n") < held
    assert store.clear_dead_readers() == 0


def test_a_copy_is_of_one_moment_and_for_its_owner(store: LmdbStore, tmp_path: Path) -> None:
    """What is committed later is not in it; it opens by itself, compact, mode 0600."""
    store.copy(tmp_path / "copy")
    store.commit([Write("t", b"b", b"2")])
    copy = LmdbStore(tmp_path / "copy", ("t",), read_only=True)
    assert rows(copy) == {b"a": b"1"}
    copy.close()
    assert (tmp_path / "copy" / "data.mdb").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageFailed):
        store.copy(tmp_path / "copy")


@pytest.mark.parametrize("room", [100, 5_000, 32_768])
def test_a_copy_that_does_not_fit_names_where_it_should_go(
    store: LmdbStore, tmp_path: Path, room: int
) -> None:
    """The disk that is full is the copy's: whoever is told the log's name makes room in the wrong place.

    Also where the disk ends in the middle of a page, which LMDB calls an invalid argument.
    """
    store.commit([Write("t", b"%04d" % number, bytes(500)) for number in range(200)])
    with files_at_most(room), pytest.raises(Unavailable) as refused:
        store.copy(tmp_path / "copy")
    assert str(refused.value).startswith(f"{tmp_path / 'copy'}: no space left for the copy; make room there")
    assert str(tmp_path / "log") not in str(refused.value)
    store.copy(tmp_path / "second")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match=f"^{tmp_path / 'file'}"):
        store.copy(tmp_path / "file" / "copy")


def unsound(folder: Path, flags: bytes, *only: bytes) -> LmdbStore:
    """Return a store whose pages, or those with flags as in `only`, bear other flags."""
    store = LmdbStore(folder, ("t",))
    store.commit([Write("t", b"%04d" % number, bytes(500)) for number in range(3_000)])
    store.close()
    path, changed = folder / "data.mdb", 0
    content = bytearray(path.read_bytes())
    for at in range(2 * 4_096, len(content), 4_096):
        if not only or bytes(content[at + 10 : at + 12]) in only:
            content[at + 10 : at + 12], changed = flags, changed + 1
    path.write_bytes(content)
    assert changed
    return LmdbStore(folder, ("t",), read_only=True)


def test_a_rotten_page_is_found_where_it_is_read(tmp_path: Path) -> None:
    """LMDB's complaint about a page that is none is ours to translate: bytes that are not what was written."""
    with pytest.raises((IntegrityError, NotFound)):
        rows(unsound(tmp_path / "log", b"\xff\xff"))


def test_a_rotten_branch_is_no_failed_disk(tmp_path: Path) -> None:
    """Whoever reads on after the first complaint hears of a bad transaction: it is the file that is unsound."""
    store = unsound(tmp_path / "log", bytes(2), b"\x01\x00")

    def read_on() -> None:
        with store.view() as view:
            with suppress(lmdb.CorruptedError):
                view.get("t", b"0005")
            view.get("t", b"2500")

    with pytest.raises(IntegrityError, match="not a sound LMDB file"):
        read_on()


def test_a_folder_is_made_with_every_name_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new name is durable in the folder above it, before anything is put inside."""
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.usefixtures("store")
def test_a_process_without_addresses_is_told_so(tmp_path: Path) -> None:
    """It is no fault of the disk, and nothing to stop for: fewer files, or more addresses, and it goes on."""
    code = f"""
import resource
from archive import LmdbStore, Unavailable
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    LmdbStore({str(tmp_path / "log")!r}, ("t",), read_only=True)
except Unavailable as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "no addresses left to map it: fewer shards or modules" in said.stdout


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("free", [0, 1])
def test_a_process_without_files_is_told_so(tmp_path: Path, read_only: bool, free: int) -> None:
    """Neither is that a fault of the disk, wherever in the opening it comes, and a start again may help."""
    code = f"""
import os, resource
from archive import LmdbStore, SealFile, Unavailable
from pathlib import Path
last = os.open("/dev/null", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1 + {free}, last + 1 + {free}))
for opened in (lambda: LmdbStore({str(tmp_path / "log")!r}, ("t",), read_only={read_only}), lambda: [
    SealFile(Path({str(tmp_path)!r}, str(number))) for number in range(2)
]):
    try:
        opened()
    except Unavailable as error:
        print(error, repr(error.section))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    ends = "Too many open files; let this process open more files (ulimit -n) ''"
    assert [line.partition(": ")[2] for line in said] == [ends, ends]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_who_may_not_open_it_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It is the system's own error with the name of what is refused, as everywhere: no disk has failed."""

    def by_lmdb(*_: object, **__: object) -> None:
        error = lmdb.Error("log: the system refused it")
        setattr(error, "code", code)  # noqa: B010 - so does the binding
        raise error

    def by_system(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lmdb, "open", by_lmdb)
    with pytest.raises(OSError, match=f"{os.strerror(code)}: '{tmp_path / 'log'}'"):
        LmdbStore(tmp_path / "log", ("t",))
    monkeypatch.setattr(os, "posix_fallocate", by_system)
    with pytest.raises(OSError, match=f"{os.strerror(code)}: '{tmp_path / 'new'}'"):
        LmdbStore(tmp_path / "new", ("t",))
    with pytest.raises(OSError, match=f"{os.strerror(code)}: '{tmp_path / 'seal'}'"):
        SealFile(tmp_path / "seal")
