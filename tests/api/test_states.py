"""States out over HTTP: what was asked for, what it stands on, and never "no data" for "not yet"."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.states import first_of
from reducers import Event, Module, StatePair, digest_of_entries, entry_digest, reducer
from replay import Digests, StoredSlot, module_folder, read_catalogue, state_key, write_catalogue
from tests.api.front import Front, problem_of
from tests.world import event
from tools.loading import states_place

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
    counts = front.reducers["event_count"]
    digest = entry_digest(StatePair("event_count", 1, ("ann",), b'{"events":2}')).hex()
    assert body == {
        "reducer": "event_count",
        "key": {"student": "ann"},
        "state": {"events": 2},
        "position": 5,
        "checkpoint": {"size": 6, "root": front.archiver.root.hex()},
        "version": 1,
        "code_digest": counts.code_digest,
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
    assert detail == "no event of this key in the first 3 entries (skipped ones aside)"


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


def test_a_page_is_bounded_in_bytes(front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """States may be whole documents: a page ends with the one that fills it, and `next` leads to all the others."""
    monkeypatch.setattr("api.states.PAGE_BYTES", 3_000)
    for number, student in enumerate(STUDENTS):
        commands = [{"ty": "is", "ibi": 1, "s": "x" * (9_000 if number == 4 else 900 + number)}]
        data = {"bundles": [{"commands": commands}]}
        front.archiver.step([event(student, "google_docs_save", data, doc_id="d")])
    front.reduce()
    found: list[Any] = []
    sizes = []
    query: dict[str, Any] = {}
    while True:
        body = http.get("/v1/states/reconstruct", params=query).json()
        sizes.append([len(one["state"]["text"]) for one in body["states"]])
        found += [one["key"]["student"] for one in body["states"]]
        if "next" not in body:
            break
        query["after"] = body["next"]
    assert found == STUDENTS
    assert max(map(sum, sizes)) == 9_000, "one is given, however large it is, and ends the page"
    assert all(sum(page[:-1]) < 3_000 for page in sizes)
    assert max(map(len, sizes)) > 1


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=20),
    st.integers(1, 8),
    st.integers(1, 30),
)
def test_shards_that_are_cut_make_the_same_page(states: list[tuple[int, int]], limit: int, size: int) -> None:
    """Of each shard no more is read than fills a page, and the page is that of all states together."""
    rows = [
        (bytes([number]), StoredSlot(1, (), 0, None, None, b"x" * length))
        for number, (_, length) in enumerate(states)
    ]
    shards = [[row for row, (shard, _) in zip(rows, states, strict=True) if shard == one] for one in range(3)]
    cut = [row for shard in shards for row in first_of(shard, limit, size)[0]]
    page, more = first_of(cut, limit, size)
    assert page == first_of(rows, limit, size)[0]
    assert more or len(page) == len(rows)


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
    front.crews[1].step(front.source)
    front.crews[1].save(front.source)
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
    pairs = [
        pair
        for one in front.crews
        for each in one.holdings
        for pair in each.pairs()
        if pair.name == "event_count"
    ]
    assert digest_of_entries(digests) == digest_of_entries(
        {pair.identity: entry_digest(pair) for pair in pairs}
    )


def test_reducers_are_listed(front: Front, http: TestClient) -> None:
    """Name, version, scope and code of each reducer there is."""
    found = {one["reducer"]: one for one in http.get("/v1/states").json()["reducers"]}
    assert set(found) == set(front.reducers)
    assert found["reconstruct"]["scope"] == ["student", "doc_id"]
    assert found["reconstruct"]["code_digest"] == front.reducers["reconstruct"].code_digest


def test_an_unknown_reducer_is_404(http: TestClient) -> None:
    """The answer lists those there are."""
    detail = problem_of(http.get("/v1/states/nothing?student=ann"), 404)
    assert "'nothing'" in detail
    assert "event_count" in detail


def token(name: str, *key: str) -> str:
    """Return what would lead to the states after this one."""
    return base64.urlsafe_b64encode(state_key(name, key)).decode().rstrip("=")


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
        ("event_count", "limit=0", "'limit'"),
        ("event_count", "after=zzz", "'after'"),
        ("event_count", "after=" + token("touchy", "ann"), "'after'"),
        ("reconstruct", "student=ann&after=" + token("reconstruct", "bob", "d"), "'after'"),
        ("event_count", "student=ann&limit=5", "'limit'"),
        ("event_count", "student=ann&limit=abc&after=%%", "'after'"),
        ("event_count", "student=ann&after=" + token("event_count", "ann"), "'after'"),
        ("event_count", "student=ann&at_size=1&min_size=1", "'min_size'"),
        ("event_count", "student=ann&at_size=1&limit=1", "'limit'"),
        ("event_count", "after=a", "'after'"),
        ("event_count", "after=é", "'after'"),
        ("event_count", "after=%25%25%25", "'after'"),
        ("event_count", "student=bob&student=ann", "'student'"),
        ("event_count", "min_size=1&min_size=2", "'min_size'"),
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
    for shard in (0, 1):
        front.clear(shard)
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
    monkeypatch.setattr("replay.feed.SLICE_ENTRIES", 4)
    front.clear(0)
    again = front.crew(0, 2)
    again.step(front.source)
    again.save(front.source)
    ours = [name for name in STUDENTS if home(front, name) == 0]
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
    while again.step(front.source):
        pass
    again.save(front.source)
    assert http.get("/readyz").status_code == 200
    assert http.get("/v1/states/event_count", params={"student": ours[-1]}).json()["state"] == {"events": 1}


def home(front: Front, student: str) -> int:
    """Return the shard of a student's states."""
    _, info = front.services.shelf.find("event_count")
    return front.services.shelf.home(info, (student,), front.vault.route_key)


