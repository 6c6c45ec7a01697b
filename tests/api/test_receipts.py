"""Receipts and openings over HTTP and WebSocket: a proof for whoever asks, an opening for who may read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from archive import NotFound, Opening, check_opening, check_receipt
from merkle import TlogProof
from tests.api.front import Front, http_client, not_started, problem_of

JSON = {"content-type": "application/json"}
LINES = {"content-type": "application/x-ndjson"}
BODY = b' {"type":"t","keys":{"student":"ann"},"data":{}}\n'


def test_a_receipt_holds_by_itself(front: Front, http: TestClient) -> None:
    """With the public key alone: this leaf is entry 2 of the log, under the first checkpoint that covers it."""
    http.post("/v1/events", content=BODY, headers=JSON)
    http.post("/v1/events", content=BODY, headers=JSON)
    response = http.get("/v1/events/2/proof")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-disposition"] == 'inline; filename="2.tlog-proof"'
    proof = TlogProof.decode(response.content)
    checkpoint, leaf = check_receipt(proof, front.signer.verifier)
    assert (proof.index, checkpoint.size, leaf.time_s) == (
        2,
        3,
        http.get("/v1/events/2").json()["archived_s"],
    )
    assert proof.extra.hex() == http.get("/v1/events/2").json()["leaf"]


def test_a_receipt_can_stand_under_a_later_checkpoint(front: Front, http: TestClient) -> None:
    """Any size that was signed and covers the entry; others are not there."""
    for _ in range(3):
        http.post("/v1/events", content=b"[%b,%b]" % (BODY, BODY), headers=JSON)
    proof = TlogProof.decode(http.get("/v1/events/2/proof?size=8").content)
    assert check_receipt(proof, front.signer.verifier)[0].size == 8
    for size in (2, 3, 7, 9, 0, -4, 10**30):
        assert "no checkpoint of size" in problem_of(http.get(f"/v1/events/2/proof?size={size}"), 404)
    problem_of(http.get("/v1/events/2/proof?size=many"), 400)


def test_an_opening_shows_the_very_event(http: TestClient) -> None:
    """Salt, header and payload are what the leaf commits to; nobody may cache them."""
    http.post("/v1/events", content=BODY, headers=JSON)
    response = http.get("/v1/events/2/opening")
    assert response.headers["cache-control"] == "no-store"
    leaf = TlogProof.decode(http.get("/v1/events/2/proof").content).extra
    opened = check_opening(leaf, Opening.from_json(response.content))
    assert (opened.payload, opened.header.subject) == (BODY, "student:ann")


def test_no_receipt_contains_a_salt(http: TestClient) -> None:
    """A receipt may be shown to anyone: neither salt nor payload is in it, in any of the usual spellings."""
    http.post("/v1/events", content=BODY, headers=JSON)
    opening = http.get("/v1/events/2/opening").json()
    receipt = TlogProof.decode(http.get("/v1/events/2/proof").content)
    raw = receipt.extra + b"".join(receipt.proof) + receipt.checkpoint
    assert bytes.fromhex(opening["salt"]) not in raw
    assert b"ann" not in raw
    assert len(receipt.extra) == 58


@pytest.mark.parametrize("part", ["proof", "opening"])
@pytest.mark.parametrize("index", [99, -1, 10**30])
def test_an_entry_that_is_not_there_has_neither(http: TestClient, index: int, part: str) -> None:
    """404, as for the entry itself."""
    problem_of(http.get(f"/v1/events/{index}/{part}"), 404)


def test_a_control_entry_has_a_receipt_and_nothing_to_open(front: Front, http: TestClient) -> None:
    """Its leaf is all of it."""
    proof = TlogProof.decode(http.get("/v1/events/0/proof").content)
    assert check_receipt(proof, front.signer.verifier)[0].size == 2
    assert "nothing to open" in problem_of(http.get("/v1/events/0/opening"), 404)


def test_an_erased_entry_keeps_its_receipt(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the subject's secret is gone the entry cannot be opened, and is still provably in the log."""
    http.post("/v1/events", content=BODY, headers=JSON)

    def erased(_: object) -> None:
        raise NotFound("subject 0 is not in the vault: erased, or never admitted")

    monkeypatch.setattr(front.vault, "data_key", erased)
    assert "erased" in problem_of(http.get("/v1/events/2/opening"), 404)
    check_receipt(TlogProof.decode(http.get("/v1/events/2/proof").content), front.signer.verifier)


