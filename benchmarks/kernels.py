"""The native kernel beside its twin: processor time for what is done to every event, and for the archiver around it.

A process has one kernel, so each is measured in a process of its own (`python -m benchmarks.kernels`), on the same
events.
Processor time, and the least of several rounds: other processes then disturb least.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from archive import LogSource, Share, Vault, read_many
from archive.kernel import kernel
from benchmarks.events import submissions
from benchmarks.logs import archiver
from benchmarks.table import Row as Measured
from tools.process import quiet_collector

COMMIT, WARM, COMMITS = 1_000, 20, 40
NAMES = {
    "archiver": "archiver, processor time, commits of 1,000",
    "rows": "log to rows, taken apart",
    "events": "log to events, opened and decoded",
}


def measure() -> list[Measured]:
    """Return the rows about both kernels; only the twin's where the native one was not built."""
    twin, native = _run("python"), _run("auto")
    rows = []
    for key, name in NAMES.items():
        rows.append(Measured(f"{name}: twin", twin[key], "us/event"))
        if native["kernel"] != twin["kernel"]:
            ratio = twin[key] / native[key]
            rows.append(Measured(f"{name}: native", native[key], "us/event", ratio, "as fast as the twin"))
    return rows


def _run(kernel: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "benchmarks.kernels"]
    environment = {
        **os.environ,
        "TREERING_KERNEL": kernel,
        "PYTHONPATH": os.fspath(Path(__file__).parents[1]),
    }
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _least(rounds: Iterable[Callable[[], object]]) -> float:
    """Return the processor time of the quickest round, in microseconds an event of a commit."""
    times = []
    for each in rounds:
        started = time.process_time()
        each()
        times.append(time.process_time() - started)
    return min(times) * 1e6 / COMMIT


def _here(path: Path) -> dict[str, Any]:
    """Measure with the kernel of this process."""
    with archiver(path) as (kept, folder):
        for seed in range(WARM):
            kept.step(submissions(COMMIT, seed=seed))
        batches = [submissions(COMMIT, seed=seed) for seed in range(WARM, WARM + COMMITS)]
        archived = _least(partial(kept.step, batch) for batch in batches)
        size = kept.head.size
    source = LogSource(folder.open_log(), lambda: size)
    vault = folder.open_vault(os.urandom)
    starts = range(0, size - COMMIT, COMMIT)
    rows = _least(partial(_rows, source, start) for start in starts)
    events = _least(partial(_events, source, start, vault) for start in starts)
    return {"kernel": getattr(kernel, "__name__", ""), "archiver": archived, "rows": rows, "events": events}


def _rows(source: LogSource, start: int) -> tuple[list[int], list[bytes], list[int]]:
    indices: list[int] = []
    bundles: list[bytes] = []
    places: list[int] = []
    with source.open() as log:
        for bundle, (_, _, some, starts, _, _) in log.picked(start, start + COMMIT, Share(), {}):
            indices += some
            bundles += [bundle] * len(some)
            places += starts
    return indices, bundles, places


def _events(source: LogSource, start: int, vault: Vault) -> int:
    return sum(len(piece.read) for piece in read_many(*_rows(source, start), vault))


if __name__ == "__main__":
    quiet_collector()
    with tempfile.TemporaryDirectory(prefix="bench-kernel-") as place:
        print(json.dumps(_here(Path(place))))
