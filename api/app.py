"""The application: every route, every error's answer, and who may ask.

    app = create_app(services)

No globals: everything a route needs is in `services`.  The host names that a request may use are listed,
because a server on loopback can otherwise be read by any web page through a name that points there (DNS
rebinding).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import events, lo_socket, log, operations, pages, receipts, states, stream
from api.problems import Problem, answer_error, problem, problem_response
from api.services import Services
from archive import ArchiveError
from reducers import UnknownReducer

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1", "[::1]")


def create_app(services: Services, *, hosts: Sequence[str] = LOOPBACK_HOSTS, version: str = "0") -> FastAPI:
    """Return the application; `hosts` are the names under which it may be asked."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.client.start()
        yield
        await services.client.stop()

    app = FastAPI(title="Treering", version=version, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(_Hosts, hosts=hosts)
    for part in (events, receipts, stream, states, log, operations, pages, lo_socket):
        app.include_router(part.router(services))
    for kind in (Problem, ArchiveError, UnknownReducer):
        app.add_exception_handler(kind, answer_error)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    return app


class _Hosts(TrustedHostMiddleware):
    """Lets through who asks by a name of this server; whoever else is answered in the form of every problem."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        super().__init__(self._known, list(hosts), www_redirect=False)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = _Known(send)
        await super().__call__(scope, receive, known)
        if not known.known:
            await problem_response(problem(_WRONG_HOST))(scope, receive, send)

    async def _known(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert isinstance(send, _Known)
        send.known = True
        await self._app(scope, receive, send.send)


class _Known:
    """Takes what the check of names would answer by itself, and says nothing."""

    def __init__(self, send: Send) -> None:
        self.send, self.known = send, False

    async def __call__(self, message: Message) -> None:
        """Pass over a message."""


_WRONG_HOST = Problem(
    400, "Wrong host", "Host: not a name of this server; ask by one that it has (host_names in its settings)"
)


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    found = Problem(error.status_code, str(error.detail), str(error.detail))
    return problem_response(problem(found), error.headers)


async def _answer_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return problem_response(problem(Problem(400, "Invalid request", f"{place}: {first['msg']}")))
