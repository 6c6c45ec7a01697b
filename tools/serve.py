"""treering serve: one archiver, some workers, one front; what dies is started again.

    $ treering serve --data data --port 8400
    Treering is ready: http://127.0.0.1:8400/

The supervisor does nothing but start, watch and stop: whatever can fail runs in a process of its own.  A
child that dies is started again at once, then after longer and longer pauses; one that ends with exit code
3 has found something that a person must look at, and stays down, while the others go on.

SIGTERM or Ctrl-C drains in the order in which events flow: the front, then the archiver, then the workers.

One folder has one supervisor, which holds a lock of its own; no child inherits it.  So when a supervisor is killed, the
next one starts at once, and its children wait for the locks of those that are still ending.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from api import SHARDS_FILE
from archive import ArchiveError, DataFolder, take_lock, write_whole
from merkle import MerkleError
from reducers import available
from tools.process import EXIT_AGAIN, EXIT_FINDING, EXIT_GOOD, EXIT_STOP, EXIT_USAGE, say
from tools.settings import Settings, SettingsError, load
from tools.witnessing import load_policy

BACKLOG = 1_024
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 5.0
HEALTHY_S = 10.0
DRAIN_S = 20.0
LOCK_FILE = "serve.lock"


class Child:
    """One process that is kept running: `ready` is set while it says that it is."""

    def __init__(self, name: str, command: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        self.name, self._command, self._descriptors = name, command, descriptors
        self.ready = asyncio.Event()
        self.stopped_for_good = False
        self._stopping = False
        self._process: Process | None = None

    async def keep_running(self) -> None:
        """Start the process, and again whenever it ends, until `stop`."""
        loop, pause_s = asyncio.get_running_loop(), PAUSE_S_MIN
        while not self._stopping:
            started = loop.time()
            try:
                code = await self._run_once()
            except OSError as error:  # no process, no memory, no descriptor left: perhaps in a moment
                say(f"treering: {self.name} could not be started: {error}; trying again")
                code = EXIT_AGAIN
            self.ready.clear()
            if self._stopping:
                return
            if code == EXIT_STOP:
                self.stopped_for_good = True
                say(f"treering: {self.name} is down until a person looks; the others go on")
                return
            pause_s = PAUSE_S_MIN if loop.time() - started > HEALTHY_S else min(2 * pause_s, PAUSE_S_MAX)
            if code != EXIT_AGAIN:
                say(f"treering: {self.name} ended ({_how(code)}); starting it again")
            await asyncio.sleep(pause_s)

    async def _run_once(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=self._descriptors,
            start_new_session=True,  # Ctrl-C is for the supervisor, which drains in order
        )
        self._process = process
        if self._stopping:  # `stop` came while there was no process yet
            _terminate(process)
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip() == b"ready":
                self.ready.set()
        return await process.wait()

    async def stop(self) -> None:
        """Let the process drain, then end; one that does not is killed."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        _terminate(process)
        try:
            await asyncio.wait_for(process.wait(), DRAIN_S)
        except TimeoutError:
            say(f"treering: {self.name} did not drain in {DRAIN_S:.0f} s and is killed")
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def children(settings: Settings, listener: int) -> list[Child]:
    """Return the processes of a server, in the order in which they drain."""
    # -P: a folder named `tools` or `api` where the server is started must not shadow ours.
    python = [sys.executable, "-P", "-m"]
    data = ["--data", str(settings.data)]
    shards = ["--shards", str(settings.shards)]
    names = [part for name in settings.host_names for part in ("--host-name", name)]
    names += [part for name in settings.page_hosts for part in ("--page-host", name)]
    archiver = [*python, "tools.archiver", *data, "--configuration", settings.digest()]
    archiver += ["--origin", settings.origin] if settings.origin else []
    archiver += ["--seal", str(settings.seal)] if settings.seal else []
    witnessing: list[Child] = []
    if settings.policy is not None:
        names += ["--witnessed", *(["--policy-wait"] if settings.policy_wait else [])]
        command = [*python, "tools.witnessing", *data, "--policy", str(settings.policy)]
        witnessing = [Child("witnessing", command)]
    modules = [part for name in settings.modules or available() for part in ("--module", name)]
    front = Child(
        "front", [*python, "tools.front", *data, *shards, "--fd", str(listener), *modules, *names], [listener]
    )
    workers = [
        Child(f"worker {shard}", [*python, "tools.worker", *data, *shards, *modules, "--shard", str(shard)])
        for shard in range(settings.shards)
    ]
    return [front, Child("archiver", archiver), *workers, *witnessing]


