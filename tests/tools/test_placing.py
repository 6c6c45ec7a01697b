"""Whose fault it was: from exit codes, words in memory and reports, without any process being started."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder
from replay import (
    IMPORTING,
    STATUS_FILE,
    Fault,
    Record,
    ShardStatus,
    Stopped,
    attempts_file,
    read_status,
    struck,
    word_of,
)
from tools.children import DRAIN_S
from tools.placed import Worker
from tools.placing import LOOK_EVERY_S, Placing
from tools.process import EXIT_AGAIN, EXIT_GOOD, EXIT_STOP
from tools.reporting import ALIVE, Report, Reporter
from tools.settings import Limits, Settings
from tools.stalls import NEIGHBOURS_S
from tools.warden import waiting

NAMES = ["activity", "essay", "odd"]


class Time:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return what time it is."""
        return self.now


class Stage:
    """A placing of three modules in two shards, whose workers are only spoken of."""

    def __init__(self, path: Path, **limits: Limits) -> None:
        self.folder, self.time = DataFolder(path), Time()
        self.folder.create()
        self.settings = Settings(data=path, seconds_per_event=2.0, module=tuple(limits.items()))
        self.begin()

    def begin(self) -> None:
        """Start the workers of a server."""
        self.placing = Placing(self.settings, NAMES, self.folder, self.time, lambda: 1_000.0)
        self.workers = self.placing.shared()
        for worker in self.workers:
            self.start(worker)

    def start(self, worker: Worker) -> list[memoryview]:
        """Let a worker start, and return the words that it writes."""
        worker.command()
        words = attempts_file(worker.attempts, worker.modules)
        hired = dict.fromkeys(worker.modules, 5)
        self.say(worker, size=9, hired=hired)
        return words

    def say(self, worker: Worker, **report: Any) -> None:
        """Let a worker report something."""
        self.placing.heard(worker, json.dumps(report).encode())

    def look(self, seconds: float) -> None:
        """Let the supervisor look for so long."""
        for _ in range(round(seconds / LOOK_EVERY_S)):
            self.time.now += LOOK_EVERY_S
            self.placing.look()

    def record(self, name: str, shard: int = 0) -> Record:
        """Return how a module is in a shard."""
        return self.placing.records[name, shard]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Return a placing whose modules all run."""
    return Stage(tmp_path / "data")


def test_all_modules_share_a_worker_for_each_shard(stage: Stage) -> None:
    """Nothing has to be configured."""
    assert [worker.modules for worker in stage.workers] == [NAMES, NAMES]
    assert list(stage.placing.starting()) == []
    assert {record.state for record in stage.placing.records.values()} == {"running"}


@pytest.mark.parametrize("code", [-signal.SIGSEGV, EXIT_GOOD, EXIT_STOP, EXIT_AGAIN, 77])
def test_who_was_running_is_to_blame_whatever_the_exit_code_says(stage: Stage, code: int) -> None:
    """Its neighbours are started again at once, without it; in the other shard it runs on."""
    worker = stage.workers[0]
    words = stage.start(worker)
    words[1][0] = word_of(7)
    assert worker.ended(code) is True
    assert (stage.record("essay").level, stage.record("essay").state) == ("cell", "pausing")
    fault = stage.record("essay").last
    assert fault is not None
    assert (fault.kind, fault.index, fault.position) == ("died", 7, 5)
    worker.command()
    assert worker.modules == ["activity", "odd"]
    assert stage.record("essay", 1).level == "shared"
    assert {stage.record(name).state for name in ("activity", "odd")} == {"running"}


def test_a_worker_that_says_nothing_is_killed_and_nobody_is_to_blame(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped by a signal, or hangs outside of any module: half a class would stand still for ever."""
    killed: list[str] = []
    monkeypatch.setattr(Worker, "kill", lambda self: killed.append(self.name))
    first, second = stage.workers
    stage.look(60.0)
    assert killed == [], "who is about to start need not speak"
    for worker in stage.workers:
        worker.ready.set()
    for _ in range(60):
        stage.placing.heard(first, ALIVE + b"\n")
        stage.look(1.0)
    assert set(killed) == {second.name}
    assert second.ended(-signal.SIGKILL) is True
    assert {stage.record(name, 1).state for name in NAMES} == {"running"}
    assert {stage.record(name, 1).level for name in NAMES} == {"shared"}


