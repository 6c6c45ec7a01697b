"""A state as it was: one key, folded up to some size of the log.

    $ printf '["ann"]' | python -m tools.past --data DIR --reducer event_count --size 1000
    {"reducer":"event_count","key":{"student":"ann"},"state":{"events":3},"position":1000,…}

The front asks here in a process of its own, because folding runs a module's code, which must never be able to stop
the front.  A built-in module is imported here; every other one runs in a cell (`tools.cell_link`), whatever its level
is in the server: anybody can ask, and this process holds the keys.  Only what concerns the key is opened
(`replay.replay_key` does the same without a cell): the time it takes is that of reading past the rest.  The key comes
on standard input, so that no list of processes shows a name; the answer goes to what was standard output, and
whatever else is printed goes where errors go.

Exit codes: 0 answered, 5 there is no such state, anything else: it could not be told (the reason is on standard error).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from archive import ArchiveError, DataFolder, FormatError, InvalidEvent, NotFound, Unavailable
from reducers import (
    BUILTIN,
    Key,
    ModuleError,
    ModuleRef,
    Reducer,
    ReducerError,
    available,
    entry_digest,
    load,
    pair_of,
)
from replay import CellDied, CellHolding, Holding, Only, Runner, catalogues, info_of, remote, run_to
from tools.cell_link import CellLink
from tools.confine import limit_memory, readable_folders
from tools.loading import gathered
from tools.offline import log_of
from tools.process import EXIT_GOOD, EXIT_USAGE, say
from tools.settings import MEMORY_MB, SECONDS_PER_EVENT

AT_ONCE = 2
"""How many of these run at the same time for one front; more wait."""
WAIT_S = 60.0
KEY_BYTES_MAX = 1 << 16
EXIT_NO_STATE = 5
"""No code of Python's own, which ends with 1 when something is broken: that is no "not found"."""


class NoState(NotFound):
    """There is no such state: other things may be missing, too, and are no answer to what was asked."""


