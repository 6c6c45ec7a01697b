"""A worker that stands still outside of any module, and states that somebody removes: both come back by themselves.

Real processes.  A worker that hangs within a module: `tests.process.test_isolation`; one that dies:
`tests.process.test_takeover`; an archiver or a front that hangs: `tests.process.test_waiting`.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay import read_workers
from tests.process.served import Served, run_json, serving
from tools.stalls import SILENT_S

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

WAIT_S = SILENT_S + 40.0
STUDENTS = [f"s{number}" for number in range(32)]
"""So many that no shard is without one: of eight, all are in one shard once in a hundred runs."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """Return a server of two shards, ready, with an event of each student."""
    configuration = tmp_path / "config.toml"
    configuration.write_text("seconds_per_event = 1.0\n")
    with serving(tmp_path / "data", "--config", str(configuration), "--shards", "2") as found:
        found.wait_ready()
        send(found)
        yield found


def send(server: Served) -> int:
    """Send an event of each student and return the size that covers them all."""
    size = 0
    for name in STUDENTS:
        body = b'{"type":"hello","keys":{"student":"%s"},"data":{}}' % name.encode()
        size = int(server.post(body).json()["receipts"][0]["size"])
    return size


def all_see(server: Served, size: int, events: int) -> bool:
    """Return whether the states of all students are up to a size."""
    for name in STUDENTS:
        answer = server.get("/v1/states/event_count", student=name, min_size=size)
        if answer.status_code != 200:
            return False
        assert answer.json()["state"] == {"events": events}
    return True


def until_all_see(server: Served, size: int, events: int) -> None:
    """Wait until the states of all students are up to a size."""
    deadline = time.monotonic() + WAIT_S
    while not all_see(server, size, events):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def test_a_worker_that_was_stopped_while_idle_is_replaced(server: Served) -> None:
    """Half a class would stand still, and everything else look well."""
    workers = read_workers(server.data / "run")
    assert workers is not None
    pid = workers.running["worker 0"]
    os.kill(pid, signal.SIGSTOP)
    until_all_see(server, send(server), 2)
    assert not Path(f"/proc/{pid}").exists()
    assert run_json("doctor", "--data", str(server.data))["good"] is True


def test_states_that_were_removed_are_made_anew(server: Served) -> None:
    """Derived states may be deleted at any time, also while the server runs."""
    states = server.data / "state" / "0" / "activity"
    shutil.rmtree(states)
    deadline = time.monotonic() + WAIT_S
    while len(list(states.rglob("data.mdb"))) < 2:
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)
    until_all_see(server, send(server), 2)
    server.wait_ready()
    for events in (3, 4):  # what happened is told until there is progress
        until_all_see(server, send(server), events)
    assert run_json("doctor", "--data", str(server.data))["good"] is True
