"""A door with an archiver in memory behind it, a gate in the middle of its commits, and senders who note it all.

async def test(place: Place) -> None:
    place.gate.shut("log")              # the next commit stops before its transaction
    place.one.ask(event(b"1"))
    await place.gate.wait()
    ...
    place.gate.opened.set()

drive(test)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event
from typing import Any

from archive import Append, Appended, Archiver, Steer, Submission, decode_frames
from archive.wire import BACK
from tests.archive.site import Site, event
from tests.faults import Schedule
from tools import door
from tools.door import Door

WAIT_S = 20.0


class Gate(Schedule):
    """Stops before the first step of a name, from when it is shut, until it is opened; fails at a step, too."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.reached, self.opened = Event(), Event()
        self.failures: dict[str, list[Exception | None]] = {}
        """What the next steps of a name end in, in order; None for well."""

    def shut(self, name: str) -> None:
        """Stop before the next step of this name."""
        self.reached, self.opened = Event(), Event()
        self.name = name

    def step(self, name: str, action: Callable[[], object]) -> None:
        """Wait at the gate, then fail or do the step."""
        if name == self.name:
            self.name, opened = "", self.opened
            self.reached.set()
            assert opened.wait(WAIT_S)
        failures = self.failures.get(name)
        if failures and (error := failures.pop(0)) is not None:
            self.steps.append(name)
            raise error
        super().step(name, action)

    async def wait(self) -> None:
        """Wait, on the loop, until a commit stands at the gate."""
        assert await asyncio.to_thread(self.reached.wait, WAIT_S)


class Sender:
    """A connection that writes down what it is told; several may write into one list."""

    def __init__(self, at: Door, told: list[tuple[Sender, Any]]) -> None:
        self.door, self.told = at, told
        self.paused = False
        self._ticket = 0
        at.connections.add(self)

    def ask(self, *submissions: Submission) -> None:
        """Send a request."""
        self._ticket += 1
        self.door.take(
            self, Append(self._ticket, list(submissions)), sum(len(one.payload) for one in submissions)
        )

    def steer(self, body: dict[str, Any]) -> None:
        """Send a control entry."""
        self._ticket += 1
        self.door.take(self, Steer(self._ticket, body), 100)

    def send(self, frame: bytes) -> None:
        """Take an answer."""
        self.told.append((self, decode_frames(bytearray(frame), BACK)[0][0]))

    def wake(self, frame: bytes) -> None:
        """Take a wake-up."""
        self.send(frame)

    def pause(self) -> None:
        """Hear that the queue is full."""
        self.paused = True

    def go_on(self) -> None:
        """Hear that there is room."""
        self.paused = False

    def answers(self) -> list[Any]:
        """Return all answers so far, in order."""
        found = [one for who, one in self.told if who is self and isinstance(one, Appended)]
        assert [one.ticket for one in found] == list(range(1, len(found) + 1)), "answers come in order"
        return [answer for one in found for answer in one.answers]


class Place:
    """A door, its archiver, two senders, and what they are told."""

    def __init__(self, kind: type[Archiver] = Archiver, lone_max: int = 0) -> None:
        self.gate, self.site = Gate(), Site()
        self.archiver = self.site.start(self.gate)
        self.archiver.__class__ = kind
        self.door = Door(self.archiver, lone_max=lone_max)
        self.told: list[tuple[Sender, Any]] = []
        self.one, self.other = Sender(self.door, self.told), Sender(self.door, self.told)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not true():  # noqa: ASYNC110 - what is waited for happens in threads, too
                await asyncio.sleep(0.001)

    def payloads(self) -> list[bytes]:
        """Return what the log holds, having judged all of it."""
        return [entry.payload for entry in self.site.events()]


def drive(
    test: Callable[[Place], Awaitable[None]], kind: type[Archiver] = Archiver, *, lone_max: int = 0
) -> Place:
    """Run a door through a test, then let it drain; raise what it ends with.

    A commit can be held at the gate only where threads make it: by default, all do.
    """
    place = Place(kind, lone_max)

    async def go() -> None:
        running = asyncio.create_task(place.door.run())
        try:
            await test(place)
        finally:
            place.gate.opened.set()
            place.door.stop()
        async with asyncio.timeout(WAIT_S):
            await running

    asyncio.run(go())
    return place


def crowd(first: int, count: int = door.AHEAD_ENTRIES_MIN) -> list[Submission]:
    """Return so many events that they are prepared ahead."""
    return [event(b"%d" % number, id=str(number)) for number in range(first, first + count)]
