"""The warden: waits with those modules that run nowhere, until somebody says in the log that they are to run again.

    python -P -m tools.warden --data DIR

A module that is parked or failed has no worker that could read the log.  So this one process, which imports no module
and folds nothing, reads the control entries for all of them, and tells the supervisor who is meant:

    retry {module}                     that module
    retry or skip {reducer, index}     the module that has this reducer
    activate {module, undo}            that module: an older version was allowed

Who waits, and from which entry on, it reads from run/modules.json; when nobody waits any more, it ends.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from archive import (
    Activate,
    ArchiveError,
    DataFolder,
    LogSource,
    NotFound,
    Retry,
    Skip,
    Steering,
    Unavailable,
)
from replay import STATUS_FILE, Catalogue, Gathered, ModuleStatus, catalogues, read_status
from tools.process import EXIT_AGAIN, EXIT_GOOD, EXIT_STOP, say, with_times
from tools.reporting import Report, Reporter
from tools.wakeups import Wakeups
from tools.worker import open_source

POLL_S = 1.0
"""How often it looks: a person waits that long, at most."""


def waiting(statuses: Mapping[str, ModuleStatus]) -> dict[str, int]:
    """Return the modules that wait for a person, each with the first entry that a shard of it has not seen.

    Only those shards count that wait: one that runs may have been hired long ago, and has no need of any entry.
    """
    return {name: start for name, one in statuses.items() if (start := one.waits_from) is not None}


def meant(one: Steering, owners: Mapping[str, str]) -> str | None:
    """Return the module that a control entry wants to run again, or None; `owners` has it by reducer.

    >>> meant(Retry(reducer="words", index=7), {"words": "essay"}), meant(Retry(module="essay"), {})
    ('essay', 'essay')
    """
    if isinstance(one, Retry):
        return one.module if one.reducer is None else owners.get(one.reducer)
    if isinstance(one, Skip):
        return owners.get(one.reducer)
    return one.module if isinstance(one, Activate) and one.undo else None


def owners_of(there: Iterable[Catalogue], who: Collection[str]) -> dict[str, str]:
    """Return the module of each reducer of those that wait; another one may have left some behind that are named alike.

    >>> owners_of([], {"essay": 7})
    {}
    """
    return {info.name: one.module for one in there if one.module in who for info in one.reducers}


class Watch:
    """Reads each control entry once, however often it is asked, and remembers what people asked for.

    What somebody waits for may stand before what was read for others: then it begins again, from there.
    """

    def __init__(self) -> None:
        self._gathered: Gathered | None = None
        self._start = 0
        self._entries: list[tuple[int, Steering]] = []
        """Of those that may want a module to run again, with their indices."""

    def asked(self, source: LogSource, who: Mapping[str, int], owners: Mapping[str, str]) -> dict[str, int]:
        """Return those of `who` that are to run again, by the index of the last entry that says so.

        `who` gives the first entry that each has not seen.
        """
        start = min(who.values())
        if self._gathered is None or start < self._start:
            self._gathered, self._start, self._entries = Gathered(), start, []
            self._gathered.size = start
        with source.open() as log:
            fresh = self._gathered.extend(log)
        self._entries += [(index, one) for index, one in fresh if isinstance(one, Retry | Skip | Activate)]
        found: dict[str, int] = {}
        for index, one in self._entries:
            name = meant(one, owners)
            if name is not None and index >= who.get(name, index + 1):
                found[name] = index
        return found


def pause(wakeups: Wakeups, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
    """Wait that long, or until told to stop: an archiver that wakes all who sleep, changes nothing."""
    until = now() + seconds
    while not wakeups.stopped and (left := until - now()) > 0:
        wakeups.wait(left)


@with_times()
def main(argv: Sequence[str] | None = None) -> int:
    """Watch until nobody waits, or until told to stop."""
    parser = argparse.ArgumentParser(prog="tools.warden", description="Watch the log for parked modules.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", type=int, default=0)
    arguments = parser.parse_args(argv)
    reporter = Reporter(os.dup(1))
    folder = DataFolder(arguments.data, arguments.partition)
    wakeups, watch = Wakeups(folder.socket), Watch()
    try:
        source = open_source(folder, wakeups)
        if source is None:
            return EXIT_GOOD
        reporter.ready()
        while not wakeups.stopped and (who := waiting(read_status(folder.run / STATUS_FILE))):
            owners = owners_of(catalogues(folder.state, folder.partition), who)
            if found := watch.asked(source, who, owners):
                reporter.tell(Report(retry=found))
            pause(wakeups, POLL_S)
    except (Unavailable, NotFound) as error:
        say(f"warden: {error}")
        return EXIT_AGAIN
    except ArchiveError as error:
        say(f"warden stopped: {error}")
        return EXIT_STOP
    return EXIT_GOOD


if __name__ == "__main__":
    sys.exit(main())
