"""Events in and out over HTTP: one answer for each event, and nothing answered that is not kept."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.bodies import TOTAL_SIZE_MAX
from archive import Write
from merkle import Ed25519Verifier, open_checkpoint
from tests.api.front import ORIGIN, Front, http_client, not_started, problem_of
from tests.checker import parts, table

LINES = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
XAPI = "/v1/events?student=$.actor.account.name&id=$.id"


def ours(student: str = "ann", name: str = "typed", **more: Any) -> dict[str, Any]:
    """Return an event of our own form."""
    return {"type": name, "keys": {"student": student, **more.pop("keys", {})}, "data": {}, **more}


def statement(number: int, name: str = "ann") -> bytes:
    """Return an event of somebody else's."""
    return json.dumps({"id": number, "actor": {"account": {"name": name}}}).encode()


# --- events in -----------------------------------------------------------------------------------


def test_one_event_is_kept_and_receipted(front: Front, http: TestClient) -> None:
    """The receipt names index and size; the answer, the checkpoint that covers it."""
    response = http.post("/v1/events", json=ours())
    assert response.status_code == 200
    body = response.json()
    assert body["receipts"] == [{"index": 2, "size": 3, "grade": "local"}]
    assert body["checkpoint"] == {"size": 3, "root": front.archiver.root.hex()}


def test_an_array_is_receipted_in_order(http: TestClient) -> None:
    """One receipt for each element, in the order in which they were sent, all under one size."""
    body = http.post("/v1/events", json=[ours(name=str(number)) for number in range(5)]).json()
    assert [one["index"] for one in body["receipts"]] == [2, 3, 4, 5, 6]
    payloads = [http.get(f"/v1/events/{index}").json()["payload"] for index in range(2, 7)]
    assert [json.loads(one)["type"] for one in payloads] == ["0", "1", "2", "3", "4"]


