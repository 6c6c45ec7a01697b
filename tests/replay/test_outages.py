"""The model of `test_model`, with readers who look through Redis while everything happens to Redis as well.

Events, crashes, restarts, reshards, upgrades, skips, retries, ticks, too little memory, and a real server that is not
there at the start, goes away, comes back empty or with an older copy, loses keys, hangs in the middle of a commit, or
answers nobody in time.  At every moment each reader is told either exactly what a plain fold over the list gives at the
position that comes with the answer, or "not now"; and whoever has whole states on his own machine is always told.

The model is worth what it finds: mirrors and readers with one guard taken out (`tests.replay.broken`) are all found.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from reducers import Key, fold
from replay import Crew, Mirror, home_of, mirror, redis_link
from tests.redis_server import RedisServer
from tests.replay.broken import BROKEN
from tests.replay.classroom import ordered
from tests.replay.readers import FAILURES, Readers, position_of
from tests.replay.test_model import MODULES, Model, Trouble, documents, kinds, students
from tests.world import event

pytestmark = pytest.mark.process

ROT = """
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local value = redis.call('HGET', KEYS[1], field)
  local body, found = string.gsub(string.sub(value, 9, -5), '%d([^%d]*)$', '7%1')
  if found > 0 then
    redis.call('HSET', KEYS[1], field, string.sub(value, 1, 8) .. body .. string.sub(value, -4))
    return found
  end
