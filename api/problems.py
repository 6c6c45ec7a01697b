"""Errors on the wire: one table from our errors to HTTP statuses, in RFC 9457's form.

A problem says what is wrong, where, and so what to do.  It never says what the server holds about anybody.

>>> problem(InvalidEvent("malformed JSON: Input data was truncated"), line=3)["detail"]
'line 3: malformed JSON: Input data was truncated'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request

from archive import (
    ArchiveError,
    Conflict,
    FormatError,
    IntegrityError,
    InvalidEvent,
    NotFound,
    Refusal,
    StorageFailed,
    Unavailable,
    Unknown,
)
from reducers import UnknownReducer

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

STATUS: dict[type[Exception], tuple[int, str]] = {
    InvalidEvent: (400, "Invalid event"),
    FormatError: (400, "Malformed data"),
    UnknownReducer: (404, "Unknown reducer"),
    NotFound: (404, "Not found"),
    Conflict: (409, "Conflict"),
    IntegrityError: (500, "Integrity error"),
    StorageFailed: (503, "Storage failed"),
    Unavailable: (503, "Unavailable"),
    ArchiveError: (500, "Archive error"),
}
REASONS = {"conflict": Conflict, "invalid": InvalidEvent, "unavailable": Unavailable}


class Problem(Exception):
    """A problem that belongs to HTTP itself: a wrong content type, an unknown parameter."""

    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.headers = status, title, headers


class Unwitnessed(Unknown):
    """Kept, and not cosigned in time; what has no id must not be sent `again`: it would be a second event."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


def problem(error: Exception, **where: Any) -> dict[str, Any]:
    """Return the problem object of an error; `where` (line=3, frame=7) is put before its message.

    `"again": false` says to programs that the same must not be sent once more, though the status is 503.
    """
    if isinstance(error, Problem):
        status, title = error.status, error.title
    else:
        status, title = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), (500, "Error"))
    place = "".join(f"{name} {value}: " for name, value in where.items() if value is not None)
    never = {"again": False} if isinstance(error, Unwitnessed) and not error.again else {}
    return {"type": "about:blank", "title": title, "status": status, "detail": f"{place}{error}"} | never


def refusal_problem(refusal: Refusal, **where: Any) -> dict[str, Any]:
    """Return the problem object of what the archiver refused."""
    kind = REASONS.get(refusal.reason, Unavailable)
    error = Conflict(refusal.detail, index=-1) if kind is Conflict else kind(refusal.detail)
    return problem(error, **where)


def problem_response(
    body: dict[str, Any], headers: Mapping[str, str] | None = None, *, again: bool = True
) -> JSONResponse:
    """Return a problem as a response; 503 says when to try again, unless nobody may."""
    headers = {**(headers or {}), **((retry_headers(body["status"]) if again else None) or {})}
    return JSONResponse(body, status_code=body["status"], media_type=MEDIA_TYPE, headers=headers)


def retry_headers(status: int) -> dict[str, str] | None:
    """Return the header that says when to try again, for 503.

    >>> retry_headers(503), retry_headers(200)
    ({'Retry-After': '1'}, None)
    """
    return {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Turn an error that a route raised into its response."""
    headers = error.headers if isinstance(error, Problem) else None
    return problem_response(problem(error), headers, again=not isinstance(error, Unwitnessed) or error.again)
