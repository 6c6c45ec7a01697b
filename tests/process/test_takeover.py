"""A worker that dies costs its neighbours no start: a spare goes on where it stood, and nothing depends on the spare.

Real servers beside the vile module, as in `tests.process.test_isolation`: whatever becomes of a spare, the states are
those of a replay, and no process outlives its server.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import httpx2
import pytest

from archive import DataFolder
from replay import Workers, alive_workers, read_workers
from tests.process.served import Served, children, run_json, serving, until
from tests.process.test_isolation import CONFIGURATION, VILE, WAIT_S, Class, built_in, check_states

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(VILE))


@contextmanager
def school(tmp_path: Path, *lines: str, environment: dict[str, str] | None = None) -> Iterator[Class]:
    """Run a server with the vile module, and a class that has begun; what it says goes to a file."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIGURATION + "\n".join(lines))
    with serving(tmp_path / "data", "--config", str(file), environment=environment) as server:
        they = Class(server)
        they.work()
        yield they


def workers(they: Class) -> Workers:
    """Return the workers as the supervisor wrote them down, those that are alive."""
    return alive_workers(read_workers(they.folder.run) or Workers())


def worker(they: Class) -> int:
    """Wait until the worker of the only shard is written down, and return its process id."""
    until("there is a worker", lambda: "worker 0" in workers(they).running)
    return workers(they).running["worker 0"]


def spare(they: Class) -> int:
    """Wait until a spare stands by, and return its process id."""
    until("a spare stands by", lambda: bool(workers(they).spares))
    return workers(they).spares[0]


def crashed(they: Class) -> None:
    """Have the vile module crash, and work until its neighbours are back without it."""
    before = worker(they)
    they.deed("crash")
    until("its worker ended", lambda: not Path(f"/proc/{before}").exists())
    they.work()
    they.work_until(lambda one: one.level == "cell")


def test_a_spare_takes_over_from_a_worker_that_crashed(tmp_path: Path) -> None:
    """It is the same process, shown as what it is now; another one stands by soon, and the states are right."""
    with school(tmp_path) as they:
        pid = spare(they)
        crashed(they)
        assert worker(they) == pid
        assert Path(f"/proc/{pid}/comm").read_text() == "worker-0\n"
        assert spare(they) != pid
        text = "".join(
            note["text"]
            for note in run_json("doctor", "--data", str(they.server.data), code=1)["notes"]
            if note["about"] == "workers"
        )
        assert f"worker 0 is process {pid}; " in text
        assert "1 of 1 spares stand by" in text
        assert "treering_spare_workers 1.0" in they.server.get("/metrics").text
    check_states(they.folder, built_in())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_spare_that_is_dead_or_hangs_is_missed_by_nobody(tmp_path: Path, how: signal.Signals) -> None:
    """Neighbours are back all the same, from a start like any other; the spare is replaced."""
    with school(tmp_path) as they:
        pid = spare(they)
        os.kill(pid, how)
        crashed(they)
        assert worker(they) != pid
        until("it is gone", lambda: not Path(f"/proc/{pid}").exists())
        assert spare(they) != pid
    check_states(they.folder, built_in())


def test_without_spares_neighbours_are_back_after_a_start(tmp_path: Path) -> None:
    """`spare_workers = 0`: one process less, and everything else as with one."""
    with school(tmp_path, environment={"TREERING_SPARE_WORKERS": "0"}) as they:
        they.caught_up()
        crashed(they)
        assert workers(they).spares == []
        assert workers(they).spares_wanted == 0
    check_states(they.folder, built_in())


def test_what_is_installed_while_a_spare_waits_makes_it_begin_anew(tmp_path: Path) -> None:
    """The same process, as if it were started just now: no old code comes back with a spare."""
    place = tmp_path / "installed"
    place.mkdir()
    with school(tmp_path, environment={"PYTHONPATH": f"{VILE}{os.pathsep}{place}"}) as they:
        pid = spare(they)
        (place / "essay").mkdir()
        crashed(they)
        assert worker(they) == pid
        assert b"--spare" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    check_states(they.folder, built_in())


