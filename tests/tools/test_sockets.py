"""The memory that unfinished WebSocket frames may take: of all connections together, and for how long."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
import websockets
from websockets.exceptions import ConnectionClosed

from tools import sockets
from tools.sockets import RawTextProtocol, Unfinished

WAIT_S = 20.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer each message with how long it was."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message["bytes"]))})


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch, **limits: int) -> AsyncIterator[str]:
    """Serve on loopback, with a budget of its own; yield the address."""
    monkeypatch.setattr(RawTextProtocol, "unfinished", Unfinished(**limits))
    config = uvicorn.Config(echo, port=0, ws=RawTextProtocol, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(WAIT_S):
            while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.01)
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        await running


async def begun(url: str, size: int, sent: int) -> websockets.ClientConnection:
    """Connect, and send the first bytes of a text frame of so many."""
    client = await websockets.connect(url, compression=None, close_timeout=1)
    client.transport.write(struct.pack("!BBQ", 0x81, 0x80 | 127, size) + bytes(4) + b"x" * sent)
    await asyncio.sleep(0.05)
    return client


async def code_of(client: websockets.ClientConnection) -> int | None:
    """Return with which code a connection is closed; None if it is not."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            try:
                await client.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006
    return None


def test_frames_that_never_end_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who begins a large one too many is told to come again; who sends small ones does not notice."""

    async def play() -> None:
        async with serving(monkeypatch, total_max=250_000, spared=1_000) as url:
            first, second = await begun(url, 1 << 20, 100_000), await begun(url, 1 << 20, 100_000)
            third = await begun(url, 1 << 20, 100_000)
            assert await code_of(third) == 1013
            assert await code_of(first) is None
            async with websockets.connect(url, compression=None) as small:
                await small.send("hello")
                assert await small.recv() == "5"
            assert 200_000 <= RawTextProtocol.unfinished.size < 250_000
            for one in (first, second, third):
                one.transport.abort()
            async with asyncio.timeout(WAIT_S):
                while RawTextProtocol.unfinished.size:  # noqa: ASYNC110 - a protocol tells nobody either
                    await asyncio.sleep(0.01)

    asyncio.run(play())


def test_a_frame_has_to_arrive_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still is ended; one connection whose messages become whole goes on, however long it lasts."""
    monkeypatch.setattr(sockets, "ARRIVAL_S_MAX", 0.4)

    async def play() -> None:
        async with serving(monkeypatch) as url:
            slow = await begun(url, 1_000, 10)
            async with websockets.connect(url, compression=None) as lively:
                for _ in range(
                    12
                ):  # each time a frame and the first byte of the next, so that one is always begun
                    lively.transport.write(struct.pack("!BB", 0x81, 0x80 | 3) + bytes(4) + b"abc" + b"\x81")
                    assert await lively.recv() == "3"
                    lively.transport.write(struct.pack("!B", 0x80 | 3) + bytes(4) + b"abc")
                    assert await lively.recv() == "3"
                    await asyncio.sleep(0.06)
            assert await code_of(slow) == 1013

    asyncio.run(play())
