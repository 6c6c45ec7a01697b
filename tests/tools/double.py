"""A server double for senders: it acknowledges as told, and breaks off as told.

    async with double([Break(received=5, answered=3, code=1012)]) as server:
        ...                                # the first connection ends so, the others are served

It speaks the protocol through `api.lo`, so that its answers are those of the real server, and remembers what
it received and what it answered.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from api.lo import Connection
from tools.ledger import FileWitness, Tally
from tools.playback import Line


@dataclass(frozen=True)
class Break:
    """How a connection ends: after so many frames, so many of them answered, by a close or (0) by force."""

    received: int
    answered: int
    code: int = 0


@dataclass
class Double:
    """What the double has seen: frames, and answers by frame number, of each connection."""

    script: Sequence[Break]
    received: list[list[bytes]] = field(default_factory=list)
    answers: list[dict[int, int]] = field(default_factory=list)
    size: int = 0
    silent: bool = False
    hold: int = 1
    """Answers come when so many frames wait for one."""
    waiting_max: int = 0
    url: str = ""

    async def serve(self, socket: ServerConnection) -> None:
        """Serve one connection by the script."""
        number = len(self.received)
        end = self.script[number] if number < len(self.script) else None
        self.received.append([])
        self.answers.append({})
        try:
            await self._frames(socket, number, end)
        except ConnectionClosed:
            return
        if end is not None and end.code:
            await socket.close(end.code)
        elif end is not None:
            socket.transport.abort()

    async def _frames(self, socket: ServerConnection, number: int, end: Break | None) -> None:
        lo, replies = Connection(number.to_bytes(8, "big")), list[list[str]]()
        while end is None or len(self.received[number]) < end.received:
            frame = await socket.recv(decode=False)
            at = len(self.received[number])
            self.received[number].append(frame)
            step = lo.frame(frame, True, 1_000_000)
            status = {"status": "refused", "reason": step.refused} if step.refused else {"status": "ack"}
            answer = {**status, "frame": at, "index": self.size, "size": self.size + 1}
            self.answers[number][at] = self.size  # taken back if it is never sent
            self.size += len(step.submissions)
            replies.append([json.dumps(reply) for reply in (*step.replies, answer)])
            self.waiting_max = max(self.waiting_max, len(replies))
            if end is None and len(replies) >= self.hold and not self.silent:
                await self._send(socket, replies)
            if step.close:
                await self._send(socket, replies)
                await socket.close(1000)
                return
        for at in range(end.answered, end.received):
            del self.answers[number][at]
        await self._send(socket, replies[: end.answered])

    async def _send(self, socket: ServerConnection, replies: list[list[str]]) -> None:
        for reply in replies:
            for message in reply:
                await socket.send(message)
        replies.clear()


@asynccontextmanager
async def double(
    script: Sequence[Break] = (), *, max_size: int = 1 << 20, silent: bool = False, hold: int = 1
) -> AsyncIterator[Double]:
    """Run a double on a free port of loopback."""
    state = Double(script, silent=silent, hold=hold)
    async with serve(
        state.serve, "127.0.0.1", 0, max_size=max_size, close_timeout=1, compression=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        state.url = f"http://127.0.0.1:{port}"
        yield state


def lines(*frames: bytes) -> list[Line]:
    """Frames as the lines of a file."""
    return [Line(number, frame) for number, frame in enumerate(frames, 1)]


def events(count: int, *, first: bytes = b'{"event":"hello","user_id":"ann"}') -> list[Line]:
    """So many frames, the first of which says who it is."""
    return lines(first, *(b'{"event":"key","n":%d}' % n for n in range(1, count)))


@dataclass
class Book:
    """A ledger in memory, with the tally that goes with it."""

    tally: Tally = field(default_factory=Tally)
    written: list[bytes] = field(default_factory=list)

    def witness(self) -> FileWitness:
        """A witness that writes into this book."""
        return FileWitness(self.tally, "a.jsonl", write=self.written.append)

    def records(self, kind: str) -> list[dict[str, object]]:
        """The records that say "sent", "acked" or "refused", in order."""
        return [record for line in self.written if kind in (record := json.loads(line))]
