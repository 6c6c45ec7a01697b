"""Loading modules into a worker: what can run, and why the rest cannot.

A module that does not import, a reducer that is named like another module's, a version that went backwards: each is one
clear message, and the others run.  A version that is new is told to the log (`activate`), from where on it may emit
messages; going back takes an entry of its own (`treering undo`), because it must never happen by accident.

What a module is: `reducers.modules`.  What an activation does: `replay.steering`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from archive import Activate, ActiveReducer, DataFolder, LmdbStore, LogSource, write_whole
from reducers import BUILTIN, Module, ModuleError, ModuleRef, Reducer, available, load
from replay import (
    SHARDS_FILE,
    STATE_MAP_SIZE,
    STATE_TABLES,
    Ask,
    Catalogue,
    CellHolding,
    Gathered,
    Holding,
    catalogue_of,
    catalogues,
    module_folder,
    read_catalogue,
    shard_folder,
    stood_at,
    tidy,
    write_catalogue,
)
from tools.process import say


class WentBack(ModuleError):
    """An older version of a module is installed than the last one that ran."""


class Loaded(NamedTuple):
    """The modules that can run, and what is wrong with the others."""

    modules: list[Module]
    errors: list[ModuleError]


def load_modules(
    names: Iterable[str],
    taken: Mapping[str, str] = {},
    load: Callable[[ModuleRef], Module] = load,
    refs: Mapping[str, ModuleRef] | None = None,
) -> Loaded:
    """Load modules by name; one whose reducers are named like built-in ones, or are `taken` (`taken_by`), is left out.

    `refs` is what is installed, where that is known already.
    """
    refs, modules, errors = available() if refs is None else refs, list[Module](), list[ModuleError]()
    owners = {**taken, **_built_in()}
    for name in names:
        try:
            if name not in refs:
                raise ModuleError(name, f"is not installed; installed are {', '.join(sorted(refs))}")
            module = load(refs[name])
            for reducer in module.reducers:
                if owners.setdefault(reducer.name, name) != name:
                    raise ModuleError(name, _named_like(reducer.name, owners[reducer.name]))
        except ModuleError as error:
            errors.append(error)
        else:
            modules.append(module)
    return Loaded(modules, errors)


def _named_like(reducer: str, owner: str) -> str:
    """Return why a module whose reducer is named like one of another module cannot run, and what to do."""
    said = f"its reducer {reducer!r} is named like one of module {owner}"
    if owner in BUILTIN:
        return f"{said}, which comes with the server; pass another name="
    return (
        f"{said}, which is installed, too; uninstall one of the two, or pass another name= (where no server is to run "
        f"{owner} any more, moving the folder of its states away will do: docs/modules.md, Renaming)"
    )


def _built_in() -> dict[str, str]:
    """Return the module of each built-in reducer: nobody takes these names, whoever starts first."""
    places = ((name, place) for name, places in BUILTIN.items() for place in places)
    return {place.rpartition(":")[2]: name for name, place in places}


def identities(reducers: Iterable[Reducer]) -> tuple[ActiveReducer, ...]:  # type: ignore[type-arg]
    """Return reducers as an activation names them, by name."""
    found = [ActiveReducer(one.name, one.version, one.scope, one.code_digest) for one in reducers]
    return tuple(sorted(found, key=lambda one: one.name))


def activation(module: Module, steering: Gathered, since: int | None = None) -> Activate | None:
    """Return the entry that a module needs before it may emit messages, or None if it is active.

    `since` is up to where the code before it has spoken (`spoken_to`).  Raises WentBack if one of its versions is
    lower than the one that was active last.
    """
    ours, active = identities(module.reducers), steering.active(module.name)
    # Of a module that was renamed, and has its old name again, the other name was active last.
    own = all(steering.holder(one.name) in {None, module.name} for one in ours)
    if active is not None and own and set(active[1].reducers) == set(ours):
        return None
    before = steering.versions(module.name)
    for one in ours:
        if one.version < before.get(one.name, 0):
            raise WentBack(
                module.name,
                f"reducer {one.name} went back from version {before[one.name]} to {one.version}; install the newer "
                f"one, or say that it is meant: treering undo {module.name}",
            )
    return Activate(module.name, ours, since=since)


def spoken_to(state: Path, partition: int, name: str, steering: Gathered) -> int | None:
    """Return up to where the active reducers of a module have spoken: what came after waits for who comes after them.

    None if nothing was active, or if its states are gone or stand beyond the log, hence are of another: then the new
    code speaks from its activation on.
    """
    place, active = module_folder(state, partition, name), steering.active(name)
    catalogue = read_catalogue(place)
    if active is None or catalogue is None:
        return None
    were = sorted((one.name, one.version, one.code_digest) for one in active[1].reducers)
    for one in (catalogue, catalogue.previous):
        if one is not None and one.identities == were:
            stood = stood_at(place, one)
            return stood if stood is not None and stood <= steering.size else None
    return None


def gathered(source: LogSource) -> Gathered:
    """Return all steering of a log."""
    steering = Gathered()
    with source.open() as log:
        steering.extend(log)
    return steering


def taken_by(
    there: Iterable[Catalogue], names: Collection[str], installed: Collection[str], steering: Gathered
) -> dict[str, str]:
    """Return which names of reducers the modules `names` may not use, since another module that is installed has them.

    What a module left behind that is installed no more is nobody's; nor is what another one activated after it.
    """
    found = {}
    for one in there:
        if one.module in names or one.module not in installed:
            continue
        for info in one.reducers:
            holder = steering.holder(info.name)
            if holder in {None, one.module} or holder not in installed:
                found[info.name] = one.module
    return found


def owned(
    there: Iterable[Catalogue], names: Collection[str], installed: Collection[str], steering: Gathered
) -> dict[str, str]:
    """Return whose each reducer is where the modules `names` are looked at together, as far as it is one of theirs.

    It is the one of those installed that the log activated last or, if it activated none, that left states.
    """
    left = {info.name: one.module for one in there if one.module in installed for info in one.reducers}
    active = {one.name for known in steering.activations.values() for one in known[-1][1].reducers}
    held = {name: holder for name in active if (holder := steering.holder(name)) in installed}
    return {name: owner for name, owner in (left | held).items() if owner is not None and owner in names}


def load_owned(folder: DataFolder, state: Path | None, names: Collection[str], steering: Gathered) -> Loaded:
    """Load modules that are looked at together: of two that have a reducer of one name, the one whose it is (`owned`).

    `state` is where live states lie, if not in the data folder.
    """
    refs = available()
    owners = owned(catalogues(state or folder.state, folder.partition), names, refs, steering)
    return load_modules(names, owners, refs=refs)


def states_place(state: Path, partition: int, module: Module, shard: int, shards: int) -> Path:
    """Return where a module's states in one shard lie, having written its catalogue."""
    place = module_folder(state, partition, module.name)
    before = read_catalogue(place)
    catalogue = catalogue_of(module, before, whole=before is not None and stood_at(place, before) is not None)
    write_catalogue(place, catalogue)
    if not (state / SHARDS_FILE).exists():  # whoever removes all states while a server runs removes it, too
        write_whole(state / SHARDS_FILE, f"{shards}\n".encode())
    if shard == 0:
        tidy(place, catalogue, shards)
    return shard_folder(place, catalogue.generation, shard, shards)


def holding_at(folder: Path, module: Module, source: LogSource, ask: Ask | None = None) -> Holding:
    """Return what a shard holds of a module, gone on from what is saved in `folder`; `ask` asks its cell."""
    store = LmdbStore(folder, STATE_TABLES, map_size=STATE_MAP_SIZE)
    if ask is None:
        holding = Holding(module.reducers, store, module.name)
    else:
        holding = CellHolding(module.reducers, ask, store, module.name)
    with source.open() as log:
        holding.resume(log)
    if holding.begun_anew:
        say(
            f"states of module {module.name} in {folder} are not used: {holding.begun_anew}; they are made anew"
        )
    return holding
