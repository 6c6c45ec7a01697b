"""The connections of a witness: anybody may open one, so none may hold up the others, nor fill the log.

Each has some seconds to send a whole request, the next one too; who does not is cut off.  There are no more at once
than the open files of the process allow: of those that have no request to be answered, the one that has waited longest
makes room for a new one.  So whoever opens a thousand and is silent holds up only himself.

And what a loop says that can take no more is said once a minute: Python would write it thousands of times a second.

>>> connections_allowed(65_536), connections_allowed(256)
(500, 128)

What is asked on a connection is answered by `tools.witness`.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tools.process import say

REQUEST_S: Final = 10.0
CONNECTIONS_MAX: Final = 500
BACKLOG: Final = 128
"""Connections that wait in the system to be taken; the loop takes as many in one turn, before any can be cut off."""
HEAD_BYTES_MAX: Final = 64 << 10
SAID_EVERY_S: Final = 60.0
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def connections_allowed(files: int) -> int:
    """Return how many connections there may be where a process may open so many files: half are for all else."""
    return min(CONNECTIONS_MAX, max(files // 2, 1))


class Connection(HttpToolsProtocol):
    """A connection that must send a whole request in time, and make room for others."""

    most: ClassVar[int] = CONNECTIONS_MAX
    waiting: ClassVar[dict[Connection, None]] = {}
    """All there are, the one first that has been silent or unfinished for longest."""
    _timer: asyncio.TimerHandle | None = None
    _in_head, _head = True, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; cut off the one that has waited longest if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most:
            next((one for one in self.waiting if not one.asks), self).drop()

    @property
    def asks(self) -> bool:
        """Whether a whole request is here, and its answer is not given yet."""
        cycle: RequestResponseCycle | None = self.cycle  # which is None before the first request
        return cycle is not None and not (cycle.response_complete or cycle.more_body)

    def drop(self) -> None:
        """End this connection now, whatever was still to be sent."""
        self._forget()
        self.connections.discard(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes, but no head of a request that does not end."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD_BYTES_MAX:
                self.drop()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        """End to count them."""
        super().on_headers_complete()
        self._in_head = False

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._forget()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Let what is asked be answered; wait for no request that is not whole."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete:
            self.drop()
        else:
            super().shutdown()

    def _wait(self) -> None:
        self._forget()
        self.waiting[self] = None
        self._timer = self.loop.call_later(REQUEST_S, self._late)

    def _late(self) -> None:
        if self.asks:  # it is our turn, not theirs
            self._wait()
        else:
            self.drop()

    def _forget(self) -> None:
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Calm:
    """What a loop calls with errors that nobody waits for: it says once a minute that it can take no more."""

    def __init__(self) -> None:
        self._next_s = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell the operator, if he has not been told just now."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            loop.default_exception_handler(context)
        elif loop.time() >= self._next_s:
            self._next_s = loop.time() + SAID_EVERY_S
            say(f"witness: no more connections can be taken just now: {error.strerror}; raise `ulimit -n`")