def test_a_page_with_one_shard_missing_is_503(front: Front, http: TestClient) -> None:
    """Half a class is not the class."""
    send(front, *STUDENTS)
    front.reduce()
    front.clear(1)
    assert "rebuilt" in problem_of(http.get("/v1/states/event_count"), 503)


def by_tens(state: int, event: Event) -> int:  # noqa: ARG001 - it counts whatever comes
    """Count otherwise than the version before."""
    return state + 10


def test_states_of_older_code_answer_until_the_new_ones_are_whole(front: Front, http: TestClient) -> None:
    """An upgrade costs nobody his dashboard: the old states answer, where they stopped, until the new ones have seen
    the whole log; what the old code made is never shown under the new code's name.
    """
    send(front, "ann")
    front.reduce()
    upgraded = reducer(name="touchy", version=2)(by_tens)
    front.modules[-1] = Module("touchy", (upgraded,))
    send(front, "ann")
    place = states_place(front.folder.state, 0, front.modules[-1], home(front, "ann"), 2)
    front.services.shelf._looked_at = 0.0
    before = http.get("/v1/states/touchy?student=ann").json()
    assert (before["state"], before["version"], before["position"]) == (1, 1, 3)
    front.crews = [front.crew(shard, 2) for shard in range(2)]
    assert place in front.stores
    front.reduce()
    after = http.get("/v1/states/touchy?student=ann").json()
    assert (after["state"], after["version"], after["position"]) == (20, 2, 4)


def test_states_of_other_code_are_503(front: Front, http: TestClient) -> None:
    """States that the catalogue does not speak of are none: here, of a module that has lost its catalogue's code."""
    send(front, "ann")
    front.reduce()
    place = module_folder(front.folder.state, 0, "touchy")
    catalogue = read_catalogue(place)
    assert catalogue is not None
    write_catalogue(place, msgspec.structs.replace(catalogue, generation="0" * 16))
    front.services.shelf._looked_at = 0.0
    for query in ("?student=ann", ""):
        assert "rebuilt" in problem_of(http.get(f"/v1/states/touchy{query}"), 503)
    assert json.dumps(http.get("/readyz").json()["shards"][0]["position"]) == "null"
