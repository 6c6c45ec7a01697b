"""The witness as a program: what it answers over HTTP is on disk first, and one memory has one writer."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

from archive import IntegrityError, encode_key, take_lock, write_new_key
from archive.files import write_whole
from merkle import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44,
    SIZE_TYPE,
    AddCheckpoint,
    Checkpoint,
    Cosigner,
    Ed25519Signer,
    NoteError,
    Witness,
    open_note,
    sign_note,
)
from tests.faults import Crash, Outcome, Schedule
from tests.merkle.rfc6962 import consistency, mth
from tools import demo
from tools import witness as module
from tools.process import EXIT_FINDING, EXIT_USAGE
from tools.settings import load
from tools.witness import Application, Memory, listen, main, open_witness, parser

ORIGIN = "example.com/log"
LOG = Ed25519Signer(ORIGIN, bytes(32))
COSIGNER = Cosigner("witness.example/w", bytes(32))
TRUNK = [b"%d" % n for n in range(8)]
FORK = [*TRUNK[:3], *(b"forged %d" % n for n in range(3, 8))]
HERE = "/" + sha256(ORIGIN.encode()).hexdigest() + "/checkpoint"


def application(folder: Path) -> Application:
    """Return a witness that was started on a folder."""
    return Application(Witness([LOG.verifier], [COSIGNER]), Memory(folder), lambda: 100)


def request(old: int, new: int, entries: Sequence[bytes] = TRUNK) -> bytes:
    """Return a request with the right proof."""
    proof = consistency(old, entries[:new]) if 0 < old < new else []
    note = sign_note(Checkpoint(ORIGIN, new, mth(entries[:new])).encode(), [LOG])
    return AddCheckpoint(old, tuple(proof), note).encode()


class Slow(Memory):
    """A memory that takes its time, so that what could overlap does."""

    def recall(self, origin: str) -> bytes | None:
        """Return the checkpoint of a log as it was a while ago."""
        note = super().recall(origin)
        time.sleep(0.01)
        return note


def over_http(
    folder: Path, scene: Callable[[httpx2.AsyncClient], Awaitable[None]], made: Application | None = None
) -> None:
    """Play a scene against a witness."""

    async def play() -> None:
        transport = httpx2.ASGITransport(app=made or application(folder))
        async with httpx2.AsyncClient(transport=transport, base_url="http://w") as client:
            await scene(client)

    asyncio.run(play())


def test_statuses_bodies_and_types_are_those_of_the_specification(tmp_path: Path) -> None:
    """200 with signature lines, 409 with the size, 422, 400, 403, 404; monitors get what was cosigned."""

    async def scene(http: httpx2.AsyncClient) -> None:
        async def post(body: bytes) -> httpx2.Response:
            return await http.post("/add-checkpoint", content=body)

        assert (await http.get(HERE)).status_code == 404
        good = await post(request(0, 5))
        assert (good.status_code, good.text[:20]) == (200, "— witness.example/w "[:20])
        conflict = await post(request(0, 7))
        assert (conflict.status_code, conflict.text) == (409, "5\n")
        assert conflict.headers["content-type"] == SIZE_TYPE
        assert (await post(request(5, 7, FORK))).status_code == 422
        assert (await post(request(7, 5))).status_code == 400
        assert (await post(request(5, 7).replace(b"\n7\n", b"\n8\n"))).status_code == 403
        assert (await post(request(5, 7).replace(ORIGIN.encode(), b"elsewhere"))).status_code == 404
        kept = await http.get(HERE)
        assert (kept.status_code, kept.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        opened = open_note(kept.content, [LOG.verifier, COSIGNER.verifier])
        assert Checkpoint.decode(opened.text).size == 5
        assert len(opened.verified) == 2
        assert (await post(request(5, 7))).status_code == 200

    over_http(tmp_path, scene)


def test_what_is_not_served_is_refused(tmp_path: Path) -> None:
    """Other methods and paths, requests without end; and no path reads a file that is no checkpoint."""
    (tmp_path / "witness.key").write_text("secret")

    async def scene(http: httpx2.AsyncClient) -> None:
        assert (await http.get("/add-checkpoint")).status_code == 405
        assert (await http.post(HERE)).status_code == 405
        assert (await http.post("/add-checkpoint", content=bytes(300_000))).status_code == 413
        for place in (
            "/",
            "/checkpoint",
            "/witness.key",
            "/witness.key/checkpoint",
            HERE.upper(),
            HERE + "/",
        ):
            assert (await http.get(place)).status_code == 404

    over_http(tmp_path, scene)


def test_a_request_that_ends_early_is_not_decided(tmp_path: Path) -> None:
    """Who goes away in the middle of a body has asked for nothing: what came of it is not cosigned."""
    came: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": request(0, 3), "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers = []

    async def receive() -> MutableMapping[str, Any]:
        return came.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        answers.append(message.get("status"))

    scope = {"type": "http", "method": "POST", "path": "/add-checkpoint"}
    asyncio.run(application(tmp_path)(scope, receive, send))
    assert answers[0] == 400
    assert Memory(tmp_path).recall(ORIGIN) is None


def test_of_two_requests_at_once_one_wins(tmp_path: Path) -> None:
    """Many clients that start from the same size: one of them is cosigned, and the memory is its checkpoint."""

    async def scene(http: httpx2.AsyncClient) -> None:
        await http.post("/add-checkpoint", content=request(0, 3))
        bodies = [request(3, size, entries) for entries in (TRUNK, FORK) for size in (5, 6, 7, 8)]
        answers = await asyncio.gather(*(http.post("/add-checkpoint", content=body) for body in bodies))
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [200, *[409] * 7]
        winner = AddCheckpoint.decode(bodies[statuses.index(200)]).checkpoint
        kept = await http.get(HERE)
        assert kept.content.split(b"\n\n")[0] == winner.split(b"\n\n")[0]

    made = Application(Witness([LOG.verifier], [COSIGNER]), Slow(tmp_path), lambda: 100)
    over_http(tmp_path, scene, made)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_crash_while_remembering_never_lets_a_fork_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    """It dies at each write, which is lost or kept: after a new start, all cosignatures given lie on one tree."""
    for at in (1, 2, 3):
        folder = tmp_path / str(at)
        folder.mkdir()
        schedule = Schedule(at, outcome)
        monkeypatch.setattr(
            module,
            "write_whole",
            lambda path, data, by=schedule: by.step("w", lambda: write_whole(path, data)),
        )
        given: list[tuple[int, bytes]] = []
        with suppress(Crash):
            for old, new in ((0, 3), (3, 5), (5, 8)):
                if application(folder).add(request(old, new)).status == 200:
                    given.append((new, mth(TRUNK[:new])))
        monkeypatch.setattr(module, "write_whole", write_whole)
        steps = [(old, new, tree) for old in range(9) for new in range(old, 9) for tree in (FORK, TRUNK)]
        given += [
            (new, mth(tree[:new]))
            for old, new, tree in steps
            if application(folder).add(request(old, new, tree)).status == 200
        ]
        sizes = [size for size, _ in given]
        assert sizes == sorted(sizes), "a log was set back"
        assert any(all(root == mth(tree[:size]) for size, root in given) for tree in (TRUNK, FORK)), given


def test_a_server_a_demo_and_a_witness_find_each_a_port_of_its_own() -> None:
    """Whoever tries all three on one machine, as the pages say, is not told that a port is taken."""
    given = parser().parse_args(["--state", "w", "--log", "x"]).listen
    ports = [load({}, {}, None).port, demo.parser().parse_args([]).port, int(given.partition(":")[2])]
    assert len(set(ports)) == 3


def test_what_cannot_be_kept_is_not_cosigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or a broken disk gives 503 and no signature; once it is well, the same request is cosigned."""
    disk = Schedule(1, error=lambda text: OSError(errno.ENOSPC, text))
    monkeypatch.setattr(
        module, "write_whole", lambda path, data: disk.step("w", lambda: write_whole(path, data))
    )
    answer = application(tmp_path).add(request(0, 3))
    assert (answer.status, b"\xe2\x80\x94" in answer.body) == (503, False)
    monkeypatch.setattr(module, "write_whole", write_whole)
    assert application(tmp_path).add(request(0, 3)).status == 200


