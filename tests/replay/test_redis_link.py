"""The link to Redis: how a server or a Cluster is reached, who may look, and what is said when it fails.

What is kept there, and what Redis may lose of it: `test_redis_store`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from archive import Unavailable, Write
from replay import RedisLink, RedisStore, redis_link, remedy_in
from tests.architecture.source import ROOT
from tests.redis_server import HOST, RedisCluster, RedisServer, free_port
from tests.replay.on_redis import TABLES, put, server

__all__ = ["server"]

pytestmark = pytest.mark.process
RIGHTS = ("~treering:*", "+@read", "+@write", "+@connection", "+eval", "+info", "+cluster")
"""As docs/state-stores.md says."""


def reason(url: str) -> str:
    """Return what is said of a URL that leads nowhere good."""
    link = RedisLink(url)
    with pytest.raises(Unavailable) as caught, RedisStore(link, "a shard", TABLES).view():
        pass
    link.close()
    assert str(caught.value) == link.down
    assert caught.value.__cause__ is None
    return str(caught.value)


def reason_or_none(store: RedisStore) -> str | None:
    """Return why a store cannot be looked at, or None."""
    try:
        with store.view():
            return None
    except Unavailable as error:
        return str(error)
    finally:
        store.link.close()


# --- who may look --------------------------------------------------------------------------------


def test_a_password_is_used_and_never_told(tmp_path: Path) -> None:
    """The right one opens; a wrong or missing one is named as what is wrong, not by its letters."""
    with RedisServer(tmp_path, password="letmein") as server:
        link = RedisLink(server.url)
        put(RedisStore(link, "a shard", TABLES), a=b"1")
        link.close()
        for url in (server.url.replace("letmein", "s3cret"), server.url.replace(":letmein@", "")):
            said = reason(url)
            assert "refuses user or password: correct redis_url" in said
            assert "s3cret" not in said + repr(RedisLink(url))


def test_a_user_without_the_rights_is_told_which(tmp_path: Path) -> None:
    """An ACL that lacks something leads to the list of what is needed; with that, all goes well."""
    with RedisServer(tmp_path) as server:
        server.cli("ACL", "SETUSER", "tree", "on", ">pw", "~treering:*", "+get")
        url = f"redis://tree:pw@{HOST}:{server.port}"
        assert "does not permit this user what it needs: EVAL" in reason(url)
        server.cli("ACL", "SETUSER", "tree", *RIGHTS)
        link = RedisLink(url)
        put(RedisStore(link, "a shard", TABLES), a=b"1")
        assert link.policies() == {"noeviction"}
        link.close()


# --- a cluster -----------------------------------------------------------------------------------


def test_one_node_of_a_cluster_is_told_from_a_server(tmp_path: Path) -> None:
    """Who names a Cluster as a single server is told what to write; a dead start node does not matter."""
    with RedisCluster(tmp_path) as cluster:
        said = {
            reason_or_none(RedisStore(RedisLink(node.url), f"shard {number}", TABLES))
            for node in cluster.nodes
            for number in range(3)
        }
        assert any("write redis+cluster:// in redis_url" in one for one in said if one)
        hosts = cluster.url.partition("://")[2]
        link = RedisLink(f"redis+cluster://{HOST}:{free_port()},{hosts}")
        put(RedisStore(link, "a shard", TABLES), a=b"1")
        assert link.policies() == {"noeviction"}
        link.close()
    assert "is no Cluster that can be reached" in reason(cluster.url)


def test_the_documented_rights_are_enough_in_a_cluster(tmp_path: Path) -> None:
    """A user with what docs/state-stores.md lists can do all that we do, and nothing beyond our keys."""
    documented = (ROOT / "docs" / "state-stores.md").read_text("utf-8")
    assert f"`{' '.join(RIGHTS)}`" in documented
    with RedisCluster(tmp_path) as cluster:
        for node in cluster.nodes:
            node.cli("ACL", "SETUSER", "tree", "on", ">pw", *RIGHTS)
        link = RedisLink(cluster.url.replace("://", "://tree:pw@"))
        store = RedisStore(link, "a shard", TABLES)
        put(store, a=b"1")
        with store.view() as view:
            put(store, a=b"2")
            assert list(view.scan("t")) == [(b"a", b"1")]
        store.touch()
        store.clear()
        assert link.policies() == {"noeviction"}
        with pytest.raises(Unavailable, match="does not permit"):
            link.run("return redis.call('SET', KEYS[1], 'x')", [b"other"], [])
        link.close()


def test_while_a_cluster_moves_a_slot_answers_are_right_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of one store move to another node one by one; a reader never meets some here and some there."""
    monkeypatch.setattr(redis_link, "REST_S", (0.0, 0.0))
    with RedisCluster(tmp_path) as cluster:
        link = RedisLink(cluster.url, rest_s_max=0.0)
        store = RedisStore(link, "a shard", TABLES)
        store.commit([Write("t", b"a", b"1"), Write("u", b"b", b"1")])
        answers: list[tuple[bytes | None, ...] | None] = []

        def ask() -> None:
            try:
                with store.view() as view:
                    answers.append((view.get("t", b"a"), view.get("u", b"b"), view.get("t", b"x")))
            except Unavailable:
                answers.append(None)

        for move in moves_of_a_slot(cluster):
            move()
            ask()
        assert set(answers) <= {(b"1", b"1", None), None}
        assert answers[-1] is not None
        put(store, a=b"2")
        ask()
        assert answers[-1] == (b"2", b"1", None)
        link.close()


