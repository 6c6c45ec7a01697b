"""What each module of a worker takes: so that who takes too much is let go before its neighbours feel it.

A process has one memory and one thread for all of its modules.  So both are measured around each module's fold of a
piece, at some microseconds:

    memory       by whom it grew; beyond half of the limit, who took most keeps fewer states in memory (they are looked
                 up when needed); beyond all of it, who took most is stopped (`MemoryError`)
    time         who folds for more than half of the time, while others wait, is stopped (`Slow`): no fault, but it
                 belongs into a process of its own
    descriptors  who closed files that were not its own ends the process at once, to its blame: the numbers may be
                 given to other files, and LMDB would write into these

The hard limit on memory (RLIMIT_DATA) lies above, for one event that takes it all: that raises MemoryError in the
module that asks.  What a stop leads to: `replay.escalation`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from reducers import BUILTIN
from replay import Holding, Stopped
from tools.confine import data_bytes
from tools.process import EXIT_AGAIN

WINDOW_S = 10.0
SHARE_MAX = 0.5
HEADROOM_BYTES = 128 << 20
"""Between the limit that is measured and the one that the kernel keeps."""

Identity = tuple[int, int, int]


def open_files() -> list[Identity]:
    """Return (number, device, inode) of every open descriptor of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are numbers
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # that of the listing itself
        found.append((int(name), status.st_dev, status.st_ino))
    return found


class Meter:
    """Measures the modules of one process; `clock` counts seconds, `memory` bytes."""

    def __init__(
        self,
        limit_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], int] = data_bytes,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._limit, self._clock, self._memory, self._end = limit_bytes, clock, memory, end
        self._floor = memory()
        self._files: list[Identity] = []
        self._holdings: dict[str, Holding] = {}
        self._grown: dict[str, int] = {}
        self._busy: dict[str, tuple[float, float]] = {}
        """By module: seconds of work, fading away, and when that was."""
        self._began, self._had, self._shed_at = 0.0, 0, 0

    def watch(self, holdings: Iterable[Holding], files: Iterable[Identity] = ()) -> None:
        """Look after these from now on; `files` must stay as they are."""
        self._files = list(files)
        for holding in holdings:
            self._holdings[holding.module] = holding
            holding.watch = self

    def before(self, holding: Holding) -> None:
        """Take note that a module begins to fold a piece."""
        del holding
        self._began, self._had = self._clock(), self._memory()

    def after(self, holding: Holding) -> None:
        """Take note that it has folded it, and stop whoever takes too much."""
        name, now = holding.module, self._clock()
        if name not in BUILTIN and not self._whole():
            self._end(EXIT_AGAIN)
        has = self._memory()
        self._grown[name] = self._grown.get(name, 0) + has - self._had
        if has - self._floor > self._limit:
            self._stop_largest()
        elif has - self._floor > max(self._limit // 2, self._shed_at):
            self._shed_at = (
                has - self._floor + self._limit // 16
            )  # what is freed is used again, not given back
            if (worst := self._largest()) is not None:
                worst.shed()
        work, since = self._busy.get(name, (0.0, now))
        work = work * math.exp((since - now) / WINDOW_S) + now - self._began
        self._busy[name] = work, now
        crowded = len([one for one in self._holdings.values() if one.stopped is None]) > 1
        if crowded and name not in BUILTIN and work > SHARE_MAX * WINDOW_S and holding.stopped is None:
            holding.stopped = Stopped(
                "", holding.position, "Slow: more than half of its worker's time", "slow", ours=True
            )

    def _stop_largest(self) -> None:
        worst = self._largest()
        if worst is not None:
            grown = self._grown.get(worst.module, 0) >> 20
            reason = f"MemoryError: its process grew by {grown:,} MiB"
            worst.stopped = Stopped("", worst.position, reason, "memory", ours=True)

    def _largest(self) -> Holding | None:
        running = [one for one in self._holdings.values() if one.stopped is None]
        return max(running, key=lambda one: self._grown.get(one.module, 0), default=None)

    def _whole(self) -> bool:
        for number, device, inode in self._files:
            try:
                status = os.fstat(number)
            except OSError:
                return False
            if (status.st_dev, status.st_ino) != (device, inode):
                return False
        return True


def files_below(*paths: Path) -> list[Identity]:
    """Return those of the open files that lie below these folders: what a worker must not lose."""
    kept, folders = [], [path.resolve() for path in paths]
    for number, device, inode in open_files():
        try:
            target = Path(f"/proc/self/fd/{number}").readlink()
        except OSError:
            continue
        if any(target.is_relative_to(folder) for folder in folders):
            kept.append((number, device, inode))
    return kept
