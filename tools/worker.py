"""A reducer worker as a process: one shard of some modules, tailing the log.

    python -m tools.worker --data DIR --shard 0 --shards 2 --module activity --module writing

It sleeps until the archiver wakes it (or a second passes: wake-ups may be lost), reads to the end of the
published log, and writes its states behind: at most every 20 ms when the log trickles, every half second
when it is far behind.  Told to stop, it folds the little that is left, or saves where it stands: the position is part
of the states, and the next start goes on from there.

With `--spare` it waits for these arguments on its standard input (`tools.spare`).

Exit codes: 0 drained, 3 must not be started again by a machine, 4 try again shortly.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from archive import (
    ArchiveError,
    DataFolder,
    DirectClient,
    LogSource,
    NotFound,
    PublishedLog,
    PublishedSize,
    Unavailable,
    Vault,
)
from replay import LEVELS, CellDied, Crew, Unsent
from tools.attester import Attester
from tools.post import RETRY_S, Post, origin_of, time_of
from tools.process import (
    EXIT_AGAIN,
    EXIT_GOOD,
    EXIT_STOP,
    exit_of,
    name_process,
    quiet_collector,
    say,
    with_times,
)
from tools.reporting import Report, Reporter
from tools.roster import Roster
from tools.settings import MEMORY_MB, SECONDS_PER_EVENT
from tools.spare import COLD, SPARE, Warm, stand_by
from tools.stores import mirroring
from tools.ticker import Ticker
from tools.wakeups import Wakeups

SAVE_EVERY_S = 0.02
SAVE_BEHIND_EVERY_S = 0.5
BEHIND = 1_000
"""A worker that finds so many entries at once is behind, and does better to fold than to save."""
POLL_S = 1.0
START_WAIT_S = 30.0
START_POLL_S = 0.02
REASON_MAX = 500
CATCH_UP_S = 2.0
"""How long a worker that must stop goes on folding; the supervisor kills it after `tools.children.DRAIN_S`."""


class Duties(NamedTuple):
    """What a worker does beside folding."""

    post: Post | None = None
    """Brings what modules say to the log, before positions are saved; logs ticks."""
    after_save: Sequence[Callable[[Crew], None]] = ()
    settle: Callable[[Crew], bool] = lambda _: False
    """Lets go whom the crew stopped; returns whether the worker should end (`tools.roster`)."""
    idle: Callable[[Crew], None] = lambda _: None
    """Done when there is nothing to fold: what waits for others is looked after then, too."""

    def deliver(self, crew: Crew) -> bool:
        """Deliver messages; return whether none is left, so that more may be folded, and positions saved."""
        return self.post is None or self.post.deliver(crew)

    def tick(self, crew: Crew) -> float:
        """Log the ticks that are due; return after how many seconds to look again."""
        wait_s = None if self.post is None else self.post.tick(crew, time.time())
        return POLL_S if wait_s is None else wait_s


NO_DUTIES = Duties()


def tail(crew: Crew, source: LogSource, wakeups: Wakeups, duties: Duties = NO_DUTIES) -> None:
    """Fold the log as it grows, until stopped; the last save is made on the way out.

    States that find no space on the disk stay in memory, and are saved as soon as there is some.  While a message
    cannot be delivered, nothing is folded and no position is saved.
    """
    saved_at, full, delivered = 0.0, False, True
    while not wakeups.stopped:
        taken = crew.step(source) if delivered else 0
        if duties.settle(crew):
            break
        delivered, idle_s = duties.deliver(crew), duties.tick(crew)
        now = time.monotonic()
        every = POLL_S if full else SAVE_BEHIND_EVERY_S if taken >= BEHIND else SAVE_EVERY_S
        if delivered and crew.unsaved and (crew.to_attest or now - saved_at >= every):
            full = not _saved(crew, source, duties, say_so=not full)
            saved_at = now
        if not delivered:
            wakeups.wait(RETRY_S)
        elif taken:
            wakeups.wait(0)  # only looks: who has much to do must notice, too, that the supervisor is gone
        else:
            duties.idle(crew)
            save_s = saved_at + (POLL_S if full else SAVE_EVERY_S) - now if crew.unsaved else POLL_S
            wakeups.wait(min(save_s, idle_s))
    _wind_up(crew, source, duties)


def _wind_up(crew: Crew, source: LogSource, duties: Duties) -> None:
    """Fold the little that is left, and save; what cannot be delivered any more is folded again by the next start."""
    if not duties.deliver(crew):
        return
    if crew.unsaved:
        crew.save(source)
    give_up_at = time.monotonic() + CATCH_UP_S
    while not crew.to_attest and crew.step(source) > 0:  # what is attested is noted by the next start
        if not duties.deliver(crew) or time.monotonic() >= give_up_at:
            break
    if duties.deliver(crew):
        crew.save(source)


def _saved(crew: Crew, source: LogSource, duties: Duties, *, say_so: bool) -> bool:
    try:
        crew.save(source)
        for do in duties.after_save:
            do(crew)
    except Unavailable as error:
        if say_so:
            say(f"worker: states are kept in memory until they can be saved: {error}")
        return False
    return True


def open_source(folder: DataFolder, wakeups: Wakeups) -> LogSource | None:
    """Return the log to read, waiting for the archiver to make it and to speak, or None once stopped.

    What is published is a word that nobody syncs: after a power cut it may be older than states that were saved, which
    would then seem to be of another log.  An archiver that has spoken has set it.  Raises NotFound if it does not make
    the log, Unavailable if it does not speak.
    """
    deadline = time.monotonic() + START_WAIT_S
    source: LogSource | None = None
    while not wakeups.stopped:
        try:
            source = source or PublishedLog(folder.open_log(), PublishedSize(folder.published).get)
            if wakeups.heard:
                return source
            if time.monotonic() > deadline:
                raise Unavailable("the archiver does not answer; it is started again")
        except NotFound:
            if time.monotonic() > deadline:
                raise
        wakeups.wait(START_POLL_S)
    return None


def posted(folder: DataFolder, source: LogSource, vault: Vault, shard: int) -> Post:
    """Return what delivers the messages of a shard; that of shard 0 logs the ticks, too."""
    ticker = Ticker(partial(time_of, source)) if shard == 0 else None
    unsent = Unsent(folder.run, shard)
    return Post(DirectClient(folder.socket), origin_of(source), vault.name, ticker=ticker, unsent=unsent)


def parser() -> argparse.ArgumentParser:
    """Return the parser of a worker's arguments."""
    made = argparse.ArgumentParser(prog="tools.worker", description="Reduce one shard of a log.")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--partition", type=int, default=0)
    made.add_argument("--shard", type=int, required=True)
    made.add_argument("--shards", type=int, required=True)
    made.add_argument("--module", action="append", default=[], help="a module to run; may be given often")
    made.add_argument("--name", default="worker", help="name of the file that says what is being run")
    made.add_argument("--level", choices=LEVELS, default="shared", help="how modules are kept apart")
    made.add_argument("--careful", action="store_true", help="ask a cell about one event at a time")
    made.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="what modules may take, MiB")
    made.add_argument("--seconds", type=float, default=SECONDS_PER_EVENT, help="what an event may take")
    return made


