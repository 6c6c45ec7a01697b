"""Simulated students: the same every time, and what they type is what a server reconstructs."""

from __future__ import annotations

import json
from itertools import accumulate

from hypothesis import example, given
from hypothesis import strategies as st

from api.lo import Connection
from archive import ROW_EVENT, read_event
from reducers.reconstruct import reconstruct
from tools.classroom import START_MS, Session, classroom, session


def reconstructed(written: Session) -> dict[str, object]:
    """The document that the shipped reducer makes of a session."""
    keys = {"student": written.user_id, "doc_id": written.document}
    state = reconstruct.initial()
    for at, (_, frame) in enumerate(written.frames):
        state = reconstruct.apply(state, read_event(at, "lo", "", keys, 0, frame))
    view: dict[str, object] = reconstruct.view(state)
    return view


@given(st.integers(), st.integers(1, 99), st.integers(0, 150))
@example(1, 1, 400)
def test_the_expected_text_is_what_the_reducer_makes_of_the_frames(
    seed: int, student: int, words: int
) -> None:
    """A demo and a test can tell from the text alone whether anything was lost or doubled."""
    written = session(seed, student, words=words)
    assert reconstructed(written) == {"text": written.expected_text, "unknown": 0, "malformed": 0}


def test_a_seed_is_a_class() -> None:
    """The same seed gives the same frames, to the byte; another student or essay gives others."""
    one, two = classroom(7, 2)
    assert [one, two] == list(classroom(7, 2))
    assert len({one.expected_text, two.expected_text, session(7, 1, essay=2).expected_text}) == 3
    assert session(7, 1) == one


def test_students_do_all_that_editors_do() -> None:
    """Insertions, deletions and replacements, in the middle and at the end, wide characters included."""
    kinds, ahead, wide = set(), 0, False
    for written in classroom(1, 4, words=150):
        longest = 0
        for _, frame in written.frames:
            for bundle in json.loads(frame).get("bundles", ()):
                (command,) = bundle["commands"]
                kinds.add(command["ty"])
                ahead += command.get("ibi", 0) > 0 and command.get("ibi", 0) < longest
                longest = max(longest, command.get("ibi", 0))
                wide = wide or command.get("s", "") > "\uffff"
    assert kinds == {"is", "ds", "mlti"}
    assert ahead > 100
    assert wide


def test_times_are_the_sum_of_the_pauses() -> None:
    """Who plays the frames with their pauses shows the times that they claim."""
    written = session(3, 1)
    pauses = [delay_ms for delay_ms, _ in written.frames]
    times = [json.loads(frame)["timestamp"] for _, frame in written.frames]
    assert times == [START_MS + after_ms for after_ms in accumulate(pauses)]
    assert min(pauses) >= 0


def test_the_server_learns_who_writes() -> None:
    """The first frames say it, so that all that is typed belongs to the student."""
    written = session(3, 5)
    lo = Connection(bytes(8))
    steps = [lo.frame(frame, True, 0) for _, frame in written.frames]
    assert [reply for step in steps for reply in step.replies] == [
        {"status": "auth", "user_id": "testcase-student-05"}
    ]
    last = steps[-1].submissions[0]
    assert last.keys == {"student": "testcase-student-05", "doc_id": written.document}


def test_a_class_that_is_named_is_a_key_of_every_event() -> None:
    """A client locks it once; the server, and so the states of the class, know it from then on."""
    lo = Connection(b"a client")
    named = session(seed=1, student=1, words=5, room="7b")
    submissions = [one for _, frame in named.frames for one in lo.frame(frame, True, 1_000).submissions]
    assert all(one.keys["class"] == "7b" for one in submissions if one.kind == ROW_EVENT)
    plain = session(seed=1, student=1, words=5)
    assert (named.frames[1:], named.expected_text) == (plain.frames[1:], plain.expected_text)