def test_before_the_first_start_there_is_neither(tmp_path: Path) -> None:
    """503: ask again."""
    with http_client(not_started(tmp_path)) as http:
        for part in ("proof", "opening"):
            problem_of(http.get(f"/v1/events/0/{part}"), 503)


# --- in acknowledgements -------------------------------------------------------------------------


def proofs_of(front: Front, results: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return (index, size) of the proofs in results, each checked."""
    found = []
    for result in results:
        proof = TlogProof.decode(result["proof"].encode())
        found.append((proof.index, check_receipt(proof, front.signer.verifier)[0].size))
    return found


def test_an_answer_carries_proofs_for_those_who_ask(front: Front, http: TestClient) -> None:
    """One for each receipt, of the same index and size; without receipt=1 answers stay as they were."""
    lines = b"\n".join(b'{"id":"%d","keys":{"student":"s%d"}}' % (n, n % 7) for n in range(600))
    answer = http.post("/v1/events?receipt=1", content=lines, headers=LINES).json()
    receipts = answer["receipts"]
    assert proofs_of(front, receipts) == [(one["index"], one["size"]) for one in receipts]
    again = http.post("/v1/events?receipt=1", content=lines, headers=LINES).json()["receipts"]
    assert again == receipts
    for query in ("", "?receipt=0"):
        plain = http.post(f"/v1/events{query}", content=lines, headers=LINES).json()["receipts"]
        assert plain == [{name: one[name] for name in ("index", "size", "grade")} for one in receipts]


def test_a_bad_line_has_a_problem_beside_the_proofs(front: Front, http: TestClient) -> None:
    """What could not be read has no receipt, and takes none from the others."""
    results = http.post("/v1/events?receipt=1", content=b"{\n" + BODY, headers=LINES).json()["receipts"]
    assert "error" in results[0]
    assert proofs_of(front, results[1:]) == [(3, 4)]


def test_a_key_field_may_be_called_receipt(http: TestClient) -> None:
    """receipt=$.path is a rule like any other; anything else than a path, 1 or 0 is refused."""
    body = b'{"number":"r7","keys":{"student":"ann"}}'
    answer = http.post("/v1/events?receipt=$.number&receipt=1", content=body, headers=JSON).json()
    assert "proof" in answer["receipts"][0]
    assert http.get("/v1/events/2").json()["keys"] == {"student": "ann", "receipt": "r7"}
    problem_of(http.post("/v1/events?receipt=yes", content=body, headers=JSON), 400)


def test_too_many_proofs_at_once_are_refused_before_anything_is_kept(front: Front, http: TestClient) -> None:
    """More than a thousand: 413, and the log has not grown."""
    lines = b"\n".join([b'{"keys":{"student":"s"}}'] * 1_001)
    assert "at most 1000" in problem_of(http.post("/v1/events?receipt=1", content=lines, headers=LINES), 413)
    assert front.archiver.head.size == 2
    assert http.post("/v1/events", content=lines, headers=LINES).status_code == 200


def test_an_ack_carries_a_proof_for_those_who_ask(front: Front, http: TestClient) -> None:
    """?ack=1&receipt=1: each ack has the text of its frame's receipt; with ?ack=1 alone it has not."""
    with http.websocket_connect("ws://localhost/wsapi/in/?ack=1&receipt=1") as socket:
        acks = []
        for number in range(3):
            socket.send_text(json.dumps({"event": "e", "n": number}))
            acks.append(socket.receive_json())
    assert [one["status"] for one in acks] == ["ack"] * 3
    assert proofs_of(front, acks) == [(2, 3), (3, 4), (4, 5)]
    with http.websocket_connect("ws://localhost/wsapi/in/?ack=1") as socket:
        socket.send_text('{"event":"e"}')
        assert "proof" not in socket.receive_json()


def test_without_acks_nobody_gets_a_proof(http: TestClient) -> None:
    """?receipt=1 alone changes nothing for the Learning Observer's clients: the next reply is the auth one."""
    with http.websocket_connect("ws://localhost/wsapi/in/?receipt=1") as socket:
        socket.send_text('{"event":"e"}')
        socket.send_text('{"event":"e","user_id":"ann"}')
        assert socket.receive_json() == {"status": "auth", "user_id": "testcase-ann"}