def test_many_events_are_submitted_in_chunks_and_answered_as_one(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a request is cut on its way to the archiver, its receipts stand in the order of its events."""
    monkeypatch.setattr("api.ingest.PART_EVENTS", 3)
    body = http.post("/v1/events", json=[ours(name=str(number)) for number in range(8)]).json()
    assert [one["index"] for one in body["receipts"]] == list(range(2, 10))
    assert body["checkpoint"]["size"] == 10


def test_good_and_bad_lines_stand_beside_each_other(http: TestClient) -> None:
    """Each line has its own result; a bad one says which line and why, and where it is recorded."""
    lines = [
        statement(1),
        b"",
        b'{"id":2,"actor":',
        b'{"id":3}',
        statement(4),
        b'"\xff"',
        statement(5, "bob"),
    ]
    response = http.post(XAPI, content=b"\r\n".join(lines) + b"\n", headers=LINES)
    assert response.status_code == 200
    results = response.json()["receipts"]
    assert [one.get("index") for one in results] == [2, None, None, 5, None, 7]
    details = [one["error"]["detail"] for one in results if "error" in one]
    assert details[0].startswith("line 3: malformed JSON")
    assert details[1].startswith("line 4: key field student ($.actor.account.name) is missing")
    assert details[2] == "line 6: invalid UTF-8 at byte 1"
    recorded = [one["error"]["recorded"]["index"] for one in results if "error" in one]
    assert recorded == [3, 4, 6]
    kept = http.get("/v1/events/3").json()
    assert (kept["kind"], kept["payload"]) == ("refused", '{"id":2,"actor":')
    assert kept["extra"]["reason"].startswith("malformed JSON")


def test_a_batch_of_bad_events_has_the_status_of_the_first(http: TestClient) -> None:
    """Where nothing could be kept as an event the whole is an error, with one result each."""
    response = http.post(XAPI, content=b"{\n{}\n", headers=LINES)
    assert response.status_code == 400
    assert [one["error"]["status"] for one in response.json()["receipts"]] == [400, 400]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "malformed JSON: Input data was truncated"),
        (b"", "malformed JSON: Input data was truncated"),
        (b'{"keys":{"student":null}}', "key field keys.student is missing; expected a string or a number"),
        (b'"\xff"', "invalid UTF-8 at byte 1"),
    ],
)
def test_one_bad_event_is_a_problem_and_is_recorded(http: TestClient, body: bytes, detail: str) -> None:
    """It is answered with 400 and what is wrong; its bytes are in the log, as refused."""
    response = http.post("/v1/events", content=body, headers=JSON)
    assert problem_of(response, 400) == detail
    index = response.json()["recorded"]["index"]
    kept = http.get(f"/v1/events/{index}").json()
    assert (kept["kind"], kept["extra"]["reason"]) == ("refused", detail)
    payload = kept["payload"]
    assert (payload.encode() if isinstance(payload, str) else base64.b64decode(payload["base64"])) == body


def test_a_torn_array_is_recorded_as_it_came(front: Front, http: TestClient) -> None:
    """Nobody can take it apart, but the bytes came in, so they are kept."""
    response = http.post("/v1/events", content=b'[{"a":1},', headers=JSON)
    assert problem_of(response, 400).startswith("malformed JSON")
    kept = http.get("/v1/events/2").json()
    assert (kept["kind"], kept["payload"]) == ("refused", '[{"a":1},')
    assert front.services.counters.refused == 1


@pytest.mark.parametrize("body", [b"[]", b" [ ] "])
def test_an_empty_array_is_a_mistake(http: TestClient, body: bytes) -> None:
    """A request without an event is told so, rather than answered with nothing."""
    assert "no event" in problem_of(http.post("/v1/events", content=body, headers=JSON), 400)
    assert "no event" in problem_of(http.post("/v1/events", content=b"\n\n", headers=LINES), 400)


def test_other_content_types_are_refused(front: Front, http: TestClient) -> None:
    """415, which says what to send; nothing is kept."""
    response = http.post("/v1/events", content=b"a,b", headers={"content-type": "text/csv"})
    assert "application/x-ndjson" in problem_of(response, 415)
    assert "application/json" in problem_of(http.post("/v1/events", content=b"{}"), 415)
    assert front.direct.submitted == []


@pytest.mark.parametrize("coding", ["gzip", "identity, br", "GZIP"])
def test_a_packed_body_is_refused(front: Front, http: TestClient, coding: str) -> None:
    """Its bytes are no events, and would be kept for good as ones that nobody can read: 415 says what is taken."""
    body = gzip.compress(b'{"type":"t","keys":{"student":"ann"}}')
    response = http.post("/v1/events", content=body, headers={**JSON, "content-encoding": coding})
    assert "unpacked" in problem_of(response, 415)
    assert response.headers["accept-encoding"] == "identity"
    assert front.direct.submitted == []
    plain = {**JSON, "content-encoding": "identity"}
    assert http.post("/v1/events", content=gzip.decompress(body), headers=plain).status_code == 200


def test_too_much_at_once_is_refused(front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """413 beyond the size of a request or the number of its events, which says the limit; nothing is kept."""
    monkeypatch.setattr("api.bodies.BODY_SIZE_MAX", 40)
    monkeypatch.setattr("api.ingest.EVENTS_MAX", 3)
    assert http.post("/v1/events", content=b" " * 38 + b"{}", headers=JSON).status_code == 200
    kept = len(front.direct.submitted)
    assert "at most 40 bytes" in problem_of(http.post("/v1/events", content=b" " * 41, headers=JSON), 413)
    assert "at most 3 in one" in problem_of(http.post("/v1/events", content=b"[1,2,3,4]", headers=JSON), 413)
    assert len(front.direct.submitted) == kept


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("Student=$.a", "'Student'"),
        ("student=a", "'student'"),
        ("student=$..a", "'student'"),
        ("student=$[", "'student'"),
        ("pretty=1", "'pretty'"),
    ],
)
def test_a_wrong_parameter_is_named(front: Front, http: TestClient, query: str, named: str) -> None:
    """400 for the whole request, before anything is kept."""
    assert named in problem_of(http.post(f"/v1/events?{query}", json={}), 400)
    assert front.direct.submitted == []


def test_the_same_id_and_content_is_the_same_receipt(http: TestClient) -> None:
    """Sent again, alone or in a batch, an event is kept once, and every receipt is the first one."""
    first = http.post(XAPI, content=statement(1), headers=JSON).json()["receipts"]
    again = http.post(XAPI, content=statement(1), headers=JSON).json()["receipts"]
    batch = http.post(XAPI, content=b"\n".join([statement(2), statement(1), statement(2)]), headers=LINES)
    receipts = batch.json()["receipts"]
    assert first == again == [receipts[1]]
    assert receipts[0] == receipts[2]
    assert batch.json()["checkpoint"]["size"] == 4


def test_an_id_with_other_content_is_a_conflict(http: TestClient) -> None:
    """409, which says what to do; in a batch it is the one result that is an error, with its line."""
    http.post(XAPI, content=statement(1), headers=JSON)
    other = statement(1, "bob")
    detail = problem_of(http.post(XAPI, content=other, headers=JSON), 409)
    assert "send a new id" in detail
    assert "bob" not in detail
    response = http.post(XAPI, content=b"\n".join([statement(2), other]), headers=LINES)
    assert response.status_code == 200
    kept, refused = response.json()["receipts"]
    assert (kept["index"], refused["error"]["status"]) == (3, 409)


def test_ids_belong_to_their_producer(http: TestClient) -> None:
    """Two producers may use the same id for different events."""
    one = http.post("/v1/events", json=ours(id="1", producer="a")).json()["receipts"]
    other = http.post("/v1/events", json=ours(name="other", id="1", producer="b")).json()["receipts"]
    assert (one[0]["index"], other[0]["index"]) == (2, 3)


def test_without_its_archiver_a_front_asks_to_wait(front: Front, http: TestClient) -> None:
    """503 with Retry-After; nothing is acknowledged, and nothing is kept."""
    size = front.archiver.head.size
    front.direct.is_connected = False
    assert "try again" in problem_of(http.post("/v1/events", json=ours()), 503)
    assert front.archiver.head.size == size
    front.direct.is_connected = True
    assert http.post("/v1/events", json=ours()).status_code == 200


@pytest.mark.parametrize("kept", [False, True])
def test_an_archiver_that_goes_away_leaves_no_receipt(front: Front, http: TestClient, kept: bool) -> None:
    """Whether the event is kept or not cannot be known, and the answer does not pretend either way."""
    front.direct.lose_at, front.direct.lost_are_kept = 0, kept
    assert "may be kept or not" in problem_of(http.post(XAPI, content=statement(1), headers=JSON), 503)
    front.direct.lose_at = None
    response = http.post(XAPI, content=statement(1), headers=JSON)
    assert response.json()["receipts"][0]["index"] == 2
    assert front.archiver.head.size == 3


def test_an_event_that_the_archiver_refuses_is_an_error(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too large for the log is answered with its own problem."""
    monkeypatch.setattr("archive.drafting.PAYLOAD_SIZE_MAX", 10)
    assert "at most 10" in problem_of(http.post("/v1/events", json=ours()), 400)


# --- events out ----------------------------------------------------------------------------------


def test_an_event_reads_back_as_it_was_sent(front: Front, http: TestClient) -> None:
    """The very bytes, the keys, the times, and the leaf and checkpoint that prove it."""
    body = b' {"type":"t", "producer":"pad", "source":"org.tool","id":"x","keys":{"student":"ann"}}\n'
    http.post("/v1/events", content=body, headers=JSON)
    entry = http.get("/v1/events/2").json()
    assert entry["payload"].encode() == body
    named = ("kind", "index", "subject", "sequence", "source", "sender", "form", "keys")
    assert [entry[name] for name in named] == [
        "event",
        2,
        "student:ann",
        1,
        "org.tool",
        "pad",
        "event",
        {"student": "ann"},
    ]
    assert entry["extra"] == {"id": "x"}
    assert entry["received_us"] == front.services.clock.now_us()
    assert bytes.fromhex(entry["leaf"]) == parts(table(front.log, "leaves"), 2)[2]
    checkpoint = open_checkpoint(entry["checkpoint"]["note"].encode(), front.signer.verifier)
    assert entry["checkpoint"]["size"] == checkpoint.size == 3


def test_control_entries_read_back(http: TestClient) -> None:
    """The log's own entries are there for everybody."""
    first, second = (http.get(f"/v1/events/{index}").json() for index in (0, 1))
    assert (first["kind"], first["body"]["origin"]) == ("control", ORIGIN)
    assert (second["kind"], second["body"]["software"]) == ("control", "test")


def test_frames_and_bindings_read_back(http: TestClient) -> None:
    """What came over a WebSocket can be read like anything else: protocol, binding, refused bytes."""
    with http.websocket_connect("ws://localhost/wsapi/in/?ack=1") as socket:
        socket.send_text('{"event":"a"}')
        socket.send_text('{"event":"lock_fields","fields":{"user_id":"ann"}}')
        socket.send_bytes(b"\xff\x00")
        for _ in range(4):
            socket.receive_json()
    entries = [http.get(f"/v1/events/{index}").json() for index in range(2, 6)]
    assert [one["kind"] for one in entries] == ["event", "frame", "binding", "refused"]
    assert entries[2]["subject"] == "student:testcase-ann"
    assert entries[2]["extra"]["bind"] == entries[0]["subject"]
    assert base64.b64decode(entries[3]["payload"]["base64"]) == b"\xff\x00"


def test_an_erased_entry_says_so(front: Front, http: TestClient) -> None:
    """Leaf and proof stay; of what it held, nothing is left to show."""
    http.post("/v1/events", json=ours())
    vault = front.services.vault
    keys = vault.find("student:ann")
    assert keys is not None
    vault._store.commit([Write("subjects", keys.number.to_bytes(8), None)])
    vault.forget()
    response = http.get("/v1/events/2")
    assert response.json()["kind"] == "erased"
    assert "ann" not in response.text


@pytest.mark.parametrize("index", ["3", "-1", "99999999999999999999999"])
def test_an_entry_that_does_not_exist_is_404(http: TestClient, index: str) -> None:
    """Beyond the published size there is nothing; the answer says how much there is."""
    http.post("/v1/events", json=ours())
    assert "the log has 3 entries" in problem_of(http.get(f"/v1/events/{index}"), 404)


def test_what_is_no_index_is_400(http: TestClient) -> None:
    """The answer names the parameter."""
    assert "index" in problem_of(http.get("/v1/events/first"), 400)


def test_nothing_is_shown_before_it_is_published(front: Front, http: TestClient) -> None:
    """An entry that is in the database but not published does not exist yet."""
    http.post("/v1/events", json=ours())
    front.services._published.set(2)  # type: ignore[union-attr]
    assert "the log has 2 entries" in problem_of(http.get("/v1/events/2"), 404)


# --- the log, operations, hosts ------------------------------------------------------------------


def test_the_checkpoint_verifies_with_the_public_key(front: Front, http: TestClient) -> None:
    """What /log/checkpoint gives is a signed note over size and root that anyone may check, and never cached."""
    http.post("/v1/events", json=ours())
    response = http.get("/log/checkpoint")
    verifier = Ed25519Verifier.decode(front.signer.verifier.encode())
    checkpoint = open_checkpoint(response.content, verifier, origin=ORIGIN)
    assert (checkpoint.size, checkpoint.root) == (3, front.archiver.root)
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"].startswith("text/plain")


def test_alive_and_ready_are_two_things(front: Front, http: TestClient) -> None:
    """A front is alive when it answers; ready, when events can be kept and states be read."""
    assert http.get("/healthz").json() == {"status": "ok"}
    response = http.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    assert [one["position"] for one in response.json()["shards"]] == [None, None]
    front.reduce()
    response = http.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (200, True)
    assert response.json()["shards"] == [{"shard": n, "position": 2, "lag": 0} for n in (0, 1)]
    http.post("/v1/events", json=ours())
    assert [one["lag"] for one in http.get("/readyz").json()["shards"]] == [1, 1]
    front.direct.is_connected = False
    assert (http.get("/readyz").status_code, http.get("/healthz").status_code) == (503, 200)


def test_metrics_count_and_name_nobody(front: Front, http: TestClient) -> None:
    """Sizes, lags and results, and not one word of what was sent."""
    secret = "persephone"
    sent = ours(secret, keys={"doc_id": secret}, source=secret, id=secret, producer=secret)
    http.post("/v1/events", json=[sent, ours("")])
    with http.websocket_connect("ws://localhost/wsapi/in/?ack=1") as socket:
        socket.send_text(json.dumps({"event": "hello", "user_id": secret}))
        socket.receive_json(), socket.receive_json()
        text = http.get("/metrics").text
    front.reduce()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["treering_log_size"]) == 5
    assert float(values["treering_archiver_up"]) == 1
    assert float(values["treering_connections"]) == 1
    assert float(values['treering_shard_lag{shard="1"}']) == 5
    assert float(values['treering_events_total{result="accepted"}']) == 2
    assert float(values['treering_events_total{result="refused"}']) == 1
    assert secret not in text + http.get("/metrics").text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8400", "localhost.evil.example", "10.0.0.1", ""]
)
@pytest.mark.parametrize("path", ["/", "/v1/states", "/v1/events/0", "/log/checkpoint", "/healthz"])
def test_another_host_name_is_refused(http: TestClient, host: str, path: str) -> None:
    """A web page that points its own name at this machine reads nothing (DNS rebinding)."""
    response = http.get(path, headers={"host": host})
    assert "not a name of this server" in problem_of(response, 400)
    assert ORIGIN not in response.text
    assert "8400" not in response.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8400", "127.0.0.1:1", "[::1]:8400", "LOCALHOST"])
