"""One Learning Observer connection: who the frames belong to, and that nothing ends it but its client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import Connection, Step
from api.lo import LOCK_BYTES_MAX
from archive import ROW_BINDING, ROW_EVENT, ROW_FRAME, ROW_REFUSED, Submission, parse_json

ID = b"conn-id!"
NOW_US = 1_700_000_000_000_000
NOBODY = f"provisional:{ID.hex()}"


class Client:
    """Sends frames over a connection and remembers what came of them."""

    def __init__(self) -> None:
        self.connection = Connection(ID)
        self.kept: list[Submission] = []

    def send(self, frame: Any, *, text: bool = True) -> Step:
        """Send an object, or bytes as they are."""
        data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        step = self.connection.frame(data, text, NOW_US)
        assert step.submissions[0].payload == data
        self.kept += step.submissions
        return step

    def events(self, *names: str, **fields: Any) -> None:
        """Send an event of each name."""
        for name in names:
            self.send({"event": name, **fields})

    def lock(self, **fields: Any) -> Step:
        """Lock fields."""
        return self.send({"event": "lock_fields", "fields": fields})

    def subjects(self) -> list[str]:
        """Return the subject of every entry."""
        return [one.subject for one in self.kept]


def locked(submission: Submission) -> Any:
    """Return what was locked when a frame came."""
    return parse_json(submission.extra["lock"]) if "lock" in submission.extra else {}


# --- identity ------------------------------------------------------------------------------------


def test_an_identity_in_the_first_frame() -> None:
    """It is the person's at once, in LO's safe form, and the client is told; nothing is provisional."""
    client = Client()
    step = client.send({"event": "hello", "user_id": "ann"})
    assert step.replies == [{"status": "auth", "user_id": "testcase-ann"}]
    assert client.subjects() == ["student:testcase-ann"]
    assert client.kept[0].keys == {"student": "testcase-ann"}


def test_an_identity_by_lock() -> None:
    """A lock_fields frame that comes first says who it is for all that follow."""
    client = Client()
    assert client.lock(user_id="ann").replies == [{"status": "auth", "user_id": "testcase-ann"}]
    client.events("a", "b")
    assert client.subjects() == ["student:testcase-ann"] * 3


@pytest.mark.parametrize("by_lock", [True, False])
def test_a_late_identity_binds_what_came_before(by_lock: bool) -> None:
    """The frame that says it belongs to the backlog; then the binding entry; from then on the person."""
    client = Client()
    client.events("a", "b")
    saying = client.lock(user_id="ann") if by_lock else client.send({"event": "c", "user_id": "ann"})
    client.events("d")
    assert client.subjects() == [f"{NOBODY}-0"] * 3 + ["student:testcase-ann"] * 2
    own, binding = saying.submissions
    assert own.kind == (ROW_FRAME if by_lock else ROW_EVENT)
    assert (binding.kind, binding.also, binding.keys) == (
        ROW_BINDING,
        [f"{NOBODY}-0"],
        {"student": "testcase-ann"},
    )
    assert binding.extra["bind"] == f"{NOBODY}-0"
    assert saying.replies == [{"status": "auth", "user_id": "testcase-ann"}]


def test_provisional_entries_have_no_student() -> None:
    """Until the identity is known no entry names one, though the other keys are there."""
    client = Client()
    client.events("a", doc_id="d")
    client.send({"event": "b", "user_id": "ann", "class": 7})
    assert [one.keys for one in client.kept[:2]] == [{"doc_id": "d"}, {"class": "7"}]


def test_an_identity_is_told_once() -> None:
    """Saying the same again changes nothing and is not answered."""
    client = Client()
    client.events("a", user_id="ann")
    assert client.send({"event": "b", "user_id": "ann"}).replies == []
    assert client.lock(user_id="ann").replies == []
    assert client.subjects() == ["student:testcase-ann"] * 3


def test_a_frame_that_says_nothing_stays_with_the_person() -> None:
    """The identity holds until another one comes."""
    client = Client()
    client.events("a", user_id="ann")
    client.events("b", "c")
    client.events("d", user_id="")
    assert client.subjects() == ["student:testcase-ann"] * 4


def test_another_person_takes_over_at_the_frame_that_says_so() -> None:
    """On a shared computer frames are never given to who was there before, nor to who comes later."""
    client = Client()
    client.events("a", user_id="ann")
    assert client.send({"event": "b", "user_id": "bob"}).replies == [
        {"status": "auth", "user_id": "testcase-bob"}
    ]
    client.events("c")
    client.events("d", user_id="ann")
    people = [one.keys["student"] for one in client.kept]
    assert people == ["testcase-ann", "testcase-bob", "testcase-bob", "testcase-ann"]
    assert all(one.kind == ROW_EVENT for one in client.kept)


def test_a_backlog_is_bound_to_one_person_only() -> None:
    """Once bound, a provisional subject gets no further frame and no second binding."""
    client = Client()
    client.events("a")
    client.events("b", user_id="ann")
    client.events("c", user_id="bob")
    client.events("d", user_id="ann")
    bindings = [one for one in client.kept if one.kind == ROW_BINDING]
    assert [one.also for one in bindings] == [[f"{NOBODY}-0"]]
    assert client.subjects()[:3] == [f"{NOBODY}-0", f"{NOBODY}-0", "student:testcase-ann"]
    assert client.subjects()[3:] == ["student:testcase-bob", "student:testcase-ann"]


@pytest.mark.parametrize("user_id", ["", None, [], {}, "x" * 1_009])
def test_what_is_no_user_id_names_nobody(user_id: Any) -> None:
    """Something of another shape, or too long to be kept, is taken for no identity."""
    client = Client()
    assert client.send({"event": "a", "user_id": user_id}).replies == []
    assert client.subjects() == [f"{NOBODY}-0"]


@pytest.mark.parametrize(("user_id", "name"), [(7, "testcase-7"), ("x" * 1_008, "testcase-" + "x" * 1_008)])
def test_what_is_a_user_id(user_id: Any, name: str) -> None:
    """Numbers name somebody, too; so do 1,008 bytes."""
    assert Client().send({"event": "a", "user_id": user_id}).replies == [{"status": "auth", "user_id": name}]


def test_two_connections_never_share_a_provisional_subject() -> None:
    """It is named by the connection's own random id."""
    one, other = Connection(b"12345678"), Connection(b"12345679")
    frame = b'{"event":"a"}'
    assert (
        one.frame(frame, True, 1).submissions[0].subject != other.frame(frame, True, 1).submissions[0].subject
    )


