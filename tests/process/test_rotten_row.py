"""A disk that changes a bit of a private row: whose modules stop there, what says so, and how they go on."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, PublishedLog, PublishedSize
from tests.process.served import Served, run, run_json, serving

pytestmark = pytest.mark.process
WAIT_S = 60.0
MODULES = ("activity", "writing")


def events(*students: str) -> bytes:
    """Return an event of each student, as lines."""
    lines = [{"type": "typed", "keys": {"student": one, "doc_id": "d", "class": "7a"}} for one in students]
    return "\n".join(map(json.dumps, lines)).encode()


def rot(data: Path, index: int) -> None:
    """Flip a bit of a private row where it lies in the file."""
    folder = DataFolder(data)
    store = folder.open_log()
    with PublishedLog(store, PublishedSize(folder.published).get).open() as log:
        row = log.row(index)
    store.close()
    path = folder.log / "data.mdb"
    content = path.read_bytes()
    assert content.count(row) >= 1
    path.write_bytes(content.replace(row, row[:-30] + bytes([row[-30] ^ 1]) + row[-29:]))


def until(server: Served, **states: str) -> dict[str, Any]:
    """Wait until modules are in these states, and return how all are."""
    deadline, found = time.monotonic() + WAIT_S, dict[str, Any]()
    while time.monotonic() < deadline:
        found = {one["module"]: one for one in server.get("/readyz").json()["modules"]}
        if all(found.get(name, {}).get("state") == state for name, state in states.items()):
            return found
        time.sleep(0.1)
    raise AssertionError(f"never {states}: {found}")


def count(server: Served, student: str, status: int = 200) -> Any:
    """Return how many events of a student are counted, once there is an answer of that status."""
    deadline = time.monotonic() + WAIT_S
    while (answer := server.get("/v1/states/event_count", student=student)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    return answer.json()


def test_a_rotten_row_is_named_and_can_be_passed_over(tmp_path: Path) -> None:
    """Its modules stop, and say at which entry; all else runs; after a skip they go on, as a replay does."""
    data = tmp_path / "data"
    with serving(data, "--shards", "1") as server:
        server.wait_ready()
        first = server.post(events("ann", "bob"), "application/x-ndjson").json()["receipts"][0]["index"]
        server.wait_ready()
    rot(data, first)
    shutil.rmtree(data / "state")
    with serving(data, "--shards", "1") as server:
        how = until(server, **dict.fromkeys(MODULES, "parked"))
        for name in MODULES:
            assert f"rotten at entry {first}" in how[name]["reason"]
            assert how[name]["level"] == "shared", "a row is no module's doing"
            assert f"treering skip --all {first}" in how[name]["remedy"]
        assert server.post(events("ann")).status_code == 200, "events are kept all the same"
        said = server.get("/v1/states/event_count", student="ann").json()["detail"]
        assert "waits for a person: " in said
        assert f"rotten at entry {first}" in said
        notes = run_json("doctor", "--data", str(data), code=1)["notes"]
        assert {f"module {name}" for name in MODULES} <= {one["about"] for one in notes if not one["good"]}
        assert f"entry {first}" in run("replay", "--data", str(data), "--check", code=2)
        run("skip", "--all", str(first), "--data", str(data))
        assert count(server, "ann")["state"] == {"events": 1}
        assert count(server, "bob")["state"] == {"events": 1}
        until(server, **dict.fromkeys(MODULES, "running"))
        run("skip", "--all", str(first), "--data", str(data), code=1)
    run("replay", "--data", str(data), "--check")
