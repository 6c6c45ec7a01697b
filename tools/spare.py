"""A spare worker: everything that is the same for all workers is done, then it waits to be told which one it is.

    python -P -m tools.worker --spare        "standing by", then a line of orders on standard input

    interpreter, imports     as in any worker
    what is installed        looked up; built-in modules are loaded: they come with the server, in every shared worker
    (wait)                   for a line with the arguments of a worker; where standard input ends, nobody needs it
    the worker               from here on it is the process that was started with these arguments

So it is no other program than a worker, only one that stands still between its imports and its arguments.  Before it
has them it has opened no log, no vault and no states, and imported nobody else's module; what a worker gives up before
it runs any (`tools.confine`), it gives up at the same place.

A spare may wait for weeks, and what is installed meanwhile must count.  So it notices when a folder of the search path
has changed since it started, and begins anew: the same process, from nothing, with the same arguments.

Who keeps spares: `tools.standby`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from reducers import BUILTIN, Module, ModuleRef, available, load
from replay import SPARE_NAME
from tools.process import name_process, quiet_collector
from tools.reporting import Reporter

SPARE = "--spare"
_PIECE = 65_536

Folders = list[tuple[str, int, int]]


class Warm(NamedTuple):
    """What a worker need not do any more when it has its arguments."""

    loaded: Mapping[str, Module]
    """Built-in modules, by name."""
    refs: Mapping[str, ModuleRef] | None
    """What is installed; None: to be looked up."""


COLD = Warm({}, None)
"""A worker that was started with its arguments."""


class Orders(NamedTuple):
    """Which worker a spare is from now on."""

    arguments: Sequence[str]
    warm: Warm


def stand_by(reporter: Reporter, descriptor: int = 0) -> Orders | None:
    """Do what all workers do, wait, and return which one this is to be; None: nobody needs it any more."""
    name_process(SPARE_NAME)
    before, refs = search_path(), available()
    loaded = {name: load(refs[name]) for name in BUILTIN if not refs[name].fault}
    quiet_collector()
    reporter.standing_by()
    if (arguments := read_orders(descriptor)) is None:
        return None
    reporter.taken()
    if search_path() != before:
        begin_anew(arguments, reporter)
    importlib.invalidate_caches()
    return Orders(arguments, Warm(loaded, refs))


def read_orders(descriptor: int) -> list[str] | None:
    """Return the arguments in a line of JSON; None if the pipe ends before, or holds anything else."""
    data = b""
    while not data.endswith(b"\n"):
        if not (part := os.read(descriptor, _PIECE)):
            return None
        data += part
    try:
        return msgspec.json.decode(data, type=list[str])
    except msgspec.DecodeError:
        return None


def search_path() -> Folders:
    """Return each folder that packages are looked for in, with what changes when one is installed there."""
    found = []
    for entry in sys.path:
        try:
            status = Path(entry).stat()
        except OSError:
            continue
        found.append((entry, status.st_ino, status.st_mtime_ns))
    return found


def begin_anew(arguments: Sequence[str], reporter: Reporter) -> None:
    """Become a worker that was started just now: same process, same pipes, nothing else of before."""
    reporter.give_back_stdout()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "tools.worker", *arguments])  # noqa: S606 - our own program
