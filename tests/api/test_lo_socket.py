"""The Learning Observer's socket: answers in the order of the frames, and none that goes beyond what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect, WebSocketState

from api import services
from api.lo_socket import _Conversation, frame_of
from archive import Answer, Receipt, Refusal, Submission, Unavailable, Unknown
from tests.api.front import DirectClient, Front, not_started

URL = "ws://localhost/wsapi/in/?ack=1"
AUTH = {"status": "auth", "user_id": "testcase-ann"}


def ack(frame: int, index: int) -> dict[str, Any]:
    """Return the acknowledgement of a frame that was committed by itself."""
    return {"status": "ack", "frame": frame, "index": index, "size": index + 1}


def receive(socket: WebSocketTestSession, count: int) -> list[Any]:
    """Return so many answers."""
    return [socket.receive_json() for _ in range(count)]


def closed(socket: WebSocketTestSession) -> int:
    """Return the code with which the server closes next."""
    with pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_json()
    return caught.value.code


# --- answers -------------------------------------------------------------------------------------


def test_frames_are_acknowledged_in_order(front: Front, http: TestClient) -> None:
    """Each frame by its number, with index and covering size; the identity is told before."""
    with http.websocket_connect(URL) as socket:
        socket.send_text('{"event":"hello","user_id":"ann"}')
        for number in range(1, 50):
            socket.send_text(json.dumps({"event": "key", "n": number}))
        answers = receive(socket, 51)
    assert answers == [AUTH, *[ack(number, number + 2) for number in range(50)]]
    assert [one.subject for one in front.direct.submitted] == ["student:testcase-ann"] * 50


def test_without_acks_only_the_identity_is_told(front: Front, http: TestClient) -> None:
    """LO's own clients expect no other answer; the frames are kept all the same."""
    with http.websocket_connect("ws://localhost/wsapi/in/") as socket:
        socket.send_text('{"event":"a"}')
        socket.send_text('{"event":"b","user_id":"ann"}')
        socket.send_text('{"event":"terminate"}')
        assert receive(socket, 1) == [AUTH]
        assert closed(socket) == 1000
    assert front.archiver.head.size == 2 + 4


def test_the_frame_that_says_who_it_is_is_acknowledged_at_its_own_entry(http: TestClient) -> None:
    """Not at that of the binding, which is committed with it."""
    with http.websocket_connect(URL) as socket:
        socket.send_text('{"event":"a"}')
        socket.send_text('{"event":"b","user_id":"ann"}')
        socket.send_text('{"event":"c"}')
        answers = receive(socket, 4)
    assert answers[0] == ack(0, 2)
    assert answers[1:] == [AUTH, {"status": "ack", "frame": 1, "index": 3, "size": 5}, ack(2, 5)]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"text": "{"}, "malformed JSON: Input data was truncated"),
    ({"text": "[]"}, "a frame must be a JSON object"),
    ({"text": "{}"}, "field event is missing; expected a string"),
    ({"text": '{"event":"lock_fields"}'}, "lock_fields: fields must be an object"),
    ({"text": ""}, "malformed JSON: Input data was truncated"),
    ({"text": '"\ud800"'}, "invalid UTF-8 at byte 1"),
    ({"bytes": b'{"event":"a"}'}, "binary frame; send one JSON object as text"),
    ({"bytes": b""}, "binary frame; send one JSON object as text"),
    ({"bytes": b'{"event":"\xff"}', "opcode": "text"}, "invalid UTF-8 at byte 10"),
]


@pytest.mark.parametrize("asked", ["?ack=1", ""])
def test_bad_frames_are_answered_and_the_connection_goes_on(
    front: Front, http: TestClient, asked: str
) -> None:
    """A refused frame has its answer, whether acknowledgements were asked for or not, and its place in the log."""
    with http.websocket_connect(f"ws://localhost/wsapi/in/{asked}") as socket:
        for message, _ in BAD:
            socket.send({"type": "websocket.receive", **message})
        socket.send_text('{"event":"b","user_id":"ann"}')
        answers = receive(socket, len(BAD) + 1)
        for number, (message, reason) in enumerate(BAD):
            place = {"frame": number, "index": number + 2, "size": number + 3}
            assert answers[number] == {"status": "refused", **place, "reason": reason}
            kept = http.get(f"/v1/events/{number + 2}").json()
            assert (kept["kind"], kept["extra"]["reason"]) == ("refused", reason), message
        assert answers[-1] == AUTH
    assert front.services.counters.refused == len(BAD)
    assert front.services.counters.accepted == 1


def test_terminate_is_acknowledged_and_then_closed(http: TestClient) -> None:
    """1000, after everything before it was answered."""
    with http.websocket_connect(URL) as socket:
        for name in ("a", "b", "terminate", "late"):
            socket.send_text(json.dumps({"event": name}))
        assert receive(socket, 3) == [ack(0, 2), ack(1, 3), ack(2, 4)]
        assert closed(socket) == 1000


