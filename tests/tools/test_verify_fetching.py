"""What a server may answer to who checks its log: nothing fills his memory or his time, and a refusal has words."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from socketserver import StreamRequestHandler, ThreadingTCPServer

import httpx2
import pytest

from archive import Unavailable
from tools import fetching, verify_log
from tools.fetching import ANSWER_BYTES_MAX, fetched
from tools.leaves import HttpSource

URL = "http://log.example/checkpoint"


class Server:
    """A server in memory; counts what is taken from it."""

    def __init__(self, size: int, headers: dict[str, str], status: int = 200) -> None:
        self.taken, self._size, self._headers, self._status = 0, size, headers, status
        self.asked = list[str]()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body, a piece at a time."""
        for _ in range(0, self._size, 1 << 16):
            self.taken += 1 << 16
            yield bytes(1 << 16)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        self.asked.append(request.headers["accept-encoding"])
        if request.url.path == "/there":
            return httpx2.Response(200, stream=httpx2.ByteStream(b"it is here"))
        return httpx2.Response(self._status, headers=self._headers, content=self.pieces())


def answer_of(server: Callable[[httpx2.Request], httpx2.Response], redirects: int = 0) -> tuple[int, bytes]:
    """Return what is taken of a server's answer."""

    async def ask() -> tuple[int, bytes]:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(server)) as client:
            return await fetched(client, URL, redirects)

    return asyncio.run(ask())


def test_an_answer_without_end_is_given_up() -> None:
    """No file of a log is longer than 17 MiB: what goes on is not read, and not kept."""
    server = Server(1 << 40, {})
    tracemalloc.start()
    with pytest.raises(Unavailable, match="longer than 17,825,792 bytes"):
        answer_of(server)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert server.taken <= ANSWER_BYTES_MAX + (1 << 16)
    assert peak < 3 * ANSWER_BYTES_MAX


def test_an_answer_is_asked_for_as_it_is_and_never_unpacked() -> None:
    """Two megabytes can be two gigabytes: a server that packs all the same is told apart from one that fails."""
    server = Server(1 << 20, {"content-encoding": "gzip"})
    with pytest.raises(Unavailable, match=r"packed \(gzip\), which was not asked for"):
        answer_of(server)
    assert (server.asked, server.taken) == (["identity"], 0)


def test_what_comes_with_a_redirection_is_not_read() -> None:
    """It is followed without a look at its body, as often as said, and to an address only."""
    for place, redirects, expected in (("/there", 1, (200, b"it is here")), ("/there", 0, None)):
        server = Server(0 if expected is None else 1 << 40, {"location": place}, 302)
        assert answer_of(server, redirects) == (expected or (302, b""))
        assert server.taken == 0
    server = Server(0, {"location": "/again"}, 302)
    assert answer_of(server, 5) == (302, b"")
    assert len(server.asked) == 6
    with pytest.raises(Unavailable, match="to no address"):
        answer_of(raising)


def raising(_: httpx2.Request) -> httpx2.Response:
    """Do what looking up a name does that has an empty part."""
    raise UnicodeError("label empty or too long")


@pytest.fixture
def packing() -> Iterator[str]:
    """Serve everything packed, in the face of what is asked for."""
    body = gzip.compress(bytes(1 << 24))

    class Packing(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """Answer."""
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Packing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_commands_say_so(packing: str, capsys: pytest.CaptureFixture[str]) -> None:
    """verify-log ends with 2, since nothing was found out about the log; so does whatever reads leaves."""
    assert verify_log.main([packing]) == 2
    assert "the answer is packed (gzip)" in capsys.readouterr().err
    with closing(HttpSource(packing)) as source, pytest.raises(Unavailable, match="packed"):
        source.read("checkpoint")


# --- slow answers ---------------------------------------------------------------------------------

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"
"""Then something between chunks, which no reader of a body ever sees."""


@contextmanager
def slow(begin: bytes, more: bytes, pause_s: float, end: bytes = b"") -> Iterator[str]:
    """Serve an answer that begins at once, and goes on byte by byte, to its end or, where there is none, for ever."""

    class Slow(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            with suppress(OSError):
                self.wfile.write(begin)
                for byte in chain(more, end or repeat(more[-1])):
                    self.wfile.write(bytes([byte]))
                    time.sleep(pause_s)

    class Server(ThreadingTCPServer):
        daemon_threads, block_on_close = True, False

    with Server(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an answer a fraction of the time that it has, and as little for each byte."""
    monkeypatch.setattr(fetching, "WAIT_S", 0.4)
    monkeypatch.setattr(fetching, "BYTES_PER_S", 100)


@pytest.mark.parametrize(
    ("begin", "more"),
    [(HEADERS, b"x"), (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"), (CHUNKED, b"x"), (b"", b"H")],
    ids=["body", "headers", "between chunks", "status"],
)
@pytest.mark.usefixtures("impatient")
def test_a_server_that_dribbles_keeps_nobody(
    begin: bytes, more: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte after byte, none of them late, wherever in the answer: exit code 2, which file, and what to do instead."""
    with slow(begin, more, 0.05) as url:
        assert verify_log.main([url]) == 2
        said = capsys.readouterr().err
        assert f"{url}/checkpoint: too slow: " in said
        assert "try again later, or copy the files by other means and check that folder" in said
        with closing(HttpSource(url)) as source, pytest.raises(Unavailable, match="too slow: "):
            source.read("checkpoint")


@pytest.mark.usefixtures("impatient")
def test_a_slow_line_that_is_used_well_passes() -> None:
    """What takes longer than the time to begin with is waited for as long as enough of it comes."""
    begin, end = b"HTTP/1.1 200 OK\r\nContent-Length: 1020\r\n\r\n" + bytes(1_000), bytes(10)
    with slow(begin, bytes(10), 0.04, end) as url, closing(HttpSource(url)) as source:
        begun = time.monotonic()
        assert source.read("checkpoint") == bytes(1_020)
        assert time.monotonic() - begun > fetching.WAIT_S
