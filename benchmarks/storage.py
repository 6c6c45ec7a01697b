"""The archiver alone, against the disk it stands on and against SQLite, in one run on the same events."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from archive import Archiver, DataFolder, Submission
from benchmarks.events import submissions
from benchmarks.logs import archiver, keep_all
from benchmarks.peers import postgres_per_s, pymerkle_per_s, sqlite_per_s
from benchmarks.table import Row
from tools.process import quiet_collector

COMMIT = 1_000
TAIL = 50
LONE, LONE_ROUND = 500, 10


def measure(path: Path, count: int) -> list[Row]:
    """Return the rows about storage, for logs of up to `count` entries.

    The garbage collector is set as in an archiver's process (`tools.archiver`), for all that is measured here.
    """
    quiet_collector()
    rows: list[Row] = []
    batch = submissions(COMMIT, seed=0)
    plain = appended_per_s(path / "plain", batch, 50)
    rows.append(Row("file, append + fdatasync, 1,000 a commit", plain, "events/s"))
    sqlite = sqlite_per_s(path / "sqlite", batch, 50)
    rows.append(Row("SQLite, WAL, synchronous=FULL, unique id, the same", sqlite, "events/s"))
    if postgres := postgres_per_s(batch, 50):
        rows.append(
            Row("PostgreSQL, COPY, unique id, the same", postgres, "events/s", postgres / sqlite, "SQLite")
        )
    tree = pymerkle_per_s(path / "pymerkle", batch, 50)
    rows.append(Row("pymerkle on SQLite, the same", tree, "events/s", tree / sqlite, "SQLite"))
    with archiver(path / "log") as (kept, folder):
        done, at = 0, 10_000
        while at <= count:
            rate = kept_per_s(kept, done, at)
            rows.append(
                Row(f"archiver, all on, at {at:,} entries", rate, "events/s", rate / sqlite, "SQLite")
            )
            done, at = at, at * 10
        lone_s, sync_s = lone_writer_s(kept, path / "sync")
        rows.append(Row("one fdatasync of 400 bytes, p50", sync_s * 1e3, "ms"))
        rows.append(Row("archiver, lone writer, p50", lone_s * 1e3, "ms", lone_s / sync_s, "fdatasync"))
        size = kept.head.size
        used = sum(one.stat().st_blocks * 512 for one in folder.log.rglob("*") if one.is_file())
        rows.append(Row("disk beyond the payload", used / size - 400, "B/event"))
        rows.append(Row("verify-log, all processors", verified_per_s(folder, size), "leaves/s"))
    return rows


def appended_per_s(path: Path, batch: Sequence[Submission], commits: int) -> float:
    """Return events a second appended to a plain file, one fdatasync a commit: the limit of the disk."""
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(commits):
            file.write(b"\n".join([one.payload for one in batch]))
            os.fdatasync(file.fileno())
    return commits * len(batch) / (time.perf_counter() - started)


def kept_per_s(kept: Archiver, done: int, count: int) -> float:
    """Grow the log from `done` to `count` events in commits of 1,000; return the rate of the last commits.

    They come through the archiver's door, so that one commit may be prepared while another is on its way to the disk.
    """
    commits = range(done // COMMIT, count // COMMIT)
    for commit in commits[:-TAIL]:
        kept.step(submissions(COMMIT, seed=commit + 1))
    tail = [submissions(COMMIT, seed=commit + 1) for commit in commits[-TAIL:]]
    return len(tail) * COMMIT / sum(keep_all(kept, tail))


def lone_writer_s(kept: Archiver, path: Path) -> tuple[float, float]:
    """Return the median times, in seconds, of one event that is sent when the one before is answered, and of a sync.

    That is 400 bytes appended to a file and one fdatasync.  A few of each are taken in turns: how quick a disk is,
    changes from one second to the next.
    """
    lone, syncs = list[float](), list[float]()
    with path.open("wb", buffering=0) as file:
        for start in range(0, LONE, LONE_ROUND):
            seeds = range(1_000_000_000 + start, 1_000_000_000 + start + LONE_ROUND)
            # The first of a round starts a loop, too.
            lone += keep_all(kept, [submissions(1, seed=seed) for seed in seeds], unanswered=1)[1:]
            for _ in range(LONE_ROUND):
                started = time.perf_counter()
                file.write(b"x" * 400)
                os.fdatasync(file.fileno())
                syncs.append(time.perf_counter() - started)
    return statistics.median(lone), statistics.median(syncs)


def verified_per_s(folder: DataFolder, size: int) -> float:
    """Return leaves a second through the whole-log check with signatures, without opening rows."""
    verifier = folder.signer(os.urandom).verifier
    # One environment must not be opened twice in a process: the check reads in another one.
    started = time.perf_counter()
    command = [sys.executable, "-P", "-m", "tools.verify_log", str(folder.path), "--vkey", verifier.encode()]
    subprocess.run(command, check=True, capture_output=True)
    return size / (time.perf_counter() - started)
