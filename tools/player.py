"""Sockets around `tools.playback`: play a file at a running server, and go on when the server goes away.

`LoPlayer` holds one WebSocket: one task sends while the window has room, the other takes the answers.
`Poster` sends batches by HTTP, a few requests at a time.  Both try again after pauses that double, until
`Patience` ends.

    await LoPlayer("ws://127.0.0.1:8400/wsapi/in/?ack=1", Playback(lines), witness, patience).run()

A request whose answer was lost is sent again, and so its events may be kept twice, unless they have ids
(`id=$.id`).

The programs are `tools.send` and `tools.demo`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tools.ledger import Witness
from tools.playback import RETRY_STATUS, Line, Playback, Sent, Settled, WrongAnswer, refusal_of, settle

PAUSE_S_MIN, PAUSE_S_MAX = 0.1, 2.0
OPEN_S, CLOSE_S = 10.0, 2.0
CLOSE_TOO_LARGE = 1009
ANSWERED = "HTTP "
"""How a reason begins where there was an answer, though not the one that was wanted."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Wait = Callable[[int], float]
"""Seconds to wait before the event at this position (or, for a batch, before this many events)."""


class GaveUp(Exception):
    """Sending a file has ended before all of it was answered; the message says why."""


class Patience:
    """How long to go on trying: until `give_up_s` after the first of a row of failures, or not at all.

    >>> clock = iter([0.0, 1.0, 9.0, 11.0])
    >>> patience = Patience(10, retry=True, now=lambda: next(clock))
    >>> patience.pause_s("no connection"), patience.pause_s("no connection"), patience.pause_s("HTTP 503")
    (0.1, 0.2, 0.4)
    >>> patience.pause_s("HTTP 503: no space left")
    Traceback (most recent call last):
    tools.player.GaveUp: HTTP 503: no space left; gave up after 10 s of refusals
    """

    def __init__(self, give_up_s: float, *, retry: bool, now: Callable[[], float]) -> None:
        self.give_up_s = give_up_s
        self._retry, self._now = retry, now
        self._since: float | None = None
        self._pause_s = PAUSE_S_MIN

    def succeeded(self) -> None:
        """Something new was answered: the next failure is the first again."""
        self._since, self._pause_s = None, PAUSE_S_MIN

    def pause_s(self, reason: str) -> float:
        """Return how long to wait after a failure; raise GaveUp when it has lasted too long."""
        if not self._retry:
            raise GaveUp(reason)
        now = self._now()
        self._since = now if self._since is None else self._since
        if now - self._since > self.give_up_s:
            how = "of refusals" if reason.startswith(ANSWERED) else "without an answer"
            raise GaveUp(f"{reason}; gave up after {self.give_up_s:g} s {how}")
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_S_MAX)
        return pause_s


class Rate:
    """One speed for all that share it: a reservation returns how long to wait for its turn.

    Who is late may catch up, but at most one second's worth.
    """

    def __init__(self, events_per_s: float, now: Callable[[], float]) -> None:
        self._each_s, self._now = 1 / events_per_s, now
        self._next = now()

    def reserve(self, events: int) -> float:
        """Take the turn of so many events; return the seconds until it comes."""
        now = self._now()
        turn = max(self._next, now - 1)
        self._next = turn + events * self._each_s
        return max(0.0, turn - now)


def at_once(_: int) -> float:
    """Wait for nothing."""
    return 0.0


def is_loopback(url: str) -> bool:
    """Return whether a URL leads to this machine, and so past any proxy."""
    return urlsplit(url).hostname in LOOPBACK


def socket_url(url: str) -> str:
    """Return where a server takes Learning Observer frames and acknowledges them.

    >>> socket_url("https://example.org/treering/")
    'wss://example.org/treering/wsapi/in/?ack=1'
    """
    return "ws" + url.rstrip("/").removeprefix("http") + "/wsapi/in/?ack=1"


