"""States are copied to Redis so that no reader can ever meet a wrong or half a copy, whatever happens to Redis.

A hypothesis machine plays worker, mirror, reader and bad luck against a real server; named tests show each kind of
trouble on its own, and what the mirror says of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from archive import NotFound, Unavailable, Write
from replay import (
    MIRRORED,
    Damaged,
    Mirror,
    ReadStore,
    RedisLink,
    RedisStore,
    StateReader,
    after,
    mirror,
    read_marker,
    remedy_in,
    state_key,
)
from replay.layout import SNAPSHOT
from tests.redis_server import RedisCluster, RedisServer
from tests.replay.classroom import CLASSROOM
from tests.replay.mirrored import NAME, Shard, position_of, same
from tests.world import World, run

pytestmark = pytest.mark.process


class Ticks:
    """A clock that leaves long pauses behind it: nothing rests when it is asked again."""

    def __init__(self, step_s: float = 100.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        """Return a later time than before."""
        self.now_s += self.step_s
        return self.now_s


class FaultyLink(RedisLink):
    """A link whose `at`-th call from now fails: lost on the way, or (`kept`) done while its answer is lost."""

    at, kept = 0, False

    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]) -> Any:
        """Run a script, or fail as told."""
        self.at -= 1
        if self.at == 0 and not self.kept:
            raise Unavailable("lost on the way")
        answer = super().run(script, keys, arguments)
        if self.at == 0:
            raise Unavailable("the answer was lost")
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a running server."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def link(server: RedisServer) -> Iterator[FaultyLink]:
    """Yield a link that never rests, to a server that is up and holds nothing."""
    server.start()
    server.flush()
    link = FaultyLink(server.url, clock=Ticks())
    yield link
    link.close()
    server.start()


@pytest.fixture
def remote(link: FaultyLink) -> RedisStore:
    """Return an empty store in Redis."""
    return RedisStore(link, "a shard", MIRRORED)


@pytest.fixture
def shard() -> Shard:
    """Return a shard of seven students."""
    shard = Shard()
    shard.save({f"student {number}": b"1" for number in range(7)}, stuck=3)
    return shard


def mirror_of(shard: Shard, remote: RedisStore) -> Mirror:
    """Return a mirror whose steps are never too early."""
    return Mirror(shard.store, remote, shard.is_ours, module="essay", clock=Ticks())


def settle(mirror: Mirror, steps: int = 200) -> str:
    """Let a mirror do all there is to do, and return its state."""
    for _ in range(steps):
        if not mirror.step():
            return mirror.state
    pytest.fail(f"not done after {steps} steps: {mirror.state}")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a piece hold two states."""
    monkeypatch.setattr(mirror, "PIECE_STATES", 2)


# --- any order of anything -------------------------------------------------------------------------


students = st.sampled_from(["ann", "bob", "eve", "joe", "kim", "lea"])
contents = st.one_of(st.none(), st.binary(min_size=1, max_size=3))


