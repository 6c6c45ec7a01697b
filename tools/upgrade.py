"""treering upgrade: which versions are installed and active, and what would change if the installed took over.

    $ treering upgrade --data data
    writing: reconstruct 1 -> 2; at the next start it becomes active, and 25,537 entries are folded again
    activity: as installed
    $ treering upgrade --data data --diff --module writing
    reconstruct: 44 of 45 states are the same, 1 changed, 0 new, 0 gone
      {"doc_id":"essay","student":"ada"}
        $['text']: "helo" now, "hello" as installed

Nothing is changed by either.  `--diff` replays with the installed code to where the states stand, and compares it with
what is active: where that is the same, nothing would change, and nothing is replayed.  What a change did that has taken
place is told by `--before`: it compares with the states of the generation before, as long as they are kept.
States are compared by what they hold, whatever their version.

Exit codes: 0 nothing would change, or did (or only listed), 1 something would, or did, 2 it could not be told.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from archive import ArchiveError, DataFolder, LogSource
from reducers import Key, Module, ModuleError, ReducerError, available
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
from tools.loading import activation, gathered, identities, load_modules
from tools.offline import catalogues_of, log_of
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, quiet_collector, say
from tools.replay_check import unsettled
from tools.replay_hands import hands
from tools.replay_live import live_states
from tools.replay_plan import Options, Plan, made

SHOWN = 10
NOTHING_CHANGES = "nothing would change: what is installed is what runs (what the last change did: --before)"
NO_STATES_OF_BEFORE = "nothing to compare: no states of before the last change are kept"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering upgrade`."""
    parsed = argparse.ArgumentParser(
        prog="treering upgrade", description="Compare installed and active reducers."
    )
    add = parsed.add_argument
    add("--data", type=Path, default=Path("data"), help="the data folder, or a copy of it (default: ./data)")
    add("--partition", type=int, default=0)
    add("--module", action="append", default=[], help="only this module; may be given often")
    add(
        "--diff", action="store_true", help="replay with what is installed, and say which states would change"
    )
    add(
        "--before",
        action="store_true",
        help="like --diff, but held against the states of before the last change, as long as they are kept",
    )
    add(
        "--limit",
        type=int,
        default=SHOWN,
        help=f"how many changed keys to show of a reducer (default: {SHOWN})",
    )
    add(
        "--jobs",
        type=int,
        default=0,
        help="processes (default: one a processor, if there is that much to do)",
    )
    add("--states", type=Path, metavar="DIR", help="where the live states lie, if not in DATA/state")
    add("--json", action="store_true", help="print one JSON object")
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering upgrade`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        quiet_collector()
        return (_diff if arguments.diff or arguments.before else _list)(folder, arguments)
    except (ArchiveError, ReducerError) as error:
        say(f"treering upgrade: {error}")
        return EXIT_USAGE


# --- the list ------------------------------------------------------------------------------------


class Row(msgspec.Struct, omit_defaults=True):
    """One module: what is active, what is installed, and what the next start makes of it."""

    module: str
    what: str
    changes: list[str] = []


def _list(folder: DataFolder, arguments: argparse.Namespace) -> int:
    state = arguments.states or folder.state
    loaded = load_modules(arguments.module or available())
    with log_of(folder) as source:
        steering, size = gathered(source), source.published()
    there = catalogues_of(folder, state)
    rows = [_row(module, steering, there.get(module.name), size) for module in loaded.modules]
    rows += [Row(error.name, f"cannot be loaded: {error.reason}") for error in loaded.errors]
    known = {row.module for row in rows}
    for name in sorted((steering.activations.keys() | there.keys()) - known if not arguments.module else ()):
        rows.append(Row(name, "is not installed: its states stay as they are"))
    if arguments.json:
        print_json({"size": size, "modules": rows})
        return EXIT_GOOD
    for row in sorted(rows, key=lambda row: row.module):
        print(f"{row.module}: {'; '.join([*row.changes, row.what])}")
    return EXIT_GOOD


def _row(module: Module, steering: Gathered, there: Catalogue | None, size: int) -> Row:
    """Return what becomes of a module at the next start of a server that runs it."""
    changes = _changes(module, steering)
    try:
        entry = activation(module, steering)
    except ModuleError as error:
        return Row(module.name, f"would not start: {error.reason}", changes)
    generation = catalogue_of(module).generation
    if there is not None and generation == there.generation:
        what = "as installed" if entry is None else "at the next start it becomes active"
    elif there is not None and there.previous is not None and generation == there.previous.generation:
        what = "at the next start it becomes active, and goes on from the states of before"
    elif there is None:
        what = f"has no states yet; at the next start {number(size)} entries are folded"
    else:
        what = f"at the next start it becomes active, and {number(size)} entries are folded again"
    return Row(module.name, what, changes)


def _changes(module: Module, steering: Gathered) -> list[str]:
    active = steering.active(module.name)
    before = {one.name: one for one in active[1].reducers} if active is not None else {}
    found = []
    for one in module.reducers:
        old = before.pop(one.name, None)
        if old is None:
            found.append(f"{one.name} {one.version} is new")
        elif old.version != one.version:
            found.append(f"{one.name} {old.version} -> {one.version}")
        elif (old.code_digest, old.scope) != (one.code_digest, one.scope):
            found.append(f"{one.name} {one.version} has other code")
    return [*found, *(f"{name} is gone" for name in before)]


# --- the difference ------------------------------------------------------------------------------


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


def _diff(folder: DataFolder, arguments: argparse.Namespace) -> int:
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
    without = _without_states(folder, arguments)
    scopes = {one.name: one.scope for one in plan.registry}
    if arguments.json:
        against = {live.catalogue.module: live.catalogue.generation for live in lives}
        print_json(report(differ.effects, scopes, faults) | {"against": against, "without_states": without})
    else:
        show(differ.effects, scopes, theirs="before" if arguments.before else "now")
        for name in without:
            print(f"{name}: has no states yet; there is nothing to compare")
        if not (differ.effects or faults or without):
            print(NO_STATES_OF_BEFORE if arguments.before else NOTHING_CHANGES)
    for name, fault in sorted(faults.items()):
        say(f"treering upgrade: module {name}: {fault}")
    if any(one.changed or one.new or one.gone for one in differ.effects.values()):
        return EXIT_FINDING
    return EXIT_USAGE if faults else EXIT_GOOD


def _without_states(folder: DataFolder, arguments: argparse.Namespace) -> list[str]:
    """Return the modules that were asked about, else those that are installed, of which no states were ever begun."""
    there = catalogues_of(folder, arguments.states or folder.state)
    return sorted({*(arguments.module or available())} - there.keys())


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


def _standing(
    folder: DataFolder, source: LogSource, options: Options, *, before: bool
) -> tuple[Plan, list[Live], dict[str, str]]:
    """Return the plan of a replay with what is installed, the states to hold it against, and what stands in the way."""
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
    plan.modules = [module for module in plan.modules if module.name in names]
    plan.size = max((live.position for live in lives), default=0)
    return plan, lives, faults


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
