"""The workers against their model, which is a plain fold over a list.

Hypothesis sends events of several students, frames of several connections and ticks; lets workers fold, save, die, come
back in another number and with another amount of memory; goes over to another version of a module and back; lets one
module run into trouble and out of it; skips events and has keys folded again.  Whatever it does, once they have caught
up they hold what the list gives, and every store says of itself what its states say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api import Connection
from archive import MemoryStore, Retry, Skip, Submission
from reducers import TICK, Event, Reducer, digest_of_entries, fold, reducer, state_digest
from replay import STATE_TABLES, Crew, Holding, feed, layout, replay_digests, replay_key
from tests.replay.classroom import ordered, passed_over
from tests.replay.kept import activation
from tests.replay.stored import judge_tables, tables
from tests.world import (
    World,
    beats,
    chatty,
    class_size,
    connection,
    event,
    everyone,
    frames,
    pages,
    plain_fold,
    seen,
    tick_at,
    touchy,
)

Skips = dict[str, set[int]]


class Trouble:
    """Whether the machine has too little memory just now."""

    now = False


@reducer(scope=("student",), version=1)
def hungry(state: int, event: Event) -> int:
    """Count events; a big one takes more memory than there may be."""
    if event.type == "big" and Trouble.now:
        raise MemoryError
    return state + 1


@reducer(scope=("student",), version=2, name="touchy")
def hardened(state: int, event: Event) -> int:
    """Count events, and do not mind those that are called "bad"."""
    return state + (10 if event.type == "bad" else 1)


@reducer(scope=("student", "class"), version=2, name="beats", ticks=60)
def counted(state: list[int], event: Event) -> list[int]:
    """Keep when something was, for another key than before."""
    if event.type == "fragile":
        raise ValueError("it broke at once")
    return [*state, event.time_ms // 1_000]


MODULES: dict[str, tuple[list[Reducer[Any]], ...]] = {
    "events": ([seen, touchy, pages, class_size], [seen, hardened, pages]),
    "time": ([beats, everyone, chatty], [counted, everyone]),
    "memory": ([hungry],),
}
NAMES = ["seen", "touchy", "pages", "class_size", "beats", "everyone", "chatty", "hungry"]

students = st.sampled_from(["ann", "bob", "eve"])
documents: st.SearchStrategy[dict[str, str]] = st.sampled_from(
    [{}, {"doc_id": "essay"}, {"doc_id": "poem", "class": "7b"}, {"class": "7a"}]
)
kinds = st.sampled_from(["good", "typed", "bad", "fragile", "mute", "big"])
locks = st.sampled_from(
    [{"tool": "pad"}, {"class": "7b"}, {"user_id": "ann"}, {"user_id": "eve", "tool": "x"}]
)
seldom = st.integers(0, 2).map(lambda lot: not lot)


class Model(RuleBasedStateMachine):
    """A log, the workers of some number of shards, and the list of all that was kept."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(feed, "SLICE_ENTRIES", 3)
        self.patch.setattr(layout, "CHUNK", 2)
        Trouble.now = self.troubled = False
        self.world = World()
        self.kept: list[tuple[int, Submission]] = []
        self.skips: list[tuple[int, Skip]] = []
        self.connections: list[Connection] = [connection(number) for number in range(3)]
        self.versions = dict.fromkeys(MODULES, 0)
        self.stores: dict[tuple[str, int, int, int], MemoryStore] = {}
        self.workers: list[Crew] = []
        self.keys_max = 1

    def teardown(self) -> None:
        """Undo the small slices and chunks, and the trouble."""
        self.patch.undo()
        Trouble.now = False

    # --- what there is ---------------------------------------------------------------------------

    def running(self, module: str) -> list[Reducer[Any]]:
        """Return the reducers that a module runs."""
        return MODULES[module][self.versions[module]]

    def start(self, shard: int, shards: int) -> Crew:
        """Start a worker on what was saved."""
        holdings = []
        for module, version in self.versions.items():
            place = (module, version, shard, shards)
            store = self.stores.setdefault(place, MemoryStore(STATE_TABLES))
            holding = Holding(MODULES[module][version], store, module, keys_max=self.keys_max)
            with self.world.source.open() as log:
                holding.resume(log)
            holdings.append(holding)
        return Crew(holdings, self.world.vault(), shard=shard, shards=shards)

    def catch_up(self, workers: list[Crew]) -> None:
        """Let workers fold all there is."""
        for crew in workers:
            while crew.step(self.world.source):
                self.send(crew)

    def send(self, crew: Crew) -> None:
        """Take messages, which only a module's active reducers may have."""
        for message in crew.outbox:
            active = crew.steering and crew.steering.active(message.module)
            assert active
            names = [(one.name, one.version) for one in self.running(message.module)]
            assert sorted((one.name, one.version) for one in active[1].reducers) == sorted(names)
        crew.sent()

    def want(self, module: str, size: int | None = None) -> bytes:
        """Return the digest that the list gives a module at a size of the log."""
        trouble, Trouble.now = Trouble.now, False
        found = plain_fold(self.running(module), ordered(self.before(size)), self.skipped(size))
        Trouble.now = trouble
        return found

    def before(self, size: int | None) -> list[tuple[int, Submission]]:
        """Return what was kept below a size."""
        return [one for one in self.kept if size is None or one[0] < size]

    def skipped(self, size: int | None) -> Skips:
        """Return what is skipped by entries below a size."""
        found: Skips = {}
        for at, skip in self.skips:
            if size is None or at < size:
                found.setdefault(skip.reducer, set()).add(skip.index)
        return passed_over(found, self.kept)

    def judge(self, workers: list[Crew]) -> None:
        """Hold workers that have caught up against the list; only who had no memory, and was not started since, may be
        behind.
        """
        stopped = {module for crew in workers for module in crew.stopped}
        assert stopped <= ({"memory"} if self.troubled else set())
        for module in MODULES.keys() - stopped:
            pairs = [
                pair
                for crew in workers
                for holding in crew.holdings
                if holding.module == module
                for pair in holding.pairs()
            ]
            assert state_digest(pairs) == self.want(module), module
            found = Counter[str]()
            for crew in workers:
                for holding in crew.holdings:
                    found += holding.lacking if holding.module == module else Counter()
            events = [one for one in ordered(self.kept) if one.type != TICK]
            assert found == {
                one.name: count
                for one in self.running(module)
                if (count := sum(one.key_of(event) is None for event in events))
            }, "each event that lacks a field is counted once, by one shard"

    # --- what is sent ----------------------------------------------------------------------------

    def keep(self, submissions: list[Submission]) -> None:
        """Append, and remember what was kept where."""
        receipts = self.world.append(submissions)
        self.kept += [(receipt.index, one) for receipt, one in zip(receipts, submissions, strict=True)]

    @initialize(shards=st.integers(1, 3))
    def begin(self, shards: int) -> None:
        """Start the workers."""
        self.workers = [self.start(shard, shards) for shard in range(shards)]

    @rule(student=students, name=kinds, keys=documents)
    def direct(self, student: str, name: str, keys: dict[str, str]) -> None:
        """An event that says who it is about."""
        self.keep([event(student, name, **keys)])

    @rule(at=st.integers(0, 2), sent=st.lists(st.tuples(kinds, documents), min_size=1, max_size=4))
    def anonymous(self, at: int, sent: list[tuple[str, dict[str, str]]]) -> None:
        """Frames of a connection that do not say who they are about."""
        self.keep(frames(self.connections[at], *[{"event": name, **keys} for name, keys in sent]))

    @rule(at=st.integers(0, 2), student=students, name=kinds, keys=documents)
    def identified(self, at: int, student: str, name: str, keys: dict[str, str]) -> None:
        """A frame that says who it is about: for the first time, once more, or another one."""
        self.keep(frames(self.connections[at], {"event": name, "user_id": student, **keys}))

    @rule(at=st.integers(0, 2), fields=locks)
    def lock(self, at: int, fields: dict[str, str]) -> None:
        """Fields that are locked for all later frames."""
        self.keep(frames(self.connections[at], {"event": "lock_fields", "fields": fields}))

    @rule(at=st.integers(0, 2))
    def nonsense(self, at: int) -> None:
        """A frame that is refused, and the end of its connection, whether it has said who it is or not."""
        self.keep(frames(self.connections[at], b'{"event":'))
        self.connections[at] = connection(len(self.kept) + 1_000)

    @rule(minutes=st.integers(1, 4))
    def tick(self, minutes: int) -> None:
        """Time passes."""
        self.keep([tick_at(60 * minutes)])

    # --- what is steered -------------------------------------------------------------------------

    def still(self) -> Iterator[tuple[str, int]]:
        """Yield (reducer, event) of the keys that stand still, by the list."""
        for module in MODULES:
            for one in self.running(module):
                without = self.skipped(None).get(one.name, set())
                events = [each for each in ordered(self.kept) if each.index not in without]
                for slot in fold(one, events).values():
                    if slot.error_index is not None:
                        yield one.name, slot.error_index

    @rule(data=st.data(), name=st.sampled_from(NAMES), anything=seldom)
    def skip(self, data: st.DataObject, name: str, anything: bool) -> None:
        """An event is skipped at which a key stands still; or any, even one that is yet to come."""
        trouble, Trouble.now = Trouble.now, False
        still = sorted(set(self.still()))
        Trouble.now = trouble
        if still and not anything:
            name, index = data.draw(st.sampled_from(still))
        else:
            index = data.draw(st.integers(0, self.world.size + 1))
        self.skips.append((self.world.steer(Skip(name, index)), Skip(name, index)))

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def retry(self, data: st.DataObject, name: str) -> None:
        """A key is folded again, or none; nothing has changed, so it comes to the same."""
        if self.world.size:  # of what is yet to come there is nothing to try again
            index = data.draw(st.integers(0, self.world.size - 1))
            self.world.steer(Retry(reducer=name, index=index))

    @rule(module=st.sampled_from(["events", "time"]), version=st.integers(0, 1))
    def upgrade(self, module: str, version: int) -> None:
        """Another version of a module becomes active, or an earlier one again; the workers begin anew."""
        self.versions[module] = version
        self.world.steer(activation(*self.running(module), module=module, undo=True))
        shards = len(self.workers)
        self.workers = [self.start(shard, shards) for shard in range(shards)]

    @rule(now=st.booleans())
    def trouble(self, now: bool) -> None:
        """There is too little memory, or enough."""
        Trouble.now = now
        self.troubled |= now

    # --- what workers do -------------------------------------------------------------------------

    @rule(data=st.data(), steps=st.integers(1, 4), saves=st.booleans())
    def work(self, data: st.DataObject, steps: int, saves: bool) -> None:
        """One worker folds some slices, and perhaps saves."""
        crew = data.draw(st.sampled_from(self.workers))
        for _ in range(steps):
            crew.step(self.world.source)
            self.send(crew)
        if saves:
            crew.save(self.world.source)

    @rule(data=st.data(), keys_max=st.integers(0, 4))
    def crash(self, data: st.DataObject, keys_max: int) -> None:
        """One worker dies; what it had not saved is gone, and it comes back, with more or less memory."""
        self.keys_max = keys_max
        shard = data.draw(st.integers(0, len(self.workers) - 1))
        self.workers[shard] = self.start(shard, len(self.workers))

    @rule(shards=st.integers(1, 4))
    def reshard(self, shards: int) -> None:
        """The server comes back with another number of shards, which may have been here before."""
        self.workers = [self.start(shard, shards) for shard in range(shards)]

    # --- what holds ------------------------------------------------------------------------------

    @rule(saves=st.booleans())
    def all_catch_up(self, saves: bool) -> None:
        """The live workers themselves, with all they have been through, hold the fold of the list."""
        self.catch_up(self.workers)
        self.judge(self.workers)
        if saves:
            for crew in self.workers:
                crew.save(self.world.source)
            self.judge(self.workers)

    @rule(data=st.data(), module=st.sampled_from(sorted(MODULES)))
    def replay(self, data: st.DataObject, module: str) -> None:
        """A replay to any size, and one of a single key, is the fold of that much of the list."""
        size, trouble = data.draw(st.integers(0, self.world.size)), Trouble.now
        Trouble.now = False
        reducers = self.running(module)
        found = replay_digests(self.world.source, reducers, self.world.vault(), size=size)
        assert digest_of_entries(found) == self.want(module, size)
        one = data.draw(st.sampled_from(reducers))
        without = self.skipped(size).get(one.name, set())
        events = [each for each in ordered(self.before(size)) if each.index not in without]
        slots = fold(one, events)
        if slots:
            key = data.draw(st.sampled_from(sorted(slots)))
            alone = replay_key(self.world.source, self.world.vault(), one, key, size)
            assert {each: alone.get(one, each) for each in alone.keys(one)} == {key: slots[key]}
        Trouble.now = trouble

    @invariant()
    def states_are_a_function_of_the_log(self) -> None:
        """Caught up from wherever its saved states stand, every worker holds its part of the fold of the list."""
        if not self.workers:
            return
        shards = len(self.workers)
        caught_up = [self.start(shard, shards) for shard in range(shards)]
        self.catch_up(caught_up)
        self.judge(caught_up)

    @invariant()
    def stores_agree_with_themselves(self) -> None:
        """In every store, what changed when, and who stands still, is what the states say."""
        for store in self.stores.values():
            judge_tables(tables(store))


class LongModel(Model):
    """The same, for longer histories, and many of them."""


TestHistories = Model.TestCase
TestHistories.settings = settings(stateful_step_count=25, max_examples=60)
TestLongHistories = pytest.mark.long(pytest.mark.timeout(3_000)(LongModel.TestCase))
TestLongHistories.settings = settings(stateful_step_count=60, max_examples=1_500)
