"""treering serve: one archiver, some workers, one front; what dies is started again.

    $ treering serve --data data --port 8400
    Treering is ready: http://127.0.0.1:8400/

The supervisor does nothing but start, watch and stop: whatever can fail runs in a process of its own.  A
child that dies is started again at once, then after longer and longer pauses; one that ends with exit code
3 has found something that a person must look at, and stays down, while the others go on.  Which module runs in which
worker, and what becomes of one that does harm, is the business of `tools.placing`.

SIGTERM or Ctrl-C drains: first the front, then the workers, whose modules have things to say, last the archiver.

One folder has one supervisor, which holds a lock of its own; no child inherits it.  So when a supervisor is killed, the
next one starts at once, and its children wait for the locks of those that are still ending.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from archive import NO_SPACE, ArchiveError, DataFolder, FormatError, both_us, take_lock, write_whole
from merkle import MerkleError
from reducers import available
from replay import SHARDS_FILE, Workers, forget_workers, write_workers
from tools.children import Child
from tools.console import exit_codes
from tools.outside import keep_policy
from tools.placed import WORKER, Worker
from tools.placing import LOOK_EVERY_S, Placing
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, PYTHON, say, with_times
from tools.reporting import parse_report
from tools.settings import Settings, SettingsError, load
from tools.spare import SPARE
from tools.standby import Standby
from tools.stores import announce, forget_gone, place_states
from tools.witnessing import load_policy

BACKLOG = 1_024
LOCK_FILE = "serve.lock"


def children(settings: Settings, listener: int, modules: Sequence[str]) -> list[Child]:
    """Return the processes of a server beside its workers, in the order in which they drain."""
    python = PYTHON
    data = ["--data", str(settings.data)]
    # Whoever is started again believes the clock as far as it was right when all began.
    clock = ["--clock", ":".join(map(str, both_us()))]
    shards = ["--shards", str(settings.shards)]
    names = [part for name in settings.host_names for part in ("--host-name", name)]
    names += [part for name in settings.page_hosts for part in ("--page-host", name)]
    archiver = [*python, "tools.archiver", *data, *clock, "--configuration", settings.digest()]
    archiver += ["--origin", settings.origin] if settings.origin else []
    archiver += ["--seal", str(settings.seal)] if settings.seal else []
    witnessing: list[Child] = []
    if settings.policy is not None:
        policy = ["--policy", str(DataFolder(settings.data).policy)]  # the copy: nobody reads a later one
        names += [*policy, *(["--policy-wait"] if settings.policy_wait else [])]
        command = [*python, "tools.witnessing", *data, *policy]
        witnessing = [Child("witnessing", command)]
    names += [part for name in modules for part in ("--module", name)]
    front = Child(
        "front", [*python, "tools.front", *data, *shards, *clock, "--fd", str(listener), *names], [listener]
    )
    return [front, Child("archiver", archiver), *witnessing]


class Warden(Child):
    """A child that ends when it is not needed any more, and is started when it is."""

    def ended(self, code: int) -> bool:
        """Never start it again by itself."""
        del code
        return False


class Household:
    """All processes of a server, while it runs."""

    def __init__(self, settings: Settings, listener: socket.socket, names: Sequence[str]) -> None:
        folder = DataFolder(settings.data)
        self.children = children(settings, listener.fileno(), names)
        self._placing = Placing(settings, names, folder)
        self._shared = self._placing.shared()
        spare = [*WORKER, SPARE, "--data", str(folder.path)]
        self._placing.standby = self._standby = Standby(spare, settings.spare_workers)
        self._warden = Warden("warden", [*PYTHON, "tools.warden", "--data", str(folder.path)])
        self._warden.heard = self._heard
        self._tasks: dict[asyncio.Task[None], Child] = {}
        self._run, self._written = folder.run, Workers()
        self._unwritten = ""
        """Why the status is not written; empty where it is."""

    def start(self) -> None:
        """Start everything that runs from the beginning."""
        for child in (*self.children, *(one for one in self._shared if self._placing.members(one))):
            self._keep(child)

    async def all_down(self) -> None:
        """Return when nothing of the beginning runs any more."""
        first = [task for task, child in self._tasks.items() if child in self.children]
        await asyncio.gather(*first)

    async def announce(self, listener: socket.socket) -> None:
        """Say where the server is, once all of the beginning is ready, then have spare workers stand by.

        A module in trouble keeps nobody waiting.
        """
        for task, child in list(self._tasks.items()):
            if not isinstance(child, Worker) or child in self._shared:
                ready = asyncio.create_task(child.ready.wait())
                await asyncio.wait((ready, task), return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
        print(f"Treering is ready: {address_of(listener)}/", flush=True)
        await self._standby.keep()  # only now: what is needed at once comes first

    async def look(self) -> None:
        """Look after the modules, for ever."""
        while True:
            self.look_once()
            for worker in self._placing.starting():
                self._keep(worker)
            if self._placing.troubled() and self._warden not in self._tasks.values():
                self._keep(self._warden)
            await asyncio.sleep(LOOK_EVERY_S)

    def look_once(self) -> None:
        """Look after the modules, and write down how things are: nobody depends on that, so it may fail.

        Why it does is said when it begins or changes, and that it is over: a disk is full for hours.
        """
        why = _refused(self._placing.look) or _refused(self._write_workers)
        if why != self._unwritten:
            say(f"treering: the status is {f'not written: {why}' if why else 'written again'}")
        self._unwritten = why

    async def stop(self) -> int:
        """Let everything drain, and return the exit code of the server.

        First who brings events; then the workers, whose modules have things to say; last the archiver, who keeps it.
        """
        self._placing.stopping = True
        await self._standby.stop()
        front, *keepers = self.children
        await front.stop()
        await asyncio.gather(*(child.stop() for child in set(self._tasks.values()) - set(self.children)))
        for child in keepers:
            await child.stop()
        await asyncio.gather(*self._tasks)
        with suppress(OSError):
            self._placing.write()
            forget_workers(self._run)
        down = any(child.stopped_for_good for child in (*self.children, *self._shared))
        return EXIT_FINDING if down else EXIT_GOOD

    def _write_workers(self) -> None:
        now = Workers(self._placing.pids(), self._standby.pids, self._standby.count)
        if now != self._written:
            write_workers(self._run, now)
            self._written = now

    def _keep(self, child: Child) -> None:
        task = asyncio.create_task(child.keep_running())
        self._tasks[task] = child
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        child = self._tasks[task]
        if isinstance(child, Worker):
            self._placing.over(child)
        if child not in self.children and child not in self._shared:
            del self._tasks[task]

    def _heard(self, line: bytes) -> None:
        with suppress(FormatError):
            self._placing.asked(parse_report(line))


def _refused(write: Callable[[], None]) -> str:
    """Write something; return why the system refused it, or nothing: not in which file, so that one cause is one."""
    try:
        write()
    except OSError as error:
        if error.errno in NO_SPACE:
            return "no space left; make room, nothing has to be restarted"
        return error.strerror or str(error)
    return ""


async def supervise(settings: Settings, listener: socket.socket, names: Sequence[str] = ()) -> int:
    """Run a server until SIGTERM or Ctrl-C; return its exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    household = Household(settings, listener, names or module_names(settings))
    household.start()
    helpers = [
        asyncio.create_task(household.announce(listener)),
        asyncio.create_task(household.look()),
    ]
    ended = asyncio.create_task(household.all_down())
    await asyncio.wait((asyncio.create_task(stopping.wait()), ended), return_when=asyncio.FIRST_COMPLETED)
    helpers[0].cancel()
    try:
        return await household.stop()
    finally:
        helpers[1].cancel()