end
return 0
"""
"""Changes the last digit of one state: what is left is as good a state as before, and wrong."""
Slots = dict[tuple[str, Key], tuple[int, bytes, int | None]]
"""By reducer and key: version, encoding, index of the event at which the key stands still."""


class Outages(Model):
    """The model, its readers, and a Redis to which everything happens."""

    server: RedisServer
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.patch.setattr(mirror, "PIECE_STATES", 2)
        self.patch.setattr(redis_link, "ANSWER_S", 0.1)
        self.patch.setattr("api.shelf.LOOK_EVERY_S", -1.0)
        self.place = tempfile.TemporaryDirectory(dir=self.folder)
        self.readers = Readers(self.server, Path(self.place.name), self.world.source)
        self.readers.begin()
        self.known: dict[tuple[str, int, int, int], Slots] = {}
        self.route_key = self.world.vault().route_key

    def teardown(self) -> None:
        """End all trouble."""
        self.readers.close()
        self.place.cleanup()
        super().teardown()

    # --- what there is ---------------------------------------------------------------------------

    def start(self, shard: int, shards: int) -> Crew:
        """Start a worker, and what mirrors its states."""
        crew = super().start(shard, shards)
        for module, version in self.versions.items():
            worker = (module, version, shard, shards)
            self.readers.employ(worker, MODULES[module][version], self.stores[worker])
        return crew

    def mirrors(self) -> list[Mirror]:
        """Return the mirrors of the workers that run."""
        shards = len(self.workers)
        return [
            self.readers.mirrors[module, version, shard, shards]
            for module, version in self.versions.items()
            for shard in range(shards)
        ]

    def fold_of(self, module: str, version: int, position: int, steered: int) -> Slots:
        """Return what the list gives a module at a position, as steered by the entries below another."""
        place = (module, version, position, steered)
        if place not in self.known:
            trouble, Trouble.now = Trouble.now, False
            kept, skipped = ordered(self.before(position)), self.skipped(steered)
            self.known[place] = {
                (one.name, key): (one.version, one.encode(slot.state), slot.error_index)
                for one in MODULES[module][version]
                for key, slot in fold(
                    one, [event for event in kept if event.index not in skipped.get(one.name, ())]
                ).items()
            }
            Trouble.now = trouble
        return self.known[place]

    def part_of(self, module: str, version: int, slots: Slots, shard: int) -> Slots:
        """Return the part of a module's states that a shard holds."""
        scopes, shards = {one.name: one.scope for one in MODULES[module][version]}, len(self.workers)
        return {
            (name, key): slot
            for (name, key), slot in slots.items()
            if home_of(name, scopes[name], key, self.route_key, shards) == shard
        }

    def judge_readers(self) -> None:
        """Hold all that readers are told now against the list."""
        for module in MODULES:
            for shard in range(len(self.workers)):
                for told in self.readers.told(module, shard):
                    whole = self.fold_of(module, told.version, told.position, told.steered)
                    want = self.part_of(module, told.version, whole, shard)
                    found = {
                        (name, slot.key): (slot.version, slot.encoding, slot.error_index)
                        for name, slot in told.slots
                    }
                    assert found == want, (module, shard, told.position)
                    still = [(name, slot[2]) for (name, _), slot in want.items() if slot[2] is not None]
                    assert sorted(told.still) == sorted(still)

    # --- what happens ----------------------------------------------------------------------------

    @initialize(shards=st.integers(1, 3), up=st.booleans(), mode=st.sampled_from(["redis", "auto"]))
    def begin(self, shards: int, up: bool = True, mode: str = "redis") -> None:
        """Start the server, and perhaps Redis."""
        self.mode = mode
        if not up:
            self.server.stop()
        super().begin(shards)
        self.readers.open(shards, mode)

    @rule(module=st.sampled_from(["events", "time"]), version=st.integers(0, 1))
    def upgrade(self, module: str, version: int) -> None:
        """Another version is installed and the server started again: its readers have seen nothing yet."""
        super().upgrade(module, version)
        self.readers.open(len(self.workers), self.mode)

    @rule(shards=st.integers(1, 4), tidy=st.booleans())
    def reshard(self, shards: int, tidy: bool = False) -> None:
        """The server is started with another number of shards; what belongs to others may have been removed."""
        if tidy:
            for worker in [one for one in self.stores if one[3] != shards]:
                del self.stores[worker]
                self.readers.forget(worker)
        super().reshard(shards)
        self.readers.open(shards, self.mode)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The saved states of one module in one shard are removed under its readers, and its worker begins anew."""
        crew = data.draw(st.sampled_from(self.workers))
        shard = self.workers.index(crew)
        if crew.holdings:
            data.draw(st.sampled_from(crew.holdings)).clear()
            self.workers[shard] = self.start(shard, len(self.workers))

    @rule(sent=st.lists(st.tuples(students, kinds, documents), max_size=6), pieces=st.integers(0, 9))
    def live(self, sent: list[tuple[str, str, dict[str, str]]], pieces: int) -> None:
        """A while in the life of a server: events come, all workers fold and save, all mirrors do some pieces."""
        if sent:
            self.keep([event(student, name, **keys) for student, name, keys in sent])
        self.catch_up(self.workers)
        for crew in self.workers:
            crew.save(self.world.source)
        self.copy(pieces)

    @rule(sent=st.lists(st.tuples(students, kinds, documents), max_size=6))
    def live_well(self, sent: list[tuple[str, str, dict[str, str]]]) -> None:
        """The same, and Redis is up and gets all of it."""
        self.readers.well()
        self.live(sent, pieces=30)

    @rule(pieces=st.integers(1, 9))
    def copy(self, pieces: int) -> None:
        """Every mirror does some pieces."""
        for one in self.mirrors():
            for _ in range(pieces):
                if not one.step():
                    break

    @rule(at=st.integers(1, 12), how=st.sampled_from(FAILURES), pieces=st.integers(1, 9))
    def fail(self, at: int, how: str, pieces: int) -> None:
        """One of the next calls goes wrong."""
        self.readers.link.at, self.readers.link.how = at, how
        self.copy(pieces)

    @rule(
        what=st.sampled_from(["stop", "flush", "save", "set back", "drop", "rot"]), which=st.integers(0, 60)
    )
    def redis(self, what: str, which: int = 0) -> None:
        """Redis goes, is emptied, saved, set back, loses a key, gets a digit wrong; or, if it is down, comes back."""
        saved = self.server.folder / "dump.rdb"
        self.readers.wake()  # a server that hangs could not be told anything
        if self.server.process is None:
            if which % 2:
                saved.unlink(missing_ok=True)
            self.server.start()
        elif what == "stop":
            self.server.stop()
        elif what == "flush":
            self.server.flush()
        elif what == "save":
            self.server.cli("SAVE")
        elif what == "set back":
            self.server.stop()
            self.server.start()
        elif what == "rot":
            self.rot(which)
        elif names := self.server.names():
            self.server.cli("DEL", names[which % len(names)])

    @rule(sent=st.lists(st.tuples(students, kinds, documents), min_size=1, max_size=6))
    def set_back(self, sent: list[tuple[str, str, dict[str, str]]]) -> None:
        """Redis is killed when its readers have seen what it had not saved, and comes back without that."""
        self.readers.well()
        self.server.cli("SAVE")
        self.live_well(sent)
        self.judge_readers()
        self.redis("set back")

    def rot(self, which: int) -> None:
        """A digit changes in one state of one shard."""
        if names := [name for name in self.server.names() if name.endswith(":states")]:
            self.server.cli("EVAL", ROT, "1", names[which % len(names)])

    @rule(
        sent=st.lists(st.tuples(students, kinds, documents), min_size=3, max_size=9),
        pieces=st.integers(1, 3),
        what=st.sampled_from(["flush", "set back", "drop", "rot"]),
        which=st.integers(0, 60),
    )
    def interrupted(
        self, sent: list[tuple[str, str, dict[str, str]]], pieces: int, what: str, which: int
    ) -> None:
        """Redis loses what it has between two pieces of a copy."""
        self.live(sent, pieces)
        self.redis(what, which)
        self.copy(9)

    def drop(self, kind: str) -> None:
        """Redis loses all keys of one kind."""
        self.readers.wake()
        self.server.cli("DEL", *[name for name in self.server.names() if name.endswith(kind)])

    @rule()
    def all_is_well(self) -> None:
        """When trouble is over, the mirrors end with whole copies, and who has only these is told what is saved."""
        self.readers.well()
        for _ in range(
            2
        ):  # what cannot be read in a copy is met when the copy is whole, and then copied again
            self.judge_readers()
            self.finish_copies()
        shards = len(self.workers)
        for module, version in self.versions.items():
            for shard in range(shards):
                here = position_of(self.stores[module, version, shard, shards])
                told = [one.position for one in self.readers.told(module, shard)]
                assert here is None or told == [here, here]

    def finish_copies(self) -> None:
        """Let every mirror end its copy."""
        for one in self.mirrors():
            for _ in range(300):
                if not one.step() and not one.state.startswith("down"):
                    break
                self.readers.clock.now += 1
            assert one.state in ("ok", "waiting: the local states are being rebuilt")

    def states_are_a_function_of_the_log(self) -> None:
        """The workers are judged by `test_model` after each step; here they are where they have caught up."""

    @invariant()
    def readers_are_told_what_the_list_gives(self) -> None:
        """Whatever a reader is told is what the list gives at the position that he is told with it."""
        if self.workers:
            self.readers.wake()
            self.readers.clock.now += 1
            self.judge_readers()


class LongOutages(Outages):
    """The same, for longer histories, and many of them."""


def try_histories(
    machine: type[Outages], server: RedisServer, folder: Path, examples: int, steps: int
) -> None:
    """Let a machine try so many histories."""
    machine.server, machine.folder = server, folder
    tried = settings(stateful_step_count=steps, max_examples=examples)
    run_state_machine_as_test(machine, settings=tried)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a running server."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


def test_whatever_happens_readers_are_told_the_truth_or_nothing(server: RedisServer, tmp_path: Path) -> None:
    """No order of events, crashes, reshards, upgrades, quarantines and outages shows anybody a wrong state."""
    try_histories(Outages, server, tmp_path, examples=15, steps=30)


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_whatever_happens_for_long(server: RedisServer, tmp_path: Path) -> None:
    """The same, for longer histories, and many of them."""
    try_histories(LongOutages, server, tmp_path, examples=600, steps=60)


# --- what the model is worth -----------------------------------------------------------------------


CLASS: list[tuple[str, str, dict[str, str]]] = [
    (student, kind, {"class": "7a", "doc_id": document})
    for student in ("ann", "bob", "eve")
    for kind, document in (("good", "essay"), ("bad", "poem"), ("typed", "plan"))
]


def eventful() -> Iterator[Callable[[Outages], object]]:
    """Yield what happens, one thing after another; after each of them readers are asked."""
    yield lambda one: one.begin(2, up=False)
    yield lambda one: one.live(CLASS, pieces=3)
    yield lambda one: one.live_well(CLASS)
    yield lambda one: one.redis("save")
    yield lambda one: one.live_well(CLASS[::2])
    yield lambda one: one.redis("set back")
    yield lambda one: one.live_well([])
    yield lambda one: one.live(CLASS, pieces=1)
    yield lambda one: one.redis("flush")
    yield lambda one: one.copy(9)
    yield lambda one: one.live_well([])
    yield lambda one: one.redis("flush")
    yield lambda one: one.live_well([])
    for which in range(4):
        yield lambda one, which=which: one.redis("rot", which)  # type: ignore[misc]
    yield lambda one: one.all_is_well()
    yield lambda one: one.reshard(3)
    yield lambda one: one.live_well(CLASS[::3])
    yield lambda one: one.upgrade("events", 1)
    yield lambda one: one.live_well([])
    yield lambda one: one.upgrade("events", 0)
    for kind in (":head", ":states", ":states:order", ":quarantined"):
        yield lambda one: one.live_well([])
        yield lambda one, kind=kind: one.drop(kind)  # type: ignore[misc]


def lived(server: RedisServer, folder: Path, patch: Callable[[pytest.MonkeyPatch], None] | None) -> None:
    """Let one model live through all of it, with something broken or not."""
    Outages.server, Outages.folder = server, folder
    one = Outages()
    try:
        if patch is not None:
            patch(one.patch)
        for happens in eventful():
            happens(one)
            one.readers_are_told_what_the_list_gives()
    finally:
        one.teardown()


def test_nothing_is_found_in_what_is_not_broken(server: RedisServer, tmp_path: Path) -> None:
    """The history by which broken readers and mirrors are found is one that ours live through."""
    lived(server, tmp_path, None)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one.__name__.replace("_", " "))
def test_whoever_lacks_a_guard_is_found(
    server: RedisServer, tmp_path: Path, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Each guard of mirror, store and reader is there for something that happens, and whose lack is seen."""
    with pytest.raises(AssertionError):
        lived(server, tmp_path, broken)
