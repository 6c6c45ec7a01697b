"""Replay against a bare loop over a JSONL file: what decryption, routing and folding cost."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import msgspec

from archive import LogSource
from benchmarks.events import submissions
from benchmarks.logs import archiver
from benchmarks.table import Row
from reducers import Registry, shipped
from replay import replay_digests

COMMIT = 1_000


def measure(path: Path, count: int) -> list[Row]:
    """Return the rows about replaying `count` events, one process."""
    file = path / "events.jsonl"
    with archiver(path / "replayed") as (kept, folder), file.open("wb") as lines:
        for commit in range(count // COMMIT):
            batch = submissions(COMMIT, seed=commit)
            kept.step(batch)
            lines.writelines(one.payload + b"\n" for one in batch)
        size = kept.head.size
    bare = bare_per_s(file)
    rows = [Row("bare loop: JSONL, decode to dict, count", bare, "events/s")]
    source = LogSource(folder.open_log(), lambda: size)
    vault = folder.open_vault(os.urandom)
    one = Registry()
    one.register(shipped().get("event_count"))
    for name, registry in (("event_count", one), ("all shipped reducers", shipped())):
        started = time.perf_counter()
        replay_digests(source, registry, vault, size=size)
        rate = count / (time.perf_counter() - started)
        rows.append(Row(f"replay, {name}", rate, "events/s", rate / bare, "bare loop"))
    return rows


def bare_per_s(file: Path) -> float:
    """Return events a second that a plain loop counts by student."""
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    with file.open("rb") as lines:
        for line in lines:
            counts[msgspec.json.decode(line)["user_id"]] += 1
    return counts.total() / (time.perf_counter() - started)
