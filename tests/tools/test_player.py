"""Playing a file over real sockets of loopback, at a server that breaks off wherever it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import count

import httpx2
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.tools.double import Book, Break, Double, double, events, lines
from tools import player
from tools.playback import Line, Playback, batches, refusal_of
from tools.player import GaveUp, LoPlayer, Patience, Poster, Rate, socket_url


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "PAUSE_S_MIN", 0.001)


def patience(give_up_s: float = 30, *, retry: bool = True) -> Patience:
    """Patience by a clock that stands still, so that no test depends on the machine's speed."""
    return Patience(give_up_s, retry=retry, now=lambda: 0.0)


async def play(server: Double, file: list[Line], window: int = 256, *, retry: bool = True) -> Book:
    """Play a file at a double; return the book that was kept."""
    book = Book()
    book.tally.events = len(file)
    playback = Playback(file, window)
    await LoPlayer(socket_url(server.url), playback, book.witness(), patience(retry=retry)).run()
    assert playback.done
    return book


def check(server: Double, file: list[Line], book: Book, *, forced: bool) -> None:
    """What a ledger promises, against what the server has seen."""
    sent = {(one["connection"], one["frame"]): one["line"] for one in book.records("sent")}
    acked = {(one["connection"], one["frame"]): one["index"] for one in book.records("acked")}
    assert len(sent) == len(book.records("sent")) == book.tally.sent, "no sending is recorded twice"
    for connection, frames in enumerate(server.received):
        numbers = [sent[connection, frame] for frame in range(len(frames))]
        assert [file[int(str(number)) - 1].data for number in numbers] == frames, (
            "received is in sent, in order"
        )
    answered = {
        (connection, frame): index
        for connection, by_frame in enumerate(server.answers)
        for frame, index in by_frame.items()
    }
    assert acked.items() <= answered.items(), "nothing is acknowledged that the server did not acknowledge"
    assert acked == answered or forced, "and all of it, unless answers were lost on their way"
    assert {one["line"] for one in book.records("acked")} == {line.number for line in file}
    assert book.tally.acknowledged == book.tally.events == len(file)


BREAKS = [
    Break(received, answered, code)
    for received in range(1, 7)
    for answered in range(received + 1)
    for code in (0, 1012)
    if answered < 6
]


@pytest.mark.parametrize("end", BREAKS, ids=repr)
def test_wherever_a_connection_ends_every_frame_is_acknowledged(end: Break) -> None:
    """Killed or restarted at any frame, twice: all is answered in the end, and the ledger tells the truth."""

    async def scene() -> None:
        file = events(6)
        async with double([end, Break(1, 0, end.code)]) as server:
            book = await play(server, file)
            check(server, file, book, forced=end.code == 0)
            assert book.tally.reconnects == len(server.received) - 1
            assert all(frames[0] == file[0].data for frames in server.received), "identity goes first"

    asyncio.run(scene())


def test_frames_are_sent_as_the_bytes_they_are() -> None:
    """Spaces, escapes, a missing brace and invalid UTF-8 reach the server untouched, which refuses some."""
    file = lines(b'{ "event" : "\\u00e9" }\r', b'{"event":"', b'{"event":"\xff"}', '{"event":"é"}'.encode())

    async def scene() -> None:
        async with double() as server:
            book = await play(server, file)
            assert server.received == [[line.data for line in file]]
            assert [one["line"] for one in book.records("refused")] == [2, 3]
            assert (book.tally.acknowledged, book.tally.refused, book.tally.unanswered) == (2, 2, 0)

    asyncio.run(scene())


def test_the_window_fills_and_is_never_exceeded() -> None:
    """A server that answers only every fourth frame is sent four at a time."""

    async def scene() -> None:
        async with double(hold=4) as server:
            book = await play(server, events(12), window=4)
            assert server.waiting_max == 4
            assert book.tally.acknowledged == 12

    asyncio.run(scene())


