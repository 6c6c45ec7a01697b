"""When the archiver waits for a person, or does not answer: readers are told, and no answer looks like another one."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from api import create_app, services
from api.full import COUNTS_US
from api.stream import Hub, _Stream
from archive import (
    Answer,
    IntegrityError,
    ManualClock,
    PublishedLog,
    Receipt,
    Refusal,
    Submission,
    Unavailable,
    read_stopped,
    write_stopped,
)
from archive.errors import LOST_SEAL, OLDER_COPY
from tests.api.front import Front, http_client, not_started, problem_of
from tests.world import event

BEYOND = 5
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def older(front: Front) -> Front:
    """Return a front whose database ends before what was published: somebody brought an older copy back."""
    front.archiver.step([event("ann")])
    front.reduce()
    published = front.services._published
    assert published is not None
    size = published.get() + BEYOND
    front.services._source = PublishedLog(front.log, lambda: size)
    front.direct.is_connected = False
    return front


READS = [
    "/v1/states/event_count",
    "/v1/states/event_count?student=ann",
    "/v1/states/event_count?student=nobody",
    "/v1/states/event_count?student=ann&at_size=3",
    "/v1/states/event_count?student=ann&min_size=1000",
    "/v1/events/2",
    "/v1/events/2/proof",
    "/v1/events/2/opening",
    "/v1/events/999999",
    "/log/checkpoint",
    "/log/tile/0/000.p/3",
    "/log/tile/entries/000.p/3",
]


@pytest.mark.usefixtures("older")
@pytest.mark.parametrize("path", READS)
def test_of_an_older_copy_nothing_is_read(http: TestClient, path: str) -> None:
    """503, which says why and where to look; a 404 would deny what was shown before."""
    detail = problem_of(http.get(path), 503)
    assert "it is an older copy; nothing is read from it" in detail
    assert f'docs/recovery.md, "{OLDER_COPY}"' in detail


@pytest.mark.parametrize("path", READS)
def test_what_the_archiver_refuses_nobody_reads(front: Front, http: TestClient, path: str) -> None:
    """A database of another history may be long enough: only the archiver, which has the seal, can tell that."""
    front.archiver.step([event("ann")])
    front.reduce()
    front.direct.is_connected = False
    write_stopped(front.folder.stopped, IntegrityError("not what was sealed", section=OLDER_COPY), 7.0)
    assert "looks: not what was sealed" in problem_of(http.get(path), 503)
    assert ">ann<" not in http.get("/").text


def test_what_waits_for_its_seal_is_read(front: Front, http: TestClient) -> None:
    """An archiver that cannot find its seal has found nothing wrong with the log: the class goes on being shown."""
    front.archiver.step([event("ann")])
    front.reduce()
    front.direct.is_connected = False
    write_stopped(front.folder.stopped, IntegrityError("no seal", section=LOST_SEAL), 7.0)
    assert http.get("/v1/states/event_count?student=ann").json()["state"] == {"events": 1}


def test_a_sender_hears_why_nothing_is_taken(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends events is told what the archiver waits for, and not to try again shortly."""

    async def away(_: float) -> None:
        raise Unavailable("the archiver is not running; try again shortly")

    monkeypatch.setattr(front.direct, "ready", away)
    body = {"type": "t", "keys": {"student": "ann"}}
    assert "try again shortly" in problem_of(http.post("/v1/events", json=body), 503)
    write_stopped(front.folder.stopped, IntegrityError("no seal", section=LOST_SEAL), 7.0)
    assert "looks: no seal" in problem_of(http.post("/v1/events", json=body), 503)


def test_of_an_older_copy_nothing_is_streamed(older: Front) -> None:
    """A stream that is open, or begins, says the reason instead of states."""
    info = older.services.shelf.find("event_count")[1]
    said = _Stream(older.services, Hub(older.services), info, (), None).step(0.0)
    assert said.startswith(b"event: rebuilding\n")
    assert b"older copy" in said
    assert b"ann" not in said


