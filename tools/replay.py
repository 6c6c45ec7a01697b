"""treering replay: fold the log again; with --check, compare with what the workers hold and what the log attests.

    $ treering replay --data data --check
    attestations: 56 of 56 equal
    equal: 45 states of 4 reducers at size 25,537, state digest 1f0c…
    $ treering replay --data data --until 2026-01-15T09:00:00Z --reducer reconstruct --out texts.parquet
    $ echo '{"student":"ann"}' | treering replay --data data --reducer event_count --key - --until 1000

States are a function of the log: whoever replays it gets what the dashboards showed, or one of the two is broken.  The
result is the same for every number of shards (--shards) and processes (--jobs).  Live states are compared where they
stand, each module and shard at its own position; attestations at their sizes; all in one pass.

Exit codes: 0 equal (or nothing to compare), 1 something differs, 2 it could not be done, or not all of it compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence, Set
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from archive import ArchiveError, DataFolder, InvalidEvent, LogSource, NotFound, Unavailable
from reducers import VALUE_SIZE_MAX, Module, ReducerError, available
from replay import STATUS_FILE, Catalogue, Stop, read_status, without_catalogue
from tools.console import PARTITION_HELP, exit_codes, progress
from tools.data_flag import add_data
from tools.offline import catalogues_of, log_of
from tools.process import EXIT_GOOD, EXIT_USAGE, quiet_collector, say
from tools.replay_check import Check, report, show, stands_on
from tools.replay_hands import hands
from tools.replay_live import Taken, live_states
from tools.replay_out import writer
from tools.replay_plan import Options, Plan, made
from tools.settings import SECONDS_PER_EVENT, SHARDS_MAX, check_seconds

KEY_BYTES_MAX = 1 << 16


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering replay`."""
    made_parser = argparse.ArgumentParser(
        prog="treering replay",
        epilog=exit_codes(
            "equal, or nothing to compare",
            "something differs",
            "it could not be done, or not all of it compared",
        ),
        description="Fold the log again.",
    )
    add = made_parser.add_argument
    add_data(made_parser, "the data folder, or a copy of it")
    add("--partition", type=int, default=0, help=PARTITION_HELP)
    add("--check", action="store_true", help="compare with the live states, and with what the log attests")
    add("--until", metavar="SIZE|TIME", help="only so many entries, or those taken in by a time (RFC 3339)")
    add("--module", action="append", default=[], help="only this module; may be given often")
    add("--reducer", action="append", default=[], help="only this reducer; may be given often")
    add("--key", action="append", default=[], metavar="FIELD=VALUE",
        help="only this key of the one --reducer, all its fields; - reads JSON from standard input")  # fmt: skip
    add(
        "--from-snapshot",
        action="store_true",
        help="go on from what the workers saved, instead of from nothing",
    )
    add("--out", metavar="FILE", help="write the states: FILE.jsonl, FILE.parquet, or - for lines")
    add("--force", action="store_true", help="let --out replace a file that is there")
    add("--shards", type=int, default=0, help="fold as so many shards (default: one a process)")
    add(
        "--jobs",
        type=int,
        default=0,
        help="processes (default: one a processor, if there is that much to do)",
    )
    add("--seconds-per-event", type=float, default=SECONDS_PER_EVENT, metavar="S",
        help="end a module that takes longer for one event (default: %(default)s)")  # fmt: skip
    add("--states", type=Path, metavar="DIR", help="where the live states lie, if not in DATA/state")
    add("--json", action="store_true", help="print one JSON object")
    return made_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering replay`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        _fit(arguments)
        quiet_collector()
        return (_one if arguments.key else _all)(folder, arguments)
    except (ArchiveError, ReducerError) as error:
        say(f"treering replay: {error}")
        return EXIT_USAGE


def _fit(arguments: argparse.Namespace) -> None:
    """Raise InvalidEvent where options contradict one another."""
    for name in ("shards", "jobs"):
        if not 0 <= (number := getattr(arguments, name)) <= SHARDS_MAX:
            raise InvalidEvent(f"--{name} {number}: 1 to {SHARDS_MAX}, or 0 for what suits this machine")
    check_seconds(arguments.seconds_per_event, "--seconds-per-event")
    if arguments.check and arguments.from_snapshot:
        raise InvalidEvent(
            "--check starts from nothing, or it would prove nothing; leave --from-snapshot out"
        )
    if arguments.out not in {None, "-"} and not arguments.force and os.path.lexists(arguments.out):
        raise InvalidEvent(f"--out {arguments.out}: it is there already; name another file, or add --force")
    if arguments.check and arguments.key:
        raise InvalidEvent("--check compares all states; of one answer, use treering verify-state")
    if arguments.key and (len(arguments.reducer) != 1 or arguments.from_snapshot):
        raise InvalidEvent("--key takes one --reducer, and no --from-snapshot")


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        arguments.module,
        arguments.reducer,
        arguments.until,
        arguments.shards,
        arguments.jobs,
        arguments.from_snapshot,
        arguments.states,
    )


# --- all states ----------------------------------------------------------------------------------


def _all(folder: DataFolder, arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    check = _prepared(folder, options, check=arguments.check)
    plan = check.plan
    job = plan.job(folder, options, check.stops)._replace(seconds=arguments.seconds_per_event)
    about = {"size": str(plan.size), "root": plan.root.hex()}
    output = (
        nullcontext() if arguments.out is None else writer(arguments.out, plan.registry, plan.size, about)
    )
    with output as write, hands(job, plan.jobs) as team:
        with progress("replaying", None if options.snapshot else plan.size * plan.shards) as advance:
            team.sweep(check, advance)
        if write is not None:
            write(team.states())
    _say(check, arguments)
    return check.outcome


def _prepared(folder: DataFolder, options: Options, *, check: bool) -> Check:
    """Return what is to be folded and held against what; whatever it took to know is closed again."""
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        plan = made(folder, source, options)
        for error in plan.left_out:
            say(f"treering replay: {error}; left out")
        taken, why = None, ""
        if check:
            taken, why = _taken_or_not(folder, plan, options, source)
        made_check = Check(plan, taken, vault.route_key, attestations=check)
        made_check.notes += [why] if why else []
        made_check.notes += [] if taken is None else taken.notes
        made_check.incomplete += [] if taken is None else stands_on(source, taken.lives)
        return made_check


def _taken_or_not(
    folder: DataFolder, plan: Plan, options: Options, source: LogSource
) -> tuple[Taken | None, str]:
    """Return the live states or, where there are none to be compared, why: then attestations alone are judged."""
    state = options.state or folder.state
    if not plan.whole:
        return None, "live states stand at the end of the log, and were not compared"
    if options.state is None and not any(state.glob("*")):
        return None, f"no states were ever kept in {state} (a backup has none), and so none were compared"
    return _taken(folder, plan, options, source), ""


def _taken(folder: DataFolder, plan: Plan, options: Options, source: LogSource) -> Taken:
    """Return the live states of the modules that are replayed, and say which others there are."""
    state = options.state or folder.state
    there, ours = catalogues_of(folder, state), plan.modules_by_name
    taken = live_states(folder, state, [one for one in there.values() if one.module in ours], plan.size)
    narrowed = plan.only_modules or plan.only_reducers
    if not narrowed:
        _note_strangers(plan, there, taken, state / str(folder.partition))
    for name in without_catalogue(state, folder.partition):
        if name in ours or not narrowed:
            taken.missing[name] = (
                "there are live states, and its catalogue cannot be read; start the server, it is written anew"
            )
    bare = ours.keys() - there.keys() - taken.missing.keys()
    if not narrowed:
        bare -= _leave_idle(plan, bare, read_status(folder.run / STATUS_FILE), taken)
    for name in bare:
        if why := _why_none(plan, ours[name]):
            taken.missing[name] = why
    furthest = max((live.position for live in taken.lives), default=0)
    if plan.size < furthest <= source.published():  # the log has grown meanwhile
        plan.grow(source, furthest)
    return taken


def _note_strangers(plan: Plan, there: Mapping[str, Catalogue], taken: Taken, place: Path) -> None:
    """Take note of modules that have live states at a place, and are not replayed."""
    failed, installed = {error.name for error in plan.left_out}, available()
    for name in sorted(there.keys() - plan.modules_by_name.keys()):
        active = plan.steering.active(name)
        if heirs := plan.heirs(there[name]):
            whose = f"its reducers are those of {' and '.join(heirs)} now; its states answer nobody"
            taken.notes.append(f"module {name} is not replayed: {whose}")
        elif name in failed:
            taken.missing[name] = "it cannot be loaded, and has live states"
        elif name not in installed and (active is None or active[1].reducers):
            what = f"install it or, if it is not to come back, move {place / name} away"
            taken.missing[name] = f"it is not installed, and has live states; {what}"


def _leave_idle(plan: Plan, bare: Set[str], served: Collection[str], taken: Taken) -> set[str]:
    """Return which of the modules without live states the server does not run, so that nobody is shown any of them.

    Built-in ones are always installed, and settings may name others: what never ran is not even folded.  What ran once,
    and whose states were moved away, has attestations; that no server runs it any more tells only the status file.
    """
    never = {name for name in bare if plan.never_ran(name)}
    over = {name for name in bare - never if served and name not in served}
    for names, what in (
        (never, "never ran here"),
        (over, "do not run here any more, and have no live states"),
    ):
        if names:
            listed = ", ".join(sorted(names))
            taken.notes.append(
                f"there is nothing to compare of modules that are installed, and {what}: {listed}"
            )
    plan.leave(never)
    return never | over


def _why_none(plan: Plan, module: Module) -> str:
    """Return why nothing can be held against the states of a module that has no live ones; nothing, if none need be."""
    active = plan.steering.active(module.name)
    if not (module.reducers if active is None else active[1].reducers):
        return ""  # activated without reducers: it was switched off
    if active is not None:
        return "it is active, and has no live states; start the server, they are made anew"
    return (
        "it never ran on this server, and there is nothing to hold its states against; start the server, or name the "
        "others with --module"
    )


def _say(check: Check, arguments: argparse.Namespace) -> None:
    file = sys.stderr if arguments.out == "-" else sys.stdout
    if arguments.json:
        print(json.dumps(report(check)), file=file)
        return
    for line in show(check):
        print(line, file=file)
    verdict = "replayed"
    if arguments.check:
        partly = "NOT COMPARED: nothing to compare with" if check.nothing else "NOT ALL COMPARED"
        verdict = {EXIT_GOOD: "equal", EXIT_USAGE: partly}.get(check.outcome, "DIFFERENT")
    print(
        f"{verdict}: {check.states:,} states of {len(check.counted)} reducers at size {check.plan.size:,}, "
        f"state digest {check.digest}",
        file=file,
    )


# --- one key -------------------------------------------------------------------------------------


def _one(folder: DataFolder, arguments: argparse.Namespace) -> int:
    """Fold one key alone, and write its state: as a line on standard output, if nothing else is said."""
    with log_of(folder) as source:
        plan = made(folder, source, _options(arguments))
    (reducer,) = plan.registry
    key = _key(arguments.key, reducer.scope)
    job = plan.job(folder, _options(arguments), ())
    job = job._replace(shards=1, key=key, seconds=arguments.seconds_per_event)
    with hands(job, 1) as team:
        team.sweep(_no_stop, lambda _: None)
        found = list(team.states())
    if not found:
        raise NotFound(f"no event of this key in the first {plan.size} entries (skipped ones aside)")
    about = {"size": str(plan.size), "root": plan.root.hex()}
    with writer(arguments.out or "-", plan.registry, plan.size, about) as write:
        write(found)
    return EXIT_GOOD


def _no_stop(stop: Stop, _: object) -> None:
    """Raise Unavailable if the module could not go on."""
    for why in stop.stopped.values():
        raise Unavailable(f"reducer {why.reducer} stopped at entry {why.at}: {why.reason}")


def _key(given: Sequence[str], scope: tuple[str, ...]) -> tuple[str, ...]:
    """Return the key that FIELD=VALUE options, or a JSON object on standard input, name; all fields must be there."""
    if list(given) != ["-"] and (odd := [one for one in given if "=" not in one]):
        raise InvalidEvent(f"--key {odd[0]}: give it as FIELD=VALUE")
    fields = _read_key() if list(given) == ["-"] else [one.partition("=")[::2] for one in given]
    found = dict(fields)
    if set(found) != set(scope):
        wanted = ", ".join(f"{name}=…" for name in scope) or "no field: leave --key out"
        raise InvalidEvent(f"--key: this reducer takes {wanted}")
    if len(fields) > len(found):
        twice = next(name for name in scope if [each for each, _ in fields].count(name) > 1)
        raise InvalidEvent(f"--key: field {twice} stands more than once; give it once")
    for name, value in found.items():
        if not _is_text(value):
            raise InvalidEvent(
                f"--key: field {name} must be a text or a number, and no longer than 1,024 bytes"
            )
    return tuple(found[name] for name in scope)


def _read_key() -> list[tuple[str, Any]]:
    """Return the fields of a JSON object on standard input, in order; numbers as they are written."""
    try:
        made = json.loads(
            sys.stdin.buffer.read(KEY_BYTES_MAX), object_pairs_hook=_Fields, parse_int=str, parse_float=str
        )
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"--key -: no JSON object: {error}") from None
    if not isinstance(made, _Fields):
        raise InvalidEvent("--key -: no JSON object")
    return made


class _Fields(list[tuple[str, Any]]):
    """The members of a JSON object, each as often as it stands there."""


def _is_text(value: object) -> bool:
    """Return whether a value can be one of a key field."""
    try:
        return isinstance(value, str) and len(value.encode()) <= VALUE_SIZE_MAX
    except UnicodeEncodeError:  # half a character
        return False
