"""The catalogue: what a module's states are, for readers that never import its code.

    state/<partition>/<module>/catalogue.json
    state/<partition>/<module>/<generation>/<shard>-of-<shards>/       the states: `replay.layout`

A *generation* is what one set of reducers (names, versions, scopes, code) makes of the log.  Another set begins another
generation beside it, and readers are given the old one, which stays as it is, until the new one has seen the whole log:
an upgrade costs nobody his dashboard.  Once they have been given the new one they are never given the old one again,
whatever becomes of the new one's states (`note_answer`).  The generation before is kept, so that going back costs no
replay.

>>> generation_of([])
'4f53cda18c2baa0c'

Who writes it: a module's worker.  Who reads: `api`, `tools`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from archive import ArchiveError, LmdbStore, make_folder, naming
from reducers import Module, Reducer
from replay.layout import MAP_SIZE, TABLES, Identity
from replay.reader import StateReader

FILE = "catalogue.json"
ANSWERED = "answered"
"""How the names begin of empty files in a generation's folder: these shards of so many have been shown to readers."""
SHARDS_FILE = "shards"
"""In the folder of all states: how many shards the server that ran last has."""


class ReducerInfo(msgspec.Struct, frozen=True):
    """What readers need to know of a reducer."""

    name: str
    version: int
    scope: tuple[str, ...]
    code_digest: str
    ticks: int | None = None
    emits: bool = False
    keyed: bool = False
    """Whether code of its own finds the key of an event (`reducers.Reducer.keyed`)."""


class Catalogue(msgspec.Struct, frozen=True):
    """What there is of one module."""

    module: str
    version: str
    reducers: tuple[ReducerInfo, ...]
    generation: str
    previous: Catalogue | None = None
    """What answers while `generation` has not seen the whole log yet; it has no `previous` itself."""

    @property
    def identities(self) -> list[Identity]:
        """By what these states know their reducers again."""
        return sorted((one.name, one.version, one.code_digest) for one in self.reducers)


def generation_of(reducers: Iterable[ReducerInfo]) -> str:
    """Return the name of the generation that these reducers make: 16 hex digits of a SHA-256."""
    rows = sorted([one.name, one.version, one.scope, one.code_digest, one.ticks] for one in reducers)
    return sha256(msgspec.json.encode(rows)).hexdigest()[:16]


def info_of(reducer: Reducer[Any]) -> ReducerInfo:
    """Return what readers need to know of a reducer."""
    return ReducerInfo(
        reducer.name,
        reducer.version,
        reducer.scope,
        reducer.code_digest,
        reducer.ticks,
        reducer.emits,
        reducer.keyed,
    )


def catalogue_of(module: Module, before: Catalogue | None = None, *, whole: bool = True) -> Catalogue:
    """Return the catalogue of a module that is loaded; `before` is the one that stood there.

    `whole` tells whether the states that `before` names have seen the whole log: only such states may answer while new
    ones are made.  So one upgrade after another costs nobody the states that there are.
    """
    reducers = tuple(sorted(map(info_of, module.reducers), key=lambda one: one.name))
    generation = generation_of(reducers)
    if before is None:
        previous = None
    elif before.generation == generation or (not whole and before.previous is not None):
        previous = before.previous
    else:
        previous = msgspec.structs.replace(before, previous=None)
    if previous is not None and previous.generation == generation:
        previous = None
    return Catalogue(module.name, module.version, reducers, generation, previous)


def stood_at(place: Path, catalogue: Catalogue) -> int | None:
    """Return how much of the log all shards of a generation have seen, for whatever number of shards it is most.

    None if no number of shards is there completely, each of them whole.
    """
    found: dict[int, dict[int, int]] = {}
    for folder in (place / catalogue.generation).glob("*-of-*"):
        shard, _, shards = folder.name.partition("-of-")
        position = _position(folder, catalogue)
        if position is not None and shard.isdecimal() and shards.isdecimal():
            found.setdefault(int(shards), {})[int(shard)] = position
    complete = [min(each.values()) for shards, each in found.items() if len(each) == shards]
    return max(complete, default=None)


def _position(folder: Path, catalogue: Catalogue) -> int | None:
    try:
        store = LmdbStore(folder, TABLES, read_only=True, map_size=MAP_SIZE)
    except ArchiveError:
        return None
    try:
        return StateReader(store, catalogue.identities).position()
    except ArchiveError:
        return None
    finally:
        store.close()


def module_folder(state: Path, partition: int, module: str) -> Path:
    """Return where everything of a module lies; `state` is the folder of all states."""
    return state / str(partition) / module


def shard_folder(place: Path, generation: str, shard: int, shards: int) -> Path:
    """Return where the states of one shard lie; another number of shards never meets these files."""
    return place / generation / f"{shard}-of-{shards}"


def note_answer(place: Path, generation: str, shard: int, shards: int) -> None:
    """Leave word, where that is possible, that readers were given states of a generation in a shard."""
    with suppress(OSError):
        (place / generation / f"{ANSWERED}.{shard}.{shards}").touch(mode=0o600)


def has_answered(place: Path, generation: str, shard: int, shards: int) -> bool:
    """Return whether readers were given states of a generation: of this shard, or of all shards of another number."""
    found: dict[int, int] = {}
    for each in (place / generation).glob(f"{ANSWERED}.*.*"):
        _, number, count = each.name.split(".")
        if (number, count) == (str(shard), str(shards)):
            return True
        if count.isdecimal():
            found[int(count)] = found.get(int(count), 0) + 1
    return any(found[count] == count for count in found)


def read_catalogue(place: Path) -> Catalogue | None:
    """Return the catalogue in a module's folder, or None if there is none that can be read."""
    try:
        return msgspec.json.decode((place / FILE).read_bytes(), type=Catalogue)
    except (OSError, msgspec.DecodeError):
        return None


def write_catalogue(place: Path, catalogue: Catalogue) -> None:
    """Write a catalogue, whole or not at all, if it is not what stands there.

    The workers of all shards write the same; each does so under a name of its own first.
    """
    make_folder(place)
    if read_catalogue(place) != catalogue:
        new = place / f"{FILE}.{os.getpid()}"
        with naming(new):
            new.write_bytes(msgspec.json.encode(catalogue))
        new.replace(place / FILE)


def catalogues(state: Path, partition: int) -> Iterator[Catalogue]:
    """Yield the catalogue of each module that has states, by name."""
    root = state / str(partition)
    for place in sorted(root.iterdir()) if root.is_dir() else ():
        if (found := read_catalogue(place)) is not None:
            yield found


def without_catalogue(state: Path, partition: int) -> list[str]:
    """Return the names of folders that hold states, of which no catalogue says what they are."""
    root = state / str(partition)
    return [
        place.name
        for place in (sorted(root.iterdir()) if root.is_dir() else ())
        if read_catalogue(place) is None and any(place.glob("*/*-of-*"))
    ]


def tidy(place: Path, catalogue: Catalogue, shards: int) -> list[str]:
    """Remove what nobody reads any more, and return its names: older generations, and other numbers of shards."""
    kept = {catalogue.generation, catalogue.previous.generation if catalogue.previous else ""}
    gone = [each for each in place.iterdir() if each.is_dir() and each.name not in kept]
    current = place / catalogue.generation
    gone += [each for each in current.glob("*-of-*") if not each.name.endswith(f"-of-{shards}")]
    for each in gone:
        shutil.rmtree(each, ignore_errors=True)
    return sorted(each.name for each in gone)
