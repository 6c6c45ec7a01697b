"""Runs the small writer of `tests/process/writer.py`, alone or under something that makes it fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from archive import DataFolder, SealFile, take_lock
from tests.process.writer import append_all
from tools.archiver import build

WRITER = Path(__file__).with_name("writer.py")


class Run(NamedTuple):
    """What a writer said and how it ended."""

    lines: list[str]
    code: int
    errors: str


def write(data: Path, first: int, under: Sequence[str] = ()) -> Run:
    """Append eight events, number `first` and on, to the log of a data folder; `under` is a command before it."""
    # The writer is no part of a package: it finds ours where this page found them.
    environment = {**os.environ, "PYTHONPATH": str(WRITER.parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    command = [*under, sys.executable, "-P", str(WRITER), str(data), str(first)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=data.parent, env=environment, timeout=100, check=False
    )
    return Run(done.stdout.splitlines(), done.returncode, done.stderr)


def start_again(data: Path, first: int, origin: str = "example.org/log") -> Run:
    """Do the same in this process, which is quicker: a start on what a writer left, eight events, an end."""
    folder, lines = DataFolder(data), list[str]()
    folder.create()
    lock = take_lock(folder.log / "lock")
    archiver = build(folder, origin, None)
    try:
        archiver.open({"software": "writer"})
        append_all(archiver, first, lines.append)
        archiver.close()
    finally:
        assert isinstance(archiver._seal, SealFile)
        archiver._seal.close()
        archiver._store.close()
        archiver._vault.close()
        os.close(lock)
    return Run(lines, 0, "")
