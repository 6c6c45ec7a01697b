"""Does anything get slower, or larger, as a log grows?  One log from 10,000 entries on, tenfold at a time.

    make bench ARGS="--only growth --size 10000000"        about 7 GB in the temporary folder, and half an hour
    make bench ARGS="--only replay-growth --size 10000000" the same space, a few minutes: one log, and its replays

Twice: with 10,000 subjects, whose keys all stay in memory, and with a million, whose keys do not.  SQLite keeps
the same events beside it.  At each size a process of its own verifies the log, and one replays the first of the two
from its beginning; what a replay does once for each subject is most of its time at the first size, so that a rate
that does not change with the log grows at first.  The writer is a process of its own, as it is in a server; this one
only looks at its memory, 20 times a second, so that what is needed for a moment is seen too.  *Anonymous* memory
(RssAnon) is what a process cannot give back; pages of the log that it has mapped are not counted: the system takes
them back at will.

The rate of a step is over all its commits, with everything that happens now and then in between; the slowest commit
stands beside it.  Every ratio is to the first row of its kind.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from archive import Submission
from benchmarks.events import SIZE, submissions
from benchmarks.folding import Rates
from benchmarks.logs import archiver, keep_all
from benchmarks.storage import COMMIT
from benchmarks.table import Row
from tools.process import quiet_collector

ROOT = Path(__file__).resolve().parents[1]
FIRST = 10_000
SUBJECTS = (10_000, 1_000_000)
LOOK_EVERY_S = 0.05
TOGETHER = 10
"""Commits whose events are made before they are kept: making them takes as long, and is not measured."""
MIB = 1 << 20


class Step(NamedTuple):
    """What was seen while a log grew to `size` entries."""

    size: int
    events_per_s: float
    slowest_ms: float
    disk: int
    """Bytes on disk, without the vault."""
    vault: int
    """Bytes of the vault on disk."""


# --- the process that writes ---------------------------------------------------------------------


def steps(count: int) -> list[int]:
    """Return the sizes at which to look.

    >>> steps(1_000_000)
    [10000, 100000, 1000000]
    """
    sizes = [FIRST]
    while sizes[-1] * 10 <= count:
        sizes.append(sizes[-1] * 10)
    return sizes


Keep = Callable[[Sequence[list[Submission]]], list[float]]
"""Keeps batches, each in a commit of its own, and returns the seconds that each took."""


def grow(keep: Keep, done: int, size: int, subjects: int) -> tuple[float, float]:
    """Keep events `done` to `size`; return events a second and the slowest commit in seconds."""
    spent_s = slowest_s = 0.0
    commits = range(done // COMMIT, size // COMMIT)
    for at in range(0, len(commits), TOGETHER):
        took_s = keep(
            [submissions(COMMIT, seed=one, students=subjects) for one in commits[at : at + TOGETHER]]
        )
        spent_s, slowest_s = spent_s + sum(took_s), max(slowest_s, *took_s)
    return (size - done) / spent_s, slowest_s


@contextmanager
def sqlite(path: Path) -> Iterator[Keep]:
    """Give what keeps events in SQLite, durably: WAL, synchronous=FULL, a unique id."""
    database = sqlite3.connect(path / "sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE event (n INTEGER PRIMARY KEY, id TEXT UNIQUE, subject TEXT, body BLOB)")

    def keep(batches: Sequence[list[Submission]]) -> list[float]:
        times = [time.perf_counter()]
        for batch in batches:
            rows = [(one.id, one.subject, one.payload) for one in batch]
            database.execute("BEGIN")
            database.executemany("INSERT INTO event (id, subject, body) VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")
            times.append(time.perf_counter())
        return [after - before for before, after in pairwise(times)]

    yield keep
    database.close()


@contextmanager
def ours(path: Path) -> Iterator[Keep]:
    """Give what keeps events in a log, with everything on, through the archiver's door."""
    with archiver(path) as (kept, _):
        yield partial(keep_all, kept)


def write(path: Path, count: int, subjects: int, *, kind: str) -> None:
    """Grow, and say at each size what was seen; go on when a line comes in."""
    quiet_collector()
    done = 0
    with (sqlite if kind == "sqlite" else ours)(path) as keep:
        for size in steps(count):
            rate, slowest_s = grow(keep, done, size, subjects)
            vault = disk_bytes(path / "vault")
            print(json.dumps(Step(size, rate, slowest_s * 1e3, disk_bytes(path) - vault, vault)), flush=True)
            sys.stdin.readline()
            done = size


def disk_bytes(path: Path) -> int:
    """Return what the files below a folder take on disk."""
    return sum(one.stat().st_blocks * 512 for one in path.rglob("*") if one.is_file())


# --- the process that looks ----------------------------------------------------------------------


