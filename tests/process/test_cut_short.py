"""A database file that was cut short never kills the process that opens it: it is named, and so is what to do.

LMDB maps a file into memory, and touching what is not there any more ends a process by signal 7, without a word.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.front import http_client
from tests.process.served import run_json, serving
from tests.tools.left import Installed as Left
from tests.world import event

pytestmark = pytest.mark.process
STUDENTS = [f"s{number}" for number in range(40)]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with events and states, at rest, and one answer beside it."""
    path = tmp_path_factory.mktemp("left")
    made = Left(path / "data")
    made.append(*[event(student, "typed", doc_id="d") for student in STUDENTS * 5])
    made.front.reduce()
    with http_client(made.front.services) as http:
        (path / "answer.json").write_bytes(http.get("/v1/states/event_count?student=s1").content)
    made.close()
    return path


@pytest.fixture
def data(left: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(left / "data", tmp_path / "data"))


def cut(file: Path) -> None:
    """Cut a file to its first four pages."""
    assert file.stat().st_size > 4 * 4_096
    os.truncate(file, 4 * 4_096)


COMMANDS = {
    "verify-log": ["verify-log", "{data}", "--vault"],
    "replay": ["replay", "--data", "{data}"],
    "replay --check": ["replay", "--data", "{data}", "--check"],
    "verify-state": ["verify-state", "{answer}", "--data", "{data}"],
    "export subject": ["export", "subject", "student:s1", "--data", "{data}", "--out", "{data}/../out"],
    "backup": ["backup", "{data}/../backup", "--data", "{data}"],
}


@pytest.mark.parametrize("what", ["log/0", "vault"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_dies_of_a_file_that_was_cut_short(left: Path, data: Path, what: str, name: str) -> None:
    """Each says which file, and to restore a backup; none ends by a signal, or as if all were well."""
    cut(data / what / "data.mdb")
    arguments = [one.format(data=data, answer=left / "answer.json") for one in COMMANDS[name]]
    command = [sys.executable, "-P", "-m", "tools.cli", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said = ended.stdout + ended.stderr
    assert ended.returncode in {1, 2}, said
    assert "bytes shorter than it says itself" in said
    assert "Traceback" not in said


def test_an_archiver_that_finds_its_log_cut_short_waits_for_a_person(data: Path) -> None:
    """Exit code 3: it is not started again and again."""
    cut(data / "log/0/data.mdb")
    command = [sys.executable, "-P", "-m", "tools.archiver", "--data", str(data)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 3
    assert "log/0/data.mdb: cut short, " in ended.stderr
    assert "restore the newest backup" in ended.stderr


def test_states_that_were_cut_short_stop_their_own_module_only(data: Path) -> None:
    """Its readers get 503 and are told to move the folder away; then it is made anew, and replay agrees."""
    (place,) = data.glob("state/0/activity/*/0-of-2")
    cut(place / "data.mdb")
    check = [sys.executable, "-P", "-m", "tools.cli", "replay", "--data", str(data), "--check"]
    ended = subprocess.run(check, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 2
    assert "move its folder away while no server runs" in ended.stderr
    with serving(data, "--shards", "2") as server:
        answers = [server.get("/v1/states/event_count", student=student) for student in STUDENTS]
        assert {one.status_code for one in answers} <= {200, 503}
        refused = [one.json()["detail"] for one in answers if one.status_code == 503]
        assert refused
        assert any("states of module activity are damaged" in one for one in refused)
        assert len(server.get("/v1/states/reconstruct").json()["states"]) == len(STUDENTS)
        assert server.get("/readyz").status_code in {200, 503}
        assert server.get("/").status_code == 200
        line = json.dumps({"type": "typed", "keys": {"student": "s1", "doc_id": "d"}})
        assert server.post(line.encode()).status_code == 200
    shutil.move(place, data / "moved")
    with serving(data, "--shards", "2") as server:
        server.wait_ready()
        counts = {
            one["key"]["student"]: one["state"]["events"]
            for one in server.get("/v1/states/event_count").json()["states"]
        }
    assert counts == {student: 5 + (student == "s1") for student in STUDENTS}
    assert run_json("replay", "--data", str(data), "--check")["equal"] is True
