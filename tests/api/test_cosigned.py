"""What the outside sees where a policy is configured: what enough witnesses have cosigned, and nothing beyond."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient

from api import WitnessedClient, cosigned, cosigned_size
from archive import (
    Answer,
    ArchiverClient,
    ManualClock,
    Receipt,
    Refusal,
    Submission,
    Target,
    Unavailable,
    Unknown,
    check_receipt,
    write_cosigned,
)
from merkle import Checkpoint, Cosigner, Policy, Signature, TlogProof
from tests.api.front import Front, problem_of
from tests.archive.site import event

WITNESS, OTHER = (Cosigner(f"witness.example/{name}", name.encode() * 32) for name in "wo")
NAMED = f"witness w {WITNESS.verifier.encode()}\nwitness o {OTHER.verifier.encode()}\n"
POLICY = Policy.parse(f"{NAMED}quorum w\n".encode())
STRICTER = Policy.parse(f"{NAMED}group both 2 w o\nquorum both\n".encode())


def size_of(http: TestClient) -> int:
    """Return the size of the public checkpoint."""
    answer = http.get("/log/checkpoint")
    assert answer.status_code == 200, answer.text
    return Checkpoint.decode(answer.text.partition("\n\n")[0] + "\n").size


def cosign(front: Front) -> bytes:
    """Publish the newest checkpoint, as the witnessing service does once the policy is met; return its note."""
    with front.source.open() as log:
        target = Target.newest(log)
    signer = WITNESS.at(100)
    text = target.checkpoint.encode()
    target.add("w", [Signature(signer.name, signer.key_id, signer.sign(text.encode()))])
    assert write_cosigned(front.folder.cosigned, target, POLICY)
    return front.folder.cosigned.read_bytes()


def test_without_a_policy_the_newest_checkpoint_is_public(front: Front, http: TestClient) -> None:
    """Also if a cosigned one lies there from a time with a policy."""
    cosign(front)
    before = size_of(http)
    front.archiver.step([event(b"{}")])
    assert size_of(http) == before + 1


def test_with_a_policy_the_outside_lags_behind(front: Front, http: TestClient) -> None:
    """The cosigned checkpoint is served byte for byte, and entries and tiles end where it ends."""
    front.services.policy = POLICY
    front.archiver.step([event(b"{}")])
    note = cosign(front)
    answer = http.get("/log/checkpoint")
    assert answer.content == note
    size = size_of(http)
    front.archiver.step([event(b"{}")])
    assert size_of(http) == size < front.archiver.head.size
    for path in ("tile/0/000.p", "tile/entries/000.p"):
        assert http.get(f"/log/{path}/{size}").status_code == 200
        assert http.get(f"/log/{path}/{size + 1}").status_code == 404
    cosign(front)
    assert size_of(http) == size + 1


def test_a_receipt_carries_the_cosignatures(front: Front, http: TestClient) -> None:
    """Once the cosigned checkpoint covers an entry, its receipt stands under that one, and before under the log's."""
    front.services.policy = POLICY
    front.archiver.step([event(b"{}")])
    index = front.archiver.head.size - 1
    local = TlogProof.decode(http.get(f"/v1/events/{index}/proof").content)
    front.archiver.step([event(b"{}")])
    note = cosign(front)
    witnessed = TlogProof.decode(http.get(f"/v1/events/{index}/proof").content)
    assert (local.checkpoint != note, witnessed.checkpoint == note) == (True, True)
    for proof, size in ((local, index + 1), (witnessed, index + 2)):
        assert check_receipt(proof, front.signer.verifier)[0].size == size
    assert TlogProof.decode(http.get(f"/v1/events/{index}/proof?size={index + 1}").content) == local
    front.archiver.step([event(b"{}")])
    beyond = TlogProof.decode(http.get(f"/v1/events/{index + 2}/proof").content)
    assert check_receipt(beyond, front.signer.verifier)[0].size == index + 3


def test_before_the_first_cosignatures_nothing_is_public(front: Front, http: TestClient) -> None:
    """Neither a checkpoint nor a tile; inside, everything works as ever."""
    front.services.policy = POLICY
    detail = problem_of(http.get("/log/checkpoint"), 404)
    assert "cosigned" in detail
    assert http.get("/log/tile/0/000.p/1").status_code == 404
    assert http.get("/v1/events/0").status_code == 200


def test_what_met_another_policy_is_not_shown(front: Front, http: TestClient) -> None:
    """After a change of policy nothing is public until the new one is met, and no answer claims otherwise."""
    front.services.policy = POLICY
    cosign(front)
    size = size_of(http)
    front.services.policy = STRICTER
    problem_of(http.get("/log/checkpoint"), 404)
    assert cosigned_size(front.services) == 0
    front.services.policy = Policy.parse(b"quorum none\n")
    assert size_of(http) == size


