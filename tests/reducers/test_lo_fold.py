"""Folding reducers of the Learning Observer: what they do there, they do here, and nothing else.

How their modules are loaded is tested in test_lo.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive import Event
from reducers import Reducer, StateError, check, fold
from reducers.lo_reducer import LoState, json_of
from tests.reducers.lo_world import (
    RECEIVED_US,
    WRITING,
    frames,
    internal,
    lookalike,
    named,
    server,
    typed,
)
from tests.world import World, connection, run, union
from tests.world import frames as submitted

READERS = 11
"""Place of `readers` in REDUCERS: its states are found by the document alone, as far as the ingest knows it."""
LAWFUL = ("text", "history", "saves", "opened", "time_on_task", "loud", "readers", "fetched")
DOCUMENT = {"object": {"url": "https://docs.google.com/document/d/essay/edit"}}

EVENTS: list[dict[str, Any]] = [
    typed("Hello"),
    {"event": "keystroke", **DOCUMENT},
    typed(" world", 6, tab_id="t.0"),
    {"event": "visibility"},
    typed("!", 12, metadata={"ts": 1.5}),
    {
        "event": "google_docs_save",
        "doc_id": "other",
        "bundles": [{"commands": [{"ty": "is", "s": "x", "ibi": 3}]}],
    },
    typed("?", 1, tab_id="t.1"),
]


@pytest.mark.parametrize("name", LAWFUL)
def test_a_reducer_that_changes_its_state_in_place_is_lawful_here(name: str) -> None:
    """Encoding, no mutation, determinism, split and view hold, whatever the function does to what it is given."""
    slots = check(named(lookalike(), name), frames(*EVENTS), processes=False)
    assert all(slot.error is None for slot in slots.values())


def test_what_a_reducer_does_to_its_event_reaches_no_other() -> None:
    """Each reducer gets an event of its own: one empties it, the next finds all that was sent."""
    module, events = lookalike(), frames(*EVENTS)
    before = json.dumps([event.data for event in events])
    for event in events:
        for name in ("history", "text", "history"):
            fold(named(module, name), [event])
    assert json.dumps([event.data for event in events]) == before
    assert fold(named(module, "text"), events)["testcase-ann", "essay"].error is None


frame = st.one_of(
    st.builds(
        typed,
        st.text("ab🙂\0", max_size=3),
        st.integers(1, 5),
        doc_id=st.sampled_from(["essay", "other"]),
        tab_id=st.sampled_from(["t.0", "t.1"]),
    ),
    st.builds(typed, st.text(max_size=2)),
    st.fixed_dictionaries({"event": st.sampled_from(["keystroke", "visibility"])}),
    st.just({"event": "keystroke", **DOCUMENT}),
    st.just({"event": "early", "event-type": "x", "source": "org.mitros.writing-analytics"}),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(frame, max_size=12))
def test_states_are_those_of_the_server_that_the_module_was_written_for(values: list[dict[str, Any]]) -> None:
    """Both states of every key, for every reducer that does not raise, are what the protocol says they are."""
    module = lookalike()
    python = sys.modules["tests.reducers.lo_lookalike.module"]
    events = frames(*values)
    for event in events:
        event.data["source"] = WRITING  # the lock wins
    expected = server(python, events)
    if any("object" in value for value in values):
        expected.pop(READERS)
    names = [entry["function"] for entry in python.REDUCERS]
    for position, states in expected.items():
        scope = len(next(iter(states)))
        (reducer,) = [
            each
            for each in module.reducers
            if each.name.startswith(f"{names[position].__module__}.{names[position].__qualname__}")
            and (len(each.scope) == scope)
        ]
        found = {
            key: (json.loads(slot.state.internal), json.loads(slot.state.external or b'"never"'))
            for key, slot in fold(reducer, events).items()
        }
        assert found == states, reducer.name


def test_false_writes_nothing() -> None:
    """Where a reducer returns False for a state, that state stays; the other is written all the same."""
    saves = named(lookalike(), "saves")
    (slot,) = fold(saves, frames({"event": "keystroke"})).values()
    assert slot.state == LoState(b'{"count":0}')
    (slot,) = fold(saves, frames(typed("a"), {"event": "keystroke"}, typed("b"))).values()
    assert slot.state == LoState(b'{"count":2}')
    assert slot.changed_at == 2
    text = named(lookalike(), "text")
    slot = fold(text, frames(typed("abc")))["testcase-ann", "essay"]
    assert (slot.state.internal, slot.state.external) == (b'{"position":3,"text":"abc"}', b'{"length":3}')


def test_an_event_that_changes_nothing_leaves_the_very_slot() -> None:
    """Unchanged is seen by the bytes, though the function returns a new object each time."""
    text = named(lookalike(), "text")
    slots = fold(text, frames(typed("abc")))
    empty = {"event": "google_docs_save", "doc_id": "essay", "bundles": [{"commands": []}]}
    (event,) = frames(empty)
    saved = fold(text, [event], fold(text, [event], slots))
    assert fold(text, [event], saved)["testcase-ann", "essay"] is saved["testcase-ann", "essay"]


def test_readers_see_the_external_state_else_the_internal_else_the_default() -> None:
    """What an author meant for others is shown; a state that was never written is shown as the module says."""
    text, saves = (named(lookalike(), name) for name in ("text", "saves"))
    assert text.view(text.initial()) == {"text": ""}
    assert text.view(LoState(b'{"text":"a"}')) == {"text": "a"}
    assert text.view(LoState(b'{"text":"a"}', b'{"length":1}')) == {"length": 1}
    assert saves.view(saves.initial()) == {}


@pytest.mark.parametrize("state", [LoState(), LoState(b"[1]"), LoState(b"1", b"1"), LoState(b"1", b"null")])
def test_a_state_is_canonical_json_and_comes_back(state: LoState) -> None:
    """The three forms of a stored state are told apart, and keys are in order, so that equal states are equal
    bytes.
    """
    text = named(lookalike(), "text")
    encoding = text.encode(state)
    assert encoding == json_of(json.loads(encoding))
    assert text.decode(encoding) == state


@pytest.mark.parametrize("encoding", [b"", b"7", b"{}", b'{"internal":1,"more":2}', b'{"internal":}'])
def test_bytes_that_are_no_state_are_refused(encoding: bytes) -> None:
    """A snapshot of something else is an error that names the reducer, and not a strange state."""
    with pytest.raises(StateError, match=r"text.*no state of an LO reducer"):
        named(lookalike(), "text").decode(encoding)


def test_a_clock_shows_when_the_event_was_received() -> None:
    """Four ways to ask for the time give one answer, which stands in the log: a replay gives it again."""
    slots = fold(named(lookalike(), "opened"), frames({"event": "visibility"}, typed("a")))
    seconds = RECEIVED_US / 1_000_000 + 1
    assert internal(named(lookalike(), "opened"), slots) == {
        ("testcase-ann",): {"at": {"essay": [seconds, seconds, "2023-11-14T22:13:21+00:00", seconds]}}
    }


def test_a_reducer_that_raises_stops_its_key_and_nothing_else() -> None:
    """An exception is the result of that event, for that reducer and key."""
    module = lookalike()
    events = frames(typed("a"), {"event": "bad", "doc_id": "essay"}, typed("b"), typed("c", doc_id="other"))
    slots = fold(named(module, "loud"), events)
    assert slots["testcase-ann", "essay"].error_index == 1
    assert slots["testcase-ann", "essay"].state == LoState(b'{"count":1}')
    assert slots["testcase-ann", "other"].error is None
    assert all(slot.error is None for slot in fold(named(module, "history"), events).values())


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("patient", "RuntimeError: the reducer waits for something"),
        ("stored", "NotForReducers: learning_observer.kvs.KVS is not there for a reducer"),
        ("fetched", "ValueError: nan is not a JSON number"),
    ],
)
def test_what_cannot_be_a_function_of_the_log_is_said_to_be_so(name: str, complaint: str) -> None:
    """A reducer that waits, reaches for the server, or keeps what JSON does not have, is told at its event."""
    (slot,) = fold(named(lookalike(), name), frames({"event": "nan"}, source="org.example.broken")).values()
    assert slot.error is not None
    assert slot.error.startswith(complaint)


def test_only_events_of_the_source_are_seen() -> None:
    """A reducer sees its context's events, under the names of early clients, too, and no others; what is about
    the connection reaches none.
    """
    history = named(lookalike(), "history")
    seen = [
        *frames({"event": "one"}, source="org.mitros.writing-analytics"),
        *frames({"event": "two"}, source="org.mitros.dynamic_assessment"),
        *frames({"event": "three"}, source="org.mitros.other"),
        *frames({"event": "save_blob", "blob": {}}, {"event": "four"}),
    ]
    assert internal(history, fold(history, seen))["testcase-ann",]["seen"] == ["one", "two", "four"]


def test_an_event_without_a_field_of_the_key_is_passed_over() -> None:
    """As there, an event that lacks the field is none of the reducer's; neither is one where it is no text."""
    text = named(lookalike(), "text")
    assert fold(text, frames({"event": "keystroke"}, {"event": "keystroke", "doc_id": None})) == {}
    assert set(fold(text, frames({"event": "e", "doc_id": 7}))) == {("testcase-ann", "7")}


