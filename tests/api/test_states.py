"""States out over HTTP: what was asked for, what it stands on, and never "no data" for "not yet"."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from reducers import Reducer, StatePair, digest_of_entries, entry_digest
from replay import Digests, Runner, States, runner
from tests.api.front import Front, problem_of
from tests.world import event, run

STUDENTS = [f"student {number}" for number in range(9)]


def send(front: Front, *students: str, name: str = "typed", **keys: str) -> None:
    """Keep one event of each student."""
    front.archiver.step([event(student, name, **keys) for student in students])


def test_one_state_says_what_it_stands_on(front: Front, http: TestClient) -> None:
    """Key, state, position, checkpoint, version, code and digest: all that an auditor needs to check it."""
    send(front, "ann", "ann", "bob")
    front.reduce()
    send(front, "bob")
    body = http.get("/v1/states/event_count?student=ann").json()
    reducer = front.registry.get("event_count")
    digest = entry_digest(StatePair("event_count", 1, ("ann",), b'{"events":2}')).hex()
    assert body == {
        "reducer": "event_count",
        "key": {"student": "ann"},
        "state": {"events": 2},
        "position": 5,
        "checkpoint": {"size": 6, "root": front.archiver.root.hex()},
        "version": 1,
        "code_digest": reducer.code_digest,
        "state_digest": digest,
    }


def test_a_state_of_two_fields_is_asked_for_by_both(front: Front, http: TestClient) -> None:
    """The key fields may come in any order; every student's shard is found."""
    front.archiver.step([event(student, "typed", doc_id="é&=") for student in STUDENTS])
    front.reduce()
    for student in STUDENTS:
        for query in ({"student": student, "doc_id": "é&="}, {"doc_id": "é&=", "student": student}):
            body = http.get("/v1/states/reconstruct", params=query).json()
            assert body["key"] == {"student": student, "doc_id": "é&="}
            assert body["state"] == {"text": "", "unknown": 0, "malformed": 0}


def test_a_key_without_events_is_404(front: Front, http: TestClient) -> None:
    """It says how much of the log was looked at."""
    send(front, "ann")
    front.reduce()
    detail = problem_of(http.get("/v1/states/event_count?student=bob"), 404)
    assert detail == "no event of this key in the first 3 entries"


def test_a_quarantined_key_says_so(front: Front, http: TestClient) -> None:
    """Its last good state, where it stands still, and why."""
    send(front, "ann")
    send(front, "ann", name="bad")
    send(front, "ann")
    front.reduce()
    body = http.get("/v1/states/touchy?student=ann").json()
    assert (body["state"], body["quarantined"]) == (1, {"index": 3, "error": "ValueError: event 3 is bad"})
    page = http.get("/v1/states/touchy").json()
    assert page["states"][0]["quarantined"]["index"] == 3


def test_pages_go_over_all_shards(front: Front, http: TestClient) -> None:
    """Following "next", every state comes once, in one order, whatever the size of a page."""
    send(front, *STUDENTS)
    front.reduce()
    want = [{"student": name} for name in STUDENTS]
    for limit in (1, 2, 4, 9, 100):
        found: list[Any] = []
        query: dict[str, Any] = {"limit": limit}
        while True:
            body = http.get("/v1/states/event_count", params=query).json()
            assert len(body["states"]) <= limit
            assert all(one["position"] == body["position"] == 11 for one in body["states"])
            found += [one["key"] for one in body["states"]]
            if "next" not in body:
                break
            query["after"] = body["next"]
        assert found == want
    assert len(http.get("/v1/states/event_count?limit=0").json()["states"]) == 1


