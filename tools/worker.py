"""A reducer worker as a process: one shard, tailing the log.

    python -m tools.worker --data DIR --shard 0 --shards 2

It sleeps until the archiver wakes it (or a second passes: wake-ups may be lost), reads to the end of the
published log, and writes its states behind: at most every 20 ms when the log trickles, every half second
when it is far behind.  Told to stop, it folds the little that is left, or saves where it stands: the position is part
of the states, and the next start goes on from there.

Exit codes: 0 drained, 3 must not be started again by a machine, 4 try again shortly.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from api import state_folder
from archive import (
    ArchiveError,
    DataFolder,
    LmdbStore,
    LogSource,
    NotFound,
    PublishedSize,
    Subscribe,
    Unavailable,
    encode_frame,
    make_folder,
    take_lock,
)
from reducers import shipped
from replay import STATE_TABLES, Runner, States
from tools.process import EXIT_AGAIN, EXIT_GOOD, EXIT_STOP, exit_of, parent_is_watched, quiet_collector, say

SAVE_EVERY_S = 0.02
SAVE_BEHIND_EVERY_S = 0.5
POLL_S = 1.0
RECONNECT_S = 0.2
START_WAIT_S = 30.0
START_POLL_S = 0.02
CATCH_UP_S = 2.0
"""How long a worker that must stop goes on folding; the supervisor kills it after `tools.serve.DRAIN_S`."""


class Wakeups:
    """Waits until the log has grown, or until a time is over; also notices SIGTERM and the parent's end."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        # A signal during `select` must end it: Python would restart it with the time that is left.
        self._signal_read, self._signal_write = os.pipe()
        os.set_blocking(self._signal_write, False)
        signal.set_wakeup_fd(self._signal_write, warn_on_full_buffer=False)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopped = True

    def wait(self, seconds: float) -> None:
        """Return when woken, stopped, or after `seconds`."""
        self._connect()
        watched: list[int | socket.socket] = [self._signal_read]
        if self._socket is not None:
            watched.append(self._socket)
        else:
            seconds = min(seconds, RECONNECT_S)
        if parent_is_watched():
            watched.append(0)
        ready, _, _ = select.select(watched, [], [], max(seconds, 0))
        if 0 in ready and not os.read(0, 4096):
            self.stopped = True
        if self._socket is not None and self._socket in ready:
            self._drain(self._socket)

    def _connect(self) -> None:
        if self._socket is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RECONNECT_S
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
            connection.sendall(encode_frame(Subscribe()))
        except OSError:
            connection.close()
            return
        connection.setblocking(False)
        self._socket = connection

    def _drain(self, connection: socket.socket) -> None:
        """Wake-ups say only "look"; what they hold does not matter."""
        try:
            while data := connection.recv(65_536):
                if len(data) < 65_536:
                    return
        except BlockingIOError:
            return
        except OSError:
            pass
        connection.close()
        self._socket = None


def tail(runner: Runner, source: LogSource, wakeups: Wakeups) -> None:
    """Fold the log as it grows, until stopped; the last save is made on the way out.

    States that find no space on the disk stay in memory, and are saved as soon as there is some.
    """
    saved_at, full = 0.0, False
    while not wakeups.stopped:
        behind = runner.step(source) > 0
        now = time.monotonic()
        every = POLL_S if full else SAVE_BEHIND_EVERY_S if behind else SAVE_EVERY_S
        if runner.unsaved and now - saved_at >= every:
            full = not _saved(runner, source, say_so=not full)
            saved_at = now
        if behind:
            wakeups.wait(
                0
            )  # only looks: a worker with much to do must notice, too, that the supervisor is gone
        else:
            wakeups.wait(saved_at + (POLL_S if full else SAVE_EVERY_S) - now if runner.unsaved else POLL_S)
    give_up_at = time.monotonic() + CATCH_UP_S
    while runner.step(source) > 0 and time.monotonic() < give_up_at:
        pass
    runner.save(source)


def _saved(runner: Runner, source: LogSource, *, say_so: bool) -> bool:
    try:
        runner.save(source)
    except Unavailable as error:
        if say_so:
            say(f"worker: states are kept in memory until they can be saved: {error}")
        return False
    return True


def open_source(folder: DataFolder, wakeups: Wakeups) -> LogSource | None:
    """Return the log to read, waiting for the archiver to make it, or None once stopped.

    Raises NotFound if the archiver does not make it.
    """
    deadline = time.monotonic() + START_WAIT_S
    while not wakeups.stopped:
        try:
            published = PublishedSize(folder.published)
            return LogSource(folder.open_log(), published.get)
        except NotFound:
            if time.monotonic() > deadline:
                raise
            wakeups.wait(START_POLL_S)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker of one shard."""
    parser = argparse.ArgumentParser(prog="tools.worker", description="Reduce one shard of a log.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--shards", type=int, required=True)
    arguments = parser.parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    wakeups = Wakeups(folder.socket)
    try:
        source = open_source(folder, wakeups)
        if source is None:
            return EXIT_GOOD
        vault = folder.open_vault(os.urandom)
        place = Path(state_folder(folder, arguments.shard, arguments.shards))
        make_folder(place)
        # Two workers on one store would each save a position that the other's states do not stand at.
        take_lock(place / "lock", "worker keeps these states")
        states = LmdbStore(place, STATE_TABLES)
        runner = Runner(
            shipped(), vault, shard=arguments.shard, shards=arguments.shards, states=States(states)
        )
        runner.resume(source)
        quiet_collector()
        print("ready", flush=True)
        tail(runner, source, wakeups)
    except (Unavailable, NotFound) as error:
        say(f"worker {arguments.shard}: {error}")
        return EXIT_AGAIN
    except ArchiveError as error:
        say(f"worker {arguments.shard} stopped: {error}")
        return EXIT_STOP
    except OSError as error:
        say(f"worker {arguments.shard}: {error}")
        return exit_of(error)
    return EXIT_GOOD


if __name__ == "__main__":
    sys.exit(main())
