"""What every Store promises, asked of each: the one in memory must never be kinder than the one on disk.

Redis and Redis Cluster keep all of it but one thing: what they hold is a copy, and not durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive import IntegrityError, LmdbStore, MemoryStore, NotFound, Store, Unavailable, Write
from replay import RedisLink, RedisStore
from tests.redis_server import RedisCluster, RedisServer

TABLES = ("t", "u")
MIB = 1 << 20


@pytest.fixture(scope="module")
def redis_link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisLink]:
    """Yield a link to a server of our own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        link = RedisLink(server.url)
        yield link
        link.close()


@pytest.fixture(scope="module")
def cluster_link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisLink]:
    """Yield a link to a cluster of our own."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        link = RedisLink(cluster.url)
        yield link
        link.close()


def opener(kind: str, place: Path, request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Return what opens the store of one kind at a place."""
    if kind == "lmdb":
        return lambda: LmdbStore(place, TABLES)
    if kind == "memory":
        memory = MemoryStore(TABLES)
        return lambda: memory
    link = request.getfixturevalue(f"{kind}_link")
    return lambda: RedisStore(link, str(place), TABLES)


KINDS = [
    "memory",
    "lmdb",
    pytest.param("redis", marks=pytest.mark.process),
    pytest.param("cluster", marks=pytest.mark.process),
]


