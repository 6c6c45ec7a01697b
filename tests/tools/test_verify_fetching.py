"""What a server may answer to somebody who checks its log: nothing fills his memory, and a refusal has words."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from archive import Unavailable
from tools import verify_log
from tools.leaves import ANSWER_BYTES_MAX, HttpSource, fetched

URL = "http://log.example/checkpoint"


class Server:
    """A server in memory; counts what is taken from it."""

    def __init__(self, size: int, headers: dict[str, str], status: int = 200) -> None:
        self.taken, self._size, self._headers, self._status = 0, size, headers, status
        self.asked = list[str]()

    def pieces(self) -> Iterator[bytes]:
        """Yield the body, a piece at a time."""
        for _ in range(0, self._size, 1 << 16):
            self.taken += 1 << 16
            yield bytes(1 << 16)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        self.asked.append(request.headers["accept-encoding"])
        if request.url.path == "/there":
            return httpx2.Response(200, content=iter([b"it is here"]))
        return httpx2.Response(self._status, headers=self._headers, content=self.pieces())

    def client(self) -> httpx2.Client:
        """Return what talks to it."""
        return httpx2.Client(transport=httpx2.MockTransport(self))


def test_an_answer_without_end_is_given_up() -> None:
    """No file of a log is longer than 17 MiB: what goes on is not read, and not kept."""
    server = Server(1 << 40, {})
    tracemalloc.start()
    with server.client() as client, pytest.raises(Unavailable, match="longer than 17,825,792 bytes"):
        fetched(client, URL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert server.taken <= ANSWER_BYTES_MAX + (1 << 16)
    assert peak < 3 * ANSWER_BYTES_MAX


def test_an_answer_is_asked_for_as_it_is_and_never_unpacked() -> None:
    """Two megabytes can be two gigabytes: a server that packs all the same is told apart from one that fails."""
    server = Server(1 << 20, {"content-encoding": "gzip"})
    with (
        server.client() as client,
        pytest.raises(Unavailable, match=r"packed \(gzip\), which was not asked for"),
    ):
        fetched(client, URL)
    assert (server.asked, server.taken) == (["identity"], 0)


def test_what_comes_with_a_redirection_is_not_read() -> None:
    """It is followed without a look at its body, as often as said, and to an address only."""
    for place, redirects, expected in (("/there", 1, (200, b"it is here")), ("/there", 0, None)):
        server = Server(0 if expected is None else 1 << 40, {"location": place}, 302)
        with server.client() as client:
            answer = fetched(client, URL, redirects)
        assert answer == (expected or (302, b""))
        assert server.taken == 0
    server = Server(0, {"location": "/again"}, 302)
    with server.client() as client:
        assert fetched(client, URL, 5) == (302, b"")
    assert len(server.asked) == 6
    lost = httpx2.Client(transport=httpx2.MockTransport(lambda _: raising()))
    with lost, pytest.raises(Unavailable, match="to no address"):
        fetched(lost, URL)


def raising() -> httpx2.Response:
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
    with pytest.raises(Unavailable, match="packed"):
        HttpSource(packing).read("checkpoint")
