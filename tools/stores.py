"""Where states are kept and read, as the settings say: on disk, in memory, and in Redis for readers.

    place_states(settings)                     before anything starts: memory or disk behind DATA/state
    with mirroring(folder, source, crew, …):   in a worker: a thread that keeps Redis up to date
    reading(stores, …)                         in a front: how to open a shard's states

With `state_store = "memory"`, `DATA/state` is a link into /dev/shm: every program finds the states where it always
does, and they are gone with the machine, as they may be.  What Redis is there for, and what happens when it is not:
`replay.mirror`, `replay.choosing`, docs/state-stores.md.  Its address may hold a password, so processes are told by the
environment, never by arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from shutil import rmtree
from threading import Event, Thread

from api import Place, Services, open_states
from archive import (
    DataFolder,
    IntegrityError,
    LogSource,
    Store,
    Unavailable,
    control_body,
    make_folder,
    parse_leaf,
)
from replay import Crew, Mirror, Stores, memory_folder, module_folder, read_catalogue, states_name
from tools.process import say
from tools.settings import Settings

STORE, URL = "TREERING_STATE_STORE", "TREERING_REDIS_URL"
MIRROR_EVERY_S = 0.05
LOOK_AGAIN_S = 0.5


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

    Raises Unavailable if there is no memory to put them in.
    """
    state = folder.state
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
    """Remove the link to a memory that is gone, as it is after a restart of the machine."""
    if folder.state.is_symlink() and not folder.state.exists():
        folder.state.unlink()


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
    mirrors: list[Mirror] = []
    for holding in crew.holdings:
        place = module_folder(folder.state, folder.partition, holding.module)
        catalogue, local = read_catalogue(place), holding.store
        if catalogue is None or local is None:
            continue
        about = states_name(origin, folder.partition, holding.module, catalogue.generation, shard, shards)
        if (remote := stores.remote(about)) is not None:
            mirrors.append(Mirror(local, remote, partial(is_ours, source)))
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


def _mirror(mirrors: list[Mirror], stop: Event) -> None:
    said = ""
    while not stop.wait(MIRROR_EVERY_S):
        for mirror in mirrors[:]:
            try:
                while mirror.step() and not stop.is_set():
                    pass
            except (Unavailable, IntegrityError) as error:  # Redis is a copy: it must never stop a worker
                stop.wait(LOOK_AGAIN_S)
                said = _once(said, str(error))
            except Exception as error:  # noqa: BLE001 - the module was let go, and its store was closed
                mirrors.remove(mirror)
                say(
                    f"worker: Redis: a module's copy is kept no more ({type(error).__name__}); a restart begins it anew"
                )
        said = _once(said, next((one.state for one in mirrors if one.state.startswith("down")), ""))


def _once(said: str, now: str) -> str:
    if now and now != said:
        say(f"worker: Redis: {now}; states go on without it")
    return now


def reading(stores: Stores, services: Services) -> Callable[[Place], Store]:
    """Return how a front opens the states of one shard: here or, where a copy is kept there, in Redis."""

    def ours(size: int, root: bytes) -> bool:
        with services.log() as log:
            return size <= log.size and log.root(size) == root

    def opened(place: Place) -> Store:
        if stores.link is None:
            return open_states(place)
        with services.log() as log:
            origin = str(control_body(parse_leaf(log.leaf(0)))["origin"])
        partition = services.folder.partition
        about = states_name(origin, partition, place.module, place.generation, place.shard, place.shards)
        return stores.reading(lambda: open_states(place), about, ours)

    return opened