class MirrorMachine(RuleBasedStateMachine):
    """One shard, two mirrors of it (one too many), a reader, and a server to which everything happens."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mirror, "PIECE_STATES", 2)
        self.server.start()
        self.server.flush()
        self.shard = Shard()
        self.link = FaultyLink(self.server.url, clock=Ticks())
        self.remote = RedisStore(self.link, "a shard", MIRRORED)
        self.mirrors = [mirror_of(self.shard, self.remote) for _ in range(2)]
        self.read_up_to = -1
        self.small = False
        self.begin_reading()

    def teardown(self) -> None:
        """Undo the small pieces and what was done to the server."""
        self.patch.undo()
        self.link.close()
        self.server.start()
        self.server.cli("CONFIG", "SET", "maxmemory", "0")

    def begin_reading(self) -> None:
        """Begin as a new reader, who has seen nothing yet."""
        local = self.shard.store
        self.store = ReadStore("redis", lambda: local, self.remote, self.shard.is_ours, clock=Ticks(0))
        self.read_up_to = -1

    @rule(changes=st.dictionaries(students, contents, max_size=5), stuck=st.none() | st.integers(0, 3))
    def save(self, changes: dict[str, bytes | None], stuck: int | None) -> None:
        """The worker saves."""
        if position_of(self.shard.store) is not None or not self.shard.history:
            self.shard.save(changes, stuck)

    @precondition(lambda self: position_of(self.shard.store) is not None)
    @rule(student=students)
    def erase(self, student: str) -> None:
        """A state goes without a trace."""
        self.shard.erase(student)

    @rule()
    def lose(self) -> None:
        """The local store is lost."""
        self.shard.lose()

    @precondition(lambda self: self.shard.history and position_of(self.shard.store) is None)
    @rule(done=st.booleans())
    def rebuild(self, done: bool) -> None:
        """The worker folds anew, half of the log or all of it."""
        self.shard.rebuild(done=done)

    @rule()
    def begin_another_log(self) -> None:
        """The log is another one; readers are those of the new one."""
        self.shard.begin_another_log()
        self.begin_reading()

    @rule(which=st.integers(0, 1), steps=st.integers(1, 6))
    def step(self, which: int, steps: int) -> None:
        """A mirror does a few pieces."""
        for _ in range(steps):
            self.mirrors[which].step()

    @rule(which=st.integers(0, 1))
    def restart_mirror(self, which: int) -> None:
        """A mirror forgets how far it was."""
        self.mirrors[which] = mirror_of(self.shard, self.remote)

    @rule(at=st.integers(1, 6), kept=st.booleans())
    def fail(self, at: int, kept: bool) -> None:
        """One of the next calls fails, before or after it was done."""
        self.link.at, self.link.kept = at, kept

    @rule()
    def flush(self) -> None:
        """Somebody empties Redis."""
        if self.server.process is not None:
            self.server.flush()

    @rule(which=st.integers(0, 6))
    def delete(self, which: int) -> None:
        """Somebody deletes one of our keys."""
        if self.server.process is not None:
            names = self.server.names()
            if names:
                self.server.cli("DEL", names[which % len(names)])

    @rule(up=st.booleans())
    def stop_or_start(self, up: bool) -> None:
        """Redis goes or comes back, empty."""
        (self.server.start if up else self.server.stop)()

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        """Redis has no memory left, or has it again."""
        if self.server.process is not None:
            self.server.cli("CONFIG", "SET", "maxmemory", "1" if full else "0")

    @rule()
    def settle(self) -> None:
        """When all trouble is over, the mirror ends with a whole copy."""
        self.server.start()
        self.server.cli("CONFIG", "SET", "maxmemory", "0")
        self.link.at = 0
        if self.shard.history and position_of(self.shard.store) is None:
            self.shard.rebuild(done=True)
        state = settle(self.mirrors[0])
        if self.shard.history:
            assert state == "ok"
            assert same(self.shard.store, self.remote)

    @invariant()
    def every_answer_is_right(self) -> None:
        """Who is answered at all, by Redis or by the local store, is told the states of the position it names."""
        for store in (self.store, self.remote):
            try:
                position, found = StateReader(store).scan(NAME)
            except (NotFound, Unavailable):
                continue
            if store is self.remote and not self.shard.is_ours(position, self.remote_root()):
                continue  # what readers are kept from by the root
            assert {slot.key[0]: slot.encoding for _, slot in found} == self.shard.history[position]
            if store is self.store and position_of(self.shard.store) is not None:
                assert position >= self.read_up_to
                self.read_up_to = position

    def remote_root(self) -> bytes:
        """Return the root that the remote marker names."""
        with self.remote.view() as view:
            marker = read_marker(view.get("meta", SNAPSHOT))
        assert marker is not None
        return marker.root


def test_no_order_of_events_makes_a_wrong_answer() -> None:
    """Saves, losses, flushes, kills, full memory, two mirrors: every answer is right, and all of it ends well."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        MirrorMachine.server = server
        run = settings(stateful_step_count=30, max_examples=max(20, settings().max_examples // 4))
        run_state_machine_as_test(MirrorMachine, settings=run)


# --- one thing at a time ---------------------------------------------------------------------------


def test_a_copy_is_whole_and_then_follows(shard: Shard, remote: RedisStore) -> None:
    """The first copy brings everything that readers use, later ones what changed; nothing to do is nothing done."""
    mirror = mirror_of(shard, remote)
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)
    shard.save({"student 1": b"2", "student 3": None, "student 9": b"1"}, stuck=8)
    with remote.view() as view:
        before = view.token
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)
    with remote.view() as view:
        after = view.token
    assert mirror.step() is False
    with remote.view() as view:
        assert before != after == view.token
    assert StateReader(remote).quarantined(9) == [(NAME, 3), (NAME, 8)]


@pytest.mark.usefixtures("small_pieces")
def test_nobody_reads_a_copy_that_is_under_way(shard: Shard, remote: RedisStore) -> None:
    """While a copy comes in pieces there is no marker, neither at the first copy nor at a large change."""
    mirror = mirror_of(shard, remote)
    for _ in range(2):
        while mirror.step():
            if mirror.state != "ok":
                assert mirror.state.startswith("copying: ")
                assert position_of(remote) is None
        assert position_of(remote) == shard.position
        shard.save({f"student {number}": b"2" for number in range(7)})


