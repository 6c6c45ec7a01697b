"""What states cost: a worker's restart with many of them, and what one takes in memory and on disk.

A real archiver process and a real worker process of one shard.  An event is appended, then the worker is started, and
the time runs until the store says that this event is folded and saved, seen from outside as readers see it:

    one key           a log of one student, whose states are saved: what starting a worker takes by itself
    rebuilding        a log of one event a student, and no states: all of it is folded, and saved
    restarted         the same, saved: a snapshot of every student's states, and one event more

Memory is counted in a process that does nothing else: RssAnon before and after (Linux).  Disk is what the store's file
takes, tables and free pages of LMDB included.

    python -m benchmarks --only states
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from archive import ROW_EVENT, ArchiveError, DataFolder, DirectClient, Event, Receipt, Submission
from benchmarks.events import RECEIVED_US, payload
from benchmarks.logs import archiver
from benchmarks.table import Row
from reducers import available, fold_one, load, shipped
from replay import Catalogue, Holding, Marker, catalogue_of, module_folder, read_marker, shard_folder
from tools.offline import states_of
from tools.process import quiet_collector

KEYS_MAX = 100_000
MODULE = "activity"
COMMIT = 1_000
POLL_S = 0.01
GIVE_UP_S = 300.0


def measure(path: Path, count: int) -> list[Row]:
    """Return the rows about `count` students' states, at most 100,000, in whole thousands."""
    keys = max(1, min(count, KEYS_MAX) // COMMIT) * COMMIT
    small = DataFolder(path / "small")
    _started(
        small, 0
    )  # what the first start has to do alone: the module is activated, files come from the disk
    small_s, _ = _started(small, 0)
    folder = DataFolder(path / "kept")
    rebuilt_s, _ = _started(folder, keys)
    restarted_s, states = _started(folder, 0)
    disk = sum(one.stat().st_blocks * 512 for one in _place(folder).iterdir())
    assert states >= keys, f"a snapshot of {states} states is not one of {keys} students"
    return [
        Row("worker restarted, one key: start → new event saved", small_s, "s"),
        Row(
            f"worker restarted, {states:,} states of {keys:,} keys",
            restarted_s,
            "s",
            restarted_s / small_s,
            "one key",
        ),
        Row(f"worker rebuilding {keys:,} events", rebuilt_s, "s", rebuilt_s / restarted_s, "restarted"),
        Row("a small state in the store", disk / states, "bytes"),
        Row("a small state in memory", memory_per_state(keys), "bytes"),
    ]


# --- time ----------------------------------------------------------------------------------------


def _started(folder: DataFolder, keys: int) -> tuple[float, int]:
    """Return how long a worker takes from its start until it has saved an event that waits for it, and its states.

    Before that, the log is given one event of each of `keys` students more.
    """
    with archiver(folder.path) as (kept, _):
        for start in range(0, keys, COMMIT):
            kept.step([_submission(student) for student in range(start, start + COMMIT)])
    with _process("tools.archiver", folder) as service:
        assert service.stdout is not None
        service.stdout.readline()
        with DirectClient(folder.socket) as client:
            (answer,) = client.append([_submission(keys // 2)])
        assert isinstance(answer, Receipt), answer
        started = time.perf_counter()
        with _process("tools.worker", folder, "--shard", "0", "--shards", "1", "--module", MODULE):
            _wait_until_saved(folder, answer.size)
            elapsed = time.perf_counter() - started
    return elapsed, _count(folder)


def _submission(student: int) -> Submission:
    name = f"student-{student:06d}"
    return Submission(
        kind=ROW_EVENT,
        subject=f"student:{name}",
        payload=payload(student, student),
        received_us=RECEIVED_US + student,
        source="org.example.writing",
        sender="anonymous",
        form="json",
        keys={"student": name},
    )


@contextmanager
def _process(module: str, folder: DataFolder, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a service on a folder; it ends with the context, in its own way."""
    command = [sys.executable, "-P", "-m", module, "--data", str(folder.path), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _wait_until_saved(folder: DataFolder, size: int) -> None:
    give_up_at = time.monotonic() + GIVE_UP_S
    while (marker := _marker(folder)) is None or marker.position < size:
        assert time.monotonic() < give_up_at, f"the worker did not come to {size} in {GIVE_UP_S:.0f} s"
        time.sleep(POLL_S)


def _marker(folder: DataFolder) -> Marker | None:
    """Return what the saved states stand for, or None while there are none."""
    try:
        with states_of(folder, folder.state, _catalogue(), 0, 1) as store, store.view() as view:
            return read_marker(view.get("meta", b"snapshot"))
    except ArchiveError:  # not made yet, or being made
        return None


def _count(folder: DataFolder) -> int:
    with states_of(folder, folder.state, _catalogue(), 0, 1) as store, store.view() as view:
        return sum(1 for _ in view.scan("states"))


def _place(folder: DataFolder) -> Path:
    place = module_folder(folder.state, folder.partition, MODULE)
    return shard_folder(place, _catalogue().generation, 0, 1)


@cache
def _catalogue() -> Catalogue:
    return catalogue_of(load(available()[MODULE]))


# --- memory --------------------------------------------------------------------------------------


def memory_per_state(keys: int) -> float:
    """Return the bytes that one of `keys` states of `event_count` takes in a holding, its key included."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_grown, keys).result() / keys


def _grown(keys: int) -> int:
    reducer = shipped().get("event_count")
    holding = Holding([reducer])
    quiet_collector()
    before = _anonymous_bytes()
    for number in range(keys):
        student = f"student-{number:06d}"
        event = Event(
            index=number, type="t", source="s", keys={"student": student}, data={}, received_ms=0, time_ms=0
        )
        holding.put(reducer, (student,), fold_one(reducer, None, event))
        if number % COMMIT == COMMIT - 1:
            holding.save(number, b"", {})  # as a worker does: what is saved is no longer remembered as new
    grown = _anonymous_bytes() - before
    assert len(holding.keys(reducer)) == keys, "states were forgotten: this would measure fewer"
    return grown


def _anonymous_bytes() -> int:
    """Return the memory of this process that no file backs (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1_024
    raise OSError("this system does not tell RssAnon")
