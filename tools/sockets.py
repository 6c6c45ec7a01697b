"""The one thing asked of the WebSocket library beyond what it does: hand us text frames as the bytes they
are.

RFC 6455 lets a server fail a connection whose text frame is not UTF-8.  Then one bad frame would lose all
that stand behind it.  Here such a frame reaches the application, which keeps it as refused and answers.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class RawTextProtocol(WebSocketsSansIOProtocol):
    """Delivers text frames undecoded: {"bytes": ..., "opcode": "text"}."""

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
