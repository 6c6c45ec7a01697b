"""States out: GET /v1/states/{reducer}, one key or all that begin alike.

An answer says how much of the log it has seen and which signed checkpoint covers that.  While a shard is
rebuilt, until it has seen what the log held when that began, the answer is 503, never "no data": a teacher must
not see an empty class, or half of one, because a disk was replaced.

A page is bounded in bytes as well as in number, since one state may be a whole document: everybody else waits while
one answer is made.  `next` says that there is more.  States go out as they are stored; nothing takes them apart.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from functools import partial
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from api.problems import Problem
from api.services import Services
from archive import NotFound, Unavailable
from merkle import Checkpoint
from reducers import VALUE_SIZE_MAX, Key, StatePair, entry_digest
from replay import ReducerInfo, StateReader, StoredSlot

LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
PAGE_BYTES = 4 << 20
"""A page ends with the state that fills this."""
WAIT_S_MAX = 10.0
WAIT_STEP_S = 0.01
Rows = list[tuple[bytes, StoredSlot]]
Row = TypeVar("Row", tuple[bytes, StoredSlot], tuple[bytes, StoredSlot, int])
"""Database key and state; and perhaps how much of the log it has seen."""
RESERVED = frozenset({"min_size", "at_size", "limit", "after"})
"""Parameters that are no key fields, of answers at one moment; a stream has none of them."""


def router(services: Services) -> APIRouter:
    """Return the routes of states."""
    routes = APIRouter(prefix="/v1/states", tags=["states"])

    @routes.get("", summary="Which reducers there are")
    async def get_reducers() -> JSONResponse:
        return JSONResponse({"reducers": [describe(info) for info in services.shelf.reducers()]})

    @routes.get("/{name}", summary="One state, or a page of states")
    async def get_states(name: str, request: Request) -> Response:
        services.check()
        _, reducer = services.shelf.find(name)
        key = key_of_query(reducer, request, RESERVED)
        _only(reducer, key, request)
        min_size = number(request, "min_size", 0)
        if "at_size" in request.query_params:
            return JSONResponse(await _as_it_was(services, reducer, key, number(request, "at_size", 0)))
        if len(key) == len(reducer.scope):
            return _json(await _one(services, reducer, key, min_size))
        return _json(await _page(services, reducer, key, min_size, request))

    return routes


def _json(answer: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _only(reducer: ReducerInfo, key: Key, request: Request) -> None:
    """Raise Problem for a parameter that would be passed over: one of a page in a question for one state, say."""
    given = request.query_params.keys()
    if "at_size" in given:
        useless, why = {"min_size", "limit", "after"}, "at_size asks for one state, at one size"
    elif len(key) == len(reducer.scope):
        useless, why = {"limit", "after"}, "a whole key has one state, and no page"
    else:
        return
    if wrong := sorted(useless & given):
        raise Problem(400, "Useless parameter", f"parameter {wrong[0]!r}: {why}; leave it out")


def describe(reducer: ReducerInfo) -> dict[str, Any]:
    """Return what readers need to know of a reducer."""
    return {
        "reducer": reducer.name,
        "version": reducer.version,
        "scope": list(reducer.scope),
        "code_digest": reducer.code_digest,
    }


def key_of_query(reducer: ReducerInfo, request: Request, others: frozenset[str] = frozenset()) -> Key:
    """Return the key of a query, whole or its beginning; raise Problem that names a wrong parameter.

    `others` are parameters that mean something else here.  What would be passed over is refused: an answer to another
    question looks like an answer.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Problem(400, "Repeated parameter", f"parameter {twice!r} stands more than once; give it once")
    given = {name: value for name, value in request.query_params.items() if name not in others}
    key = []
    for field in reducer.scope:
        if field not in given:
            break
        key.append(given.pop(field))
        if len(key[-1].encode()) > VALUE_SIZE_MAX:
            raise Problem(
                400, "Malformed parameter", f"parameter {field!r}: longer than {VALUE_SIZE_MAX} bytes"
            )
    if given:
        if min(given) in RESERVED:
            detail = f"parameter {min(given)!r}: a stream begins with what there is now; leave it out"
            raise Problem(400, "Unknown parameter", detail)
        raise Problem(
            400,
            "Unknown parameter",
            f"parameter {min(given)!r} does not fit; {reducer.name} has the key {', '.join(reducer.scope)}",
        )
    return tuple(key)


