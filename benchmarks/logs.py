"""A log to measure: an archiver with everything on, in a new folder, and what drives it as its server does."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from archive import (
    Append,
    Appended,
    Archiver,
    Caches,
    DataFolder,
    PublishedSize,
    Receipt,
    SealFile,
    SteadyClock,
    Submission,
    decode_frames,
)
from archive.wire import BACK
from merkle import sign_note
from tools.door import Door
from tools.process import quick_turns

UNANSWERED = 3
"""Requests that a crowd has under way: one is committed, one prepared, one waits."""


@contextmanager
def archiver(path: Path) -> Iterator[tuple[Archiver, DataFolder]]:
    """Open an archiver with everything on, in a new folder."""
    folder = DataFolder(path)
    folder.create()
    signer = folder.signer(os.urandom, "example.org/benchmark")
    store, vault = folder.open_log(read_only=False), folder.open_vault(os.urandom, read_only=False)
    made = Archiver(
        signer.name,
        store,
        vault,
        caches=Caches(folder.log / "caches"),
        seal=SealFile(folder.log / "seal"),
        published=PublishedSize(folder.published, writable=True),
        clock=SteadyClock(),
        random=os.urandom,
        sign=lambda text: sign_note(text, [signer]),
    )
    made.open({"software": "benchmark"})
    yield made, folder
    made.close()
    vault.close()
    store.close()


class Crowd:
    """Gives a door its requests, a few of them unanswered at any time, and notes when each is answered."""

    def __init__(self, door: Door, batches: Sequence[list[Submission]]) -> None:
        self._door, self._waiting = door, list(enumerate(batches))[::-1]
        self._left = len(batches)
        self.answered_s: list[float] = []
        self.frames: list[bytes] = []
        self.done = asyncio.Event()

    def ask(self) -> None:
        """Send the next request, if there is one."""
        if self._waiting:
            ticket, batch = self._waiting.pop()
            self._door.take(self, Append(ticket, batch), sum(len(one.payload) for one in batch))

    def send(self, frame: bytes) -> None:
        """Take an answer, and send another request."""
        self.answered_s.append(time.perf_counter())
        self.frames.append(frame)
        self.ask()
        if len(self.frames) == self._left:
            self.done.set()

    def wake(self, frame: bytes) -> None:
        """Hear of a commit."""

    def pause(self) -> None:
        """Hear that the queue is full: it never is."""

    def go_on(self) -> None:
        """Hear that it has room."""


def keep_all(
    kept: Archiver, batches: Sequence[list[Submission]], unanswered: int = UNANSWERED
) -> list[float]:
    """Have batches kept, one a request and a commit, as the server does it; return the seconds that each commit took.

    That is from the answer before (for the first, from when it was sent) to its own: together, all the time there was.
    Raises RuntimeError unless every event is kept.
    """
    started, crowd = asyncio.run(_keep_all(kept, batches, unanswered))
    for frame in crowd.frames:
        for message in decode_frames(bytearray(frame), BACK)[0]:
            if not (
                isinstance(message, Appended) and all(isinstance(one, Receipt) for one in message.answers)
            ):
                raise RuntimeError(f"not kept: {message}")
    times = [started, *crowd.answered_s]
    return [after - before for before, after in pairwise(times)]


async def _keep_all(
    kept: Archiver, batches: Sequence[list[Submission]], unanswered: int
) -> tuple[float, Crowd]:
    quick_turns()
    door = Door(kept, entries_max=1)  # a request, a commit
    crowd, running = Crowd(door, batches), asyncio.create_task(door.run())
    await asyncio.sleep(0)
    started = time.perf_counter()
    for _ in range(unanswered):
        crowd.ask()
    await crowd.done.wait()
    door.stop()
    await running
    return started, crowd