def test_the_names_of_loopback_may_be_used(http: TestClient, host: str) -> None:
    """With any port, and by address."""
    assert http.get("/healthz", headers={"host": host}).status_code == 200


def test_what_is_not_there_is_a_problem(http: TestClient) -> None:
    """An unknown path and a wrong method answer in the same form as everything else."""
    problem_of(http.get("/nothing"), 404)
    wrong = http.delete("/v1/events")
    problem_of(wrong, 405)
    assert wrong.headers["allow"] == "POST"


def test_every_operation_has_a_name_of_its_own(http: TestClient) -> None:
    """A client that is made from /openapi.json has one method for each operation; making it warns of nothing."""
    paths = http.get("/openapi.json").json()["paths"]
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert {"get", "head"} <= paths["/log/checkpoint"].keys()
    assert len(names) == len(set(names)) > 10


# --- before the first start ----------------------------------------------------------------------


def test_a_front_answers_before_its_archiver_ever_ran(tmp_path: Path) -> None:
    """Everything that needs the log asks to wait; health, metrics and the page say what is missing."""
    with http_client(not_started(tmp_path)) as http:
        for path in ("/v1/events/0", "/log/checkpoint", "/v1/states/event_count?student=ann"):
            problem_of(http.get(path), 503)
        problem_of(http.get("/v1/states/event_count"), 503)
        problem_of(http.post("/v1/events", json=ours()), 503)
        ready = http.get("/readyz").json()
        assert (ready["ready"], ready["archiver"], ready["size"]) == (False, False, 0)
        assert ready["shards"] == [{"shard": n, "position": None, "lag": None} for n in (0, 1)]
        assert http.get("/healthz").status_code == 200
        assert "treering_archiver_up 0.0" in http.get("/metrics").text
        assert "has not been started yet" in http.get("/").text
        assert list(tmp_path.iterdir()) == []


