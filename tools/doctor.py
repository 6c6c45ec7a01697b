"""treering doctor: what is wrong with a server, why, and the command that helps.

    $ treering doctor --data data
    good     server                 the archiver answers; the log has 25,537 entries
    FINDING  module essay           parked (cell) since 2026-11-26 10:00:00: reducer words died at entry 1207: SIGSEGV
                                    -> treering retry essay --data data (once it is mended), or treering skip ...
    ...

It looks at files and at what the supervisor wrote down (run/modules.json), asks archiver and front whether they answer,
and the front where its states are (`tools.answering`).  It changes nothing, runs no module's code, and shows
nothing of any event but its index.  A server need not be running.

Exit codes: 0 all is good, 1 there are findings, 2 it cannot look.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from api import Shelf
from archive import (
    ArchiveError,
    DataFolder,
    LmdbStore,
    PublishedLog,
    PublishedSize,
    parse_leaf,
    remedy_of,
)
from replay import (
    STATUS_FILE,
    Catalogue,
    Endings,
    ModuleStatus,
    ShardStatus,
    alive_workers,
    damage_of,
    module_folder,
    on_folder,
    read_status,
    read_unsent,
    read_workers,
    shard_folder,
)
from tools.answering import SERVER, Note, check_front, check_server, is_address
from tools.console import PARTITION_HELP, exit_codes
from tools.data_flag import add_data
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, one_line, say
from tools.standing import quarantined, shelf_of

FREE_BYTES_MIN = 1 << 30
FREE_SHARE_MIN = 0.05
CLOCK_BEHIND_S = 60
LATE_S = 60.0
"""How old the first entry may be that a running module has not seen; whose states are just made is late, too."""
SHOWN_KEYS = 5
CHECKED_MAX = 100_000
"""States of a module and a shard that are looked at for damage: about a second."""


Check = Callable[[DataFolder], Iterator[Note]]


def check_log(folder: DataFolder) -> Iterator[Note]:
    """Say how large the log is, who reads it, and whether the clock agrees with it."""
    store = folder.open_log()
    try:
        size = published(folder)
        with PublishedLog(store, lambda: size).open() as log:
            newest_s = parse_leaf(log.leaf(size - 1)).time_s if size else 0
        yield Note("log", f"{size:,} entries are published")
        yield _clock(newest_s - time.time())
        yield from _readers(store)
    finally:
        store.close()


def _clock(ahead_s: float) -> Note:
    """Say how the newest entry's time stands to this clock: it may be a little ahead, and then it is not old."""
    if ahead_s >= CLOCK_BEHIND_S:
        text = f"the clock is {ahead_s:,.0f} s behind the newest entry"
        return Note(
            "clock", text, False, "set the clock (timedatectl); new entries keep the log's time until then"
        )
    if (seconds := round(ahead_s)) > 0:
        return Note("clock", f"the newest entry's time is {seconds} s ahead of this clock")
    return Note("clock", f"the newest entry is {-seconds:,} s old")


def _readers(store: LmdbStore) -> Iterator[Note]:
    dead = sorted({pid for pid in store.readers() if not Path(f"/proc/{pid}").exists()})
    if dead:  # on an idle log it stays so, and harms nobody: only commits make the file grow
        text = f"{len(dead)} dead processes hold readers of the log (such as {dead[0]})"
        yield Note("readers", f"{text}; the archiver clears them within its next few hundred commits")
    else:
        yield Note("readers", "no dead process holds a reader of the log")


def check_vault(folder: DataFolder) -> Iterator[Note]:
    """Say whether the vault is whole, and of the key that lies beside it."""
    folder.open_vault_store().close()
    if not _open_to_others(folder):  # such a key is refused: `check_modes` says what to do
        folder.open_vault(os.urandom).close()
        yield Note("vault", "its file is whole, and of this key")


def check_disk(folder: DataFolder) -> Iterator[Note]:
    """Say how much room there is where log and states are."""
    for name, place in (("log", folder.log), ("states", folder.state)):
        usage = shutil.disk_usage(place)
        least = max(FREE_BYTES_MIN, FREE_SHARE_MIN * usage.total)
        enough = usage.free > least
        remedy = "" if enough else "make room (docs/recovery.md, No space left); nothing has to be restarted"
        which = "1 GiB" if least == FREE_BYTES_MIN else f"{FREE_SHARE_MIN:.0%}"
        few = "" if enough else f": less than {which} is left"
        text = f"{usage.free >> 20:,} MiB of {usage.total >> 20:,} are free{few}"
        yield Note(f"disk of {name}", text, enough, remedy)


def check_modes(folder: DataFolder) -> Iterator[Note]:
    """Say whether anybody else can read keys and names."""
    open_to_others = _open_to_others(folder)
    for path in open_to_others:
        text = f"{path}: mode {path.stat().st_mode & 0o777:o} lets others read it"
        yield Note("keys", text, False, f"chmod go= {shlex.quote(str(path))}")
    if not open_to_others:
        yield Note("keys", "nobody else can read keys and vault")


