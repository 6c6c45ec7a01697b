"""The Learning Observer's socket: each frame has its answer, in order, and its place in the log.

Here a client speaks to the whole front.  What is under way between a slow client and a slow archiver is next door:
`test_lo_conversation`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from api.lo_socket import frame_of
from tests.api.front import Front

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


# --- who may open it -----------------------------------------------------------------------------


def test_another_host_name_is_refused(http: TestClient) -> None:
    """As over HTTP, a page that points its own name here gets no socket."""
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        http.websocket_connect("ws://evil.example/wsapi/in/"),
    ):
        pass
    assert caught.value.status_code == 400


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
