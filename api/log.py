"""The log in public: what anyone may read without trusting the server.  Leaves only, never private rows.

The checkpoint changes with every commit and is never cached.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from api.services import Services


def router(services: Services) -> APIRouter:
    """Return the routes of the public log."""
    routes = APIRouter(prefix="/log", tags=["log"])

    @routes.get("/checkpoint", summary="The newest signed checkpoint (C2SP tlog-checkpoint)")
    async def get_checkpoint() -> PlainTextResponse:
        with services.log() as log:
            _, note = log.checkpoint()
        return PlainTextResponse(note, headers={"Cache-Control": "no-cache"})

    return routes