def _open_to_others(folder: DataFolder) -> list[Path]:
    return [
        path
        for place in (folder.path / "keys", folder.path / "vault")
        for path in (place, *place.iterdir())
        if path.stat().st_mode & 0o077
    ]


def check_modules(folder: DataFolder) -> Iterator[Note]:
    """Say how each module is, how far it is in each shard, and which states stand still."""
    statuses = read_status(folder.run / STATUS_FILE)
    for name, status in sorted(statuses.items()):
        yield from _module(folder, name, status)
    shelf, size = shelf_of(folder), published(folder)
    workers = read_workers(folder.run)
    works = workers is not None and bool(alive_workers(workers).running)
    for catalogue in shelf.modules():
        excused = not works or bool(name_of_trouble(statuses.get(catalogue.module)))
        for shard in range(shelf.shards):
            yield _position(folder, shelf, catalogue, shard, size, excused=excused)
        yield from _damage(folder, shelf, catalogue)
        yield from _quarantined(folder, shelf, catalogue)
        lacking = shelf.lacking(catalogue)
        for info in shelf.stateless(catalogue):
            count, fields = lacking[info.name], ", ".join(info.scope)
            why = (
                f"{count:,} events lack a field of its scope"
                if count
                else "no event has all fields of its scope"
            )
            yield Note(f"module {catalogue.module}", f"no state yet of {info.name}: {why} ({fields})")


def name_of_trouble(status: ModuleStatus | None) -> str:
    """Return in which state a module is that cannot be up to date, or nothing."""
    return status.state if status is not None and status.held else ""


def _module(folder: DataFolder, name: str, status: ModuleStatus) -> Iterator[Note]:
    """Say what is wrong in each shard, once where several have the same trouble; else how it is."""
    data = folder.path
    troubles = {(_reason(one), one.remedy(name, data)): one for _, one in reversed(status.troubles)}
    for one in reversed(troubles.values()) if troubles else [status.worst]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.since_s))
        state, level, reason = one.record.state, one.record.level, _reason(one)
        text = f"{state} ({level}) since {since}" + (f": {reason}" if reason else "")
        good = state in {"running", "starting"} and not reason
        if level == "cell" and status.confined and "files" not in status.confined:
            text += "; this kernel does not keep its cell from files (Landlock)"
        yield Note(f"module {name}", text, good, one.remedy(name, data))


def _reason(one: ShardStatus) -> str:
    """Return why a module is not well in a shard; what is the matter with its worker `check_workers` says, once."""
    reason = one.reason()
    return "" if one.endings is not None and reason == one.endings.reason() else reason


UNSENT: dict[str, str] = {
    "conflict": "it is no function of the log: mend it, and give it a new version",
    "invalid": "mend what it says, and give it a new version",
    "hops": "modules answer each other without end: let one of them stop, in a new version",
}
"""What to do about messages that cannot be sent; of other kinds, nothing."""
EXPECTED: dict[str, str] = {
    "erased": "whom it is about was erased",
    "superseded": "it said something else before a skip or a retry, and what was said first stands",
}
"""Why messages are not in the log that should not be."""


def check_messages(folder: DataFolder) -> Iterator[Note]:
    """Say which messages of modules are not in the log, though they should be."""
    shelf = shelf_of(folder)
    found = read_unsent(folder.run, shelf.shards, shelf.modules())
    for (_, reducer, kind), one in sorted(found.items()):
        where = f"at entry {one.first}" + (f", last at entry {one.last}" if one.last != one.first else "")
        text = f"what it said at {one.count:,} entries is not in the log ({kind}), first {where}"
        about, remedy = f"reducer {reducer}", UNSENT.get(kind, "")
        why = one.detail or EXPECTED.get(kind, "")
        yield Note(about, f"{text}: {why}" if why else text, not remedy, remedy)
    if not found:
        yield Note("messages", "all that modules said is in the log")


def _position(
    folder: DataFolder, shelf: Shelf, catalogue: Catalogue, shard: int, size: int, *, excused: bool
) -> Note:
    about = f"{catalogue.module}, shard {shard}"
    position = shelf.position(catalogue, shard)
    if position is None:
        progress = shelf.rebuilding(catalogue, shard)  # None also where it cannot be read: `_damage` says so
        how = "has no states yet" if progress is None else f"is rebuilt: {progress[0]:,} of {progress[1]:,}"
        return Note(about, how, excused or progress is not None, "" if excused else "see the module above")
    lag, late_s = size - position, _unseen_s(folder, position, size)
    text = f"at {position:,}, {lag:,} entries behind" + (f", for {late_s:,.0f} s" if late_s else "")
    if excused or late_s <= LATE_S:
        return Note(about, text)
    return Note(
        about,
        text,
        False,
        "a backlog is worked off by itself; if it grows, look at its worker and the server's log",
    )


def _unseen_s(folder: DataFolder, position: int, size: int) -> float:
    """Return for how many seconds the first entry is in the log that a state has not seen; 0 if it has seen all."""
    if position >= size:
        return 0.0
    store = folder.open_log()
    try:
        with PublishedLog(store, lambda: size).open() as log:
            return max(0.0, time.time() - parse_leaf(log.leaf(position)).time_s)
    finally:
        store.close()


