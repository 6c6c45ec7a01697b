"""Replay against bare loops over a JSONL file: what decryption, routing and folding cost, and what a second core gives.

All fold the same events by student: a bare `orjson` loop (the aim is stated against it), one with msgspec, what one
would write in a notebook (`json`, a dict of dicts), a library for event sourcing (`benchmarks.sourced`), and replay, in
this process and as `treering replay --jobs 1` and `--jobs 2` run it.  None but replay decrypts anything, or can say
afterwards that these are the events that were taken in.  One line only reads the events, and folds nothing: no reducer
makes a replay quicker than that.

What a core does in a second is asked of one process, so its processor time counts; of several rounds, each with all
that are compared, the quickest of each, for whoever else uses the machine makes both slower, but not alike.  `--jobs`
are compared by the clock on the wall, and beside them stands what two bare loops at once do against one: two cores that
share caches, memory or a host with others are not twice one.

    python -m benchmarks --only replay --size 1000000     so long that starting processes does not count
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from archive import DataFolder
from benchmarks import sourced
from benchmarks.events import submissions
from benchmarks.folding import event_count, replay_per_s
from benchmarks.logs import archiver
from benchmarks.table import Row
from reducers import shipped
from replay import Feed, Portion, Routing
from tools.offline import log_of
from tools.replay_hands import Job, hands

COMMIT = 1_000
ROUNDS = 3
BARE = "bare loop: JSONL, orjson, count"


def measure(path: Path, count: int) -> list[Row]:
    """Return the rows about replaying `count` events, in whole thousands."""
    count = max(1, count // COMMIT) * COMMIT
    file, folder = path / "events.jsonl", _written(path, count)
    rates = quickest(
        {
            BARE: lambda: loop_per_s(file, orjson.loads),
            "bare loop: JSONL, msgspec, count": lambda: loop_per_s(file, msgspec.json.decode),
            "reading alone: decrypt, decode, build events": lambda: events_per_s(folder, count),
            "replay, event_count": lambda: replay_per_s(folder, event_count(), count).processor,
        }
    )
    bare = rates[BARE]
    rates["replay, all shipped reducers"] = replay_per_s(folder, shipped(), count).processor
    rates["plain dict: JSONL, json, a dict a student"] = dict_per_s(file)
    rows = [
        Row(name, rate, "events/s", None if name == BARE else rate / bare, "orjson loop")
        for name, rate in rates.items()
    ]
    return [*rows, *sourced.measure(file, bare), *by_jobs(folder, count), two_loops(file, count)]


def quickest(rates: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Return the best of ROUNDS measurements of each, taken in turns."""
    found = [{name: each() for name, each in rates.items()} for _ in range(ROUNDS)]
    return {name: max(one[name] for one in found) for name in rates}


def _written(path: Path, count: int) -> DataFolder:
    """Write the events into a log and into a JSONL file, and return the folder of the log."""
    with archiver(path / "replayed") as (kept, folder), (path / "events.jsonl").open("wb") as lines:
        for commit in range(count // COMMIT):
            batch = submissions(COMMIT, seed=commit)
            kept.step(batch)
            lines.writelines(one.payload + b"\n" for one in batch)
    return folder


def loop_per_s(file: Path, decode: Callable[[bytes], Any]) -> float:
    """Return events a second of processor time that a plain loop counts by student."""
    counts: Counter[str] = Counter()
    started = time.process_time()
    with file.open("rb") as lines:
        for line in lines:
            counts[decode(line)["user_id"]] += 1
    return counts.total() / (time.process_time() - started)


def dict_per_s(file: Path) -> float:
    """Return events a second of processor time that a dict of dicts folds, with the standard library."""
    states: dict[str, dict[str, int]] = {}
    started = time.process_time()
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            state = states.setdefault(json.loads(line)["user_id"], {"events": 0})
            state["events"] += 1
    elapsed = time.process_time() - started
    return sum(state["events"] for state in states.values()) / elapsed


def events_per_s(folder: DataFolder, count: int) -> float:
    """Return events a second of processor time that are read as a replay reads them, and not folded."""
    reducer = shipped().get("event_count")
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        with source.open() as log:
            size = log.size
        feed, found = Feed(vault, Routing([reducer], vault.route_key)), 0
        started = time.process_time()
        while feed.position < size:
            with source.open() as log:
                work, feed.position = feed.load(log, size)
            found += sum(len(one) for one in feed.portions(work, source) if isinstance(one, Portion))
        elapsed = time.process_time() - started
    assert found == count, "other events were read than were written"
    return found / elapsed


def by_jobs(folder: DataFolder, count: int) -> list[Row]:
    """Return the rows about one process and two; those that are started count with all the time that takes."""
    rounds = [(_swept(folder, 1), _swept(folder, 2)) for _ in range(ROUNDS)]
    assert len({each.states for pair in rounds for each in pair}) == 1, (
        "one process and two came to different states"
    )
    one, two = (min(those) for those in zip(*rounds, strict=True))  # the quickest of each
    return [
        Row("treering replay --jobs 1, event_count", count / one.elapsed_s, "events/s"),
        Row(
            "treering replay --jobs 2, start included",
            count / two.elapsed_s,
            "events/s",
            one.elapsed_s / two.elapsed_s,
            "one process",
        ),
        Row("  of which until both had begun", two.begun_s, "s"),
        Row("  and then", count / two.folding_s, "events/s", one.folding_s / two.folding_s, "one process"),
    ]


def two_loops(file: Path, count: int) -> Row:
    """Return the row about two bare loops at once: as much as a second core can give here."""
    with get_context("spawn").Pool(2) as pool:
        pool.map(_loop_s, [file] * 2, chunksize=1)  # to import what they need, and have the file in memory
        one_s = min(pool.apply(_loop_s, (file,)) for _ in range(ROUNDS))
        two_s = min(max(pool.map(_loop_s, [file] * 2, chunksize=1)) for _ in range(ROUNDS))
    rate = 2 * count / two_s
    return Row("bare loops, two at once: the limit", rate, "events/s", rate * one_s / count, "one process")


def _loop_s(file: Path) -> float:
    started = time.perf_counter()
    loop_per_s(file, orjson.loads)
    return time.perf_counter() - started


class _Swept(NamedTuple):
    """How long a replay took, until when all hands had folded an entry, and how many states it came to."""

    elapsed_s: float
    begun_s: float
    states: int

    @property
    def folding_s(self) -> float:
        """Seconds in which all folded."""
        return self.elapsed_s - self.begun_s


def _swept(folder: DataFolder, jobs: int) -> _Swept:
    with log_of(folder) as source, source.open() as log:
        size = log.size
    job = Job(folder.path, folder.partition, ("activity",), ("event_count",), (1, size), shards=jobs)
    stops: list[float] = []
    started = time.perf_counter()
    with hands(job, jobs) as team:
        team.sweep(lambda *_: stops.append(time.perf_counter() - started), lambda _: None)
        elapsed = time.perf_counter() - started
        states = sum(1 for _ in team.states())
    return _Swept(elapsed, stops[0], states)
