"""The archiver asked without an event loop: a real one, on its real socket, that refuses, goes away, comes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archive import (
    Activate,
    ActiveReducer,
    Appended,
    DataFolder,
    DirectClient,
    InvalidEvent,
    LogSource,
    PublishedSize,
    Receipt,
    Refusal,
    Retry,
    Skip,
    Steer,
    Steering,
    Unavailable,
    Unknown,
    control_body,
    encode_frame,
    parse_leaf,
    parse_steering,
)
from tests.archive.site import event

pytestmark = [pytest.mark.process, pytest.mark.timeout(100)]

ROOT = Path(__file__).parents[2]
SKIP = Skip("inverse", 3)


@contextmanager
def archiving(folder: DataFolder, end: int = signal.SIGTERM) -> Iterator[subprocess.Popen[str]]:
    """Run the archiver of a folder in a process of its own, and end it by a signal."""
    command = [sys.executable, "-m", "tools.archiver", "--data", str(folder.path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.send_signal(end)
            process.wait(30)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Return the folder of a log that nobody has begun."""
    made = DataFolder(tmp_path / "data")
    made.create()
    return made


def steered(folder: DataFolder) -> list[tuple[int, Steering]]:
    """Return what steers in the log, with indices."""
    published = PublishedSize(folder.published)
    store = folder.open_log()
    with LogSource(store, published.get).open() as log:
        bodies = [(index, control_body(parse_leaf(leaf))) for index, leaf in log.controls(0, log.size)]
    store.close()
    return [(index, found) for index, body in bodies if (found := parse_steering(body)) is not None]


def test_events_and_steering_are_kept_in_the_order_asked(folder: DataFolder) -> None:
    """Each question has its answer: a receipt for each event, one for a control entry, and the log holds them so."""
    activate = Activate("m", (ActiveReducer("r", 1, ("student",), "0" * 64),))
    with archiving(folder), DirectClient(folder.socket) as client:
        one, two = client.append([event(b'{"n":1}'), event(b'{"n":2}')])
        skip = client.steer(SKIP)
        assert client.append([]) == []
        active, retry = client.steer(activate), client.steer(Retry(module="m"))
        (three,) = client.append([event(b'{"n":3}')])
        found = [one, two, skip, active, retry, three]
        assert all(isinstance(each, Receipt) for each in found)
        indices = [each.index for each in found if isinstance(each, Receipt)]
        assert indices == list(range(indices[0], indices[0] + 6))
        assert skip.size == skip.index + 1, "a control entry has a block of its own"
        assert steered(folder) == [
            (skip.index, SKIP),
            (active.index, activate),
            (retry.index, Retry(module="m")),
        ]


def test_an_event_with_an_id_may_be_asked_again(folder: DataFolder) -> None:
    """After a lost answer the same event is kept once, and other content under its id is refused, with the reason."""
    with archiving(folder), DirectClient(folder.socket) as client:
        first = client.append([event(b"{}", id="a")])
        with DirectClient(folder.socket) as other:
            assert other.append([event(b"{}", id="a")]) == first
        (refused,) = client.append([event(b'{"other":1}', id="a")])
        assert isinstance(refused, Refusal)
        assert refused.reason == "conflict"


WIDE = tuple(f"f{field:063}" for field in range(32))
BROKEN: list[tuple[Steering, str]] = [
    (Skip("", 3), "reducer"),
    (Skip("r", -1), "index"),
    (Retry(), "give a module, or a reducer and an index"),
    (Activate("m", (ActiveReducer("r", 1, (), "x"),)), "reducers"),
    (Activate("m", tuple(ActiveReducer(f"r{at}", 1, WIDE, "0" * 64) for at in range(30))), "at most 65535"),
]


def test_a_body_that_breaks_a_rule_is_refused(folder: DataFolder) -> None:
    """It is the asker's error, it says which field, nothing is appended, and the archiver goes on."""
    with archiving(folder) as process, DirectClient(folder.socket) as client:
        for steering, why in BROKEN:
            with pytest.raises(InvalidEvent, match=why):
                client.steer(steering)
        assert isinstance(client.steer(SKIP), Receipt)
        assert len(steered(folder)) == 1
        assert process.poll() is None