def test_a_damaged_memory_is_an_error_not_a_new_beginning(tmp_path: Path) -> None:
    """500 for that log, and a witness that starts on it refuses."""
    assert application(tmp_path).add(request(0, 3)).status == 200
    path = Memory(tmp_path).path(ORIGIN)
    path.write_bytes(path.read_bytes()[:-9])
    assert application(tmp_path).add(request(0, 5)).status == 500
    with pytest.raises(NoteError):
        open_witness(tmp_path, [LOG.verifier.encode()], [])


def test_a_witness_without_key_makes_one_and_keeps_it(tmp_path: Path) -> None:
    """The same key at each start, for its owner's eyes only; keys that are given are used instead."""
    vkeys = [open_witness(tmp_path, [LOG.verifier.encode()], [])[1][0].verifier for _ in range(2)]
    assert vkeys[0] == vkeys[1]
    assert (tmp_path / "witness.key").stat().st_mode & 0o777 == 0o600
    paths = []
    for kind in (ED25519_COSIGNATURE, ML_DSA_44):
        paths.append(tmp_path / f"key-{kind}")
        write_new_key(paths[-1], encode_key("witness.example/w", kind, bytes(32)))
    given = open_witness(tmp_path, [LOG.verifier.encode()], paths)[1]
    assert [one.verifier.signature_type for one in given] == [ED25519_COSIGNATURE, ML_DSA_44]


