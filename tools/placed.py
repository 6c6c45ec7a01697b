"""A worker as its supervisor sees it: which modules it has is asked for at each start, its end is told to who asks.

    worker = Worker(places, "worker 0", shard=0, module=None)       # for all modules that share a shard
    asyncio.create_task(worker.keep_running())

A shared worker that died is waited for by modules that did nothing.  So it is started again at once, and out of a spare
(`tools.standby`) where one stands by.  Who runs alone is waited for by nobody else, and starts from nothing, as does a
worker that is to run other code than before.

Whose fault an end was, and who runs where then: `tools.placing`.
"""

from __future__ import annotations

from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from replay import Kind
from tools.children import Child, spawned
from tools.process import PYTHON
from tools.standby import Standby

WORKER = [*PYTHON, "tools.worker"]


class Accused(NamedTuple):
    """A module that did not get on, so that its worker is killed."""

    module: str
    kind: Kind
    reason: str


class Places(Protocol):
    """What a worker asks of `tools.placing.Placing`."""

    attempts: Path
    standby: Standby | None

    def members(self, worker: Worker, /) -> list[str]:
        """Return the modules that run in it at its next start."""

    def arguments(self, worker: Worker, /) -> list[str]:
        """Return the arguments with which it is started."""

    def heard(self, worker: Worker, line: bytes, /) -> None:
        """Take in a line that it said."""

    def ended(self, worker: Worker, code: int, /) -> bool:
        """Take note of its end; return whether a module is to blame."""


class Worker(Child):
    """The worker of one shard: of all modules that share it, or of one `module` alone."""

    def __init__(self, places: Places, name: str, shard: int, module: str | None) -> None:
        super().__init__(name, ())
        self.shard, self.module, self.modules = shard, module, list[str]()
        self.attempts = places.attempts / name.replace(" ", "-")
        self.accused: Accused | None = None
        """For whom it was killed."""
        self.silent_s = 0.0
        """For how long it has said nothing, and nothing was seen of it."""
        self.renewed_s: float | None = None
        """Since when it is to end, so that it starts with other code."""
        self._blamed = False
        self._places = places
        self.heard = lambda line: places.heard(self, line)

    def command(self) -> Sequence[str]:
        """Return what is started next: with those modules that run here now."""
        self.modules, self.accused = self._places.members(self), None
        self.renewed_s, self.silent_s = None, 0.0
        self.attempts.unlink(missing_ok=True)
        return [*WORKER, *self._places.arguments(self)]

    async def spawn(self) -> Process:
        """Return the process that is run next: a spare, if others wait for it and one answers."""
        waited_for, standby = self.module is None and self.renewed_s is None, self._places.standby
        command = self.command()
        orders = command[len(WORKER) :]
        spare = await standby.take(self.name, orders) if standby is not None and waited_for else None
        process = await spawned(command) if spare is None else spare
        self.renewed_s = (
            None  # if it was asked to end meanwhile, nobody was there: who starts now has the new code
        )
        return process

    def pause_s(self, lasted_s: float, before_s: float) -> float:
        """Return how long to wait before the next start: not at all, once it is known without whom."""
        return 0.0 if self._blamed else super().pause_s(lasted_s, before_s)

    def ended(self, code: int) -> bool:
        """Find out whose fault it was; return whether this worker is to be started again."""
        self._blamed = self._places.ended(self, code)
        if self.module is not None:
            return False  # it is started anew when its module's turn comes
        renewed = self.renewed_s is not None  # that was no end to be told of
        return (self._blamed or renewed or super().ended(code)) and bool(self._places.members(self))