def test_another_host_name_is_refused(http: TestClient) -> None:
    """As over HTTP, a page that points its own name here gets no socket."""
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        http.websocket_connect("ws://evil.example/wsapi/in/"),
    ):
        pass
    assert caught.value.status_code == 400


def test_connections_are_counted_while_they_last(front: Front, http: TestClient) -> None:
    """The gauge goes up and down again; a frame that was too large is counted by its close code."""
    with http.websocket_connect(URL) as socket:
        socket.send_text('{"event":"a"}')
        receive(socket, 1)
        assert front.services.counters.connections == 1
        socket.close(1009)
        http.get("/healthz")
    assert front.services.counters.connections == 0
    assert front.services.counters.too_large == 1


# --- an archiver that goes away ------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_frame_that_may_be_lost_ends_the_connection(
    front: Front, http: TestClient, at: int, kept: bool
) -> None:
    """1012: frames before it are acknowledged, it and all later ones are not, and none has an index."""
    front.direct.lose_at, front.direct.lost_are_kept = at, kept
    with http.websocket_connect(URL) as socket:
        for number in range(8):
            socket.send_text(json.dumps({"event": "key", "n": number}))
        assert receive(socket, at) == [ack(number, number + 2) for number in range(at)]
        assert closed(socket) == 1012


def test_while_the_archiver_is_away_frames_are_not_taken(front: Front, http: TestClient) -> None:
    """The connection ends with 1012, nothing is submitted, and a new one works once it is back."""
    with http.websocket_connect(URL) as socket:
        socket.send_text('{"event":"a"}')
        receive(socket, 1)
        front.direct.is_connected = False
        socket.send_text('{"event":"b"}')
        assert closed(socket) == 1012
    assert len(front.direct.submitted) == 1
    front.direct.is_connected = True
    with http.websocket_connect(URL) as socket:
        socket.send_text('{"event":"b"}')
        assert receive(socket, 1) == [ack(0, 3)]


class SlowSocket:
    """A socket whose client reads nothing until `reads` is set."""

    application_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.query_params = {"ack": "1"}
        self.frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.sent: list[Any] = []
        self.code = 0

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        return await self.frames.get()

    async def send(self, message: dict[str, Any]) -> None:
        """Send, as soon as the client reads."""
        await self.reads.wait()
        self.sent.append(json.loads(message["text"]))

    async def close(self, code: int) -> None:
        """Close."""
        self.code = code


class ManualClient(DirectClient):
    """An archiver client whose answers the test gives."""

    def __init__(self) -> None:
        super().__init__(None)
        self.is_connected = True
        self.futures: list[asyncio.Future[list[Answer]]] = []
        self.more = asyncio.Event()

    async def taken(self, at: int) -> asyncio.Future[list[Answer]]:
        """Wait until so much was submitted, and return what is to be answered."""
        while len(self.futures) <= at:
            self.more.clear()
            await self.more.wait()
        return self.futures[at]

    def submit(self, submissions: Sequence[Submission]) -> asyncio.Future[list[Answer]]:
        """Take note, and answer later."""
        self.submitted += submissions
        self.more.set()
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Talk:
    """A conversation with a slow socket and a manual archiver."""

    def __init__(self, tmp_path: Any) -> None:
        services = not_started(tmp_path)
        self.client = services.client = ManualClient()
        self.socket = SlowSocket()
        conversation = _Conversation(services, self.socket)  # type: ignore[arg-type]
        self.task = asyncio.create_task(conversation.run())

    async def send(self, *numbers: int) -> None:
        """Receive frames with these numbers."""
        for number in numbers:
            text = json.dumps({"event": "key", "n": number})
            self.socket.frames.put_nowait({"type": "websocket.receive", "text": text})
        await turn()

    async def end(self) -> list[int]:
        """Let the client read on, wait for the end, and return the frames that were acknowledged."""
        self.socket.reads.set()
        await asyncio.wait_for(self.task, 10)
        return [one["frame"] for one in self.socket.sent]


