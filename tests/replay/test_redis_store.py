"""The store on Redis, beyond the contract of all stores: what Redis may lose, and what lies there.

The contract itself, which Redis and Redis Cluster keep like any other store: tests/archive/test_store_contract.py.
How a server is reached, and what is said when it is not: `test_redis_link`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archive import Unavailable, Write
from replay import RedisLink, RedisStore, redis_link
from tests.redis_server import RedisServer
from tests.replay.on_redis import TABLES, put, server

__all__ = ["server"]

pytestmark = pytest.mark.process


@pytest.fixture
def store(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
    """Yield an empty store whose link never rests."""
    monkeypatch.setattr(redis_link, "REST_S", (0.0, 0.0))
    server.flush()
    link = RedisLink(server.url, rest_s_max=0.0)
    yield RedisStore(link, "a shard", TABLES)
    link.close()


# --- views ---------------------------------------------------------------------------------------


def test_a_view_outlives_hundreds_of_commits(store: RedisStore) -> None:
    """However many commits overtake a reader, he reads on in the store as it was."""
    put(store, a=b"1", b=b"1", c=b"1")
    with store.view() as view:
        for number in range(300):
            put(store, b=b"%d" % number, d=b"new")
            store.commit([Write("t", b"a", None)])
            put(store, a=b"again")
        assert list(view.scan("t")) == [(b"a", b"1"), (b"b", b"1"), (b"c", b"1")]
        assert view.get_many("t", [b"d", b"a"]) == [None, b"1"]
        assert view.last("t") == (b"c", b"1")


@pytest.mark.parametrize("how", ["flushed", "cleared", "flushed and filled again", "undo records gone"])
def test_a_view_that_cannot_go_on_says_so(store: RedisStore, server: RedisServer, how: str) -> None:
    """Who reads while Redis loses what he is reading is told to ask again, and given nothing."""
    put(store, a=b"1", b=b"2")
    with store.view() as view:
        scan = view.scan("t")
        if how == "cleared":
            store.clear()
        elif how.startswith("flushed"):
            server.flush()
        if how.endswith(("again", "gone")):
            put(store, a=b"1", b=b"2")
        if how == "undo records gone":
            server.cli("DEL", *[name for name in server.names() if ":undo:" in name])
        with pytest.raises(Unavailable, match="ask again"):
            next(scan)
        with pytest.raises(Unavailable, match="ask again"):
            view.get("t", b"a")


def test_many_values_and_their_beginnings_in_one_call(store: RedisStore) -> None:
    """Values come in the order of the keys that were asked for, whole or cut, also after they were overtaken."""
    store.commit([Write("t", number.to_bytes(2), b"%05d" % number) for number in range(2_500)])
    keys = [number.to_bytes(2) for number in range(2_499, -1, -1)]
    with store.view() as view:
        store.commit([Write("t", keys[0], b"other"), Write("t", keys[1], None)])
        assert view.get_many("t", [*keys, b"none"]) == [b"%05d" % n for n in range(2_499, -1, -1)] + [None]
        assert view.get_many("t", keys[:2], size=3) == [b"024", b"024"]
        assert list(view.keys("t")) == sorted(keys)


def test_large_values_come_in_pieces(store: RedisStore) -> None:
    """A scan of values that are larger than a piece gives them all."""
    store.commit([Write("t", bytes([number]), bytes([number]) * 700_000) for number in range(5)])
    with store.view() as view:
        assert [(key, len(value)) for key, value in view.scan("t")] == [
            (bytes([n]), 700_000) for n in range(5)
        ]
        assert view.last("t") == (b"\x04", b"\x04" * 700_000)


# --- commits -------------------------------------------------------------------------------------


def test_a_commit_on_an_older_look_is_not_made(store: RedisStore) -> None:
    """Who has been overtaken writes nothing, and learns it."""
    put(store, a=b"1")
    with store.view() as view:
        since = view.token
    token = store.commit_since(since, [Write("t", b"a", b"2")])
    assert token not in {None, since}
    assert store.commit_since(since, [Write("t", b"a", b"3"), Write("t", b"b", b"3")]) is None
    with store.view() as view:
        assert view.token == token
        assert list(view.scan("t")) == [(b"a", b"2")]


def test_a_commit_that_is_sent_twice_is_made_once(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends again what was answered into a broken connection is told that it is done."""
    put(store, a=b"1")
    run = store.link.run
    monkeypatch.setattr(store.link, "run", lambda *call: (run(*call), run(*call))[1])
    with store.view() as view:
        since = view.token
    token = store.commit_since(since, [Write("t", b"b", b"2")])
    with store.view() as view:
        assert view.token == token
        assert view.count("t") == 2


