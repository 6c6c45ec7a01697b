"""A server with three witnesses, all of them real processes: the outside sees what two of three have cosigned."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Thread

import httpx2
import pytest

from archive import DataFolder
from merkle import (
    SIZE_TYPE,
    AddCheckpoint,
    Checkpoint,
    Ed25519Signer,
    Ed25519Verifier,
    Policy,
    PolicyCheck,
    check_policy,
    decode_vkey,
    open_checkpoint,
    sign_note,
)
from tests.process.served import PYTHON, Served, run, run_json, serving
from tests.process.writing import start_again

ORIGIN = "example.org/class"
WAIT_S = 60.0


@dataclass
class Running:
    """A witness as a process."""

    url: str
    vkey: str
    process: subprocess.Popen[str]

    def add(self, request: AddCheckpoint) -> httpx2.Response:
        """Ask for a cosignature."""
        return httpx2.post(self.url + "add-checkpoint", content=request.encode(), timeout=30)

    def remembered(self) -> bytes | None:
        """Return the newest checkpoint that it shows to monitors."""
        answer = httpx2.get(f"{self.url}{sha256(ORIGIN.encode()).hexdigest()}/checkpoint", timeout=30)
        return answer.content if answer.status_code == 200 else None


@contextmanager
def witnessing(
    state: Path, vkeys: Sequence[str], key: Path, listen: str = "127.0.0.1:0"
) -> Iterator[Running]:
    """Run a witness; at the end it drains at SIGTERM with exit code 0, unless it was killed."""
    logs = [part for vkey in vkeys for part in ("--log", vkey)]
    command = [*PYTHON, "tools.cli", "witness", "--state", str(state), "--listen", listen, "--json", *logs]
    process = subprocess.Popen(
        [*command, "--key", str(key)], stdout=subprocess.PIPE, text=True, cwd=state.parent
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Running(said["url"], said["vkeys"][0], process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def liar() -> Iterator[str]:
    """Serve somebody who always remembers the size 1, at the address that is given."""
    body = b"1\n"
    head = f"HTTP/1.1 409 Conflict\r\nContent-Type: {SIZE_TYPE}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(head.encode() + body)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def make_key(folder: Path, name: str, *, kind: str = "witness") -> tuple[Path, str]:
    """Make a witness's key; return its file and its vkey."""
    path = folder / f"{name}.key"
    return path, run(
        "keys", "generate", f"witness.example/{name}", "--out", str(path), "--type", kind
    ).strip()


def log_key(data: Path) -> str:
    """Let a log of our origin be made, so that witnesses can know its key before its server starts."""
    assert start_again(data, 0, ORIGIN).lines
    return run("keys", "vkey", "--data", str(data)).strip()


def write_policy(path: Path, log: str, witnesses: Sequence[tuple[str, str, str]]) -> Policy:
    """Write a policy of two of these witnesses (name, vkey, url), and return it."""
    names = " ".join(name for name, _, _ in witnesses)
    lines = [f"log {log}", *(f"witness {name} {vkey} {url}" for name, vkey, url in witnesses)]
    path.write_text("\n".join([*lines, f"group two 2 {names}", "quorum two", ""]))
    return Policy.parse(path.read_bytes())


def public(server: Served, policy: Policy) -> PolicyCheck | None:
    """Return the public checkpoint, which must meet the policy, or None while there is none."""
    answer = server.get("/log/checkpoint")
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, answer.text
    check = check_policy(answer.content, policy)
    assert check.met, answer.text
    return check


def published(server: Served, policy: Policy, size: int) -> PolicyCheck:
    """Wait until the outside sees this size."""
    deadline = time.monotonic() + WAIT_S
    check = None
    while time.monotonic() < deadline:
        check = public(server, policy)
        if check is not None and check.checkpoint.size >= size:
            return check
        time.sleep(0.05)
    raise AssertionError(f"size {size} was not published to the outside: {check}")


def send(server: Served, number: int) -> int:
    """Send one event and return the size of the log that covers it."""
    event = {
        "type": "e",
        "source": "t",
        "keys": {"student": "ann"},
        "data": {"n": number},
        "id": f"e{number}",
    }
    answer = server.post(json.dumps(event).encode()).json()
    size: int = answer["receipts"][0]["size"]
    return size