@pytest.mark.usefixtures("older")
def test_the_page_of_an_older_copy_says_so_and_shows_no_states(http: TestClient) -> None:
    """It does not say that the log was never started, and shows no names."""
    answer = http.get("/")
    assert answer.status_code == 200
    text = html.unescape(answer.text)
    assert "The log is not shown: the database holds" in text
    assert "has not been started" not in text
    assert ">ann<" not in text


def test_why_the_archiver_waits_is_where_people_look(front: Front, http: TestClient) -> None:
    """/readyz and the page have its last words, and what the handbook says first; both are gone once it is back."""
    write_stopped(front.folder.stopped, IntegrityError("no <seal>", section=LOST_SEAL), 1_764_090_000.0)
    assert "stopped" not in http.get("/readyz").json(), "an archiver that runs waits for nobody"
    front.direct.is_connected = False
    answer = http.get("/readyz")
    words = read_stopped(front.folder.stopped)
    assert words is not None
    assert answer.status_code == 503
    assert answer.json()["stopped"] == {
        "reason": "no <seal>",
        "section": "Lost seal",
        "since": "2025-11-25T17:00:00Z",
        "remedy": words.remedy(front.folder.path),
    }
    page = http.get("/").text
    assert "The archiver waits for you since 2025-11-25T17:00:00Z: no &lt;seal&gt;" in page
    assert 'docs/recovery.md, "Lost seal": was --seal left out' in html.unescape(page)
    front.direct.is_connected = True
    assert "waits for you" not in http.get("/").text


def test_where_nothing_was_ever_read_the_reason_is_given(tmp_path: Path) -> None:
    """A front without a published size says what the archiver waits for, and not that it is about to start."""
    services = not_started(tmp_path / "new")
    services.folder.create()
    path = "/v1/states/event_count?student=ann"
    with http_client(services) as http:
        assert "waits" not in problem_of(http.get("/log/checkpoint"), 503)
        write_stopped(services.folder.stopped, IntegrityError("no seal", section=LOST_SEAL), 7.0)
        for one in ("/log/checkpoint", path):
            assert "the archiver is down until a person looks: no seal" in problem_of(http.get(one), 503)


def test_a_full_disk_is_told_to_who_looks(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /readyz, on the page, as a metric, and in one line: senders get 503, and they are not who makes room."""
    front.reduce()
    said: list[str] = []
    monkeypatch.setattr(front.services, "say", said.append)
    known = {"type": "t", "id": "1", "keys": {"student": "ann"}}
    assert http.post("/v1/events", json=known).status_code == 200
    step = front.archiver.step
    why = "log/0: no space left; make room, <nothing> was kept"
    monkeypatch.setattr(front.archiver, "step", lambda sent: [Refusal("unavailable", why) for _ in sent])
    for body in (b'{"type":"t","keys":{"student":"ann"}}', b"[", b"{}"):
        sent = http.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        assert why in problem_of(sent, 503)
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["archiver"]) == (503, False, True)
    assert answer.json()["full"] == {
        "reason": why,
        "since": "2023-11-14T22:13:20Z",
        "remedy": 'docs/recovery.md, "No space left": make room; nothing has to be restarted',
    }
    assert "treering_disk_full 1.0" in http.get("/metrics").text
    assert "no room: events are not kept</span>" in http.get("/").text
    assert f"kept since 2023-11-14T22:13:20Z: {html.escape(why)}" in http.get("/").text
    monkeypatch.setattr(front.archiver, "step", step)
    assert http.post("/v1/events", json=known).status_code == 200, "it is in the log, and needs no room"
    assert http.get("/readyz").status_code == 503
    assert http.post("/v1/events", json={**known, "id": "2"}).status_code == 200
    front.reduce()
    assert http.get("/readyz").status_code == 200
    assert "full" not in http.get("/readyz").json()
    assert "treering_disk_full 0.0" in http.get("/metrics").text
    assert said == [f"front: events are not kept: {why}", "front: events are kept again"]


def test_nobody_is_kept_away_for_ever(front: Front, http: TestClient) -> None:
    """Whoever sends events only where /readyz is well would never bring the one that shows that there is room."""
    front.reduce()
    front.services.heard([Refusal("unavailable", "log/0: no space left")])
    assert http.get("/readyz").status_code == 503
    clock = front.services.clock
    assert isinstance(clock, ManualClock)
    clock.time_us += COUNTS_US
    assert http.get("/readyz").status_code == 200
    front.services.heard([Refusal("unavailable", "log/0: no space left")])
    assert http.get("/readyz").json()["full"]["since"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("reason", ["conflict", "invalid"])
def test_what_else_is_refused_says_nothing_of_room(front: Front, http: TestClient, reason: str) -> None:
    """An event that could not be kept anywhere is its sender's matter."""
    front.reduce()
    front.services.heard([Refusal(reason, "no")])
    assert http.get("/readyz").status_code == 200


def test_an_archiver_that_does_not_answer_makes_the_front_unready(front: Front, http: TestClient) -> None:
    """Connected is not enough: a process that was stopped keeps its socket; metrics and page say it, too."""
    front.reduce()
    assert http.get("/readyz").status_code == 200
    front.direct._silent = True
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["archiver"]) == (503, False, False)
    assert "treering_archiver_up 0.0" in http.get("/metrics").text
    assert "the archiver does not answer: events wait" in http.get("/").text


