"""Does a server answer: archiver and front that are gone, hang, wait for a person, or are somebody else's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest

from archive import DataFolder, IntegrityError, write_stopped
from archive.errors import LOST_SEAL
from tools.answering import Note, check_front, check_server

pytestmark = pytest.mark.process
WAIT_S = 0.3


# --- the archiver ----------------------------------------------------------------------------------


def archiver(folder: DataFolder) -> Note:
    """Return what is said of the archiver."""
    (note,) = check_server(folder, WAIT_S)
    return note


def test_an_archiver_that_is_not_there_is_to_be_started(folder: DataFolder) -> None:
    """The command names the folder, as a shell takes it."""
    note = archiver(folder)
    assert (note.good, note.remedy) == (False, f"treering serve --data {folder.path}")


def test_an_archiver_that_waits_for_a_person_says_why(folder: DataFolder) -> None:
    """To start the server again would not help, and is not advised; its last words are shown, and what helps first."""
    write_stopped(folder.stopped, IntegrityError("no seal", section=LOST_SEAL), 7.0)
    note = archiver(folder)
    assert not note.good
    assert "down until a person looks, since 1970-01-01" in note.text
    assert note.text.endswith(": no seal")
    assert note.remedy.startswith('docs/recovery.md, "Lost seal": ')
    assert "treering serve" not in note.remedy


LISTENS = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_an_archiver_that_takes_connections_and_says_nothing_is_found(
    folder: DataFolder, *, stopped: bool
) -> None:
    """The kernel connects on behalf of a process that hangs; which one it is, and how to get it going, is said."""
    command = [sys.executable, "-c", LISTENS, str(folder.socket)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hangs:
        assert hangs.stdout is not None
        assert hangs.stdout.readline() == "listens\n"
        if stopped:
            os.kill(hangs.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, hangs.pid, os.WSTOPPED)
        note = archiver(folder)
        os.kill(hangs.pid, signal.SIGKILL)
    assert not note.good
    assert f"(process {hangs.pid}) takes connections and gives no answer" in note.text
    assert note.remedy.startswith(f"kill -{'CONT' if stopped else 'KILL'} {hangs.pid}")


# --- the front -------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """A server whose checkpoint names a log, and whose states are somewhere."""

    origin, state = "", "ok"
    more: ClassVar[dict[str, object]] = {}

    def do_GET(self) -> None:
        """Answer for the checkpoint and for readiness, with 503, as a server that is not ready does."""
        ready = {"ready": False, "states": {"store": "redis", "state": self.state}, **self.more}
        body = f"{self.origin}\n9\nroot\n" if "checkpoint" in self.path else json.dumps(ready)
        code = 200 if "checkpoint" in self.path and self.origin else 503
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def origin(folder: DataFolder) -> str:
    """Return the name of a folder's log: the first line of its checkpoints, which is what a server shows."""
    store = folder.open_log()
    try:
        with store.view() as view:
            _, checkpoint = next(iter(view.scan("checkpoints")))
            return bytes(checkpoint).partition(b"\n")[0].decode()
    finally:
        store.close()


@contextmanager
def answering() -> Iterator[str]:
    """Return the address of a server that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """Return an address at which connections are taken, and nothing is ever said: a front that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def nobody() -> Iterator[str]:
    """Return an address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def front(folder: DataFolder, address: str, *, named: bool) -> list[Note]:
    """Return what is said of a front that was named, or whose address the server wrote down."""
    folder.address.write_text(f"{'http://127.0.0.1:1' if named else address}\n")
    return list(check_front(folder, address if named else None, WAIT_S))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("state", "good"),
    [("ok", True), ("down: refused", False), ("catching up", False), ("local: no Redis", True)],
)
def test_a_state_store_that_is_down_is_found(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, state: str, *, good: bool, named: bool
) -> None:
    """As the server of this log says, wherever it said that it answers, or somebody says."""
    monkeypatch.setattr(Answers, "origin", origin(folder))
    monkeypatch.setattr(Answers, "state", state)
    with answering() as address:
        there, store = front(folder, address, named=named)
    assert there == Note("front", f"answers at {address}")
    assert (store.about, store.good, bool(store.remedy)) == ("state store", good, not good)


@pytest.mark.parametrize(("waiting_s", "good"), [(0, True), (120, True), (121, False)])
def test_witnesses_that_do_not_come_are_found(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, waiting_s: int, *, good: bool
) -> None:
    """The outside stands still, and nothing inside tells: not the size, but how long it has waited, is the finding."""
    monkeypatch.setattr(Answers, "origin", origin(folder))
    monkeypatch.setattr(Answers, "more", {"cosigned": {"size": 9, "waiting_s": waiting_s}})
    with answering() as address:
        *_, note = front(folder, address, named=False)
    assert (note.about, note.good) == ("witnesses", good)
    assert note.text == f"9 entries are cosigned by enough of them; the next one has waited {waiting_s} s"
    assert ("witnessing: NAME" in note.remedy) != good


def test_a_front_whose_events_are_not_kept_is_found(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a quota the disk has room, as everybody sees who looks at it; the archiver has none."""
    monkeypatch.setattr(Answers, "origin", origin(folder))
    full = {"reason": "log/0: no space left", "since": "2026-11-26T03:00:00Z", "remedy": "make room"}
    monkeypatch.setattr(Answers, "more", {"full": full})
    with answering() as address:
        *_, note = front(folder, address, named=False)
    assert (note.about, note.good, note.remedy) == ("room", False, "make room")
    assert note.text == "nothing that is sent is kept since 2026-11-26T03:00:00Z: log/0: no space left"


def test_a_front_that_shows_no_checkpoint_is_believed_where_it_said_it_is(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before witnesses have cosigned, or while the log is not shown, there is none; its states can be asked after."""
    monkeypatch.setattr(Answers, "state", "down: refused")
    with answering() as address:
        assert [note.good for note in front(folder, address, named=False)] == [True, False]


@pytest.mark.parametrize("named", [False, True])
def test_a_server_of_another_log_is_not_believed(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    """Somebody else may have taken the port: a note.  Somebody named it: then he was wrong, and is told."""
    monkeypatch.setattr(Answers, "origin", "example.org/other")
    monkeypatch.setattr(Answers, "state", "down: refused")
    with answering() as address:
        (note,) = front(folder, address, named=named)
    assert note.good is not named
    assert "no server of this log (example.org/other)" in note.text


@pytest.mark.parametrize(
    ("where", "named", "good", "says"),
    [
        (silent, False, False, "gives no answer (ReadTimeout)"),
        (silent, True, False, "gives no answer (ReadTimeout)"),
        (nobody, False, True, "not asked: nobody answers at"),
        (nobody, True, False, "nobody answers at"),
    ],
)
def test_a_front_that_cannot_be_asked_is_no_good_news(
    folder: DataFolder,
    where: Callable[[], AbstractContextManager[str]],
    says: str,
    *,
    named: bool,
    good: bool,
) -> None:
    """Where something listens, or somebody said so, silence is a finding.  That no server runs is one already."""
    with where() as address:
        (note,) = front(folder, address, named=named)
    assert (note.about, note.good) == ("front", good)
    assert says in note.text
    assert (f"treering serve --data {folder.path}" in note.remedy) is not good


def test_what_hangs_at_the_usual_address_may_be_somebody_elses(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody said that our server answers there: a note, and how to name ours."""
    with silent() as address:
        monkeypatch.setattr("tools.answering.SERVER", address)
        (note,) = check_front(folder, None, WAIT_S)
    assert note.good
    assert "--server" in note.text