def number(request: Request, name: str, default: int, least: int = 0) -> int:
    """Return a query parameter that is a number from `least`; raise Problem if it is none."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise Problem(400, "Malformed parameter", f"parameter {name!r}: expected a number, not {text[:40]!r}")
    if int(text) < least:
        raise Problem(400, "Malformed parameter", f"parameter {name!r}: expected a number from {least}")
    return int(text)


async def _one(services: Services, reducer: ReducerInfo, key: Key, min_size: int) -> dict[str, Any]:
    shard = services.shelf.home(reducer, key, services.vault.route_key)
    await wait_for(services, reducer.name, shard, min_size)
    info, position, slot = await services.read(lambda: _slot(services, reducer.name, shard, key))
    if slot is None:
        raise NotFound(f"no event of this key in the first {position} entries (skipped ones aside)")
    pair = StatePair(reducer.name, slot.version, slot.key, slot.encoding, slot.error_index)
    return {
        "reducer": reducer.name,
        **state_json(reducer, slot),
        "position": position,
        "checkpoint": checkpoint_json(services),
        "version": slot.version,
        "code_digest": info.code_digest,
        "state_digest": entry_digest(pair).hex(),
    }


def _slot(services: Services, name: str, shard: int, key: Key) -> tuple[ReducerInfo, int, StoredSlot | None]:
    info, reader, _ = services.shelf.standing(name, shard)
    try:
        return info, *reader.get(name, key)
    except NotFound as error:
        raise Unavailable(str(error)) from None


def _rows(
    services: Services, name: str, shard: int, prefix: Key, after: bytes, limit: int
) -> tuple[int, Rows]:
    _, reader, _ = services.shelf.standing(name, shard)
    try:
        return reader.scan(name, prefix, after, limit, PAGE_BYTES)
    except NotFound as error:
        raise Unavailable(str(error)) from None


async def _as_it_was(services: Services, reducer: ReducerInfo, key: Key, size: int) -> dict[str, Any]:
    """Return the state of one key as it was at a size of the log."""
    if len(key) < len(reducer.scope):
        missing = reducer.scope[len(key)]
        raise Problem(400, "Missing parameter", f"parameter {missing!r}: at_size takes a whole key")
    if size > services.published():
        raise NotFound(f"the log has {services.published()} entries, not {size} yet")
    if services.past is None:
        raise Unavailable("this server does not fold the past; use treering replay --until")
    return await services.past(reducer.name, key, size)


async def _page(
    services: Services, reducer: ReducerInfo, prefix: Key, min_size: int, request: Request
) -> dict[str, Any]:
    """Return a page of states over all shards, in the order of their keys."""
    limit = min(number(request, "limit", LIMIT_DEFAULT, least=1), LIMIT_MAX)
    after = _token(request.query_params.get("after", ""), StateReader.begin(reducer.name, prefix))
    positions: list[int] = []
    rows: list[tuple[bytes, StoredSlot, int]] = []
    for shard in range(services.shelf.shards):
        await wait_for(services, reducer.name, shard, min_size)
        ask = partial(_rows, services, reducer.name, shard, prefix, after, limit)
        position, found = await services.read(ask)
        positions.append(position)
        rows += [(data, slot, position) for data, slot in found]
    page, more = first_of(rows, limit, PAGE_BYTES)
    answer: dict[str, Any] = {
        "reducer": reducer.name,
        "position": min(positions),
        "states": [{**state_json(reducer, slot), "position": position} for _, slot, position in page],
        "checkpoint": checkpoint_json(services),
    }
    if more:
        answer["next"] = base64.urlsafe_b64encode(page[-1][0]).decode().rstrip("=")
    return answer


def first_of(rows: list[Row], limit: int, size: int) -> tuple[list[Row], bool]:
    """Return the first rows by key, at most `limit`, up to the one that fills `size` bytes; and whether that ends them.

    Each shard's rows may have been cut by the same two bounds: no row that was left out can come before the end of
    what is returned, because those before it in its own shard are enough to fill it.
    """
    rows = sorted(rows, key=lambda row: row[0])
    for count, row in enumerate(rows, 1):
        size -= row[1].size
        if count == limit or size <= 0:
            return rows[:count], True
    return rows, False


def state_json(reducer: ReducerInfo, slot: StoredSlot) -> dict[str, Any]:
    """Return key and state as readers see them, to be encoded; a quarantined key says why it stands still."""
    shown: dict[str, Any] = {
        "key": dict(zip(reducer.scope, slot.key, strict=True)),
        "state": in_one_line(slot.encoding if slot.shown is None else slot.shown),
    }
    if slot.error_index is not None:
        shown["quarantined"] = {"index": slot.error_index, "error": slot.error}
    return shown


def in_one_line(data: bytes) -> msgspec.Raw:
    r"""Return JSON as it goes into an answer; what comes from a cell is JSON, and may be of many lines.

    >>> bytes(in_one_line(b'{"events":2}')), bytes(in_one_line(b'[1,\n\n2]'))
    (b'{"events":2}', b'[1,2]')
    """
    if b"\n" in data or b"\r" in data:
        data = msgspec.json.encode(msgspec.json.decode(data))
    return msgspec.Raw(data)


def checkpoint_json(services: Services) -> dict[str, Any]:
    """Return size and root of the newest published checkpoint."""
    with services.log() as log:
        _, note = log.checkpoint()
    checkpoint = Checkpoint.decode(note.decode().partition("\n\n")[0] + "\n")
    return {"size": checkpoint.size, "root": checkpoint.root.hex()}


async def wait_for(services: Services, name: str, shard: int, min_size: int) -> None:
    """Wait until a reducer's shard has seen `min_size` entries; raise Unavailable after ten seconds."""
    deadline = asyncio.get_running_loop().time() + WAIT_S_MAX
    while min_size and await services.read(lambda: _position(services, name, shard)) < min_size:
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable(f"the states have not reached size {min_size} yet; ask again shortly")
        await asyncio.sleep(WAIT_STEP_S)


def _position(services: Services, name: str, shard: int) -> int:
    try:
        return services.shelf.standing(name, shard).reader.position()
    except (NotFound, Unavailable):
        return 0


def _token(text: str, begin: bytes) -> bytes:
    """Return after which database key a page goes on; raise Problem for what no page of these states said.

    Nothing stands behind such a place, or all does: an empty class, or one that is read again.
    """
    try:
        token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        token = b"?"
    if token and not token.startswith(begin):
        raise Problem(400, "Malformed parameter", "parameter 'after': pass on the 'next' of the page before")
    return token
