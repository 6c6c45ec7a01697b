"""Hands: the processes that fold a replay, each some shards of it.

    with hands(job, 2) as team:
        team.sweep(judge, advance)             # judge(stop, entries) at each size of job.stops
        for state in team.states(): ...        # in order, whatever the number of shards and hands

A shard of a replay is the shard of a worker: it opens what concerns its keys and passes over the rest.  Hands are
spawned, not forked, for an LMDB environment must not cross a fork; what they are to do reaches them through a pipe, so
that no list of processes shows a name.  One hand works in this process.  Those that are spawned cannot signal or trace
others, and leave no core behind; but a module can read and write there what whoever replays can (docs/modules.md).

The fold is `replay.sweep`; what is to be folded is decided by `tools.replay_plan`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from archive import ArchiveError, DataFolder, IntegrityError, LogSource, NotFound, Unavailable, Vault
from reducers import Module, ReducerError, available, load
from replay import (
    Entries,
    FoldedState,
    Gathering,
    Holding,
    Runner,
    Stop,
    Sweep,
    catalogue_of,
    holding_of,
    in_order,
)
from tools.confine import keep_to_itself, limit_memory
from tools.offline import log_of, states_of
from tools.process import quiet_collector

STATES_AT_ONCE = 500

OnStop = Callable[[Stop, dict[str, Entries]], None]
"""Called at each stop with what changed, and with all states there, by reducer."""
Advance = Callable[[int], None]


class Job(NamedTuple):
    """What is to be folded."""

    data: Path
    partition: int
    modules: tuple[str, ...]
    reducers: tuple[str, ...]
    """Only these; none: all of the modules."""
    stops: tuple[int, ...]
    """Sizes, ascending, at which to look at the states; the last one is where it ends."""
    shards: int
    snapshot: Path | None = None
    """Go on from what the workers of as many shards have saved below this folder, instead of from nothing."""
    encodings: bool = False
    """Whether stops are to tell states, not only their digests."""


class Hand:
    """Folds some shards, one after the other, and keeps what comes of it."""

    def __init__(self, job: Job, own: Sequence[int]) -> None:
        self._job, self._own = job, own
        self._sweeps: list[Sweep] = []

    def sweep(self, tell: Callable[[int, Stop], None], advance: Advance) -> None:
        """Fold all of it; `tell(shard, stop)` at each stop.  Raises ArchiveError, ReducerError."""
        job = self._job
        folder, refs = DataFolder(job.data, job.partition), available()
        modules = [load(refs[name]) for name in job.modules]
        with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
            for shard in self._own:
                sweep = Sweep(self._runners(folder, source, vault, modules, shard), encodings=job.encodings)
                self._sweeps.append(sweep)
                for size in job.stops:
                    tell(shard, sweep.to(source, size, advance, afresh=size == job.stops[-1]))

    def states(self) -> Iterator[FoldedState]:
        """Yield what the fold came to, in order."""
        return in_order([sweep.states() for sweep in self._sweeps])

    def _runners(
        self, folder: DataFolder, source: LogSource, vault: Vault, modules: Sequence[Module], shard: int
    ) -> list[Runner]:
        """Return a runner for each position from which modules start: one, unless they start from snapshots."""
        holdings = [self._holding(folder, source, module, shard) for module in modules]
        holdings = sorted((one for one in holdings if one.reducers), key=lambda one: one.position)
        shards = self._job.shards
        return [
            Runner(list(group), vault, shard=shard, shards=shards)
            for _, group in groupby(holdings, key=lambda one: one.position)
        ]

    def _holding(self, folder: DataFolder, source: LogSource, module: Module, shard: int) -> Holding:
        names, job = self._job.reducers, self._job
        if job.snapshot is None:
            chosen = [one for one in module.reducers if not names or one.name in names]
            return Holding(chosen, module=module.name)
        with (
            states_of(folder, job.snapshot, catalogue_of(module), shard, job.shards) as store,
            source.open(job.stops[-1]) as log,
        ):
            return holding_of(store, module, log, names)


class Team(Protocol):
    """Some hands that do one job; call `sweep` first."""

    def sweep(self, on_stop: OnStop, advance: Advance) -> None:
        """Fold, and call `on_stop` at each stop as soon as all shards have reached it."""

    def states(self) -> Iterator[FoldedState]:
        """Yield all states in the order of (reducer, version, key)."""


@contextmanager
def hands(job: Job, count: int) -> Iterator[Team]:
    """Return so many hands, at most one a shard; whatever they still do ends with the context."""
    count = min(count, job.shards)
    if count == 1:
        yield _Alone(job)
        return
    with ExitStack() as stack:
        yield _Many(job, count, stack)


class _Alone:
    def __init__(self, job: Job) -> None:
        self._hand, self._job = Hand(job, range(job.shards)), job

    def sweep(self, on_stop: OnStop, advance: Advance) -> None:
        gathering = Gathering(self._job.stops, self._job.shards)

        def tell(shard: int, stop: Stop) -> None:
            gathering.take(shard, stop)
            for one in gathering.ready():
                on_stop(one, gathering.entries)

        self._hand.sweep(tell, advance)

    def states(self) -> Iterator[FoldedState]:
        return self._hand.states()


class _Many:
    def __init__(self, job: Job, count: int, stack: ExitStack) -> None:
        self._job = job
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection[Any, Any]] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            own = tuple(range(number, job.shards, count))
            process = context.Process(target=work, args=(job, own, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            stack.callback(process.join)
            stack.callback(process.kill)  # it only reads
            stack.callback(ours.close)

    def sweep(self, on_stop: OnStop, advance: Advance) -> None:
        gathering, busy = Gathering(self._job.stops, self._job.shards), list(self._pipes)
        while busy:
            for pipe in wait(busy):
                assert isinstance(pipe, Connection)
                match _heard(pipe):
                    case ("progress", int(count)):
                        advance(count)
                    case ("stop", int(shard), stop):
                        gathering.take(shard, stop)
                        for one in gathering.ready():
                            on_stop(one, gathering.entries)
                    case _:
                        busy.remove(pipe)

    def states(self) -> Iterator[FoldedState]:
        return in_order([_states_from(pipe) for pipe in self._pipes])


def _states_from(pipe: Connection[Any, Any]) -> Iterator[FoldedState]:
    pipe.send("states")
    while piece := _heard(pipe)[1]:
        yield from piece


_ERRORS: dict[str, type[ArchiveError]] = {"IntegrityError": IntegrityError, "NotFound": NotFound}


def _heard(pipe: Connection[Any, Any]) -> tuple[Any, ...]:
    try:
        message: tuple[Any, ...] = pipe.recv()
    except (EOFError, OSError):
        raise Unavailable("a process that folds died; --jobs 1 shows where") from None
    if message[0] == "failed":
        raise _ERRORS.get(message[1], Unavailable)(message[2])
    return message


def hold_back() -> None:
    """Keep this process, for good, from signalling and tracing others, and from more memory than the machine has.

    A replay holds all states in memory, so no lower bound would do.
    """
    keep_to_itself()
    limit_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def work(job: Job, own: Sequence[int], pipe: Connection[Any, Any]) -> None:
    """Be a hand in a process of its own."""
    hold_back()
    quiet_collector()
    hand = Hand(job, own)
    try:
        hand.sweep(
            lambda shard, stop: pipe.send(("stop", shard, stop)),
            lambda count: pipe.send(("progress", count)),
        )
        pipe.send(("folded",))
        pipe.recv()  # until states are asked for; EOFError once nobody can ask any more
        piece: list[FoldedState] = []
        for state in hand.states():
            piece.append(state)
            if len(piece) == STATES_AT_ONCE:
                pipe.send(("states", piece))
                piece = []
        for last in (piece, []) if piece else ([],):
            pipe.send(("states", last))
    except (ArchiveError, ReducerError) as error:
        pipe.send(("failed", type(error).__name__, str(error)))
    except (EOFError, BrokenPipeError):
        pass
