"""A database file that was cut short is told before anything maps it; one that only looks short is left in peace."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archive import DataFolder, IntegrityError, LmdbStore, Write, check_structure, missing_bytes

PAGE = 4_096


def commits(store: LmdbStore, seed: int, count: int) -> None:
    """Put, replace and delete rows of all sizes, so that pages at the end are taken and given up again."""
    chance, live = random.Random(seed), list[bytes]()
    for _ in range(count):
        writes = []
        for _ in range(chance.choice((1, 5, 50, 200))):
            if live and chance.random() < 0.4:
                writes.append(Write("t", live.pop(chance.randrange(len(live))), None))
            else:
                live.append(chance.randbytes(8))
                writes.append(Write("t", live[-1], chance.randbytes(chance.choice((10, 500, 3_000, 9_000)))))
        store.commit(writes)


def last_page_size(folder: Path) -> int:
    """Return the size that the file would have if each of its pages had been written."""
    store = LmdbStore(folder, ("t",), read_only=True)
    try:
        return (int(store._env.info()["last_pgno"]) + 1) * PAGE
    finally:
        store.close()


def cut(folder: Path, size: int) -> None:
    """Cut the database file to a size."""
    os.truncate(folder / "data.mdb", size)


def test_a_file_whose_last_pages_are_free_is_whole(tmp_path: Path) -> None:
    """LMDB leaves a file shorter than its last page where those pages are free: that must never stop a server."""
    short = 0
    for seed in range(6):
        folder = tmp_path / str(seed)
        store = LmdbStore(folder, ("t",))
        for _ in range(3):
            commits(store, seed, 3)
            assert missing_bytes(folder) == 0
        store.close()
        short += (folder / "data.mdb").stat().st_size < last_page_size(folder)
    assert short, "no file ended before its last page: this shows nothing"


READ_ALL = """
import lmdb, sys
with lmdb.open(sys.argv[1], max_dbs=1, readonly=True, lock=False) as env, env.begin() as transaction:
    for key, value in transaction.cursor(env.open_db(b"t", transaction)):
        sum(value[::512])
"""


def cannot_be_read(folder: Path) -> bool:
    """Return whether an auditor who reads every page finds one missing, or a process that reads every row dies.

    The auditor looks at the first page of a great value only.
    """
    if check_structure(folder):
        return True
    ended = subprocess.run([sys.executable, "-c", READ_ALL, str(folder)], check=False, timeout=60)
    assert ended.returncode in {0, -signal.SIGBUS}
    return ended.returncode != 0


@pytest.mark.parametrize("seed", range(3))
def test_wherever_a_file_is_cut_the_missing_page_is_noticed(tmp_path: Path, seed: int) -> None:
    """Exactly where somebody who reads on would miss a page, the file is not opened at all."""
    folder = tmp_path / "s"
    store = LmdbStore(folder, ("t",))
    commits(store, seed, 10)
    store.close()
    whole, chance = (folder / "data.mdb").stat().st_size, random.Random(seed)
    for most in (1, 1, 1, 2, 9, 99):
        whole -= PAGE * chance.randint(1, most)
        cut(folder, max(whole, 2 * PAGE))
        lacking = missing_bytes(folder)
        assert bool(lacking) == cannot_be_read(folder), whole
        if lacking:
            with pytest.raises(IntegrityError, match=rf"{folder}/data\.mdb: cut short, {lacking:,} bytes"):
                LmdbStore(folder, ("t",), read_only=True)


def test_one_byte_is_enough(tmp_path: Path) -> None:
    """The rest of the last page would be read as zeros: nothing dies, and what is read was never written."""
    LmdbStore(tmp_path, ("t",)).close()
    cut(tmp_path, (tmp_path / "data.mdb").stat().st_size - 1)
    assert missing_bytes(tmp_path) == 1


def test_a_list_of_free_pages_that_makes_no_sense_excuses_nothing(tmp_path: Path) -> None:
    """Random bytes where the free pages are listed: the file counts as cut short, and nobody loops or crashes."""
    folder = tmp_path / "s"
    store = LmdbStore(folder, ("t",))
    commits(store, 3, 10)
    store.close()
    file = folder / "data.mdb"
    cut(folder, file.stat().st_size - 9 * PAGE)
    good, chance = file.read_bytes(), random.Random(7)
    for _ in range(200):
        page = chance.randrange(2, len(good) // PAGE)
        bad = bytearray(good)
        bad[page * PAGE + 8 : (page + 1) * PAGE] = chance.randbytes(PAGE - 8)
        file.write_bytes(bad)
        assert missing_bytes(folder) > 0


@pytest.mark.parametrize("read_only", [True, False])
def test_what_to_do_about_a_file_that_was_cut_short_is_said(tmp_path: Path, read_only: bool) -> None:
    """Log and vault come from a backup; what is derived is moved away, and made anew."""
    folder = DataFolder(tmp_path / "data")
    folder.create()
    folder.open_log(read_only=False).close()
    folder.open_vault_store(read_only=False).close()
    LmdbStore(tmp_path / "s", ("t",)).close()
    for place in (folder.log, folder.path / "vault", tmp_path / "s"):
        cut(place, 2 * PAGE)
    for opened in (folder.open_log, folder.open_vault_store):
        with pytest.raises(IntegrityError, match="restore the newest backup"):
            opened(read_only=read_only)
    with pytest.raises(IntegrityError, match="made anew from the log"):
        LmdbStore(tmp_path / "s", ("t",), read_only=read_only)


def test_a_reader_opens_a_file_while_it_grows(tmp_path: Path) -> None:
    """A file that is written meanwhile is never taken for one that was cut short."""
    folder = tmp_path / "s"
    store = LmdbStore(folder, ("t",))
    commits(store, 0, 1)
    looking = (
        "import sys, pathlib; from archive import missing_bytes\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path(sys.argv[2]).exists():\n"
        "    assert missing_bytes(pathlib.Path(sys.argv[1])) == 0\n"
    )
    command = [sys.executable, "-c", looking, str(folder), str(tmp_path / "done")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"ready\n"
        commits(store, 1, 60)
        (tmp_path / "done").touch()
        assert reader.wait(timeout=60) == 0
    store.close()
