"""What is asked of the WebSocket library beyond what it does: text as the bytes it is, and answers in company.

**Text as bytes.**  RFC 6455 lets a server fail a connection whose text frame is not UTF-8.  Then one bad frame would
lose all that stand behind it.  Here such a frame reaches the application, which keeps it as refused and answers.

**Answers in company.**  A commit acknowledges hundreds of frames at once.  Each would be a system call of its own
(measured: a seventh of the front's time); so what is sent within one turn of the event loop leaves as one write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent


class RawTextProtocol(WebSocketsSansIOProtocol):
    """Delivers text frames undecoded: {"bytes": ..., "opcode": "text"}; gathers what is sent in one turn."""

    _gathering = False

    def send_receive_event_to_app(self) -> None:
        """Queue a received message for the application."""
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