def test_events_of_our_own_form_reach_such_reducers() -> None:
    """An event that came over HTTP has its type and keys beside the data; there they are in the frame."""
    event = Event(
        index=0,
        type="google_docs_save",
        source=WRITING,
        keys={"student": "ann", "doc_id": "essay"},
        data={"bundles": typed("a")["bundles"]},
        received_ms=5,
        time_ms=5,
    )
    slots = fold(named(lookalike(), "text"), [event])
    assert slots["ann", "essay"].state.external == b'{"length":1}'


def test_shards_and_restarts_do_not_show() -> None:
    """Over a real log, with identity that comes late, any number of shards has the states of a plain fold."""
    reducers: list[Reducer[Any]] = [*lookalike().reducers]
    world = World(reducers=reducers)
    people = ["ann", "bob", "eve", "joe"]
    for number, student in enumerate(people):
        socket = connection(number + 1)
        lock = {"event": "lock_fields", "fields": {"source": WRITING}}
        world.append(submitted(socket, lock, typed("x"), {"event": "hello", "user_id": student}))
        world.append(submitted(socket, *EVENTS))
    digests = []
    for shards in (1, 2, 3):
        runners = world.runners(shards)
        for runner in runners:
            run(runner, world.source)
            runner.save(world.source)
        digests += [union(runners), union(world.runners(shards))]
    assert set(digests) == {digests[0]}
    pairs = [pair for pair in world.runner().pairs() if pair.name.endswith(".text")]
    assert sorted(pair.key for pair in pairs) == [
        (f"testcase-{student}", document) for student in people for document in ("essay", "other")
    ]
    text = named(lookalike(), "text")
    assert {text.view(text.decode(pair.encoding))["length"] for pair in pairs} == {3, 14}