def test_who_folds_need_not_speak(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that change show that a worker goes on, however long one step of it is."""
    killed: list[str] = []
    monkeypatch.setattr(Worker, "kill", lambda self: killed.append(self.name))
    worker = stage.workers[0]
    words = stage.start(worker)
    worker.ready.set()
    for number in range(100):
        words[0][0] = word_of(number)
        stage.look(1.0)
        words[0][0] = word_of(number, beat=1)
        stage.look(0.25)
    assert killed == []


def test_a_shared_worker_that_no_restart_mends_has_its_modules_fail(stage: Stage) -> None:
    """It ends for good: the page does not say "running" of those who run nowhere, and a retry hires them anew."""
    worker = stage.workers[0]
    stage.start(worker)
    stage.say(worker, failed={"activity": "entry 8: its row is rotten"})
    assert worker.ended(EXIT_STOP) is False
    assert {stage.record(name).state for name in NAMES} == {"failed"}
    assert stage.record("activity").failure == "entry 8: its row is rotten"
    assert "its messages" in stage.record("essay").failure
    assert {stage.record(name, 1).state for name in NAMES} == {"running"}
    stage.placing.asked(Report(retry={"essay": 9}))
    assert [one.module for one in stage.placing.starting()] == ["essay"]


def test_who_was_killed_from_outside_may_try_again(stage: Stage) -> None:
    """The first time says nothing; the second does."""
    worker = stage.workers[0]
    for _ in range(2):
        stage.start(worker)[1][0] = word_of(7)
        assert worker.ended(-signal.SIGKILL) is True
        stage.time.now += 1
    assert [stage.record("essay").deaths, stage.record("essay").level] == [2, "cell"]


def test_nobody_is_to_blame_for_a_worker_that_ends_between_events(stage: Stage) -> None:
    """It is started again with everybody; and one that must not be started again is not."""
    worker = stage.workers[0]
    stage.start(worker)
    assert worker.ended(-signal.SIGSEGV) is True
    assert all(record.deaths == 0 for record in stage.placing.records.values())
    assert worker.ended(EXIT_STOP) is False
    assert worker.stopped_for_good


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the workers that are killed, in order."""
    names = list[str]()
    monkeypatch.setattr(Worker, "kill", lambda one: names.append(one.name))
    return names


def test_who_keeps_others_waiting_goes_on_alone(stage: Stage, killed: list[str]) -> None:
    """Not before its time, and not while it gets on; it is no death, and its neighbours go on without it."""
    worker = stage.workers[0]
    words = stage.start(worker)
    for index in range(3):
        words[1][0] = word_of(index)
        stage.look(NEIGHBOURS_S)
    assert killed == []
    stage.look(2 * LOOK_EVERY_S)
    assert killed == ["worker 0"]
    assert worker.ended(-signal.SIGKILL) is True
    record = stage.record("essay")
    assert record.last is not None
    assert (record.last.kind, record.last.index) == ("blocking", 2)
    assert (record.level, record.state, record.deaths) == ("own", "starting", 0)
    worker.command()
    assert worker.modules == ["activity", "odd"]


def test_who_stands_still_alone_is_killed_and_to_blame(stage: Stage, killed: list[str]) -> None:
    """There it has all of its time; where it had kept others waiting before, this is the second time."""
    words = stage.start(stage.workers[0])
    words[1][0] = word_of(2)
    stage.look(1.25)
    stage.workers[0].ended(-signal.SIGKILL)
    (alone,) = stage.placing.starting()
    words = stage.start(alone)
    words[0][0] = word_of(2)
    stage.look(2.0)
    assert killed == ["worker 0"]
    stage.look(0.5)
    assert killed == ["worker 0", "worker 0 essay"]
    alone.ended(-signal.SIGKILL)
    fault = stage.record("essay").last
    assert fault is not None
    assert (fault.kind, fault.index, stage.record("essay").level) == ("stalled", 2, "cell")


def test_who_keeps_nobody_waiting_has_all_of_its_time(tmp_path: Path, killed: list[str]) -> None:
    """A module that is the last one in its shared worker; and what comes with the server is never moved."""
    stage = Stage(tmp_path / "data", **{name: Limits("own", 300, 4.0) for name in ("activity", "odd")})
    stage.start(stage.workers[0])[0][0] = word_of(7)
    stage.look(2.0)
    assert killed == []
    stage.look(0.5)
    assert killed == ["worker 0"]
    stage = Stage(tmp_path / "other")
    stage.start(stage.workers[0])[0][0] = word_of(7)
    stage.look(2.0)
    assert killed == ["worker 0"]
    stage.look(0.5)
    assert killed == ["worker 0", "worker 0"]


def test_neighbours_of_a_culprit_do_not_wait(stage: Stage) -> None:
    """Once it is known without whom, there is no reason for a pause, however short the worker's life was."""
    worker = stage.workers[0]
    stage.start(worker)[1][0] = word_of(7)
    worker.ended(-signal.SIGSEGV)
    assert worker.pause_s(0.1, 4.0) == 0
    stage.start(worker)
    worker.ended(-signal.SIGSEGV)
    assert worker.pause_s(0.1, 4.0) > 4.0, "nobody is to blame: it may go on like this"


def test_a_supervisor_that_was_kept_waiting_accuses_nobody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that slept for an hour has not hung for an hour."""
    monkeypatch.setattr(Worker, "kill", lambda _: pytest.fail("killed though it had no time"))
    stage.start(stage.workers[0])[1][0] = word_of(7)
    for _ in range(3):
        stage.time.now += 3_600
        stage.placing.look()


def test_an_import_has_a_minute(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads files and compiles; but it does not last for ever."""
    killed = list[str]()
    monkeypatch.setattr(Worker, "kill", lambda one: killed.append(one.name))
    stage.start(stage.workers[1])[2][0] = IMPORTING
    stage.look(59)
    assert killed == []
    stage.look(3)
    assert stage.workers[1].ended(-signal.SIGKILL) is True
    fault = stage.record("odd", 1).last
    assert fault is not None
    assert (fault.kind, fault.index) == ("stalled", None)


def test_a_module_that_was_let_go_runs_alone_after_its_pause(stage: Stage) -> None:
    """Its worker goes on; the new one knows its level, its limits and nobody else."""
    stop = {"reducer": "words", "at": 7, "reason": "SystemExit"}
    stage.say(stage.workers[0], stopped={"essay": stop})
    assert list(stage.placing.starting()) == []
    stage.look(0.5)
    (alone,) = stage.placing.starting()
    assert list(stage.placing.starting()) == [], "started twice"
    command = list(alone.command())
    assert command[command.index("--level") + 1] == "cell"
    assert "--careful" in command, "the event that did it should be found"
    assert [command[at + 1] for at, one in enumerate(command) if one == "--module"] == ["essay"]
    stage.placing.over(alone)
    assert alone.ended(EXIT_AGAIN) is False


@pytest.mark.parametrize("name", ["Slow", "MemoryError", "Stalled", "Died"])
def test_a_fault_is_what_it_is_said_to_be_and_not_what_it_is_called(stage: Stage, name: str) -> None:
    """An error may bear any name; it is a strike like any other, and nothing of its text is told."""
    stopped = {"essay": Stopped("words", 7, f"{name}: ann wrote something")}
    lines = list[bytes]()
    read, write = os.pipe()
    Reporter(write).stopped(stopped)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        lines += pipe.readlines()
    for line in lines:
        stage.placing.heard(stage.workers[0], line)
    fault = stage.record("essay").last
    assert fault is not None
    assert (fault.kind, fault.reason, stage.record("essay").level) == ("stopped", name, "cell")
    stage.look(LOOK_EVERY_S)
    assert b"ann" not in (stage.folder.run / STATUS_FILE).read_bytes()


def test_who_is_said_to_be_slow_moves_and_is_not_punished(stage: Stage) -> None:
    """With our own words, which say nothing of an event."""
    stop = {"reducer": "", "at": 7, "reason": "Slow: more than half of its worker's time", "kind": "slow"}
    stage.say(stage.workers[0], stopped={"essay": stop})
    record = stage.record("essay")
    assert (record.level, record.state, record.deaths) == ("own", "starting", 0)


def test_what_is_said_of_others_is_not_heard(stage: Stage) -> None:
    """A module that speaks with its worker's voice can speak of that worker's modules only; garbage is no report."""
    stage.say(stage.workers[0], stopped={"essay": {"reducer": "", "at": 7, "reason": "MemoryError"}})
    stage.look(0.5)
    (alone,) = stage.placing.starting()
    alone.command()
    stage.say(alone, failed={"activity": "it is said"}, at={"odd": 99})
    for line in (b"\xff\n", b"[]\n", b'{"failed": {"essay": 7}}\n', b"ready or not\n"):
        stage.placing.heard(alone, line)
    assert {stage.record(name).state for name in ("activity", "odd")} == {"running"}


def test_a_configured_level_is_kept(tmp_path: Path) -> None:
    """A module in a process of its own is not in the shared one, in no shard."""
    stage = Stage(tmp_path / "data", essay=Limits("own", 300, 4.0))
    assert [worker.modules for worker in stage.workers] == [["activity", "odd"]] * 2
    first, second = stage.placing.starting()
    command = list(first.command())
    assert command[command.index("--memory-mb") + 1 : command.index("--memory-mb") + 4] == [
        "300",
        "--seconds",
        "4.0",
    ]
    assert (first.shard, second.shard) == (0, 1)
    assert "--careful" not in command


def test_what_cannot_be_loaded_waits_for_a_retry(stage: Stage) -> None:
    """It is named in the status, left out of the next start, and runs alone once somebody says so."""
    for worker in stage.workers:
        stage.say(worker, size=9, failed={"odd": "importing 'odd' failed"})
    stage.look(0.5)
    status = read_status(stage.folder.run / STATUS_FILE)["odd"]
    assert (status.state, status.reason(), status.remedy("odd")) == (
        "failed",
        "importing 'odd' failed",
        "treering retry odd",
    )
    assert stage.placing.troubled() == {"odd": 9}
    stage.placing.asked(Report(retry={"odd": 12}))
    assert stage.placing.troubled() == {}
    assert [worker.module for worker in stage.placing.starting()] == ["odd", "odd"]
    assert stage.placing.steered["odd", 0] == 13, "the same entry must not count twice"


def test_a_new_server_remembers_who_did_harm(stage: Stage) -> None:
    """It begins where it can do none, whether it was parked or only moved; who got beyond it, does not."""
    worker = stage.workers[0]
    stage.start(worker)[1][0] = word_of(7)
    worker.ended(-signal.SIGSEGV)
    stage.say(worker, stopped={"odd": {"reducer": "", "at": 7, "reason": "MemoryError"}})
    stage.look(0.5)
    for alone in list(stage.placing.starting()):
        alone.command()
        if alone.module == "odd":
            stage.say(alone, at={"odd": 20})
    stage.look(0.25)
    stage.begin()
    assert [stage.record(name).level for name in NAMES] == ["shared", "cell", "shared"]
    assert stage.record("essay").deaths == 1


def test_who_was_running_when_the_server_was_killed_is_remembered(stage: Stage) -> None:
    """Its word is still there: a module that kills the supervisor does not stay unknown for ever."""
    for deaths, level in ((1, "shared"), (2, "cell")):
        stage.start(stage.workers[1])[2][0] = word_of(7)
        stage.placing.write()
        stage.begin()
        stage.placing.write()
        assert [stage.record("odd", 1).deaths, stage.record("odd", 1).level] == [deaths, level]


def test_a_status_that_says_the_same_is_not_written_again(stage: Stage) -> None:
    """A supervisor that has nothing to say does not write four times a second."""
    stage.look(0.5)
    path = stage.folder.run / STATUS_FILE
    before = path.stat().st_mtime_ns
    stage.look(5)
    assert path.stat().st_mtime_ns == before


def park(stage: Stage, name: str, shard: int, index: int) -> None:
    """Let a module die at an event of one shard until it is parked."""
    stage.say(stage.workers[shard], stopped={name: {"reducer": "words", "at": index, "reason": "Error"}})
    while stage.record(name, shard).state != "parked":
        stage.look(60.0)
        for alone in list(stage.placing.starting()):
            alone.command()
            stage.say(alone, size=index + 1, hired={name: 5})
            stage.say(alone, stopped={name: {"reducer": "words", "at": index, "reason": "Error"}})
            alone.ended(EXIT_AGAIN)
            stage.placing.over(alone)


def test_an_old_skip_does_not_let_a_parked_module_run_again(stage: Stage) -> None:
    """Its other shard was hired before that skip, and runs: that makes it no news for the shard that is parked."""
    park(stage, "essay", 1, 40)
    stage.placing.write()
    waits = waiting(read_status(stage.folder.run / STATUS_FILE))
    assert waits == {"essay": 41}, "what the running shard has not seen is not asked for"
    stage.placing.asked(Report(retry={"essay": 47}))
    assert stage.record("essay", 1).state == "starting"
    park_again_at, deaths = 60, stage.record("essay", 1).deaths
    (alone,) = stage.placing.starting()
    alone.command()
    for at in (park_again_at, park_again_at):
        stage.say(alone, size=70, hired={"essay": 41})
        stage.say(alone, stopped={"essay": {"reducer": "words", "at": at, "reason": "Error"}})
    assert (stage.record("essay", 1).state, stage.record("essay", 1).deaths) == ("parked", deaths + 2)
    stage.placing.write()
    assert waiting(read_status(stage.folder.run / STATUS_FILE)) == {"essay": 70}
    stage.placing.asked(Report(retry={"essay": 47}))
    assert (stage.record("essay", 1).state, stage.record("essay", 1).deaths) == ("parked", deaths + 2)
    stage.placing.asked(Report(retry={"essay": 71}))
    assert stage.record("essay", 1).state == "starting"


def test_of_two_parked_shards_only_those_run_again_that_have_not_seen_the_entry(stage: Stage) -> None:
    """One that parked again after a skip stays parked while the other is tried for the first time."""
    park(stage, "essay", 0, 30)
    park(stage, "essay", 1, 40)
    stage.placing.asked(Report(retry={"essay": 35}))
    assert [stage.record("essay", shard).state for shard in (0, 1)] == ["starting", "parked"]


def test_what_a_retried_module_met_is_told_until_it_is_beyond_it(stage: Stage) -> None:
    """While it hangs there again, nobody reads that it runs and that all is well."""
    park(stage, "essay", 1, 40)
    stage.placing.asked(Report(retry={"essay": 47}))
    (alone,) = stage.placing.starting()
    alone.command()
    stage.say(alone, size=50, hired={"essay": 5})
    status = stage.placing.statuses()["essay"]
    assert (status.state, status.level, status.held) == ("running", "cell", True)
    assert status.reason() == "reducer words stopped at entry 40: Error"
    stage.say(alone, at={"essay": 41})
    assert stage.placing.statuses()["essay"].reason() == ""


def test_a_mended_module_runs_in_every_shard(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the old code is ended softly and started again, which nobody is blamed for, and only once."""
    ended = list[str]()
    monkeypatch.setattr(Worker, "terminate", lambda one: ended.append(one.name))
    for worker in stage.workers:
        stage.say(worker, size=9, hired={"essay": 5}, generations={"essay": "old"})
    park(stage, "essay", 1, 40)
    stage.placing.asked(Report(retry={"essay": 47}))
    (alone,) = stage.placing.starting()
    alone.command()
    stage.say(alone, size=50, hired={"essay": 5}, generations={"essay": "new"})
    assert ended == ["worker 0"]
    assert stage.placing.statuses()["essay"].renewed
    assert stage.workers[0].ended(EXIT_GOOD) is True
    stage.start(stage.workers[0])
    assert stage.workers[0].modules == NAMES
    for said in ("new", "another yet"):
        stage.say(stage.workers[0], size=50, hired={"essay": 5}, generations={"essay": said})
        assert ended == ["worker 0"] or said == "another yet"
    assert stage.record("essay", 0).deaths == 0


def test_a_worker_that_does_not_end_for_other_code_is_killed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that holds on to its process must not keep the old code alive."""
    killed = list[str]()
    monkeypatch.setattr(Worker, "terminate", lambda _: None)
    monkeypatch.setattr(Worker, "kill", lambda one: killed.append(one.name))
    for worker, said in zip(stage.workers, ("old", "new"), strict=True):
        stage.say(worker, size=9, hired={"essay": 5}, generations={"essay": said})
    stage.look(DRAIN_S - 1)
    assert killed == []
    stage.look(2)
    assert set(killed) == {"worker 0"}


def test_a_version_that_went_back_is_helped_by_undo(stage: Stage) -> None:
    """A retry would find the same version again."""
    stage.say(stage.workers[0], size=9, failed={"odd": "went back"}, went_back=["odd"])
    assert stage.placing.statuses()["odd"].remedy("odd") == "treering undo odd"


def test_each_parked_shard_names_its_own_remedy(stage: Stage) -> None:
    """Who skips one event must not have to find the other one out by waiting."""
    park(stage, "essay", 0, 30)
    park(stage, "essay", 1, 40)
    status = stage.placing.statuses()["essay"]
    retry = "treering retry essay (once it is mended), or"
    assert status.remedies("essay") == [f"{retry} treering skip words 30", f"{retry} treering skip words 40"]
    assert [shard for shard, _ in status.troubles] == ["0", "1"]


def test_what_a_module_did_is_a_sentence(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: log and status say it in words, and "it goes on in a cell" only of who was not there before."""
    limit = {"reducer": "words", "at": 30, "reason": "MemoryError", "kind": "memory"}
    stage.say(stage.workers[0], stopped={"essay": limit})
    assert (
        stage.placing.statuses()["essay"].reason()
        == "reducer words took too much memory at entry 30: MemoryError"
    )
    stage.look(1)
    (alone,) = stage.placing.starting()
    alone.command()
    stage.say(alone, size=31, hired={"essay": 5})
    stage.say(alone, stopped={"essay": limit})
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("at entry 30: took too much memory (MemoryError); it goes on in a cell")
    assert second.endswith("it is tried once more in its cell")
    stalled = Fault("stalled", 41, 5, 100.0, "more than 2 s for one event")
    assert (
        ShardStatus(struck(Record("shared"), stalled), 0.0)
        .reason()
        .startswith("it stalled at entry 41: more")
    )


def test_what_all_shards_find_is_said_once(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: a module that cannot be imported is one line, with its shards; one shard alone is told, too, soon."""
    for worker in stage.workers:
        stage.say(worker, size=9, failed={"odd": "importing 'odd' failed"})
    stage.say(stage.workers[1], size=9, failed={"essay": "went back"}, went_back=["essay"])
    stage.look(5)
    assert capsys.readouterr().err.splitlines() == [
        "treering: module odd is not running in shards 0, 1: importing 'odd' failed; then: treering retry odd",
        "treering: module essay is not running in shard 1: went back",
    ]


def test_who_lost_a_shared_worker_is_not_helped_by_a_retry_alone(stage: Stage) -> None:
    """Promise: where the worker is down for good, the remedy begins with what the server's log says."""
    stage.workers[0].ended(EXIT_STOP)
    remedy = stage.placing.statuses()["odd"].remedy("odd", "data")
    assert remedy.startswith("mend what the server's log says, then start the server again; ")
    assert "treering retry odd --data data" in remedy
