"""Hands: the processes that fold a replay, each some shards of it.

    with hands(job, 2) as team:
        team.sweep(judge, advance)             # judge(stop, entries) at each size of job.stops
        for state in team.states(): ...        # in order, whatever the number of shards and hands

A shard of a replay is the shard of a worker: it opens what concerns its keys and passes over the rest.  Hands are
spawned, not forked, for an LMDB environment must not cross a fork; what they are to do reaches them through a pipe, so
that no list of processes shows a name.  Hands cannot signal or trace others, and leave no core behind; but a module can
read and write there what whoever replays can (docs/modules.md).

A module may end its process, or never return.  So even one hand is a process, it leaves a word of what it folds
(`replay.attempt`), and it is ended when an event takes longer than `Job.seconds`; module and entry are named.

The fold is `replay.sweep`; what is to be folded is decided by `tools.replay_plan`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from archive import ArchiveError, DataFolder, IntegrityError, LogSource, NotFound, Unavailable, Vault
from reducers import Key, Module, ModuleRef, ReducerError, Word, available, load
from replay import (
    IDLE,
    IMPORTING,
    Entries,
    FoldedState,
    Gathering,
    Holding,
    Only,
    Runner,
    Stop,
    Sweep,
    attempts_file,
    catalogue_of,
    holding_of,
    in_order,
    index_of,
    read_attempts,
)
from tools.confine import keep_to_itself, limit_memory
from tools.offline import log_of, states_of
from tools.process import quiet_collector
from tools.raised import tell
from tools.settings import SECONDS_PER_EVENT

STATES_AT_ONCE = 500
LOOK_EVERY_S = 0.5
IMPORT_S = 60.0
"""How long an import may take: it reads from disk, and large libraries are slow."""

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
    key: Key | None = None
    """Only this key, of the one reducer."""
    seconds: float = SECONDS_PER_EVENT
    """How long one event may take."""


class Hand:
    """Folds some shards, one after the other, and keeps what comes of it."""

    def __init__(self, job: Job, own: Sequence[int], words: Sequence[Word]) -> None:
        self._job, self._own = job, own
        self._words = dict(zip(job.modules, words, strict=True))
        self._sweeps: list[Sweep] = []

    def sweep(self, tell: Callable[[int, Stop], None], advance: Advance) -> None:
        """Fold all of it; `tell(shard, stop)` at each stop.  Raises ArchiveError, ReducerError."""
        job = self._job
        folder, refs = DataFolder(job.data, job.partition), available()
        modules = [self._loaded(refs[name]) for name in job.modules]
        with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
            for shard in self._own:
                sweep = Sweep(self._runners(folder, source, vault, modules, shard), encodings=job.encodings)
                self._sweeps.append(sweep)
                for size in job.stops:
                    tell(shard, sweep.to(source, size, advance, afresh=size == job.stops[-1]))

    def _loaded(self, ref: ModuleRef) -> Module:
        self._words[ref.name][0] = IMPORTING
        module = load(ref)
        self._words[ref.name][0] = IDLE
        return module

    def states(self) -> Iterator[FoldedState]:
        """Yield what the fold came to, in order."""
        return in_order([sweep.states() for sweep in self._sweeps])

    def _runners(
        self, folder: DataFolder, source: LogSource, vault: Vault, modules: Sequence[Module], shard: int
    ) -> list[Runner]:
        """Return a runner for each position from which modules start: one, unless they start from snapshots."""
        holdings = [self._holding(folder, source, module, shard) for module in modules]
        holdings = sorted((one for one in holdings if one.reducers), key=lambda one: one.position)
        for holding in holdings:
            holding.attempt = self._words[holding.module]
        shards, key = self._job.shards, self._job.key
        only = None if key is None or not holdings else Only(holdings[0].reducers[0], key)
        if only is not None:  # a person looks at one key, and may be its reducer's author
            tell(only.reducer, self._words[holdings[0].module])
        return [
            Runner(list(group), vault, shard=shard, shards=shards, only=only)
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
    with ExitStack() as stack:
        yield _Many(job, count, stack)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C from processes that start meanwhile, for good: who started them hears it, says so, and ends them."""
    resource_tracker.ensure_running()  # it would let SIGINT through again, if it were started in between
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Many:
    def __init__(self, job: Job, count: int, stack: ExitStack) -> None:
        self._job = job
        context = multiprocessing.get_context("spawn")
        self._folding: dict[Connection[Any, Any], _Folding] = {}
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="treering-")))
        for number in range(count):
            ours, theirs = context.Pipe()
            own = tuple(range(number, job.shards, count))
            process = context.Process(target=work, args=(job, own, theirs, place / str(number)), daemon=True)
            with _uninterrupted():
                process.start()
            theirs.close()
            self._folding[ours] = _Folding(job, process, ours, place / str(number))
            stack.callback(process.join)
            stack.callback(process.kill)  # it only reads
            stack.callback(ours.close)

    def sweep(self, on_stop: OnStop, advance: Advance) -> None:
        gathering, busy = Gathering(self._job.stops, self._job.shards), list(self._folding)
        while busy:
            ready = wait(busy, LOOK_EVERY_S)
            for one in busy:
                self._folding[one].look(heard=one in ready)
            for pipe in ready:
                assert isinstance(pipe, Connection)
                match _heard(pipe, self._folding[pipe]):
                    case ("progress", int(count)):
                        advance(count)
                    case ("stop", int(shard), stop):
                        gathering.take(shard, stop)
                        for each in gathering.ready():
                            on_stop(each, gathering.entries)
                    case _:
                        busy.remove(pipe)

    def states(self) -> Iterator[FoldedState]:
        return in_order([_states_from(pipe, folding) for pipe, folding in self._folding.items()])


