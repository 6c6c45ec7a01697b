"""Readers are sent to a store that answers rightly, and are told which one, and why not the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archive import LmdbStore, MemoryStore, NotFound, Store, Unavailable, View, Write
from replay import (
    MIRRORED,
    STATE_TABLES,
    ReadStore,
    RedisLink,
    RedisStore,
    StateReader,
    Stores,
    memory_folder,
)
from replay import states_name as name_of_states
from replay.choosing import LATE_S, Mode, Status
from tests.replay.mirrored import NAME, Shard, position_of


class Copy(RedisStore):
    """What stands in for Redis: a memory store that can be switched off."""

    def __init__(self) -> None:
        super().__init__(RedisLink("redis://nowhere"), "a shard", MIRRORED)
        self.inner: Store = MemoryStore(STATE_TABLES)
        self.up = True
        self.asked = 0

    @contextmanager
    def view(self) -> Iterator[View]:  # type: ignore[override]  # readers need no more than a View
        """Return a view, or fail as Redis does."""
        self.asked += 1
        if not self.up:
            raise Unavailable("Redis at nowhere cannot be reached: start it, or correct redis_url")
        with self.inner.view() as view:
            yield view

    def take(self, shard: Shard) -> None:
        """Become a copy of what a shard holds now."""
        copy = MemoryStore(STATE_TABLES)
        with shard.store.view() as view:
            copy.commit([Write(table, *row) for table in MIRRORED for row in view.scan(table)])
        self.inner = copy


@pytest.fixture
def shard() -> Shard:
    """Return a shard that has saved once."""
    shard = Shard()
    shard.save({"ann": b"1", "bob": b"1"})
    return shard


@pytest.fixture
def remote(shard: Shard) -> Copy:
    """Return a whole copy."""
    remote = Copy()
    remote.take(shard)
    return remote


def reading(
    shard: Shard, remote: Copy | None, mode: str = "redis", now: list[float] | None = None
) -> ReadStore:
    """Return the store for readers of a shard; `now` is its clock."""
    at = now or [0.0]
    return ReadStore(mode, lambda: shard.store, remote, shard.is_ours, clock=lambda: at[0])  # type: ignore[arg-type]


def ann(store: Store) -> tuple[int, bytes | None]:
    """Return (position, Ann's state)."""
    position, slot = StateReader(store).get(NAME, ("ann",))
    return position, None if slot is None else slot.encoding


def test_redis_answers_where_it_is_whole(shard: Shard, remote: Copy) -> None:
    """A copy that is a moment behind is as good as any: what it says is right at the position it names."""
    store = reading(shard, remote)
    shard.save({"ann": b"2"})
    assert ann(store) == (2, b"1")
    assert store.status() == Status("redis", "ok")
    remote.take(shard)
    assert ann(store) == (3, b"2")


def test_the_local_states_answer_where_redis_is_down(shard: Shard, remote: Copy) -> None:
    """Somebody else's outage costs nobody a dashboard; the status says what is wrong, until it no longer is."""
    store = reading(shard, remote)
    remote.up = False
    assert ann(store) == (2, b"1")
    assert store.status() == Status(
        "redis", "down: Redis at nowhere cannot be reached: start it, or correct redis_url"
    )
    remote.up = True
    assert ann(store) == (2, b"1")
    assert store.status().state == "ok"


@pytest.mark.parametrize(("mode", "word"), [("redis", "down"), ("auto", "local")])
def test_a_copy_that_cannot_be_brought_up_to_date_does_not_catch_up(
    shard: Shard, remote: Copy, mode: Mode, word: str
) -> None:
    """Why, only the worker knows, since reading goes well; as long as Redis answers rightly, that is what is said."""
    said = ["Redis at nowhere has no memory left"]
    now = [0.0]
    store = ReadStore(
        mode, lambda: shard.store, remote, shard.is_ours, trouble=lambda: said[0], clock=lambda: now[0]
    )
    assert (ann(store), store.status().state) == ((2, b"1"), "ok")
    shard.save({"ann": b"2"})
    assert (ann(store), store.status().state) == ((2, b"1"), "ok")
    now[0] += LATE_S
    assert (ann(store), store.status().state) == ((3, b"2"), f"{word}: {said[0]}")
    said[0] = ""
    assert (ann(store), store.status().state) == ((3, b"2"), "catching up")
    remote.take(shard)
    assert (ann(store), store.status().state) == ((3, b"2"), "ok")


def test_an_empty_redis_is_no_empty_class(shard: Shard, remote: Copy) -> None:
    """Flushed, Redis has no marker: the local states answer until it has."""
    store = reading(shard, remote)
    remote.inner = MemoryStore(STATE_TABLES)
    assert ann(store) == (2, b"1")
    assert store.status().state == "catching up"


def test_nobody_goes_back_in_time(shard: Shard, remote: Copy) -> None:
    """After an answer of the local states, Redis is not read before it has come as far."""
    store = reading(shard, remote)
    shard.save({"ann": b"2"})
    remote.up = False
    assert ann(store) == (3, b"2")
    remote.up = True
    assert ann(store) == (3, b"2")
    assert store.status().state == "catching up"
    remote.take(shard)
    shard.save({"ann": b"3"})
    assert ann(store) == (3, b"2")
    assert store.status().state == "ok"


def test_a_mirror_that_stands_still_is_left_behind(shard: Shard, remote: Copy) -> None:
    """Redis that does not move while the local states do is not read after a while, and is again once it moves."""
    now = [0.0]
    store = reading(shard, remote, now=now)
    shard.save({"ann": b"2"})
    assert ann(store) == (2, b"1")
    now[0] = LATE_S - 0.1
    assert ann(store) == (2, b"1")
    now[0] = LATE_S
    assert ann(store) == (3, b"2")
    assert store.status().state == "catching up"
    remote.take(shard)
    assert ann(store) == (3, b"2")
    assert store.status().state == "ok"


def test_a_mirror_that_follows_slowly_is_not_left_behind(shard: Shard, remote: Copy) -> None:
    """Under load the copy is never quite up to date; as long as it moves, it is read."""
    now = [0.0]
    store = reading(shard, remote, now=now)
    for number in range(9):
        remote.take(shard)
        shard.save({"ann": b"%d" % number})
        now[0] += LATE_S - 0.1
        assert ann(store)[0] == shard.position - 1
        assert store.status().state == "ok"


def test_redis_answers_while_the_local_states_are_rebuilt(shard: Shard, remote: Copy) -> None:
    """A worker that begins anew has a whole copy of what it had."""
    store = reading(shard, remote)
    shard.lose()
    assert ann(store) == (2, b"1")
    shard.rebuild(done=False)
    assert ann(store) == (2, b"1")


def test_another_machine_reads_redis_alone(shard: Shard, remote: Copy) -> None:
    """Where there are no local states, Redis is all there is; without it the answer is "not now", and why."""

    def nowhere() -> Store:
        raise NotFound("never initialised")

    store = ReadStore("redis", nowhere, remote, shard.is_ours)
    assert ann(store) == (2, b"1")
    remote.up = False
    with pytest.raises(Unavailable, match="being rebuilt; ask again shortly"):
        ann(store)
    assert store.look().state.startswith("down: ")
    remote.up, remote.inner = True, MemoryStore(STATE_TABLES)
    with pytest.raises(Unavailable, match="being rebuilt; ask again shortly"):
        ann(store)


def test_neither_whole_is_never_an_empty_answer(shard: Shard, remote: Copy) -> None:
    """Local states that are being made, and a Redis without a marker: being rebuilt, which is not "no such state"."""
    store = reading(shard, remote)
    remote.inner = MemoryStore(STATE_TABLES)
    shard.lose()
    with pytest.raises(NotFound, match="being rebuilt"):
        ann(store)
    shard.rebuild(done=False)
    with pytest.raises(NotFound, match="being rebuilt"):
        ann(store)
    assert StateReader(store).rebuilding() == (1, 2)


def test_states_of_another_log_are_not_read(shard: Shard, remote: Copy) -> None:
    """After a restore, what Redis still holds of the log that was is nobody's answer."""
    store = reading(shard, remote)
    shard.begin_another_log()
    with pytest.raises(NotFound, match="being rebuilt"):
        ann(store)
    shard.save({"ann": b"other"})
    assert ann(store) == (1, b"other")


def test_local_states_are_opened_when_there_are_some_and_once(shard: Shard) -> None:
    """A worker that starts later than the readers is found; many threads at once open its store once."""
    opened: list[Store] = []
    there = False

    def open_local() -> Store:
        if not there:
            raise NotFound("never initialised")
        opened.append(shard.store)
        return shard.store

    store = ReadStore("lmdb", open_local, None, shard.is_ours)
    with pytest.raises(Unavailable, match="being rebuilt"):
        ann(store)
    there = True
    threads = [threading.Thread(target=ann, args=(store,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert store.status() == Status("lmdb", "local")


def test_readers_do_not_write(shard: Shard, remote: Copy) -> None:
    """Whoever tries is stopped, before anything changes."""
    with pytest.raises(TypeError, match="for reading"):
        reading(shard, remote).commit([Write("states", b"a", b"1")])


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "url", "said"),
    [
        ("disk", None, "state_store: one of lmdb, memory, redis, auto, not 'disk'"),
        ("redis", None, "redis_url: state_store is redis"),
        ("redis", "http://x", "redis_url: begins with none of"),
    ],
)
def test_settings_that_do_not_fit_are_named(mode: str, url: str | None, said: str) -> None:
    """A wrong setting stops the start, with its name and what would be right."""
    with pytest.raises(ValueError, match=said):
        Stores(mode, url)


@pytest.mark.parametrize("mode", ["lmdb", "memory", "auto"])
def test_nothing_is_sent_to_a_redis_that_nobody_named(mode: str, shard: Shard) -> None:
    """Without `redis_url` there is no link, whoever may listen on Redis's port."""
    stores = Stores(mode, None)
    assert stores.link is None
    assert stores.remote("a shard") is None
    assert ann(stores.reading(lambda: shard.store, "a shard", shard.is_ours)) == (2, b"1")
    assert stores.status() == Status(mode, "local")


@pytest.mark.parametrize(("mode", "state"), [("redis", "down: "), ("auto", "local: ")])
def test_auto_is_content_with_the_disk(mode: str, state: str, shard: Shard) -> None:
    """A Redis that was asked for is missed, one that would have been nice is not; both are tried again."""
    stores = Stores(mode, "redis://127.0.0.1:1")
    store = stores.reading(lambda: shard.store, "a shard", shard.is_ours)
    assert ann(store) == (2, b"1")
    assert stores.status() == Status(
        mode, f"{state}Redis at 127.0.0.1:1 cannot be reached: start it, or correct redis_url"
    )
    stores.forget(store)
    assert stores.status().state == "ok"


def test_the_worst_of_all_shards_is_what_is_shown(shard: Shard) -> None:
    """One shard that is down is not hidden by others that are well."""
    stores = Stores("redis", "redis://127.0.0.1:1")
    states = ["ok", "down: gone", "catching up"]
    for state in states:
        stores.reading(lambda: shard.store, "a shard", shard.is_ours)._state = state
    assert stores.status().state == "down: gone"


def test_a_name_in_redis_tells_all_that_must_agree() -> None:
    """Another log, module, version, shard or number of shards is another store."""
    base = ("a/log", 0, "writing", "00ff", 1, 4)
    others = [("b/log", *base[1:]), ("a/log", 1, *base[2:]), (*base[:2], "reading", *base[3:])]
    others += [(*base[:3], "00fe", 1, 4), (*base[:4], 2, 4), (*base[:5], 5)]
    names = {name_of_states(*one) for one in [base, *others]}
    assert len(names) == 7


# --- memory --------------------------------------------------------------------------------------


def test_states_in_memory_have_a_folder_of_their_own(tmp_path: Path) -> None:
    """Each data folder has one, found again by the next process, closed to everybody else."""
    shm, one, other = tmp_path / "shm", tmp_path / "one", tmp_path / "other"
    shm.mkdir()
    folder = memory_folder(one, shm)
    assert folder.parent == shm
    assert folder.name.startswith(f"treering-{os.getuid()}-")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert memory_folder(tmp_path / "other" / ".." / "one", shm) == folder != memory_folder(other, shm)


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_in_memory_that_is_not_ours_alone_is_refused(tmp_path: Path, kind: str) -> None:
    """Anyone can make a name in shared memory first: nothing is put where others could read or change it."""
    folder = memory_folder(tmp_path, tmp_path)
    if kind == "open to others":
        folder.chmod(0o750)
    else:
        folder.rmdir()
        if kind == "a link":
            folder.symlink_to(tmp_path)
        else:
            folder.touch()
    with pytest.raises(Unavailable, match="set state_store to lmdb"):
        memory_folder(tmp_path, tmp_path)


def test_a_folder_in_memory_that_belongs_to_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner counts, whatever the rights are."""
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    (tmp_path / memory_folder_name(tmp_path)).mkdir(mode=0o700)
    with pytest.raises(Unavailable, match="not a folder of yours alone"):
        memory_folder(tmp_path, tmp_path)


def memory_folder_name(data: Path) -> str:
    """Return the name of a data folder's place in memory, from where there is no memory at all."""
    with pytest.raises(Unavailable, match="set state_store to lmdb") as caught:
        memory_folder(data, data / "no such memory")
    return Path(str(caught.value).partition(":")[0]).name


def test_states_in_memory_are_a_store_like_any_other(tmp_path: Path) -> None:
    """LMDB in memory: another process that opens it finds what was saved."""
    folder = memory_folder(tmp_path, tmp_path)
    local = LmdbStore(folder / "0", STATE_TABLES)
    shard = Shard(local)
    shard.save({"ann": b"1"})
    local.close()
    again = LmdbStore(folder / "0", STATE_TABLES, read_only=True)
    assert position_of(again) == 1
    again.close()
