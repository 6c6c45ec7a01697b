"""Promise: docs/http.md lists every route of the application and no other, and its statuses and limits are ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.bodies import BODY_SIZE_MAX
from api.ingest import EVENTS_MAX
from api.lo import LOCK_BYTES_MAX
from api.problems import STATUS
from api.receipts import RECEIPTS_MAX
from api.states import LIMIT_DEFAULT, LIMIT_MAX, PAGE_BYTES, WAIT_S_MAX
from tests.architecture.source import ROOT

PAGE = (ROOT / "docs/http.md").read_text("utf-8")
WORDS = " ".join(PAGE.split())


def listed() -> list[tuple[str, str]]:
    """Return (method, path) of each row of the first table."""
    rows = re.findall(r"^\| ([A-Za-z, ]+) \| `(/[^`]*)` \|", PAGE, re.MULTILINE)
    return [(method, path) for methods, path in rows for method in methods.split(", ")]


def routes(found: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield (method, path) of each route, those of included routers too."""
    for one in found:
        if hasattr(one, "original_router"):
            yield from routes(one.original_router.routes)
        else:
            path = re.sub(r":path\}", "}", one.path)
            yield from ((method, path) for method in getattr(one, "methods", None) or {"WebSocket"})


def test_every_route_is_listed_and_no_other(http: TestClient) -> None:
    """Asked of the application itself: a route without a row is one that nobody finds."""
    app: Any = http.app
    rows = listed()
    assert len(rows) == len(set(rows))
    assert set(rows) == set(routes(app.routes))
    assert len(rows) > 15


def test_what_is_described_for_programs_is_listed(http: TestClient) -> None:
    """/openapi.json and the page agree; the page and the socket are on the page alone."""
    paths = http.get("/openapi.json").json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    beside = {("GET", "/"), ("GET", "/openapi.json"), ("HEAD", "/openapi.json"), ("WebSocket", "/wsapi/in/")}
    assert set(listed()) == described | beside


def test_statuses_of_our_errors_are_explained() -> None:
    """Whoever meets one finds what to do; 500 is for bugs and damage."""
    explained = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert {status for status, _ in STATUS.values()} - {500} <= explained
    assert {405, 408, 413, 415} <= explained


def test_limits_on_the_page_are_those_that_hold() -> None:
    """A number that is not enforced invites trust."""
    assert f"more than {BODY_SIZE_MAX >> 20} MiB, {EVENTS_MAX:,} events, or {RECEIPTS_MAX:,} events" in WORDS
    assert f"({LIMIT_DEFAULT}, at most {LIMIT_MAX:,}; a page also ends at {PAGE_BYTES >> 20} MiB)" in WORDS
    assert f"wait, {WAIT_S_MAX:.0f} s at most and then 503" in WORDS
    assert f"`fields`, {LOCK_BYTES_MAX:,} bytes at most" in WORDS


@pytest.mark.parametrize(
    "row", re.findall(r"^\| `(\{.*\})` \| (.*?) \| (.*?) \| (.*?) \|", PAGE, re.MULTILINE)
)
def test_what_is_taken_with_200_means_what_the_page_says(http: TestClient, row: tuple[str, ...]) -> None:
    """The examples of misspelt members, sent as they stand there."""
    sent, kind, time, keys = row
    index = http.post("/v1/events", json=json.loads(sent)).json()["receipts"][0]["index"]
    entry = http.get(f"/v1/events/{index}").json()
    assert entry["type"] == ("" if kind == "empty" else kind.strip("`"))
    assert time == "received"
    assert entry["time_ms"] == entry["received_us"] // 1_000
    assert entry["keys"] == ({} if keys.startswith("none") else {"student": "1"})


def test_the_socket_answers_the_example_as_the_page_says(http: TestClient) -> None:
    """Its frames, one after the other; indices follow one another, and a receipt covers its entry."""
    frames = re.findall(r"^        (\{\"event\".*\}),$", PAGE, re.MULTILINE)
    said = [json.loads(line) for line in re.findall(r"^    (\{\"status\".*\})$", PAGE, re.MULTILINE)]
    assert (len(frames), len(said)) == (3, 4)
    with http.websocket_connect("ws://localhost/wsapi/in/?ack=1") as socket:
        for frame in frames:
            socket.send_text(frame)
        answers = [socket.receive_json() for _ in said]
    ours, theirs = [[one.pop("index") for one in some[1:]] for some in (answers, said)]
    assert [one - ours[0] for one in ours] == [one - theirs[0] for one in theirs]
    assert all(
        one.pop("size") > index for some in (answers, said) for one, index in zip(some[1:], ours, strict=True)
    )
    assert answers == said