def test_a_full_server_writes_nothing_of_a_commit(store: RedisStore, server: RedisServer) -> None:
    """Where there is no memory the old content stays, readable; removing everything is always possible."""
    put(store, a=b"1")
    server.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(Unavailable, match="no memory left: raise its maxmemory"):
            store.commit([Write("t", b"a", None), Write("u", b"b", b"2")])
        with store.view() as view:
            assert list(view.scan("t")) == [(b"a", b"1")]
            assert view.count("u") == 0
        store.clear()
        assert [name for name in server.names() if ":undo:" not in name] == []
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "0")


# --- what lies in Redis --------------------------------------------------------------------------


def test_no_name_of_a_person_is_in_a_name_of_a_key(store: RedisStore, server: RedisServer) -> None:
    """Keys of states stand in fields and values: what monitoring shows of Redis names nobody."""
    store.commit([Write("t", b"event_count\0\0\3ann", b"1")])
    store.commit([Write("t", b"event_count\0\0\3ann", b"2")])
    assert server.names()
    assert not [name for name in server.names() if "ann" in name]
    head = next(name for name in server.names() if name.endswith(":head"))
    assert server.cli("HGET", head, "about").strip() == "a shard"


def test_everything_expires_some_day(store: RedisStore, server: RedisServer) -> None:
    """A copy that nobody tends goes by itself; `touch` and commits put that off, for all of its keys alike."""
    put(store, a=b"1")
    put(store, a=b"2")
    for name in server.names():
        server.cli("EXPIRE", name, "100")
    store.touch()
    left = {name: int(server.cli("TTL", name)) for name in server.names()}
    assert all((ttl > 86_000) == (":undo:" not in name) for name, ttl in left.items()), left
    assert all(ttl > 0 for ttl in left.values())


@pytest.mark.parametrize("part", ["head", "t", "t:order"])
def test_a_store_with_a_key_missing_answers_nothing(
    store: RedisStore, server: RedisServer, part: str
) -> None:
    """Where one key was evicted, no view opens and no read goes on, and no commit is laid over the hole."""
    put(store, a=b"1")
    with store.view() as view:
        server.cli("DEL", next(name for name in server.names() if name.endswith(f":{part}")))
        with pytest.raises(Unavailable, match="lost some of these states"):
            view.get("t", b"a")
        with pytest.raises(Unavailable, match="lost some of these states"):
            list(view.scan("t"))
        with pytest.raises(Unavailable, match="lost some of these states"), store.view():
            pass
        with pytest.raises(Unavailable, match="lost some of these states"):
            store.commit([Write("t", b"b", b"1")])
    store.clear()
    put(store, b=b"2")
    with store.view() as view:
        assert list(view.scan("t")) == [(b"b", b"2")]


def test_a_key_of_another_kind_is_an_error_not_an_answer(store: RedisStore, server: RedisServer) -> None:
    """Somebody else's key under our name is reported, with Redis's own words."""
    put(store, a=b"1")
    name = next(name for name in server.names() if name.endswith(":t"))
    server.cli("DEL", name)
    server.cli("SET", name, "x")
    with pytest.raises(Unavailable, match="wrong kind of value"), store.view():
        pass