async def supervise(settings: Settings, listener: socket.socket) -> int:
    """Run a server until SIGTERM or Ctrl-C; return its exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    kept = children(settings, listener.fileno())
    tasks = [asyncio.create_task(child.keep_running()) for child in kept]
    announcing = asyncio.create_task(_announce(kept, listener))
    ended = asyncio.create_task(_all_down(tasks))
    await asyncio.wait((asyncio.create_task(stopping.wait()), ended), return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    for child in kept:
        await child.stop()
    await asyncio.gather(*tasks)
    return EXIT_FINDING if any(child.stopped_for_good for child in kept) else EXIT_GOOD


async def _all_down(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def _announce(kept: Sequence[Child], listener: socket.socket) -> None:
    for child in kept:
        await child.ready.wait()
    host, port = listener.getsockname()[:2]
    print(f"Treering is ready: http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket; raise SettingsError if the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port {settings.port}: {error.strerror}; is Treering running already? Choose another with --port"
        ) from None
    listener.listen(BACKLOG)
    return listener


def prepare(settings: Settings) -> tuple[int, socket.socket]:
    """Return the lock of the data folder and a listening socket; only then is anything of a server's written.

    Raises Locked if a server runs on the folder, SettingsError if the folder or the port cannot be used, OSError.
    """
    folder = DataFolder(settings.data)
    try:
        folder.create()
    except (FileExistsError, NotADirectoryError) as error:
        raise SettingsError(
            f"{error.filename}: a file is where a folder must be; choose another --data"
        ) from None
    with ExitStack() as undo:
        lock = take_lock(folder.run / LOCK_FILE, f"server runs on {settings.data}")
        undo.callback(os.close, lock)
        listener = undo.enter_context(listen(settings))
        write_whole(folder.state / SHARDS_FILE, f"{settings.shards}\n".encode())
        undo.pop_all()
    return lock, listener


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering serve`."""
    made = argparse.ArgumentParser(prog="treering serve", description="Run a server on one machine.")
    made.add_argument("--data", help="the data folder; what is missing in it is made (default: ./data)")
    made.add_argument("--host", help="address to listen on, loopback only (default: 127.0.0.1)")
    made.add_argument("--port", help="port to listen on, 0 for any (default: 8400)")
    made.add_argument("--shards", help="reducer processes; may change at any start (default: 2)")
    made.add_argument(
        "--origin", help="name of a new log, such as example.org/class-7 (default: a random one)"
    )
    made.add_argument("--seal", help="where the seal lies, best on another disk (default: beside the log)")
    made.add_argument(
        "--policy", help="a file that says which witnesses must cosign what the outside sees (default: none)"
    )
    made.add_argument(
        "--policy-wait",
        action="store_true",
        default=None,
        help="acknowledge events only when enough witnesses have cosigned (default: do not wait)",
    )
    made.add_argument("--config", type=Path, help="a TOML file with these settings")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering serve`."""
    flags = vars(parser().parse_args(argv))
    config = flags.pop("config")
    if not __debug__:
        say("treering: refuses to run under -O: its assertions are part of its safety")
        return EXIT_USAGE
    try:
        settings = load(flags, os.environ, config)
        if settings.policy is not None:
            load_policy(settings.policy)
        lock, listener = prepare(settings)
    except (ArchiveError, MerkleError, OSError) as error:  # OSError: no space, no right
        say(f"treering serve: {error}")
        return EXIT_USAGE
    try:
        return asyncio.run(supervise(settings, listener))
    finally:
        listener.close()
        os.close(lock)
