"""A large request is kept in parts, and each part may fare otherwise: every event is told its own fate, none two.

What a client then does is judged with `tools.playback.settle`, which `treering send` goes by: what is kept and has no
id must not be sent again, what is not kept must be, and what has an id may be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import ingest
from api.cosigned import unwitnessed
from archive import Answer, ArchiveError, Refusal, Submission, Unavailable, Unknown
from tests.api.front import Front
from tools.playback import Line, settle

KEPT, UNSEEN, FULL, AWAY = "kept", "kept and not cosigned", "no room", "nobody knows"
FATES = st.lists(st.sampled_from([KEPT, UNSEEN, FULL, AWAY]), min_size=1, max_size=4)
PART = 2


def play(front: Front, monkeypatch: pytest.MonkeyPatch, fates: Sequence[str]) -> None:
    """Let the parts of the next request fare so, one after the other."""
    left, plain = list(fates), front.direct.__class__.submit

    def submit(submissions: Sequence[Submission]) -> asyncio.Future[list[Answer]]:
        fate = left.pop(0)
        if fate == KEPT:
            return plain(front.direct, submissions)
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        error: ArchiveError = Unknown("this event may be kept or not")
        if fate == UNSEEN:
            front.archiver.step(submissions)
            error = unwitnessed(again=all(one.id is not None for one in submissions))
        if fate == FULL:
            future.set_result([Refusal("unavailable", "no room")] * len(submissions))
        else:
            future.set_exception(error)
        return future

    monkeypatch.setattr(ingest, "PART_EVENTS", PART)
    monkeypatch.setattr(front.direct, "submit", submit)


def sent(http: TestClient, named: Sequence[bool]) -> tuple[Any, list[int]]:
    """Send an event for each of `named`, with an id or without; return the answer, and what a client sends again."""
    events = [{"type": "t", "keys": {"student": "ann"}, "data": {}} for _ in named]
    lines = [
        Line(number, json.dumps({**one, "id": f"{number}-{id(named)}"} if with_id else one).encode())
        for number, (one, with_id) in enumerate(zip(events, named, strict=True))
    ]
    body = b"\n".join(line.data for line in lines)
    answer = http.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
    settled = settle(lines, answer.status_code, answer.content)
    return answer, [number for number, one in enumerate(settled) if one is None]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FATES, st.data())
def test_each_event_is_sent_again_only_if_that_is_right(
    front: Front, http: TestClient, fates: list[str], data: st.DataObject
) -> None:
    """Whatever becomes of the parts, and whichever events have ids."""
    named = data.draw(st.lists(st.booleans(), min_size=PART * len(fates), max_size=PART * len(fates)))
    fate_of = [fate for fate in fates for _ in range(PART)]
    with pytest.MonkeyPatch.context() as patch:
        play(front, patch, fates)
        answer, again = sent(http, named)
    assert again == [
        number
        for number, (fate, with_id) in enumerate(zip(fate_of, named, strict=True))
        if fate in {FULL, AWAY} or (fate == UNSEEN and with_id)
    ]
    assert answer.status_code == (200 if KEPT in fates else 503)
    forbidden = any(fate == UNSEEN and not with_id for fate, with_id in zip(fate_of, named, strict=True))
    asked_to = "Retry-After" in answer.headers
    assert asked_to == (answer.status_code == 503 and not forbidden), (
        "of those who go by this header alone, all or none"
    )


@pytest.mark.parametrize("fate", [UNSEEN, AWAY])
def test_what_all_have_met_is_said_once(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """A request of which every part fared alike is answered with one problem."""
    play(front, monkeypatch, [fate, fate])
    answer, _ = sent(http, [False] * 4)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_archiver_that_is_down_is_said_once(front: Front, http: TestClient) -> None:
    """As before: nothing was kept, and all of it is to be sent again."""
    front.direct.is_connected = False
    answer, again = sent(http, [True, False, False])
    assert (answer.status_code, again) == (503, [0, 1, 2])
    assert str(Unavailable("the archiver is not running")) in answer.json()["detail"]
