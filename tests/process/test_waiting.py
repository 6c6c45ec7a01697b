"""A server that runs and does not answer, or waits for a person: whoever looks is told so, and what to do.

Real processes, stopped by a signal (which keeps every socket open), and logs with a lost seal, another key, an older
database.  What each refusal says on standard error: `tests.process.test_recovery`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, read_stopped
from tests.process.served import Served, run_json, serving, until
from tests.process.test_recovery import refusing
from tools.process import EXIT_FINDING, EXIT_STOP

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

BODY = b'{"type":"hello","keys":{"student":"ann"},"data":{}}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server that is ready."""
    with serving(tmp_path_factory.mktemp("served") / "data", "--shards", "1") as found:
        found.wait_ready()
        yield found


@contextmanager
def stopped(server: Served, module: str) -> Iterator[int]:
    """Stop a service by a signal, and let it go on at the end."""
    pid = server.child(module)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def findings(data: Path) -> dict[str, Any]:
    """Return what doctor finds, by what it is about."""
    notes = run_json("doctor", "--data", str(data), code=1)["notes"]
    return {note["about"]: note for note in notes if not note["good"]}


def test_a_stopped_archiver_makes_the_server_unready_and_is_found(server: Served) -> None:
    """Its socket still takes connections; traffic is sent elsewhere within seconds, and comes back."""
    with stopped(server, "tools.archiver") as pid:
        until("it is unready", lambda: server.get("/readyz").status_code == 503)
        answer = server.get("/readyz").json()
        assert (answer["ready"], answer["archiver"]) == (False, False)
        assert "treering_archiver_up 0.0" in server.get("/metrics").text
        found = findings(server.data)
    assert found.keys() == {"server"}
    assert "takes connections and gives no answer" in found["server"]["text"]
    assert found["server"]["remedy"] == f"kill -CONT {pid}"
    server.wait_ready()
    assert server.post(BODY).status_code == 200
    assert run_json("doctor", "--data", str(server.data))["good"] is True


def test_a_stopped_front_is_found(server: Served) -> None:
    """At the port that the server chose: doctor knows it, and does not have to be told."""
    with stopped(server, "tools.front"):
        found = findings(server.data)
    assert found.keys() == {"front"}
    assert f"what listens at {server.url} gives no answer" in found["front"]["text"]
    notes = run_json("doctor", "--data", str(server.data))["notes"]
    assert {"about": "front", "text": f"answers at {server.url}"}.items() <= notes[-2].items()


def lose_seal(folder: DataFolder) -> None:
    """Let the seal be gone."""
    (folder.log / "seal").unlink()


def take_another_key(folder: DataFolder) -> None:
    """Put the key of another log where this log's belongs."""
    other = DataFolder(folder.path.parent / "other")
    other.create()
    other.signer(os.urandom, "example.org/other")
    shutil.copy(other.log_key, folder.log_key)


