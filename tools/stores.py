"""Where states are kept and read, as the settings say: on disk, in memory, and in Redis for readers.

    place_states(settings)                     before anything starts: memory or disk behind DATA/state
    with mirroring(folder, source, crew, …):   in a worker: a thread that keeps Redis up to date

With `state_store = "memory"`, `DATA/state` is a link into /dev/shm: every program finds the states where it always
does, and they are gone with the machine, as they may be.  What Redis is there for, and what happens when it is not:
`replay.mirror`, `replay.choosing`, docs/state-stores.md.  Its address may hold a password, so processes are told by the
environment, never by arguments.  How a front opens a shard's states: `tools.front_states`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread
from typing import NamedTuple

from archive import (
    ArchiveError,
    DataFolder,
    LogSource,
    Unavailable,
    make_folder,
)
from replay import (
    Crew,
    Holding,
    Mirror,
    Stores,
    is_memory_folder,
    memory_folder,
    module_folder,
    note_trouble,
    read_catalogue,
    shard_folder,
    states_name,
)
from tools.process import say
from tools.settings import Settings

STORE, URL = "TREERING_STATE_STORE", "TREERING_REDIS_URL"
MIRROR_EVERY_S = 0.05
LOOK_AGAIN_S = 0.5


class Copying(NamedTuple):
    """One module's states in a shard, what copies them, and the folder in which they lie."""

    holding: Holding
    mirror: Mirror
    states: Path


def announce(settings: Settings, environment: MutableMapping[str, str]) -> None:
    """Tell the processes that are started from here on where states are."""
    environment[STORE] = settings.state_store
    if settings.redis_url is None:
        environment.pop(URL, None)
    else:
        environment[URL] = settings.redis_url


def stores_of(environment: Mapping[str, str] = os.environ) -> Stores:
    """Return where states are, as the supervisor said."""
    return Stores(environment.get(STORE, "lmdb"), environment.get(URL))


def place_states(folder: DataFolder, mode: str) -> None:
    """Let the folder of states be on disk or in memory; states of the other kind are removed, and made anew.

    A link that somebody else has made stays, and so does all that lies there.  Raises Unavailable if there is no memory
    to put them in, or if such a link does not do.
    """
    state = folder.state
    if state.is_symlink() and not is_memory_folder(state.readlink()):
        if mode == "memory":
            raise Unavailable(
                f"{state} leads to {state.readlink()}: remove that link, or set state_store to lmdb"
            )
        return  # somebody else's, to another disk, say: used as it is
    wanted = memory_folder(folder.path) if mode == "memory" else None
    if state.is_symlink():
        if wanted is not None and state.readlink() == wanted:
            return
        if state.exists():
            rmtree(state.resolve(), ignore_errors=True)  # nobody's states stay in memory unseen
        state.unlink()
    if wanted is None:
        make_folder(state)
        return
    if state.is_dir():
        rmtree(state)  # they are derived, and those in memory begin anew in any case
    state.symlink_to(wanted)


def forget_gone(folder: DataFolder) -> None:
    """Remove our link to a memory that is gone, as it is after a restart of the machine.

    Raises Unavailable for a link of somebody else that leads nowhere: states must not be made in its place.
    """
    state = folder.state
    if not state.is_symlink() or state.exists():
        return
    if not is_memory_folder(state.readlink()):
        raise Unavailable(f"{state} leads to {state.readlink()}, and nothing is there: is that disk there?")
    state.unlink()


def is_ours(source: LogSource, size: int, root: bytes) -> bool:
    """Return whether the log had this root at this size."""
    with source.open() as log:
        return size <= log.size and log.root(size) == root


@contextmanager
def mirroring(
    folder: DataFolder, source: LogSource, crew: Crew, origin: str, shard: int, shards: int
) -> Iterator[None]:
    """Keep a copy of the crew's states in Redis while the context lasts, if Redis is to hold one."""
    stores = stores_of()
    mirrors: list[Copying] = []
    for holding in crew.holdings:
        place = module_folder(folder.state, folder.partition, holding.module)
        catalogue, local = read_catalogue(place), holding.store
        if catalogue is None or local is None:
            continue
        about = states_name(origin, folder.partition, holding.module, catalogue.generation, shard, shards)
        if (remote := stores.remote(about)) is not None:
            mirror = Mirror(local, remote, partial(is_ours, source), module=holding.module)
            states = shard_folder(place, catalogue.generation, shard, shards)
            mirrors.append(Copying(holding, mirror, states))
    stop = Event()
    thread = Thread(target=_mirror, args=(mirrors, stop), name="mirror", daemon=True)
    if mirrors:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if mirrors:
            thread.join()


def _mirror(mirrors: list[Copying], stop: Event) -> None:
    """Keep the copies of all modules up to date until told to stop; a module that was let go is left as it is."""
    said: dict[str, str] = {}
    noted: dict[str, str] = {}
    while not stop.wait(MIRROR_EVERY_S):
        for one in mirrors[:]:
            holding, mirror, states = one
            trouble = _followed(holding, mirror, stop)
            if holding.stopped is not None:
                mirrors.remove(one)  # its store is closed, or about to be: who goes on with it mirrors it
                continue
            said[holding.module] = _once(said, holding.module, trouble)
            # The first time, too: there may be a word of the worker before.
            if mirror.trouble != noted.get(holding.module):
                note_trouble(states, mirror.trouble)
                noted[holding.module] = mirror.trouble


def _followed(holding: Holding, mirror: Mirror, stop: Event) -> str:
    """Do all that there is to do for one copy, and return what is wrong with it, if anything."""
    try:
        while holding.stopped is None and mirror.step() and not stop.is_set():
            pass
    except Exception as error:  # noqa: BLE001 - a copy must never stop a worker, nor the copies of other modules
        stop.wait(LOOK_AGAIN_S)
        return str(error) if isinstance(error, ArchiveError) else f"{type(error).__name__}: {error}"
    return mirror.trouble and mirror.state


def _once(said: dict[str, str], module: str, now: str) -> str:
    """Say what is wrong with a module's copy, unless it, or another module's, was just said to have the same."""
    if now and now not in said.values():
        say(f"worker: Redis: module {module}: {now}; states go on without it")
    return now
