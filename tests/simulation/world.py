"""A whole small deployment in one thread, driven by one seed: whatever happens once can be made to happen again.

    world = World(seed)
    world.run()             # raises AssertionError where a promise was broken; the seed is the bug report

Producers send, an archiver commits, and prepares the next block before or in the middle of a commit, workers fold and
save, readers look; archivers and workers die at any step, with that step lost or kept; the disk is full for a while, or
fails; the clock jumps both ways; the number of shards changes.  `Random(seed)` alone decides what is next.

The judges share no code with what they judge: the log's is `tests.checker`, the states' a plain fold over a list, the
promises' a list of all that anybody was told (`producers.Told`, and what readers saw).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from archive import (
    Answer,
    Archiver,
    Caches,
    Log,
    LogSource,
    MemoryStore,
    Prepared,
    Receipt,
    Refusal,
    SteadyClock,
    StorageFailed,
    Unavailable,
    Vault,
)
from merkle import prove_consistency, verify_consistency
from replay import STATE_TABLES, Holding, Runner
from tests.archive.site import ORIGIN, VAULT_KEY, Site, sign
from tests.faults import Crash, CrashingPublished, CrashingSeal, CrashingStore, Outcome, Schedule
from tests.replay.classroom import ordered
from tests.simulation.producers import (
    Browser,
    Careful,
    Fingerprint,
    Plain,
    Producer,
    Request,
    Told,
    fingerprint,
)
from tests.world import CountingRandom, all_reducers, plain_fold, run, seen, slots_of, union

STEPS = 220
HOUR_US = 3_600_000_000


class Turn:
    """Requests that share a block, from the moment at which it is prepared."""

    def __init__(self, group: list[Request]) -> None:
        self.group = group
        self.submissions = [one for request in group for one in request.submissions]
        self.prepared: Prepared | None = None
        self.error: Exception | None = None
        """Why it was not prepared: said when it is its turn."""

    def answers(self, archiver: Archiver) -> list[Answer]:
        """Keep them, and return their answers."""
        if self.error is not None:
            raise self.error
        assert self.prepared is not None
        return archiver.commit(self.prepared)


class Busy(Schedule):
    """A schedule in the middle of whose steps something else may happen."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def step(self, name: str, action: Callable[[], object]) -> None:
        """Let something happen, then do the step."""
        if name in {"log", "seal", "publish"}:
            self._meanwhile()
        super().step(name, action)


class Doubles:
    """The parts of which an archiver and a worker are made; tests put broken ones in their place."""

    def log(self, world: World, schedule: Schedule) -> Any:
        """Return the log's store as the archiver sees it."""
        return CrashingStore(world.site.log, schedule, "log")

    def seal(self, world: World, schedule: Schedule) -> Any:
        """Return the seal."""
        return CrashingSeal(world.site.seal, schedule)

    def caches(self) -> Caches:
        """Return empty caches."""
        return Caches()

    def archiver(self) -> type[Archiver]:
        """Return what makes an archiver of its parts."""
        return Archiver

    def holding(self, world: World, store: Any) -> Holding:
        """Return what a worker holds, so little of it in memory that it must be looked up again and again."""
        return Holding(world.reducers, store, "all", keys_max=4)


