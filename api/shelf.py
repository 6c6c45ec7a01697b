"""The shelf: the states of every module, found by their catalogues, for whoever answers queries.

No code of a module runs here: names, scopes and what readers are shown were written down by the module's workers.
While a new generation of states is being built, the one before answers, with the position it stopped at; if there is
none, the answer is that there is none yet.

    standing = shelf.standing("event_count", shard=0)
    position, slot = standing.reader.get("event_count", ("ann",))

States that are damaged are no answer: 503, for those states alone.  It is counted, and the module's worker is left
word, so that it makes them anew (`replay.damage`).

What a catalogue is: `replay.catalogue`.  The routes: `api.states`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from archive import IntegrityError, NotFound, Store, Unavailable, identity_of
from reducers import Key, UnknownReducer
from replay import (
    Catalogue,
    Damaged,
    ReadStore,
    ReducerInfo,
    StateReader,
    catalogues,
    complain,
    has_answered,
    home_of,
    is_complained_of,
    module_folder,
    note_answer,
    shard_folder,
)

LOOK_EVERY_S = 0.5


class Place(NamedTuple):
    """Which states a store is to hold."""

    module: str
    generation: str
    shard: int
    shards: int
    folder: Path
    """Where they lie on this machine."""


class Standing(NamedTuple):
    """Where the states of a reducer in one shard are read just now."""

    info: ReducerInfo
    reader: StateReader
    generation: str


class UnknownFor(UnknownReducer):
    """No reducer has this name now; modules that never ran here, and wait for a person, may have one (why, by name)."""

    def __init__(self, name: str, known: tuple[str, ...], silent: Mapping[str, str]) -> None:
        super().__init__(name, known)
        self.silent = silent

    def __str__(self) -> str:
        """Say who may have it."""
        who = "; ".join(f"module {module}: {why}" for module, why in self.silent.items())
        return f"{super().__str__()}; not known are those of who waits for a person: {who}"


class Shelf:
    """All modules' states of one partition.

    `open_store` opens a store for reading, by its place, and raises NotFound while there is none.  With `expected`,
    the names of the modules that this server runs, other modules' states (which were left behind) are none.  With
    `complains`, workers are left word of damage; whoever only looks leaves none.
    """

    def __init__(
        self,
        state: Path,
        shards: int,
        open_store: Callable[[Place], Store],
        expected: Collection[str] = (),
        partition: int = 0,
        *,
        complains: bool = False,
    ) -> None:
        self.shards, self.expected = shards, frozenset(expected)
        self._state, self._partition, self.open_store = state, partition, open_store
        self._stores: dict[Path, Store] = {}
        self._files: dict[Path, tuple[int, int] | None] = {}
        """By folder: the file that is read there."""
        self._complains = complains
        self.waits: Callable[[str, int], str] = lambda *_: ""
        """Why a module does nothing in a shard until a person looks, or nothing."""
        self.damage: Counter[str] = Counter()
        """How often readers met damaged states, by module."""
        self._answering: set[tuple[str, int]] = set()
        """Generations, and shards of them, that have taken over from the one before."""
        self._found: dict[str, Catalogue] = {}
        self._looked_at = float("-inf")
        self._lock = Lock()

    def modules(self) -> list[Catalogue]:
        """Return the catalogues of all modules, by name."""
        if (now := time.monotonic()) - self._looked_at > LOOK_EVERY_S:
            found = {one.module: one for one in catalogues(self._state, self._partition)}
            if self.expected:
                found = {name: one for name, one in found.items() if name in self.expected}
            self._found, self._looked_at = found, now
            self._let_go_of_removed()
        return [self._found[name] for name in sorted(self._found)]

    def _let_go_of_removed(self) -> None:
        """Open those stores anew, when they are next read, whose file somebody has removed, or replaced.

        What is mapped of it stays as it was for ever.  Nothing is closed that another thread may read just now: the
        last of its readers does that.
        """
        with self._lock:
            for folder, store in list(self._stores.items()):
                before, now = self._files.get(folder), identity_of(folder / "data.mdb")
                self._files[folder] = now
                if before in {None, now}:
                    continue
                if isinstance(store, ReadStore):
                    store.renew()
                else:
                    del self._stores[folder]

    def missing(self) -> list[str]:
        """Return the modules that should be there and have said nothing yet."""
        return sorted(self.expected - {one.module for one in self.modules()})

    def reducers(self) -> list[ReducerInfo]:
        """Return all reducers, by name."""
        return sorted((info for one in self.modules() for info in one.reducers), key=lambda info: info.name)

    def find(self, name: str) -> tuple[Catalogue, ReducerInfo]:
        """Return a reducer and its module's catalogue.

        Of two modules that name one alike, one waits for a person, and the other's it is.  Raises UnknownReducer if
        there is none, Unavailable if it may belong to a module that is still starting.
        """
        found = [(one, info) for one in self.modules() for info in one.reducers if info.name == name]
        if len(found) > 1:
            found.sort(key=lambda pair: self._why_waits(pair[0].module) != "")
        if found:
            return found[0]
        silent = {module: self._why_waits(module) for module in self.missing()}
        if starting := [module for module, why in silent.items() if not why]:
            raise Unavailable(f"module {starting[0]} is starting; ask again shortly")
        known = tuple(info.name for info in self.reducers())
        raise (UnknownFor(name, known, silent) if silent else UnknownReducer(name, known))

    def _why_waits(self, module: str) -> str:
        """Return why a module does nothing in any shard until a person looks; nothing, if it may still start in one."""
        whys = [self.waits(module, shard) for shard in range(self.shards)]
        return whys[0] if all(whys) else ""

    def standing(self, name: str, shard: int) -> Standing:
        """Return where a reducer's states are read; raise Unavailable while nothing whole is there.

        Raises Damaged where it is not even known how much of the log they have seen.
        """
        catalogue, info = self.find(name)
        reader = self.reader(catalogue, shard)
        if reader is not None and _whole(reader):
            self._answers(catalogue, shard)
            return Standing(info, reader, catalogue.generation)
        before = None if self._has_answered(catalogue, shard) else catalogue.previous
        old = None if before is None else next((each for each in before.reducers if each.name == name), None)
        if before is not None and old is not None and old.scope == info.scope:
            reader = self.reader(before, shard)
            if reader is not None and _whole(reader):
                return Standing(old, reader, before.generation)
        if why := self.waits(catalogue.module, shard):
            raise Unavailable(f"module {catalogue.module} has no states here, and waits for a person: {why}")
        raise Unavailable("states are being rebuilt; ask again shortly")

    def _answers(self, catalogue: Catalogue, shard: int) -> None:
        """Note that a generation has taken over from the one before: from now on that one is no answer any more."""
        if catalogue.previous is None or (known := (catalogue.generation, shard)) in self._answering:
            return
        place = module_folder(self._state, self._partition, catalogue.module)
        if self._complains:
            note_answer(place, catalogue.generation, shard, self.shards)
        self._answering.add(known)

    def _has_answered(self, catalogue: Catalogue, shard: int) -> bool:
        """Return whether readers have been told of states of this generation: they must not go back in time."""
        place = module_folder(self._state, self._partition, catalogue.module)
        known = (catalogue.generation, shard) in self._answering
        return known or has_answered(place, catalogue.generation, shard, self.shards)

    def reader(self, catalogue: Catalogue, shard: int) -> StateReader | None:
        """Return the states of one generation in one shard, or None while there are none.

        Raises Damaged where their file cannot be opened.
        """
        place = module_folder(self._state, self._partition, catalogue.module)
        folder = shard_folder(place, catalogue.generation, shard, self.shards)
        with self._lock:  # an environment must not be opened twice in a process
            if folder not in self._stores:
                wanted = Place(catalogue.module, catalogue.generation, shard, self.shards, folder)
                try:
                    self._stores[folder] = self.open_store(wanted)
                    self._files[folder] = identity_of(folder / "data.mdb")
                except NotFound:
                    return None
                except IntegrityError as error:
                    self.damage[catalogue.module] += 1
                    raise Damaged(catalogue.module, str(error)) from None
        store = self._stores[folder]
        return StateReader(store, catalogue.identities, catalogue.module, partial(self._met, folder, store))

    def damaged(self, catalogue: Catalogue, shard: int) -> bool:
        """Return whether a worker has yet to look at states that somebody found damaged."""
        place = module_folder(self._state, self._partition, catalogue.module)
        return is_complained_of(shard_folder(place, catalogue.generation, shard, self.shards))

    def _met(self, folder: Path, store: Store, error: Damaged) -> None:
        """Count that a reader met damage, and see to it that what is damaged is made anew."""
        self.damage[error.module] += 1
        if isinstance(store, ReadStore) and store.distrust():
            return  # it was the copy
        if self._complains:
            complain(folder)

    def position(self, catalogue: Catalogue, shard: int) -> int | None:
        """Return how much of the log a module's shard has seen, or None while it is being rebuilt."""
        try:
            reader = self.reader(catalogue, shard)
            return None if reader is None else reader.position()
        except (NotFound, Unavailable):
            return None

    def rebuilding(self, catalogue: Catalogue, shard: int) -> tuple[int, int] | None:
        """Return (position, size to reach) of a shard that is being rebuilt; None: it is not, or not yet."""
        try:
            reader = self.reader(catalogue, shard)
            return None if reader is None else reader.rebuilding()
        except Unavailable:
            return None

    def stateless(self, catalogue: Catalogue) -> list[ReducerInfo]:
        """Return the reducers of a module that have not one state in all shards; none where not all can be read.

        That is as it should be before the first event that has all fields of their scope; or a field is misspelt.
        """
        found = list(catalogue.reducers)
        for shard in range(self.shards):
            try:
                if (reader := self.reader(catalogue, shard)) is None:
                    return []
                found = [info for info in found if not reader.scan(info.name, limit=1)[1]]
            except (NotFound, Unavailable):
                return []
        return found

    def lacking(self, catalogue: Catalogue) -> dict[str, int]:
        """Return, by reducer of a module, how many events lack a field of its scope, as far as can be read."""
        found = dict.fromkeys((info.name for info in catalogue.reducers), 0)
        for shard in range(self.shards):
            with suppress(NotFound, Unavailable):
                reader = self.reader(catalogue, shard)
                for name, count in ({} if reader is None else reader.lacking()).items():
                    found[name] += count
        return found

    def home(self, info: ReducerInfo, key: Key, route_key: bytes) -> int:
        """Return the shard that holds a reducer's key."""
        return home_of(info.name, info.scope, key, route_key, self.shards)


def _whole(reader: StateReader) -> bool:
    try:
        reader.position()
    except Damaged:
        raise  # what was before is no answer to who may have seen more
    except (NotFound, Unavailable):
        return False
    return True