# --- locked fields -------------------------------------------------------------------------------


def test_locks_add_up_in_any_order() -> None:
    """Each lock is added to those before; a field that is locked again has its last value."""
    client = Client()
    client.lock(tool="a", room=1)
    client.events("x")
    client.lock(room=2)
    client.lock(extra=[1])
    client.events("y")
    assert locked(client.kept[1]) == {"tool": "a", "room": 1}
    assert locked(client.kept[4]) == {"tool": "a", "room": 2, "extra": [1]}


def test_a_late_lock_does_not_reach_back() -> None:
    """A frame is kept with what was locked when it came, and only the binding carries what came later."""
    client = Client()
    client.events("a")
    client.lock(tool="late")
    client.events("b")
    client.events("c", user_id="ann")
    assert [locked(one) for one in client.kept] == [
        {},
        {},
        {"tool": "late"},
        {"tool": "late"},
        {"tool": "late"},
    ]
    assert client.kept[4].kind == ROW_BINDING


def test_the_lock_wins() -> None:
    """A field that is locked is not changed by a frame: identity, source and keys come from the lock."""
    client = Client()
    client.lock(user_id="ann", source="pad", doc_id="d")
    step = client.send({"event": "a", "user_id": "bob", "source": "other", "doc_id": "e"})
    assert step.replies == []
    assert (client.kept[1].source, client.kept[1].keys) == ("pad", {"student": "testcase-ann", "doc_id": "d"})