def test_who_sends_to_an_archiver_that_does_not_answer_is_told_at_once(
    front: Front, http: TestClient
) -> None:
    """503 with Retry-After as for one that is away, and nothing is submitted: sent again later, it is kept once."""
    front.direct._silent = True
    body = {"type": "t", "keys": {"student": "ann"}}
    for sent in (http.post("/v1/events", json=body), http.post("/v1/events", content=b"{", headers=JSON)):
        assert problem_of(sent, 503) == "the archiver does not answer; try again shortly"
        assert sent.headers["retry-after"] == "1"
        assert (sent.json()["title"], sent.json().get("again", True)) == ("Unavailable", True)
    assert front.direct.submitted == []
    front.direct._silent = False
    assert http.post("/v1/events", json=body).status_code == 200
    assert len(front.direct.submitted) == 1


def test_who_waits_for_room_is_told_when_the_archiver_answers_no_more(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a sender's turn has come nothing of his was sent; room that comes meanwhile is no answer."""
    monkeypatch.setattr(services, "LOOK_S", 0.01)
    client = front.direct

    async def waiting() -> None:
        client._room.clear()
        one = asyncio.create_task(front.services.ready(1.0))
        await asyncio.sleep(0.05)
        assert not one.done(), "an archiver that answers makes room in time"
        client._silent = True
        with pytest.raises(Unavailable, match="does not answer"):
            await asyncio.wait_for(one, 10)
        client._room.set()
        with pytest.raises(Unavailable, match="does not answer"):
            await front.services.ready(1.0)

    asyncio.run(waiting())


def test_what_was_sent_waits_for_its_answer(front: Front) -> None:
    """It may be kept: 503 would make its sender send it again.  Whoever comes later is told at once."""
    answers: list[asyncio.Future[list[Answer]]] = []
    submitted = asyncio.Event()

    def submit(submissions: Sequence[Submission]) -> asyncio.Future[list[Answer]]:
        assert len(submissions) == 1
        submitted.set()
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    front.direct.submit = submit  # type: ignore[method-assign]

    async def sending() -> None:
        transport = httpx2.ASGITransport(create_app(front.services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8400") as http:
            event = {"type": "t", "keys": {"student": "ann"}}
            one = asyncio.create_task(http.post("/v1/events", json=event))
            await asyncio.wait_for(submitted.wait(), 60)
            front.direct._silent = True
            assert (await http.post("/v1/events", json=event)).status_code == 503
            assert not one.done()
            front.direct._silent = False
            answers[0].set_result([Receipt(2, 3)])
            assert (await one).json()["receipts"] == [{"index": 2, "size": 3, "grade": "local"}]

    asyncio.run(sending())
    assert len(answers) == 1