class _Folding:
    """A process that folds, as it is seen from outside."""

    def __init__(self, job: Job, process: Any, pipe: Connection[Any, Any], words: Path) -> None:
        self._job, self._process, self._pipe, self._path = job, process, pipe, words
        self._seen: dict[str, int] = {}
        self._since_s, self._looked = 0.0, time.monotonic()

    def look(self, *, heard: bool) -> None:
        """Raise Unavailable if the process does not get over an event, or died and has said all it had to say."""
        words, now = self._words(), time.monotonic()
        # Whoever was stopped with the process, or was busy, has not watched it: that time does not count.
        passed, self._looked = min(now - self._looked, 2 * LOOK_EVERY_S), now
        same = bool(words) and words == self._seen and not heard
        self._since_s, self._seen = self._since_s + passed if same else 0.0, words
        limit_s = max(self._job.seconds, IMPORT_S) if IMPORTING in words.values() else self._job.seconds
        if self._since_s > limit_s:
            self._process.kill()
            raise Unavailable(self._blame("does not get over"))
        # What it said last may have come after `heard` was asked: then the pipe is still to be read to its end.
        if not heard and not self._process.is_alive() and not self._pipe.poll():
            raise Unavailable(self.death())

    def death(self) -> str:
        """Return what is to be said of its end."""
        self._process.join(1)
        return self._blame(f"ended its process (code {self._process.exitcode}) at")

    def _words(self) -> dict[str, int]:
        return {name: word for name, word in read_attempts(self._path).items() if word != IDLE}

    def _blame(self, what: str) -> str:
        for module, word in self._words().items():
            at = index_of(word)
            if at is None:
                return f"module {module} {what} its import: leave it out, by naming others with --module"
            names = [one.name for one in load(available()[module]).reducers]
            chosen = [name for name in names if not self._job.reducers or name in self._job.reducers]
            reducer = chosen[0] if len(chosen) == 1 else f"REDUCER (of {', '.join(chosen)})"
            return (
                f"module {module} {what} entry {at}: treering skip {reducer} {at}, or leave it out, by naming "
                "others with --module"
            )
        return f"a process that folds died (code {self._process.exitcode}), and not of a module; try again"


def _states_from(pipe: Connection[Any, Any], folding: _Folding) -> Iterator[FoldedState]:
    pipe.send("states")
    while True:
        while not pipe.poll(LOOK_EVERY_S):
            folding.look(heard=False)
        if not (piece := _heard(pipe, folding)[1]):
            return
        yield from piece


_ERRORS: dict[str, type[ArchiveError]] = {"IntegrityError": IntegrityError, "NotFound": NotFound}


def _heard(pipe: Connection[Any, Any], folding: _Folding) -> tuple[Any, ...]:
    try:
        message: tuple[Any, ...] = pipe.recv()
    except (EOFError, OSError):
        raise Unavailable(folding.death()) from None
    if message[0] == "failed":
        raise _ERRORS.get(message[1], Unavailable)(message[2])
    return message


def hold_back() -> None:
    """Keep this process, for good, from signalling and tracing others, and from more memory than the machine has.

    A replay holds all states in memory, so no lower bound would do.
    """
    keep_to_itself()
    limit_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def work(job: Job, own: Sequence[int], pipe: Connection[Any, Any], words: Path) -> None:
    """Be a hand in a process of its own, which tells in the file `words` what it folds."""
    os.dup2(2, 1)  # a module that prints must not speak into what is written there
    attempts = attempts_file(words, job.modules)
    hold_back()
    quiet_collector()
    hand = Hand(job, own, attempts)
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
