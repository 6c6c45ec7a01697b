"""What is sent again after a connection broke: everything unanswered, and what the new one must be told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.lo import Connection
from archive import ROW_BINDING, Submission
from tests.tools.double import lines
from tools.playback import (
    TOO_LARGE,
    Line,
    Playback,
    Settled,
    WrongAnswer,
    batches,
    due_s,
    is_frame,
    names_someone,
    settle,
)

EVENT, ANN, BOB = b'{"event":"key"}', b'{"event":"id","user_id":"ann"}', b'{"event":"id","user_id":"bob"}'
LOCK_SOURCE = b'{"event":"lock_fields","fields":{"source":"s"}}'
LOCK_ANN = b'{"event":"lock_fields","fields":{"user_id":"ann"}}'
LOCK_ZERO = b'{"event":"lock_fields","fields":{"user_id":0}}'
BAD_LOCK, BAD, END = b'{"event":"lock_fields"}', b'{"event":', b'{"event":"terminate"}'
FRAMES = st.lists(
    st.sampled_from([EVENT, EVENT, ANN, BOB, LOCK_SOURCE, LOCK_ANN, LOCK_ZERO, BAD_LOCK, BAD, END]),
    max_size=7,
)
Drops = list[tuple[int, int]]


def meaning(line: Line, submissions: Sequence[Submission]) -> Iterator[tuple[int, bytes, str, bytes]]:
    """What the log says of a line: its bytes, whose they are, and the fields locked then."""
    for one in submissions:
        if one.kind != ROW_BINDING:
            yield line.number, one.payload, one.subject, bytes(one.extra.get("lock", b""))


class Server:
    """The real rules of a connection, and a log of what was kept."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, bytes, str, bytes]] = []
        self.bound: dict[str, str] = {}
        self.connections = itertools.count()

    def serve(self, play: Playback, received: int, answered: int) -> list[Settled]:
        """Hold one connection that receives and answers so many frames; return what was settled."""
        lo, replies = Connection(next(self.connections).to_bytes(8, "big")), list[object]()
        for at in range(min(received, play.waiting)):
            line = play.send().line
            step = lo.frame(line.data, True, 1_000_000)
            self.kept += meaning(line, step.submissions)
            self.bound |= {one.extra["bind"]: one.subject for one in step.submissions if "bind" in one.extra}
            status = {"status": "refused", "reason": step.refused} if step.refused else {"status": "ack"}
            if at < answered:
                replies += [*step.replies, {**status, "frame": at, "index": at, "size": at + 1}]
            if step.close:
                break
        answers = [play.answer(json.dumps(reply)) for reply in replies]
        return [one for one in answers if one is not None]

    def known(self) -> set[tuple[int, bytes, str, bytes]]:
        """What is known in the end, provisional subjects resolved."""
        return {(number, payload, self.person(subject), lock) for number, payload, subject, lock in self.kept}

    def person(self, subject: str) -> str:
        """Whose a subject is, as far as it was ever said."""
        found = self.bound.get(subject, subject)
        return "nobody" if found.startswith("provisional:") else found


def played(frames: Sequence[bytes], drops: Drops) -> tuple[Server, list[list[Settled]]]:
    """Play frames over connections that break off, then over ones that do not."""
    server, settled = Server(), []
    play = Playback(lines(*frames), window=100)
    for received, answered in [*drops, *([(100, 100)] * (1 + frames.count(END)))]:
        if not play.done:
            play.connected()
            settled.append(server.serve(play, received, answered))
    assert play.done
    return server, settled


@given(FRAMES, st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4))
@example([EVENT, EVENT, ANN], [(2, 2)])
@example([EVENT, LOCK_SOURCE, ANN, EVENT], [(3, 2), (2, 2), (4, 3)])
@example([ANN, EVENT, END, EVENT, BOB], [(3, 3), (1, 1)])
@example([LOCK_SOURCE, EVENT], [(1, 1)])
@example([ANN, LOCK_SOURCE, EVENT], [(2, 2)])
def test_a_broken_connection_loses_nothing_of_what_a_whole_one_keeps(
    frames: list[bytes], drops: Drops
) -> None:
    """Every frame is kept under the same person and with the same locked fields as without any break."""
    server, settled = played(frames, drops)
    whole, _ = played(frames, [])
    assert server.known() >= whole.known()
    first = [one.sent.line.number for part in settled for one in part if not one.repeated]
    assert sorted(first) == list(range(1, len(frames) + 1)), "each line is answered for the first time once"


