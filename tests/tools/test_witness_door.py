"""Promise: who opens connections to a witness and asks nothing holds up nobody, and does not fill its log."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.tools.test_witness import HERE, application, request
from tools import witness_door
from tools.witness import DRAIN_S, listen, server_of
from tools.witness_door import Calm, Connection, connections_allowed

LONG_S = 60.0
HALF = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 200000\r\n\r\nold"
HEAD = b"GET /x HTTP/1.1\r\nHost: w\r\nX-Long: "
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def whole_day(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nobody be late of himself: a test that wants it says so."""
    monkeypatch.setattr(witness_door, "REQUEST_S", 86_400.0)
    yield
    assert not Connection.waiting


def served(folder: Path, scene: Callable[[int], Awaitable[None]]) -> float:
    """Play a scene against a witness that listens on a port; return how long it took to end after it."""

    async def play() -> float:
        listener = listen("127.0.0.1:0")
        listener.listen()
        server = server_of(application(folder))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(LONG_S):
            await scene(listener.getsockname()[1])
            server.should_exit = True
            began = asyncio.get_running_loop().time()
            await serving
            return asyncio.get_running_loop().time() - began

    return asyncio.run(play())


async def came(port: int, first: bytes = b"") -> Peer:
    """Return a connection on which some bytes were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    await writer.drain()
    return reader, writer


async def ended(peer: Peer) -> None:
    """Wait until the witness has ended a connection."""
    with suppress(ConnectionResetError):
        assert await peer[0].read() == b""
    peer[1].close()


async def cosigned(port: int, old: int, new: int) -> Peer:
    """Have a checkpoint cosigned on a new connection, and return it."""
    body = request(old, new)
    peer = await came(
        port, b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert (await peer[0].readline()).startswith(b"HTTP/1.1 200")
    return peer


@pytest.mark.parametrize("first", [b"", b"POST /add", HALF], ids=["silent", "in the head", "in the body"])
def test_who_sends_no_whole_request_in_time_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """Neither silence nor half a request keeps a connection; and half a request is not decided."""
    monkeypatch.setattr(witness_door, "REQUEST_S", 0.2)

    async def scene(port: int) -> None:
        await ended(await came(port, first))

    served(tmp_path, scene)


def test_many_that_ask_nothing_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the silent and the slow, those go that have waited longest; who asks is answered, and comes in again."""
    monkeypatch.setattr(Connection, "most", 4)

    async def scene(port: int) -> None:
        crowd = [await came(port, HALF if number % 2 else b"") for number in range(9)]
        good = await cosigned(port, 0, 3)
        for one in crowd[:6]:
            await ended(one)
        assert len(Connection.waiting) == 4
        good[1].write(b"GET %b HTTP/1.1\r\nHost: w\r\n\r\n" % HERE.encode())
        assert b"example.com/log" in await good[0].readuntil(b"example.com/log")
        for _, writer in (good, *crowd):
            writer.close()

    served(tmp_path, scene)


def test_who_waits_for_an_answer_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk is not the fault of those who ask: neither time nor room is taken from them."""
    monkeypatch.setattr(witness_door, "REQUEST_S", 0.1)
    monkeypatch.setattr(Connection, "most", 1)

    async def scene(port: int) -> None:
        body = request(0, 3)
        head = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n" % len(body)
        made = asyncio.Event()
        plain, shown = asyncio.to_thread, asyncio.Event()

        async def slow(call: Callable[..., object], *arguments: object) -> object:
            shown.set()
            await made.wait()
            return await plain(call, *arguments)

        monkeypatch.setattr(asyncio, "to_thread", slow)
        asking = await came(port, head + body)
        await shown.wait()
        await ended(await came(port))  # there is room for one, who is at work
        await asyncio.sleep(0.3)  # late, if he had been silent
        made.set()
        assert (await asking[0].readline()).startswith(b"HTTP/1.1 200")
        asking[1].close()

    served(tmp_path, scene)


def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    """What is parsed of a head is held in memory: it is bounded."""

    async def scene(port: int) -> None:
        peer = await came(port, HEAD)
        with suppress(ConnectionError):
            for _ in range(64):
                peer[1].write(b"x" * (witness_door.HEAD_BYTES_MAX // 16))
                await peer[1].drain()
        await ended(peer)

    served(tmp_path, scene)


def test_nobody_unfinished_delays_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A witness that is told to end waits for no request that is not whole, and ends without a traceback."""

    async def scene(port: int) -> None:
        begun, plain = asyncio.Event(), Connection.on_headers_complete

        def noted(one: Connection) -> None:
            plain(one)
            begun.set()

        monkeypatch.setattr(Connection, "on_headers_complete", noted)
        for first in (b"", b"POST /add", HALF):
            peers.append(socket.create_connection(("127.0.0.1", port)))
            peers[-1].sendall(first)
        await begun.wait()

    peers: list[socket.socket] = []
    assert served(tmp_path, scene) < DRAIN_S
    for peer in peers:
        peer.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_loop_without_files_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Python says it for each connection that waits, thousands of times a second; any other error is said as ever."""
    other: list[object] = []

    async def scene() -> None:
        loop, calm = asyncio.get_running_loop(), Calm()
        for _ in range(1_000):
            calm(loop, {"message": "accept", "exception": OSError(errno.EMFILE, "Too many open files")})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "default_exception_handler", other.append)
            calm(loop, {"message": "odd", "exception": ValueError("odd")})

    asyncio.run(scene())
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "Too many open files; raise `ulimit -n`" in said[0]
    assert len(other) == 1


def test_the_loop_of_a_witness_is_calm(tmp_path: Path) -> None:
    """What is said once is what the loop calls."""
    found = []

    async def scene(port: int) -> None:
        (await cosigned(port, 0, 3))[1].close()  # it has begun
        found.append(asyncio.get_running_loop().get_exception_handler())

    served(tmp_path, scene)
    assert isinstance(found[0], Calm)


def test_room_is_left_for_what_is_no_connection() -> None:
    """However few files there may be, half are for others: the log's memory, and those that have just come."""
    for files in (64, 256, 1_024, 65_536):
        assert connections_allowed(files) <= files // 2
    assert connections_allowed(1_024) + 2 * witness_door.BACKLOG < 1_024 - 64
    assert socket.SOMAXCONN >= witness_door.BACKLOG