class LoPlayer:
    """Plays one file as Learning Observer frames over a WebSocket, with acknowledgements."""

    def __init__(
        self, url: str, playback: Playback, witness: Witness, patience: Patience, wait: Wait = at_once
    ) -> None:
        self._url, self._playback, self._witness = url, playback, witness
        self._patience, self._wait = patience, wait
        self._room = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Send nothing new; `run` ends when what is on its way is answered."""
        self._stop.set()
        self._room.set()

    async def run(self) -> None:
        """Play until every line is answered; raise GaveUp."""
        while not self._over():
            reason = await self._connection()
            if not self._over():
                self._witness.lost(reason)
                await self._sleep(self._patience.pause_s(reason))

    def _over(self) -> bool:
        return self._playback.done or self._stop.is_set()

    async def _connection(self) -> str:
        """Hold one connection, from beginning to end; return why it ended."""
        proxy: Literal[True] | None = None if is_loopback(self._url) else True
        try:
            async with connect(
                self._url, compression=None, open_timeout=OPEN_S, close_timeout=CLOSE_S, proxy=proxy
            ) as socket:
                return await self._converse(socket)
        except InvalidStatus as error:
            status = error.response.status_code
            if status not in RETRY_STATUS | {500}:
                raise GaveUp(f"HTTP {status}: there is no Treering server at {self._url}") from None
            return f"{ANSWERED}{status}"
        except (OSError, InvalidHandshake) as error:  # TimeoutError is an OSError
            return str(error) or "no connection"

    async def _converse(self, socket: ClientConnection) -> str:
        self._playback.connected()
        feeding = asyncio.create_task(self._feed(socket))
        try:
            while not (self._playback.done or (self._stop.is_set() and not self._playback.in_flight)):
                self._take(await self._receive(socket))
            return "done"
        except ConnectionClosed as closed:
            return self._closed(closed)
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await feeding

    async def _feed(self, socket: ClientConnection) -> None:
        while (at := self._playback.upcoming) is not None:
            await self._sleep(self._wait(at))
            while self._playback.full and not self._stop.is_set():
                self._room.clear()
                await self._room.wait()
            if self._stop.is_set():
                break
            sent = self._playback.send()
            self._witness.sent(sent)
            await socket.send(sent.line.data, text=True)
        if not self._playback.in_flight:
            await socket.close()  # wakes who waits for an answer that will not come

    async def _receive(self, socket: ClientConnection) -> str | bytes:
        """Return the next message; raise GaveUp if an answer is owed for too long."""
        while True:
            owed = self._playback.in_flight > 0
            try:
                async with asyncio.timeout(self._patience.give_up_s):
                    return await socket.recv()
            except TimeoutError:
                if owed:
                    raise GaveUp(f"no answer for {self._patience.give_up_s:g} s") from None

    def _take(self, message: str | bytes) -> None:
        try:
            settled = self._playback.answer(message)
        except WrongAnswer as error:
            raise GaveUp(str(error)) from None
        if settled is not None:
            self._witness.settled(settled)
            if not settled.repeated:
                self._patience.succeeded()
            self._room.set()

    def _closed(self, closed: ConnectionClosed) -> str:
        code = closed.rcvd.code if closed.rcvd else None
        if code == CLOSE_TOO_LARGE and (settled := self._playback.refuse_largest()):
            self._witness.settled(settled)
            self._patience.succeeded()
        return "the connection broke" if code is None else f"the connection was closed ({code})"

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stop.wait()


class Poster:
    """Sends batches by POST /v1/events, `requests` of them at a time, which may overtake each other."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        url: str,
        parameters: Sequence[tuple[str, str]],
        batches: Iterator[list[Line]],
        witness: Witness,
        patience: Callable[[], Patience],
        wait: Callable[[list[Line]], float] = lambda _: 0.0,
        requests: int = 2,
    ) -> None:
        self._client, self._url, self._parameters = client, url, tuple(parameters)
        self._batches, self._witness, self._wait = batches, witness, wait
        self._patience, self._requests = patience, requests
        self._given_up = False

    async def run(self) -> None:
        """Send every batch until each of its lines is answered; raise GaveUp."""
        ends = await asyncio.gather(*(self._work() for _ in range(self._requests)), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    async def _work(self) -> None:
        patience = self._patience()
        for batch in self._batches:
            await asyncio.sleep(self._wait(batch))
            pending = batch
            while pending and not self._given_up:
                try:
                    pending = await self._post(pending, patience)
                except GaveUp:
                    self._given_up = True
                    raise
            if self._given_up:
                return

    async def _post(self, lines: list[Line], patience: Patience) -> list[Line]:
        """Send lines; return those to be sent again, after a pause."""
        settled, reason = await self._answers(lines)
        for one in settled:
            if one is not None:
                self._witness.settled(one)
        again = [line for line, one in zip(lines, settled, strict=True) if one is None]
        if len(again) < len(lines):
            patience.succeeded()
        if again:
            self._witness.lost(reason)
            await asyncio.sleep(patience.pause_s(reason))
        return again

    async def _answers(self, lines: list[Line]) -> tuple[list[Settled | None], str]:
        for line in lines:
            self._witness.sent(Sent(line))
        body = b"\n".join(line.data for line in lines) + b"\n"
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            response = await self._client.post(
                self._url, params=self._parameters, content=body, headers=headers
            )
        except httpx2.TransportError as error:
            return [None] * len(lines), str(error) or type(error).__name__
        why = refusal_of(response.content)
        reason = f"{ANSWERED}{response.status_code}{why and f': {why}'}"
        return settle(lines, response.status_code, response.content), reason
