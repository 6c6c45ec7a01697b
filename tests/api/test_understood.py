"""Promise: whoever sends an event can see what was understood of it, since a misspelt member is nobody's error."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from archive import ROW_EVENT, Submission
from tests.api.front import Front

URL = "ws://localhost/wsapi/in/?ack=1"
TIME, TIME_MS = "2026-01-15T09:00:00Z", 1_768_467_600_000


def understood(http: TestClient, index: int) -> list[Any]:
    """Return what an entry is said to mean; `received` for the time at which it came in."""
    entry = http.get(f"/v1/events/{index}").json()
    received = entry["time_ms"] == entry["received_us"] // 1_000
    time_ms = "received" if received else entry["time_ms"]
    return [entry["form"], entry["type"], time_ms, entry["keys"], entry["subject"]]


@pytest.mark.parametrize(
    ("event", "meaning"),
    [
        (
            {"type": "x", "time": TIME, "keys": {"student": "ada"}, "data": 1},
            ["event", "x", TIME_MS, {"student": "ada"}, "student:ada"],
        ),
        ({"typ": "x", "dta": {"a": 1}}, ["json", "", "received", {}, "source:"]),
        ({"type": "x", "key": {"student": "ada"}, "data": 1}, ["event", "x", "received", {}, "source:x"]),
        ({"type": "x", "keys": "ada", "data": 1}, ["json", "x", "received", {}, "source:x"]),
        (
            {"type": "x", "time": "yesterday", "keys": {"student": 1}},
            ["event", "x", "received", {"student": "1"}, "student:1"],
        ),
        (
            {"type": 5, "time": "2026-01-15T09:00:00", "keys": {"Student": "ada"}},
            ["event", "", "received", {"Student": "ada"}, "source:"],
        ),
        (
            {"verb": {"id": "read"}, "timestamp": TIME},
            ["json", "read", TIME_MS, {}, "source:read"],
        ),
        (5, ["json", "", "received", {}, "source:"]),
    ],
)
def test_an_entry_shows_type_time_and_keys_as_they_are_understood(
    http: TestClient, event: Any, meaning: list[Any]
) -> None:
    """As docs/http.md has it in a table: a misspelt member is passed over, and the answer shows that it was."""
    answer = http.post("/v1/events", json=event)
    assert answer.status_code == 200
    assert understood(http, answer.json()["receipts"][0]["index"]) == meaning


def test_a_frame_is_understood_with_what_was_locked(http: TestClient) -> None:
    """The lock wins, as in reducers; a frame that is no event has neither type nor time."""
    with http.websocket_connect(URL) as socket:
        socket.send_json({"event": "lock_fields", "fields": {"user_id": "ann", "timestamp": TIME_MS}})
        socket.send_json({"event": "keystroke", "timestamp": 1})
        assert [socket.receive_json()["status"] for _ in range(3)] == ["auth", "ack", "ack"]
    keys = {"student": "testcase-ann"}
    assert understood(http, 3) == ["lo", "keystroke", TIME_MS, keys, "student:testcase-ann"]
    assert not {"type", "time_ms"} & http.get("/v1/events/2").json().keys()


def test_what_nobody_can_read_is_shown_without_a_meaning(front: Front, http: TestClient) -> None:
    """No reducer gets it, so it has no type; its bytes are shown all the same."""
    bad = Submission(ROW_EVENT, "student:ann", b"no JSON", 0, "", "", "json", {"student": "ann"})
    assert front.archiver is not None
    front.archiver.step([bad])
    entry = http.get("/v1/events/2").json()
    assert (entry["kind"], entry["payload"]) == ("event", "no JSON")
    assert not {"type", "time_ms"} & entry.keys()