@with_times()
def main(
    argv: Sequence[str] | None = None,
    reporter: Reporter | None = None,
    warm: Warm = COLD,
) -> int:
    """Run the worker of one shard; `warm` is what a spare has done already."""
    arguments = parser().parse_args(argv)
    reporter = Reporter(os.dup(1)) if reporter is None else reporter
    folder = DataFolder(arguments.data, arguments.partition)
    wakeups = Wakeups(folder.socket)
    try:
        source = open_source(folder, wakeups)
        if source is None:
            return EXIT_GOOD
        return work(folder, source, wakeups, arguments, reporter, warm)
    except (Unavailable, NotFound) as error:
        say(f"worker {arguments.shard}: {error}")
        return EXIT_AGAIN
    except ArchiveError as error:
        say(f"worker {arguments.shard} stopped: {error}")
        reporter.tell(Report(failed={name: str(error)[:REASON_MAX] for name in arguments.module}))
        return EXIT_STOP
    except OSError as error:
        say(f"worker {arguments.shard}: {error}")
        return exit_of(error)


def work(
    folder: DataFolder,
    source: LogSource,
    wakeups: Wakeups,
    arguments: argparse.Namespace,
    reporter: Reporter,
    warm: Warm = COLD,
) -> int:
    """Hire, fold until told to stop, and leave; return the exit code."""
    vault = folder.open_vault(os.urandom)
    roster = Roster(folder, source, arguments, reporter, warm)
    try:
        crew = roster.crew(vault)
        attester = Attester(folder, arguments.shard, arguments.shards)
        attester.note(crew)  # the last worker may have ended between a save and its note
        post = posted(folder, source, vault, arguments.shard)
        quiet_collector()
        reporter.ready()
        with mirroring(folder, source, crew, origin_of(source), arguments.shard, arguments.shards):
            tail(crew, source, wakeups, Duties(post, [attester.step], roster.settle, attester.look))
    except CellDied as error:
        roster.died(error)
        return EXIT_AGAIN
    finally:
        roster.close()
    return EXIT_GOOD if wakeups.stopped else EXIT_AGAIN


def run(argv: Sequence[str]) -> int:
    """Run a worker as a process of its own; a spare first waits for the arguments of one."""
    reporter = Reporter.taking_stdout()
    warm = COLD
    if argv[:1] == [SPARE]:
        if (orders := stand_by(reporter)) is None:
            return EXIT_GOOD
        argv, warm = orders
    name_process(parser().parse_args(argv).name)
    return main(argv, reporter, warm)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
