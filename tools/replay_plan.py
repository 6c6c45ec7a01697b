"""What a replay is to do: which modules, from where, up to which size, and where to stop on the way.

    plan = made(folder, source, options)

A module that cannot be loaded is left out and said (`plan.left_out`); the others are replayed.  How the log steers the
fold is read once, up to the size, and with it every attestation of a state that stands in it.

Who folds: `tools.replay_hands`.  What the outcome is held against: `tools.replay_check`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from archive import Attest, DataFolder, InvalidEvent, LogSource
from reducers import Module, ModuleError, Registry, available, compose
from replay import Catalogue, Gathered
from tools.loading import load_owned
from tools.offline import shards_of, size_at
from tools.replay_hands import Job

PROCESSES_FROM = 20_000
"""Entries from which on it pays to start processes."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    modules: Sequence[str] = ()
    reducers: Sequence[str] = ()
    until: str | None = None
    shards: int = 0
    """0: as many as hands."""
    jobs: int = 0
    """0: as many as there are processors, if there is that much to do."""
    snapshot: bool = False
    state: Path | None = None
    """Where live states lie, if not in the data folder."""


@dataclass
class Plan:
    """What will be done."""

    size: int
    whole: bool
    """Whether that is all that is published."""
    registry: Registry
    modules: list[Module]
    steering: Gathered
    root: bytes
    """The log's root at the size."""
    jobs: int
    shards: int
    left_out: list[ModuleError] = field(default_factory=list)
    attestations: list[tuple[int, Attest]] = field(default_factory=list)
    """(index, attestation) of these reducers, at this version and with this code."""
    other_attestations: int = 0
    """How many are of other versions or code, which cannot be checked with what is installed."""
    unjudged: dict[str, int] = field(default_factory=dict)
    """How many are of a reducer that nobody has left out, and no module that is installed has; by its name."""
    only_modules: bool = False
    """Whether modules were left out on purpose."""
    only_reducers: bool = False
    """Whether reducers were left out on purpose."""

    @property
    def names(self) -> list[str]:
        """Names of the reducers that are replayed."""
        return [one.name for one in self.registry]

    @property
    def modules_by_name(self) -> dict[str, Module]:
        """The modules that are replayed."""
        return {one.name: one for one in self.modules}

    def is_wanted(self, reducer: str) -> bool:
        """Return whether a reducer that is not replayed ought to be: nobody has left it out on purpose."""
        if self.only_reducers:
            return False
        return not self.only_modules or self.steering.holder(reducer) in self.modules_by_name

    def heirs(self, catalogue: Catalogue) -> list[str]:
        """Return the modules that took all reducers of another one over, say under another name; none: it has some."""
        holders = {self.steering.holder(info.name) for info in catalogue.reducers}
        return [] if holders & {None, catalogue.module} else sorted(filter(None, holders))

    def never_ran(self, module: str) -> bool:
        """Return whether the log says nothing of a module that is replayed: no server of it ever made it active."""
        reducers = {one.name for one in self.modules_by_name[module].reducers}
        attested = any(one.reducer in reducers for _, one in self.attestations)
        return self.steering.active(module) is None and not attested

    def leave(self, modules: Collection[str]) -> None:
        """Fold these modules not at all, unless there would be none."""
        if kept := [one for one in self.modules if one.name not in modules]:
            self.modules, (self.registry, _) = kept, compose(kept)

    def grow(self, source: LogSource, size: int) -> None:
        """Take in what came to the log meanwhile, up to `size`."""
        with source.open(size) as log:
            self.steering.extend(log)
            self.size, self.root = size, log.root()
        _note_attestations(self)

    def job(self, folder: DataFolder, options: Options, stops: Sequence[int]) -> Job:
        """Return the job of folding it, with a look at these sizes and at the end."""
        state = (options.state or folder.state) if options.snapshot else None
        return Job(
            folder.path,
            folder.partition,
            tuple(module.name for module in self.modules),
            tuple(options.reducers),
            tuple(sorted({*(size for size in stops if 0 < size <= self.size), self.size})),
            self.shards,
            state,
        )


def made(folder: DataFolder, source: LogSource, options: Options) -> Plan:
    """Return the plan; raise InvalidEvent for options that do not fit, NotFound if the log is shorter."""
    there = available()
    if unknown := [name for name in options.modules if name not in there]:
        raise InvalidEvent(
            f"--module {unknown[0]}: is not installed; installed are {', '.join(sorted(there))}"
        )
    published = source.published()
    size = published if options.until is None else size_at(source, options.until)
    steering = Gathered()
    with source.open(size) as log:
        steering.extend(log)
        root = log.root()
    names = options.modules or there
    loaded = load_owned(folder, options.state, names, steering)
    if any(isinstance(error.__cause__, KeyboardInterrupt) for error in loaded.errors):
        raise KeyboardInterrupt  # it is no fault of the module that was being imported just then
    registry, clashes = compose(loaded.modules)
    unfit = {error.name for error in clashes}
    modules = [one for one in loaded.modules if one.name not in unfit]
    if options.modules and not modules:
        raise InvalidEvent("; ".join(str(error) for error in [*loaded.errors, *clashes]))
    if options.reducers:
        registry, modules = _chosen(modules, options.reducers)
    jobs, shards = _divided(folder, options, size)
    plan = Plan(size, size == published, registry, modules, steering, root, jobs, shards)
    plan.left_out = [*loaded.errors, *clashes]
    plan.only_modules, plan.only_reducers = bool(options.modules), bool(options.reducers)
    _note_attestations(plan)
    return plan


def _chosen(modules: Sequence[Module], names: Sequence[str]) -> tuple[Registry, list[Module]]:
    """Return the reducers of these names, and the modules that have one of them."""
    registry = Registry()
    by_name = {one.name: (module, one) for module in modules for one in module.reducers}
    for name in dict.fromkeys(names):
        if name not in by_name:
            raise InvalidEvent(f"--reducer {name}: there is none; there are {', '.join(sorted(by_name))}")
        registry.register(by_name[name][1])
    return registry, [one for one in modules if any(each.name in registry for each in one.reducers)]


def _divided(folder: DataFolder, options: Options, size: int) -> tuple[int, int]:
    """Return (hands, shards)."""
    jobs = options.jobs or (len(os.sched_getaffinity(0)) if size >= PROCESSES_FROM else 1)
    if not options.snapshot:
        return jobs, options.shards or jobs
    saved = shards_of(options.state or folder.state)
    if options.shards not in {0, saved}:
        raise InvalidEvent(
            f"--shards {options.shards}: the snapshots are of {saved} shards; leave --shards out"
        )
    return jobs, saved


def _note_attestations(plan: Plan) -> None:
    plan.attestations, plan.other_attestations, plan.unjudged = [], 0, {}
    ours = {(one.name, one.version, one.code_digest) for one in plan.registry}
    names = set(plan.names)
    for index, one in plan.steering.attestations():
        if (one.reducer, one.version, one.code_digest) in ours:
            plan.attestations.append((index, one))
        elif one.reducer in names:
            plan.other_attestations += 1
        elif plan.is_wanted(one.reducer):
            plan.unjudged[one.reducer] = plan.unjudged.get(one.reducer, 0) + 1
