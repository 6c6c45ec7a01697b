"""Errors on the wire: every error has its status, and its message says where."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

import archive
from api import STATUS, Problem, problem
from api.problems import REASONS, Unwitnessed, answer_error, problem_response, refusal_problem
from archive import (
    ArchiveError,
    Conflict,
    InvalidEvent,
    NotFound,
    Refusal,
    StorageFailed,
    Unavailable,
    Unknown,
)
from reducers import UnknownReducer


def archive_errors() -> list[type[ArchiveError]]:
    """Return every error of the archive, exported or not."""
    found, waiting = [], [ArchiveError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return found


def made(kind: type[Exception]) -> Exception:
    """Return an error of a kind."""
    if issubclass(kind, Conflict):
        return kind("what happened", index=3)
    return UnknownReducer("x", ("y",)) if kind is UnknownReducer else kind("what happened")


@pytest.mark.parametrize("kind", archive_errors(), ids=lambda kind: kind.__name__)
def test_every_archive_error_has_a_row(kind: type[ArchiveError]) -> None:
    """Its own, or that of the error it is a kind of; the root's row stands for none of them."""
    rows = [base for base in kind.__mro__ if base in STATUS]
    assert rows
    assert kind is ArchiveError or rows[0] is not ArchiveError


def test_every_row_is_of_an_error_there_is() -> None:
    """The table has no dead rows."""
    assert set(STATUS) <= {*archive_errors(), UnknownReducer}
    assert {kind for kind in archive_errors() if kind.__module__ == "archive.errors"} <= {
        *STATUS,
        archive.Locked,
        Unknown,
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidEvent("x"), 400),
        (NotFound("x"), 404),
        (UnknownReducer("x", ()), 404),
        (Conflict("x", index=1), 409),
        (archive.IntegrityError("x"), 500),
        (Unavailable("x"), 503),
        (Unknown("x"), 503),
        (archive.Locked("x"), 503),
        (StorageFailed("x"), 503),
        (ArchiveError("x"), 500),
        (KeyError("x"), 500),
        (Problem(415, "Unsupported", "x"), 415),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_status_answers_what_next(error: Exception, status: int) -> None:
    """Correct it (400), ask for another (404), new id (409), later (503), stop (500)."""
    assert problem(error)["status"] == status


@pytest.mark.parametrize("kind", [*STATUS, Unknown, ValueError], ids=lambda kind: kind.__name__)
def test_a_problem_has_the_members_of_rfc_9457(kind: type[Exception]) -> None:
    """Type, title, status, and a detail that is the error's own message."""
    error = made(kind)
    body = problem(error)
    assert body == {
        "type": "about:blank",
        "title": body["title"],
        "status": body["status"],
        "detail": str(error),
    }
    assert body["title"]


@pytest.mark.parametrize(
    ("where", "detail"),
    [
        ({}, "key field student is missing"),
        ({"line": 3}, "line 3: key field student is missing"),
        ({"line": None}, "key field student is missing"),
        ({"frame": 0}, "frame 0: key field student is missing"),
        ({"line": 3, "frame": 7}, "line 3: frame 7: key field student is missing"),
    ],
)
def test_the_message_names_line_and_field(where: dict[str, Any], detail: str) -> None:
    """Where it is wrong stands before what is wrong."""
    assert problem(InvalidEvent("key field student is missing"), **where)["detail"] == detail


@pytest.mark.parametrize("again", [True, False])
def test_who_must_not_send_again_is_not_asked_to(*, again: bool) -> None:
    """Clients that try again by themselves go by this header; without an id, each try would be a further event."""
    response = asyncio.run(answer_error(Request({"type": "http"}), Unwitnessed("kept", again=again)))
    assert (response.status_code, "retry-after" in response.headers) == (503, again)
    told: Any = json.loads(bytes(response.body))
    assert told.get("again", True) is again, "programs behind a proxy that drops headers go by this"


@pytest.mark.parametrize(
    ("reason", "status"), [("conflict", 409), ("invalid", 400), ("unavailable", 503), ("new reason", 503)]
)
def test_what_the_archiver_refused_has_a_status(reason: str, status: int) -> None:
    """Each reason is an error; one that this front does not know yet asks to wait."""
    body = refusal_problem(Refusal(reason, "why"), line=2)
    assert (body["status"], body["detail"]) == (status, "line 2: why")
    assert set(REASONS) == {"conflict", "invalid", "unavailable"}


@pytest.mark.parametrize("status", [400, 404, 409, 415, 500, 503])
def test_only_503_says_when_to_come_again(status: int) -> None:
    """And every problem is sent as problem+json under its own status."""
    response = problem_response(problem(Problem(status, "Title", "Detail")))
    assert (response.status_code, response.media_type) == (status, "application/problem+json")
    assert json.loads(bytes(response.body))["title"] == "Title"
    assert ("retry-after" in response.headers) == (status == 503)
