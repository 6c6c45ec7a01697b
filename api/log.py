"""The log in public: what anyone may read without trusting the server (C2SP tlog-tiles).  Leaves only, never rows.

    /log/checkpoint                        the newest signed checkpoint: changes with every commit, never cached
    /log/tile/<L>/<N>[.p/<W>]              hashes
    /log/tile/entries/<N>[.p/<W>]          leaves

A tile or bundle never changes once it is published, so any cache between us and an auditor may keep it for ever, and
serves most of the traffic of a busy log.  What was never published is 404, and so is every path that is not spelled as
the specification spells it: one thing has one name.  Bundles go out compressed to clients that take gzip.

Where a policy is configured, published means cosigned: `api.cosigned`.  What a tile holds: `archive.tiles`.  The same
as files for a web server: `treering export tiles`.
"""

from __future__ import annotations

import gzip
from hashlib import sha256
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from api.cosigned import outside, outside_checkpoint
from api.services import Services
from archive import Log, NotFound, read_bundle, read_tile
from merkle import Bundle, FormatError, Tile

IMMUTABLE: Final = "public, max-age=31536000, immutable"
OCTETS: Final = "application/octet-stream"
GZIP_LEVEL: Final = 6


def router(services: Services) -> APIRouter:
    """Return the routes of the public log."""
    routes = APIRouter(prefix="/log", tags=["log"])

    # GET and HEAD are two operations, and a client made from /openapi.json needs a name for each.
    @routes.get("/checkpoint", summary="The newest signed checkpoint (C2SP tlog-checkpoint)")
    @routes.head("/checkpoint", summary="Whether there is a checkpoint")
    async def get_checkpoint() -> PlainTextResponse:
        note = outside_checkpoint(services)
        return PlainTextResponse(note, headers={"Cache-Control": "no-cache"})

    @routes.get("/tile/entries/{place:path}", summary="Leaves (C2SP tlog-tiles, log entries)")
    @routes.head("/tile/entries/{place:path}", summary="Whether these leaves are published")
    async def get_bundle(request: Request) -> Response:
        with outside(services) as log:
            data = bundle_at(log, path_of(request))
        return immutable(request, data, compressible=True)

    @routes.get("/tile/{place:path}", summary="Hashes (C2SP tlog-tiles, Merkle tree)")
    @routes.head("/tile/{place:path}", summary="Whether these hashes are published")
    async def get_tile(request: Request) -> Response:
        with outside(services) as log:
            data = tile_at(log, path_of(request))
        return immutable(request, data, compressible=False)

    return routes


def path_of(request: Request) -> str:
    """Return the path below /log, whole: a route's own pattern overlooks a newline at the end."""
    path: str = request.scope["path"]
    return path.partition("/log/")[2]


def tile_at(log: Log, path: str) -> bytes:
    """Return the tile at a path below /log; raise NotFound for one that is malformed or not published."""
    try:
        tile = Tile.parse(path)
    except FormatError as error:
        raise NotFound(str(error)) from None
    return read_tile(log, tile)


def bundle_at(log: Log, path: str) -> bytes:
    """Return the bundle at a path below /log; raise NotFound for one that is malformed or not published."""
    try:
        bundle = Bundle.parse(path)
    except FormatError as error:
        raise NotFound(str(error)) from None
    return read_bundle(log, bundle)


def immutable(request: Request, data: bytes, *, compressible: bool) -> Response:
    """Return bytes that never change, compressed for who takes gzip, or 304 for who has them already.

    The tag is that of the bytes as they are sent (RFC 9110, 8.8.3), so the compressed form has its own.
    """
    packed = compressible and accepts_gzip(request.headers.get("accept-encoding", ""))
    tag = sha256(data).hexdigest()[:32]
    headers = {"Cache-Control": IMMUTABLE, "ETag": f'"{tag}-gzip"' if packed else f'"{tag}"'}
    if compressible:
        headers["Vary"] = "Accept-Encoding"
    if has_tag(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
        data = gzip.compress(data, GZIP_LEVEL, mtime=0)
    return Response(data, media_type=OCTETS, headers=headers)


def accepts_gzip(header: str) -> bool:
    """Tell whether an Accept-Encoding header takes gzip (RFC 9110, 12.5.3).

    >>> [accepts_gzip(text) for text in ("gzip, br", "br;q=1, *", "gzip;q=0, *", "identity", "")]
    [True, True, False, False, False]
    """
    weights: dict[str, bool] = {}
    for part in header.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weights[coding] = not any(_is_zero(parameter) for parameter in parameters)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def has_tag(header: str, tag: str) -> bool:
    """Tell whether an If-None-Match header names a tag, or any (RFC 9110, 13.1.2)."""
    given = [part.strip().removeprefix("W/") for part in header.split(",")]
    return tag in given or given == ["*"]


def _is_zero(parameter: str) -> bool:
    """Tell whether a parameter is a weight of nothing, such as "q=0" or "q=0.00"."""
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and not value.strip().strip("0.")