@given(FRAMES, st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4))
def test_each_connection_keeps_the_order_of_the_file(frames: list[bytes], drops: Drops) -> None:
    """On one connection lines go forwards, each at most once, with frames numbered from 0."""
    play = Playback(lines(*frames), window=100)
    for number, (received, answered) in enumerate(drops):
        play.connected()
        server_side = Server()
        sent = [one.sent for one in server_side.serve(play, received, answered)]
        assert [one.frame for one in sent] == list(range(len(sent)))
        assert {one.connection for one in sent} <= {number}
        assert [one.line.number for one in sent] == sorted({one.line.number for one in sent})


@given(st.integers(1, 6), st.data())
def test_events_answered_after_the_identity_are_not_sent_again(answered: int, data: st.DataObject) -> None:
    """A break costs one repeated frame: the identity goes again, answered events do not."""
    received = data.draw(st.integers(answered, 6))
    play = Playback(lines(ANN, *[EVENT] * 5))
    play.connected()
    Server().serve(play, received, answered)
    if play.done:
        return
    play.connected()
    assert [play.send().line.number for _ in range(play.waiting)] == [1, *range(answered + 1, 7)]


def test_an_unanswered_identity_is_sent_once() -> None:
    """The identity is not doubled when it is itself among the unanswered."""
    play = Playback(lines(ANN, EVENT))
    for _ in range(2):
        play.connected()
        assert [play.send().line.number for _ in range(play.waiting)] == [1, 2]


def test_the_window_is_a_bound() -> None:
    """No more than `window` frames are unanswered; an answer makes room for one."""
    play = Playback(lines(*[EVENT] * 4), window=2)
    play.connected()
    play.send()
    play.send()
    assert play.full
    play.answer('{"status":"ack","frame":0,"index":0,"size":1}')
    assert not play.full
    assert play.send().frame == 2


@pytest.mark.parametrize(
    "message",
    [
        '{"status":"ack","frame":1,"index":1,"size":2}',
        '{"status":"ack","index":1,"size":2}',
        '{"status":"refused","frame":7}',
        "hello",
        b"\xff",
        "[1]",
    ],
)
def test_an_answer_that_does_not_fit_is_an_error(message: str | bytes) -> None:
    """Nothing counts as acknowledged because of an answer to something else."""
    play = Playback(lines(EVENT, EVENT))
    play.connected()
    play.send()
    with pytest.raises(WrongAnswer):
        play.answer(message)
    assert play.in_flight == 1


def test_a_refused_frame_stays_settled_when_all_is_sent_again() -> None:
    """Frames from before the identity go again if it was not answered; refused ones among them do not."""
    play = Playback(lines(BAD, EVENT, ANN))
    play.connected()
    Server().serve(play, 3, 2)
    play.connected()
    assert [play.send().line.number for _ in range(play.waiting)] == [2, 3]


def test_an_identity_counts_when_its_frame_is_answered() -> None:
    """An `auth` whose connection broke before the answer to its frame names no frame of the next one."""
    play = Playback(lines(EVENT, EVENT, ANN))
    for reply in ('{"status":"auth","user_id":"ann"}', "{}"):
        play.connected()
        for frame in range(2):
            play.send()
            play.answer(json.dumps({"status": "ack", "frame": frame, "index": 1, "size": 2}))
        play.answer(reply)
    play.connected()
    assert [play.send().line.number for _ in range(play.waiting)] == [1, 2, 3]


@pytest.mark.parametrize("message", ['{"status":"blocklist"}', '{"status":"fetch_blob","data":1}', "{}"])
def test_other_messages_of_the_protocol_settle_nothing(message: str) -> None:
    """The Learning Observer's other replies are passed over."""
    play = Playback(lines(EVENT))
    play.connected()
    play.send()
    assert play.answer(message) is None
    assert play.in_flight == 1


def test_a_refused_frame_is_settled_and_not_sent_again() -> None:
    """What the server refuses today it refuses tomorrow."""
    play = Playback(lines(BAD, EVENT))
    play.connected()
    play.send()
    settled = play.answer('{"status":"refused","frame":0,"reason":"malformed","index":3,"size":4}')
    assert settled is not None
    assert (settled.reason, settled.index) == ("malformed", 3)
    play.connected()
    assert [play.send().line.number for _ in range(play.waiting)] == [2]


