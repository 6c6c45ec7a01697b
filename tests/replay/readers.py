"""Who reads the states of a model through Redis, and what may happen to Redis meanwhile.

    readers = Readers(server, folder, world.source, seconds)
    readers.employ(place, reducers, store)      # a worker begins: its module's catalogue, its mirror
    readers.open(shards)                        # a server begins: fronts that have seen nothing yet
    for told in readers.told("events", shard):  # what each front is told now: position, steering, states
        ...

A front is what a server runs: a shelf over catalogues, with one `ReadStore` for each generation and shard.  There are
two: one beside the workers, which has the local states as well, and one on another machine, which has Redis alone.
What they are told is judged by whoever has the list (`tests.replay.test_outages`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from api import Place, Shelf
from archive import LogSource, MemoryStore, NotFound, Store, Unavailable, View, Write
from reducers import Module, Reducer
from replay import (
    Catalogue,
    Damaged,
    Mirror,
    ReadStore,
    RedisLink,
    StateReader,
    StoredSlot,
    Stores,
    catalogue_of,
    module_folder,
    read_marker,
    states_name,
    write_catalogue,
)
from tests.redis_server import RedisServer

Worker = tuple[str, int, int, int]
"""Module, version, shard, shards: whose states a store holds."""
LOST, KEPT, HANGS = "lost on the way", "the answer was lost", "did not answer"
FAILURES = (LOST, KEPT, HANGS)


class Told(NamedTuple):
    """What a front answered, and as of when."""

    version: int
    position: int
    steered: int
    """Skips and retries of entries 0…steered-1 are in it."""
    slots: list[tuple[str, StoredSlot]]
    still: list[tuple[str, int]]
    """(reducer, index) of what stands still."""


class Seconds:
    """A clock that goes forward when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class TroubledLink(RedisLink):
    """A link whose `at`-th call from now goes wrong: lost, done while its answer is lost, or done much later."""

    server: RedisServer
    at, how = 0, LOST

    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]) -> Any:
        """Run a script, or fail as told."""
        self.at -= 1
        if self.at == 0 and self.how == LOST:
            raise Unavailable(LOST)
        if self.at == 0 and self.how == HANGS and self.server.process is not None:
            self.server.hang()
        answer = super().run(script, keys, arguments)
        if self.at == 0 and self.how == KEPT:
            raise Unavailable(KEPT)
        return answer


class OneMoment:
    """A store whose views are all the same one."""

    def __init__(self, view: View) -> None:
        self._view = view

    @contextmanager
    def view(self) -> Iterator[View]:
        """Return the view."""
        yield self._view

    def commit(self, writes: Sequence[Write]) -> None:
        """Refuse."""
        raise TypeError(writes)

    def close(self) -> None:
        """Do nothing."""