def _quarantined(folder: DataFolder, shelf: Shelf, catalogue: Catalogue) -> Iterator[Note]:
    """Say of each reducer which states stand still, with a command for each entry, as many as are shown."""
    for name, indices in quarantined(shelf, catalogue).items():
        entries = sorted(set(indices))
        some = ", ".join(map(str, entries[:SHOWN_KEYS]))
        more = "" if len(entries) <= SHOWN_KEYS else f" and {len(entries) - SHOWN_KEYS:,} more"
        text = f"{len(indices):,} states stand still, at entries {some}{more}"
        on = on_folder(folder.path)
        remedies = [
            f"treering retry {name} {at}{on} (after a new version), or treering skip {name} {at}{on}"
            for at in entries[:SHOWN_KEYS]
        ]
        yield Note(f"reducer {name}", text, False, remedies[0], tuple(remedies[1:]))


def _damage(folder: DataFolder, shelf: Shelf, catalogue: Catalogue) -> Iterator[Note]:
    """Say whether the states of a module can be read, as many of them as are looked at."""
    place = module_folder(folder.state, folder.partition, catalogue.module)
    for shard in range(shelf.shards):
        reader = shelf.reader(catalogue, shard)
        found = "" if reader is None else damage_of(reader.store, CHECKED_MAX)
        if not found and not shelf.damaged(catalogue, shard):
            continue
        where = shard_folder(place, catalogue.generation, shard, shelf.shards)
        about, what = f"{catalogue.module}, shard {shard}", found or "a reader complained of them"
        remove = f"rm -r {shlex.quote(str(where))}"
        yield Note(
            about,
            f"its stored states are damaged: {what}",
            False,
            f"a server that runs makes them anew once somebody reads them; else stop it, {remove}, start it",
        )


def published(folder: DataFolder) -> int:
    """Return the published size; raise NotFound if there is none."""
    return PublishedSize(folder.published).get()


def check_workers(folder: DataFolder) -> Iterator[Note]:
    """Say which worker is which process, who stands by, who ends again and again; of a server that is down, nothing."""
    known = read_workers(folder.run)
    if known is None:
        return
    for one in endings_in(read_status(folder.run / STATUS_FILE)):
        yield Note(one.worker, one.reason(), False)
    if not (found := alive_workers(known)).running:
        return
    who = [f"{name} is process {pid}" for name, pid in sorted(found.running.items())]
    spares = f"{len(found.spares)} of {found.spares_wanted} spares stand by"
    which = f" (process {', '.join(map(str, found.spares))})" if found.spares else ""
    yield Note("workers", "; ".join([*who, f"{spares}{which}"]))


def endings_in(statuses: Mapping[str, ModuleStatus]) -> list[Endings]:
    """Return the workers that end again and again, each once, by name: all modules of a worker tell of it."""
    found = {
        one.endings.worker: one.endings
        for each in statuses.values()
        for one in each.shards.values()
        if one.endings
    }
    return [found[name] for name in sorted(found)]


CHECKS: tuple[Check, ...] = (
    check_server,
    check_log,
    check_vault,
    check_disk,
    check_modes,
    check_workers,
    check_modules,
    check_messages,
)


def examined(folder: DataFolder, server: str | None = None) -> list[Note]:
    """Return everything that was looked at; a check that cannot look is a finding."""
    notes: list[Note] = []
    checks = {check.__name__: check for check in CHECKS} | {
        "check_front": partial(check_front, server=server)
    }
    for name, check in checks.items():
        try:
            notes += check(folder)
        except (ArchiveError, OSError) as error:
            remedy = remedy_of(getattr(error, "section", ""), folder.path)
            notes.append(Note(name.removeprefix("check_"), str(error), False, remedy))
    return notes


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering doctor`."""
    made = argparse.ArgumentParser(
        prog="treering doctor",
        epilog=exit_codes("all is good", "there are findings", "it cannot look"),
        description="Find what is wrong with a server.",
    )
    add_data(made)
    made.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    made.add_argument(
        "--server", help=f"where the server answers (default: where it said that it does, else {SERVER})"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering doctor`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    if not folder.log.is_dir() or not os.access(folder.log, os.R_OK):
        say(f"treering doctor: {folder.log}: there is no log that can be read; name the folder with --data")
        return EXIT_USAGE
    if arguments.server is not None and not is_address(arguments.server):
        say(f"treering doctor: --server {arguments.server}: not an address such as {SERVER}")
        return EXIT_USAGE
    notes = examined(folder, arguments.server)
    if arguments.json:
        shown = [{**asdict(one), "remedies": one.remedies} for one in notes]
        print(json.dumps({"good": all(one.good for one in notes), "notes": shown}))
    else:
        width = max(len(one.about) for one in notes)
        for one in notes:
            print(f"{'good' if one.good else 'FINDING':<8} {one.about:<{width}}  {one_line(one.text)}")
            for remedy in one.remedies:
                print(f"{'':<8} {'':<{width}}  -> {one_line(remedy)}")
    return EXIT_GOOD if all(one.good for one in notes) else EXIT_FINDING