def module_names(settings: Settings) -> list[str]:
    """Return the modules to run, those that come with the server first; raise SettingsError for unknown tables."""
    installed = available()
    if unknown := [name for name, _ in settings.module if name not in installed]:
        raise SettingsError(
            f"[module.{unknown[0]}]: there is no such module; installed are {', '.join(sorted(installed))}"
        )
    return list(settings.modules or installed)


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


def address_of(listener: socket.socket) -> str:
    """Return where a server answers that listens here, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def prepare(settings: Settings) -> tuple[int, socket.socket]:
    """Return the lock of the data folder and a listening socket; only then is anything of a server's written.

    Raises Locked if a server runs on the folder, SettingsError if the folder or the port cannot be used, OSError.
    """
    folder = DataFolder(settings.data)
    forget_gone(folder)
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
        write_whole(folder.address, f"{address_of(listener)}\n".encode())
        keep_policy(folder, settings.policy)
        place_states(folder, settings.state_store)
        write_whole(folder.state / SHARDS_FILE, f"{settings.shards}\n".encode())
        undo.pop_all()
    return lock, listener


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering serve`."""
    made = argparse.ArgumentParser(
        prog="treering serve",
        epilog=exit_codes(
            "it was stopped, and drained", "a part of it was down until a person looks", "it could not start"
        ),
        description="Run a server on one machine.",
    )
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
    made.add_argument(
        "--state-store",
        help="where states are kept: lmdb, memory, redis, auto (default: auto, which is redis if redis_url is set and "
        "answers, else lmdb)",
    )
    made.add_argument(
        "--config",
        type=Path,
        help="a TOML file with these settings, and those that have no flag (docs/settings.md)",
    )
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
        module_names(settings)
        lock, listener = prepare(settings)
    except (ArchiveError, MerkleError, OSError) as error:  # OSError: no space, no right
        say(f"treering serve: {error}")
        return EXIT_USAGE
    announce(settings, os.environ)
    try:
        with with_times():
            return asyncio.run(supervise(settings, listener))
    finally:
        listener.close()
        os.close(lock)