class Waiting:
    """A client that waits for witnesses, in front of an archiver that the test plays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = 0
        self.kept: list[asyncio.Future[list[Answer]]] = []
        self.client = WitnessedClient(Path("none"))
        self.client.seen = lambda: self.size
        monkeypatch.setattr(ArchiverClient, "submit", self._submit)
        monkeypatch.setattr(cosigned, "POLL_S", 0.001)

    def _submit(self, submissions: Sequence[Submission]) -> asyncio.Future[list[Answer]]:
        assert len(submissions) == 1
        self.kept.append(asyncio.get_running_loop().create_future())
        return self.kept[-1]

    async def turns(self) -> None:
        """Let whatever waits look more than once."""
        for _ in range(5):
            await asyncio.sleep(0.002)


def test_an_answer_waits_until_the_outside_may_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come in order, each once its size is cosigned; refusals speak of nothing and wait for nothing."""

    async def play() -> None:
        waiting = Waiting(monkeypatch)
        told = [waiting.client.submit([event(b"{}")]) for _ in range(4)]
        answers: list[list[Answer]] = [
            [Receipt(2, 3)],
            [Receipt(3, 5)],
            [Refusal("invalid", "no")],
            [Receipt(4, 5)],
        ]
        for kept, answer in zip(waiting.kept, answers, strict=True):
            kept.set_result(answer)
        await waiting.turns()
        assert [one.done() for one in told] == [False, False, True, False]
        waiting.size = 4
        await waiting.turns()
        assert [one.done() for one in told] == [True, False, True, False]
        told[1].cancel()
        waiting.size = 5
        assert [await told[at] for at in (0, 2, 3)] == [answers[at] for at in (0, 2, 3)]

    asyncio.run(play())


def test_what_was_not_kept_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archiver that is down is no matter of witnesses."""

    async def play() -> None:
        waiting = Waiting(monkeypatch)
        told = waiting.client.submit([event(b"{}")])
        waiting.kept[0].set_exception(Unavailable("down"))
        with pytest.raises(Unavailable, match="down"):
            await told

    asyncio.run(play())


@pytest.mark.parametrize(
    ("identifier", "says"), [("a7", "again with its id"), (None, "do not send it again")]
)
def test_witnesses_that_never_come_are_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, identifier: str | None, says: str
) -> None:
    """The sender is told that the event is kept and not witnessed, and may ask again with its id, if it has one.

    Without one the same event, sent again, would be a second event.
    """

    async def play() -> None:
        waiting = Waiting(monkeypatch)
        monkeypatch.setattr(cosigned, "WAIT_S", 0.0)
        told = waiting.client.submit([msgspec.structs.replace(event(b"{}"), id=identifier)])
        waiting.kept[0].set_result([Receipt(2, 3)])
        with pytest.raises(Unknown, match=f"kept, but witnesses have not cosigned it yet; .*{says}"):
            await told

    asyncio.run(play())


def test_frames_of_a_connection_wait_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no ids, and a client whose connection is closed sends them again: each would be kept twice."""

    async def play() -> None:
        waiting = Waiting(monkeypatch)
        monkeypatch.setattr(cosigned, "WAIT_S", 0.0)
        told = waiting.client.submit([msgspec.structs.replace(event(b"{}"), extra={"conn": b"12345678"})])
        waiting.kept[0].set_result([Receipt(2, 3)])
        await waiting.turns()
        assert not told.done()
        waiting.size = 3
        assert await told == [Receipt(2, 3)]

    asyncio.run(play())


def test_how_far_witnesses_are_is_told(front: Front, http: TestClient) -> None:
    """By size and by how long the first entry beyond has waited; without a policy, nothing is said of witnesses."""
    front.reduce()
    assert "cosigned" not in http.get("/readyz").json()
    assert "cosign" not in http.get("/metrics").text + http.get("/").text
    front.services.policy = POLICY
    clock = front.services.clock
    assert isinstance(clock, ManualClock)
    clock.time_us += 90_000_000
    assert http.get("/readyz").json()["cosigned"] == {"size": 0, "waiting_s": 90}
    cosign(front)
    size = front.archiver.head.size
    assert http.get("/readyz").json()["cosigned"] == {"size": size, "waiting_s": 0}
    assert "too few" not in http.get("/").text
    front.archiver.step([event(b"{}")])
    front.reduce()
    clock.time_us += 510_000_000
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["cosigned"]) == (200, {"size": size, "waiting_s": 600})
    metrics = http.get("/metrics").text
    assert f"treering_cosigned_size {float(size)}" in metrics
    assert "treering_cosigning_seconds 600.0" in metrics
    assert "too few for 10 min" in http.get("/").text


def test_the_cosigned_size_is_that_of_this_log(front: Front) -> None:
    """Nothing, before the first one and for a checkpoint of another log; then its size."""
    front.services.policy = POLICY
    assert cosigned_size(front.services) == 0
    note = cosign(front)
    assert cosigned_size(front.services) == front.archiver.head.size
    front.folder.cosigned.write_bytes(note.replace(b"\n", b".old\n", 1))
    assert cosigned_size(front.services) == 0
