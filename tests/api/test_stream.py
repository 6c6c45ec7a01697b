"""Live states: what there is, then what changes; who comes back misses nothing, who is slow holds up nobody."""

from __future__ import annotations

import asyncio
import errno
import json
from itertools import count
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import Shelf
from api.stream import STREAMS_MAX, Hub, _events, _Stream
from archive import Skip, Unavailable, steering_body
from reducers import Module, reducer
from replay import Holding
from tests.api.front import Front, problem_of
from tests.api.test_states import by_tens
from tests.world import event

CLOCK = count(1)


def stream(front: Front, name: str, prefix: tuple[str, ...] = (), last: Any = None) -> _Stream:
    """Return a stream of a reader who has just come."""
    front.services.shelf._looked_at = float("-inf")
    _, info = front.services.shelf.find(name)
    return _Stream(front.services, Hub(front.services), info, prefix, last)


def read(one: _Stream) -> tuple[list[dict[str, Any]], str | None]:
    """Return the states that a reader is sent until there is no more, and the last id."""
    states, last = [], None
    while True:
        for block in one.step(float(next(CLOCK))).decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            last = fields.get("id", last)
            if fields.get("event") == "state":
                states.append(json.loads(fields["data"]))
        if not one.more:
            return states, last


def send(front: Front, *students: str, **keys: str) -> None:
    """Keep an event of each student, and let the workers see it."""
    front.archiver.step([event(student, **keys) for student in students])
    front.reduce()