def answer(
    folder: DataFolder,
    module: str,
    name: str,
    key: Key,
    size: int,
    *,
    loaded: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the state of a key at `size`, as HTTP shows it; `loaded` is called once the module is there.

    Raises NoState if the log is shorter or the key has no state there, ModuleError if the module cannot be loaded,
    Unavailable if it cannot go on.
    """
    refs = available()
    if module not in refs:
        raise ModuleError(module, "is not installed here")
    with holding_for(folder, refs[module], name) as holding:
        loaded()
        (reducer,) = holding.reducers
        if len(key) != len(reducer.scope):
            raise ModuleError(
                module, f"reducer {name} takes other fields as it is installed than where it runs"
            )
        root = _fold(folder, holding, key, size)
        return _shown(holding, key, size, root)


@contextmanager
def holding_for(folder: DataFolder, ref: ModuleRef, name: str) -> Iterator[Holding]:
    """Return an empty holding of one reducer, in a cell unless it is built in; raise ModuleError or Unavailable."""
    if ref.name in BUILTIN:
        yield Holding([_named(name, ref.name, load(ref).reducers)], module=ref.name)
        return
    readable = readable_folders(folder.path, ref.value)
    link = CellLink(ref.name, memory_mb=MEMORY_MB, seconds=SECONDS_PER_EVENT, readable=readable)
    with closing(link):
        reducers = _remotes(link, ref.name)
        places = {one.name: place for place, one in enumerate(reducers)}
        chosen = _named(name, ref.name, reducers)
        yield CellHolding([chosen], link.ask, module=ref.name, places={name: places[name]})


def _remotes(link: CellLink, module: str) -> list[Reducer[Any]]:
    """Return what stands for the reducers of a cell, in its order."""
    try:
        hello = link.start()
        pairs = zip(hello.reducers, hello.viewed, strict=True)
        return [remote(info, module, viewed=viewed) for info, viewed in pairs]
    except CellDied as error:
        raise Unavailable(
            f"module {module} ended its process while it was imported: {error.reason}"
        ) from None
    except (FormatError, ValueError) as error:
        raise ModuleError(module, f"what its cell says of it cannot be used: {error}") from None


def _named(name: str, module: str, reducers: Sequence[Reducer[Any]]) -> Reducer[Any]:
    found = next((one for one in reducers if one.name == name), None)
    if found is None:
        raise ModuleError(module, f"has no reducer {name}")
    return found


def _fold(folder: DataFolder, holding: Holding, key: Key, size: int) -> str:
    """Fold one key up to `size`, and return the root of the log there; raise NoState if the log is shorter."""
    (reducer,) = holding.reducers
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        with source.open() as log:
            if size > log.size:
                raise NoState(f"the log has only {log.size} entries, not {size}")
            root = log.root(size).hex()
        run_to(Runner([holding], vault, only=Only(reducer, key)), source, size)
    if holding.stopped is not None:
        raise Unavailable(
            f"reducer {reducer.name} stopped at entry {holding.stopped.at}: {holding.stopped.reason}"
        )
    return root


def _shown(holding: Holding, key: Key, size: int, root: str) -> dict[str, Any]:
    (reducer,) = holding.reducers
    slot = holding.get(reducer, key)
    if slot is None:
        raise NoState(f"no event of this key in the first {size} entries (skipped ones aside)")
    pair = pair_of(reducer, key, slot)
    shown: dict[str, Any] = {
        "reducer": reducer.name,
        "key": dict(zip(reducer.scope, key, strict=True)),
        "state": reducer.view(slot.state),
        "position": size,
        "checkpoint": {"size": size, "root": root},
        "version": reducer.version,
        "code_digest": info_of(reducer).code_digest,
        "state_digest": entry_digest(pair).hex(),
    }
    if slot.error_index is not None:
        shown["quarantined"] = {"index": slot.error_index, "error": slot.error}
    return shown


def module_of(folder: DataFolder, name: str) -> str:
    """Return the module whose reducer has this name; raise NoState if none of this folder has.

    One that is installed no more may have left states behind, and of two that are installed the log says whose it is.
    """
    there = catalogues(folder.state, folder.partition)
    found = [one.module for one in there if any(info.name == name for info in one.reducers)]
    if not found:
        raise NoState(f"no module here has a reducer named {name}")
    installed = available() if len(found) > 1 else {}
    found = [one for one in found if one in installed] or found
    if len(found) > 1:
        with log_of(folder) as source:
            found.sort(key=lambda one: one != gathered(source).holder(name))
    return found[0]


class Past:
    """Asks for states as they were, a few at a time, each in a process of its own."""

    def __init__(self, folder: DataFolder, wait_s: float = WAIT_S) -> None:
        self._folder, self._wait_s = folder, wait_s
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, name: str, key: Key, size: int) -> dict[str, Any]:
        """Return the state of a key at `size`; raise NotFound, or Unavailable if it cannot be told."""
        command = [sys.executable, "-P", "-m", "tools.past", "--data", str(self._folder.path)]
        command += ["--reducer", name, "--size", str(size)]
        async with self._room:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            try:
                told = process.communicate(json.dumps(key).encode())
                out, err = await asyncio.wait_for(told, self._wait_s)
            except TimeoutError:
                raise Unavailable(
                    f"folding up to {size} takes longer than {self._wait_s:.0f} s; use treering replay"
                ) from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode == EXIT_GOOD:
            found: dict[str, Any] = json.loads(out)
            return found
        _, said, why = err.decode(errors="replace").rpartition("treering past: ")
        if process.returncode == EXIT_NO_STATE:
            raise NotFound(why.strip())
        raise Unavailable(why.strip() if said else "it could not be folded; use treering replay")


def main(argv: Sequence[str] | None = None, out: int = 1, loaded: Callable[[], None] = lambda: None) -> int:
    """Answer one question, on a descriptor; `loaded` is called once the module is there."""
    parser = argparse.ArgumentParser(prog="tools.past", description="Fold one key up to a size of the log.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--reducer", required=True)
    parser.add_argument("--size", type=int, required=True)
    arguments = parser.parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        key = msgspec.json.decode(sys.stdin.buffer.read(KEY_BYTES_MAX), type=tuple[str, ...])
        module = module_of(folder, arguments.reducer)
        found = answer(folder, module, arguments.reducer, key, arguments.size, loaded=loaded)
    except msgspec.DecodeError as error:
        say(f"treering past: {InvalidEvent(f'the key must be a JSON list of texts: {error}')}")
        return EXIT_USAGE
    except (ArchiveError, ReducerError) as error:
        say(f"treering past: {error}")
        return EXIT_NO_STATE if isinstance(error, NoState) else EXIT_USAGE
    with os.fdopen(os.dup(out), "wb") as file:
        file.write(msgspec.json.encode(found) + b"\n")
    return EXIT_GOOD


def alone() -> int:
    """Be the process that the front asks: nobody prints into the answer, and memory is bounded.

    A cell has a bound of its own, which this one must not hold down: it comes after the cell was started.
    """
    out = os.dup(1)
    os.dup2(2, 1)
    return main(out=out, loaded=lambda: limit_memory(MEMORY_MB << 20))


if __name__ == "__main__":
    sys.exit(alone())