def moves_of_a_slot(cluster: RedisCluster) -> Iterator[Callable[[], object]]:
    """Yield what is to be done, call by call, to move a store's slot from its node to another."""
    source = next(node for node in cluster.nodes if node.names())
    target = next(node for node in cluster.nodes if node is not source)
    slot = source.cli("CLUSTER", "KEYSLOT", source.names()[0]).strip()
    ids = {node.port: node.cli("CLUSTER", "MYID").strip() for node in cluster.nodes}
    yield partial(target.cli, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    yield partial(source.cli, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    for name in source.names():
        yield partial(source.cli, "MIGRATE", HOST, str(target.port), name, "0", "5000")
    for node in (target, source, *cluster.nodes):
        yield partial(node.cli, "CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])


# --- a server that goes away ---------------------------------------------------------------------


def test_a_server_that_hangs_keeps_nobody_waiting_twice(server: RedisServer) -> None:
    """The first call waits its time; those after it fail at once until the rest is over, and then all is well."""
    now = [0.0]

    def clock() -> float:
        return now[0] + time.monotonic()

    server.flush()
    link = RedisLink(server.url, clock=clock)
    store = RedisStore(link, "a shard", TABLES)
    put(store, a=b"1")
    server.hang()
    try:
        with pytest.raises(Unavailable, match="did not answer within 2 s"), store.view():
            pass
        link._client = None  # whoever asked the server now would make a new client
        for _ in range(100):
            with pytest.raises(Unavailable, match="did not answer within 2 s"), store.view():
                pass
        assert link._client is None
    finally:
        server.wake()
    now[0] += redis_link.REST_S[1]
    with store.view() as view:
        assert view.get("t", b"a") == b"1"
    assert link.down == ""
    link.close()


def test_a_server_that_was_started_again_is_found_at_once(tmp_path: Path) -> None:
    """A connection that broke while nobody used it is opened anew without a word."""
    with RedisServer(tmp_path) as server:
        link = RedisLink(server.url)
        store = RedisStore(link, "a shard", TABLES)
        put(store, a=b"1")
        server.stop()
        server.start()
        with store.view() as view:
            assert view.count("t") == 0
        link.close()


# --- how it is reached ---------------------------------------------------------------------------


def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path) -> None:
    """`rediss://` reaches a server whose certificate is trusted, and no other."""
    certificate(tmp_path)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]
    with RedisServer(tmp_path, *options, "--tls-auth-clients", "no"):
        link = RedisLink(f"rediss://{HOST}:{port}?ssl_ca_certs={tmp_path}/cert.pem")
        put(RedisStore(link, "a shard", TABLES), a=b"1")
        link.close()
        assert "cannot be reached" in reason(f"rediss://{HOST}:{port}")


def certificate(folder: Path) -> None:
    """Write a key and a certificate for loopback that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def test_a_socket_on_this_machine_is_a_server_too(tmp_path: Path) -> None:
    """`unix://` needs no port."""
    with RedisServer(tmp_path, "--unixsocket", str(tmp_path / "s")):
        link = RedisLink(f"unix://{tmp_path}/s")
        put(RedisStore(link, "a shard", TABLES), a=b"1")
        link.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6379", "begins with none of redis://"),
        ("https://:s3cret@host", "begins with none of redis://"),
        ("redis://", "names no host"),
        ("redis+cluster://:s3cret@", "names no host"),
        ("redis://:s3cret@host:port", "port"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(url: str, said: str) -> None:
    """What is wrong with the setting is said when it is read, not at the first answer that is missing."""
    with pytest.raises(ValueError, match=said) as caught:
        RedisLink(url)
    assert str(caught.value).startswith("redis_url: ")
    assert "s3cret" not in str(caught.value)


# --- what is said --------------------------------------------------------------------------------


PASSES = {"BusyLoadingError", "TryAgainError"}


@pytest.mark.parametrize("kind", [*redis_link._REASONS])
def test_each_reason_has_its_own_remedy_unless_it_passes(kind: str) -> None:
    """What a person is told to do fits what is wrong: nobody is sent to start a server that answers."""
    remedy = remedy_in(f"Redis at a:1 {redis_link._REASONS[kind]}")
    assert bool(remedy) is (kind not in PASSES)
    assert ("start it" in remedy) is (kind in {"ConnectionError", "RedisClusterException"})
    assert remedy_in("Redis at a:1 answered ResponseError: unknown") == ""