@pytest.mark.usefixtures("small_pieces")
def test_a_flush_between_two_pieces_begins_the_copy_anew(
    shard: Shard, remote: RedisStore, server: RedisServer
) -> None:
    """What was copied before the flush is not taken to be there."""
    mirror = mirror_of(shard, remote)
    assert mirror.step()
    assert mirror.step()
    server.flush()
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


@pytest.mark.usefixtures("small_pieces")
def test_what_is_saved_during_a_copy_is_part_of_it(shard: Shard, remote: RedisStore) -> None:
    """A state that changes, comes or goes behind the walk is met again at its end."""
    mirror = mirror_of(shard, remote)
    assert mirror.step()
    shard.save({"student 0": b"2", "student 6": None, "student 7": b"1"})
    assert mirror.step()
    shard.erase("student 1")
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


@pytest.mark.parametrize("kept", [False, True])
def test_a_crash_at_each_call_leaves_no_wrong_copy(
    shard: Shard, link: FaultyLink, remote: RedisStore, kept: bool, small_pieces: None
) -> None:
    """Whichever call fails, lost or done, the copy answers rightly or not at all, and the next mirror mends it."""
    assert small_pieces is None
    for at in range(1, 200):
        remote.clear()
        shard.save({"student 2": b"%d" % at, "student 4": None, "student 5": b"%d" % at})
        link.at, link.kept = at, kept
        first = mirror_of(shard, remote)
        while first.step():
            pass
        untouched = link.at > 0
        link.at = 0
        if (position := position_of(remote)) is not None:
            assert position == shard.position
            assert same(shard.store, remote)
        assert settle(mirror_of(shard, remote)) == "ok"
        assert same(shard.store, remote)
        if untouched:
            return
    pytest.fail("never done")


def test_states_of_another_log_are_removed_at_once(shard: Shard, remote: RedisStore) -> None:
    """Also while the local states are being rebuilt, which nothing else is done in."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    shard.begin_another_log()
    assert mirror.step()
    assert position_of(remote) is None
    assert settle(mirror) == "waiting: the local states are being rebuilt"
    shard.save({"ann": b"1"})
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


def test_a_rebuild_leaves_readers_what_is_there_until_it_is_done(shard: Shard, remote: RedisStore) -> None:
    """States in Redis stay true at their position while the local ones are folded again; then they are replaced."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    for done in (False, True):
        shard.lose()
        assert settle(mirror).startswith("waiting")
        shard.rebuild(done=done)
        assert settle(mirror) == ("ok" if done else "waiting: the local states are being rebuilt")
        assert position_of(remote) == shard.position
    assert same(shard.store, remote)


def test_a_second_mirror_cannot_mix_two_moments(shard: Shard, remote: RedisStore) -> None:
    """What was planned on an older look at Redis is not written onto a newer one."""
    settle(mirror_of(shard, remote))

    class Slow(RedisStore):
        def commit_since(self, since: bytes, writes: Sequence[Write], *, undo: bool = True) -> bytes | None:
            shard.save({"student 1": b"newer"})
            settle(mirror_of(shard, remote))
            return super().commit_since(since, writes, undo=undo)

    shard.save({"student 1": b"new"})
    slow = mirror_of(shard, Slow(remote.link, remote.about, MIRRORED))
    assert slow.step() is False
    assert slow.state == "waiting: somebody else wrote these states to Redis"
    assert same(shard.store, remote)


def test_a_local_store_that_contradicts_itself_stops_the_mirror(shard: Shard, remote: RedisStore) -> None:
    """A state that no change lists would never be copied: that is said, not passed over."""
    mirror = mirror_of(shard, remote)
    with shard.store.view() as view:
        change, _ = next(view.scan("changes"))
    shard.store.commit([Write("changes", change, None)])
    with pytest.raises(Damaged, match="made anew from the log"):
        settle(mirror)
    assert mirror.state.startswith("damaged: states of module essay")


