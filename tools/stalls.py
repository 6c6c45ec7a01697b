"""Stalls: a worker that does not get on is killed, and it is known for whom.

    stalls = Stalls(settings, clock)
    stalls.watch(worker, 0.25, in_cell=False)      # every quarter of a second, for each worker

A worker leaves a word in memory before it calls into a module (`replay.attempt`), and speaks on its pipe every second.
So from outside, without a look at its code, one can tell apart

    one word that stays the same        its module computes for too long, and is accused
    the same, while others wait         the module takes too long to share a worker, and is accused of that
    no words, and nothing said          it was stopped by a signal, or hangs outside of any module: nobody is accused

Time counts only while somebody looks: a supervisor that was itself kept waiting must not hold that against anybody.
What follows from an accusation, once the worker has ended: `tools.placing`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reducers import BUILTIN
from replay import IDLE, IMPORTING, Kind, read_attempts
from tools.cell_link import IMPORT_S
from tools.children import DRAIN_S
from tools.placed import Accused, Worker
from tools.process import say
from tools.settings import Settings

NEIGHBOURS_S = 0.75
"""How long an event may take while others wait for their worker; who takes longer goes on alone."""
SILENT_S = 20.0
"""How long a worker may say nothing, beside what one event may take; it speaks every second (`tools.roster`)."""


class Stalls:
    """What is known of workers between two looks; `clock` is in seconds, from anywhere."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._seen: dict[Path, tuple[dict[str, int], float]] = {}
        """By attempts file: the words as they were, and for how long they have been so."""

    def watch(self, worker: Worker, step_s: float, *, in_cell: bool) -> None:
        """Look at a worker `step_s` after the last look, and kill it if it stands still.

        The words of a module that is `in_cell` are watched by the worker itself.
        """
        if worker.renewed_s is not None and self._clock() - worker.renewed_s > DRAIN_S:
            worker.kill()
        words = {name: word for name, word in read_attempts(worker.attempts).items() if word != IDLE}
        before, since_s = self._seen.get(worker.attempts, ({}, 0.0))
        since_s = since_s + step_s if words and words == before else 0.0
        self._seen[worker.attempts] = words, since_s
        self._listen(worker, step_s if words == before else 0.0)
        if words and not in_cell:
            self._judge(worker, *next(iter(words.items())), since_s)

    def _listen(self, worker: Worker, step_s: float) -> None:
        """Kill a worker that says nothing.

        While it starts it need not speak; events that are folded (`step_s` is 0) are as good as words.
        """
        worker.silent_s = worker.silent_s + step_s if step_s and worker.ready.is_set() else 0.0
        longest_s = max(
            (self._settings.limits(name).seconds_per_event for name in worker.modules), default=0.0
        )
        if worker.silent_s > SILENT_S + longest_s:
            say(f"treering: {worker.name} has said nothing for {worker.silent_s:.0f} s and is killed")
            worker.silent_s = 0.0
            worker.kill()

    def _judge(self, worker: Worker, name: str, word: int, since_s: float) -> None:
        """Accuse a module whose word has stayed the same for too long; about others no worker is believed."""
        kind, limit_s = self._limit(worker, name, word)
        if since_s > limit_s and worker.accused is None and name in worker.modules:
            worker.accused = Accused(name, kind, f"more than {limit_s:g} s")
            worker.kill()

    def _limit(self, worker: Worker, name: str, word: int) -> tuple[Kind, float]:
        """Return how many seconds a word may stay as it is, and what it is to leave it for longer."""
        limit_s = self._settings.limits(name).seconds_per_event
        if word == IMPORTING:
            return "stalled", max(IMPORT_S, limit_s)
        crowded = worker.module is None and len(worker.modules) > 1 and name not in BUILTIN
        return ("blocking", NEIGHBOURS_S) if crowded and limit_s > NEIGHBOURS_S else ("stalled", limit_s)
