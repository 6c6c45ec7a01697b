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
How the two are compared: `tools.upgrade_diff`.

Exit codes: 0 nothing would change, or did (or only listed), 1 something would, or did, 2 it could not be told.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from archive import ArchiveError, DataFolder
from reducers import Module, ModuleError, ReducerError, available
from replay import Catalogue, Gathered, catalogue_of
from tools.console import PARTITION_HELP, exit_codes, number, print_json
from tools.data_flag import add_data
from tools.loading import activation, gathered, load_owned
from tools.offline import catalogues_of, log_of
from tools.process import EXIT_GOOD, EXIT_USAGE, quiet_collector, say
from tools.upgrade_diff import difference

SHOWN = 10


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering upgrade`."""
    parsed = argparse.ArgumentParser(
        prog="treering upgrade",
        epilog=exit_codes("nothing would change, or did", "something would, or did", "it could not be told"),
        description="Compare installed and active reducers.",
    )
    add = parsed.add_argument
    add_data(parsed, "the data folder, or a copy of it")
    add("--partition", type=int, default=0, help=PARTITION_HELP)
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
        return (difference if arguments.diff or arguments.before else _list)(folder, arguments)
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
    with log_of(folder) as source:
        steering, size = gathered(source), source.published()
    loaded = load_owned(folder, state, arguments.module or available(), steering)
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
