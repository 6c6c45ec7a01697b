"""A process that is kept running: started, watched, started again, and stopped in the end.

    child = Child("front", [sys.executable, "-P", "-m", "tools.front", ...])
    task = asyncio.create_task(child.keep_running())
    await child.ready.wait()
    await child.stop()

A child says "ready" on its standard output; other lines are given to `heard`.  It notices by its standard input that
its parent is gone.  Exit code 3 says that a person must look: it stays down.  All other ends are followed by another
start: at once after a healthy life, and after longer and longer pauses where one end follows the other.

What is started, and in which order it is stopped: `tools.serve`.  Workers, whose modules may do them harm:
`tools.placing`.  Those that wait to become one: `tools.standby`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress

from tools.process import EXIT_AGAIN, EXIT_STOP, say
from tools.reporting import READY

PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 5.0
HEALTHY_S = 10.0
DRAIN_S = 20.0
LAST_WORDS_S = 1.0
EXIT_LOOK_S = 0.05


class Child:
    """One process that is kept running: `ready` is set while it says that it is.

    Whatever else is in its process group when it ends is killed.
    """

    def __init__(self, name: str, command: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        self.name, self._command, self._descriptors = name, command, descriptors
        self.ready = asyncio.Event()
        self.stopped_for_good = False
        self.heard: Callable[[bytes], None] = lambda _: None
        self.stopping = False
        self._could_not = False
        """Whether it ended because it could not run just then: it has said why, and somebody may wait for it."""
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """Return the id of its process, if there is one."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    def command(self) -> Sequence[str]:
        """Return what is started next."""
        return self._command

    async def spawn(self) -> Process:
        """Return the process that is run next."""
        return await spawned(self.command(), self._descriptors)

    def pause_s(self, lasted_s: float, before_s: float) -> float:
        """Return how long to wait before the next start; the process lasted so long, and the last pause before_s.

        >>> child = Child("front", [])
        >>> child.pause_s(60.0, 5.0), child.pause_s(1.0, 0.0), child.pause_s(1.0, 4.0)
        (0.0, 0.05, 5.0)
        """
        return 0.0 if lasted_s > HEALTHY_S else min(max(2 * before_s, PAUSE_S_MIN), PAUSE_S_MAX)

    def ended(self, code: int) -> bool:
        """Take note of an end that nobody asked for; return whether to start again."""
        if code == EXIT_STOP:
            self.stopped_for_good = True
            say(f"treering: {self.name} is down until a person looks; the others go on")
            return False
        self._could_not = code == EXIT_AGAIN
        if not self._could_not:
            say(f"treering: {self.name} ended ({how(code)}); starting it again")
        return True

    async def keep_running(self) -> None:
        """Start the process, and again whenever it ends, until `stop`."""
        loop, pause_s = asyncio.get_running_loop(), 0.0
        while not self.stopping:
            started = loop.time()
            try:
                code = await self._run_once()
            except OSError as error:  # no process, no memory, no descriptor left: perhaps in a moment
                say(f"treering: {self.name} could not be started: {error}; trying again")
                code = EXIT_AGAIN
            self.ready.clear()
            if self.stopping:
                return
            if not self.ended(code):
                return
            pause_s = self.pause_s(loop.time() - started, pause_s)
            await asyncio.sleep(pause_s)

    def terminate(self) -> None:
        """Let the process drain and end, if there is one; it is an end like any other, and followed by a start."""
        if self._process is not None and self._process.returncode is None:
            _terminate(self._process)

    def kill(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Let the process drain, then end; one that does not is killed."""
        self.stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        _terminate(process)
        try:
            await asyncio.wait_for(_exited(process), DRAIN_S)
        except TimeoutError:
            say(f"treering: {self.name} did not drain in {DRAIN_S:.0f} s and is killed")
            self.kill()
            await _exited(process)

    async def _run_once(self) -> int:
        self._process = process = await self.spawn()
        if self.stopping:  # `stop` came while there was no process yet
            _terminate(process)
        assert process.stdout is not None
        listening = asyncio.create_task(self._listen(process.stdout))
        code = await _exited(process)
        # What it said last is still to be read; what it started may hold the pipe open for ever.
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        listening.cancel()
        return code

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while line := await _line(stream):
            if line.strip() == READY:
                self.ready.set()
                if self._could_not:
                    self._could_not = False
                    say(f"treering: {self.name} runs now")
            else:
                self.heard(line)


async def spawned(command: Sequence[str], descriptors: Sequence[int] = ()) -> Process:
    """Start a process in a session of its own, with pipes for standard input and output; raise OSError."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        pass_fds=descriptors,
        start_new_session=True,  # Ctrl-C is for the supervisor, which drains in order
    )


async def _exited(process: Process) -> int:
    """Return the exit code as soon as the process has ended; `Process.wait` waits for whoever holds its pipes, too."""
    waiting = asyncio.create_task(process.wait())
    while process.returncode is None:
        await asyncio.wait({waiting}, timeout=EXIT_LOOK_S)
    waiting.cancel()
    return process.returncode


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line; of one that is too long, a part, which will be no report."""
    try:
        return await stream.readline()
    except ValueError:
        return b"(too long)\n"


def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


def how(code: int) -> str:
    """Return how a process ended.

    >>> how(-9), how(4)
    ('signal 9', 'exit code 4')
    """
    return f"signal {-code}" if code < 0 else f"exit code {code}"
