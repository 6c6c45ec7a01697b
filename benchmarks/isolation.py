"""What a vile module costs the others: event to readable state of `event_count`, alone, beside it, while it does harm.

Each row of one run: the same probes, one after the other, on the same machine; the harm is done after a quarter of
them.  p50 and p99 are of all probes, harm included; *longest* is the one that met it: the pause that neighbours see.
All students that are asked about are in the shard that meets the harm.  One of the vile module's reducers raises at
every event, in all cases.

    alone              no module beside those that come along
    idle               the vile module is there, and counts like any other
    in a cell          the same, configured as a cell
    crashes            one segmentation fault (then a cell, then parked)
    loops              one endless loop (moved after a second, killed after `seconds_per_event`, a cell, parked)
    without a spare    the same, with `spare_workers = 0`

    python -m benchmarks --only isolation
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import httpx2

from archive import DataFolder
from benchmarks.table import Row
from replay import home_of

PROBES, STUDENTS, SHARDS = 400, 20, 2
CULPRIT = "mallory"
"""Whose event does the harm."""
SECONDS_PER_EVENT = 2.0
VILE = Path(__file__).parents[1] / "tests" / "vile"


class Case(NamedTuple):
    """What is measured: its name, whether the module is installed, its level, its deed, how many workers stand by."""

    name: str
    vile: bool = True
    level: str = "shared"
    deed: str = ""
    spares: int = 1


CASES = (
    Case("alone", vile=False),
    Case("beside an idle one"),
    Case("beside one in a cell", level="cell"),
    Case("while one crashes", deed="vile.crash"),
    Case("while one crashes, without a spare", deed="vile.crash", spares=0),
    Case("while one loops", deed="vile.spin"),
    Case("while one crashes in a cell", level="cell", deed="vile.crash"),
    Case("while one loops in a cell", level="cell", deed="vile.spin"),
)


@contextmanager
def serving(path: Path, case: Case) -> Iterator[httpx2.Client]:
    """Run a server, with the vile module or without, and return a client of it."""
    path.mkdir()
    file = path / "config.toml"
    table = f'[module.vile]\nisolation = "{case.level}"\n' if case.vile else ""
    file.write_text(f"seconds_per_event = {SECONDS_PER_EVENT}\nspare_workers = {case.spares}\n{table}")
    data = ("--data", str(path / "data"), "--port", "0", "--config", str(file))
    environment = {**os.environ, "PYTHONPATH": str(VILE)} if case.vile else dict(os.environ)
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


def settled(client: httpx2.Client, case: Case, students: Sequence[str]) -> None:
    """Wait until everything is ready, and warm."""
    standing_by = f"treering_spare_workers {case.spares}.0"
    while client.get("/readyz").status_code != 200 or standing_by not in client.get("/metrics").text:
        time.sleep(0.05)
    for number in range(50):
        readable_ms(client, "event_count", students[number % STUDENTS])


def neighbours(data: Path) -> list[str]:
    """Return students whose states are in the shard that the culprit's event goes to."""
    vault = DataFolder(data).open_vault(os.urandom)

    def home(student: str) -> int:
        return home_of("event_count", ("student",), (student,), vault.route_key, SHARDS)

    names = (f"student-{number}" for number in count())
    found = list(islice((one for one in names if home(one) == home(CULPRIT)), STUDENTS))
    vault.close()
    return found


def probed(client: httpx2.Client, deed: str, students: Sequence[str]) -> list[float]:
    """Return the times of all probes, sorted; after a quarter of them, the deed is done."""
    times = []
    for number in range(PROBES):
        if deed and number == PROBES // 4:
            send(client, deed, CULPRIT)
        times.append(readable_ms(client, "event_count", students[number % STUDENTS]))
    return sorted(times)


def measure(path: Path) -> list[Row]:
    """Return the rows about isolation."""
    rows: list[Row] = []
    base: dict[str, float] = {}
    for place, case in enumerate(CASES):
        folder = path / f"isolation-{place}"
        with serving(folder, case) as client:
            students = neighbours(folder / "data")
            settled(client, case, students)
            times = probed(client, case.deed, students)
            asked = students * 3 if case.vile and not case.deed else []
            own = [readable_ms(client, "evil", student) for student in asked]
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
                    f"event_count readable {case.name}, {which}",
                    value,
                    "ms",
                    ratio,
                    "" if ratio is None else "alone",
                )
            )
        if own:
            rows.append(Row(f"its own state readable ({case.level}), p50", statistics.median(own), "ms"))
    return rows
