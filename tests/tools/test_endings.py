"""Promise: a worker that ends again and again, of which no module is to blame, is shown, until it gets on or lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from api import SHARDS_FILE
from archive import DataFolder
from replay import (
    STATUS_FILE,
    Endings,
    ModuleStatus,
    Record,
    ShardStatus,
    Workers,
    read_status,
    word_of,
    write_status,
    write_workers,
)
from tests.tools.test_placing import NAMES, Stage
from tools.doctor import check_modules, check_workers
from tools.placing import Placing
from tools.settings import Limits

SAID = "worker 0 has ended 4 times in a minute with exit code 1, and gets no further than entry 5; see the server's log"


class Loop(Stage):
    """A placing whose wall clock is that of the test."""

    def begin(self) -> None:
        """Start the workers of a server."""
        self.placing = Placing(self.settings, NAMES, self.folder, self.time, self.time)
        self.workers = self.placing.shared()
        for worker in self.workers:
            self.start(worker)
        write_workers(self.folder.run, Workers({"worker 0": 11}, [], 0))

    def die(self, times: int, every_s: float = 2.0, code: int = 1) -> None:
        """Let the worker of shard 0 live so long and end, so often; it is started again each time."""
        worker = self.workers[0]
        for _ in range(times):
            self.look(every_s)
            worker.ended(code)
            self.start(worker)
        self.placing.look()

    def reasons(self) -> list[set[str]]:
        """Return why modules are not well, by shard, as /readyz says it."""
        found = read_status(self.folder.run / STATUS_FILE).values()
        return [{status.shards[shard].reason() for status in found} for shard in ("0", "1")]

    def findings(self) -> list[str]:
        """Return what doctor finds of workers."""
        return [note.text for note in check_workers(self.folder) if not note.good]


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """Return a placing whose modules all run."""
    return Loop(tmp_path / "data")


def test_who_ends_again_and_again_is_a_finding_and_no_module_s_fault(loop: Loop) -> None:
    """All modules of the shard stand still at one entry; said once by doctor, and of each module in /readyz."""
    loop.die(2)
    assert (loop.findings(), loop.reasons()) == ([], [{""}, {""}])
    loop.die(2)
    assert (loop.findings(), loop.reasons()) == ([SAID], [{SAID}, {""}])
    statuses = read_status(loop.folder.run / STATUS_FILE)
    assert {(one.state, one.deaths, one.reason()) for one in statuses.values()} == {("running", 0, SAID)}


def test_who_gets_further_or_lasts_is_well_again(loop: Loop) -> None:
    """What it folds again on its way there is no progress."""
    loop.die(4)
    worker = loop.workers[0]
    loop.say(worker, at=dict.fromkeys(NAMES, 5))
    loop.placing.look()
    assert loop.findings() == [SAID]
    loop.say(worker, at=dict.fromkeys(NAMES, 6))
    loop.placing.look()
    assert loop.findings() == []
    loop.die(3, every_s=25.0, code=-9)
    assert "3 times in a minute with signal 9" in loop.findings()[0]
    loop.look(61.0)
    assert loop.findings() == []
    loop.die(4, every_s=61.0)
    assert loop.findings() == [], "one now and then is nobody's business"


def test_minutes_are_those_from_the_first_end_to_the_last(loop: Loop) -> None:
    """Whoever reads it can find all of them in the server's log."""
    loop.die(8, every_s=30.0, code=4)
    assert "ended 8 times in 4 minutes with exit code 4" in loop.findings()[0]


@pytest.mark.parametrize("blamed", [True, False])
def test_ends_that_have_a_reason_are_not_counted(loop: Loop, *, blamed: bool) -> None:
    """A module that is to blame is moved, and has its own words; who is to run other code was asked to end."""
    worker = loop.workers[0]
    for _ in range(3):
        words = loop.start(worker)
        loop.look(1.0)
        if blamed:
            words[0][0] = word_of(7)
        else:
            worker.renewed_s = loop.time()
        worker.ended(1)
    assert loop.placing._ends.of(worker.name) is None


def test_who_never_began_has_come_nowhere_that_is_known(tmp_path: Path) -> None:
    """Nor does doctor speak of a server that does not run."""
    loop = Loop(tmp_path / "data")
    loop.placing = Placing(loop.settings, NAMES, loop.folder, loop.time, loop.time)
    (worker, _) = loop.placing.shared()
    for _ in range(3):
        worker.command()
        worker.ended(1)
    loop.placing.look()
    (said,) = loop.findings()
    assert said == "worker 0 has ended 3 times in a minute with exit code 1; see the server's log"
    (loop.folder.run / "workers.json").unlink()
    assert loop.findings() == []


def test_a_module_of_its_own_process_is_counted_by_itself(tmp_path: Path) -> None:
    """A new worker is made for each of its starts; those that share the other one are well."""
    loop = Loop(tmp_path / "data", essay=Limits("own", 300, 4.0))
    for _ in range(3):
        alone = next(one for one in loop.placing.starting() if one.shard == 0)
        loop.start(alone)
        alone.ended(1)
        loop.placing.over(alone)
        loop.look(2.0)
    (said,) = loop.findings()
    assert said.startswith("worker 0 essay has ended 3 times in a minute with exit code 1")
    assert {name for name, one in read_status(loop.folder.run / STATUS_FILE).items() if one.reason()} == {
        "essay"
    }


def test_a_module_whose_worker_ends_again_and_again_is_no_finding_of_its_own(folder: DataFolder) -> None:
    """A shard may have many modules: the worker is named once, and what each of them is, is said as ever."""
    shard = ShardStatus(Record("shared", "running"), 0.0, 0, Endings("worker 0", 3, "signal 9", 0.0, 4.0))
    write_status(folder.run / STATUS_FILE, dict.fromkeys(NAMES, ModuleStatus({"0": shard, "1": shard})))
    write_workers(folder.run, Workers())
    assert [note.about for note in check_workers(folder)] == ["worker 0"]
    (folder.state / SHARDS_FILE).write_text("1\n")
    told = [note for note in check_modules(folder) if note.about.startswith("module ")]
    assert [(note.about, note.good) for note in told] == [(f"module {name}", True) for name in NAMES]
