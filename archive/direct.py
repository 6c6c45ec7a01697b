"""The archiver, asked by a program that has no event loop: a worker, a command.

One question at a time, and a bounded wait for its answer.  After any trouble the connection is closed, and the next
question opens another.  A question that was cut off is none: nothing of it is kept, and `Unavailable` says so.  What
was sent whole may be kept or not: that is `Unknown`, and a caller that asks again sends entries with an id, or control
entries that may stand twice.

    with DirectClient(folder.socket) as client:
        client.steer(Skip("inverse", 7))

The client of the front, which has many questions under way, is `archive.client`; the messages are in `archive.wire`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from archive.errors import FormatError, InvalidEvent, Unavailable, Unknown
from archive.steering import Steering, steering_body
from archive.wire import (
    BACK,
    Answer,
    Append,
    Appended,
    Published,
    Receipt,
    Refusal,
    Request,
    Steer,
    Submission,
    Subscribe,
    decode_frames,
    encode_frame,
)

WAIT_S = 10.0
_PIECE = 1 << 16
_Reply = TypeVar("_Reply", Appended, Published)


class DirectClient:
    """One connection, opened when first needed."""

    def __init__(self, path: Path, wait_s: float = WAIT_S) -> None:
        self._path, self._wait_s = str(path), wait_s
        self._socket: socket.socket | None = None
        self._ticket = 0

    def __enter__(self) -> DirectClient:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def append(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Return one answer for each submission; raise Unavailable, or Unknown if none comes in time."""
        self._ticket += 1
        return self._ask(Append(self._ticket, list(submissions)), Appended).answers

    def steer(self, steering: Steering) -> Receipt:
        """Append a control entry and return its receipt; raise as `append` does, or InvalidEvent if it is refused."""
        self._ticket += 1
        (answer,) = self._ask(Steer(self._ticket, steering_body(steering)), Appended).answers
        if isinstance(answer, Refusal):
            raise (Unavailable if answer.reason == "unavailable" else InvalidEvent)(answer.detail)
        return answer

    def published(self) -> int:
        """Return how much of the log the archiver says is published; raise Unavailable if it does not answer.

        It answers at once whatever it is committing, so silence means that its process does not run: stopped, hung.
        """
        with DirectClient(
            Path(self._path), self._wait_s
        ) as other:  # wake-ups follow, which nobody here would read
            return other._ask(Subscribe(), Published).size

    def close(self) -> None:
        """Close the connection; closing twice is allowed."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: Request, kind: type[_Reply]) -> _Reply:
        connection, buffer = self._sent(encode_frame(request)), bytearray()
        try:
            while True:
                piece = connection.recv(_PIECE)
                if not piece:
                    raise ConnectionResetError("the archiver closed the connection")
                buffer += piece
                for message in decode_frames(buffer, BACK)[0]:
                    if isinstance(message, kind) and getattr(message, "ticket", self._ticket) == self._ticket:
                        return message
        except (OSError, FormatError) as error:
            self.close()
            raise Unknown(
                f"the archiver gives no answer ({error}); what was sent may be kept or not: look before you repeat it"
            ) from None

    def _sent(self, frame: bytes) -> socket.socket:
        """Return the connection over which a whole frame was sent."""
        try:
            connection = self._connected()
            connection.sendall(frame)
        except OSError as error:
            self.close()
            raise Unavailable(f"the archiver takes no questions ({error}); try again shortly") from None
        return connection

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(self._wait_s)
            try:
                made.connect(self._path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket
