"""What would become of each state if the installed reducers took over: a replay, held against the states that stand.

    $ treering upgrade --data data --diff --module writing
    reconstruct: 44 of 45 states are the same, 1 changed, 0 new, 0 gone

Each shard of a module stands at a size of its own.  So there is one replay, as far as the furthest of them has come,
and it stops at each of these sizes: what stands there is compared then, by what it holds, whatever its version.
`Differ` compares; it starts nothing, and can be given any stops and entries.

The command, and what it lists without `--diff`: `tools.upgrade`.  Who folds: `tools.replay_hands`.  How states that
stand are read: `tools.replay_live`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from archive import DataFolder, LogSource
from reducers import Key, Module, available
from replay import (
    At,
    Catalogue,
    Entries,
    Entry,
    Gathered,
    Live,
    Stop,
    catalogue_of,
    differing_encodings,
)
from tools.console import number, print_json, progress
from tools.loading import identities
from tools.offline import catalogues_of, log_of
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say
from tools.replay_check import unsettled
from tools.replay_hands import hands
from tools.replay_live import live_states
from tools.replay_plan import Options, Plan, made

NOTHING_CHANGES = "nothing would change: what is installed is what runs (what the last change did: --before)"
NO_STATES_OF_BEFORE = "nothing to compare: no states of before the last change are kept"


def difference(folder: DataFolder, arguments: argparse.Namespace) -> int:
    """Carry out `treering upgrade --diff` or `--before`: compare, print what was found, return the exit code."""
    options = Options(arguments.module, jobs=arguments.jobs, state=arguments.states)
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        plan, lives, faults = _standing(folder, source, options, before=arguments.before)
        installed = {module.name: [one.name for one in module.reducers] for module in plan.modules}
        differ = Differ(lives, installed, vault.route_key, arguments.limit)
    if lives:
        job = plan.job(folder, options, [live.position for live in lives])._replace(encodings=True)
        with hands(job, plan.jobs) as team, progress("replaying", plan.size * plan.shards) as advance:
            team.sweep(differ, advance)
    faults |= differ.faults
    _tell(folder, arguments, plan, lives, differ.effects, faults)
    if any(one.changed or one.new or one.gone for one in differ.effects.values()):
        return EXIT_FINDING
    return EXIT_USAGE if faults else EXIT_GOOD


def _tell(
    folder: DataFolder,
    arguments: argparse.Namespace,
    plan: Plan,
    lives: Sequence[Live],
    effects: Mapping[str, Effect],
    faults: Mapping[str, str],
) -> None:
    """Print what was found, for people or as JSON; what could not be compared is said on the error stream, too."""
    without = _without_states(folder, arguments)
    scopes = {one.name: one.scope for one in plan.registry}
    if arguments.json:
        against = {live.catalogue.module: live.catalogue.generation for live in lives}
        print_json(report(effects, scopes, faults) | {"against": against, "without_states": without})
    else:
        show(effects, scopes, theirs="before" if arguments.before else "now")
        for name in without:
            print(f"{name}: has no states yet; there is nothing to compare")
        if not (effects or faults or without):
            print(NO_STATES_OF_BEFORE if arguments.before else NOTHING_CHANGES)
    for name, fault in sorted(faults.items()):
        say(f"treering upgrade: module {name}: {fault}")


def _without_states(folder: DataFolder, arguments: argparse.Namespace) -> list[str]:
    """Return the modules that were asked about, else those that are installed, of which no states were ever begun."""
    there = catalogues_of(folder, arguments.states or folder.state)
    return sorted({*(arguments.module or available())} - there.keys())


# --- what is compared ----------------------------------------------------------------------------


def _standing(
    folder: DataFolder, source: LogSource, options: Options, *, before: bool
) -> tuple[Plan, list[Live], dict[str, str]]:
    """Return the plan of a replay with what is installed, the states to hold it against, and what stands in the way.

    It is a plan of those modules alone that can be compared, and reaches no further than their states do.
    """
    plan, state = made(folder, source, options), options.state or folder.state
    there = catalogues_of(folder, state)
    found = (_base(one, there.get(one.name), plan.steering, before=before) for one in plan.modules)
    bases = [base for base in found if base is not None]
    taken = live_states(folder, state, bases, 0, encodings=True)
    faults = {error.name: error.reason for error in plan.left_out if error.name in there}
    faults |= taken.missing
    for live in taken.lives:
        if (fault := unsettled(plan, live)) is not None:
            faults[live.catalogue.module] = fault
    lives = [live for live in taken.lives if live.catalogue.module not in faults]
    names = {live.catalogue.module for live in lives}
    modules = [module for module in plan.modules if module.name in names]
    size = max((live.position for live in lives), default=0)
    return replace(plan, modules=modules, size=size), lives, faults


def _base(module: Module, there: Catalogue | None, steering: Gathered, *, before: bool) -> Catalogue | None:
    """Return the generation to hold what is installed against: the active one, or the one before; None: there is none.

    None also where what is installed is what is active.
    """
    if there is None or before:
        return None if there is None else there.previous
    if there.generation != catalogue_of(module).generation:
        return there
    active = steering.active(module.name)
    if active is not None and set(active[1].reducers) == set(identities(module.reducers)):
        return None
    return there.previous  # a start has begun to go over, and has not activated it


# --- comparing -----------------------------------------------------------------------------------


@dataclass
class Effect:
    """What would become of the states of one reducer."""

    same: int = 0
    changed: int = 0
    new: int = 0
    gone: int = 0
    shown: list[tuple[Key, list[At]]] = field(default_factory=list)


class Differ:
    """Compares a replay with states that stand, at the sizes at which they do.

    `installed` are the reducers of each module as it is installed.
    """

    def __init__(
        self, lives: Sequence[Live], installed: Mapping[str, Sequence[str]], route_key: bytes, limit: int
    ) -> None:
        self.effects: dict[str, Effect] = {}
        self.faults: dict[str, str] = {}
        """Why a module could not be compared."""
        self._lives, self._installed, self._route_key, self._limit = lives, installed, route_key, limit

    def __call__(self, stop: Stop, entries: Mapping[str, Entries]) -> None:
        """Compare what stands at this stop."""
        for name, why in stop.stopped.items():
            self.faults[name] = f"as installed, reducer {why.reducer} stops at entry {why.at}: {why.reason}"
        for live in self._lives:
            if live.position == stop.size and live.catalogue.module not in stop.stopped:
                self._compare(live, entries)

    def _compare(self, live: Live, entries: Mapping[str, Entries]) -> None:
        before = _by_name(live.entries)
        scopes = {info.name: info.scope for info in live.catalogue.reducers}
        for name in sorted({*scopes, *self._installed[live.catalogue.module]}):
            after = {
                key: entry
                for (_, _, key), entry in entries.get(name, {}).items()
                if self._is_of(live, name, key, scopes.get(name))
            }
            self._count(name, before.get(name, {}), after)

    def _is_of(self, live: Live, name: str, key: Key, scope: tuple[str, ...] | None) -> bool:
        """Return whether a key of the replay is to be held against this shard.

        A key of another shape than those that stand belongs to none of them, and is counted once, with the first.
        """
        if scope is None or len(scope) != len(key):
            return live.shard == 0
        return live.holds(name, key, self._route_key)

    def _count(self, name: str, before: Mapping[Key, Entry], after: Mapping[Key, Entry]) -> None:
        effect = self.effects.setdefault(name, Effect())
        for key in sorted(before.keys() | after.keys()):
            old, new = before.get(key), after.get(key)
            if old is None:
                effect.new += 1
            elif new is None:
                effect.gone += 1
            elif (old.encoding, old.error_index) == (new.encoding, new.error_index):
                effect.same += 1
            else:
                effect.changed += 1
                if len(effect.shown) < self._limit:
                    effect.shown.append((key, _places(new, old)))


def _by_name(entries: Entries) -> dict[str, dict[Key, Entry]]:
    found: dict[str, dict[Key, Entry]] = {}
    for (name, _, key), entry in entries.items():
        found.setdefault(name, {})[key] = entry
    return found


def _places(new: Entry, old: Entry) -> list[At]:
    assert new.encoding is not None
    assert old.encoding is not None
    places = differing_encodings(new.encoding, old.encoding)
    if new.error_index != old.error_index:
        places.insert(0, At("quarantined", new.error_index, old.error_index))
    return places


# --- telling it ----------------------------------------------------------------------------------


def report(
    effects: Mapping[str, Effect], scopes: Mapping[str, tuple[str, ...]], faults: Mapping[str, str]
) -> dict[str, Any]:
    """Return the result as JSON; `ours` is what is installed, `theirs` what stands."""
    return {
        "reducers": [
            {
                "reducer": name,
                **{what: getattr(one, what) for what in ("same", "changed", "new", "gone")},
                "shown": [
                    {
                        "key": dict(zip(scopes.get(name, ()), key, strict=False)),
                        "places": [at.as_json() for at in places],
                    }
                    for key, places in one.shown
                ],
            }
            for name, one in sorted(effects.items())
        ],
        "not_compared": faults,
    }


def show(effects: Mapping[str, Effect], scopes: Mapping[str, tuple[str, ...]], theirs: str) -> None:
    """Print the result for people; `theirs` is what the states are called that stand."""
    for name, one in sorted(effects.items()):
        total = one.same + one.changed + one.gone
        same = f"{number(one.same)} of {number(total)} states are the same"
        print(
            f"{name}: {same}, {number(one.changed)} changed, {number(one.new)} new, {number(one.gone)} gone"
        )
        for key, places in one.shown:
            print(f"  {msgspec.json.encode(dict(zip(scopes.get(name, ()), key, strict=False))).decode()}")
            for at in places:
                print(f"    {at.path}: {at.shown(at.theirs)} {theirs}, {at.shown(at.ours)} as installed")
