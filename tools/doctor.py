"""treering doctor: what is wrong with a server, why, and the command that helps.

    $ treering doctor --data data
    good     server                 the archiver answers; the log has 25,537 entries
    FINDING  module essay, shard 1  parked: reducer words died at entry 1207: SIGSEGV
                                    treering skip words 1207
    ...

It looks at files, at the archiver's socket and at what the supervisor wrote down (run/modules.json), and asks the
server that runs, if one does, where its states are (`--server`).  It changes nothing, runs no module's code, and shows
nothing of any event but its index.  A server need not be running.

Exit codes: 0 all is good, 1 there are findings, 2 it cannot look.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx2

from api import SHARDS_FILE, Shelf, open_states, store_is_well
from archive import ArchiveError, DataFolder, LmdbStore, Log, LogSource, NotFound, PublishedSize, parse_leaf
from replay import STATUS_FILE, Catalogue, ModuleStatus, read_status
from tools.post import origin_of
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say

FREE_BYTES_MIN = 1 << 30
FREE_SHARE_MIN = 0.05
CLOCK_BEHIND_S = 60
LAG_MAX = 100_000
"""Entries that a module may be behind before it is a finding; a module that has just been installed is."""
SHOWN_KEYS = 5
SERVER = "http://127.0.0.1:8400"
ASK_S = 5.0
QUARANTINED_MAX = 10_000


@dataclass(frozen=True)
class Note:
    """One thing that was looked at: good, or a finding with what helps."""

    about: str
    text: str
    good: bool = True
    remedy: str = ""


Check = Callable[[DataFolder], Iterator[Note]]


def check_server(folder: DataFolder) -> Iterator[Note]:
    """Say whether the archiver answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(5.0)
        connection.connect(str(folder.socket))
    except OSError as error:
        yield Note(
            "server", f"the archiver does not answer ({error})", False, f"treering serve --data {folder.path}"
        )
    else:
        yield Note("server", "the archiver answers")
    finally:
        connection.close()


def check_log(folder: DataFolder) -> Iterator[Note]:
    """Say how large the log is, who reads it, and whether the clock agrees with it."""
    store = folder.open_log()
    try:
        size = published(folder)
        with store.view() as view:
            log = Log(view, size)
            newest_s = parse_leaf(log.leaf(size - 1)).time_s if size else 0
        yield Note("log", f"{size:,} entries are published")
        behind_s = newest_s - time.time()
        yield Note(
            "clock",
            f"the newest entry is {-behind_s:,.0f} s old"
            if behind_s < CLOCK_BEHIND_S
            else f"the clock is {behind_s:,.0f} s behind the newest entry",
            behind_s < CLOCK_BEHIND_S,
            ""
            if behind_s < CLOCK_BEHIND_S
            else "set the clock (timedatectl); new entries keep the log's time until then",
        )
        yield from _readers(store)
    finally:
        store.close()


def _readers(store: LmdbStore) -> Iterator[Note]:
    dead = sorted({pid for pid in store.readers() if not Path(f"/proc/{pid}").exists()})
    if dead:  # on an idle log it stays so, and harms nobody: only commits make the file grow
        text = f"{len(dead)} dead processes hold readers of the log (such as {dead[0]})"
        yield Note("readers", f"{text}; the archiver clears them within its next few hundred commits")
    else:
        yield Note("readers", "no dead process holds a reader of the log")


def check_disk(folder: DataFolder) -> Iterator[Note]:
    """Say how much room there is where log and states are."""
    for name, place in (("log", folder.log), ("states", folder.state)):
        usage = shutil.disk_usage(place)
        enough = usage.free > max(FREE_BYTES_MIN, FREE_SHARE_MIN * usage.total)
        remedy = "" if enough else "make room (docs/recovery.md, No space left); nothing has to be restarted"
        yield Note(
            f"disk of {name}", f"{usage.free >> 20:,} MiB of {usage.total >> 20:,} are free", enough, remedy
        )


def check_modes(folder: DataFolder) -> Iterator[Note]:
    """Say whether anybody else can read keys and names."""
    open_to_others = [
        path
        for place in (folder.path / "keys", folder.path / "vault")
        for path in (place, *place.iterdir())
        if path.stat().st_mode & 0o077
    ]
    for path in open_to_others:
        text = f"{path}: mode {path.stat().st_mode & 0o777:o} lets others read it"
        yield Note("keys", text, False, f"chmod go= {path}")
    if not open_to_others:
        yield Note("keys", "nobody else can read keys and vault")


def check_modules(folder: DataFolder) -> Iterator[Note]:
    """Say how each module is, how far it is in each shard, and which states stand still."""
    statuses = read_status(folder.run / STATUS_FILE)
    for name, status in sorted(statuses.items()):
        yield from _module(name, status)
    shelf, size = shelf_of(folder), published(folder)
    for catalogue in shelf.modules():
        waits = name_of_trouble(statuses.get(catalogue.module))
        for shard in range(shelf.shards):
            yield _position(shelf, catalogue, shard, size, excused=bool(waits))
        yield from _quarantined(shelf, catalogue)


def name_of_trouble(status: ModuleStatus | None) -> str:
    """Return in which state a module is that cannot be up to date, or nothing."""
    return status.state if status is not None and status.held else ""


