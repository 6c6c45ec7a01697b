"""Damaged states over HTTP: 503 for who asks for them, by name of the module; everybody else is answered as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from archive import Write
from replay import (
    Catalogue,
    emptied,
    is_complained_of,
    module_folder,
    read_catalogue,
    shard_folder,
    state_key,
)
from tests.api.front import Front, problem_of
from tests.api.test_stream import stream
from tests.world import event

STUDENTS = [f"student {number}" for number in range(9)]
SAYS = "states of module activity are damaged"


@pytest.fixture
def front(front: Front) -> Front:
    """Return a front that has a class, and leaves complaints."""
    front.services.shelf._complains = True
    front.archiver.step([event(student, "typed", doc_id="essay") for student in STUDENTS])
    front.reduce()
    return front


def catalogue(front: Front) -> Catalogue:
    """Return the catalogue of the module that is damaged."""
    found = read_catalogue(module_folder(front.folder.state, 0, "activity"))
    assert found is not None
    return found


def place(front: Front, shard: int) -> Path:
    """Return where its states lie."""
    root = module_folder(front.folder.state, 0, "activity")
    return shard_folder(root, catalogue(front).generation, shard, 2)


def damage(front: Front, student: str) -> int:
    """Damage the state of a student in `event_count`, and return in which shard."""
    info = next(one for one in catalogue(front).reducers if one.name == "event_count")
    shard = front.services.shelf.home(info, (student,), front.vault.route_key)
    store, key = front.stores[place(front, shard)], state_key("event_count", (student,))
    with store.view() as view:
        value = view.get("states", key)
    assert value is not None
    store.commit([Write("states", key, value.replace(b'"events":1', b'"events":9'))])
    return shard


def damage_marker(front: Front, shard: int) -> None:
    """Damage the marker of a shard: it claims another position."""
    store = front.stores[place(front, shard)]
    with store.view() as view:
        value = view.get("meta", b"snapshot")
    assert value is not None
    store.commit([Write("meta", b"snapshot", value.replace(b"position\x0b", b"position\x0a"))])


def test_a_damaged_state_is_no_answer_and_everything_else_is(front: Front, http: TestClient) -> None:
    """Who asks for it, or for a page in which it stands, is told what, whose and what to do; nobody else is."""
    shard = damage(front, "student 4")
    for query in ("?student=student 4", ""):
        detail = problem_of(http.get(f"/v1/states/event_count{query}"), 503)
        assert detail.startswith(SAYS)
        assert "made anew from the log" in detail
        assert "treering doctor" in detail
        assert "student" not in detail
    for student in STUDENTS:
        if student != "student 4":
            assert http.get(f"/v1/states/event_count?student={student}").json()["state"] == {"events": 1}
    assert len(http.get("/v1/states/reconstruct").json()["states"]) == 9
    assert is_complained_of(place(front, shard))
    assert not is_complained_of(place(front, 1 - shard))


def test_a_damaged_marker_is_no_answer(front: Front, http: TestClient) -> None:
    """Nobody is told a position that is not that of his states."""
    damage_marker(front, 0)
    damage_marker(front, 1)
    for name in ("event_count?student=ann", "event_count"):
        assert problem_of(http.get(f"/v1/states/{name}"), 503).startswith(SAYS)
    assert http.get("/v1/states/reconstruct").status_code == 200
    assert any(is_complained_of(place(front, shard)) for shard in (0, 1))


def test_damage_is_counted_and_shown(front: Front, http: TestClient) -> None:
    """In /metrics by module, in /readyz by shard, and on the page where the states stood."""
    shard = damage(front, "student 4")
    line = "treering_damaged_reads_total"
    assert f'{line}{{module="activity"}} 0.0' in http.get("/metrics").text
    for _ in range(2):
        http.get("/v1/states/event_count?student=student 4")
    text = http.get("/metrics").text
    assert f'{line}{{module="activity"}} 2.0' in text
    assert f'{line}{{module="writing"}} 0.0' in text
    modules = {one["module"]: one for one in http.get("/readyz").json()["modules"]}
    assert modules["activity"]["damage_met"] == 2
    assert modules["activity"]["shards"][shard]["damaged"]
    assert "damaged" not in modules["activity"]["shards"][1 - shard]
    page = http.get("/").text
    assert "damaged: made anew from the log" in page
    assert "student 4" not in page.partition("event_count")[2].partition("<h2>")[0]


def test_metrics_are_answered_whatever_is_damaged(front: Front, http: TestClient) -> None:
    """Who watches a server must not lose sight of it because of one module."""
    damage_marker(front, 0)
    damage_marker(front, 1)
    assert 'treering_quarantined_keys{reducer="reconstruct"} 0.0' in http.get("/metrics").text


def test_a_stream_says_why_it_stands_still(front: Front) -> None:
    """Once, with the reason; when the states are there again, it begins with all of them."""
    shard = damage(front, "student 4")
    one = stream(front, "event_count")
    event_line, data = one.step(1.0).decode().splitlines()[:2]
    assert event_line == "event: rebuilding"
    assert json.loads(data.removeprefix("data: "))["reason"].startswith(SAYS)
    assert one.step(2.0) == b""
    made_anew(front, shard)
    found = [json.loads(line[6:]) for line in one.step(3.0).decode().splitlines() if "events" in line]
    assert sorted(each["key"]["student"] for each in found) == STUDENTS


def test_what_was_damaged_is_made_anew_from_the_log(front: Front, http: TestClient) -> None:
    """The worker's next start empties the store; then every state is what it was."""
    before = http.get("/v1/states/event_count").json()
    shard = damage(front, "student 4")
    http.get("/v1/states/event_count?student=student 4")
    made_anew(front, shard)
    assert http.get("/v1/states/event_count").json() == before
    assert not is_complained_of(place(front, shard))


def made_anew(front: Front, shard: int) -> None:
    """Let the worker of a shard end, and the next one start."""
    folder = place(front, shard)
    front.stores.pop(folder).close()  # one process must not open it twice
    front.services.shelf._stores.pop(folder)
    assert emptied(folder)
    front.crews[shard] = front.crew(shard, 2)
    front.reduce()