def test_a_body_that_cannot_be_taken_apart_is_kept_and_named(http: TestClient) -> None:
    """A torn array is recorded whole, as refused, and the answer says where."""
    problem = http.post("/v1/events", content=b'[{"a":1},', headers=JSON).json()
    entry = http.get(f"/v1/events/{problem['recorded']['index']}").json()
    assert (entry["kind"], entry["payload"]) == ("refused", '[{"a":1},')


def test_bodies_together_are_bounded(front: Front, http: TestClient) -> None:
    """Beyond the budget of all bodies a request is answered 503, and the budget is whole again afterwards."""
    front.services.bodies.take(TOTAL_SIZE_MAX - 10)
    refused = http.post("/v1/events", content=b" " * 11, headers=JSON)
    assert "too many large requests" in problem_of(refused, 503)
    assert http.post("/v1/events", content=b"{}", headers=JSON).status_code == 200
    assert front.services.bodies.size == TOTAL_SIZE_MAX - 10


def test_millions_of_tiny_values_are_refused_before_they_are_made(http: TestClient) -> None:
    """What is small in bytes and large in memory is refused by counting bytes."""
    many = http.post("/v1/events", content=b"[" + b"1," * 2_500_001 + b"1]", headers=JSON)
    assert "send NDJSON, or less" in problem_of(many, 413)
    lines = http.post("/v1/events", content=b"1\n" * 100_001, headers=LINES)
    assert "at most 100000" in problem_of(lines, 413)


def test_the_name_of_a_key_field_is_bounded(http: TestClient) -> None:
    """A field name of a kilobyte is the sender's mistake."""
    event = {"type": "t", "keys": {"student": "ann", "x" * 65: "1"}}
    assert "longer than 64" in problem_of(http.post("/v1/events", json=event), 400)