FAILURES: list[Exception | Refusal] = [
    Unknown("it went away"),
    Unavailable("it is down"),
    Refusal("unavailable", "no space left"),
    Refusal("invalid", "an event"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: repr(one)[:22])
def test_nothing_is_submitted_behind_a_frame_that_was_lost(
    tmp_path: Any, failure: Exception | Refusal
) -> None:
    """Even if the archiver is back before a slow client has read its answers: the log has no gap to hide."""

    async def talk() -> None:
        one = Talk(tmp_path)
        await one.send(0, 1)
        one.client.futures[0].set_result([Receipt(2, 3)])
        await turn()  # the answer to frame 0 is stuck in the socket
        if isinstance(failure, Exception):
            one.client.futures[1].set_exception(failure)
        else:
            one.client.futures[1].set_result([failure])
        await turn()
        await one.send(2, 3)
        assert len(one.client.submitted) == 2
        assert await one.end() == [0]
        assert one.socket.code == 1012

    asyncio.run(talk())


def test_while_the_archiver_does_not_answer_no_further_frame_is_taken(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way waits, the client is held up and not sent away, and all is kept in order when it goes on."""
    monkeypatch.setattr(services, "LOOK_S", 0.01)

    async def talk() -> None:
        one = Talk(tmp_path)
        await one.send(0)
        one.client._silent = True
        await one.send(1, 2)
        await asyncio.sleep(0.1)
        assert (len(one.client.submitted), one.socket.frames.qsize(), one.socket.code) == (1, 1, 0)
        one.client._silent = False
        one.client.futures[0].set_result([Receipt(2, 3)])
        for at in (1, 2):
            future = await asyncio.wait_for(one.client.taken(at), 60)
            future.set_result([Receipt(2 + at, 3 + at)])
        one.socket.frames.put_nowait({"type": "websocket.disconnect"})
        assert await one.end() == [0, 1, 2]

    asyncio.run(talk())


def test_an_archiver_that_goes_away_while_it_is_waited_for_ends_the_connection(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped is killed, and does not come back: 1012, as ever, and the frame was not submitted."""
    monkeypatch.setattr(services, "LOOK_S", 0.01)

    async def talk() -> None:
        one = Talk(tmp_path)
        one.client._silent = True
        await one.send(0)
        one.client.is_connected = False
        assert await one.end() == []
        assert (one.client.submitted, one.socket.code) == ([], 1012)

    asyncio.run(talk())


def test_answers_wait_for_those_before(tmp_path: Any) -> None:
    """Frames are submitted without waiting for a commit, and acknowledged in order whatever is done first."""

    async def talk() -> None:
        one = Talk(tmp_path)
        one.socket.reads.set()
        await one.send(0, 1, 2)
        assert len(one.client.submitted) == 3
        one.client.futures[2].set_result([Receipt(4, 5)])
        one.client.futures[1].set_result([Receipt(3, 5)])
        await turn()
        assert one.socket.sent == []
        one.client.futures[0].set_result([Receipt(2, 5)])
        await turn()
        assert [(reply["frame"], reply["index"]) for reply in one.socket.sent] == [(0, 2), (1, 3), (2, 4)]
        one.socket.frames.put_nowait({"type": "websocket.disconnect", "code": 1001})
        assert await one.end() == [0, 1, 2]

    asyncio.run(talk())


def test_what_was_sent_before_a_client_left_is_answered_for(tmp_path: Any) -> None:
    """A client that goes away at once has its frames kept; the conversation ends when they are."""

    async def talk() -> None:
        one = Talk(tmp_path)
        await one.send(0, 1)
        one.socket.frames.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await turn()
        assert not one.task.done()
        for number, future in enumerate(one.client.futures):
            future.set_result([Receipt(2 + number, 4)])
        assert await one.end() == [0, 1]

    asyncio.run(talk())


def test_no_more_than_a_window_is_under_way(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends faster than the disk keeps is read no faster than that."""
    monkeypatch.setattr("api.lo_socket.IN_FLIGHT_MAX", 3)

    async def talk() -> None:
        one = Talk(tmp_path)
        one.socket.reads.set()
        await one.send(*range(10))
        assert len(one.client.submitted) == 3
        one.client.futures[0].set_result([Receipt(2, 3)])
        await turn()
        assert len(one.client.submitted) == 4
        for number in range(1, 10):
            one.client.futures[number].set_result([Receipt(2 + number, 12)])
            await turn()
        one.socket.frames.put_nowait({"type": "websocket.disconnect", "code": 1001})
        assert await one.end() == list(range(10))

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ({"text": "é"}, ("é".encode(), True)),
        ({"text": "", "bytes": None}, (b"", True)),
        ({"bytes": b"\xff", "text": None}, (b"\xff", False)),
        ({"bytes": b"\xff", "opcode": "text"}, (b"\xff", True)),
        ({}, (b"", False)),
    ],
)
def test_a_message_is_bytes_and_a_kind(message: dict[str, Any], frame: tuple[bytes, bool]) -> None:
    """Text or not is what the sender said, however the server hands it over."""
    assert frame_of(message) == frame


@pytest.mark.parametrize(
    ("origin", "opens"),
    [
        (None, True),
        ("chrome-extension://abcdef", True),
        ("http://localhost:5173", True),
        ("https://tutor.example", True),
        ("https://elsewhere.example", False),
        ("null", False),
    ],
)
def test_only_known_pages_open_the_socket(
    front: Front, http: TestClient, origin: str | None, opens: bool
) -> None:
    """A web page of nobody's may not write events through a visitor's browser: it is answered 403."""
    front.services.page_hosts = frozenset({"tutor.example"})
    headers = {} if origin is None else {"origin": origin}
    if opens:
        with http.websocket_connect(URL, headers=headers) as socket:
            socket.send_text('{"event":"hello","user_id":"ann"}')
            assert receive(socket, 1)[0]["status"] == "auth"
    else:
        with pytest.raises(WebSocketDisconnect), http.websocket_connect(URL, headers=headers):
            pass
    assert front.archiver.head.size == (3 if opens else 2)