@pytest.fixture(params=KINDS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Yield a function that opens the same store, for the first time or again."""
    opened: list[Store] = []
    open_it = opener(request.param, tmp_path / "env", request)

    def reopen() -> Store:
        for store in opened:
            store.close()
        opened.append(open_it())
        return opened[-1]

    yield reopen
    for store in opened:
        store.close()


@pytest.fixture
def store(reopen: Callable[[], Store]) -> Store:
    """Return an empty store."""
    return reopen()


def content(store: Store, table: str = "t") -> dict[bytes, bytes]:
    """Return a whole table."""
    with store.view() as view:
        return dict(view.scan(table))


def put(store: Store, **values: bytes) -> None:
    """Commit keys and values to table t."""
    store.commit([Write("t", key.encode(), value) for key, value in values.items()])


def test_an_empty_store_holds_nothing(store: Store) -> None:
    """Before the first commit there is no key, no first and no last."""
    with store.view() as view:
        assert view.get("t", b"a") is None
        assert list(view.scan("t")) == []
        assert list(view.scan("t", b"a", b"b")) == []
        assert view.last("t") is None


def test_what_is_committed_is_there_after_reopening(reopen: Callable[[], Store]) -> None:
    """A commit that returned is durable."""
    put(reopen(), a=b"1", b=b"2")
    put(reopen(), b=b"3")
    assert content(reopen()) == {b"a": b"1", b"b": b"3"}


def test_tables_are_apart(store: Store) -> None:
    """The same key in two tables is two keys, written in one batch."""
    store.commit([Write("t", b"a", b"1"), Write("u", b"a", b"2")])
    assert (content(store, "t"), content(store, "u")) == ({b"a": b"1"}, {b"a": b"2"})


def test_scan_is_in_order_of_bytes_within_bounds(store: Store) -> None:
    """Keys come as unsigned bytes sort, from `start` on, up to but not including `stop`."""
    keys = [b"\x00", b"\x00\x00", b"a", b"aa", b"b", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
    store.commit([Write("t", key, key[:1]) for key in reversed(keys)])
    with store.view() as view:
        assert [key for key, _ in view.scan("t")] == sorted(keys)
        assert [key for key, _ in view.scan("t", b"a", b"b")] == [b"a", b"aa"]
        assert [key for key, _ in view.scan("t", b"ab")] == [b"b", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
        assert list(view.scan("t", b"b", b"a")) == []
        assert list(view.scan("t", b"\xff\xff\xff")) == []
        assert list(view.scan("t", b"", b"\x00")) == []
        assert list(view.scan("t", b"\x7f", b"\x80")) == [(b"\x7f", b"\x7f")]


def test_a_scan_may_be_left_and_another_begun(store: Store) -> None:
    """Scans of one view do not disturb each other, nor does one that is not finished."""
    put(store, a=b"1", b=b"2", c=b"3")
    with store.view() as view:
        first = view.scan("t")
        assert next(first) == (b"a", b"1")
        assert [key for key, _ in view.scan("t", b"b")] == [b"b", b"c"]
        assert view.last("t") == (b"c", b"3")
        assert next(first) == (b"b", b"2")


def test_last_is_the_greatest_key(store: Store) -> None:
    """The last key is the greatest, not the newest, and follows deletions."""
    put(store, b=b"2", c=b"3")
    put(store, a=b"1")
    with store.view() as view:
        assert view.last("t") == (b"c", b"3")
    store.commit([Write("t", b"c", None)])
    with store.view() as view:
        assert view.last("t") == (b"b", b"2")


def test_count_is_the_number_of_keys(store: Store) -> None:
    """A view knows how many keys a table had when it began: new ones count once, deleted ones no more."""
    put(store, a=b"1", b=b"2")
    put(store, b=b"3", c=b"4")
    with store.view() as view:
        commit_elsewhere(store, [Write("t", b"a", None), Write("t", b"never", None), Write("u", b"x", b"")])
        assert (view.count("t"), view.count("u")) == (3, 0)
    with store.view() as view:
        assert (view.count("t"), view.count("u")) == (2, 1)


def test_a_long_scan_comes_whole_and_in_order(store: Store) -> None:
    """However many rows there are, and whatever is committed meanwhile, a scan gives each row of its view once."""
    keys = [number.to_bytes(2) for number in range(5_000)]
    store.commit([Write("t", key, key * 9) for key in keys])
    with store.view() as view:
        found = []
        for key, value in view.scan("t"):
            assert value == key * 9
            found.append(key)
            if len(found) % 1_000 == 1:
                at = len(found)
                behind, ahead = keys[at - 1], keys[min(at + 700, 4_999)]
                commit_elsewhere(store, [Write("t", behind, None), Write("t", ahead, None)])
                commit_elsewhere(store, [Write("t", ahead + b"new", b"x"), Write("t", ahead, b"other")])
        assert found == keys


def test_delete(store: Store) -> None:
    """A deleted key is gone; deleting what is not there is no error."""
    put(store, a=b"1", b=b"2")
    store.commit([Write("t", b"a", None), Write("t", b"never", None)])
    assert content(store) == {b"b": b"2"}


def test_later_writes_of_a_batch_win(store: Store) -> None:
    """A batch is applied in order."""
    store.commit(
        [Write("t", b"a", b"1"), Write("t", b"a", b"2"), Write("t", b"b", b"3"), Write("t", b"b", None)]
    )
    assert content(store) == {b"a": b"2"}


@pytest.mark.parametrize(
    "bad",
    [
        Write("t", b"", b"x"),
        Write("t", b"k" * 512, b"x"),
        Write("no", b"k", b"x"),
        Write("t", b"k" * 512, None),
    ],
)
def test_a_malformed_batch_leaves_nothing(store: Store, bad: Write) -> None:
    """Keys have 1 to 511 bytes and tables names; one bad write and none of the batch is kept."""
    put(store, a=b"1")
    with pytest.raises(ValueError, match="key of"):
        store.commit([Write("t", b"a", b"2"), Write("u", b"b", b"3"), bad])
    assert (content(store, "t"), content(store, "u")) == ({b"a": b"1"}, {})


def test_the_longest_key(store: Store) -> None:
    """A key of 511 bytes is taken."""
    store.commit([Write("t", b"k" * 511, b"x")])
    assert content(store) == {b"k" * 511: b"x"}


def test_an_empty_commit_changes_nothing(store: Store) -> None:
    """Nothing to write is written."""
    put(store, a=b"1")
    store.commit([])
    assert content(store) == {b"a": b"1"}


def test_empty_and_large_values(reopen: Callable[[], Store]) -> None:
    """A value may be empty, which is not the same as absent, or a mebibyte and more."""
    put(reopen(), empty=b"", large=b"x" * MIB, larger=b"y" * (3 * MIB + 1))
    store = reopen()
    with store.view() as view:
        assert view.get("t", b"empty") == b""
    assert content(store) == {b"empty": b"", b"large": b"x" * MIB, b"larger": b"y" * (3 * MIB + 1)}


def test_a_view_does_not_see_later_commits(store: Store) -> None:
    """A view stays as it was, however it is asked, while a newer one sees the commit."""
    put(store, a=b"1")
    with store.view() as view:
        commit_elsewhere(store, [Write("t", b"a", b"2"), Write("t", b"b", b"3")])
        assert (view.get("t", b"a"), view.get("t", b"b")) == (b"1", None)
        assert list(view.scan("t")) == [(b"a", b"1")]
        assert view.last("t") == (b"a", b"1")
    assert content(store) == {b"a": b"2", b"b": b"3"}


def test_a_scan_under_way_does_not_see_later_commits(store: Store) -> None:
    """A reader in the middle of a scan reads on in the store as it was."""
    put(store, a=b"1", c=b"3")
    with store.view() as view:
        scan = view.scan("t")
        assert next(scan) == (b"a", b"1")
        commit_elsewhere(store, [Write("t", b"b", b"2"), Write("t", b"c", None)])
        assert list(scan) == [(b"c", b"3")]


def commit_elsewhere(store: Store, writes: list[Write]) -> None:
    """Commit in another thread, as a writer beside a reader does."""
    thread = threading.Thread(target=store.commit, args=(writes,))
    thread.start()
    thread.join()


def test_a_failed_view_does_not_harm_the_store(store: Store) -> None:
    """An exception in a reader ends its view and nothing else."""
    put(store, a=b"1")
    with pytest.raises(ZeroDivisionError), store.view():
        raise ZeroDivisionError
    put(store, b=b"2")
    assert content(store) == {b"a": b"1", b"b": b"2"}


def test_closing_twice_is_allowed(store: Store) -> None:
    """Whoever cleans up need not know who else did."""
    store.close()
    store.close()


# --- LMDB alone ----------------------------------------------------------------------------------


def test_read_only_open_of_nothing_is_not_found(tmp_path: Path) -> None:
    """A reader creates nothing: not for a folder that is missing, nor one that is empty."""
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(NotFound, match="there is no database"):
            LmdbStore(tmp_path / name, TABLES, read_only=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_read_only_open_after_a_killed_first_open_is_not_found(tmp_path: Path) -> None:
    """A first open that was killed leaves an empty file, which is as good as none."""
    (tmp_path / "data.mdb").touch()
    with pytest.raises(NotFound, match="there is no database"):
        LmdbStore(tmp_path, TABLES, read_only=True)


def test_read_only_open_without_the_tables_is_not_found(tmp_path: Path) -> None:
    """An environment whose tables were never made was never initialised; opening it again is possible."""
    LmdbStore(tmp_path, ("t",)).close()
    for _ in range(2):
        with pytest.raises(NotFound, match="there is no database"):
            LmdbStore(tmp_path, TABLES, read_only=True)
    LmdbStore(tmp_path, TABLES).close()


def test_read_only_open_reads_and_does_not_write(tmp_path: Path) -> None:
    """A read-only store shows what is there and refuses to change it."""
    store = LmdbStore(tmp_path, TABLES)
    put(store, a=b"1")
    store.close()
    store = LmdbStore(tmp_path, TABLES, read_only=True)
    with pytest.raises(Exception, match=r"[Rr]ead"):
        put(store, a=b"2")
    assert content(store) == {b"a": b"1"}
    store.close()


@pytest.mark.parametrize("key", [b"a", b"b"])
def test_an_append_table_refuses_a_key_that_is_not_greater(tmp_path: Path, key: bytes) -> None:
    """A second writer, or the same one twice, is found by LMDB itself, and nothing of its batch is kept."""
    store = LmdbStore(tmp_path, TABLES, append=("t",))
    store.commit([Write("t", b"b", b"1"), Write("u", b"b", b"1")])
    with pytest.raises(IntegrityError, match="not beyond the last"):
        store.commit([Write("u", b"x", b"2"), Write("t", b"c", b"2"), Write("t", key, b"2")])
    assert (content(store, "t"), content(store, "u")) == ({b"b": b"1"}, {b"b": b"1"})
    store.commit([Write("u", b"a", b"2"), Write("t", b"c", b"2")])
    assert (content(store, "t"), content(store, "u")) == ({b"b": b"1", b"c": b"2"}, {b"a": b"2", b"b": b"1"})
    store.close()


def test_a_full_store_keeps_nothing_and_goes_on(tmp_path: Path) -> None:
    """No space is Unavailable: the batch is not kept, and a smaller one is."""
    store = LmdbStore(tmp_path, TABLES, map_size=MIB // 4)
    put(store, a=b"1")
    with pytest.raises(Unavailable, match="largest size"):
        store.commit([Write("t", b"b", b"2"), Write("t", b"c", b"x" * MIB)])
    assert content(store) == {b"a": b"1"}
    put(store, b=b"2")
    assert content(store) == {b"a": b"1", b"b": b"2"}
    store.close()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Nobody else may read a database, whatever the folder's rights become later."""
    LmdbStore(tmp_path / "env", TABLES).close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "env").iterdir()}
    assert modes == {"data.mdb": 0o600, "lock.mdb": 0o600}
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o700