def test_the_largest_frame_is_the_one_that_was_too_large() -> None:
    """After a close with 1009 the sender goes on without that frame, instead of failing on it for ever."""
    play = Playback(lines(EVENT, b'{"event":"' + b"x" * 99 + b'"}', EVENT))
    play.connected()
    assert play.refuse_largest() is None
    for _ in range(3):
        play.send()
    settled = play.refuse_largest()
    assert settled is not None
    assert (settled.sent.line.number, settled.reason) == (2, TOO_LARGE)
    play.connected()
    assert [play.send().line.number for _ in range(play.waiting)] == [1, 3]


@pytest.mark.parametrize(
    ("frame", "expected"), [(ANN, True), (LOCK_ANN, True), (LOCK_ZERO, True), (BAD, False)]
)
def test_who_says_a_name_is_seen(frame: bytes, expected: bool) -> None:
    """A user id counts wherever the server would take it from, a 0 included."""
    assert names_someone(frame) is expected


@given(st.binary())
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    """A file may hold anything; looking at it does not fail, it is then sent as NDJSON and refused there."""
    assert is_frame(data) in {True, False}
    assert names_someone(data) in {True, False}
    assert list(due_s(lines(data), "json")) == [0.0]


RECEIPT = {"index": 4, "size": 9, "grade": "local"}
REFUSED = {"error": {"status": 400, "detail": "line 2: malformed JSON", "recorded": {"index": 5, "size": 9}}}
LATER = {"error": {"status": 503, "detail": "try again"}}


def answers(status: int, body: object, count: int) -> list[tuple[int | None, str | None] | None]:
    """What an answer settles, as (index, reason), None for what must be sent again."""
    found = settle(lines(*[EVENT] * count), status, json.dumps(body).encode())
    assert len(found) == count
    return [None if one is None else (one.index, one.reason) for one in found]


def test_each_result_of_a_batch_is_taken_by_itself() -> None:
    """A kept event, a refused one and one to try again stand side by side in one answer."""
    expected = [(4, None), (5, "line 2: malformed JSON"), None]
    assert answers(200, {"receipts": [RECEIPT, REFUSED, LATER]}, 3) == expected


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_cannot_now_is_asked_again(status: int) -> None:
    """A request that met a server in trouble is not lost."""
    assert answers(status, {"detail": "later"}, 2) == [None, None]


def test_what_must_not_be_sent_again_is_not() -> None:
    """It is kept, and has no id: the server says that it could not be told from a second event."""
    kept = {"status": 503, "detail": "kept; do not send it again", "again": False}
    assert answers(503, kept, 2) == [(None, "kept; do not send it again")] * 2
    assert answers(503, {**kept, "again": True}, 1) == [None]
    assert answers(200, {"receipts": [RECEIPT, {"error": kept}]}, 2)[1] == (
        None,
        "kept; do not send it again",
    )


@pytest.mark.parametrize("body", [{}, [], {"receipts": [RECEIPT]}, {"receipts": 5}, {"receipts": [5, 5]}])
def test_an_answer_that_does_not_fit_acknowledges_nothing(body: object) -> None:
    """A 200 from something else than Treering is no acknowledgement."""
    assert all(one is not None and one[1] is not None for one in answers(200, body, 2))


def test_a_refused_request_refuses_its_lines() -> None:
    """A wrong parameter is told once for each line, with the server's words."""
    assert answers(400, {"detail": "parameter 'x'"}, 2) == [(None, "parameter 'x'")] * 2
    alone = {"detail": "line 1: bad", "recorded": {"index": 8, "size": 9}}
    assert answers(400, alone, 1) == [(8, "line 1: bad")]


@given(st.lists(st.binary(max_size=30)), st.integers(1, 5), st.integers(1, 60))
def test_batches_part_and_bound(data: list[bytes], events_max: int, bytes_max: int) -> None:
    """Batches joined give the lines; each is within both bounds, or a single line."""
    parts = list(batches(lines(*data), events_max, bytes_max))
    assert [line for part in parts for line in part] == lines(*data)
    for part in parts:
        size = sum(len(line.data) + 1 for line in part)
        assert 1 <= len(part) <= events_max
        assert size <= bytes_max + 1 or len(part) == 1
