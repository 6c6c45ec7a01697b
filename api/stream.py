"""Live: GET /v1/states/{reducer}/stream, changes as server-sent events.

    $ curl -N 'http://127.0.0.1:8400/v1/states/event_count/stream?student=ann'
    event: state
    data: {"key":{"student":"ann"},"state":{"events":3},"position":7}

    id: 7.22f0cc4296c7f785
    event: position
    data: {"position":7}

One key, all keys that begin alike (a class, where the scope begins with it), or all of a reducer.  First comes what
there is, then what changes.  A `position` closes each group and carries the id: whoever comes back with it as
`Last-Event-ID` (browsers do) gets every state that changed since, some perhaps twice, none never.  The id is the
position, and what these states are: after an upgrade, and after they were made anew, everything is sent again.

A key that has no state any more (its only event was skipped) is `removed`; one of several hundred bytes is not named.

While there is no answer, `rebuilding` says so once, with the reason; what changed meanwhile comes as soon as there is.

States are read from the store, never pushed by a worker; a reader who is slow gets fewer and newer states, and holds up
nobody.  Readers who have seen the same share one look.

What changed since when: `replay.reader`.  Answers at one moment: `api.states`.
"""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator, Iterable
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from api.problems import Problem
from api.services import Services
from api.states import key_of_query, state_json
from archive import NotFound, Unavailable
from reducers import Key
from replay import ReducerInfo, after, key_in

POLL_S = 0.05
QUIET_S = 5.0
"""How often a stream in which nothing changes says where it stands."""
ROWS, LOOK_BYTES = 500, 1 << 20
"""How much is looked at in one turn; a look ends with the state that fills it."""
STREAMS_MAX = 1_000
SAID_EVERY_S = 60.0
"""How often the operator is told, at most, that streams cannot be answered."""
LOOKS_MAX, LOOKS_BYTES_MAX = 1_000, 32 << 20
"""What is remembered of looks, for those who stand at the same point."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_ID = re.compile(r"([0-9]{1,18})(?:\.([0-9a-f]{16}))?")


class Look(NamedTuple):
    """What one shard has new after some point."""

    beginning: str
    """Which states these are: their generation, and how large the log was when they were begun."""
    position: int
    rows: list[tuple[Key | None, bytes]]
    """(key, event) in the order of their saves; None: a key that is too long to be told."""
    next: bytes
    more: bool


class Hub:
    """Looks at the states for all streams: those who stand at the same point share what is found."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looks: dict[tuple[str, int, bytes], tuple[float, Look]] = {}
        self._bytes = 0
        self._said_at = float("-inf")
        self.streams = 0

    def look(self, name: str, shard: int, start: bytes, now: float) -> Look:
        """Return what there is after `start`; raise Unavailable while the states are being rebuilt.

        `now` is in seconds; what was found less than 50 ms ago counts as now.
        """
        known = self._looks.get((name, shard, start))
        if known is not None and now - known[0] < POLL_S:
            return known[1]
        try:
            look = self._new(name, shard, start)
        except OSError as error:  # no file or no memory left, perhaps for a moment: that ends no stream
            raise self._refused(error, now) from None
        if len(self._looks) >= LOOKS_MAX or self._bytes > LOOKS_BYTES_MAX:
            self._looks.clear()
            self._bytes = 0
        self._looks[name, shard, start] = (now, look)
        self._bytes += sum(len(event) for _, event in look.rows)
        return look

    def _refused(self, error: OSError, now: float) -> Unavailable:
        """Return what readers are told of what the system refused; the operator is told now and then, not each time."""
        if now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            self._services.say(f"front: streams wait, states cannot be read just now: {error}")
        return Unavailable(f"states cannot be read just now: {error.strerror or 'the system refuses it'}")

    def _new(self, name: str, shard: int, start: bytes) -> Look:
        self._services.check()
        info, reader, generation = self._services.shelf.standing(name, shard)
        try:
            changes = reader.following(name, start, ROWS, LOOK_BYTES)
        except NotFound as error:
            raise Unavailable(str(error)) from None
        rows = [
            (slot.key, _event("state", {**state_json(info, slot), "position": changes.position}))
            if slot is not None
            else _removed(info, key_in(data), changes.position)
            for data, slot in changes.rows
        ]
        beginning = f"{generation} {changes.begun}"
        return Look(beginning, changes.position, rows, changes.next, changes.more)


def router(services: Services) -> APIRouter:
    """Return the route of streams."""
    routes, hub = APIRouter(prefix="/v1/states", tags=["states"]), Hub(services)

    @routes.get("/{name}/stream", summary="Changes of states, as server-sent events")
    async def get_stream(name: str, request: Request) -> StreamingResponse:
        _, info = services.shelf.find(name)
        prefix, begin = key_of_query(info, request), _begin(request)
        most = streams_allowed(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        if hub.streams >= most:
            raise Unavailable(f"{most:,} streams are open already; try again later, or ask for states")
        events = _events(services, hub, info, prefix, begin)
        return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)

    return routes


