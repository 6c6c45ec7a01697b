"""Files of a log, fetched from a server that nobody trusts: it can take neither our memory nor our time.

An answer is bounded in bytes, since no file of a log is longer, and in time: it may take `WAIT_S`, and a second more
for each `BYTES_PER_S` that came.  Where silence alone is bounded, a byte now and then holds an auditor for ever; where
all of it is, a slow line that is used well passes.  It is the time of looking up the name, headers, redirections, body.

    with closing(Fetcher(tries=3)) as fetcher:
        checkpoint, tile = fetcher.get(["https://log.example/checkpoint", "https://log.example/tile/0/000"])

Only a loop of events can give up whatever it is that takes so long, so one runs here; whoever calls just waits.  What
the files are good for: `tools.leaves`, `tools.verify_public`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import httpx2

from archive import NotFound, Unavailable

ANSWER_BYTES_MAX: Final = 17 << 20
"""No file of a log is longer: a bundle holds at most 256 entries of 64 KiB."""
AT_ONCE: Final = 8
WAIT_S = 30.0
BYTES_PER_S = 4_096
"""Of one answer of eight that share a line; tiles and bundles, of 8 and 15 KiB, take less than `WAIT_S` on any."""
_INSTEAD = "try again later, or copy the files by other means and check that folder"


class Fetcher:
    """Fetches files, some at once; follows so many redirections, and asks so often where a server fails.

    To be closed.  What is slow is tried again like what fails: a line may falter once.
    """

    def __init__(
        self, *, redirects: int = 0, tries: int = 1, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._redirects, self._tries = redirects, tries
        self._client = httpx2.AsyncClient(timeout=WAIT_S, transport=transport)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._runner = asyncio.Runner()

    def get(self, urls: Sequence[str]) -> list[bytes | None]:
        """Return the content of each, None where there is nothing; raise Unavailable if one cannot be had."""
        return self._runner.run(self._all(urls))

    def close(self) -> None:
        """Give up all connections."""
        with self._runner:
            self._runner.run(self._client.aclose())

    async def _all(self, urls: Sequence[str]) -> list[bytes | None]:
        return await asyncio.gather(*map(self._one, urls))

    async def _one(self, url: str) -> bytes | None:
        failure = ""
        async with self._room:
            for attempt in range(1, self._tries + 1):
                try:
                    status, content = await fetched(self._client, url, self._redirects)
                except httpx2.HTTPError as error:
                    failure = str(error) or type(error).__name__
                else:
                    if status == httpx2.codes.OK:
                        return content
                    if status == httpx2.codes.NOT_FOUND:
                        return None
                    failure = f"status {status}"
                if attempt < self._tries:
                    await asyncio.sleep(0.2 * attempt)
        raise Unavailable(f"{url}: {failure}; {_INSTEAD}")


async def fetched(client: httpx2.AsyncClient, url: str, redirects: int = 0) -> tuple[int, bytes]:
    """Return status and content of an answer, wherever the server sends us on to, at most so many times.

    Raises Unavailable if the answer is longer than a log's files are, packed all the same, or nowhere, and what httpx2
    raises: ReadTimeout also where an answer takes longer than it may.
    """
    loop, content = asyncio.get_running_loop(), bytearray()
    begun = loop.time()
    try:
        async with asyncio.timeout(WAIT_S) as limit:
            async with aclosing(await _answer(client, url, redirects)) as response:
                _refuse_packed(response, url)
                async for piece in response.aiter_raw():
                    content += piece
                    _refuse_long(content, url)
                    limit.reschedule(begun + WAIT_S + len(content) / BYTES_PER_S)
                return response.status_code, bytes(content)
    except (TimeoutError, httpx2.TimeoutException):
        slow = f"too slow: {len(content):,} bytes in {loop.time() - begun:.1f} s"
        raise httpx2.ReadTimeout(slow) from None


async def _answer(client: httpx2.AsyncClient, url: str, redirects: int) -> httpx2.Response:
    """Return the answer that redirections lead to, of which headers are read only."""
    # Packed, two megabytes can be two gigabytes.
    request = client.build_request("GET", url, headers={"Accept-Encoding": "identity"})
    while True:
        try:
            # Not followed by the client: that would read what comes with the redirection, and unpack it.
            response = await client.send(request, stream=True, follow_redirects=False)
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise Unavailable(f"{url}: the server sends on to no address: {error}") from error
        if response.next_request is None or not redirects:
            return response
        await response.aclose()
        request, redirects = response.next_request, redirects - 1


def _refuse_packed(response: httpx2.Response, url: str) -> None:
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed not in {"", "identity"}:
        raise Unavailable(f"{url}: the answer is packed ({packed[:20]}), which was not asked for")


def _refuse_long(content: bytearray, url: str) -> None:
    if len(content) > ANSWER_BYTES_MAX:
        raise Unavailable(
            f"{url}: the answer is longer than {ANSWER_BYTES_MAX:,} bytes, which no file of a log is"
        )


def address(url: str) -> str:
    """Return a server's address without a slash at its end; raise NotFound if it is none.

    >>> address("http://127.0.0.1:8400/")
    'http://127.0.0.1:8400'
    """
    try:
        host = httpx2.URL(url).host
        host.encode("idna")  # as the system does before it looks the name up
        is_one = bool(host)
    except (httpx2.InvalidURL, ValueError):  # the latter for names that cannot be looked up
        is_one = False
    if not is_one:
        raise NotFound(f"{url}: not an address; give one such as http://127.0.0.1:8400")
    return url.rstrip("/")
