"""Who takes too much is let go before its neighbours feel it: with a clock and a memory that a test moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archive import Event
from reducers import Module, available, entry_digest, load, reducer
from replay import Holding, run_to
from tests.world import World, event
from tools.metering import SHARE_MAX, WINDOW_S, Meter, files_below
from tools.process import EXIT_AGAIN

MIB = 1 << 20


@reducer()
def words(state: int, event: Event) -> int:
    """Count something."""
    return state + event.index


class Machine:
    """A process of two modules, one of them built in, whose memory and time are made up."""

    def __init__(self) -> None:
        self.now, self.memory, self.ended = 0.0, 100 * MIB, list[int]()
        self.meter = Meter(
            200 * MIB, clock=lambda: self.now, memory=lambda: self.memory, end=self.ended.append
        )
        self.activity = Holding(load(available()["activity"]).reducers, module="activity")
        self.essay = Holding(Module("essay", (words,)).reducers, module="essay")
        self.watch()

    def watch(self, files: list[tuple[int, int, int]] | None = None) -> None:
        """Look after both."""
        self.meter.watch([self.activity, self.essay], files or [])

    def fold(self, holding: Holding, seconds: float = 0.0, grown: int = 0) -> None:
        """Let a module fold a piece, which takes this."""
        self.meter.before(holding)
        self.now += seconds
        self.memory += grown
        self.meter.after(holding)


def test_who_grew_most_is_stopped_not_who_is_there_when_it_shows() -> None:
    """The last straw is not the load."""
    machine = Machine()
    for _ in range(6):
        machine.fold(machine.essay, grown=30 * MIB)
    assert machine.essay.stopped is None
    machine.fold(machine.activity, grown=30 * MIB)
    assert machine.activity.stopped is None
    assert machine.essay.stopped is not None
    assert machine.essay.stopped.told == "MemoryError: its process grew by 180 MiB"
    assert machine.essay.stopped.kind == "memory"


def test_who_grew_most_keeps_fewer_states_long_before_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many students are no fault: states that are not needed just now lie in the store."""
    machine, shed = Machine(), list[str]()
    monkeypatch.setattr(Holding, "shed", lambda one: shed.append(one.module))
    machine.fold(machine.activity, grown=90 * MIB)
    assert shed == []
    machine.fold(machine.essay, grown=20 * MIB)
    assert shed == ["activity"]
    machine.fold(machine.essay, grown=5 * MIB)
    assert shed == ["activity"], "what was freed is used again first"
    machine.fold(machine.essay, grown=30 * MIB)
    assert shed == ["activity", "activity"]
    assert machine.activity.stopped is None


def test_what_was_there_before_is_not_counted() -> None:
    """The limit is on what modules add to a process, not on Python and what is imported."""
    machine = Machine()
    machine.memory = 299 * MIB
    machine.fold(machine.essay)
    assert machine.essay.stopped is None


def test_who_takes_more_than_half_of_the_time_is_moved() -> None:
    """Slow is not stuck: no event takes long, and the others wait all the same."""
    machine, seconds = Machine(), 0.0
    while machine.essay.stopped is None and seconds < 10 * WINDOW_S:
        machine.fold(machine.essay, seconds=0.4)
        machine.fold(machine.activity, seconds=0.01)
        seconds += 0.41
    assert machine.essay.stopped is not None
    assert (machine.essay.stopped.kind, machine.essay.stopped.ours) == ("slow", True)
    assert seconds < WINDOW_S


@pytest.mark.parametrize("idle", [0.05, 0.5])
def test_who_takes_less_may_stay(idle: float) -> None:
    """However long it goes on."""
    machine = Machine()
    work = idle * SHARE_MAX * 0.9 / (1 - SHARE_MAX * 0.9)
    for _ in range(200):
        machine.fold(machine.essay, seconds=work)
        machine.now += idle
    assert machine.essay.stopped is None


def test_what_comes_with_the_server_is_never_too_slow() -> None:
    """Catching up takes all the time there is; and so it may for a module that is alone."""
    machine = Machine()
    for _ in range(100):
        machine.fold(machine.activity, seconds=1.0)
    assert machine.activity.stopped is None
    alone = Meter(200 * MIB, clock=lambda: machine.now, memory=lambda: 0)
    machine.meter = alone
    alone.watch([machine.essay])
    for _ in range(100):
        machine.fold(machine.essay, seconds=1.0)
    assert machine.essay.stopped is None


def test_who_closes_other_peoples_files_ends_the_process(tmp_path: Path) -> None:
    """At once, before the number is given to another file; also if that has happened already."""
    machine = Machine()
    descriptor = os.open(tmp_path / "store", os.O_CREAT | os.O_RDWR)
    machine.watch(files_below(tmp_path))
    machine.fold(machine.essay)
    assert machine.ended == []
    os.close(descriptor)
    machine.fold(machine.activity)
    assert machine.ended == [], "what comes with the server closes nothing"
    machine.fold(machine.essay)
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    assert other == descriptor, "the number is free, and given to the next"
    machine.fold(machine.essay)
    os.close(other)
    assert machine.ended == [EXIT_AGAIN, EXIT_AGAIN]


def test_fewer_states_in_memory_are_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shed is in the store, and is found there."""
    monkeypatch.setattr("replay.held.KEYS_MIN", 2)
    made = World(reducers=list(Module("essay", (words,)).reducers))
    made.append([event(f"student-{n}") for n in range(10)])
    runner = made.runner()
    (holding,) = runner.holdings
    run_to(runner, made.source, made.size)
    whole = {pair.identity: entry_digest(pair) for pair in holding.pairs()}
    holding.shed()
    runner.save(made.source)
    assert sum(map(len, holding.slots.values())) == 5
    assert {pair.identity: entry_digest(pair) for pair in holding.pairs()} == whole