def test_a_spare_that_takes_over_is_killed_and_another_one_goes_on(tmp_path: Path) -> None:
    """What was a spare is a worker like any other: each event counts once, however often it changes hands."""
    with school(tmp_path) as they:
        for _ in range(3):
            spare(they)
            pid = worker(they)
            os.kill(pid, signal.SIGKILL)
            until("it ended", lambda gone=pid: not Path(f"/proc/{gone}").exists())  # type: ignore[misc]
            for _ in range(5):
                they.work()
    check_states(they.folder, built_in())


def test_nothing_outlives_a_server_that_is_stopped(tmp_path: Path) -> None:
    """The spare ends with the others, and what was written down of them is gone, too."""
    with school(tmp_path) as they:
        spare(they)
        started = children(they.server.process.pid)
    assert len(started) == 4, "archiver, front, worker, spare"
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert read_workers(they.folder.run) is None


def test_nothing_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    """It can tell nobody, and needs not: who stands by notices it, too; what is written down is not believed."""
    started, data = list[int](), tmp_path / "data"
    with suppress(AssertionError), school(tmp_path) as they:  # no server that was killed drains
        spare(they)
        started += children(they.server.process.pid)
        they.server.process.kill()
        they.server.process.wait()
    assert len(started) == 4, "archiver, front, worker, spare"
    until("all have ended", lambda: not any(map(_runs, started)))
    found = read_workers(DataFolder(data).run)
    assert found is not None
    assert alive_workers(found) == Workers(spares_wanted=1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_while_a_worker_is_away_its_states_answer_as_of_where_they_stand(tmp_path: Path) -> None:
    """Who asks for no more than that waits for nobody; who asks for what was just sent gets it when it is back."""
    with school(tmp_path) as they:
        they.caught_up()
        before = count(they.server)
        pid = worker(they)
        os.kill(pid, signal.SIGSTOP)
        try:
            receipt = they.send("page", "ann")
            meanwhile = count(they.server)
            assert meanwhile == before, "what was saved is shown, with its position"
            answers = list[tuple[int, int]]()
            waiting = Thread(target=lambda: answers.append(count(they.server, receipt["size"])))
            waiting.start()
            assert count(they.server) == before, "who waits holds up nobody else"
            assert answers == []
        finally:
            os.kill(pid, signal.SIGCONT)
        waiting.join(WAIT_S)
        assert answers == [(before[0] + 1, receipt["size"])]


def count(server: Served, min_size: int = 0) -> tuple[int, int]:
    """Return how many events of ann were counted, and the position of that answer."""
    answer = server.get("/v1/states/event_count", student="ann", min_size=min_size)
    if answer.status_code == httpx2.codes.NOT_FOUND:
        return 0, 0
    assert answer.status_code == httpx2.codes.OK, answer.text
    return answer.json()["state"]["events"], answer.json()["position"]


def test_who_keeps_others_waiting_goes_on_alone_and_is_right(tmp_path: Path) -> None:
    """An event that takes two seconds is no fault: neighbours go on after one, and it is counted where it runs now."""
    with school(tmp_path, "[module.vile]\nseconds_per_event = 30.0") as they:
        spare(they)
        body = {"type": "vile.nap", "source": "test", "keys": {"student": "mallory"}, "data": {"n": 1}}
        (receipt,) = they.server.post(json.dumps(body).encode()).json()["receipts"]
        status = they.work_until(lambda one: one.level == "own" and one.state == "running")
        assert status.deaths == 0
        they.caught_up()
        answer = they.server.get("/v1/states/evil", student="mallory", min_size=receipt["size"])
        assert answer.json()["state"]["events"] == 1
        status = they.work_until(lambda one: one.fault is None)
        assert (status.level, status.deaths) == ("own", 0)
    check_states(they.folder, built_in())
