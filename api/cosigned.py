"""The log as the outside sees it: all that is published, or, with a policy, what enough witnesses have cosigned.

    without a policy      /log shows the newest checkpoint, and every tile and entry under it
    with one              /log shows the newest checkpoint that met the policy, and nothing beyond

Whoever reads /log/checkpoint then holds cosignatures that nobody can have got for another history of the same log.
States and what is read under /v1 do not wait for witnesses; a receipt that is asked for later carries the cosignatures,
too.  Acknowledgements wait only if that is configured: then the front submits through a `WitnessedClient`.

When a checkpoint has met the policy: `archive.witnessing`.  Who asks the witnesses: `tools.witnessing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from api.problems import Unwitnessed
from api.services import Services
from archive import (
    Answer,
    ArchiverClient,
    Log,
    NotFound,
    Prover,
    Receipt,
    Submission,
    Unavailable,
    shown_outside,
)
from merkle import TlogProof

WAIT_S: Final = 30.0
POLL_S: Final = 0.02
AGAIN: Final = "send it again with its id, and wait again"
NOT_AGAIN: Final = (
    "do not send it again, since what has no id would be a second event; "
    "once they have, it is seen as every other is"
)

Answers = asyncio.Future[list[Answer]]


def outside(services: Services) -> AbstractContextManager[Log]:
    """Return the log up to the size that the outside may see; raise NotFound while that is nothing."""
    return services.log(_shown(services)[0] if services.policy is not None else None)


def outside_checkpoint(services: Services) -> bytes:
    """Return the signed checkpoint that the outside may see; raise NotFound while there is none."""
    return _shown(services)[1]


def witnessed_receipt(services: Services, index: int) -> TlogProof | None:
    """Return the receipt of an entry under the cosigned checkpoint, or None where that does not cover it (yet)."""
    if services.policy is None:
        return None
    try:
        size, note = _shown(services)
    except NotFound:
        return None
    with services.log() as log:
        return replace(Prover(log).receipt(index, size), checkpoint=note) if index < size else None


def cosigned_size(services: Services) -> int:
    """Return the size that the outside may see, 0 while that is nothing."""
    try:
        return _shown(services)[0]
    except (NotFound, Unavailable):
        return 0


class _Held(NamedTuple):
    size: int
    answers: list[Answer]
    told: Answers
    deadline: float
    again: bool
    """Whether it may be sent again when that is over."""


class WitnessedClient(ArchiverClient):
    """An archiver's client that tells an answer only when the outside may see what it speaks of.

    Meanwhile everything is kept as ever, and later submissions go on.  Where witnesses take longer than `WAIT_S`, the
    answer is `Unwitnessed`: kept, but not witnessed; whoever sends again with the same id waits again, and who has
    given none must not send again.  Frames of a connection have no ids, and whoever sent them sends them again when it
    closes: so they wait for as long as it takes (their connection reads no further, `api.lo_socket`).  `seen` gives
    the cosigned size.
    """

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.seen: Callable[[], int] = int
        self._held: list[_Held] = []
        self._releasing: asyncio.Task[None] | None = None

    def submit(self, submissions: Sequence[Submission]) -> Answers:
        """Send submissions; as `ArchiverClient.submit`, but the future waits for witnesses."""
        told: Answers = asyncio.get_running_loop().create_future()
        again = all(one.id is not None for one in submissions)
        limit_s = inf if any("conn" in one.extra for one in submissions) else WAIT_S
        super().submit(submissions).add_done_callback(lambda kept: self._hold(kept, told, again, limit_s))
        return told

    def _hold(self, kept: Answers, told: Answers, again: bool, limit_s: float) -> None:
        if told.done() or kept.cancelled():
            return
        if (error := kept.exception()) is not None:
            _fail(told, error)
            return
        answers = kept.result()
        size = max((one.size for one in answers if isinstance(one, Receipt)), default=0)
        loop = asyncio.get_running_loop()
        self._held.append(_Held(size, answers, told, loop.time() + limit_s, again))
        if self._releasing is None or self._releasing.done():
            self._releasing = loop.create_task(self._release())

    async def _release(self) -> None:
        while self._held:
            size, now = self.seen(), asyncio.get_running_loop().time()
            held, self._held = self._held, []
            for one in held:
                if one.told.done():
                    continue
                if one.size <= size:
                    one.told.set_result(one.answers)
                elif now > one.deadline:
                    _fail(one.told, unwitnessed(again=one.again))
                else:
                    self._held.append(one)
            if self._held:
                await asyncio.sleep(POLL_S)


def unwitnessed(*, again: bool) -> Unwitnessed:
    """Return the error of what is kept and not cosigned in time, which may be sent again if it has an id."""
    what = AGAIN if again else NOT_AGAIN
    return Unwitnessed(f"kept, but witnesses have not cosigned it yet; {what}", again=again)


def _fail(future: Answers, error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # the sender may have gone; an error nobody reads is not worth a log line


def _shown(services: Services) -> tuple[int, bytes]:
    with services.log() as log:
        return shown_outside(log, services.folder.cosigned, services.policy)
