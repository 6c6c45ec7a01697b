"""Workers that end again and again, though no module was running: who counts, so that a person hears of it.

    counting = Counting(wall)
    counting.ended("worker 0", "exit code 1", 12)       # it had come to entry 12
    counting.moved("worker 0", 13)                      # further than ever: what was is forgotten
    counting.of("worker 0")                             # None, or what `treering doctor` and /readyz say of it

A worker that ends is started again, and one end is nobody's business.  Who ends three times and gets no further will
not be helped by a start: the machine, an entry, or our own code is at fault.  Who lasts for a while is well again.

Ends that a module is to blame for are another matter: `replay.escalation`.  What is said: `replay.status`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from replay import Endings, Level
from tools.placed import Worker

MANY = 3
"""From so many ends on it is told."""
CALM_S = 60.0
"""Who lasts so long is well; a worker that waits for its archiver in vain ends sooner."""


class Counting:
    """The ends of all workers of a server since they last got on, by name; `wall` tells Unix seconds."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._known: dict[str, Endings] = {}

    def ended(self, worker: str, how: str, position: int) -> None:
        """Take note of an end; `position` is how far it had got, -1 if nobody knows."""
        now_s = self._wall()
        before = self._recent(worker) or Endings(worker, 0, how, now_s, now_s, position)
        far = max(position, before.position)
        self._known[worker] = Endings(worker, before.count + 1, how, before.first_s, now_s, far)

    def moved(self, worker: str, position: int) -> None:
        """Forget a worker that has come further than before it ended."""
        if worker in self._known and position > self._known[worker].position:
            del self._known[worker]

    def of(self, worker: str) -> Endings | None:
        """Return what there is to be said of a worker, if anything."""
        found = self._recent(worker)
        return found if found is not None and found.count >= MANY else None

    def _recent(self, worker: str) -> Endings | None:
        found = self._known.get(worker)
        return None if found is None or self._wall() - found.last_s >= CALM_S else found


def worker_of(module: str, shard: int, level: Level) -> str:
    """Return the name of the worker in which a module of that level runs.

    >>> worker_of("essay", 0, "shared"), worker_of("essay", 0, "cell")
    ('worker 0', 'worker 0 essay')
    """
    return f"worker {shard}" if level == "shared" else f"worker {shard} {module}"


def furthest(worker: Worker, positions: Mapping[tuple[str, int], int]) -> int:
    """Return how far all modules of a worker have come; -1 if nobody knows."""
    return min((positions.get((name, worker.shard), -1) for name in worker.modules), default=-1)
