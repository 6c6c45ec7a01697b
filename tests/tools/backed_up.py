"""A little log in a data folder, and a backup of it.  Import `data` and `saved` where a test wants them as fixtures.

grow(data, 7)                         # events that the backup does not have
run_restore(saved, data)
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archive import DataFolder, Log, Receipt, size_of
from tests.archive.site import event
from tools import backup, restore
from tools.archiver import build
from tools.process import EXIT_GOOD
from tools.verify_folder import Request, verify_folder

ORIGIN = "example.org/log"


def grow(data: Path, first: int, count: int = 5) -> int:
    """Start an archiver on a data folder, append some events, and end it; return the size."""
    folder = DataFolder(data)
    folder.create()
    archiver = build(folder, None if folder.log_key.exists() else ORIGIN, None)
    archiver.open({"software": "test"})
    for number in range(first, first + count):
        one = event(b"%d" % number, id=str(number), subject=f"student:{number // 2}", keys={"student": "x"})
        assert isinstance(archiver.step([one])[0], Receipt)
    archiver.close()
    return archiver.head.size


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data folder of a log of seven entries."""
    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    assert grow(tmp_path / "data", 0) == 7
    return tmp_path / "data"


@pytest.fixture
def saved(data: Path, tmp_path: Path) -> Path:
    """Return a backup of it, with its keys."""
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD
    return tmp_path / "saved"


def run_backup(target: Path, data: Path, *flags: str) -> int:
    """Run `treering backup`."""
    return backup.main([str(target), "--data", str(data), *flags])


def run_restore(saved: Path, data: Path, *flags: str) -> int:
    """Run `treering restore`."""
    return restore.main([str(saved), "--data", str(data), *flags])


def leaves(data: Path) -> list[bytes]:
    """Return the leaves of a log."""
    store = DataFolder(data).open_log()
    try:
        with store.view() as view:
            log = Log(view, size_of(view))
            return [bytes(leaf) for _, leaf in log.leaves(0, log.size)]
    finally:
        store.close()


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder but LMDB's lock files."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in {"lock.mdb", "lock"})
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def sound(data: Path) -> bool:
    """Return whether a log verifies with its key and its vault."""
    verifier = DataFolder(data).signer(os.urandom).verifier
    outcome = verify_folder(Request(data, verifier, vault=True))
    return outcome.findings == [] and outcome.tally.erased == 0