def test_what_cannot_be_read_here_is_not_copied(shard: Shard, remote: RedisStore) -> None:
    """While local states are damaged, readers of Redis go on with the moment before; then they get what is new."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    before = shard.position
    shard.save({"student 1": b"2"})
    with shard.store.view() as view:
        whole = view.get("states", state_key(NAME, ("student 1",)))
        marker = view.get("meta", SNAPSHOT)
    assert whole is not None
    assert marker is not None
    shard.store.commit([Write("states", state_key(NAME, ("student 1",)), whole[:-1] + b"9")])
    for row in (None, Write("meta", SNAPSHOT, marker[:-1] + b"?")):
        shard.store.commit([row] if row else [])
        for _ in range(2):
            with pytest.raises(Damaged, match="module essay"):
                settle(mirror)
        assert position_of(remote) == before
    shard.lose()
    shard.rebuild(done=True)
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


@pytest.mark.parametrize("student", [1, 3])
def test_what_cannot_be_read_in_redis_is_copied_anew(shard: Shard, remote: RedisStore, student: int) -> None:
    """A value that is to be replaced, or removed, and cannot be read: whose rows go with it, nobody knows any more."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    key = state_key(NAME, (f"student {student}",))
    remote.commit([Write("states", key, b"rot")])
    shard.save({"student 1": b"2"})
    shard.erase("student 3")
    assert mirror.step()
    assert mirror.state == "copying: states in Redis cannot be read, so all of them are copied anew"
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


def test_two_who_write_the_same_copy_do_not_fight_for_ever(remote: RedisStore) -> None:
    """A copy of a data folder was started with the same Redis, say: who loses says so, rests, and tries again later."""
    now = [0.0]
    shards = Shard(), Shard()
    for number, one in enumerate(shards):
        one.log = f"log {number}"
        one.save({f"student {at}": b"1" for at in range(3)})
    mirrors = [Mirror(one.store, remote, one.is_ours, module="essay", clock=lambda: now[0]) for one in shards]
    steps = 0
    for _ in range(50):
        for each in mirrors:
            now[0] += 0.1
            while each.step():
                steps += 1
    assert steps < 40
    (resting,) = [each for each in mirrors if each.trouble]
    assert "somebody else writes these states there, too" in resting.trouble
    assert remedy_in(resting.trouble).startswith("give the other server")
    now[0] += 61.0
    assert settle(resting) == "ok"


def test_a_reader_who_cannot_read_a_copy_removes_it(shard: Shard, remote: RedisStore) -> None:
    """He is told so, the next who asks is answered from this machine, and the mirror copies all of it again."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    local = shard.store
    store = ReadStore("redis", lambda: local, remote, shard.is_ours, clock=Ticks(0))
    met: list[bool] = []
    reader = StateReader(store, None, "essay", lambda _: met.append(store.distrust()))
    remote.commit([Write("states", state_key(NAME, ("student 1",)), b"rot")])
    with pytest.raises(Damaged, match="module essay"):
        reader.scan(NAME)
    assert met == [True]
    assert len(reader.scan(NAME)[1]) == 7
    assert not store.distrust()  # that was the local one
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


def test_what_workers_saved_reads_the_same_from_redis(link: FaultyLink) -> None:
    """A whole class, folded by real workers in slices and mirrored after each, is the same to readers of either."""
    world = World()
    workers = world.runners(2)
    remotes = [RedisStore(link, f"shard {shard} of 2", MIRRORED) for shard in range(2)]
    mirrors = [
        Mirror(world.states[shard, 2], remote, world_has(world), clock=Ticks())
        for shard, remote in enumerate(remotes)
    ]
    for start in range(0, len(CLASSROOM), 9):
        world.append(CLASSROOM[start : start + 9])
        for shard, worker in enumerate(workers):
            run(worker, world.source)
            worker.save(world.source)
            assert settle(mirrors[shard]) == "ok"
            ours, theirs = world.reader(shard, 2), StateReader(remotes[shard])
            names = [reducer.name for reducer in world.reducers]
            assert theirs.everything(names) == ours.everything(names)
            for name in names:
                assert theirs.following(name, after(0), 1_000) == ours.following(name, after(0), 1_000)
            assert theirs.quarantined(99) == ours.quarantined(99)
    assert all(StateReader(remote).following("event_count", after(0), 1_000).rows for remote in remotes)


def world_has(world: World) -> Callable[[int, bytes], bool]:
    """Return what tells whether a world's log had a root at a size."""

    def is_ours(size: int, root: bytes) -> bool:
        with world.source.open() as log:
            return size <= log.size and log.root(size) == root

    return is_ours


# --- what Redis can do to us -----------------------------------------------------------------------


