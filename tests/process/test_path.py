"""The whole path on one machine: events in, committed, reduced, readable, replayable, verifiable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.process.served import OWN, Served, run, run_json, serving

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a server for tests that talk to it about students of their own."""
    with serving(tmp_path_factory.mktemp("path") / "data") as made:
        yield made


def frame(event: str, **fields: object) -> str:
    """Return a frame as the Learning Observer's clients send it."""
    return json.dumps({"event": event, "source": "org.example.test", **fields})


def test_an_event_comes_out_as_state_and_is_verified(tmp_path: Path) -> None:
    """What is sent by HTTP is answered with a receipt, read as state, replayed to the same digest, verified."""
    data = tmp_path / "data"
    with serving(data) as server:
        body = b'{"type":"hello","keys":{"student":"ann"},"data":{}}'
        answer = server.post(body).json()
        receipt = answer["receipts"][0]
        state = server.get("/v1/states/event_count", student="ann", min_size=receipt["size"]).json()
        assert state["state"] == {"events": 1}
        entry = server.get(f"/v1/events/{receipt['index']}").json()
        assert entry["payload"] == body.decode()
        vkey = run("keys", "vkey", "--data", str(data)).strip()
        running = run_json("verify-log", str(data), "--vkey", vkey, "--vault")
        assert (running["verified"], running["entries"], running["opened"]) == (True, OWN + 1, 1)
    stopped = run_json("verify-log", str(data), "--vkey", vkey)
    assert stopped["root"] == running["root"]


def test_replay_equals_the_live_states_with_any_number_of_shards(tmp_path: Path) -> None:
    """Live states of two workers equal a replay with 1, 2 and 5 shards, by the same digest."""
    data = tmp_path / "data"
    with serving(data) as server:
        _send_a_class(server)
        server.wait_ready()
        checked = [run_json("replay", "--data", str(data), "--check", "--shards", n) for n in ("1", "2", "5")]
    assert [one["equal"] for one in checked] == [True] * 3
    assert [one["states"] for one in checked] == [12 + 12 + 24 + 24 + 12] * 3
    assert len({one["state_digest"] for one in checked}) == 1


def test_the_number_of_shards_may_change_at_a_start(tmp_path: Path) -> None:
    """A server started again with another number of workers shows the same states."""
    data = tmp_path / "data"
    digests = set()
    for shards in ("2", "3", "1"):
        with serving(data, "--shards", shards) as server:
            if shards == "2":
                _send_a_class(server)
            server.wait_ready()
            checked = run_json("replay", "--data", str(data), "--check")
            assert checked["equal"] is True
            digests.add(checked["state_digest"])
    assert len(digests) == 1


def test_a_late_identity_is_folded_on_a_real_socket(server: Served) -> None:
    """Frames sent before the connection said who it is are the person's, once it has said so."""
    with connect(server.socket_url, compression=None) as socket:
        socket.send(frame("keystroke"))
        socket.send(frame("keystroke"))
        assert [json.loads(socket.recv())["status"] for _ in range(2)] == ["ack", "ack"]
        socket.send(json.dumps({"event": "lock_fields", "fields": {"user_id": "late"}}))
        answers = [json.loads(socket.recv()) for _ in range(2)]
        assert answers[0] == {"status": "auth", "user_id": "testcase-late"}
        size = answers[1]["size"]
    state = server.get("/v1/states/event_count", student="testcase-late", min_size=size).json()
    assert state["state"] == {"events": 2}


def test_a_bad_frame_is_answered_and_ends_nothing(server: Served) -> None:
    """Binary, malformed, nameless and non-UTF-8 frames are recorded as refused; the next good one is taken."""
    with connect(server.socket_url, compression=None) as socket:
        socket.send(b"\x00\x01")
        socket.send('{"event":')
        socket.send('{"no":"event"}')
        socket.send(b'{"event":"\xff"}', text=True)
        socket.send(frame("hello", user_id="ann"))
        answers = [json.loads(socket.recv()) for _ in range(6)]
    assert [one["status"] for one in answers] == ["refused"] * 4 + ["auth", "ack"]
    assert "UTF-8" in answers[3]["reason"]
    refused = server.get(f"/v1/events/{answers[1]['index']}").json()
    assert (refused["kind"], refused["payload"]) == ("refused", '{"event":')
    state = server.get("/v1/states/event_count", student="testcase-ann", min_size=answers[5]["size"])
    assert state.json()["state"] == {"events": 1}


def test_the_same_events_sent_twice_with_ids_are_kept_once(tmp_path: Path) -> None:
    """A batch with ids sent again gets the same receipts, also from a restarted server; the log does not grow."""
    data = tmp_path / "data"
    body = b"\n".join(b'{"id":"e%d","who":"s%d"}' % (n, n % 7) for n in range(2_000))
    answers = []
    for _ in range(2):
        with serving(data) as server:
            for _ in range(2):
                answer = server.post(body, "application/x-ndjson", student="$.who", id="$.id").json()
                answers.append(answer["receipts"])
    assert all(one == answers[0] for one in answers)
    report = run_json("verify-log", str(data), "--vault")
    assert report["entries"] == 2_000 + report["control"]


def _send_a_class(server: Served) -> None:
    lines = []
    for number in range(600):
        keys = {"student": f"s{number % 12}", "doc_id": f"d{number % 24}"}
        event = {"type": "google_docs_save", "time": number * 1_000, "keys": keys, "data": {"n": number}}
        lines.append(json.dumps(event).encode())
    answer = server.post(b"\n".join(lines), "application/x-ndjson")
    assert answer.status_code == 200