def _module(name: str, status: ModuleStatus) -> Iterator[Note]:
    """Say what is wrong in each shard, once where several have the same trouble; else how it is."""
    troubles = {(one.reason(), one.remedy(name)): one for _, one in reversed(status.troubles)}
    for one in reversed(troubles.values()) if troubles else [status.worst]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.since_s))
        state, level, reason = one.record.state, one.record.level, one.reason()
        text = f"{state} ({level}) since {since}" + (f": {reason}" if reason else "")
        good = state in {"running", "starting"} and not reason
        if level == "cell" and status.confined and "files" not in status.confined:
            text += "; this kernel does not keep its cell from files (Landlock)"
        yield Note(f"module {name}", text, good, one.remedy(name))


def _position(shelf: Shelf, catalogue: Catalogue, shard: int, size: int, *, excused: bool) -> Note:
    about = f"{catalogue.module}, shard {shard}"
    position = shelf.position(catalogue, shard)
    if position is None:
        progress = shelf.rebuilding(catalogue, shard)
        how = "has no states yet" if progress is None else f"is rebuilt: {progress[0]:,} of {progress[1]:,}"
        return Note(about, how, excused or progress is not None, "" if excused else "see the module above")
    lag = size - position
    return Note(about, f"at {position:,}, {lag:,} entries behind", excused or lag <= LAG_MAX)


def _quarantined(shelf: Shelf, catalogue: Catalogue) -> Iterator[Note]:
    for name, indices in quarantined(shelf, catalogue).items():
        some = ", ".join(map(str, sorted(indices)[:SHOWN_KEYS]))
        more = "" if len(indices) <= SHOWN_KEYS else f" and {len(indices) - SHOWN_KEYS:,} more"
        text = f"{len(indices):,} states stand still, at entries {some}{more}"
        remedy = f"treering retry {name} INDEX (after a new version), or treering skip {name} INDEX"
        yield Note(f"reducer {name}", text, False, remedy)


def quarantined(shelf: Shelf, catalogue: Catalogue) -> dict[str, list[int]]:
    """Return at which entries states of a module stand still, by reducer."""
    found: dict[str, list[int]] = {}
    for shard in range(shelf.shards):
        reader = shelf.reader(catalogue, shard)
        for name, index in () if reader is None else reader.quarantined(QUARANTINED_MAX):
            found.setdefault(name, []).append(index)
    return found


def shelf_of(folder: DataFolder) -> Shelf:
    """Return the states of the server that ran last; raise NotFound if none ever did."""
    try:
        shards = int((folder.state / SHARDS_FILE).read_text())
    except (OSError, ValueError):
        raise NotFound(f"{folder.state}: there are no states yet; start the server once") from None
    names = list(read_status(folder.run / STATUS_FILE))
    return Shelf(folder.state, shards, open_states, names, folder.partition)


def published(folder: DataFolder) -> int:
    """Return the published size; raise NotFound if there is none."""
    return PublishedSize(folder.published).get()


def check_store(folder: DataFolder, server: str = SERVER) -> Iterator[Note]:
    """Say whether states are answered from where they should be, as the server says that runs on this folder.

    Another server may answer at that address: only one whose checkpoint names the same log is believed.
    """
    store = folder.open_log()
    try:
        ours = origin_of(LogSource(store, PublishedSize(folder.published).get))
    finally:
        store.close()
    try:
        with httpx2.Client(base_url=server, trust_env=False, timeout=ASK_S) as client:
            theirs = client.get("/log/checkpoint").text.partition("\n")[0]
            status = dict(client.get("/readyz").json()["states"]) if theirs == ours else {}
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        theirs, status = f"no answer ({type(error).__name__})", {}
    if not status:
        text = f"not asked: at {server} there is no server of this log ({theirs}); name it with --server"
        yield Note("state store", text)
        return
    good = store_is_well(str(status.get("state")))
    remedy = (
        "" if good else "see whether Redis runs and answers (docs/state-stores.md); it is filled by itself"
    )
    yield Note("state store", f"{status.get('store')}: {status.get('state')}", good, remedy)


CHECKS: tuple[Check, ...] = (check_server, check_log, check_disk, check_modes, check_modules)


def examined(folder: DataFolder, server: str = SERVER) -> list[Note]:
    """Return everything that was looked at; a check that cannot look is a finding."""
    notes: list[Note] = []
    checks = {check.__name__: check for check in CHECKS} | {
        "check_store": partial(check_store, server=server)
    }
    for name, check in checks.items():
        try:
            notes += check(folder)
        except (ArchiveError, OSError) as error:
            notes.append(Note(name.removeprefix("check_"), str(error), False))
    return notes


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering doctor`."""
    made = argparse.ArgumentParser(prog="treering doctor", description="Find what is wrong with a server.")
    made.add_argument("--data", type=Path, default=Path("data"))
    made.add_argument("--partition", type=int, default=0)
    made.add_argument("--server", default=SERVER, help=f"where the server answers (default: {SERVER})")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering doctor`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    if not folder.log.is_dir() or not os.access(folder.log, os.R_OK):
        say(f"treering doctor: {folder.log}: there is no log that can be read; name the folder with --data")
        return EXIT_USAGE
    notes = examined(folder, arguments.server)
    if arguments.json:
        print(json.dumps({"good": all(one.good for one in notes), "notes": [asdict(one) for one in notes]}))
    else:
        width = max(len(one.about) for one in notes)
        for one in notes:
            print(f"{'good' if one.good else 'FINDING':<8} {one.about:<{width}}  {one.text}")
            if one.remedy:
                print(f"{'':<8} {'':<{width}}  -> {one.remedy}")
    return EXIT_GOOD if all(one.good for one in notes) else EXIT_FINDING
