"""A state as it was: one key, folded up to some size of the log.

    $ printf '["ann"]' | python -m tools.past --data DIR --reducer event_count --size 1000
    {"reducer":"event_count","key":{"student":"ann"},"state":{"events":3},"position":1000,…}

The front asks here in a process of its own, because folding runs a module's code, which must never be able to stop
the front.  Only what concerns the key is opened (`replay.replay_key`): the time it takes is that of reading past the
rest.  The key comes on standard input, so that no list of processes shows a name.

Exit codes: 0 answered, 2 it could not be (the reason is on standard error).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from archive import ArchiveError, DataFolder, InvalidEvent, NotFound, Unavailable
from reducers import Key, ModuleError, ReducerError, available, entry_digest, load, pair_of
from replay import info_of, read_catalogue, replay_key
from replay import module_folder as folder_of
from tools.offline import log_of
from tools.process import EXIT_GOOD, EXIT_USAGE, say

AT_ONCE = 2
"""How many of these run at the same time for one front; more wait."""
WAIT_S = 60.0
KEY_BYTES_MAX = 1 << 16


def answer(folder: DataFolder, module: str, name: str, key: Key, size: int) -> dict[str, Any]:
    """Return the state of a key at `size`, as HTTP shows it.

    Raises NotFound if the log is shorter or the key has no state there, ModuleError if the module cannot be loaded.
    """
    refs = available()
    if module not in refs:
        raise ModuleError(module, "is not installed here")
    reducer = next((one for one in load(refs[module]).reducers if one.name == name), None)
    if reducer is None:
        raise ModuleError(module, f"has no reducer {name}")
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        with source.open() as log:
            if size > log.size:
                raise NotFound(f"the log has only {log.size} entries, not {size}")
            root = log.root(size).hex()
        holding = replay_key(source, vault, reducer, key, size, module)
    if holding.stopped is not None:
        raise Unavailable(f"reducer {name} stopped at entry {holding.stopped.at}: {holding.stopped.reason}")
    slot = holding.get(reducer, key)
    if slot is None:
        raise NotFound(f"no event of this key in the first {size} entries")
    pair = pair_of(reducer, key, slot)
    shown: dict[str, Any] = {
        "reducer": name,
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
    """Return the module whose reducer has this name; raise NotFound if none of this folder has."""
    root = folder.state / str(folder.partition)
    for place in sorted(root.iterdir()) if root.is_dir() else ():
        catalogue = read_catalogue(folder_of(folder.state, folder.partition, place.name))
        if catalogue is not None and any(info.name == name for info in catalogue.reducers):
            return catalogue.module
    raise NotFound(f"no module here has a reducer named {name}")


class Past:
    """Asks for states as they were, a few at a time, each in a process of its own."""

    def __init__(self, folder: DataFolder, wait_s: float = WAIT_S) -> None:
        self._folder, self._wait_s = folder, wait_s
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, name: str, key: Key, size: int) -> dict[str, Any]:
        """Return the state of a key at `size`; raise NotFound, or Unavailable if it takes too long."""
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
        raise NotFound(
            err.decode(errors="replace").strip().partition("treering past: ")[2] or "it could not be folded"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one question."""
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
        found = answer(folder, module, arguments.reducer, key, arguments.size)
    except msgspec.DecodeError as error:
        say(f"treering past: {InvalidEvent(f'the key must be a JSON list of texts: {error}')}")
        return EXIT_USAGE
    except (ArchiveError, ReducerError) as error:
        say(f"treering past: {error}")
        return EXIT_USAGE
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    return EXIT_GOOD


if __name__ == "__main__":
    sys.exit(main())
