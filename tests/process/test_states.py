"""States over real processes: attested by workers, checked while they run, and found out where they are not so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process.served import PYTHON, Served, run_json, serving
from tests.tools.left import write_package

pytestmark = pytest.mark.process

UNSTEADY = '''
    """Keeps something that depends on the hash seed of the process: a mistake that no single run shows."""
    from reducers import Event, reducer

    @reducer(scope=("student",), version=1)
    def unsteady(state: list[str], event: Event) -> list[str]:
        """Keep the words of a set in the order in which the set gives them."""
        return list({"one", "two", "three", "four", "five", "six", event.keys["student"]})

    REDUCERS = [unsteady]
'''
STUDENTS = 23


def fill(server: Served, batches: range) -> None:
    """Send a hundred events a batch."""
    for batch in batches:
        events = [
            {
                "type": "t",
                "id": f"{batch}-{n}",
                "keys": {"student": f"s{n % STUDENTS}", "doc_id": "d"},
                "data": n,
            }
            for n in range(100)
        ]
        assert server.post(json.dumps(events).encode()).status_code == 200


def attested(data: Path, found: Callable[[Any], bool]) -> Any:
    """Return the report of a check of attestations, as soon as it says so."""
    deadline = time.monotonic() + 30
    while True:
        report = run_check(data)
        if found(report["attestations"]):
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.5)


def run_check(data: Path, *argv: str) -> Any:
    """Return the report of treering replay --check, whatever its exit code."""
    command = [*PYTHON, "tools.cli", "replay", "--data", str(data), "--check", "--json", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_what_workers_attest_is_checked_while_they_run(tmp_path: Path) -> None:
    """Each reducer with states enough is attested at size 1,000 by two workers; an answer is verified on a copy."""
    data = tmp_path / "data"
    with serving(data) as server:
        fill(server, range(11))
        server.wait_ready()
        reducers = len(server.get("/v1/states").json()["reducers"]) - 1  # nobody named a class
        report = attested(data, lambda seen: seen["equal"] == reducers)
        assert (report["equal"], report["attestations"]["different"]) == (True, 0)
        answer = server.get("/v1/states/event_count", student="s3")
        (tmp_path / "answer.json").write_bytes(answer.content)
    shutil.copytree(data, tmp_path / "copy", ignore=shutil.ignore_patterns("run"))
    for folder in (data, tmp_path / "copy"):
        verdict = run_json("verify-state", str(tmp_path / "answer.json"), "--data", str(folder))
        assert verdict["verified"] is True
        assert run_check(folder)["equal"] is True
    one, two = (run_check(data, "--shards", "4", "--jobs", jobs) for jobs in ("1", "2"))
    assert {**one, "jobs": 0} == {**two, "jobs": 0}


def test_a_reducer_that_is_not_deterministic_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attested under one hash seed, folded again under another: the worker that starts anew says so, and a check."""
    data, library = tmp_path / "data", tmp_path / "lib"
    write_package(library, "unsteady", UNSTEADY)
    monkeypatch.setenv("PYTHONPATH", str(library))
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    with serving(data, "--shards", "1") as server:
        fill(server, range(11))
        server.wait_ready()
        report = attested(data, lambda seen: seen["equal"] >= 4)
        assert report["attestations"]["different"] == 0
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    report = run_check(data)
    assert [one["reducer"] for one in report["attestations"]["not_equal"]] == ["unsteady"]
    assert {one["name"] for one in report["differences"]} == {"unsteady"}
    shutil.rmtree(data / "state" / "0")
    said = tmp_path / "said"
    with said.open("wb") as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            with serving(data, "--shards", "1") as server:
                server.wait_ready()
                deadline = time.monotonic() + 30
                while b"treering bisect" not in said.read_bytes() and time.monotonic() < deadline:
                    time.sleep(0.2)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    line = next(one for one in said.read_text().splitlines() if "attests" in one)
    assert "the states of reducer unsteady at size 1000 are not those that entry" in line