def test_a_frame_that_is_too_large_is_refused_and_the_rest_is_kept() -> None:
    """A close with 1009 costs the frame that was too large, not the file."""
    file = events(4)
    file[2] = Line(3, b'{"event":"' + b"x" * 500 + b'"}')

    async def scene() -> None:
        async with double(max_size=300) as server:
            book = await play(server, file)
            assert [one["line"] for one in book.records("refused")] == [3]
            assert {one["line"] for one in book.records("acked")} == {1, 2, 4}

    asyncio.run(scene())


def test_terminate_ends_the_connection_and_what_follows_is_another() -> None:
    """The server closes after `terminate`; lines behind it are not lost."""
    file = lines(b'{"event":"a"}', b'{"event":"terminate"}', b'{"event":"b"}')

    async def scene() -> None:
        async with double() as server:
            book = await play(server, file)
            assert book.tally.acknowledged == 3
            assert [frames[0] for frames in server.received] == [file[0].data, file[2].data]

    asyncio.run(scene())


def test_without_retry_the_first_break_is_the_end() -> None:
    """`--no-retry` says what broke, and what was not answered stays so."""

    async def scene() -> None:
        async with double([Break(3, 2, 1012)]) as server:
            with pytest.raises(GaveUp, match=r"closed \(1012\)"):
                await play(server, events(6), retry=False)
            assert len(server.received) == 1

    asyncio.run(scene())


def test_a_server_that_is_not_there_is_given_up() -> None:
    """Refused connections are tried again until patience ends, with the reason in the message."""
    clock = count(0.0, 4.0)

    async def scene() -> int:
        async with double() as server:
            url = socket_url(server.url)
        book = Book()
        impatient = Patience(10, retry=True, now=lambda: next(clock))
        with pytest.raises(GaveUp, match="gave up after 10 s"):
            await LoPlayer(url, Playback(events(2)), book.witness(), impatient).run()
        return book.tally.reconnects

    assert asyncio.run(scene()) == 4


def test_a_server_that_never_answers_is_given_up() -> None:
    """An open connection on which nothing is acknowledged does not hang the sender."""

    async def scene() -> None:
        async with double(silent=True) as server:
            playback, book = Playback(events(2)), Book()
            with pytest.raises(GaveUp, match=r"no answer for 0\.05 s"):
                await LoPlayer(socket_url(server.url), playback, book.witness(), patience(0.05)).run()

    asyncio.run(scene())


@pytest.mark.parametrize(("status", "expected"), [(404, "no Treering server"), (503, "HTTP 503")])
def test_a_refused_handshake_is_told(status: int, expected: str) -> None:
    """A wrong address ends at once; a server that cannot now is tried again."""

    def refuse(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(HTTPStatus(status), "no\n")

    async def handler(_: ServerConnection) -> None:
        raise AssertionError("the handshake was refused")

    async def scene() -> int:
        clock, book = count(0.0, 8.0), Book()
        async with serve(handler, "127.0.0.1", 0, process_request=refuse) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            tries = Patience(10, retry=True, now=lambda: next(clock))
            with pytest.raises(GaveUp, match=expected):
                await LoPlayer(url, Playback(events(2)), book.witness(), tries).run()
        return book.tally.reconnects

    assert asyncio.run(scene()) == (0 if status == 404 else 3)


def test_an_answer_to_another_frame_ends_the_file() -> None:
    """A server that acknowledges what was not sent is not believed."""

    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"status":"ack","frame":5,"index":1,"size":2}')
        await socket.wait_closed()

    async def scene() -> None:
        async with serve(handler, "127.0.0.1", 0) as server:
            url, book = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/", Book()
            with pytest.raises(GaveUp, match="answers frame 5, while frame 0"):
                await LoPlayer(url, Playback(events(1)), book.witness(), patience()).run()
            assert book.tally.acknowledged == 0

    asyncio.run(scene())


def test_a_stopped_player_waits_for_its_answers_and_sends_nothing_new() -> None:
    """Stopping in the middle of a pause leaves no frame unanswered."""

    async def scene() -> None:
        async with double() as server:
            book, playback = Book(), Playback(events(5))

            def wait(at: int) -> float:
                if at == 3:
                    one.stop()
                return 3_600 if at == 3 else 0

            one = LoPlayer(socket_url(server.url), playback, book.witness(), patience(), wait)
            await one.run()
            assert (playback.begun, book.tally.sent, book.tally.acknowledged) == (3, 3, 3)

    asyncio.run(scene())


