"""How fresh states are while the log grows: from sending an event until its state can be read, or is pushed.

A whole server, its clients on the same two cores.  The load is offered at a fixed rate, whether or not the server
keeps up, and every probe is counted from the moment at which it was due: nothing that is slow hides by sending less
(coordinated omission).  Quiet is the same without load.

    readable     POST of an event, then GET of its state with ?min_size=, 20 probes a second
    pushed       POST of an event, then waiting for it on the student's own stream, 20 probes a second
    to 100       10 changes a second, each to be seen by 100 streams of all states, without load

Readable is measured in a log that has just begun, too, whose students are all new and whose states are attested every
1,000 entries; then the log is given 40,000 events, and the rest is measured.

Where the client itself was late, the machine had no turn to give: then the figures say more of the machine.

    python -m benchmarks --only live
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2

from benchmarks.events import payload
from benchmarks.server import posted_per_s, serving
from benchmarks.table import Row

RATE, BATCH = 2_000, 50
PROBES_PER_S, CHANGES_PER_S = 20, 10
QUIET_S, YOUNG_S, LOADED_S, FAN_S = 6, 6, 10, 8
STUDENTS = 20
STREAMS = 100
START_S, LOOK_S = 60.0, 0.05
LAST_S = 10.0
"""How long what has not arrived yet is waited for."""


def measure(path: Path) -> list[Row]:
    """Return the rows about fresh states."""
    with serving(path / "live") as url:
        return asyncio.run(_measured(url))


async def _measured(url: str) -> list[Row]:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await _warm(client)
        quiet = await _probed(client, QUIET_S)
        young = await _loaded(client, YOUNG_S, _probed(client, YOUNG_S))
        await posted_per_s(url)
        await _readable(client, _student(0))
        read = await _loaded(client, LOADED_S, _probed(client, LOADED_S))
        pushed = await _loaded(client, LOADED_S, _streamed(client, LOADED_S))
        seen = await _fanned(client, FAN_S)
    busy = f"at {RATE:,} events/s"
    return [
        *_rows("event sent → state readable, quiet", quiet),
        *_rows(f"event sent → state readable {busy}, log just begun", young.times, quiet, "quiet"),
        *_rows(f"event sent → state readable {busy}", read.times, quiet, "quiet"),
        *_rows(f"event sent → state on its stream {busy}", pushed.times, quiet, "readable, quiet"),
        Row(
            f"  acked of {RATE:,} events/s offered, the worst of all",
            min(young.per_s, read.per_s, pushed.per_s),
            "events/s",
        ),
        Row("  the client itself was late by, p99", _p99(young.late + read.late + pushed.late), "ms"),
        *_rows(f"event sent → on each of {STREAMS} streams, {CHANGES_PER_S}/s", seen),
    ]


def _rows(what: str, times: Sequence[float], base: Sequence[float] = (), to: str = "") -> list[Row]:
    """Return p50 and p99 of times in milliseconds, as ratios to those of `base` if that is given."""
    rows = []
    for name, of in (("p50", statistics.median), ("p99", _p99)):
        ratio = of(times) / of(base) if base else None
        rows.append(Row(f"{what}, {name}", of(times), "ms", ratio, to))
    return rows


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99) - 1]


# --- sending -------------------------------------------------------------------------------------


async def _send(client: httpx2.AsyncClient, student: str) -> int:
    """Send an event and return the size that covers it."""
    body = json.dumps({"type": "probe", "keys": {"student": student}, "data": {}})
    answer = await client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    return int(answer.raise_for_status().json()["receipts"][0]["size"])


async def _warm(client: httpx2.AsyncClient) -> None:
    """Wait until everything is ready, and each student has a state."""
    for _ in range(int(START_S / LOOK_S)):
        if (await client.get("/readyz")).status_code == 200:
            break
        await asyncio.sleep(LOOK_S)
    for number in range(STUDENTS * 2):
        await _readable(client, _student(number))


def _student(number: int) -> str:
    return f"probe-{number % STUDENTS}"


async def _at_rate(per_s: float, seconds: float, act: Callable[[int, float], Awaitable[None]]) -> list[float]:
    """Call `act(number, due)` at a fixed rate, however long each takes, and wait for all; `due` is perf_counter's.

    Returns by how many milliseconds each call was late, because this process had no turn.
    """
    start, tasks, late = time.perf_counter(), [], []
    for number in range(int(per_s * seconds)):
        due = start + number / per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late.append((time.perf_counter() - due) * 1e3)
        tasks.append(asyncio.ensure_future(act(number, due)))
    await asyncio.gather(*tasks)
    return late


class _Load(NamedTuple):
    """Events that come in at RATE while something else is measured."""

    times: list[float]
    """What was measured, milliseconds."""
    per_s: float
    """How many events were acked a second."""
    late: list[float]
    """By how many milliseconds each batch was sent too late."""


async def _loaded(client: httpx2.AsyncClient, seconds: float, probing: Awaitable[list[float]]) -> _Load:
    """Send events at RATE while `probing` lasts, which is `seconds`, and a moment before and after."""
    target = "/v1/events?student=$.user_id&doc_id=$.doc_id"
    started = last = time.perf_counter()
    acked = 0

    async def post(number: int, due: float) -> None:
        nonlocal acked, last
        del due
        at = number * BATCH
        body = b"\n".join(payload(one, one * 7 % 1_000) for one in range(at, at + BATCH))
        answer = await client.post(target, content=body, headers={"Content-Type": "application/x-ndjson"})
        answer.raise_for_status()
        acked, last = acked + BATCH, time.perf_counter()

    load = asyncio.create_task(_at_rate(RATE / BATCH, seconds + 1, post))
    await asyncio.sleep(0.5)
    times = await probing
    late = await load
    return _Load(times, acked / (last - started), late)


# --- reading -------------------------------------------------------------------------------------


async def _readable(client: httpx2.AsyncClient, student: str) -> None:
    """Send an event, and return when a state that has seen it was read."""
    params: dict[str, str | int] = {"student": student, "min_size": await _send(client, student)}
    (await client.get("/v1/states/event_count", params=params)).raise_for_status()


async def _probed(client: httpx2.AsyncClient, seconds: float) -> list[float]:
    """Return milliseconds from when each event was due until its state was read."""
    times: list[float] = []

    async def probe(number: int, due: float) -> None:
        await _readable(client, _student(number))
        times.append((time.perf_counter() - due) * 1e3)

    await _at_rate(PROBES_PER_S, seconds, probe)
    return times


class _Stream:
    """A stream of states, and what is still to be seen on it."""

    def __init__(self, client: httpx2.AsyncClient, student: str | None, times: list[float]) -> None:
        self._client, self._params = client, {} if student is None else {"student": student}
        self._times = times
        self._expected: dict[str, list[tuple[int, float]]] = {}
        self.ready = asyncio.Event()

    @property
    def missing(self) -> int:
        """How many changes have not come."""
        return sum(map(len, self._expected.values()))

    def expect(self, student: str, events: int, due: float) -> None:
        """Take the time from `due` until this stream shows at least so many events of a student."""
        self._expected.setdefault(student, []).append((events, due))

    async def run(self) -> None:
        """Read until cancelled."""
        target = "/v1/states/event_count/stream"
        async with self._client.stream("GET", target, params=self._params, timeout=None) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self._take(json.loads(line[6:]))

    def _take(self, data: dict[str, dict[str, object]]) -> None:
        if "state" not in data:  # where the stream stands: all that there was has come
            self.ready.set()
            return
        student, events = str(data["key"]["student"]), int(str(data["state"]["events"]))
        waiting = self._expected.get(student)
        if waiting:
            now = time.perf_counter()
            self._times += [(now - due) * 1e3 for number, due in waiting if number <= events]
            self._expected[student] = [one for one in waiting if one[0] > events]


@asynccontextmanager
async def _opened(streams: Sequence[_Stream]) -> AsyncIterator[None]:
    """Read these streams, from when all have shown what there is."""
    tasks = [asyncio.create_task(one.run()) for one in streams]
    try:
        await asyncio.wait_for(asyncio.gather(*(one.ready.wait() for one in streams)), START_S)
        yield
        for _ in range(int(LAST_S / LOOK_S)):
            if not any(one.missing for one in streams):
                break
            await asyncio.sleep(LOOK_S)
        missing = sum(one.missing for one in streams)
        assert not missing, f"{missing} changes never came"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _changing(
    client: httpx2.AsyncClient, per_s: float, seconds: float, streams_of: Callable[[int], Sequence[_Stream]]
) -> None:
    """Change students' states at a fixed rate, and let `streams_of(number)` expect each change."""
    counts: Counter[str] = Counter()
    for number in range(STUDENTS):
        answer = await client.get("/v1/states/event_count", params={"student": _student(number)})
        counts[_student(number)] = answer.raise_for_status().json()["state"]["events"]

    async def change(number: int, due: float) -> None:
        student = _student(number)
        counts[student] += 1
        for stream in streams_of(number):
            stream.expect(student, counts[student], due)
        await _send(client, student)

    await _at_rate(per_s, seconds, change)


async def _streamed(client: httpx2.AsyncClient, seconds: float) -> list[float]:
    """Return milliseconds from when each event was due until the student's own stream showed it."""
    times: list[float] = []
    streams = [_Stream(client, _student(number), times) for number in range(STUDENTS)]
    async with _opened(streams):
        await _changing(client, PROBES_PER_S, seconds, lambda number: [streams[number % STUDENTS]])
    return times


async def _fanned(client: httpx2.AsyncClient, seconds: float) -> list[float]:
    """Return milliseconds from when each event was due until each of the streams of all states showed it."""
    times: list[float] = []
    streams = [_Stream(client, None, times) for _ in range(STREAMS)]
    async with _opened(streams):
        await _changing(client, CHANGES_PER_S, seconds, lambda _: streams)
    return times
