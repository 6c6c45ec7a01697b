"""treering demo: a server, and a classroom of simulated students who type into it over real WebSockets.

    $ treering demo
    Treering is ready: http://127.0.0.1:8401/

The server is a child process, exactly what `treering serve` starts.  Ctrl-C (or `--seconds`) ends the lesson:
students stop typing, what is on its way is acknowledged, then the server drains.  Kill its processes
meanwhile: the students go on as soon as it is back.

Exit codes: 0 every event was acknowledged, 1 not so, 2 usage.

What the students write is `tools.classroom`; how frames are sent, `tools.player`.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import accumulate, count
from pathlib import Path
from typing import IO, NamedTuple

import httpx2
import uvloop

from tools.classroom import Session, session
from tools.console import Advance, duration, exit_codes, fail, number, print_json, progress, rate
from tools.ledger import FileWitness, Tally
from tools.playback import Line, Playback
from tools.player import GaveUp, LoPlayer, Patience, socket_url
from tools.process import EXIT_FINDING, EXIT_GOOD

READY_S, STOP_S, LAST_ANSWERS_S, GIVE_UP_S = 60.0, 60.0, 15.0, 60.0
STUDENTS_MAX = 1_000
LOOK_S = 0.1
HOST = "127.0.0.1"
ROOM = "demo"
"""The class that all students are in."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """The demo cannot go on; the message says why."""


class Classroom:
    """Students at work until told to stop; each begins a new essay, on a new connection, after the last."""

    def __init__(self, url: str, tally: Tally, advance: Advance, *, seed: int = 1) -> None:
        self._url, self._tally, self._advance, self._seed = socket_url(url), tally, advance, seed
        self._players: set[LoPlayer] = set()
        self._over = False

    async def run(self, students: int, now_ms: Callable[[], int], *, words: int = 120) -> None:
        """Let so many students write essays of so many words; return when all have stopped."""
        await asyncio.gather(*(self._student(who, now_ms, words) for who in range(1, students + 1)))

    def stop(self) -> None:
        """End the lesson: nothing new is sent, what is on its way is answered."""
        self._over = True
        for player in self._players:
            player.stop()

    async def _student(self, student: int, now_ms: Callable[[], int], words: int) -> None:
        for essay in count(1):
            if self._over:
                return
            try:
                await self._write(
                    session(self._seed, student, essay=essay, words=words, start_ms=now_ms(), room=ROOM)
                )
            except GaveUp as error:
                self._tally.failures.append(f"student {student}: {error}")
                return

    async def _write(self, writing: Session) -> None:
        now = asyncio.get_running_loop().time
        start, due_ms = now(), list(accumulate(delay_ms for delay_ms, _ in writing.frames))
        playback = Playback([Line(at, frame) for at, (_, frame) in enumerate(writing.frames, 1)])
        witness = FileWitness(self._tally, writing.document, advance=self._advance)
        patience = Patience(GIVE_UP_S, retry=True, now=now)
        player = LoPlayer(
            self._url, playback, witness, patience, lambda at: start + due_ms[at] / 1000 - now()
        )
        self._players.add(player)
        try:
            await player.run()
        finally:
            self._players.discard(player)
            self._tally.events += playback.begun


class Server(NamedTuple):
    """The server as a child: its process, its address, and what it has said."""

    process: subprocess.Popen[bytes]
    url: str
    output: IO[bytes]

    def check(self) -> None:
        """Raise Failed with the last of what it said, if it has ended."""
        if self.process.poll() is not None:
            self.output.seek(0)
            said = self.output.read().decode("utf-8", "replace").splitlines()[-10:]
            raise Failed("\n".join([f"the server ended (exit code {self.process.returncode}):", *said]))


def command(data: Path, port: int) -> list[str]:
    """Return how the server is started; -P keeps a folder `tools` of the current directory out of it."""
    return [
        *(sys.executable, "-P", "-m", "tools.cli", "serve"),
        *("--data", str(data), "--host", HOST, "--port", str(port)),
    ]


@contextmanager
def running(argv: Sequence[str], port: int) -> Iterator[Server]:
    """Run a server as a child; let it drain in the end.

    It has a session of its own, so that Ctrl-C reaches the students first; its standard input is a pipe that
    ends when this process does.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            argv, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield Server(process, f"http://{HOST}:{port}", output)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def free_port(port: int) -> int:
    """Return the port if nobody listens on it, any free one for 0; raise Failed."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Failed(f"port {port}: {error.strerror}; choose another with --port") from None
        found: int = probe.getsockname()[1]
        return found


async def wait_until_ready(server: Server) -> None:
    """Return when /readyz says so; raise Failed if the server ends, or after a minute."""
    try:
        async with asyncio.timeout(READY_S), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                server.check()
                with suppress(httpx2.TransportError):
                    if (await client.get(f"{server.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise Failed(f"the server was not ready after {READY_S:g} s") from None


async def lesson(options: argparse.Namespace, server: Server, tally: Tally, data: Path) -> float:
    """Let the students type until a signal comes or the time is up; return for how many seconds they did."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in SIGNALS:
        loop.add_signal_handler(name, stop.set)
    await _unless(stop, wait_until_ready(server))
    if stop.is_set():
        return 0.0
    if not options.json:
        print(f"Treering is ready: {server.url}/")
        print(f"{options.students} students are typing; Ctrl-C ends the lesson.  Meanwhile:")
        print(check_commands(data), flush=True)
    if options.seconds is not None:
        loop.call_later(options.seconds, stop.set)
    begun = time.monotonic()
    with progress("events acknowledged", None) as advance:
        students = Classroom(server.url, tally, advance, seed=options.seed)
        typing = asyncio.create_task(students.run(options.students, lambda: time.time_ns() // 1_000_000))
        typing.add_done_callback(lambda _: stop.set())
        await _unless(stop, _watch(server, tally))
        students.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS_S):
                await typing
    return time.monotonic() - begun


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do some work, but no longer than until `stop` is set."""
    tasks = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await tasks[0]


async def _watch(server: Server, tally: Tally) -> None:
    """Return when the server has ended, though nobody told it to."""
    try:
        while True:
            server.check()
            await asyncio.sleep(LOOK_S)
    except Failed as error:
        tally.failures.append(str(error))


def check_commands(data: Path) -> str:
    """Return what one types to check the log and the states."""
    folder = shlex.quote(str(data))
    return f"  verify-log {folder}\n  treering replay --data {folder} --check"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="treering demo",
        epilog=exit_codes("every event was acknowledged", "not so", "usage"),
        description="Run a server with a simulated classroom that types into it.",
    )
    made.add_argument(
        "--port", type=_number(0, 65_535), default=8401, help="0 for any free one (%(default)s)"
    )
    made.add_argument("--students", type=_number(1, STUDENTS_MAX), default=12, help="how many (%(default)s)")
    made.add_argument("--seconds", type=float, help="how long they type (default: until Ctrl-C)")
    made.add_argument(
        "--data", type=Path, help="the data folder (default: a temporary one, removed at the end)"
    )
    made.add_argument("--seed", type=int, default=1, help="another number is another class (%(default)s)")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def _number(smallest: int, largest: int) -> Callable[[str], int]:
    def number_(text: str) -> int:
        if not text.isdecimal() or not smallest <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number from {smallest} to {largest}")
        return int(text)

    return number_


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if every event was acknowledged, 1 if not."""
    options = parser().parse_args(argv)
    tally = Tally()
    with ExitStack() as stack:
        data = options.data or Path(stack.enter_context(_temporary()))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        try:
            port = free_port(options.port)
            with running(command(data, port), port) as server:
                seconds = runner.run(lesson(options, server, tally, data))
        except Failed as error:
            return fail(str(error))
    _report(tally, seconds, options)
    return EXIT_GOOD if not tally.failures and tally.acknowledged == tally.events else EXIT_FINDING


def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="treering-demo-", ignore_cleanup_errors=True)


def _report(tally: Tally, seconds: float, options: argparse.Namespace) -> None:
    if options.json:
        print_json(tally.result(seconds))
        return
    for trouble in (*tally.reasons, *tally.failures):
        fail(trouble)
    counts = f"{number(tally.acknowledged)} of {number(tally.events)} events acknowledged"
    lost = f"the connection was lost {number(tally.reconnects)} times"
    print(f"{counts}, {lost}; {duration(seconds)}, {rate(tally.acknowledged, seconds)}")
    if options.data is None:
        print("The data was temporary and is gone; keep it with --data DIR.")
    else:
        print(f"Check what was kept:\n{check_commands(options.data)}")


if __name__ == "__main__":
    sys.exit(main())
