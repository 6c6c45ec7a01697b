"""Placing: which module runs in which process, and whose fault it is when one ends.

    placing = Placing(settings, names, folder, clock)
    for child in placing.shared(): ...            # a worker for each shard, with all modules that are shared
    placing.look()                                # every quarter of a second: stalls, pauses, the status file
    for child in placing.starting(): ...          # workers of single modules that are to run now

No module's code runs here, and no log is read: what is known comes from the reports of workers (`tools.reporting`) and
from the words that they leave in memory (`replay.attempt`).  A worker's words are believed about its own modules only.

    a worker ended, and a word says that a module was running     that module is to blame, whatever the exit code says
    it was killed for a module that did not get on                that one is to blame (`tools.stalls`)
    a module was let go                                           it is to blame, and its neighbours go on

What follows from a blame is a table: `replay.escalation`.  What it says to others, run/modules.json: `replay.status`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from archive import DataFolder, FormatError, make_folder
from replay import (
    IDLE,
    STATUS_FILE,
    WORKER_STOPS,
    Fault,
    Kind,
    ModuleStatus,
    Record,
    ShardStatus,
    State,
    begun,
    index_of,
    interrupted,
    not_loaded,
    reached,
    read_attempts,
    read_status,
    rested,
    retried,
    struck,
    write_status,
)
from tools.children import how
from tools.endings import Counting, furthest, worker_of
from tools.placed import Worker
from tools.process import EXIT_STOP, say
from tools.reporting import Report, StopInfo, parse_report
from tools.settings import Settings
from tools.stalls import Stalls
from tools.standby import Standby

LOOK_EVERY_S = 0.25
TOGETHER_S = 2.0
"""For so long a message waits for other shards that have the same to say."""
OUTSIDE = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGQUIT})
"""How a process ends that somebody else wanted to end."""

WHERE = {"cell": "a cell", "own": "its own process"}

Place = tuple[str, int]
"""A module in a shard."""
Found = tuple[Kind, int | None, str, str]
"""What is found of a fault: its kind, the index of the event, the reducer, and what is told of it."""


class Placing:
    """The modules of a server, each in each shard."""

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        folder: DataFolder,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.names, self.folder, self.clock = settings, list(names), folder, clock
        self._wall = wall
        self.standby: Standby | None = None
        """Where there are spare workers, who has them."""
        self.attempts = folder.run / "attempts"
        make_folder(self.attempts)
        self.steered: dict[Place, int] = {}
        """Up to where each module has seen retries and skips."""
        self.confined: dict[str, list[str]] = {}
        self._generations: dict[Place, str] = {}
        self._renewing: set[Place] = set()
        """Modules that are started again because another shard has other code."""
        self._renewed: set[str] = set()
        """Modules that were tried again, or whose code changed, since the server started."""
        self.stopping = False
        self._ends = Counting(wall)
        self._status = folder.run / STATUS_FILE
        before = read_status(self._status)
        self.records: dict[Place, Record] = {
            (name, shard): begun(settings.limits(name).isolation, _before(before, name, shard))
            for name in self.names
            for shard in range(settings.shards)
        }
        self.since: dict[Place, tuple[State, float]] = {}
        """In which state each module is, and since when (Unix seconds)."""
        self._positions: dict[Place, int] = {}
        self._untold: dict[tuple[str, str], dict[int, float]] = {}
        """What is to be said of modules that do not run, and in which shards, since when."""
        self._workers: list[Worker] = []
        self._alone: dict[Place, Worker] = {}
        self._stalls, self._looked_at = Stalls(settings, clock), clock()
        self._left_behind()

    # --- which workers there are -----------------------------------------------------------------

    def shared(self) -> list[Worker]:
        """Return the worker of each shard, for all modules that share one."""
        return [self._made(f"worker {shard}", shard, None) for shard in range(self.settings.shards)]

    def starting(self) -> Iterator[Worker]:
        """Yield a new worker for each module that is to run by itself now, and does not yet."""
        for (name, shard), record in self.records.items():
            alone = record.level != "shared" and record.state == "starting"
            if alone and (name, shard) not in self._alone and not self.stopping:
                self._alone[name, shard] = worker = self._made(
                    worker_of(name, shard, record.level), shard, name
                )
                yield worker

    def pids(self) -> dict[str, int]:
        """Return the process of each worker that runs just now, by the worker's name."""
        return {worker.name: worker.pid for worker in self._workers if worker.pid is not None}

    def over(self, worker: Worker) -> None:
        """Take note that nobody keeps this worker running any more."""
        if worker.module is not None:
            self._alone.pop((worker.module, worker.shard), None)
        self._workers.remove(worker)

    def members(self, worker: Worker) -> list[str]:
        """Return the modules that run in a worker at its next start."""
        if worker.module is not None:
            return [worker.module]
        here = [(name, self.records[name, worker.shard]) for name in self.names]
        return [name for name, one in here if one.level == "shared" and one.state in {"starting", "running"}]

    def arguments(self, worker: Worker) -> list[str]:
        """Return the arguments with which a worker is started."""
        settings, first = self.settings, worker.modules[0] if worker.module is not None else ""
        limits = settings.limits(first)
        level, careful = "shared", list[str]()
        if first:
            record = self.records[first, worker.shard]
            # What did harm once is looked at event by event, so that the next time it is known which one did it.
            level, careful = record.level, ["--careful"] if record.last is not None else []
        return [
            *("--data", str(self.folder.path)),
            *("--shards", str(settings.shards), "--shard", str(worker.shard)),
            *("--name", worker.attempts.name, "--level", level, *careful),
            *("--memory-mb", str(limits.memory_mb), "--seconds", str(limits.seconds_per_event)),
            *(part for name in worker.modules for part in ("--module", name)),
        ]

    def _made(self, name: str, shard: int, module: str | None) -> Worker:
        worker = Worker(self, name, shard, module)
        self._workers.append(worker)
        return worker

    # --- what is heard ---------------------------------------------------------------------------

    def heard(self, worker: Worker, line: bytes) -> None:
        """Take in a line of a worker; what is no report, or about others, is passed over."""
        worker.silent_s = 0.0
        try:
            report = parse_report(line)
        except FormatError:
            return
        own, shard = set(worker.modules), worker.shard
        for name in own & report.hired.keys():
            self._positions[name, shard] = report.hired[name]
            self.records[name, shard] = reached(self.records[name, shard], -1)
        for name in own & report.hired.keys() & report.generations.keys():
            self._compare(name, shard, report.generations[name])
        if report.size is not None:
            self.steered |= {(name, shard): report.size for name in own}
        for name in own & report.at.keys():
            self._positions[name, shard] = report.at[name]
            self.records[name, shard] = reached(self.records[name, shard], report.at[name])
        if report.at:
            self._ends.moved(worker.name, furthest(worker, self._positions))
        for name in own & report.failed.keys():
            self._fails(name, shard, report.failed[name], went_back=name in report.went_back)
        for name in own & report.stopped.keys():
            self._blame(name, shard, _fault_of(report.stopped[name]))
        self.confined |= {name: report.confined[name] for name in own & report.confined.keys()}

    def asked(self, report: Report) -> None:
        """Take in what the warden found: modules that somebody wants to be tried again.

        In those shards that have not seen that entry: what was asked for once is not done again for ever.
        """
        for name, index in report.retry.items():
            for shard in range(self.settings.shards):
                place = (name, shard)
                record = self.records.get(place)
                if record is None or record.state not in {"parked", "failed"}:
                    continue
                if index >= self.steered.get(place, 0):
                    self.records[place] = retried(record)
                    self.steered[place] = index + 1
                    self._renewed.add(name)
                    say(f"treering: module {name} is tried again, as entry {index} says")

    def _compare(self, name: str, shard: int, generation: str) -> None:
        """Have a module started again where it runs with other code: its shards must all make the same states.

        A module that was mended is hired anew where it had stopped; elsewhere the old code would run on.  Who is
        started again for that makes nobody else start again, so this ends whatever a module says of its code.
        """
        place = (name, shard)
        self._generations[place] = generation
        if place in self._renewing:
            self._renewing.discard(place)
            return
        for worker in self._workers:
            other = (name, worker.shard)
            differs = self._generations.get(other, generation) != generation and name in worker.modules
            if differs and self.records[other].state == "running":
                self._renewed.add(name)
                self._renewing.add(other)
                say(f"treering: module {name} has changed; {worker.name} is started again to run it, too")
                worker.renewed_s = self.clock()
                worker.terminate()

    def ended(self, worker: Worker, code: int) -> bool:
        """Take note of the end of a worker; return whether a module is to blame."""
        words = {name: word for name, word in read_attempts(worker.attempts).items() if word != IDLE}
        worker.attempts.unlink(missing_ok=True)  # a server that starts later must not read it again
        if self.stopping:
            return False
        if not words and worker.renewed_s is None:
            self._ends.ended(worker.name, how(code), furthest(worker, self._positions))
        for name, word in words.items():
            if name not in worker.modules:
                continue
            if worker.accused is not None and worker.accused.module == name:
                _, kind, reason = worker.accused
                self._blame(name, worker.shard, (kind, index_of(word), "", reason))
            else:
                kind = "killed" if code in OUTSIDE else "died"
                self._blame(name, worker.shard, (kind, index_of(word), "", how(code)))
        for name in worker.modules if code == EXIT_STOP and not words else ():
            if self.records[name, worker.shard].state != "failed":  # else it has said why
                self._fails(name, worker.shard, WORKER_STOPS)
        for place in [(name, worker.shard) for name in worker.modules if worker.module is not None]:
            if not words and self.records[place].state in {"starting", "running"}:
                self.records[place] = interrupted(self.records[place], self.clock())
                say(f"treering: {worker.name} ended ({how(code)}); starting it again")
        return bool(words)

    # --- looking ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Kill what stands still, let pauses end, and write down how things are."""
        now = self.clock()
        step_s, self._looked_at = min(now - self._looked_at, LOOK_EVERY_S), now
        for worker in self._workers:
            level = "shared" if worker.module is None else self.records[worker.module, worker.shard].level
            self._stalls.watch(worker, step_s, in_cell=level == "cell")
        for place, record in self.records.items():
            self.records[place] = after = rested(record, now)
            if place not in self.since or self.since[place][0] != after.state:
                self.since[place] = after.state, self._wall()
        self._tell(now)
        self.write()

    def write(self) -> None:
        """Write run/modules.json, if it changed."""
        write_status(self._status, self.statuses())

    def statuses(self) -> dict[str, ModuleStatus]:
        """Return how every module is."""
        found = {}
        for name in self.names:
            places = [(name, shard) for shard in range(self.settings.shards)]
            shards = {
                str(place[1]): ShardStatus(
                    self.records[place],
                    round(self.since[place][1] if place in self.since else self._wall()),
                    self.steered.get(place, 0),
                    self._ends.of(worker_of(*place, self.records[place].level)),
                )
                for place in places
            }
            found[name] = ModuleStatus(shards, self.confined.get(name, []), name in self._renewed)
        return found

    def troubled(self) -> dict[str, int]:
        """Return the modules that wait for a person, with the entry from which on one may have spoken."""
        found: dict[str, int] = {}
        for (name, shard), record in self.records.items():
            if record.state in {"parked", "failed"}:
                size = self.steered.get((name, shard), 0)
                found[name] = min(found.get(name, size), size)
        return found

    # --- records ---------------------------------------------------------------------------------

    def _blame(self, name: str, shard: int, found: Found) -> None:
        kind, index, reducer, reason = found
        place = (name, shard)
        self._renewing.discard(place)
        fault = Fault(kind, index, self._positions.get(place, 0), self.clock(), reason, reducer)
        before, self.records[place] = self.records[place], (after := struck(self.records[place], fault))
        where = "" if index is None else f" at entry {index}"
        say(f"treering: module {name}{where}: {fault.what} ({reason}); {_next(before, after)}")

    def _fails(self, name: str, shard: int, why: str, *, went_back: bool = False) -> None:
        self._renewing.discard((name, shard))
        self.records[name, shard] = not_loaded(self.records[name, shard], why, went_back=went_back)
        then = f"; then: treering retry {name}"
        if went_back or why == WORKER_STOPS:  # of these, status and doctor say what helps
            then = ""
        self._untold.setdefault((name, f"{why}{then}"), {})[shard] = self.clock()

    def _tell(self, now: float) -> None:
        """Say of which modules it was found that they do not run, once for all shards that find it together."""
        for (name, text), shards in list(self._untold.items()):
            if len(shards) == self.settings.shards or now - min(shards.values()) >= TOGETHER_S:
                del self._untold[name, text]
                which = f"shard{'s' if len(shards) > 1 else ''} {', '.join(map(str, sorted(shards)))}"
                say(f"treering: module {name} is not running in {which}: {text}")

    def _left_behind(self) -> None:
        """Blame whoever was running when the last server was ended together with its worker."""
        for path in sorted(self.attempts.iterdir()):
            shard = _shard_of(path)
            for name, word in read_attempts(path).items():
                if word != IDLE and (name, shard) in self.records:
                    self._positions[name, shard] = -1
                    self._blame(name, shard, ("killed", index_of(word), "", "with its server"))
            path.unlink(missing_ok=True)


def _fault_of(info: StopInfo) -> Found:
    name, _, text = info.reason.partition(": ")  # our own words have a text, too
    return info.kind, info.at, info.reducer, text or name


def _next(before: Record, record: Record) -> str:
    if record.state == "parked":
        return "it is parked until a person says retry or skip"
    if record.level != "shared":
        what = "cell" if record.level == "cell" else "own process"
        again = record.level == before.level
        return f"it is tried once more in its {what}" if again else f"it goes on in {WHERE[record.level]}"
    return "it is started again"


def _shard_of(path: Path) -> int:
    number = path.name.split("-")[1] if "-" in path.name else ""
    return int(number) if number.isdigit() else -1


def _before(status: dict[str, ModuleStatus], name: str, shard: int) -> Record | None:
    known = status.get(name)
    found = None if known is None else known.shards.get(str(shard))
    return None if found is None else found.record