@pytest.mark.parametrize("first", [{"user_id": "ann"}, {"doc_id": "d"}, {"source": "pad"}])
def test_locks_in_any_order_come_to_the_same(first: dict[str, str]) -> None:
    """Whichever field is locked first, the events that follow all of them are kept alike."""
    client = Client()
    for fields in (first, {"source": "pad"}, {"user_id": "ann"}, {"doc_id": "d"}):
        client.lock(**fields)
    client.events("a")
    last = client.kept[-1]
    assert (last.subject, last.source) == ("student:testcase-ann", "pad")
    assert last.keys == {"student": "testcase-ann", "doc_id": "d"}


def test_nobody_locks_that_he_is_authenticated() -> None:
    """The field "auth" is the server's word; a client cannot say it of himself by locking it."""
    client = Client()
    client.lock(auth={"user_id": "teacher"}, tool="pad")
    client.events("a")
    assert locked(client.kept[1]) == {"tool": "pad"}


@pytest.mark.parametrize("frame", [{}, {"fields": None}, {"fields": []}, {"fields": "x"}])
def test_a_lock_without_fields_is_refused(frame: dict[str, Any]) -> None:
    """It locks nothing, and what was locked stays so."""
    client = Client()
    client.lock(tool="pad")
    assert client.send({"event": "lock_fields", **frame}).refused == "lock_fields: fields must be an object"
    client.events("a")
    assert locked(client.kept[-1]) == {"tool": "pad"}


def test_a_lock_that_is_too_large_is_refused() -> None:
    """What is locked is written beside every event, so it is bounded; the lock before holds on."""
    client = Client()
    client.lock(tool="pad")
    step = client.lock(big="x" * LOCK_BYTES_MAX, user_id="ann")
    assert step.refused == f"lock_fields: more than {LOCK_BYTES_MAX} bytes are locked"
    assert step.replies == []
    client.events("a")
    assert (locked(client.kept[-1]), client.kept[-1].subject) == ({"tool": "pad"}, f"{NOBODY}-0")


# --- keys and protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"doc_id": "d", "class": "7b", "resource": "r", "teacher": "t"}, None),
        ({"doc-id": "d"}, {"doc_id": "d"}),
        ({"doc_id": 5}, {"doc_id": "5"}),
        ({"doc_id": "", "class": None, "resource": [], "teacher": {}}, {}),
        ({"doc_id": "x" * 1_025}, {}),
        ({"student": "bob"}, {}),
    ],
)
def test_key_fields_are_taken_from_the_frame(fields: dict[str, Any], keys: dict[str, str] | None) -> None:
    """Known fields become keys; what cannot be one is left out, and the event is kept all the same."""
    client = Client()
    client.events("a", user_id="ann", **fields)
    expected = {"student": "testcase-ann", **(fields if keys is None else keys)}
    assert client.kept[0].keys == expected


def test_terminate_asks_to_close() -> None:
    """It is kept like any frame, as protocol, and the connection is closed after its answer."""
    client = Client()
    client.events("a", user_id="ann")
    step = client.send({"event": "terminate"})
    assert (step.close, step.submissions[0].kind, step.refused) == (True, ROW_FRAME, None)


# --- bad frames ----------------------------------------------------------------------------------

BAD = [
    (b"\x00\x01", False, "binary frame; send one JSON object as text"),
    (b'{"event":"a"}', False, "binary frame; send one JSON object as text"),
    (b'{"event":', True, "malformed JSON: Input data was truncated"),
    (b"", True, "malformed JSON: Input data was truncated"),
    (b'{"event":"\xff"}', True, "invalid UTF-8 at byte 10"),
    (b"[]", True, "a frame must be a JSON object"),
    (b'"event"', True, "a frame must be a JSON object"),
    (b"{}", True, "field event is missing; expected a string"),
    (b'{"event":1}', True, "field event is missing; expected a string"),
    (b'{"event":null}', True, "field event is missing; expected a string"),
]