def test_what_is_the_archivers_own_is_nobody_elses(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program may write the entries by which the log itself is run, nor anything that steers nothing."""
    bodies: list[object] = [{"control": kind} for kind in ("start", "origin", "rotate", ["skip"], None)]
    with archiving(folder), DirectClient(folder.socket) as client:
        before = client.append([event(b"{}")])
        for body in [*bodies, {}]:
            monkeypatch.setattr("archive.direct.steering_body", lambda _, body=body: body)
            with pytest.raises(InvalidEvent, match="the archiver's own"):
                client.steer(SKIP)
        after = client.append([event(b"{}")])
        (one, two) = [each.index for each in [*before, *after] if isinstance(each, Receipt)]
        assert two == one + 1


def test_an_archiver_that_is_away_is_unavailable(folder: DataFolder) -> None:
    """Before it has ever run, and after it has ended, one is told so at once, and to try again."""
    with DirectClient(folder.socket) as client:
        for _ in range(2):
            with pytest.raises(Unavailable, match="try again shortly"):
                client.append([event(b"{}")])
        with archiving(folder):
            client.steer(SKIP)
        for _ in range(2):
            with pytest.raises(Unavailable, match="try again shortly"):
                client.steer(SKIP)


def test_a_client_outlives_its_archiver(folder: DataFolder) -> None:
    """A killed archiver costs one question; the next is asked of the one that took its place, and all is there."""
    with DirectClient(folder.socket) as client:
        with archiving(folder, signal.SIGKILL):
            first = client.steer(SKIP)
            client.append([event(b"{}", id="a")])
        with archiving(folder):
            with pytest.raises(Unavailable):
                client.append([event(b"{}", id="b")])
            (again, _) = client.append([event(b"{}", id="a"), event(b"{}", id="b")])
            assert isinstance(again, Receipt)
            assert again.index == first.index + 1
            assert steered(folder) == [(first.index, SKIP)]


def test_closing_twice_is_allowed(folder: DataFolder) -> None:
    """And a closed client opens another connection when it is asked."""
    with archiving(folder), DirectClient(folder.socket) as client:
        client.steer(SKIP)
        client.close()
        client.close()
        client.steer(SKIP)


# --- archivers that no archiver is ---------------------------------------------------------------


@contextmanager
def impostor(path: Path, *answers: bytes) -> Iterator[None]:
    """Listen in the archiver's place; to each connection, say one of these, or nothing, and wait."""
    done = threading.Event()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(os.fspath(path))
    server.listen()

    def answer() -> None:
        connections = []
        for one in answers:
            connection, _ = server.accept()
            connections.append(connection)
            connection.recv(1 << 16)
            for at in range(len(one)):
                connection.sendall(one[at : at + 1])
        done.wait(20)
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(20)
        server.close()


def appended(ticket: int) -> bytes:
    """Return the answer to a control entry."""
    return encode_frame(Appended(ticket, [Receipt(5, 6)], 6, bytes(32)))


def test_an_archiver_that_hangs_is_waited_for_no_longer_than_asked(folder: DataFolder) -> None:
    """Silence ends in Unknown: it may yet be kept.  The next question has another connection, and another ticket."""
    with impostor(folder.socket, b"", appended(2)), DirectClient(folder.socket, wait_s=0.2) as client:
        with pytest.raises(Unknown, match=r"timed out.*may be kept or not"):
            client.steer(SKIP)
        client._wait_s = 20.0  # this time it is there, however busy the machine
        assert client.steer(SKIP) == Receipt(5, 6)


@pytest.mark.parametrize(
    "answer", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", encode_frame(Steer(1, {}))], ids=["long", "torn", "odd"]
)
def test_an_answer_that_is_none_is_unavailable(folder: DataFolder, answer: bytes) -> None:
    """Bytes that are no answer end the connection; they are never waited out, nor taken for an answer."""
    client = DirectClient(folder.socket, wait_s=20)
    with impostor(folder.socket, answer), client, pytest.raises(Unknown, match="no answer"):
        client.steer(SKIP)


def test_a_question_that_was_cut_off_is_not_kept(folder: DataFolder) -> None:
    """Who listens and takes nothing has no whole frame, so it is no question: nothing can be kept."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(os.fspath(folder.socket))
        server.listen()
        with DirectClient(folder.socket, wait_s=0.2) as client, pytest.raises(Unavailable) as refused:
            client.append([event(bytes(8 << 20))])
        assert not isinstance(refused.value, Unknown)


def test_answers_to_other_questions_are_passed_over(folder: DataFolder) -> None:
    """An answer that comes byte by byte is put together; one with another ticket is nobody's."""
    answer = encode_frame(Appended(9, [Refusal("invalid", "no")], 6, bytes(32))) + appended(1)
    with impostor(folder.socket, answer), DirectClient(folder.socket) as client:
        assert client.steer(SKIP) == Receipt(5, 6)


def test_an_archiver_says_how_far_it_is_unless_it_is_stopped(folder: DataFolder) -> None:
    """It answers in between other questions; one that only holds its socket open is told apart."""
    with archiving(folder) as process, DirectClient(folder.socket, 2.0) as client:
        before = client.published()
        assert before == PublishedSize(folder.published).get()
        client.append([event(b"{}")])
        assert client.published() == before + 1
        client.append([event(b"{}")])
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="gives no answer"):
                client.published()
        finally:
            process.send_signal(signal.SIGCONT)
        assert client.published() == before + 2