class Memory:
    """The anonymous memory of a process and its children, looked at all the time from a thread."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._ended = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def take(self) -> tuple[float, float]:
        """Return what it is now and the most it was since the last call, in MiB."""
        now = anonymous_bytes(self._pid)
        peak, self._peak = max(now, self._peak), 0
        return now / MIB, peak / MIB

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self._peak = max(self._peak, anonymous_bytes(self._pid))


def anonymous_bytes(pid: int) -> int:
    """Return the anonymous memory of a process and all below it, in bytes; what has ended counts nothing."""
    process = Path("/proc") / str(pid)
    try:
        status = (process / "status").read_text()
        children = [
            child
            for task in (process / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:")]
    return sum(own) + sum(anonymous_bytes(int(child)) for child in children)


def measure(path: Path, count: int) -> list[Row]:
    """Return the rows about growth to `count` entries."""
    few, many = SUBJECTS
    found = [
        *grown(path / f"log-{few}", count, few, (verified, replayed)),
        *grown(path / f"log-{many}", count, many, (verified,)),
        *grown(path / "sqlite", count, few, kind="sqlite"),
    ]
    return with_ratios(found)


def measure_replay(path: Path, count: int) -> list[Row]:
    """Return the rows about one log that grows to `count` entries, and its replay at each size."""
    return with_ratios(list(grown(path / "log", count, SUBJECTS[0], (replayed,))))


Look = Callable[[Path, Step, int], Iterator[Row]]
"""Measures something of a log at one step: its folder, the step, how many subjects there are."""


def grown(
    path: Path, count: int, subjects: int, looks: Sequence[Look] = (), *, kind: str = "log"
) -> Iterator[Row]:
    """Yield the rows of one writer, which is ended, and its files removed, when all are there."""
    path.mkdir()
    command = [sys.executable, "-m", "benchmarks.growth", str(path), str(count), str(subjects), kind]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        memory = Memory(writer.pid)
        for line in writer.stdout:
            step = Step(*json.loads(line))
            yield from rows(step, subjects, memory.take(), kind)
            for look in looks:
                yield from look(path, step, subjects)
            memory.take()
            writer.stdin.write("\n")
            writer.stdin.flush()
        memory.stop()
    if writer.returncode:
        raise RuntimeError(f"the writer of {kind} ended with {writer.returncode}")
    for file in sorted(path.rglob("*"), reverse=True):
        file.unlink() if not file.is_dir() else file.rmdir()


def rows(step: Step, subjects: int, memory: tuple[float, float], kind: str) -> Iterator[Row]:
    """Yield the rows about one step of a writer."""
    name = "SQLite" if kind == "sqlite" else f"archiver, {subjects:,} subjects"
    at = f"at {step.size:,} entries"
    yield Row(f"{name}, {at}", step.events_per_s, "events/s")
    yield Row(f"{name}, slowest commit, {at}", step.slowest_ms, "ms")
    yield Row(f"{name}, anonymous memory, {at}", memory[0], "MiB")
    yield Row(f"{name}, the most of it, {at}", memory[1], "MiB")
    yield Row(f"{name}, disk beyond the payload, {at}", step.disk / step.size - SIZE, "B/event")
    if step.vault:
        yield Row(f"{name}, vault on disk, {at}", step.vault / MIB, "MiB")


def verified(path: Path, step: Step, subjects: int) -> Iterator[Row]:
    """Yield the rows about verify-log, without opening rows, in a process of its own."""
    key = subprocess.run(
        [sys.executable, "-P", "-m", "tools.cli", "keys", "vkey", "--data", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    command = [sys.executable, "-P", "-m", "tools.verify_log", str(path), "--vkey", key]
    started = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe, text=True) as check:
        memory = Memory(check.pid)
        said = check.communicate()[1]
        memory.stop()
    if check.returncode:
        raise RuntimeError(f"verify-log ended with {check.returncode}: {said}")
    took_s = time.perf_counter() - started
    name, at = f"verify-log, {subjects:,} subjects", f"at {step.size:,} entries"
    yield Row(f"{name}, {at}", step.size / took_s, "leaves/s")
    yield Row(f"{name}, the most anonymous memory, {at}", memory.take()[1], "MiB")


def replayed(path: Path, step: Step, subjects: int) -> Iterator[Row]:
    """Yield the rows about a replay of one small reducer over all of the log, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.folding", str(path), str(step.size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as replay:
        memory = Memory(replay.pid)
        said = replay.communicate()[0]
        memory.stop()
    if replay.returncode:
        raise RuntimeError(f"the replay ended with {replay.returncode}")
    name, at = f"replay, {subjects:,} subjects", f"at {step.size:,} entries"
    rates = Rates(*json.loads(said))
    yield Row(f"{name}, {at}", rates.elapsed, "events/s")
    yield Row(f"{name}, of processor time, {at}", rates.processor, "events/s")
    yield Row(f"{name}, the most anonymous memory, {at}", memory.take()[1], "MiB")


def with_ratios(found: Sequence[Row]) -> list[Row]:
    """Return rows of one kind together, each with its ratio to the first of them.

    >>> [row.ratio for row in with_ratios([Row("a, at 1", 2, "ms"), Row("b, at 1", 7, "ms"), Row("a, at 2", 3, "ms")])]
    [None, 1.5, None]
    """
    first: dict[str, Row] = {}
    together: dict[str, list[Row]] = {}
    for row in found:
        kind = row.what.rpartition(", ")[0]
        one = first.setdefault(kind, row)
        ratio = row.value / one.value if one is not row and one.value else None
        together.setdefault(kind, []).append(
            Row(row.what, row.value, row.unit, ratio, one.what.rpartition(", ")[2])
        )
    return [row for kind in together.values() for row in kind]


def main(argv: Sequence[str] | None = None) -> int:
    """Be the process that writes; `make bench` starts it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Grow one log (for make bench)."
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("subjects", type=int)
    parser.add_argument("kind", choices=("log", "sqlite"))
    arguments = parser.parse_args(argv)
    write(arguments.path, arguments.count, arguments.subjects, kind=arguments.kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