def test_a_rate_is_shared_and_lateness_is_caught_up_with() -> None:
    """Turns come one after the other; who was late gets at most a second's worth at once."""
    clock = iter([0.0, 0.0, 0.0, 10.0, 10.0])
    rate = Rate(2, lambda: next(clock))
    assert [rate.reserve(1), rate.reserve(4)] == [0.0, 0.5]
    assert [rate.reserve(2), rate.reserve(1)] == [0.0, 0.0]


Handler = Callable[[httpx2.Request], httpx2.Response]


def receipts(request: httpx2.Request, first: int = 0) -> httpx2.Response:
    """The answer that keeps everything."""
    kept = [{"index": first + n, "size": 99} for n in range(request.content.count(b"\n"))]
    return httpx2.Response(200, json={"receipts": kept})


def post(handler: Handler, file: list[Line], *, batch: int = 2, give_up: Patience | None = None) -> Book:
    """Post a file at a handler; return the book that was kept."""

    async def scene() -> Book:
        book = Book()
        book.tally.events = len(file)
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler)) as client:
            parts = batches(file, batch)
            tries = give_up or patience()
            url = "http://treering.example/v1/events"
            parameters = [("student", "$.actor.id"), ("id", "$['a b']")]
            await Poster(client, url, parameters, parts, book.witness(), lambda: tries).run()
        return book

    return asyncio.run(scene())


def test_batches_are_posted_with_their_parameters() -> None:
    """Each line arrives as it is, once, as NDJSON; JSON paths survive the URL."""
    seen: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["content-type"] == "application/x-ndjson"
        assert dict(request.url.params) == {"student": "$.actor.id", "id": "$['a b']"}
        seen.extend(request.content.splitlines())
        return receipts(request)

    file = events(5)
    book = post(handler, file)
    assert sorted(seen) == sorted(line.data for line in file)
    assert (book.tally.sent, book.tally.acknowledged, book.tally.reconnects) == (5, 5, 0)
    assert book.records("sent")[0] == {"file": "a.jsonl", "line": 1, "sent": True}
    assert {"file": "a.jsonl", "line": 1, "acked": True, "index": 0, "size": 99} in book.records("acked")


def troubles() -> Iterator[Handler]:
    """Ways in which a request fails and is to be repeated."""

    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("the connection broke", request=request)

    yield broken
    yield lambda _: httpx2.Response(503, json={"status": 503, "detail": "later"})
    yield lambda _: httpx2.Response(502, text="<html>")


@pytest.mark.parametrize("trouble", list(troubles()), ids=["broken", "503", "502"])
def test_a_request_in_trouble_is_repeated(trouble: Handler) -> None:
    """After a lost answer or a 503, the same lines go again until they are acknowledged."""
    calls = count()
    book = post(
        lambda request: trouble(request) if next(calls) < 2 else receipts(request), events(3), batch=9
    )
    assert (book.tally.sent, book.tally.acknowledged, book.tally.reconnects) == (9, 3, 2)


def test_only_the_lines_in_trouble_are_repeated() -> None:
    """A batch of which one event met a server in trouble is not sent again as a whole."""
    bodies: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        if len(bodies) > 1:
            return receipts(request, 50)
        later = {"error": {"status": 503, "detail": "later"}}
        return httpx2.Response(200, json={"receipts": [{"index": 1, "size": 2}, later]})

    file = events(2)
    assert post(handler, file).tally.acknowledged == 2
    assert bodies[1:] == [file[1].data + b"\n"]


def test_posting_is_given_up_too() -> None:
    """A server that stays away ends the command, with what was acknowledged counted."""
    clock = count(0.0, 8.0)
    impatient = Patience(10, retry=True, now=lambda: next(clock))
    full = json.dumps({"detail": "log/0: no space left; make room"})
    with pytest.raises(
        GaveUp, match=r"^HTTP 503: log/0: no space left; make room; gave up after 10 s of refusals$"
    ):
        post(lambda _: httpx2.Response(503, text=full), events(4), give_up=impatient)
    assert refusal_of(b"<html>") == ""
