"""Which worker takes a spare: one that others wait for, and that need not run other code than before."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from archive import DataFolder
from tools import placed
from tools.placed import Worker
from tools.placing import Placing
from tools.settings import Limits, Settings
from tools.standby import Standby

SPARE, FRESH = cast("Process", "a spare"), cast("Process", "a process started from nothing")


class Spares(Standby):
    """Notes who asks, and gives a process that is none."""

    def __init__(self, answer: Process | None) -> None:
        self.answer, self.asked = answer, list[tuple[str, list[str]]]()

    async def take(self, name: str, orders: Sequence[str]) -> Process | None:
        """Note who asks for a spare, and with which orders."""
        self.asked.append((name, list(orders)))
        return self.answer


@pytest.fixture
def placing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Placing:
    """Return a placing of two shared modules and one that runs alone; what is started is only spoken of."""

    async def spawned(command: Sequence[str], descriptors: Sequence[int] = ()) -> Any:
        del command, descriptors
        return FRESH

    monkeypatch.setattr(placed, "spawned", spawned)
    folder = DataFolder(tmp_path / "data")
    folder.create()
    settings = Settings(data=folder.path, module=(("odd", Limits("own", 300, 4.0)),))
    return Placing(settings, ["activity", "essay", "odd"], folder)


def spawned(worker: Worker) -> Process:
    """Start a worker."""
    return asyncio.run(worker.spawn())


def test_a_shared_worker_is_a_spare_where_one_stands_by(placing: Placing) -> None:
    """With just the arguments that it would have been started with."""
    placing.standby = spares = Spares(SPARE)
    worker = placing.shared()[1]
    assert spawned(worker) is SPARE
    ((name, orders),) = spares.asked
    assert name == "worker 1"
    assert [*placed.WORKER, *orders] == worker.command()
    assert orders[orders.index("--shard") + 1] == "1"
    assert [orders[at + 1] for at, one in enumerate(orders) if one == "--module"] == ["activity", "essay"]


@pytest.mark.parametrize("standby", [None, Spares(None)])
def test_without_a_spare_it_is_started_from_nothing(placing: Placing, standby: Spares | None) -> None:
    """Nothing depends on one."""
    placing.standby = standby
    assert spawned(placing.shared()[0]) is FRESH


def test_who_runs_alone_takes_no_spare(placing: Placing) -> None:
    """Nobody waits for it but itself; neighbours may need the spare any moment."""
    placing.standby = spares = Spares(SPARE)
    alone = next(placing.starting())
    assert spawned(alone) is FRESH
    assert spares.asked == []


def test_what_is_to_run_other_code_begins_from_nothing(placing: Placing) -> None:
    """A spare might have loaded some of the old; the start after that takes one again."""
    placing.standby = spares = Spares(SPARE)
    worker = placing.shared()[0]
    worker.renewed_s = 7.0
    assert spawned(worker) is FRESH
    assert spares.asked == []
    assert spawned(worker) is SPARE
