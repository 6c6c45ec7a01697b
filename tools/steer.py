"""treering retry, skip, undo: what a person decides about a module, as an entry of the log.

    $ treering retry essay                    a module that is parked, or that could not be loaded
    $ treering retry words 1207               a state that stands still at entry 1207: fold it again from the beginning
    $ treering skip words 1207                fold as if reducer words had never seen entry 1207
    $ treering skip --all 1207                the same for every reducer of the modules that wait at entry 1207
    $ treering undo essay                     let an older version of essay than the last one run

Each of them is one control entry (docs/formats/control.md), because states are a function of the log: a replay finds
the decision where the live workers found it.  The server must be running, since it is the archiver who writes.

An entry whose row is rotten can be skipped, too.  What is shown of an event is its index and its type: whoever operates
a server need not see what students wrote.

Exit codes: 0 it is in the log, 1 there is nothing to decide, 2 it could not be done.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from archive import (
    Activate,
    ActiveReducer,
    ArchiveError,
    DataFolder,
    DirectClient,
    FormatError,
    IntegrityError,
    InvalidEvent,
    Log,
    LogSource,
    NotFound,
    PublishedLog,
    PublishedSize,
    Retry,
    Skip,
    Steering,
    keys_of,
    open_row,
    parse_opening,
    parse_row,
    read_event,
)
from reducers import ModuleError, available
from replay import (
    STATUS_FILE,
    CellDied,
    Hello,
    ModuleStatus,
    catalogues,
    locked_fields,
    on_folder,
    read_status,
)
from tools.cell_link import CellLink
from tools.confine import readable_folders
from tools.console import PARTITION_HELP, exit_codes
from tools.data_flag import add_data
from tools.loading import gathered, spoken_to
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say
from tools.settings import MEMORY_MB
from tools.standing import QUARANTINED_MAX, quarantined, shelf_of

IMPORT_S = 60.0
RETRIES_SHOWN = 5
LISTED_MAX = 3
"""So many entries in a row are named one by one."""


def retry(argv: Sequence[str] | None = None) -> int:
    """Run `treering retry`."""
    made = _parser("retry", "Try a parked module again, or a state that stands still.")
    made.add_argument("name", help="a module, or a reducer")
    made.add_argument("index", type=int, nargs="?", help="the entry at which a reducer's state stands still")
    made.add_argument(
        "--force", action="store_true", help="write it though nothing seems to stand still there"
    )
    return _run(made.parse_args(argv), _retry)


def skip(argv: Sequence[str] | None = None) -> int:
    """Run `treering skip`."""
    made = _parser("skip", "Fold as if a reducer had never seen an entry.")
    made.add_argument("name", nargs="?", help="a reducer")
    made.add_argument("index", type=int, help="the entry that it passes over")
    made.add_argument(
        "--all", action="store_true", help="every reducer of the modules that wait at that entry"
    )
    arguments = made.parse_args(argv)
    if arguments.all == (arguments.name is not None):
        made.error("name a reducer, or say --all; not both")
    return _run(arguments, _skip_all if arguments.all else _skip)


def undo(argv: Sequence[str] | None = None) -> int:
    """Run `treering undo`."""
    made = _parser("undo", "Let an older version of a module run than the last one.")
    made.add_argument("name", help="a module, of which the older version is installed")
    return _run(made.parse_args(argv), _undo)


def _parser(command: str, about: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"treering {command}",
        epilog=exit_codes("it is in the log", "there is nothing to decide", "it could not be done"),
        description=about,
    )
    add_data(made)
    made.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    made.add_argument("--dry-run", action="store_true", help="only say what would be written")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


class _NothingToDo(Exception):
    """There is nothing to decide."""


Decide = Callable[[DataFolder, argparse.Namespace], tuple[Sequence[Steering], dict[str, Any]]]
"""Returns what is to be written, and what is said of it."""


def _run(arguments: argparse.Namespace, decide: Decide) -> int:
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        decided, about = decide(folder, arguments)
        if not arguments.dry_run:
            with DirectClient(folder.socket) as client:
                about["entries"] = [client.steer(one).index for one in decided]
            about["entry"] = about["entries"][-1]
    except _NothingToDo as nothing:
        say(str(nothing))
        return EXIT_FINDING
    except (ArchiveError, ModuleError, CellDied) as error:
        say(f"treering: {error}")
        return EXIT_USAGE
    if arguments.json:
        print(json.dumps(about))
    else:
        said = _said(about["entries"]) if "entries" in about else "nothing was written (--dry-run)"
        print(f"{about['decision']}: {said}")
    return EXIT_GOOD


def _said(entries: Sequence[int]) -> str:
    """Return which entries say what was decided.

    >>> _said([7]), _said([7, 8, 11]), _said([7, 8, 9, 10, 12, 13])
    ('entry 7 says so', 'entries 7, 8, 11 say so', 'entries 7 to 10, 12, 13 say so')
    """
    if len(entries) == 1:
        return f"entry {entries[0]} says so"
    rows: list[list[int]] = []
    for index in entries:
        if rows and index == rows[-1][-1] + 1:
            rows[-1].append(index)
        else:
            rows.append([index])
    shown = [f"{row[0]} to {row[-1]}" if len(row) > LISTED_MAX else ", ".join(map(str, row)) for row in rows]
    return f"entries {', '.join(shown)} say so"


def _retry(folder: DataFolder, arguments: argparse.Namespace) -> tuple[list[Steering], dict[str, Any]]:
    name = arguments.name
    if arguments.index is not None:
        about = _about(folder, name, arguments.index)
        if not (arguments.force or _stands_still(folder, about["module"], name, arguments.index)):
            raise _NothingToDo(
                f"no state of reducer {name} stands still at entry {arguments.index}: there is nothing to retry; "
                "treering doctor names what stands still, --force writes it all the same"
            )
        about["decision"] = f"reducer {name} is to fold what stands still at entry {arguments.index} again"
        return [Retry(reducer=name, index=arguments.index)], about
    statuses = _statuses(folder)
    if name not in statuses:
        known = ", ".join(sorted(statuses)) or "none"
        raise NotFound(
            f"there is no module {name!r} in this server; there are {known}. A reducer needs an index"
        )
    if statuses[name].state not in {"parked", "failed"}:
        raise _NothingToDo(_instead(folder, name, statuses[name]))
    return [Retry(module=name)], {"module": name, "decision": f"module {name} is to be tried again"}


def _instead(folder: DataFolder, name: str, status: ModuleStatus) -> str:
    """Return what to do about a module that is not stopped anywhere, whatever made somebody want to retry it."""
    if status.state == "pausing":
        return (
            f"module {name} is tried again by itself in a moment: there is nothing to retry (treering doctor)"
        )
    shelf = shelf_of(folder)
    still = {
        reducer: sorted(set(indices))
        for one in shelf.modules()
        if one.module == name
        for reducer, indices in quarantined(shelf, one).items()
    }
    on = on_folder(folder.path)
    keys = [f"treering retry {reducer} {at}{on}" for reducer, indices in still.items() for at in indices]
    if keys:
        shown = "; ".join(keys[:RETRIES_SHOWN])
        more = f" (and {len(keys) - RETRIES_SHOWN:,} more)" if len(keys) > RETRIES_SHOWN else ""
        return f"module {name} runs in every shard, but some of its states stand still: {shown}{more}"
    return (
        f"module {name} runs in every shard: there is nothing to retry. A version that you installed is run by the "
        f"next start of the server; whether its states are right says treering replay --check, what else is wrong "
        f"treering doctor"
    )


def _stands_still(folder: DataFolder, module: str, reducer: str, index: int) -> bool:
    """Return whether a state of `reducer`, or all of its module, stands still at an entry, as far as can be seen."""
    status = _statuses(folder).get(module)
    if status is not None and _waits_at(status, index):
        return True
    shelf = shelf_of(folder)
    found = [quarantined(shelf, one).get(reducer, []) for one in shelf.modules() if one.module == module]
    # Counting ends somewhere: beyond that nobody knows.
    return any(index in each or len(each) >= QUARANTINED_MAX for each in found)


def _skip(folder: DataFolder, arguments: argparse.Namespace) -> tuple[list[Steering], dict[str, Any]]:
    name, index = arguments.name, arguments.index
    about = _about(folder, name, index)
    kind = f" ({about['type']})" if about["type"] else ""
    about["decision"] = f"reducer {name} of module {about['module']} is to pass over entry {index}{kind}"
    if index in gathered(_source(folder)).skipped(name):
        raise _NothingToDo(f"reducer {name} passes over entry {index} already")
    return [Skip(name, index)], about


def _skip_all(folder: DataFolder, arguments: argparse.Namespace) -> tuple[list[Steering], dict[str, Any]]:
    """Return a skip for each reducer of the modules that wait at an entry: which of them needs it, nobody may know."""
    index, statuses = arguments.index, _statuses(folder)
    waiting = [name for name, one in statuses.items() if _waits_at(one, index)]
    if not waiting:
        raise _NothingToDo(f"no module waits at entry {index}; treering doctor says which one waits where")
    steering = gathered(_source(folder))
    names = [
        info.name
        for one in catalogues(folder.state, folder.partition)
        if one.module in waiting
        for info in one.reducers
        if index not in steering.skipped(info.name)
    ]
    if not names:
        raise _NothingToDo(f"all reducers of {', '.join(waiting)} pass over entry {index} already")
    about = _about(folder, names[0], index)
    kind = f" ({about['type']})" if about["type"] else ""
    decision = f"reducers {', '.join(names)} are to pass over entry {index}{kind}"
    return [Skip(name, index) for name in names], {
        "modules": waiting,
        "reducers": names,
        "index": index,
        "type": about["type"],
        "decision": decision,
    }


def _waits_at(status: ModuleStatus, index: int) -> bool:
    faults = [one.record.last for one in status.shards.values() if one.waits]
    return any(fault is not None and fault.index == index for fault in faults)


def _undo(folder: DataFolder, arguments: argparse.Namespace) -> tuple[list[Steering], dict[str, Any]]:
    name = arguments.name
    if name not in available():
        raise NotFound(f"module {name!r} is not installed; installed are {', '.join(sorted(available()))}")
    reducers = tuple(sorted(_installed(folder, name), key=lambda one: one.name))
    versions = {one.name: one.version for one in reducers}
    steering = gathered(_source(folder))
    active = steering.active(name)
    if active is None:
        raise _NothingToDo(f"module {name} was never active: there is nothing to undo")
    if set(active[1].reducers) == set(reducers):
        raise _NothingToDo(f"module {name} runs this version already: there is nothing to undo")
    if not any(versions.get(one.name, one.version) < one.version for one in active[1].reducers):
        raise _NothingToDo(
            f"of module {name} no older version is installed than the one that is active: install it first; "
            "what is newer becomes active when the server starts again"
        )
    shown = ", ".join(f"{reducer} {version}" for reducer, version in versions.items())
    about = {"module": name, "versions": versions, "decision": f"module {name} is to run {shown}"}
    # What came since the other version stopped is spoken for by this one: nothing is left unsaid (ADR 0050).
    since = spoken_to(folder.state, folder.partition, name, steering)
    return [Activate(name, reducers, since=since, undo=True)], about


def _installed(folder: DataFolder, name: str) -> list[ActiveReducer]:
    """Return the reducers of an installed module, whose code runs in a cell and never here."""
    link = CellLink(
        name,
        memory_mb=MEMORY_MB,
        seconds=IMPORT_S,
        readable=readable_folders(folder.path, available()[name].value),
    )
    try:
        hello: Hello = link.start()
    finally:
        link.close()
    return [ActiveReducer(one.name, one.version, one.scope, one.code_digest) for one in hello.reducers]


def _statuses(folder: DataFolder) -> dict[str, ModuleStatus]:
    """Return how the modules are; raise PermissionError for who may not see it, to whom it would look like none."""
    path = folder.run / STATUS_FILE
    with suppress(FileNotFoundError):
        path.open("rb").close()
    return read_status(path)


def _source(folder: DataFolder) -> LogSource:
    return PublishedLog(folder.open_log(), PublishedSize(folder.published).get)


def _about(folder: DataFolder, reducer: str, index: int) -> dict[str, Any]:
    """Return what an operator may see of an event and a reducer; raise NotFound if there is no such one."""
    there, source = list(catalogues(folder.state, folder.partition)), _source(folder)
    having = [one.module for one in there if any(info.name == reducer for info in one.reducers)]
    if not having:
        names = sorted({info.name for one in there for info in one.reducers})
        raise NotFound(f"there is no reducer {reducer!r}; there are {', '.join(names) or 'none'}")
    # What a module left under an old name has the reducer, too; the log says whose it is now.
    holder = gathered(source).holder(reducer)
    with source.open() as log:
        kind = type_at(folder, log, index)
    module = holder if holder in having else having[-1]
    return {"module": module, "reducer": reducer, "index": index, "type": kind}


def type_at(folder: DataFolder, log: Log, index: int) -> str:
    """Return the type of the event at `index`, "" if it cannot be read; raise NotFound if there is no event."""
    try:
        data = log.row(index)
        row = parse_row(data) if data else None
    except FormatError:
        return ""
    if row is None:
        raise NotFound(f"entry {index} is a control entry: no reducer ever sees it")
    vault = folder.open_vault(os.urandom)
    try:
        opened = parse_opening(open_row(row, vault.data_key(row.subjects)))
        header = opened.header
        event = read_event(
            index, header.form, header.source, keys_of(header), 0, opened.payload, locked_fields(opened)
        )
    except (NotFound, InvalidEvent, IntegrityError, FormatError):  # erased, no event, rotten
        return ""
    finally:
        vault.close()
    return event.type