def names(states: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return whose states these are, and what they count."""
    return [(one["key"]["student"], one["state"]["events"]) for one in states]


def test_first_what_there_is_then_what_changes(front: Front) -> None:
    """A reader is sent every state once, and then those that change, as they stand."""
    send(front, "ann", "bob")
    one = stream(front, "event_count")
    states, last = read(one)
    assert sorted(names(states)) == [("ann", 1), ("bob", 1)]
    assert last is not None
    assert last.startswith("4.")
    assert read(one)[0] == []
    send(front, "bob", "bob")
    assert names(read(one)[0]) == [("bob", 3)]


def test_one_key_and_keys_that_begin_alike(front: Front) -> None:
    """A reader of one student, or of one document's writers, is sent nothing else."""
    send(front, "ann", "bob", doc_id="essay")
    assert names(read(stream(front, "event_count", ("bob",)))[0]) == [("bob", 1)]
    whole = read(stream(front, "reconstruct"))[0]
    assert len(whole) == 2
    first = whole[0]["key"]
    prefix = (next(iter(first.values())),)
    some = read(stream(front, "reconstruct", prefix))[0]
    assert {next(iter(one["key"].values())) for one in some} == set(prefix)


def test_who_comes_back_gets_what_he_missed(front: Front) -> None:
    """Last-Event-ID: everything that changed since, and nothing of what did not."""
    send(front, "ann", "bob")
    _, last = read(stream(front, "event_count"))
    send(front, "bob")
    send(front, "cleo")
    assert last is not None
    position, generation = last.split(".")
    for begin in ((int(position), generation), (int(position), None)):
        states, _ = read(stream(front, "event_count", last=begin))
        assert sorted(names(states)) == [("bob", 2), ("cleo", 1)]


@pytest.mark.parametrize("last", [(3, "0" * 16), (999, None)], ids=["another generation", "ahead of the log"])
def test_who_comes_from_elsewhere_gets_everything(front: Front, last: Any) -> None:
    """An id of other states, or of a log that was longer, says nothing about these."""
    send(front, "ann", "bob")
    assert sorted(names(read(stream(front, "event_count", last=last))[0])) == [("ann", 1), ("bob", 1)]


def test_an_upgrade_under_way_sends_everything_anew(front: Front) -> None:
    """When the new generation takes over, each state is sent as the new code sees it."""
    send(front, "ann")
    one = stream(front, "touchy")
    assert [state["state"] for state in read(one)[0]] == [1]
    front.modules[-1] = Module("touchy", (reducer(name="touchy", version=2)(by_tens),))
    front.crews = [front.crew(shard, 2) for shard in range(2)]
    front.services.shelf._looked_at = float("-inf")
    assert read(one)[0] == []
    front.reduce()
    assert [state["state"] for state in read(one)[0]] == [10]


def test_states_that_are_being_rebuilt_say_so_once(front: Front) -> None:
    """Nothing is sent that looks like an empty class; afterwards the states come, all of them."""
    send(front, "ann")
    one = stream(front, "event_count")
    read(one)
    for shard in (0, 1):
        front.clear(shard)
    said = b'{"reason":"states are being rebuilt; ask again shortly"}'
    assert one.step(float(next(CLOCK))) == b"event: rebuilding\ndata: " + said + b"\n\n"
    assert one.step(float(next(CLOCK))) == b""
    front.crews = [front.crew(shard, 2) for shard in range(2)]
    send(front, "ann")
    assert names(read(one)[0]) == [("ann", 2)]


def test_what_one_shard_has_told_waits_for_the_others(front: Front) -> None:
    """While a later shard is rebuilt an earlier one goes on; once all are there, a reader has what each has to say."""
    many = [f"s{n}" for n in range(12)]
    send(front, *many)
    begun, fresh = stream(front, "event_count"), stream(front, "event_count")
    read(begun)
    send(front, *many)
    front.clear(1)
    for one in (begun, fresh):
        assert one.step(float(next(CLOCK))).startswith(b"event: rebuilding")
    front.crews = [front.crew(shard, 2) for shard in range(2)]
    front.reduce()
    for one in (begun, fresh):
        states, last = read(one)
        assert sorted(names(states)) == sorted((student, 2) for student in many)
        assert last is not None


@pytest.mark.parametrize(("name", "bound"), [("ROWS", 3), ("LOOK_BYTES", 30)])
def test_many_states_come_in_pieces(
    front: Front, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    """However many or large they are, a piece is bounded, each comes once, and only the last one carries an id."""
    monkeypatch.setattr(f"api.stream.{name}", bound)
    students = [f"s{number:02}" for number in range(25)]
    send(front, *students)
    one = stream(front, "event_count")
    first = one.step(float(next(CLOCK)))
    assert one.more
    assert first.count(b"event: state") <= 6
    assert b"id: " not in first
    states, last = read(one)
    got = first.count(b"event: state") + len(states)
    assert (got, last is not None) == (25, True)


def test_a_slow_reader_gets_the_newest_state_only(front: Front) -> None:
    """What he did not take meanwhile is not kept for him: there is no queue that could grow."""
    one = stream(front, "event_count", ("ann",))
    for _ in range(20):
        send(front, "ann")
    assert names(read(one)[0]) == [("ann", 20)]


def test_readers_who_stand_alike_share_a_look(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred dashboards cost one look at the store."""
    send(front, "ann")
    _, info = front.services.shelf.find("event_count")
    hub, looks = Hub(front.services), list[bytes]()
    plain = hub._new

    def counted(name: str, shard: int, start: bytes) -> Any:
        looks.append(start)
        return plain(name, shard, start)

    monkeypatch.setattr(hub, "_new", counted)
    streams = [_Stream(front.services, hub, info, (), None) for _ in range(100)]
    assert len({one.step(7.0) for one in streams}) == 1
    assert len(looks) == 2


def test_what_is_remembered_of_looks_is_bounded(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers at a thousand places must not fill the memory: what was found is forgotten, and looked for again."""
    monkeypatch.setattr("api.stream.LOOKS_BYTES_MAX", 500)
    send(front, *[f"s{number:02}" for number in range(9)])
    hub, most = Hub(front.services), 0
    for at in range(40):
        hub.look("event_count", at % 2, at.to_bytes(9), 7.0)
        most = max(most, sum(len(one) for _, look in hub._looks.values() for _, one in look.rows))
    assert 500 < most < 2_000


def test_a_stream_ends_with_its_front(front: Front) -> None:
    """A front that is told to end does not wait for its readers."""
    send(front, "ann")
    front.services.leaving = iter([False, True]).__next__
    hub = Hub(front.services)
    _, info = front.services.shelf.find("event_count")

    async def all_of_it() -> bytes:
        return b"".join([part async for part in _events(front.services, hub, info, (), None)])

    text = asyncio.run(all_of_it())
    assert text.count(b"event: state") == 1
    assert hub.streams == 0


def test_the_answer_is_an_event_stream(front: Front, http: TestClient) -> None:
    """Media type, and no copy anywhere; a wrong key, an unknown reducer and a wrong id are refused with a reason."""
    send(front, "ann")
    front.services.leaving = iter([False, True]).__next__
    answer = http.get("/v1/states/event_count/stream?student=ann")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert 'event: state\ndata: {"key":{"student":"ann"}' in answer.text
    assert "student" in problem_of(http.get("/v1/states/event_count/stream?pupil=ann"), 400)
    for name in ("at_size", "min_size", "limit", "after"):
        path = f"/v1/states/event_count/stream?student=ann&{name}=1"
        assert f"{name!r}: a stream begins with what there is now" in problem_of(http.get(path), 400)
    assert "more than once" in problem_of(http.get("/v1/states/event_count/stream?student=a&student=b"), 400)
    problem_of(http.get("/v1/states/nothing/stream"), 404)
    headers = {"Last-Event-ID": "yesterday"}
    assert "Last-Event-ID" in problem_of(http.get("/v1/states/event_count/stream", headers=headers), 400)


def test_too_many_streams_are_told_to_come_later(
    front: Front, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is open is bounded."""
    send(front, "ann")
    monkeypatch.setattr("api.stream.STREAMS_MAX", 0)
    assert "streams are open" in problem_of(http.get("/v1/states/event_count/stream"), 503)


@pytest.mark.parametrize(("files", "allowed"), [(40, 20), (1_024, 512), (65_536, STREAMS_MAX)])
def test_as_many_streams_as_files_allow(
    front: Front, monkeypatch: pytest.MonkeyPatch, files: int, allowed: int
) -> None:
    """Each stream holds a file: half of those that the process may open stay free for everything else."""
    send(front, "ann")
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    hub = Hub(front.services)
    monkeypatch.setattr("api.stream.Hub", lambda _: hub)
    with front.client() as http:
        front.services.leaving = lambda: True  # a stream ends as soon as it has begun
        hub.streams = allowed
        assert f"{allowed:,} streams are open" in problem_of(http.get("/v1/states/event_count/stream"), 503)
        hub.streams -= 1
        assert http.get("/v1/states/event_count/stream").status_code == 200


def test_a_stream_outlives_a_moment_without_files(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are told once, and go on afterwards; the operator is told once a minute, however many read."""
    send(front, "ann")
    said: list[str] = []
    monkeypatch.setattr(front.services, "say", said.append)
    ones, plain = [stream(front, "event_count") for _ in range(3)], Hub._new
    for one in ones[1:]:
        one._hub = ones[0]._hub

    def refused(*_: object) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Hub, "_new", refused)
    told = b'event: rebuilding\ndata: {"reason":"states cannot be read just now: Too many open files"}\n\n'
    assert [one.step(float(next(CLOCK))) for one in ones * 2] == [told] * 3 + [b""] * 3
    assert len(said) == 1
    ones[0].step(next(CLOCK) + 60.0)
    assert len(said) == 2
    monkeypatch.setattr(Hub, "_new", plain)
    for one in ones:
        assert names(read(one)[0]) == [("ann", 1)]


def emptied(front: Front) -> None:
    """Throw all states away; workers begin them anew, and have not read anything yet."""
    for shard in (0, 1):
        front.clear(shard)
    front.crews = [front.crew(shard, 2) for shard in range(2)]


def test_states_that_were_made_anew_are_sent_anew(front: Front) -> None:
    """A save on the way may put what changed below where a reader stood: he is sent it all the same."""
    front.archiver.step([event("ann"), event("ann", "bad"), event("ann")])
    front.reduce()
    bad = front.archiver.head.size - 2
    one = stream(front, "touchy")
    (before,), last = read(one)
    assert before["quarantined"]["index"] == bad
    assert last is not None
    skip = front.archiver.control(steering_body(Skip("touchy", bad)))
    front.archiver.step([event("bob")])
    emptied(front)
    for crew in front.crews:
        for runner in crew.runners:
            runner.step(front.source, skip, ahead=True)
        crew.save(front.source)
    front.reduce()
    position, which = last.split(".")
    for again in (one, stream(front, "touchy", last=(int(position), which))):
        states = {one["key"]["student"]: one for one in read(again)[0]}
        assert states["ann"]["state"] == 2
        assert "quarantined" not in states["ann"]


def test_a_key_that_is_gone_is_said_to_be(front: Front) -> None:
    """Its only event was skipped: whoever showed it must hear so, and nobody who asked for another."""
    front.archiver.step([event("ann"), event("bob")])
    front.reduce()
    streams = [stream(front, "touchy"), stream(front, "touchy", ("ann",)), stream(front, "touchy", ("bob",))]
    for one in streams:
        read(one)
    front.archiver.control(steering_body(Skip("touchy", 2)))
    front.reduce()
    told = [one.step(float(next(CLOCK))).decode().count("event: removed") for one in streams]
    assert told == [1, 1, 0]
    assert read(stream(front, "touchy"))[0][0]["key"] == {"student": "bob"}


def test_nobody_is_sent_an_older_version_again(front: Front) -> None:
    """Once a new version has answered, the one before is no answer, whatever becomes of the new one's states."""
    front.services.shelf._complains = True
    send(front, "ann")
    old = set(front.stores)
    front.modules[-1] = Module("touchy", (reducer(name="touchy", version=2)(by_tens),))
    front.crews = [front.crew(shard, 2) for shard in range(2)]
    front.reduce()
    one = stream(front, "touchy")
    assert [state["state"] for state in read(one)[0]] == [10]
    for place, store in front.stores.items():
        if place not in old:
            Holding([], store).clear()
    for again in (one, stream(front, "touchy")):
        assert b"event: rebuilding" in again.step(float(next(CLOCK)))
    fresh = Shelf(front.folder.state, 2, front.open_store, [each.name for each in front.modules])
    with pytest.raises(Unavailable, match="rebuilt"):
        fresh.standing("touchy", front.services.shelf.home(*home_of_ann(front)))


def home_of_ann(front: Front) -> tuple[Any, tuple[str, ...], bytes]:
    """Return what tells where Ann's state is."""
    _, info = front.services.shelf.find("touchy")
    return info, ("ann",), front.services.vault.route_key
