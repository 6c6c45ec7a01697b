"""Request bodies, taken in within bounds: of size, of time, and of all of them together.

A body is in memory while it arrives, is read and waits for its commit.  So there is one budget for all bodies of a
front: what would go beyond it is answered 503, at once, rather than taken until the machine has no memory left.

>>> budget = Bodies(total_max=10)
>>> budget.take(8)
>>> budget.take(8)
Traceback (most recent call last):
archive.errors.Unavailable: too many large requests at once; try again shortly
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from api.problems import Problem
from archive import Unavailable

BODY_SIZE_MAX = 32 << 20
"""As large as the largest payload, so that a body which cannot be taken apart can still be kept whole."""
TOTAL_SIZE_MAX = 192 << 20
ARRIVAL_S_MAX = 120.0


class Bodies:
    """The bodies that a front holds just now."""

    def __init__(self, total_max: int = TOTAL_SIZE_MAX) -> None:
        self._total_max = total_max
        self.size = 0

    def take(self, size: int) -> None:
        """Take so many bytes of the budget; raise Unavailable if they are not there."""
        if self.size + size > self._total_max:
            raise Unavailable("too many large requests at once; try again shortly")
        self.size += size

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Read a request's body and hold its part of the budget until the context ends.

        Raises Problem if it is too large or arrives too slowly, Unavailable beyond the budget.
        """
        body = bytearray()
        taken = 0
        try:
            async with asyncio.timeout(ARRIVAL_S_MAX):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > BODY_SIZE_MAX:
                        raise Problem(
                            413, "Request too large", f"at most {BODY_SIZE_MAX} bytes in one request"
                        )
                    self.take(len(chunk))
                    taken += len(chunk)
                    body += chunk
            yield bytes(body)
        except TimeoutError:
            raise Problem(408, "Request too slow", f"the body took more than {ARRIVAL_S_MAX:.0f} s") from None
        except ClientDisconnect:
            raise Problem(400, "Request ended", "the connection ended within the body") from None
        finally:
            self.size -= taken
