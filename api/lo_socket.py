"""WS /wsapi/in/: the Learning Observer's socket around `api.lo`.

Two tasks a connection.  One reads frames and submits them without waiting for any commit; the other takes the
answers in the order of the frames and acknowledges.  Awaiting each commit in the reading loop would make one
connection as slow as one disk.

While the archiver does not answer, no further frame is read: those under way wait, and nothing is lost when it goes on.
When it goes away, frames that were not submitted wait, and what the log holds of those under way is settled with the
next archiver (`archive.client`).  Where that cannot be, the connection ends with 1012 *before* any later frame
is submitted: what was acknowledged has no gap before it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from api.lo import Connection
from api.receipts import add_proofs
from api.services import Services
from archive import Answer, Receipt, Unavailable

IN_FLIGHT_MAX = 1_024
CLOSE_DONE = 1000
CLOSE_POLICY = 1008
CLOSE_TOO_LARGE = 1009
CLOSE_RESTART = 1012

_encode = msgspec.json.Encoder().encode


class _UnderWay(NamedTuple):
    """What is still to be answered of a frame; not its bytes, which a client that never reads would pin."""

    number: int
    replies: list[dict[str, Any]]
    refused: str | None
    close: bool
    future: asyncio.Future[list[Answer]]


def router(services: Services) -> APIRouter:
    """Return the route of the Learning Observer's protocol."""
    routes = APIRouter()

    @routes.websocket("/wsapi/in/")
    async def listen(socket: WebSocket) -> None:
        if not may_open(socket.headers.get("origin"), socket.url.hostname, services.page_hosts):
            await socket.close(CLOSE_POLICY)  # before it is accepted: the answer is 403
            return
        await socket.accept()
        services.counters.connections += 1
        try:
            await _Conversation(services, socket).run()
        finally:
            services.counters.connections -= 1

    return routes


def may_open(origin: str | None, host: str | None, origins: Collection[str]) -> bool:
    """Return whether a page of this origin may open the socket: ours, a listed one, a browser extension, or none.

    Browsers let any page open a socket to any host, loopback included, and say where the page is from.

    >>> may_open(None, "localhost", ()), may_open("chrome-extension://abc", "localhost", ())
    (True, True)
    >>> may_open("https://elsewhere.example", "localhost", ()), may_open("null", "localhost", ())
    (False, False)
    """
    if origin is None:
        return True
    page = urlsplit(origin)
    return page.scheme.endswith("-extension") or (
        page.hostname is not None and page.hostname in {host, *origins}
    )


class _Conversation:
    def __init__(self, services: Services, socket: WebSocket) -> None:
        self._services, self._socket = services, socket
        self._acks = socket.query_params.get("ack") == "1"
        self._proofs = socket.query_params.get("receipt") == "1"
        self._connection = Connection(os.urandom(8))
        self._under_way: asyncio.Queue[_UnderWay | None] = asyncio.Queue()
        self._window = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._broken = False

    async def run(self) -> None:
        """Serve the connection until it ends; everything that was submitted is answered first."""
        reading = asyncio.create_task(self._read())
        answering = asyncio.create_task(self._answer())
        try:
            await asyncio.wait((reading, answering), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                reading.cancel()
            await asyncio.gather(reading, answering, return_exceptions=True)
        finally:
            reading.cancel()
            answering.cancel()

    async def _read(self) -> None:
        client, clock = self._services.client, self._services.clock
        try:
            while not self._broken:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    self._services.counters.too_large += message.get("code") == CLOSE_TOO_LARGE
                    return
                await self._services.answering()
                await self._window.acquire()
                if self._broken:
                    return
                number = self._connection.frames
                data, text = frame_of(message)
                step = self._connection.frame(data, text, clock.now_us())
                future = client.submit(step.submissions)
                # Not in `_answer`: while that waits for a slow client, the archiver may be back already.
                future.add_done_callback(self._look)
                self._under_way.put_nowait(_UnderWay(number, step.replies, step.refused, step.close, future))
                if step.close:
                    return
        except (Unavailable, WebSocketDisconnect):
            self._broken = True
        finally:
            self._under_way.put_nowait(None)

    def _look(self, future: asyncio.Future[list[Answer]]) -> None:
        """Read no further once a frame was not kept."""
        if future.cancelled() or future.exception() is not None:
            self._broken = True
            return
        self._services.heard(answers := future.result())
        if not all(isinstance(answer, Receipt) for answer in answers):
            self._broken = True

    async def _answer(self) -> None:
        while (one := await self._under_way.get()) is not None:
            try:
                answers = await one.future
            except Unavailable:
                self._broken = True
                break
            if not all(isinstance(answer, Receipt) for answer in answers):
                self._broken = True
                break
            self._window.release()
            await self._reply(one, answers[0])
            if one.close:
                await self._close(CLOSE_DONE)
        if self._broken:
            await self._close(CLOSE_RESTART)

    async def _reply(self, one: _UnderWay, answer: Answer) -> None:
        assert isinstance(answer, Receipt)
        counters = self._services.counters
        replies: list[dict[str, Any]] = list(one.replies)
        place = {"frame": one.number, "index": answer.index, "size": answer.size}
        if one.refused is not None:
            counters.refused += 1
            replies.append({"status": "refused", **place, "reason": one.refused})
        else:
            counters.accepted += 1
            if self._acks:
                replies.append({"status": "ack", **place})
                if self._proofs:
                    add_proofs(self._services, replies[-1:])
        with suppress(RuntimeError, WebSocketDisconnect):  # the client may be gone; its frames are kept
            for reply in replies:
                await self._socket.send({"type": "websocket.send", "text": _encode(reply).decode()})

    async def _close(self, code: int) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            if self._socket.application_state is not WebSocketState.DISCONNECTED:
                await self._socket.close(code)


def frame_of(message: Any) -> tuple[bytes, bool]:
    """Return the bytes of a received message, and whether it was a text frame.

    A text frame may come as raw bytes (`tools.sockets`), so that invalid UTF-8 is ours to answer.
    """
    if message.get("text") is not None:
        return message["text"].encode("utf-8", "surrogatepass"), True
    return bytes(message.get("bytes") or b""), message.get("opcode") == "text"