def test_down_at_start_going_down_and_coming_back(
    shard: Shard, remote: RedisStore, server: RedisServer
) -> None:
    """A Redis that is not there is said to be down, and gets a whole copy as soon as it is."""
    server.stop()
    mirror = mirror_of(shard, remote)
    for _ in range(2):
        assert mirror.step() is False
        assert (
            mirror.state
            == f"down: Redis at 127.0.0.1:{server.port} cannot be reached: start it, or correct redis_url"
        )
        server.start()
        assert settle(mirror) == "ok"
        assert same(shard.store, remote)
        server.stop()
        shard.save({"student 1": b"2"})


def test_a_full_server_keeps_the_old_moment(shard: Shard, remote: RedisStore, server: RedisServer) -> None:
    """Where memory is full nothing of a commit is written: readers go on with what is there."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    before = shard.position
    shard.save({"student 1": b"2"})
    server.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        assert mirror.step() is False
        assert "has no memory left: raise its maxmemory" in mirror.state
        assert position_of(remote) == before
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "0")
    assert settle(mirror) == "ok"
    assert same(shard.store, remote)


def test_a_read_only_replica_is_not_written(shard: Shard, remote: RedisStore, server: RedisServer) -> None:
    """The operator is told to name the primary."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    shard.save({"student 1": b"2"})
    server.cli("CONFIG", "SET", "replica-serve-stale-data", "yes")
    server.cli("REPLICAOF", "127.0.0.1", "1")
    try:
        assert mirror.step() is False
        assert "is a read-only replica: name the primary in redis_url" in mirror.state
    finally:
        server.cli("REPLICAOF", "NO", "ONE")
    assert settle(mirror) == "ok"


def test_a_server_that_evicts_is_refused(shard: Shard, remote: RedisStore, server: RedisServer) -> None:
    """A policy by which keys go when memory is full is named, with the one to set."""
    server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        mirror = mirror_of(shard, remote)
        assert mirror.step() is False
        assert mirror.state.endswith(
            "drops keys when it is full (maxmemory-policy allkeys-lru): set it to noeviction"
        )
        assert server.names() == []
    finally:
        server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert settle(mirror) == "ok"


def test_keys_that_went_missing_are_no_answer_and_come_back(
    shard: Shard, remote: RedisStore, server: RedisServer
) -> None:
    """Whichever key is evicted or deleted, nobody is told that there is no such state, and the copy is mended."""
    mirror = mirror_of(shard, remote)
    settle(mirror)
    for name in server.names():
        if ":undo:" in name:
            continue
        server.cli("DEL", name)
        with pytest.raises((Unavailable, NotFound)):
            StateReader(remote).get(NAME, ("student 1",))
        assert settle(mirror) == "ok"
        assert same(shard.store, remote)


def test_a_server_that_comes_back_with_an_older_copy_gets_what_it_lacks(tmp_path: Path, shard: Shard) -> None:
    """What Redis had on disk is whole, only older: who saw more is not shown it, and what it lacks is copied."""
    with RedisServer(tmp_path) as server:
        link = RedisLink(server.url, clock=Ticks())
        remote = RedisStore(link, "a shard", MIRRORED)
        mirror = mirror_of(shard, remote)
        store = ReadStore("redis", lambda: shard.store, remote, shard.is_ours)
        settle(mirror)
        server.cli("SAVE")
        before = shard.position
        shard.save({"student 1": b"2", "student 2": None})
        settle(mirror)
        assert StateReader(store).position() == shard.position
        with remote.view() as view:
            server.stop()
            server.start()
            assert position_of(remote) == before
            with pytest.raises(Unavailable, match="ask again"):
                view.get("states", b"any")
        assert StateReader(store).position() == shard.position
        assert store.status().state == "catching up"
        assert mirror.step()
        assert mirror.state == "ok"
        assert same(shard.store, remote)
        link.close()


def test_a_copy_in_a_cluster(shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards lie on whichever node their hash tag says, each of them whole, also after one node was emptied."""
    monkeypatch.setattr(mirror, "PIECE_STATES", 2)
    with RedisCluster(tmp_path) as cluster:
        link = RedisLink(cluster.url, clock=Ticks())
        remotes = [RedisStore(link, f"shard {number}", MIRRORED) for number in range(8)]
        mirrors = [mirror_of(shard, remote) for remote in remotes]
        assert {settle(each) for each in mirrors} == {"ok"}
        assert all("{" in name for name in cluster.names())
        assert sum(bool(node.names()) for node in cluster.nodes) > 1
        cluster.nodes[0].flush()
        shard.save({"student 1": b"2"})
        assert {settle(each) for each in mirrors} == {"ok"}
        assert all(same(shard.store, remote) for remote in remotes)
        link.close()
