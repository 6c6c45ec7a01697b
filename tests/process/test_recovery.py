"""What an operator meets: two servers on one folder, an older database, a lost seal, rotten bytes, dead readers.

Each refusal says what to do (docs/recovery.md); whatever can go on, goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest

from archive import DataFolder, LmdbStore, Write, newest_seal
from archive.lmdb_store import CHECK_READERS_EVERY
from archive.seal import SLOTS
from tests.process.served import OWN, PYTHON, Served, run_json, serving
from tests.process.writing import Run, write
from tools.process import EXIT_AGAIN, EXIT_FINDING, EXIT_STOP, EXIT_USAGE

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

WAIT_S = 60.0
BODY = b'{"type":"hello","keys":{"student":"ann"},"data":{}}'


class Refusing(NamedTuple):
    """A server whose archiver may refuse to run."""

    url: str
    errors: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> httpx2.Response:
        """GET a path."""
        return httpx2.get(self.url + path, timeout=30, verify=False)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return what a condition gives once it is true."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except httpx2.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not within {WAIT_S:.0f} s; it said: {self.errors.read_text()}")

    def said(self, text: str) -> bool:
        """Return whether the server said something on standard error."""
        return text in self.errors.read_text()


@contextmanager
def refusing(data: Path, code: int) -> Iterator[Refusing]:
    """Start a server that may never be ready; it must end with this exit code when asked to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors = data.parent / f"errors-{port}"
    command = [*PYTHON, "tools.cli", "serve", "--data", str(data), "--port", str(port)]
    with errors.open("wb") as out:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out, cwd=data.parent)
    try:
        yield Refusing(f"http://127.0.0.1:{port}", errors, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == code
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of a log of two starts and sixteen events."""
    data = tmp_path_factory.mktemp("whole") / "data"
    for first in (0, 8):
        assert write(data, first).code == 0
    return data


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


# --- two servers ---------------------------------------------------------------------------------


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    """A second archiver may try again, a second server ends at once; the first one does not notice either."""
    data = tmp_path / "data"
    with serving(data) as first:
        receipt = first.post(BODY).json()["receipts"][0]
        alone = subprocess.run(
            [*PYTHON, "tools.archiver", "--data", str(data)], capture_output=True, text=True, check=False
        )
        assert alone.returncode == EXIT_AGAIN
        assert "another archiver writes this log; stop it first" in alone.stderr
        command = [*PYTHON, "tools.cli", "serve", "--data", str(data), "--port", "0", "--shards", "5"]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == EXIT_USAGE
        assert f"another server runs on {data}; stop it first" in second.stderr
        assert first.post(BODY).json()["receipts"][0]["index"] == receipt["index"] + 1
        assert first.get("/v1/states/event_count", student="ann").json()["state"] == {"events": 2}
        first.wait_ready()
    assert run_json("verify-log", str(data))["findings"] == []


def test_a_server_that_was_killed_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """What it started waits for nobody: a new server starts while those still end, and goes on from what was kept."""
    data = tmp_path / "data"
    command = [*PYTHON, "tools.cli", "serve", "--data", str(data), "--port", "0", "--shards", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout is not None
            url = killed.stdout.readline().split()[-1].rstrip("/")
            assert Served(data, url, killed).post(BODY).status_code == 200
        finally:
            killed.kill()
    with serving(data, "--shards", "1") as server:
        size = server.post(BODY).json()["receipts"][0]["size"]
        state = server.get("/v1/states/event_count", student="ann", min_size=size).json()["state"]
        assert state == {"events": 2}


# --- the seal ------------------------------------------------------------------------------------


def test_a_database_that_was_set_back_is_refused_and_the_newest_one_goes_on(data: Path) -> None:
    """The archiver stays down, events are refused with 503, pages say so, the message tells what to do."""
    database = DataFolder(data).log / "data.mdb"
    old = database.read_bytes()
    assert write(data, 16).code == 0
    new = database.read_bytes()
    database.write_bytes(old)
    with refusing(data, EXIT_FINDING) as server:
        server.wait(lambda: server.said("archiver is down until a person looks"))
        assert server.said("it is an older copy. Bring back the newest one; never go on from this one")
        assert server.get("/readyz").status_code == 503
        assert "the archiver is not running" in server.get("/").text
        assert server.get("/healthz").status_code == 200
        refused = httpx2.post(f"{server.url}/v1/events", content=BODY, timeout=30)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert server.process.poll() is None
        assert not server.said("Traceback")
    findings = run_json("verify-log", str(data), code=1)["findings"]
    assert {one["check"] for one in findings} == {"seal"}
    database.write_bytes(new)
    assert write(data, 24).code == 0


def test_a_seal_that_was_set_back_goes_on(data: Path) -> None:
    """A database ahead of its seal is what a crash between the two leaves: it goes on and is sealed."""
    seal = DataFolder(data).log / "seal"
    old = seal.read_bytes()
    assert write(data, 16).code == 0
    seal.write_bytes(old)
    assert sealed(write(data, 24), seal)


def sealed(run: Run, seal: Path) -> bool:
    """Return whether a writer ended well, and what it acknowledged last is sealed."""
    last = newest_seal(seal.read_bytes())
    assert last is not None
    return run.code == 0 and run.lines[-2].split()[-1] == str(last.size)


def test_a_torn_seal_goes_on_and_a_lost_one_is_refused(data: Path) -> None:
    """One torn slot costs the newest seal only; without any, the archiver refuses and names the page that helps."""
    path = DataFolder(data).log / "seal"
    content, newest = bytearray(path.read_bytes()), newest_seal(path.read_bytes())
    places = sorted(SLOTS, key=lambda at: newest != newest_seal(bytes(content[at : at + 512])))
    content[places[0] + 30] ^= 0x40
    path.write_bytes(content)
    assert newest_seal(bytes(content)) not in {None, newest}
    assert sealed(write(data, 16), path)
    content = bytearray(path.read_bytes())
    for at in SLOTS:
        content[at + 30] ^= 0x40
    path.write_bytes(content)
    refused = write(data, 24)
    assert refused.code == EXIT_STOP
    assert "docs/recovery.md, lost seal" in refused.errors
    path.unlink()
    refused = write(data, 24)
    assert refused.code == EXIT_STOP
    assert "docs/recovery.md, lost seal" in refused.errors


# --- rotten bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["leaves", "rows", "blocks", "checkpoints"])
def test_a_rotten_byte_in_a_page_is_found_and_located(data: Path, table: str) -> None:
    """One flipped bit in the file of the database is found by verify-log, which names the entry."""
    folder = DataFolder(data)
    store = folder.open_log()
    with store.view() as view:
        key, value = list(view.scan(table))[-3]
    store.close()
    path = folder.log / "data.mdb"
    content = bytearray(path.read_bytes())
    place = content.rfind(value)
    assert place > 0
    while place > 0:  # older copies of the page may lie about; the live one is among them
        content[place + len(value) // 2] ^= 1
        place = content.rfind(value, 0, place)
    path.write_bytes(content)
    vkey = DataFolder(data).signer(os.urandom).verifier.encode()
    findings = run_json("verify-log", str(data), "--vkey", vkey, code=1)["findings"]
    places = {one["index"] for one in findings}
    assert places - {None}
    if table in {"leaves", "rows"}:
        assert places & set(range(int.from_bytes(key), int.from_bytes(key) + 2))


def test_a_rotten_page_of_the_tree_is_found(data: Path) -> None:
    """A page header that is nonsense ends in a finding or a refusal, never in "verified" and never in a traceback."""
    path = DataFolder(data).log / "data.mdb"
    sound = path.read_bytes()
    codes = []
    for page in range(2, len(sound) // 4096, max(1, len(sound) // 4096 // 8)):
        content = bytearray(sound)
        content[page * 4096 + 10 : page * 4096 + 16] = bytes(range(200, 206))
        path.write_bytes(content)
        done = subprocess.run(
            [*PYTHON, "tools.verify_log", str(data), "--json"], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        codes.append(done.returncode)
    assert any(codes), "every page that was tried is free"


# --- readers -------------------------------------------------------------------------------------

PINNING = """
import os, sys, time
from archive import DataFolder
with DataFolder(sys.argv[1]).open_log().view() as view:
    view.last("blocks")
    print("pinned", flush=True)
    time.sleep(600)
"""


def pinned(data: Path) -> subprocess.Popen[str]:
    """Start a process that holds a view of the log for ever."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PINNING, str(data)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "pinned\n"
    return process


def growth(store: LmdbStore, path: Path, commits: int) -> int:
    """Rewrite one value so many times; return by how many bytes the file grew."""
    before = path.stat().st_size
    for number in range(commits):
        store.commit([Write("nodes", b"k", os.urandom(2_000) + number.to_bytes(4))])
    return path.stat().st_size - before


def test_a_reader_that_was_killed_pins_nothing_for_long(tmp_path: Path) -> None:
    """Growth goes on while a reader pins pages, and ends once it is dead, without a restart of the writer."""
    folder = DataFolder(tmp_path / "data")
    folder.create()
    store = folder.open_log(read_only=False)
    path = folder.log / "data.mdb"
    growth(store, path, 20)
    reader = pinned(folder.path)
    while_pinned = growth(store, path, CHECK_READERS_EVERY)
    reader.kill()
    reader.communicate()
    growth(store, path, CHECK_READERS_EVERY)
    afterwards = growth(store, path, CHECK_READERS_EVERY)
    store.close()
    assert while_pinned > 100 * 4096
    assert afterwards < 10 * 4096


@pytest.mark.long
def test_a_server_goes_on_while_a_reader_pins_and_after_it_died(tmp_path: Path) -> None:
    """Neither a reader that never ends nor its death is noticed by anyone who sends or reads."""
    data = tmp_path / "data"
    with serving(data) as server:
        server.post(BODY)
        for _ in range(2):
            reader = pinned(data)
            assert server.post(BODY).status_code == 200
            reader.kill()
            reader.communicate()
            assert server.post(BODY).status_code == 200
        server.wait_ready()
    assert run_json("verify-log", str(data))["findings"] == []


# --- backups -------------------------------------------------------------------------------------


def test_a_running_server_is_backed_up_and_comes_back_elsewhere(tmp_path: Path) -> None:
    """While events come in, a backup is made and verified; restored elsewhere, it serves all that it holds."""
    data, saved, new = tmp_path / "data", tmp_path / "saved", tmp_path / "new"
    with serving(data, "--shards", "1") as server:
        command = [*PYTHON, "tools.cli", "backup", str(saved), "--data", str(data), "--with-keys", "--json"]
        for _ in range(20):
            server.post(BODY)
        making = subprocess.Popen(command, stdout=subprocess.PIPE)
        sent = 20
        while making.poll() is None:
            assert server.post(BODY).status_code == 200
            sent += 1
            time.sleep(0.01)  # a class, not a flood: the backup, too, wants a core
        made = msgspec.json.decode(making.communicate()[0])
    assert making.returncode == 0
    assert (made["verified"], made["opened"]) == (True, made["size"] - OWN)
    assert 20 + OWN <= made["size"] <= sent + OWN
    refused = [
        *PYTHON,
        "tools.cli",
        "restore",
        str(saved),
        "--data",
        str(new),
        "--at-least",
        str(sent + OWN + 1),
    ]
    assert subprocess.run(refused, capture_output=True, check=False).returncode == EXIT_FINDING
    assert subprocess.run([*refused[:-1], str(made["size"])], check=False).returncode == 0
    with serving(new, "--shards", "1") as server:
        server.wait_ready()
        state = server.get("/v1/states/event_count", student="ann").json()["state"]
        assert state == {"events": made["opened"]}