@pytest.mark.parametrize(("data", "text", "reason"), BAD)
def test_a_bad_frame_is_kept_and_refused(data: bytes, text: bool, reason: str) -> None:
    """Its bytes are kept as refused, with the reason, connection and number, under nobody's name."""
    client = Client()
    client.events("a", user_id="ann")
    step = client.send(data, text=text)
    assert (step.refused, step.replies, step.close) == (reason, [], False)
    (kept,) = step.submissions
    assert (kept.kind, kept.subject, kept.keys) == (ROW_REFUSED, "refused:2023-11-14", {})
    assert kept.extra == {"reason": reason, "conn": ID, "frame": 1}


def test_a_bad_frame_changes_nothing() -> None:
    """The connection goes on as if it had not been, but that it has its number."""
    client = Client()
    client.lock(tool="pad")
    client.events("a")
    for data, text, _ in BAD:
        client.send(data, text=text)
    client.events("b", user_id="ann")
    numbers = [one.extra["frame"] for one in client.kept]
    assert numbers == [*range(len(BAD) + 3), len(BAD) + 2]
    assert (client.kept[-2].subject, locked(client.kept[-2])) == (f"{NOBODY}-0", {"tool": "pad"})


# --- properties ----------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("x" * 1_100)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["user_id", "doc_id", "doc-id", "class", "source", "auth", "event", "fields", "x"])
objects = st.dictionaries(fields, values, max_size=4)
events = st.builds(
    lambda name, rest, lock: {**rest, "event": name, **({} if lock is None else {"fields": lock})},
    st.sampled_from(["lock_fields", "terminate", "a"]),
    objects,
    st.none() | objects | values,
)
frames = st.one_of(
    events.map(lambda value: json.dumps(value).encode()),
    objects.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=30),
    st.integers(0, 3_000).map(lambda depth: b'{"event":"a","x":' + b"[" * depth + b"]" * depth + b"}"),
)


@given(st.lists(st.tuples(frames, st.booleans()), max_size=12))
def test_any_frames_are_answered(sent: list[tuple[bytes, bool]]) -> None:
    """Whatever comes, each frame is kept under its number, and each backlog is bound at most once and for
    good.
    """
    connection, bound = Connection(ID), set()
    for number, (data, text) in enumerate(sent):
        step = connection.frame(data, text, NOW_US)
        own, *more = step.submissions
        assert (own.payload, own.extra["frame"], len(more) <= 1) == (data, number, True)
        assert (own.kind == ROW_REFUSED) == (step.refused is not None)
        assert own.subject not in bound
        for binding in more:
            assert (binding.kind, binding.also) == (ROW_BINDING, [own.subject])
            bound.add(own.subject)
        if own.subject.startswith("student:"):
            assert own.subject == f"student:{own.keys['student']}"
        elif own.kind != ROW_REFUSED:
            assert own.subject.startswith(NOBODY)
            assert "student" not in own.keys
        assert "auth" not in locked(own)
        assert all(reply["status"] == "auth" for reply in step.replies)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"event": "treering.tick", "source": "treering"}, "field event"),
        ({"event": "hello", "source": "treering"}, "field source"),
        ({"event": "hello", "source": "treering.module.progress"}, "field source"),
        ({"event": "hello", "type": "treering.tick"}, "field type"),
        ({"event": "lock_fields", "source": "treering", "fields": {"version": "2"}}, "field source"),
        ({"event": "lock_fields", "fields": {"source": "treering"}}, "field source"),
        ({"event": "lock_fields", "fields": {"event": "treering.tick", "version": "2"}}, "field event"),
        ({"event": "lock_fields", "fields": {"event": 5, "type": "treering.tick"}}, "field type"),
    ],
)
def test_no_frame_is_the_system(frame: Any, says: str) -> None:
    """A frame that claims to be a tick or a message is refused, locked or not, and leaves nothing behind."""
    client = Client()
    client.lock(version="1")
    step = client.send(frame)
    assert step.refused is not None
    assert says in step.refused
    assert "reserved for the system" in step.refused
    assert (step.submissions[0].kind, step.submissions[0].sender) == (ROW_REFUSED, "")
    client.events("hello", user_id="ann")
    assert locked(client.kept[-1]) == {"version": "1"}
    assert all(one.sender == "" and not one.source.startswith("treering") for one in client.kept)
