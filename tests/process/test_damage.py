"""A disk that changes a bit of a stored state, under a server that runs: said, counted, and gone within seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from archive import LmdbStore, Write
from replay import STATE_TABLES, state_key
from tests.process.served import Served, run, run_json, serving

pytestmark = pytest.mark.process
WAIT_S = 60.0
STUDENTS = [f"s{number}" for number in range(20)]


def harm(data: Path, student: str) -> None:
    """Change one digit of a student's count where it lies."""
    key, harmed = state_key("event_count", (student,)), 0
    for folder in data.glob("state/0/activity/*/*-of-*"):
        store = LmdbStore(folder, STATE_TABLES)
        with store.view() as view:
            value = view.get("states", key)
        if value is not None:
            store.commit([Write("states", key, value.replace(b'"events":3', b'"events":7'))])
            harmed += 1
        store.close()
    assert harmed == 1


def until(server: Served, student: str, status: int) -> Any:
    """Ask for a student until the answer has a status, and return it; no other than 200 and 503 is ever given."""
    path = "/v1/states/event_count"
    deadline, answer = time.monotonic() + WAIT_S, server.get(path, student=student)
    while time.monotonic() < deadline:
        if answer.status_code == status:
            return answer.json()
        assert answer.status_code in {200, 503}, answer.text
        time.sleep(0.05)
        answer = server.get(path, student=student)
    raise AssertionError(f"{student}: never {status}: {answer.text}")


def test_a_state_that_lost_a_bit_is_made_anew_while_the_server_runs(tmp_path: Path) -> None:
    """Its reader is told which module, and seconds later gets what the log says; others of the module, and all other
    modules, answer all along.
    """
    data = tmp_path / "data"
    with serving(data, "--shards", "2") as server:
        server.wait_ready()
        lines = [json.dumps({"type": "typed", "keys": {"student": one, "doc_id": "d"}}) for one in STUDENTS]
        assert server.post("\n".join(lines * 3).encode(), "application/x-ndjson").status_code == 200
        server.wait_ready()
        before = server.get("/v1/states/event_count").json()["states"]
        harm(data, "s7")
        said = until(server, "s7", 503)["detail"]
        assert said.startswith("states of module activity are damaged")
        assert server.get("/v1/states/reconstruct").status_code == 200
        assert until(server, "s7", 200)["state"] == {"events": 3}
        server.wait_ready()
        assert server.get("/v1/states/event_count").json()["states"] == before
        assert 'treering_damaged_reads_total{module="activity"}' in server.get("/metrics").text
        (note,) = [one for one in run_json("doctor", "--data", str(data), code=1)["notes"] if not one["good"]]
        assert note["about"] == "module activity"
        assert "stored states were damaged" in note["text"]
    run("replay", "--data", str(data), "--check")