class Front:
    """One server's shelf, and how far each of its stores has shown its readers the log."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.stores: dict[tuple[str, str, int], ReadStore] = {}
        self.shown: dict[tuple[str, str, int], int] = {}


class Readers:
    """Mirrors, fronts and Redis around the workers of a model."""

    def __init__(self, server: RedisServer, folder: Path, source: LogSource) -> None:
        self.server, self.folder, self.source = server, folder, source
        self.clock = Seconds()
        self.link = TroubledLink(server.url, clock=self.clock, rest_s_max=0.5)
        self.link.server = server
        self.mirrors: dict[Worker, Mirror] = {}
        self.local: dict[Worker, MemoryStore] = {}
        self.catalogues: dict[str, Catalogue] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self.fronts: tuple[Front, Front]

    # --- workers ---------------------------------------------------------------------------------

    def employ(self, worker: Worker, reducers: Sequence[Reducer[Any]], store: MemoryStore) -> None:
        """Take note that a worker began on a store: write its catalogue, and mirror it anew."""
        module, version, shard, shards = worker
        self.local[worker] = store
        before = self.catalogues.get(module)
        whole = before is not None and self._stands(before)
        catalogue = catalogue_of(Module(module, tuple(reducers)), before, whole=whole)
        self.catalogues[module] = catalogue
        self._versions[module, catalogue.generation] = version
        write_catalogue(module_folder(self.folder, 0, module), catalogue)
        about = self.name(module, catalogue.generation, shard, shards)
        remote = self._stores("redis").remote(about)
        assert remote is not None
        self.mirrors[worker] = Mirror(store, remote, self.is_ours, clock=self.clock)

    def name(self, module: str, generation: str, shard: int, shards: int) -> str:
        """Return by what name a shard's states are known in Redis."""
        return states_name("model.example/log", 0, module, generation, shard, shards)

    def forget(self, worker: Worker) -> None:
        """Take note that a worker's states were removed from its machine."""
        self.local.pop(worker, None)
        self.mirrors.pop(worker, None)

    def is_ours(self, size: int, root: bytes) -> bool:
        """Tell whether the log had this root at this size."""
        with self.source.open() as log:
            return size <= log.size and log.root(size) == root

    def _stands(self, catalogue: Catalogue) -> bool:
        """Tell whether all shards of a generation are whole, for some number of shards (`replay.stood_at`)."""
        version = self._versions[catalogue.module, catalogue.generation]
        found: dict[int, int] = {}
        for (module, its, _, shards), store in self.local.items():
            if (module, its) == (catalogue.module, version) and position_of(store) is not None:
                found[shards] = found.get(shards, 0) + 1
        return any(shards == count for shards, count in found.items())

    # --- fronts ----------------------------------------------------------------------------------

    def open(self, shards: int, mode: str = "redis") -> None:
        """Open the fronts of a server that starts now: one beside the workers, one far away."""
        near, far = (Front(Shelf(self.folder, shards, lambda _: MemoryStore(()))) for _ in range(2))
        near.shelf.open_store = self._opener(near, mode, self._here)
        far.shelf.open_store = self._opener(far, mode, self._nowhere)
        self.fronts = (near, far)

    def told(self, module: str, shard: int) -> Iterator[Told]:
        """Yield what each front answers; assert that who has whole states answers, at the second asking at the latest,
        and that nobody who has them goes back in time.
        """
        for front, near in zip(self.fronts, (True, False), strict=True):
            told, store = self._ask(front, module, shard)
            here = self._local_position(module, shard, front.shelf.shards) if near else None
            if (
                told is None and here is not None
            ):  # Redis failed in the middle of an answer: that is not asked twice
                told, store = self._ask(front, module, shard)
            assert told is not None or here is None, f"{module} has states here, and nobody is told"
            if told is None:
                continue
            if near and here is not None:
                assert told.position >= front.shown.get(store, 0), f"{module} went back in time"
            front.shown[store] = told.position
            yield told

    def _ask(self, front: Front, module: str, shard: int) -> tuple[Told | None, tuple[str, str, int]]:
        catalogue = self.catalogues[module]
        nothing = (module, catalogue.generation, shard)
        try:
            standing = front.shelf.standing(catalogue.reducers[-1].name, shard)
        except Unavailable:
            return None, nothing
        chosen = next(
            one
            for one in (catalogue, catalogue.previous)
            if one is not None and one.generation == standing.generation
        )
        place = (module, standing.generation, shard)
        version = self._versions[module, standing.generation]
        try:
            with front.stores[place].view() as view:
                return self._told(version, OneMoment(view), chosen), place
        except Damaged:
            front.stores[place].distrust()  # as a shelf does
        except (NotFound, Unavailable):
            pass
        return None, nothing

    def _told(self, version: int, store: Store, catalogue: Catalogue) -> Told:
        reader = StateReader(store, catalogue.identities)
        position, slots = reader.everything([one.name for one in catalogue.reducers])
        with store.view() as view:
            marker = read_marker(view.get("meta", b"snapshot"))
        assert marker is not None
        return Told(version, position, marker.steered, slots, reader.quarantined(1_000))

    def _local_position(self, module: str, shard: int, shards: int) -> int | None:
        version = self._versions[module, self.catalogues[module].generation]
        store = self.local.get((module, version, shard, shards))
        return None if store is None else position_of(store)

    def _opener(self, front: Front, mode: str, opened: Callable[[Place], Store]) -> Callable[[Place], Store]:
        stores = self._stores(mode)

        def open_store(place: Place) -> Store:
            about = self.name(place.module, place.generation, place.shard, place.shards)
            store = stores.reading(lambda: opened(place), about, self.is_ours)
            front.stores[place.module, place.generation, place.shard] = store
            return store

        return open_store

    def _here(self, place: Place) -> Store:
        worker = (
            place.module,
            self._versions[place.module, place.generation],
            place.shard,
            place.shards,
        )
        if worker not in self.local:
            raise NotFound("there are no states here")
        return self.local[worker]

    def _nowhere(self, place: Place) -> Store:
        raise NotFound(f"{place.module} has no states on this machine")

    def _stores(self, mode: str) -> Stores:
        stores = Stores(mode, self.server.url, clock=self.clock)
        stores.link = self.link
        return stores

    # --- Redis -----------------------------------------------------------------------------------

    def well(self) -> None:
        """End all trouble."""
        self.link.at = 0
        self.wake()
        self.server.start()
        self.clock.now += 10

    def wake(self) -> None:
        """Let a server that hangs go on."""
        if self.server.process is not None:
            self.server.wake()

    def begin(self) -> None:
        """Begin with a server that is up and has nothing, not even on disk."""
        (self.server.folder / "dump.rdb").unlink(missing_ok=True)
        self.well()
        self.server.flush()

    def close(self) -> None:
        """Leave the server up, and nobody connected."""
        self.well()
        self.link.close()


def position_of(store: Store) -> int | None:
    """Return the position of states that are an answer, or None."""
    try:
        return StateReader(store).position()
    except NotFound:
        return None
