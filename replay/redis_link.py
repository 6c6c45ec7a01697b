"""The way to Redis: one server or one Cluster, found by URL, bounded in time, quick to say that it is down.

Everything that we ask of Redis is one script over the keys of one hash tag (`replay.redis_store`), so there is one
function, `run`, and one place that turns what redis-py raises into `Unavailable` with a sentence that says what to
do.  After a failure the link rests for a moment, which doubles up to a limit: until then each call fails at once,
so that a dashboard on a dead Redis costs nothing, and the first call after the rest finds out whether it is back.

    redis://[user:password@]host[:port][/db]       one server          rediss://  the same with TLS
    redis+cluster://[user:password@]host:port,host:port                rediss+cluster://  the same with TLS
    unix:///path/to/socket                         one server on this machine

Passwords stay in the URL: no message and no status names more than hosts and ports.

>>> RedisLink("redis://:secret@127.0.0.1:7001/2").address
'127.0.0.1:7001'
>>> RedisLink("redis+cluster://u:secret@a:7000,b:7001").address
'a:7000,b:7001'
>>> RedisLink("http://u:secret@a")
Traceback (most recent call last):
ValueError: redis_url: begins with none of redis://, rediss://, unix://, redis+cluster://, rediss+cluster://
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit

from archive import Unavailable

SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
PORT: Final = 6379
CONNECT_S: Final = 0.5
ANSWER_S: Final = 2.0
REST_S = (0.1, 5.0)
"""How long a link rests after its first failure, and at most after many."""

_REASONS = {
    "OutOfMemoryError": "has no memory left: raise its maxmemory; nothing is lost meanwhile",
    "ReadOnlyError": "is a read-only replica: name the primary in redis_url",
    "NoPermissionError": "does not permit this user what it needs: EVAL, INFO, and all commands on keys treering:*",
    "AuthenticationError": "refuses user or password: correct redis_url",
    "BusyLoadingError": "is loading its data; it will answer soon",
    "TimeoutError": f"did not answer within {ANSWER_S:g} s",
    "ConnectionError": "cannot be reached: start it, or correct redis_url",
    "TryAgainError": "is moving these keys to another node",
    "MovedError": "is one node of a Cluster: write redis+cluster:// in redis_url",
    "ClusterError": "is a Cluster that is not whole just now",
    "RedisClusterException": "is no Cluster that can be reached: start it, or correct redis_url",
}
"""By the name of an error of redis-py's, the special ones first."""
EVICTS: Final = "drops keys when it is full"
"""What `replay.mirror` says of a Redis of which it has asked for its policy."""
CONTESTED: Final = "somebody else writes these states there, too"
"""What `replay.mirror` says where its copy is undone again and again."""
_HELPS = {
    CONTESTED: "give the other server, or copy of this one's data, a Redis or a database of its own: redis://HOST/1",
    EVICTS: "CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
    "has no memory left": "raise its maxmemory, or let it hold nothing else",
    "is a read-only replica": "name the primary in redis_url; or, if this is to be the primary: REPLICAOF NO ONE",
    "does not permit this user": "let this user do what docs/state-stores.md lists (ACL SETUSER)",
    "refuses user or password": "correct user and password in redis_url",
    "cannot be reached": "start it, or correct redis_url",
    "did not answer": "see whether it hangs, or has too much to do",
    "is one node of a Cluster": "write redis+cluster:// in redis_url",
    "is no Cluster": "start it, or correct redis_url",
    "is a Cluster that is not whole": "see which of its nodes is down (CLUSTER NODES)",
}
"""What a person does about a reason, by words of it; of others, nothing is known that helps."""


def remedy_in(reason: str) -> str:
    """Return what a person does about a reason that a link or a mirror gave; empty where it passes, or nobody knows.

    >>> remedy_in("Redis at localhost:6379 is a read-only replica: name the primary in redis_url").partition(";")[0]
    'name the primary in redis_url'
    """
    return next((remedy for words, remedy in _HELPS.items() if words in reason), "")


@cache
def _redis() -> Any:
    """Return redis-py, which is loaded when it is first needed: it takes a tenth of a second, and few use it."""
    return import_module("redis")