def bring_an_older_copy(folder: DataFolder) -> None:
    """Put the database of before the last event back."""
    shutil.copy(folder.path.parent / "older.mdb", folder.log / "data.mdb")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that a server has left, and beside it the database as it was before the last event."""
    data = tmp_path_factory.mktemp("left") / "data"
    with serving(data) as server:
        assert server.post(BODY).status_code == 200
        server.wait_ready()
    shutil.copy(data / "log" / "0" / "data.mdb", data.parent / "older.mdb")
    with serving(data) as server:
        assert server.post(BODY).status_code == 200
        server.wait_ready()
    return data


@pytest.mark.parametrize(
    ("harm", "section"),
    [
        (lose_seal, "Lost seal"),
        (take_another_key, "Keys"),
        (bring_an_older_copy, "The database is older than its seal"),
    ],
)
def test_what_the_archiver_waits_for_is_where_people_look(
    left: Path, tmp_path: Path, harm: Callable[[DataFolder], None], section: str
) -> None:
    """Doctor, /readyz and the page name the section of the handbook, and no command that would change nothing; once it
    is mended, nothing of it is left.
    """
    shutil.copytree(left.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    data = tmp_path / "copy" / "data"
    folder = DataFolder(data)
    kept = {
        path: path.read_bytes() for path in (folder.log / "seal", folder.log_key, folder.log / "data.mdb")
    }
    harm(folder)
    with refusing(data, EXIT_FINDING) as server:
        server.wait(lambda: "stopped" in server.get("/readyz").json())
        shown = server.get("/readyz").json()["stopped"]
        found = findings(data)
        assert section in server.get("/").text
        if harm is bring_an_older_copy:
            check_nothing_is_read(server.get)
            assert f'"{section}"' in found.pop("log")["remedy"]
        else:
            assert server.get("/v1/states/event_count?student=ann").json()["state"] == {"events": 2}
    assert shown["section"] == section
    assert found.keys() == {"server"}
    assert shown["reason"] in found["server"]["text"]
    assert found["server"]["remedy"] == shown["remedy"]
    assert found["server"]["remedy"].startswith(f'docs/recovery.md, "{section}": ')
    for path, content in kept.items():
        path.write_bytes(content)
    with serving(data) as whole:
        whole.wait_ready()
        assert not folder.stopped.exists()
        assert run_json("doctor", "--data", str(data))["good"] is True


def check_nothing_is_read(get: Callable[[str], Any]) -> None:
    """Check that of an older copy no answer is given that could be taken for one."""
    for path in ("/v1/states/event_count?student=ann", "/v1/states/event_count", "/log/checkpoint"):
        answer = get(path)
        assert answer.status_code == 503, answer.text
        assert "it is an older copy" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("part", "section"),
    [("log/0", "The database is older than its seal"), ("vault", "The vault is not this log's")],
)
def test_a_part_that_is_not_there_is_waited_for(left: Path, tmp_path: Path, part: str, section: str) -> None:
    """A disk that is not mounted: nothing is begun in its place, and once it is there again all goes on."""
    shutil.copytree(left.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    data = tmp_path / "copy" / "data"
    (data / part).rename(tmp_path / "away")
    with refusing(data, EXIT_FINDING) as server:
        server.wait(lambda: "stopped" in server.get("/readyz").json())
        assert server.get("/readyz").json()["stopped"]["section"] == section
    assert not (data / part / "data.mdb").exists(), "nothing was begun in its place"
    shutil.rmtree(data / part)
    (tmp_path / "away").rename(data / part)
    with serving(data) as whole:
        whole.wait_ready()
        assert whole.get("/v1/states/event_count", student="ann").json()["state"] == {"events": 2}


def archive_once(data: Path, *under: str) -> tuple[int, str]:
    """Run an archiver until it is ready or has ended; return its exit code and what it said."""
    command = [*under, sys.executable, "-P", "-m", "tools.archiver", "--data", str(data)]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_disk_that_failed_a_sync_is_not_trusted_by_starting_again(left: Path, tmp_path: Path) -> None:
    """Not until the machine was started again, or the folder is a copy: what it shows may be in memory only."""
    data = tmp_path / "data"
    shutil.copytree(left, data, ignore=shutil.ignore_patterns("*.sock"))
    trace = ("strace", "-f", "-o", str(tmp_path / "trace"), "-e", "inject=fdatasync:error=EIO:when=1")
    code, said = archive_once(data, *trace)
    assert (code, "archiver stopped: " in said) == (EXIT_STOP, True), said
    for _ in range(2):
        code, said = archive_once(data)
        assert code == EXIT_STOP
        assert "this is the same file, on a machine that has not been started again since" in said
    words = read_stopped(DataFolder(data).stopped)
    assert words is not None
    assert words.section == "The disk failed"
    assert "same file" not in words.reason, "the first words stay"
    shutil.copytree(data, tmp_path / "copied", ignore=shutil.ignore_patterns("*.sock"))
    assert archive_once(tmp_path / "copied") == (0, "ready\n")
    assert read_stopped(DataFolder(tmp_path / "copied").stopped) is None