def streams_allowed(files: int) -> int:
    """Return how many streams there may be where a process may open so many files: half are for all else.

    >>> streams_allowed(65_536), streams_allowed(1_024), streams_allowed(resource.RLIM_INFINITY)
    (1000, 512, 1000)
    """
    return STREAMS_MAX if files == resource.RLIM_INFINITY else min(STREAMS_MAX, files // 2)


def _begin(request: Request) -> tuple[int, str | None] | None:
    """Return (position, which states) after which a reader goes on, or None if he has seen nothing."""
    text = request.headers.get("last-event-id", "")
    if not text:
        return None
    match = _ID.fullmatch(text)
    if match is None:
        raise Problem(
            400, "Malformed header", "Last-Event-ID: pass on the id of the last event, or leave it out"
        )
    return int(match[1]), match[2]


async def _events(
    services: Services, hub: Hub, info: ReducerInfo, prefix: Key, begin: tuple[int, str | None] | None
) -> AsyncIterator[bytes]:
    hub.streams += 1
    try:
        stream = _Stream(services, hub, info, prefix, begin)
        while not services.leaving():
            now = asyncio.get_running_loop().time()
            if text := await services.read(partial(stream.step, now)):
                yield text
            await asyncio.sleep(0 if stream.more else POLL_S)
    finally:
        hub.streams -= 1


class _Stream:
    """One reader: where he stands in each shard."""

    def __init__(
        self,
        services: Services,
        hub: Hub,
        info: ReducerInfo,
        prefix: Key,
        begin: tuple[int, str | None] | None,
    ) -> None:
        self._hub, self._name, self._prefix, self._begin = hub, info.name, prefix, begin
        self._shards = range(services.shelf.shards)
        if len(prefix) == len(info.scope):  # one key lies in one shard, and waits for no other
            home = services.shelf.home(info, prefix, services.vault.route_key)
            self._shards = range(home, home + 1)
        self._beginnings: dict[int, str] = {}
        self._starts: dict[int, bytes] = {}
        self._said: tuple[int, float] = (-1, float("-inf"))
        self._reason = ""
        self.more = False

    def step(self, now: float) -> bytes:
        """Return what is to be sent now; empty if nothing is."""
        try:
            if not self._beginnings:
                self._come_back(now)
            looks = [self._look(shard, now) for shard in self._shards]
        except Unavailable as error:
            known, self._reason, self.more = self._reason, str(error), False
            return b"" if known == self._reason else _event("rebuilding", {"reason": self._reason})
        # Only now: what one shard has told must not be passed over because another one cannot answer.
        for shard, look in zip(self._shards, looks, strict=True):
            self._beginnings[shard], self._starts[shard] = look.beginning, look.next
        self._reason, self.more = "", any(look.more for look in looks)
        size = len(self._prefix)
        text = b"".join(
            [event for look in looks for key, event in look.rows if key is None or key[:size] == self._prefix]
        )
        position = min(look.position for look in looks)
        if self.more or not (text or now - self._said[1] > QUIET_S or self._said[0] < 0):
            return text
        self._said = (position, now)
        return text + _event("position", {"position": position}, f"{position}.{_which(looks)}")

    def _look(self, shard: int, now: float) -> Look:
        look = self._hub.look(self._name, shard, self._starts.get(shard, b""), now)
        if self._beginnings.get(shard, look.beginning) != look.beginning:
            look = self._hub.look(self._name, shard, b"", now)
        return look

    def _come_back(self, now: float) -> None:
        """Begin where this reader left off, if these are the states that he has seen; else from the first one."""
        if self._begin is None:
            return
        looks = [self._hub.look(self._name, shard, b"", now) for shard in self._shards]
        position, which = self._begin
        if which in (None, _which(looks)) and position <= min(look.position for look in looks):
            self._starts = dict.fromkeys(self._shards, after(position))
            self._beginnings = {
                shard: look.beginning for shard, look in zip(self._shards, looks, strict=True)
            }


def _which(looks: Iterable[Look]) -> str:
    """Return 16 hex digits that name the states of all these shards."""
    return sha256("\n".join([look.beginning for look in looks]).encode()).hexdigest()[:16]


def _removed(info: ReducerInfo, key: Key | None, position: int) -> tuple[Key | None, bytes]:
    named = None if key is None else dict(zip(info.scope, key, strict=True))
    return key, _event("removed", {"key": named, "position": position})


def _event(name: str, data: dict[str, Any], identifier: str = "") -> bytes:
    head = f"id: {identifier}\n" if identifier else ""
    return f"{head}event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