@pytest.mark.process
def test_two_of_three_publish_though_one_is_down_and_one_lies(tmp_path: Path) -> None:
    """All three, then one that is killed, then one that lies: what two cosigned is published, less is not.

    A fork of the same log, by its own key, is refused by each of them with 409 or 422, also after a new start.
    """
    data, policy_file = tmp_path / "data", tmp_path / "policy"
    log = log_key(data)
    keys = {"a": make_key(tmp_path, "a"), "b": make_key(tmp_path, "b", kind="witness-ml-dsa-44")}
    keys["c"] = make_key(tmp_path, "c")
    with ExitStack() as stack:
        up = {
            name: stack.enter_context(witnessing(tmp_path / f"state-{name}", [log], key))
            for name, (key, _) in keys.items()
        }
        policy = write_policy(policy_file, log, [(name, keys[name][1], up[name].url) for name in "abc"])
        with serving(data, "--shards", "1", "--policy", str(policy_file)) as server:
            check = published(server, policy, send(server, 1))
            assert len(check.cosigned) >= 2
            up["c"].process.kill()
            up["c"].process.wait()
            check = published(server, policy, send(server, 2))
            assert {one.name for one in check.cosigned} == {"a", "b"}
        forks_are_refused(data, up["a"], up["b"])
    with ExitStack() as stack:
        address = up["a"].url.removeprefix("http://").rstrip("/")
        first = stack.enter_context(witnessing(tmp_path / "state-a", [log], keys["a"][0], address))
        second = stack.enter_context(witnessing(tmp_path / "state-b", [log], keys["b"][0]))
        forks_are_refused(data, first, second)
        lying = stack.enter_context(liar())
        urls = {"a": first.url, "b": second.url, "c": lying}
        policy = write_policy(policy_file, log, [(name, keys[name][1], urls[name]) for name in "abc"])
        with serving(data, "--shards", "1", "--policy", str(policy_file)) as server:
            size = send(server, 3)
            check = published(server, policy, size)
            assert {one.name for one in check.cosigned} == {"a", "b"}
            second.process.kill()
            second.process.wait()
            assert send(server, 4) > size, "inside, nothing waits for witnesses"
            last = public(server, policy)
            assert last is not None
            assert last.checkpoint.size == check.checkpoint.size, "one witness is not enough"
            run_json("export", "tiles", str(tmp_path / "public"), "--data", str(data))
            exported = (tmp_path / "public" / "checkpoint").read_bytes()
            assert exported == server.get("/log/checkpoint").content, (
                "an export shows no more, though not told"
            )
            cosigned = server.get("/readyz").json()["cosigned"]
            assert cosigned["size"] == check.checkpoint.size, (
                "whoever looks after the server sees where it stands"
            )
            assert f"treering_cosigned_size {float(cosigned['size'])}" in server.get("/metrics").text
    checked = run_json("verify-log", str(data), "--vkey", log, "--policy", str(policy_file))
    assert checked["verified"] is True


def forks_are_refused(data: Path, *witnesses: Running) -> None:
    """Let the log's own key sign another history, and show it to witnesses that know the real one."""
    signer = DataFolder(data).signer(bytes)
    for witness in witnesses:
        memory = witness.remembered()
        assert memory is not None
        known = open_checkpoint(memory, signer.verifier)
        decode_vkey(witness.vkey)
        for size in (known.size, known.size + 1, known.size - 1):
            forged = sign_note(Checkpoint(ORIGIN, size, bytes(32)).encode(), [signer])
            proof = () if size <= known.size else (bytes(32),)
            status = witness.add(AddCheckpoint(min(size, known.size), proof, forged)).status_code
            assert status == (422 if size >= known.size else 409)
            assert witness.add(AddCheckpoint(0, (), forged)).status_code == 409
        assert witness.remembered() == memory


@pytest.mark.process
def test_a_log_that_rotates_its_key_goes_on_under_its_witnesses(tmp_path: Path) -> None:
    """A server of which the key was changed is published again, by witnesses that were given both keys.

    It is told to wait for them: then an acknowledged event can be seen by the outside at once.
    """
    data, policy_file = tmp_path / "data", tmp_path / "policy"
    old = log_key(data)
    new = run_json("keys", "rotate", "--data", str(data))["new"]
    history = run_json("keys", "history", "--data", str(data))["keys"]
    assert [one["vkey"] for one in history] == [old, new]
    keys = {name: make_key(tmp_path, name) for name in "ab"}
    with ExitStack() as stack:
        up = {
            name: stack.enter_context(witnessing(tmp_path / f"state-{name}", [old, new], key))
            for name, (key, _) in keys.items()
        }
        policy = write_policy(policy_file, new, [(name, keys[name][1], up[name].url) for name in "ab"])
        with serving(data, "--shards", "1", "--policy", str(policy_file), "--policy-wait") as server:
            size = send(server, 1)
            check = public(server, policy)
            assert check is not None
            assert check.checkpoint.size >= size, "what was acknowledged is cosigned, if that is waited for"
            assert check.log == Ed25519Verifier.decode(new)
            code = run("keys", "rotate", "--data", str(data), code=2)
            assert code == "", "a running server's key is not changed under it"
    assert isinstance(DataFolder(data).signer(bytes), Ed25519Signer)