def test_a_page_of_one_student_has_that_students_states(front: Front, http: TestClient) -> None:
    """A beginning of the key selects; long values are selected as well as short ones."""
    long = "é" * 512
    for student in ("ann", "anna", long):
        front.archiver.step([event(student, doc_id=name) for name in ("poem", "essay", long)])
    front.reduce()
    for student in ("ann", "anna", long):
        body = http.get("/v1/states/time_on_task", params={"student": student}).json()
        assert {one["key"]["student"] for one in body["states"]} == {student}
        assert sorted(one["key"]["doc_id"] for one in body["states"]) == ["essay", "poem", long]
        one = http.get("/v1/states/time_on_task", params={"student": student, "doc_id": long}).json()
        assert one["key"] == {"student": student, "doc_id": long}


def test_a_page_stands_on_its_oldest_shard(front: Front, http: TestClient) -> None:
    """Shards may have seen more or less; each state says how much, and the page no more than all of them."""
    send(front, *STUDENTS)
    front.reduce()
    send(front, *STUDENTS)
    run(front.runners[1], front.source)
    front.runners[1].save(front.source)
    body = http.get("/v1/states/event_count").json()
    assert body["position"] == 11
    assert {(one["position"], one["state"]["events"]) for one in body["states"]} == {(11, 1), (20, 2)}


def test_a_page_and_its_states_agree_with_the_digest(front: Front, http: TestClient) -> None:
    """The digests of single states make up the state digest of a replay."""
    send(front, *STUDENTS)
    front.reduce()
    digests: Digests = {}
    for student in STUDENTS:
        body = http.get("/v1/states/event_count", params={"student": student}).json()
        digests["event_count", 1, (student,)] = bytes.fromhex(body["state_digest"])
    pairs = [pair for one in front.runners for pair in one.pairs() if pair.name == "event_count"]
    assert digest_of_entries(digests) == digest_of_entries(
        {pair.identity: entry_digest(pair) for pair in pairs}
    )


def test_reducers_are_listed(front: Front, http: TestClient) -> None:
    """Name, version, scope and code of each reducer there is."""
    found = {one["reducer"]: one for one in http.get("/v1/states").json()["reducers"]}
    assert set(found) == {reducer.name for reducer in front.registry}
    assert found["reconstruct"]["scope"] == ["student", "doc_id"]
    assert found["reconstruct"]["code_digest"] == front.registry.get("reconstruct").code_digest


def test_an_unknown_reducer_is_404(http: TestClient) -> None:
    """The answer lists those there are."""
    detail = problem_of(http.get("/v1/states/nothing?student=ann"), 404)
    assert "'nothing'" in detail
    assert "event_count" in detail


@pytest.mark.parametrize(
    ("name", "query", "named"),
    [
        ("event_count", "studnet=ann", "'studnet'"),
        ("event_count", "student=ann&doc_id=d", "'doc_id'"),
        ("reconstruct", "doc_id=d", "'doc_id'"),
        ("event_count", "min_size=x", "'min_size'"),
        ("event_count", "min_size=-1", "'min_size'"),
        ("event_count", "min_size=1.5", "'min_size'"),
        ("event_count", "min_size=²", "'min_size'"),
        ("event_count", "min_size=" + "9" * 19, "'min_size'"),
        ("event_count", "limit=many", "'limit'"),
        ("event_count", "after=a", "'after'"),
        ("event_count", "after=é", "'after'"),
        ("event_count", "student=" + "x" * 1_025, "'student'"),
        ("reconstruct", "student=" + "x" * 60_000, "'student'"),
    ],
)
def test_a_wrong_parameter_is_named(
    front: Front, http: TestClient, name: str, query: str, named: str
) -> None:
    """400, whatever is wrong with it."""
    front.reduce()
    assert named in problem_of(http.get(f"/v1/states/{name}?{query}"), 400)


# --- waiting -------------------------------------------------------------------------------------


