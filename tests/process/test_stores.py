"""A real server whose states have a copy in a real Redis, or lie in memory: no wrong answer, and no empty one."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive import DataFolder
from tests.process.served import Served, serving
from tests.redis_server import RedisCluster, RedisServer
from tools.answering import check_front

pytestmark = pytest.mark.process

WAIT_S = 60.0


@pytest.fixture(params=["one", "cluster"])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer | RedisCluster]:
    """Return a running Redis, or a cluster of three."""
    kind = RedisServer if request.param == "one" else RedisCluster
    with kind(tmp_path) as started:
        yield started


def send(server: Served, count: int) -> int:
    """Send events of one student and return the size after them."""
    one = {"type": "t", "source": "s", "keys": {"student": "ann"}, "data": {}}
    answer = server.post(json.dumps([one] * count).encode())
    assert answer.status_code == 200, answer.text
    return int(answer.json()["checkpoint"]["size"])


def counted(server: Served, size: int) -> int:
    """Return how many events of the student were counted at `size` or later; no other answer is allowed."""
    answer = server.get("/v1/states/event_count", student="ann", min_size=size)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["state"]["events"])


def until(server: Served, redis: RedisServer | RedisCluster, state: str, *, names: bool) -> None:
    """Wait until the server says that of its Redis, and it holds names or not."""
    deadline = time.monotonic() + WAIT_S
    said = ""
    while time.monotonic() < deadline:
        server.get("/v1/states/event_count", student="ann")
        said = server.get("/readyz").json()["states"]["state"]
        if said.startswith(state) and (not names or redis.names()):
            return
        time.sleep(0.1)
    raise AssertionError(f"Redis is said to be {said!r}, not {state!r}")


def test_redis_may_go_and_come_and_nobody_notices(tmp_path: Path, redis: RedisServer | RedisCluster) -> None:
    """Down at the start, coming, flushed, going down in between, coming back: each answer is right, read your writes
    included; the server says how Redis is, and fills it again.
    """
    redis.stop()
    options = {"TREERING_STATE_STORE": "redis", "TREERING_REDIS_URL": redis.url}
    with serving(tmp_path / "data", environment=options) as server:
        total = size = 0
        for trouble in ("down", "started", "flushed", "stopped", "started again"):
            if trouble.startswith("started"):
                redis.start()
            elif trouble == "flushed":
                redis.flush()
            elif trouble == "stopped":
                redis.stop()
            for _ in range(3):
                size = send(server, 10)
                total += 10
                assert counted(server, size) == total, trouble
            if trouble in {"down", "stopped"}:
                until(server, redis, "down", names=False)
            else:
                until(server, redis, "ok", names=True)
            assert counted(server, size) == total, trouble
            assert server.get("/readyz").json()["ready"]
        # Names of students are in no key of Redis, only in what the keys hold.
        assert not any("ann" in name for name in redis.names())


def test_states_in_memory_are_found_and_go_with_the_machine(tmp_path: Path) -> None:
    """They lie in memory, are answered as any, and are made again when they are gone."""
    data = tmp_path / "data"
    with serving(data, environment={"TREERING_STATE_STORE": "memory"}) as server:
        assert counted(server, send(server, 5)) == 5
        state = DataFolder(data).state
        memory = state.readlink()
        assert memory.is_relative_to("/dev/shm")
    for file in sorted(memory.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    memory.rmdir()  # what a restart of the machine does
    with serving(data, environment={"TREERING_STATE_STORE": "memory"}) as server:
        assert counted(server, send(server, 1)) == 6
    with serving(data) as server:
        assert not state.is_symlink()
        assert counted(server, send(server, 1)) == 7
    assert not memory.exists(), "nobody's states stay in memory unseen"


FAULTS = {
    "replica": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "is a read-only replica"),
    "evicts": (
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        ("CONFIG", "SET", "maxmemory-policy", "noeviction"),
        "drops keys when it is full (maxmemory-policy allkeys-lru)",
    ),
    "full": (
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "SET", "maxmemory", "0"),
        "has no memory left",
    ),
}
REMEDIES = {
    "replica": "name the primary in redis_url",
    "evicts": "CONFIG SET maxmemory-policy noeviction",
    "full": "raise its maxmemory",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_redis_that_takes_no_states_is_not_said_to_catch_up(tmp_path: Path, fault: str) -> None:
    """It answers readers, so only who writes to it can tell: why and what helps is in /readyz, on the page, in the
    metrics and said by the doctor, until it takes states again, in which nothing has to be done.
    """
    broken, mended, why = FAULTS[fault]
    with RedisServer(tmp_path / "redis") as redis:
        redis.cli(*broken)
        options = {"TREERING_STATE_STORE": "redis", "TREERING_REDIS_URL": redis.url}
        with serving(tmp_path / "data", environment=options) as server:
            assert counted(server, send(server, 10)) == 10
            until(server, redis, "down: ", names=False)
            told = server.get("/readyz").json()["states"]
            assert told["state"].startswith(f"down: Redis at 127.0.0.1:{redis.port} {why}")
            assert told["remedy"].startswith(REMEDIES[fault])
            page = html.unescape(server.get("/").text)
            assert f"State store redis: {told['state']}<" in page
            assert told["remedy"] in page
            assert 'treering_state_store_down{store="redis"} 1.0' in server.get("/metrics").text
            (note,) = [
                one for one in check_front(DataFolder(tmp_path / "data")) if one.about == "state store"
            ]
            assert (note.good, note.text, note.remedy) == (False, f"redis: {told['state']}", told["remedy"])
            redis.cli(*mended)
            until(server, redis, "ok", names=True)
            assert 'treering_state_store_down{store="redis"} 0.0' in server.get("/metrics").text
            assert counted(server, send(server, 5)) == 15
