"""What a vile module costs the others: event to readable state of `event_count`, alone, beside it, while it does harm.

Each row of one run: the same probes, one after the other, on the same machine; the harm is done after a quarter of
them.  p50 and p99 are of all probes, harm included; *longest* is the one that met it: the pause that neighbours see.
One of the vile module's reducers raises at every event, in all cases.

    alone              no module beside those that come along
    idle               the vile module is there, and counts like any other
    in a cell          the same, configured as a cell
    crashes            one segmentation fault (then a cell, then parked)
    loops              one endless loop (killed after `seconds_per_event`, then a cell, then parked)

    python -m benchmarks --only isolation
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from benchmarks.table import Row

PROBES = 400
SECONDS_PER_EVENT = 2.0
VILE = Path(__file__).parents[1] / "tests" / "vile"
CASES: tuple[tuple[str, bool, str, str], ...] = (
    ("alone", False, "shared", ""),
    ("beside an idle one", True, "shared", ""),
    ("beside one in a cell", True, "cell", ""),
    ("while one crashes", True, "shared", "vile.crash"),
    ("while one loops", True, "shared", "vile.spin"),
    ("while one crashes in a cell", True, "cell", "vile.crash"),
    ("while one loops in a cell", True, "cell", "vile.spin"),
)
"""What is measured: its name, whether the module is installed, its level, its deed."""


@contextmanager
def serving(path: Path, *, vile: bool, level: str) -> Iterator[httpx2.Client]:
    """Run a server, with the vile module or without, and return a client of it."""
    path.mkdir()
    file = path / "config.toml"
    table = f'[module.vile]\nisolation = "{level}"\n' if vile else ""
    file.write_text(f"seconds_per_event = {SECONDS_PER_EVENT}\n{table}")
    data = ("--data", str(path / "data"), "--port", "0", "--config", str(file))
    environment = {**os.environ, "PYTHONPATH": str(VILE)} if vile else dict(os.environ)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tools.cli", "serve", *data],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1].rstrip("/")
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def send(client: httpx2.Client, kind: str, student: str) -> int:
    """Send an event and return the size that covers it."""
    body = json.dumps({"type": kind, "source": "bench", "keys": {"student": student}, "data": {"n": 1}})
    answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    return int(answer.json()["receipts"][0]["size"])


def readable_ms(client: httpx2.Client, reducer: str, student: str) -> float:
    """Return how long it takes until an event's state can be read; one that is not readable yet is asked for again."""
    started = time.perf_counter()
    size = send(client, "probe", student)
    while (
        client.get(f"/v1/states/{reducer}", params={"student": student, "min_size": size}).status_code != 200
    ):
        pass
    return (time.perf_counter() - started) * 1e3


def settled(client: httpx2.Client) -> None:
    """Wait until everything is ready, and warm."""
    while client.get("/readyz").status_code != 200:
        time.sleep(0.05)
    for number in range(50):
        readable_ms(client, "event_count", f"student-{number % 20}")


def probed(client: httpx2.Client, deed: str) -> list[float]:
    """Return the times of all probes, sorted; after a quarter of them, the deed is done."""
    times = []
    for number in range(PROBES):
        if deed and number == PROBES // 4:
            send(client, deed, "mallory")
        times.append(readable_ms(client, "event_count", f"student-{number % 20}"))
    return sorted(times)


def measure(path: Path) -> list[Row]:
    """Return the rows about isolation."""
    rows: list[Row] = []
    base: dict[str, float] = {}
    for place, (name, vile, level, deed) in enumerate(CASES):
        with serving(path / f"isolation-{place}", vile=vile, level=level) as client:
            settled(client)
            times = probed(client, deed)
            own = (
                [readable_ms(client, "evil", f"student-{n % 20}") for n in range(50)]
                if vile and not deed
                else []
            )
        figures = {
            "p50": statistics.median(times),
            "p99": times[int(PROBES * 0.99) - 1],
            "longest": times[-1],
        }
        base = base or figures
        for which, value in figures.items():
            ratio = None if figures is base else value / base[which]
            rows.append(
                Row(
                    f"event_count readable {name}, {which}",
                    value,
                    "ms",
                    ratio,
                    "" if ratio is None else "alone",
                )
            )
        if own:
            rows.append(Row(f"its own state readable ({level}), p50", statistics.median(own), "ms"))
    return rows
