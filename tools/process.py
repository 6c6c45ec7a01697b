"""What all services share: exit codes, a place to say things, room for files, and noticing that the parent died.

A service that outlives its supervisor would hold the log's lock against the next one.  So a supervisor
keeps the writing end of each child's standard input, and a child that reads its end drains and ends itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

PYTHON = (sys.executable, "-P", "-m")
"""-P: a folder named `tools` or `api` where a server is started must not shadow ours."""
EXIT_GOOD, EXIT_FINDING, EXIT_USAGE = 0, 1, 2
EXIT_STOP = 3
"""A service found what no restart can mend: a person must look."""
EXIT_AGAIN = 4
"""A service could not run just now: start it again."""


FILES_MAX = 65_536
_PR_SET_NAME, _NAME_BYTES = 15, 15


def exit_of(error: OSError) -> int:
    """Return the exit code of a service that the system refused something: a disk that fails is not tried again.

    >>> exit_of(OSError(errno.ENOSPC, "full")), exit_of(OSError(errno.EIO, "broken"))
    (4, 3)
    """
    return EXIT_STOP if error.errno == errno.EIO else EXIT_AGAIN


def say(message: str) -> None:
    """Tell the operator something, on standard error, as one line, whatever others have put into it."""
    stamp = time.strftime(_stamps[-1]) if _stamps else ""
    print(stamp + one_line(message), file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    r"""Return text so that a terminal only shows it: what would break the line, move, hide or colour is an escape.

    Else the error of a module, or the name of a student, could forge lines of ours.

    >>> one_line("student:zoë\x1b[2J\u202e\n2026-01-01 all is well")
    'student:zoë\\x1b[2J\\u202e\\n2026-01-01 all is well'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@contextmanager
def with_times() -> Iterator[None]:
    """Let what is said meanwhile begin with the time of day: it is a service's, and read later than it is said.

    The journal of systemd notes the time by itself; it says in JOURNAL_STREAM that it listens.
    """
    _stamps.append("" if "JOURNAL_STREAM" in os.environ else "%Y-%m-%d %H:%M:%S ")
    try:
        yield
    finally:
        _stamps.pop()


_stamps: list[str] = []
"""How the time stands before what is said, by whoever runs."""
TURN_S = 0.0005


def quiet_collector() -> None:
    """Let the garbage collector look seldom, and never at what was made at the start.

    What a service makes for an event has no cycles and goes away by itself; what it keeps grows, and each full
    collection would visit all of it.  Measured: a fifth of a replay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def clocks(text: str) -> tuple[int, int]:
    """Return what is said of two clocks in an argument, microseconds by the wall and since the machine started.

    >>> clocks("1700000000000000:5000000")
    (1700000000000000, 5000000)
    """
    wall, _, tick = text.partition(":")
    return int(wall), int(tick)


def quick_turns() -> None:
    """Let no thread hold the interpreter for long while another one wants it.

    By default a thread that comes back from the disk waits up to 5 ms for one that computes: as long as a whole commit.
    """
    sys.setswitchinterval(TURN_S)


def raise_files() -> int:
    """Let this process have as many files open as the system allows, up to 65,536; return how many that are.

    Usual are 1,024, of which each connection takes one; the rest is there for the asking (`ulimit -Hn`).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return FILES_MAX if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def name_process(name: str) -> None:
    """Let `top`, `pstree` and `ps -o comm` call this process so; of the name, 15 bytes are kept (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:_NAME_BYTES]), 0, 0, 0)


def version() -> str:
    """Return the version of this installation."""
    return metadata.version("treering")


def parent_is_watched() -> bool:
    """Return whether standard input is a pipe that a supervisor holds."""
    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:
        return False


def watch_parent(stop: Callable[[], None]) -> None:
    """Call `stop` when the supervisor is gone; for services on an event loop."""
    if not parent_is_watched():
        return
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop()

    loop.add_reader(0, ended)
