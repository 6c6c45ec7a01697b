"""Standing by: spare workers, warmed up before anybody needs one, so that a death costs its neighbours little.

    standby = Standby([*PYTHON, "tools.worker", "--spare"], count=1)
    keeping = asyncio.create_task(standby.keep())
    process = await standby.take("worker 0", ["--data", …])     # None: there is none, start a worker as usual
    await standby.stop()

Most of a worker's start is the same for all of them: the interpreter, imports, the modules that come with the server.
A spare (`tools.spare`) has all of that behind it and waits for the arguments of a worker; it has opened nothing, read
no key, and run no code of anybody else's.  It is a child of the supervisor like any worker, and ends with it.

Nothing depends on a spare.  One that is dead, hangs, or does not answer in time is killed, and a worker is started from
nothing, as on a server that has none; whatever it does once it has its orders is a worker's doing.  A new one is
started when the one before has settled: on a small machine its warming up would take the time of those who catch up.

Who is kept running: `tools.children`.  Which worker takes a spare: `tools.placing`.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from tools.children import how, spawned
from tools.process import say
from tools.reporting import STANDING_BY, TAKEN

LOOK_S = 0.5
SETTLE_S = 2.0
"""How long after a spare was taken the next one is started."""
START_S = 60.0
"""How long a spare may take until it stands by; then it is killed."""
TAKE_S = 1.0
"""How long a spare may take to answer its orders; it should take none."""
TRIES = 2
"""How many spares are asked before a worker is started from nothing: others wait meanwhile."""
PAUSE_S_MAX = 60.0


class Standby:
    """The spares of one server: `count` of them, each started by `command`."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command, self.count = list(command), count
        self._waiting: list[Process] = []
        self._starting: Process | None = None
        self._next_s, self._pause_s = 0.0, LOOK_S
        """Not before when the next one is started, on the loop's clock; how long to wait after a failure."""
        self._stopping = False

    @property
    def pids(self) -> list[int]:
        """Return the process ids of those that stand by just now."""
        return [one.pid for one in self._waiting if one.returncode is None]

    async def keep(self) -> None:
        """Have `count` spares stand by, until `stop`: what ended, or was taken, is replaced after a while."""
        loop = asyncio.get_running_loop()
        while self.count and not self._stopping:
            self._bury(loop.time())
            if len(self._waiting) < self.count and loop.time() >= self._next_s:
                await self._start(loop)
            await asyncio.sleep(LOOK_S)

    async def take(self, name: str, orders: Sequence[str]) -> Process | None:
        """Make a spare the worker `name`, which takes `orders` for its arguments; None if none answers."""
        loop = asyncio.get_running_loop()
        for _ in range(TRIES):
            if not self._waiting or self._stopping:
                return None
            process = self._waiting.pop(0)
            self._next_s = loop.time() + SETTLE_S
            if await _took(process, orders):
                say(f"treering: {name} goes on in process {process.pid}, which stood by")
                return process
            say(f"treering: a spare worker (process {process.pid}) does not answer, and is killed")
            await _end(process)
        return None

    async def stop(self) -> None:
        """End all of them; they hold nothing."""
        self._stopping = True
        ending, self._waiting = [*self._waiting, *filter(None, [self._starting])], []
        await asyncio.gather(*map(_end, ending))

    async def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start one; what does not come to stand by is told, and tried again after longer and longer pauses."""
        try:
            self._starting = process = await spawned(self._command)
            why = await _stands_by(process)
        except OSError as error:
            why = str(error)
        else:
            if self._stopping or why:
                await _end(process)
            else:
                self._waiting.append(process)
        self._starting = None
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX) if why else LOOK_S
        if why and not self._stopping:
            say(f"treering: no spare worker stands by: {why}; trying again in {self._pause_s:.0f} s")
            self._next_s = loop.time() + self._pause_s

    def _bury(self, now_s: float) -> None:
        """Forget those that have ended: nobody asked them to, so the next one is started a little later each time."""
        for process in [one for one in self._waiting if one.returncode is not None]:
            assert process.returncode is not None
            self._waiting.remove(process)
            _close(process)
            self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
            self._next_s = now_s + self._pause_s
            say(f"treering: a spare worker ended ({how(process.returncode)}); another one will stand by")


async def _stands_by(process: Process) -> str:
    """Wait until a new process stands by; return why it does not, or nothing."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
    except (TimeoutError, ValueError):
        return f"it said nothing within {START_S:.0f} s"
    return "" if line.strip() == STANDING_BY else "it ended while it started"


async def _took(process: Process, orders: Sequence[str]) -> bool:
    """Give a spare its orders and return whether it took them; it may be dead, or stopped by a signal."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TAKE_S):
            process.stdin.write(msgspec.json.encode(list(orders)) + b"\n")
            await process.stdin.drain()
            return (await process.stdout.readline()).strip() == TAKEN
    except (TimeoutError, ValueError, ConnectionError):
        return False


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    _close(process)


def _close(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