def test_a_logs_key_does_not_cosign(tmp_path: Path) -> None:
    """Each key is for what its type says: a log that were its own witness would be none."""
    write_new_key(tmp_path / "key", encode_key("example.com/log", ED25519, bytes(32)))
    with pytest.raises(IntegrityError, match="a witness needs one of its own"):
        open_witness(tmp_path, [LOG.verifier.encode()], [tmp_path / "key"])
    with pytest.raises(NoteError, match="of type 04"):
        open_witness(tmp_path, [COSIGNER.verifier.encode()], [])


def test_a_second_witness_on_one_memory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two writers of one memory could cosign a fork between them."""
    lock = take_lock(tmp_path / "lock")
    try:
        assert main(["--state", str(tmp_path), "--log", LOG.verifier.encode()]) == EXIT_USAGE
    finally:
        os.close(lock)
    assert "lock: another witness remembers here; stop it first" in capsys.readouterr().err


def test_what_cannot_be_started_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key, a wrong address, a key file that others may read: exit code, and what to do."""
    state, vkey = str(tmp_path / "state"), LOG.verifier.encode()
    assert main(["--state", state, "--log", vkey[:-4]]) == EXIT_USAGE
    assert main(["--state", state + "1", "--log", vkey, "--listen", "here"]) == EXIT_USAGE
    assert "expected HOST:PORT" in capsys.readouterr().err
    write_new_key(tmp_path / "key", encode_key("w", ED25519_COSIGNATURE, bytes(32)))
    (tmp_path / "key").chmod(0o644)
    arguments = ["--state", state + "2", "--log", vkey, "--key", str(tmp_path / "key")]
    assert main(arguments) == EXIT_FINDING
    assert "others may read" in capsys.readouterr().err


def test_an_address_may_be_of_either_kind() -> None:
    """Port 0 takes any; an IPv6 address stands in brackets."""
    with listen("127.0.0.1:0") as four, listen("[::1]:0") as six:
        assert four.getsockname()[1] != six.getsockname()[1]