class World:
    """Everything there is; see the module."""

    def __init__(self, seed: int, doubles: Doubles | None = None) -> None:
        self.random = Random(seed)
        self.doubles = doubles or Doubles()
        self.site = Site(random=CountingRandom())
        self.source = LogSource(self.site.log, self.site.published.get)
        self.reducers = all_reducers()
        self.told = Told()
        self.producers: list[Producer] = [
            Plain("plain", self.told),
            Careful("careful", self.told),
            Careful("doubtful", self.told),
            Browser("browser", self.told, 1),
            Browser("tablet", self.told, 2),
        ]
        self.queue: list[Request] = []
        self.archiver: Archiver | None = None
        self.turns: list[Turn] = []
        """What is prepared, or under way, in order: two at most."""
        self.schedule: Schedule = Schedule()
        self.states: dict[tuple[int, int], MemoryStore] = {}
        self.runners: list[Runner | None] = [None]
        self.worker_schedule = Schedule()
        self.wall_us = self.tick_us = 1_700_000_000_000_000
        self.checkpoints: dict[int, bytes] = {}
        self.looks: list[tuple[str, int, bytes]] = []
        """(student, position, all that was seen of him): what readers were told."""

    def run(self, steps: int = STEPS) -> None:
        """Live, then let everything come to rest, and judge."""
        for _ in range(steps):
            ((action, _),) = self.random.choices(ACTIONS, [weight for _, weight in ACTIONS])
            action(self)
            self.look()
        self.rest()
        self.judge()

    # --- what happens ----------------------------------------------------------------------------

    def send(self) -> None:
        """A producer sends."""
        self.queue += self.random.choice(self.producers).next(self.random)

    def archive(self) -> None:
        """The archiver takes some of the queue, and answers; or it is started, if it is down."""
        if self.archiver is None:
            self.start()
            return
        try:
            self.prepare()
            if self.random.random() < 0.6:
                self.prepare()
            if self.turns:
                self.commit(self.archiver, self.turns[0])
        except (Crash, StorageFailed):
            self.die()

    def commit(self, archiver: Archiver, turn: Turn) -> None:
        """The archiver commits what is prepared, and answers."""
        try:
            answers = turn.answers(archiver)
        except Unavailable as error:
            if archiver.failed:
                raise Crash(str(error)) from error
            answers = [Refusal("unavailable", str(error))] * len(turn.submissions)
        else:
            self.schedule.step("answer", lambda: None)
        self.turns.remove(turn)
        self.answer(turn.group, answers)

    def prepare(self) -> None:
        """The archiver prepares some of the queue, if nothing is ahead yet."""
        count = min(len(self.queue), self.random.randint(1, 5))
        if self.archiver is None or len(self.turns) > 1 or not count:
            return
        turn = Turn([self.queue.pop(0) for _ in range(count)])
        self.turns.append(turn)
        try:
            turn.prepared = self.archiver.prepare(turn.submissions)
        except (Unavailable, StorageFailed) as error:
            turn.error = error

    def meanwhile(self) -> None:
        """In the middle of a commit, the next block is prepared now and then."""
        if self.turns and self.random.random() < 0.15:
            self.prepare()

    def answer(self, group: list[Request], answers: Sequence[Answer]) -> None:
        """Give each producer its answers."""
        at = 0
        for request in group:
            end = at + len(request.submissions)
            for one in answers[at:end]:
                assert not isinstance(one, Receipt) or one.index < one.size <= self.site.published.get(), (
                    "acknowledged before it was published"
                )
            request.producer.answered(request, list(answers[at:end]))
            at = end

    def die(self) -> None:
        """The archiver is gone, and with it all that was on its way."""
        self.archiver = None
        for request in [*(one for turn in self.turns for one in turn.group), *self.queue]:
            request.producer.unknown(request)
        self.turns.clear()
        self.queue.clear()

    def start(self) -> None:
        """Start an archiver on what the disk holds; it may die on the way."""
        schedule = self.schedule = Busy(self.meanwhile)
        self.arm()
        site = self.site
        try:
            archiver = self.doubles.archiver()(
                ORIGIN,
                self.doubles.log(self, schedule),
                Vault(CrashingStore(site.vault, schedule, "vault"), VAULT_KEY, site.random),
                caches=self.doubles.caches(),
                seal=self.doubles.seal(self, schedule),
                published=CrashingPublished(site.published, schedule),
                clock=SteadyClock(lambda: self.wall_us, lambda: self.tick_us),
                random=site.random,
                sign=sign,
            )
            archiver.open({"software": "simulated"})
        except (Crash, StorageFailed, Unavailable):
            return
        self.archiver = archiver

    def arm(self) -> None:
        """Let the archiver fail some steps from now."""
        self.schedule.at = len(self.schedule.steps) + self.random.randint(1, 25)
        self.schedule.outcome = self.random.choice(list(Outcome))
        self.schedule.error = Crash
        lot = self.random.random()
        if lot < 0.4:  # no space: by its promise, nothing was kept
            self.schedule.error, self.schedule.outcome = _no_space, Outcome.LOST
        elif lot < 0.5:
            self.schedule.error = _broken

    def kill_archiver(self) -> None:
        """The archiver dies between two steps."""
        if self.archiver is not None:
            self.die()

    def work(self) -> None:
        """A worker folds a slice and perhaps saves; or it is started, if it is down."""
        shard = self.random.randrange(len(self.runners))
        runner = self.runners[shard]
        try:
            if runner is None:
                runner = self.start_worker(shard, self.armed_worker())
            runner.step(self.source)
            if self.random.random() < 0.5:
                runner.save(self.source)
        except (Crash, StorageFailed):
            self.runners[shard] = None
        except Unavailable:
            pass  # its states stay in memory

    def armed_worker(self) -> Schedule:
        """Return the schedule of a worker, whose saves may fail."""
        schedule = Schedule(self.random.randint(1, 8), self.random.choice(list(Outcome)))
        if self.random.random() < 0.2:
            schedule.error, schedule.outcome = _no_space, Outcome.LOST
        return schedule

    def start_worker(self, shard: int, schedule: Schedule) -> Runner:
        """Start a worker on what it has saved."""
        shards = len(self.runners)
        store = self.states.setdefault((shard, shards), MemoryStore(STATE_TABLES))
        holding = self.doubles.holding(self, CrashingStore(store, schedule, "states"))
        with self.source.open() as log:
            holding.resume(log)
        vault = Vault(self.site.vault, VAULT_KEY, self.site.random)
        runner = self.runners[shard] = Runner([holding], vault, shard=shard, shards=shards)
        return runner

    def kill_worker(self) -> None:
        """A worker dies between two steps."""
        self.runners[self.random.randrange(len(self.runners))] = None

    def reshard(self) -> None:
        """The server comes back with another number of workers, which may have been here before."""
        self.runners = [None] * self.random.randint(1, 3)

    def tick(self) -> None:
        """Time passes."""
        passed = self.random.randint(0, 5_000_000)
        self.wall_us += passed
        self.tick_us += passed

    def jump(self) -> None:
        """The wall clock jumps: back, ahead, or far ahead."""
        self.wall_us += self.random.choice((-HOUR_US // 4, -30 * HOUR_US, HOUR_US // 4, 9_000 * HOUR_US))

    # --- what is seen ----------------------------------------------------------------------------

    def look(self) -> None:
        """A reader looks at what is published, and sometimes at a state."""
        size = self.site.published.get()
        sealed = self.site.seal.last
        assert size <= (0 if sealed is None else sealed.size), "something is visible that is not sealed"
        with self.site.log.view() as view:
            assert Log(view, 0).size <= size
        if size and size not in self.checkpoints:
            with self.source.open() as log:
                self.checkpoints[size] = log.root()
        if self.random.random() < 0.2:
            self.look_at_states()

    def look_at_states(self) -> None:
        """A reader asks a live worker for all that it has seen of somebody."""
        runner = self.random.choice(self.runners)
        if runner is None:
            return
        for key, slot in slots_of(runner, seen.name).items():
            assert runner.position <= self.site.published.get(), "a state stands on what is not published"
            self.looks.append((key[0], runner.position, seen.encode(slot.state)))

    # --- the end ---------------------------------------------------------------------------------

    def rest(self) -> None:
        """Everything is repaired, the queue is worked off, workers catch up."""
        self.random = Random(0)  # from here on, the order of things does not matter
        self.wall_us = max(self.wall_us, self.tick_us)
        while self.archiver is None:
            self.start()
        self.schedule.at = 0
        while self.queue or self.turns:
            self.archive()
        for shard in range(len(self.runners)):
            run(self.start_worker(shard, Schedule()), self.source)

    def judge(self) -> None:
        """Hold the log, the states and the promises against their judges."""
        kept = self.kept()
        self.judge_promises(kept)
        self.judge_checkpoints()
        live = union([runner for runner in self.runners if runner is not None])
        submissions = [(index, self.told.sent[mark]) for index, mark in sorted(kept.items())]
        assert live == plain_fold(self.reducers, ordered(submissions)), "states are not the fold of the log"
        for student, position, told in self.looks[:: max(1, len(self.looks) // 12)]:
            events = ordered([(index, one) for index, one in submissions if index < position])
            slots = seen_of(events)
            assert told == slots.get(student), f"what was told of {student} at {position} is not true"

    def kept(self) -> dict[int, Fingerprint]:
        """Return what each private entry of the log is, having had the whole log judged."""
        entries = self.site.check()
        found = {}
        for entry in entries:
            if entry.body is None:
                found[entry.index] = fingerprint(entry.payload, entry.extra)
        assert len(entries) == self.site.published.get()
        return found

    def judge_promises(self, kept: dict[int, Fingerprint]) -> None:
        """Acknowledged ⊆ survived ⊆ sent, where it was said, nothing twice, no gap before what was acknowledged."""
        for index, mark in self.told.receipts.items():
            assert kept.get(index) == mark, f"entry {index} is not what was acknowledged"
        assert set(kept.values()) <= self.told.sent.keys(), "something was invented"
        assert len(set(kept.values())) == len(kept), "something is kept twice"
        places = {mark: index for index, mark in kept.items()}
        acked = {(mark[1], mark[2]) for mark in self.told.receipts.values() if mark[1] is not None}
        have: dict[Any, list[int]] = {}
        for mark, _ in sorted(places.items(), key=lambda one: one[1]):
            if mark[1] is not None and mark[3] is None:
                have.setdefault(mark[1], []).append(mark[2])
        for conn, numbers in have.items():
            assert numbers == sorted(numbers), "frames of a connection are out of order"
            last = max((frame for one, frame in acked if one == conn), default=-1)
            assert set(range(last + 1)) <= set(numbers), "there is a gap before an acknowledged frame"

    def judge_checkpoints(self) -> None:
        """Every checkpoint that anybody saw is a prefix of what there is now."""
        with self.source.open() as log:
            for size, root in self.checkpoints.items():
                proof = prove_consistency(size, log.size, log.read_nodes)
                verify_consistency(size, root, log.size, log.root(), proof)


def seen_of(events: list[Any]) -> dict[str, bytes]:
    """Return what the plain fold holds of each student, as it is told."""
    states: dict[str, list[Any]] = {}
    for event in events:
        if (student := event.keys.get("student")) is not None:
            states[student] = seen(states.get(student, []), event)
    return {student: seen.encode(state) for student, state in states.items()}


def _no_space(message: str) -> BaseException:
    stores = (", log", ", vault", ", seal", ", states")
    return Unavailable(message) if any(name in message for name in stores) else Crash(message)


def _broken(message: str) -> BaseException:
    return StorageFailed(message) if ", publish" not in message else Crash(message)


Action = Callable[[World], None]
ACTIONS: list[tuple[Action, int]] = [
    (World.send, 30),
    (World.archive, 30),
    (World.work, 20),
    (World.tick, 8),
    (World.arm, 4),
    (World.kill_archiver, 2),
    (World.kill_worker, 2),
    (World.jump, 3),
    (World.reshard, 1),
]