def test_min_size_waits_until_it_is_seen(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read your writes: the answer comes as soon as the state has seen the size that a receipt named."""
    send(front, "ann")
    front.reduce()
    send(front, "ann")
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            front.reduce()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    body = http.get("/v1/states/event_count?student=ann&min_size=4").json()
    assert (body["state"], body["position"], len(waits)) == ({"events": 2}, 4, 3)
    assert http.get("/v1/states/event_count?min_size=4").json()["position"] == 4
    assert len(waits) == 3


@pytest.mark.parametrize("query", ["student=ann&", ""])
def test_a_size_that_is_not_seen_in_time_is_503(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """The reader is asked to come again, and is given no older state in its place."""
    monkeypatch.setattr("api.states.WAIT_S_MAX", 0.02)
    send(front, "ann")
    front.reduce()
    detail = problem_of(http.get(f"/v1/states/event_count?{query}min_size=4"), 503)
    assert "not reached size 4" in detail


# --- rebuilding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["?student=ann", ""])
def test_states_that_are_rebuilt_are_503(front: Front, http: TestClient, query: str) -> None:
    """Before the first snapshot, and after the states were thrown away: ask again, never 404 or an empty list."""
    send(front, "ann")
    assert "rebuilt" in problem_of(http.get(f"/v1/states/event_count{query}"), 503)
    front.reduce()
    assert http.get(f"/v1/states/event_count{query}").status_code == 200
    for store in front.stores:
        States(store).clear()
    assert "rebuilt" in problem_of(http.get(f"/v1/states/event_count{query}"), 503)


def test_states_that_are_half_rebuilt_are_503(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a shard has seen what the log held when it began anew, there is no answer, and the front is not
    ready; a student who has no event yet is told apart from one whose events are not folded yet.
    """
    send(front, *STUDENTS)
    front.reduce()
    assert http.get("/readyz").status_code == 200
    monkeypatch.setattr(runner, "SLICE_ENTRIES", 4)
    States(front.stores[0]).clear()
    again = Runner(front.registry, front.vault, shard=0, shards=2, states=States(front.stores[0]))
    again.resume(front.source)
    again.step(front.source)
    again.save(front.source)
    ours = [name for name in STUDENTS if front.services.shard_of_key(event_count(front), (name,)) == 0]
    for query in ({"student": ours[-1]}, {"student": ours[0]}, {}):
        assert "rebuilt" in problem_of(http.get("/v1/states/event_count", params=query), 503)
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert ready.json()["shards"] == [
        {"shard": 0, "position": None, "lag": None, "rebuilding": {"position": 4, "until": 11}},
        {"shard": 1, "position": 11, "lag": 0},
    ]
    assert 'treering_shard_lag{shard="0"} 7.0' in http.get("/metrics").text
    page = http.get("/").text
    assert "states are being rebuilt" in page
    assert "4 of 11" in page
    run(again, front.source)
    again.save(front.source)
    assert http.get("/readyz").status_code == 200
    assert http.get("/v1/states/event_count", params={"student": ours[-1]}).json()["state"] == {"events": 1}


def event_count(front: Front) -> Reducer[Any]:
    """Return the reducer that counts events."""
    return front.registry.get("event_count")


def test_a_page_with_one_shard_missing_is_503(front: Front, http: TestClient) -> None:
    """Half a class is not the class."""
    send(front, *STUDENTS)
    front.reduce()
    States(front.stores[1]).clear()
    assert "rebuilt" in problem_of(http.get("/v1/states/event_count"), 503)


def test_states_of_older_code_are_503(front: Front, http: TestClient) -> None:
    """After an upgrade, what the old code left behind is never shown under the new code's name."""
    send(front, "ann")
    front.reduce()
    with front.source.open() as log:
        older = list(front.registry)[1:]
        for store in front.stores:
            States(store).save(log.size, log.root(), older, [], {})
    for query in ("?student=ann", ""):
        assert "rebuilt" in problem_of(http.get(f"/v1/states/event_count{query}"), 503)
    assert json.dumps(http.get("/readyz").json()["shards"][0]["position"]) == "null"
