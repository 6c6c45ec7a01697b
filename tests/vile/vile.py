"""A module that does everything that a module should not, when an event tells it to.

It is installed beside a server by its folder standing on PYTHONPATH (the `.dist-info` names the entry point).  An
event of type "vile.<deed>" makes the reducer `evil` do the deed; of other events, and of deeds that do not end its
process, it keeps a count.  The deeds are called by a table and through C, where neither the reading of sources nor the
guard sees them: what is left is what processes keep apart.

    crash        a segmentation fault            leak     ten million bytes a time, for ever
    leave        ends the process, code 3        hoard    more than there is, at once
    spin         an endless loop                 deep     a recursion without end
    exit         raises SystemExit               odd      a state that has no encoding
    kill         kills its parent                shut     closes every file of the process
    print        writes what looks like reports  steal    reads the keys, if it can
    mutate       changes the event that it was given
    fork         leaves a process behind that nobody knows
    stretch      makes every file of the process larger, then shorter
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from reducers import Event, reducer

LIBC = ctypes.CDLL(None)
HOARD: list[bytes] = []


def crash(event: Event) -> Any:
    """Read where nothing is."""
    return ctypes.string_at(len(event.type) - len(event.type))


def leave(event: Event) -> Any:
    """End the process as one that found what a person must look at."""
    return LIBC._exit(3 + 0 * event.index)


def spin(event: Event) -> Any:
    """Never come back."""
    while event.index >= 0:
        pass


def doze(event: Event) -> Any:
    """Take 0.4 s."""
    LIBC.usleep(400_000 + 0 * event.index)


def nap(event: Event) -> Any:
    """Take 2 s."""
    LIBC.usleep(2_000_000 + 0 * event.index)


def hoard(event: Event) -> Any:
    """Ask for more than a server has."""
    HOARD.append(bytes(1 << 46 | event.index))


def deep(event: Event) -> Any:
    """Call itself."""
    return deep(event)


def leave_by_exit(event: Event) -> Any:
    """Raise what ends a process, where nobody catches it."""
    raise SystemExit(event.index)


def odd(event: Event) -> Any:
    """Return what has no encoding."""
    return object() if event.index >= 0 else None


def kill(event: Event) -> Any:
    """Kill its parent."""
    LIBC.kill(LIBC.getppid(), 9 + 0 * event.index)


def shut(event: Event) -> Any:
    """Close every file from 3 on."""
    for descriptor in range(3, 4096 + 0 * event.index):
        LIBC.close(descriptor)


def shout(event: Event) -> Any:
    """Write to standard output what its neighbours could have said."""
    del event
    lie = b'{"failed":{"activity":"it is said"}}\nready\n'
    LIBC.write(1, lie, len(lie))
    sys.stdout.write(lie.decode())
    sys.stdout.flush()


def steal(event: Event) -> Any:
    """Return what it reads of the file that the event names: "" where it may not."""
    buffer = ctypes.create_string_buffer(64)
    descriptor = LIBC.open(str(event.data["path"]).encode(), 0)
    size = LIBC.read(descriptor, buffer, 64) if descriptor >= 0 else 0
    return buffer.raw[: max(size, 0)].hex()


def mutate(event: Event) -> Any:
    """Change what others are given, too, unless this is a copy."""
    event.data["n"] = "vile"
    event.keys["student"] = "vile"


def fork(event: Event) -> Any:
    """Start a process with a session of its own; return whether there is none."""
    child = LIBC.fork()
    if child == 0:
        LIBC.setsid()
        LIBC.sleep(30 + 0 * event.index)
        LIBC._exit(0)
    return child == -1


def stretch(event: Event) -> Any:
    """Set the size of every file that is open; return for how many that worked."""
    sizes = (ctypes.c_long(1 << 30 | event.index), ctypes.c_long(0))
    return sum(LIBC.ftruncate(descriptor, size) == 0 for descriptor in range(3, 64) for size in sizes)


DEEDS: dict[str, Callable[[Event], Any]] = {
    "vile.crash": crash,
    "vile.leave": leave,
    "vile.spin": spin,
    "vile.doze": doze,
    "vile.nap": nap,
    "vile.hoard": hoard,
    "vile.deep": deep,
    "vile.exit": leave_by_exit,
    "vile.odd": odd,
    "vile.kill": kill,
    "vile.shut": shut,
    "vile.print": shout,
    "vile.steal": steal,
    "vile.mutate": mutate,
    "vile.fork": fork,
    "vile.stretch": stretch,
}


@reducer(scope=("student",), version=1)
def evil(state: dict[str, Any], event: Event) -> dict[str, Any]:
    """Do what the event says; keep how many there were, and what came of the last one."""
    deed = DEEDS.get(event.type)
    found = None if deed is None else deed(event)
    return {"events": state.get("events", 0) + 1, "found": found}


@reducer(scope=("student",), version=1)
def stubborn(state: int, event: Event) -> int:
    """Raise at every event."""
    raise ValueError(f"event {event.index} is too many, after {state}")


REDUCERS = [evil, stubborn]
