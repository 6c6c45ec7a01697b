"""What is under way on the Learning Observer's socket: no answer before its time, and no frame kept behind a lost one.

The test plays both sides, a client that does not read and an archiver that answers when it is told to.  How a client
sees the socket: `test_lo_socket`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.websockets import WebSocketState

from api import services
from api.lo_socket import _Conversation
from archive import Answer, Receipt, Refusal, Submission, Unavailable, Unknown
from tests.api.front import DirectClient, not_started


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
