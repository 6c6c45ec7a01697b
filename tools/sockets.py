"""What is asked of the WebSocket library beyond what it does: text as bytes, answers in company, bounded memory.

**Text as bytes.**  RFC 6455 lets a server fail a connection whose text frame is not UTF-8.  Then one bad frame would
lose all that stand behind it.  Here such a frame reaches the application, which keeps it as refused and answers.

**Answers in company.**  A commit acknowledges hundreds of frames at once.  Each would be a system call of its own
(measured: a seventh of the front's time); so what is sent within one turn of the event loop leaves as one write.

**Bounded memory.**  A frame is in memory while it arrives.  One is bounded; but many connections that each begin a
large one and never end it would take whatever there is.  So all unfinished frames of a front share one budget (as
bodies of requests do, `api.bodies`), and each has to arrive within its time; who goes beyond is told to come again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

TOTAL_SIZE_MAX: Final = 96 << 20
SPARED_SIZE: Final = 64 << 10
ARRIVAL_S_MAX: Final = 120.0


class Unfinished:
    """How many bytes of frames are there that have not arrived whole.

    >>> budget = Unfinished(total_max=100, spared=10)
    >>> budget.change(0, 90), budget.change(0, 20), budget.change(20, 0), budget.change(0, 10), budget.size
    (True, False, True, True, 100)
    """

    def __init__(self, total_max: int = TOTAL_SIZE_MAX, spared: int = SPARED_SIZE) -> None:
        self._total_max, self._spared = total_max, spared
        self.size = 0

    def change(self, before: int, after: int) -> bool:
        """Let one connection hold `after` bytes instead of `before`; return whether there is room for that.

        A small frame is always let in: it is not what fills the memory.
        """
        self.size += after - before
        return self.size <= self._total_max or after <= self._spared


class RawTextProtocol(WebSocketsSansIOProtocol):
    """Delivers text frames undecoded: {"bytes": ..., "opcode": "text"}; gathers what is sent in one turn."""

    unfinished: ClassVar[Unfinished] = Unfinished()
    """Of all connections of this process."""
    _gathering = False
    _held, _since = 0, 0.0
    _looking: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes; hold what is no whole message yet against the budget of all."""
        super().data_received(data)
        self._hold(len(self.conn.reader.buffer) + sum(map(len, self.frames)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what this connection held."""
        self._hold(0)
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _hold(self, size: int) -> None:
        within = self.unfinished.change(self._held, size)
        if size and not self._held:
            self._since = self.loop.time()
        self._held = size
        if size and self._looking is None:
            self._looking = self.loop.call_later(ARRIVAL_S_MAX, self._look)
        if not within:
            self._refuse()

    def _look(self) -> None:
        """End a connection of which no message has become whole for long, though one has begun."""
        self._looking = None
        left_s = self._since + ARRIVAL_S_MAX - self.loop.time()
        if self._held and left_s > 0:
            self._looking = self.loop.call_later(left_s, self._look)
        elif self._held:
            self._refuse()

    def _refuse(self) -> None:
        """End a connection whose frame does not get on, or for which there is no room: what is whole is kept."""
        if not (self.close_sent or self.disconnected):
            self.conn.fail(CloseCode.TRY_AGAIN_LATER, "too many large frames at once, or too slow")
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Queue a received message for the application."""
        self._since = self.loop.time()
        if self.curr_msg_data_type != "text" or self.close_sent:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        message: Any = {"type": "websocket.receive", "bytes": bytes(data), "opcode": "text"}
        self.queue.put_nowait(message)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message; a text frame waits for the end of this turn of the loop."""
        text = message.get("text") if message["type"] == "websocket.send" else None
        plain = self.handshake_complete and not (self.close_sent or self.disconnected)
        if not isinstance(text, str) or not plain or not self.writable.is_set():
            await super().send(message)
            return
        self.conn.send_text(text.encode())
        if not self._gathering:
            self._gathering = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._gathering = False
        output = self.conn.data_to_send()
        if output and not self.transport.is_closing():
            self.transport.write(b"".join(output))