class RedisLink:
    """A connection pool to one Redis, made when it is first needed; may be shared by threads and stores.

    `clock` is any clock that only goes forward, in seconds.  Raises ValueError if the URL is not of a kind above.
    """

    def __init__(
        self, url: str, *, clock: Callable[[], float] = time.monotonic, rest_s_max: float = REST_S[1]
    ) -> None:
        self.address = _address(url)
        self._url, self._clock, self._rest_s_max = url, clock, rest_s_max
        self._client: Any = None
        self._lock = Lock()
        self._rest, self._until, self._reason = 0.0, 0.0, ""

    @property
    def down(self) -> str:
        """Why the last call failed, or "" where it did not."""
        return self._reason

    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]) -> Any:
        """Run a script on keys of one hash tag and return its answer, bytes and lists.

        Raises Unavailable, within seconds at most; where the answer did not come in time, the script may still have
        run, or may yet run, as a whole.
        """
        return self._ask(lambda client: client.eval(script, len(keys), *keys, *arguments))

    def policies(self) -> set[str]:
        """Return what each primary does when its memory is full (`maxmemory-policy`); nothing where it does not say."""
        found = self._ask(lambda client: client.info("memory", **_on_primaries(client)))
        nodes = found.values() if all(isinstance(one, dict) for one in found.values()) else [found]
        return {str(node["maxmemory_policy"]) for node in nodes if "maxmemory_policy" in node}

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        if self._reason and self._clock() < self._until:
            raise Unavailable(self._reason)
        began = self._clock()
        try:
            answer = question(self._opened())
        except (_redis().RedisError, _redis().exceptions.RedisClusterException, OSError) as error:
            self._fail(_reason(error), self._clock() - began)
            raise Unavailable(self._reason) from None  # the cause could name what the URL holds
        self._rest, self._reason = 0.0, ""
        return answer

    def _opened(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _client(self._url)
            return self._client

    def _fail(self, reason: str, took: float) -> None:
        first, most = REST_S[0], self._rest_s_max
        # Who was kept waiting once is not kept waiting again soon.
        self._rest = most if took >= CONNECT_S else min(2 * self._rest or first, most)
        self._until = self._clock() + self._rest
        self._reason = f"Redis at {self.address} {reason}"


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        kinds = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"redis_url: begins with none of {kinds}")
    if parts.scheme == "unix":
        return parts.path
    hosts = parts.netloc.rpartition("@")[2]
    if not hosts:
        raise ValueError("redis_url: names no host")
    for host in hosts.split(","):
        try:
            _ = urlsplit(f"//{host}").port
        except ValueError:
            raise ValueError(f"redis_url: the port of {host} is no number up to 65535") from None
    return ",".join(host if _has_port(host) else f"{host}:{PORT}" for host in hosts.split(","))


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _client(url: str) -> Any:
    bounds: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": ANSWER_S,
        "protocol": 2,  # what every server speaks, old ones included
    }
    # One more try, at once: a pooled connection may have been closed by a server that is back since.
    redis = _redis()
    once = redis.backoff.NoBackoff()
    retry = redis.retry.Retry(once, 1, supported_errors=(redis.exceptions.ConnectionError,))
    scheme, _, rest = url.partition("://")
    if not scheme.endswith("+cluster"):
        return redis.Redis.from_url(url, retry=retry, **bounds)
    user, at, hosts = rest.partition("/")[0].partition("?")[0].rpartition("@")
    tail = rest[len(user) + len(at) + len(hosts) :]
    urls = [f"{scheme.removesuffix('+cluster')}://{user}{at}{host}{tail}" for host in hosts.split(",")]
    # Any node tells of all the others; several are named because one of them may be down just now.
    others = [urlsplit(url) for url in urls[1:]]
    node = redis.cluster.ClusterNode
    nodes = [node(other.hostname or "localhost", other.port or PORT) for other in others]
    return redis.cluster.RedisCluster.from_url(urls[0], startup_nodes=nodes, retry=retry, **bounds)


def _on_primaries(client: Any) -> dict[str, str]:
    cluster = _redis().cluster.RedisCluster
    return {"target_nodes": cluster.PRIMARIES} if isinstance(client, cluster) else {}


def _reason(error: Exception) -> str:
    """Say what is wrong, and what to do."""
    exceptions = _redis().exceptions
    for kind, reason in _REASONS.items():
        if isinstance(error, getattr(exceptions, kind)):
            return reason
    return f"answered {type(error).__name__}: {str(error)[:80]}"
