"""A Redis server that the tests of a file share, and stores on it.

    store = RedisStore(RedisLink(server.url), "a shard", TABLES)
    put(store, a=b"1")                   # key and value, in table t

The server itself: `tests.redis_server`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archive import Write
from replay import RedisStore
from tests.redis_server import RedisServer

TABLES = ("t", "u")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a running server."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


def put(store: RedisStore, **values: bytes) -> None:
    """Commit keys and values to table t."""
    store.commit([Write("t", key.encode(), value) for key, value in values.items()])
