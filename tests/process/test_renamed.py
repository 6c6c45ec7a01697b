"""Promise: a module that is installed under another name runs at the next start, and its check and questions hold."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from archive import DataFolder
from replay import STATUS_FILE, read_status
from tests.process.served import Served, run, run_json, serving
from tests.tools.left import write_package

pytestmark = pytest.mark.process

WAIT_S = 60.0
SOURCE = '''
    """Counts."""
    from reducers import Event, reducer

    @reducer(scope=("student",))
    def counted(state: int, event: Event) -> int:
        """Count."""
        return state + 1

    REDUCERS = [counted]
'''


def send(server: Served, *students: str) -> None:
    """Send an event of each."""
    for name in students:
        body = {"type": "t", "source": "org.example", "keys": {"student": name}, "data": {}}
        assert server.post(json.dumps(body).encode()).status_code == 200
    server.wait_ready()


def states(server: Served) -> dict[str, int]:
    """Return what readers are shown."""
    found = server.get("/v1/states/counted").json()["states"]
    return {one["key"]["student"]: one["state"] for one in found}


def test_a_renamed_module_takes_its_reducers_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder has to be moved; what was saved under the old name is never shown again, and is no hole in a check.

    And what nobody has is unknown (404), also while a module that never ran waits for a person.
    """
    lib, data = tmp_path / "lib", tmp_path / "data"
    monkeypatch.setenv("PYTHONPATH", str(lib))
    write_package(lib, "words", SOURCE)
    with serving(data) as server:
        send(server, "ann", "ann", "bob")
        assert states(server) == {"ann": 2, "bob": 1}
    shutil.rmtree(lib)
    write_package(lib, "lexis", SOURCE)
    write_package(lib, "broken", "import nothing_of_this_name")
    with serving(data) as server:
        send(server, "ann")
        assert states(server) == {"ann": 3, "bob": 1}
        assert (
            server.get("/v1/states/counted", student="ann", at_size=server_size(server)).json()["state"] == 3
        )
        (module,) = [one for one in server.get("/readyz").json()["modules"] if one["module"] == "lexis"]
        assert (module["state"], module["reason"]) == ("running", "")
        until_failed(data, "broken")
        answer = server.get("/v1/states/nope")
        assert answer.status_code == 404
        assert "module broken: importing 'broken' failed with ModuleNotFoundError" in answer.json()["detail"]
    report = run_json("replay", "--data", str(data), "--check")
    assert (report["equal"], report["compared"]["lexis"]) == (True, 2)
    assert "its reducers are those of lexis now" in run("replay", "--data", str(data), "--check")


def server_size(server: Served) -> int:
    """Return the size of the log."""
    size: int = server.get("/readyz").json()["size"]
    return size


def until_failed(data: Path, name: str) -> None:
    """Wait until a module has failed in all shards."""
    deadline = time.monotonic() + WAIT_S
    while True:
        status = read_status(DataFolder(data).run / STATUS_FILE).get(name)
        if status is not None and all(one.waits for one in status.shards.values()):
            return
        assert time.monotonic() < deadline, "it has not failed"
        time.sleep(0.05)
