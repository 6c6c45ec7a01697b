"""A whole server, its client on the same two cores: durable ingest, and the time to a readable state."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import websockets

from benchmarks.events import payload
from benchmarks.table import Row

BATCH = 500
REQUESTS = 80
SOCKETS, IN_FLIGHT, FRAMES = 8, 64, 2_500
PROBES = 200


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """Run a server on a free port and return its address."""
    command = [sys.executable, "-P", "-m", "tools.cli", "serve", "--data", str(path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def measure(path: Path) -> list[Row]:
    """Return the rows about a whole server."""
    with serving(path / "served") as url:
        return [
            Row("server, HTTP, 500 events a request", asyncio.run(posted_per_s(url)), "events/s"),
            Row("server, 8 WebSockets × 64 in flight, each acked", asyncio.run(acked_per_s(url)), "events/s"),
            *readable_ms(url),
        ]


async def posted_per_s(url: str) -> float:
    """Return events a second over HTTP, four requests at a time, each answered when it is durable."""
    bodies = [
        b"\n".join(payload(number, number * 7 % 1_000) for number in range(at, at + BATCH))
        for at in range(0, REQUESTS * BATCH, BATCH)
    ]
    target = url + "/v1/events?student=$.user_id&doc_id=$.doc_id"
    headers = {"Content-Type": "application/x-ndjson"}
    waiting = iter(bodies)
    async with httpx2.AsyncClient(timeout=60) as client:

        async def send() -> None:
            for body in waiting:
                answer = await client.post(target, content=body, headers=headers)
                assert answer.status_code == 200, answer.text[:200]

        started = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(4)))
    return REQUESTS * BATCH / (time.perf_counter() - started)


async def acked_per_s(url: str) -> float:
    """Return frames a second over WebSockets, each acknowledged when it is durable."""
    target = url.replace("http", "ws", 1) + "/wsapi/in/?ack=1"

    async def play(number: int) -> None:
        window = asyncio.Semaphore(IN_FLIGHT)
        async with websockets.connect(target, compression=None, max_queue=None) as socket:

            async def count_acks() -> None:
                acked = 0
                while acked < FRAMES:
                    if json.loads(await socket.recv())["status"] == "ack":
                        acked += 1
                        window.release()

            counting = asyncio.create_task(count_acks())
            for frame in range(FRAMES):
                await window.acquire()
                await socket.send(payload(frame, number), text=True)
            await counting

    started = time.perf_counter()
    await asyncio.gather(*(play(number) for number in range(SOCKETS)))
    return SOCKETS * FRAMES / (time.perf_counter() - started)


def readable_ms(url: str) -> list[Row]:
    """Return how long it takes from sending one event until its state can be read, in milliseconds."""
    times = []
    with httpx2.Client(base_url=url, timeout=30) as client:
        for number in range(PROBES):
            body = json.dumps({"type": "probe", "keys": {"student": f"probe-{number % 20}"}, "data": {}})
            started = time.perf_counter()
            answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
            size = answer.json()["receipts"][0]["size"]
            params = {"student": f"probe-{number % 20}", "min_size": size}
            client.get("/v1/states/event_count", params=params).raise_for_status()
            times.append((time.perf_counter() - started) * 1e3)
    times.sort()
    return [
        Row("event sent → state readable, p50", statistics.median(times), "ms"),
        Row("event sent → state readable, p99", times[int(len(times) * 0.99) - 1], "ms"),
    ]
