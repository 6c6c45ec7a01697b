"""What a module said, as an entry: its bytes are a function of what it came of, and nobody loses by them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import ROW_EVENT, Activate, Receipt, Refusal, Submission, parse_opening, parse_row, read_event
from archive import open_row as opened_row
from reducers import Emit, Event, Message, Reducer, is_tick, reducer, source_of
from replay import (
    HOPS_MAX,
    Crew,
    Holding,
    Outgoing,
    Runner,
    message_id,
    submission_of,
    tick_submission,
    too_far,
)
from tests.world import World, connection, event, frames, tick_at

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors" / "replay" / "message.json").read_text())
ORIGIN = "example.org/log"


def said(**changes: Any) -> Outgoing:
    """Return something that a reducer said."""
    plain = Outgoing(
        module="m",
        reducer="r",
        key=("ann",),
        at=7,
        ordinal=0,
        message=Message("m.t", {"class": "7b"}, {"n": 1}),
        subjects=(0,),
        hops=1,
        time_ms=5,
        received_ms=6,
        person="ann",
        budget=9_999,
    )
    return plain._replace(**changes)


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["messages"], ids=lambda case: case["name"])
def test_a_message_has_the_bytes_of_the_format(case: Any) -> None:
    """Id, header fields and payload are those of docs/formats/message.md, computed from the page by other code."""
    given_ = dict(case["outgoing"])
    message = Message(given_.pop("type"), given_.pop("keys"), given_.pop("data"))
    outgoing = said(**{**given_, "key": tuple(given_["key"]), "message": message})
    one, want = submission_of(case["origin"], outgoing, case["subjects"]), case["entry"]
    assert one.payload.decode() == want.pop("payload")
    assert {name: getattr(one, name) for name in want} == want
    assert (one.kind, one.keys) == (ROW_EVENT, message.keys)


@pytest.mark.parametrize("case", GOLDEN["ticks"], ids=lambda case: str(case["second"]))
def test_a_tick_has_the_bytes_of_the_format(case: Any) -> None:
    """Whoever logs that a second has begun logs the same."""
    one, want = tick_submission(case["second"]), case["entry"]
    assert one.payload.decode() == want.pop("payload")
    assert {name: getattr(one, name) for name in want} == want


PARTS = st.text(max_size=3)


@given(
    st.lists(
        st.tuples(PARTS, PARTS, PARTS, st.lists(PARTS, max_size=3)), min_size=2, max_size=2, unique_by=str
    )
)
def test_what_comes_of_something_else_has_another_id(origins: list[tuple[str, str, str, list[str]]]) -> None:
    """Lengths stand before texts, so no two (log, module, reducer, key) run together."""
    ids = {
        message_id(origin, said(module=module, reducer=name, key=tuple(key)))
        for origin, module, name, key in origins
    }
    assert len(ids) == len(origins)


def test_index_and_ordinal_make_another_id_and_the_content_does_not() -> None:
    """What is said is content: the same id with other content is what the archiver finds out."""
    base = message_id(ORIGIN, said())
    assert message_id(ORIGIN, said(at=8)) != base
    assert message_id(ORIGIN, said(ordinal=1)) != base
    assert (
        message_id(ORIGIN, said(message=Message("other", {}, None), hops=3, budget=1, time_ms=9, subjects=()))
        == base
    )


def test_a_message_reads_back_as_what_was_said() -> None:
    """The receiving reducer sees type, keys, data and the time of the event that it came of."""
    one = submission_of(ORIGIN, said(time_ms=1_234_567), ["student:ann"])
    read = read_event(9, one.form, one.source, one.keys, one.received_us // 1_000, one.payload)
    assert (read.type, read.source, read.keys, read.data) == (
        "m.t",
        source_of("m"),
        {"class": "7b"},
        {"n": 1},
    )
    assert (read.time_ms, read.received_ms) == (1_234_567, 6)


def test_a_tick_reads_back_as_a_tick() -> None:
    """By type and source, which nobody outside can send."""
    one = tick_submission(60)
    assert is_tick(read_event(9, one.form, one.source, one.keys, 0, one.payload))


def test_a_chain_is_too_long_by_what_its_input_says_alone() -> None:
    """Eight messages may follow from one event, the ninth is not sent."""
    assert [too_far(said(hops=hops)) for hops in (1, HOPS_MAX, HOPS_MAX + 1)] == [False, False, True]


# --- through a log -------------------------------------------------------------------------------


@reducer(scope=("student",), version=1, ticks=60)
def echo(state: int, event: Event, emit: Emit) -> int:
    """Tell the class of each event that names one, and of each tick."""
    if "class" in event.keys or is_tick(event):
        emit("echo.heard", keys={"class": event.keys.get("class", "all")}, data=event.index)
    return state + 1


@reducer(scope=("class",), version=1)
def pingpong(state: int, event: Event, emit: Emit) -> int:
    """Answer whatever it hears, itself included: a loop of modules."""
    emit("pingpong.heard", keys={"class": event.keys["class"]}, data=state)
    return state + 1


@dataclass
class Talking:
    """A world whose module is active, and one shard's worker of it."""

    reducers: list[Reducer[Any]]
    world: World = field(default_factory=World)
    answers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.reducers = self.reducers
        holding = Holding(self.reducers, module="m")
        self.world.steer(Activate("m", tuple(holding.identities)))
        self.crew = Crew([holding], self.world.vault())

    def say(self) -> list[Submission]:
        """Fold what is there, append what was said, and return it; nobody folds it yet."""
        while self.crew.step(self.world.source):
            pass
        vault = self.world.vault()
        sent = [
            submission_of(ORIGIN, one, [vault.name(number) for number in one.subjects])
            for one in self.crew.outbox
            if not too_far(one)
        ]
        self.answers = self.world.archiver.step(sent)
        self.crew.sent()
        return sent


def test_a_message_is_readable_only_while_all_it_is_about_are_there() -> None:
    """An event of ann's in class 7b gives a message under ann's secret as well as its own subject's."""
    talking = Talking([echo])
    talking.world.append([event("ann", **{"class": "7b"})])
    (sent,) = talking.say()
    assert (sent.subject, sent.also) == ("source:treering.module.m", ["student:ann"])
    with talking.world.source.open() as log:
        row = parse_row(log.row(log.size - 1))
    vault = talking.world.vault()
    assert [vault.name(number) for number in row.subjects] == [sent.subject, "student:ann"]
    header = parse_opening(opened_row(row, vault.data_key(row.subjects))).header
    assert (header.sender, header.extra["hops"], header.extra["cause"]) == ("module:m", 1, log.size - 2)


def test_what_a_tick_makes_a_student_s_state_say_is_about_the_student() -> None:
    """A tick has no subject, but the state that spoke is ann's: erasing her covers it."""
    talking = Talking([echo])
    talking.world.append([event("ann"), event("bob"), tick_at(60)])
    sent = talking.say()
    assert [one.also for one in sent] == [["student:ann"], ["student:bob"]]
    assert len({one.id for one in sent}) == 2


def test_a_backlog_speaks_at_its_binding_in_the_name_of_its_entries() -> None:
    """What was sent before anybody knew by whom is the input, so that a rebuild finds the same ids."""
    talking = Talking([echo])
    lo = connection()
    talking.world.append(frames(lo, {"event": "early", "class": "7b"}))
    first = talking.world.size - 1
    assert talking.say() == []
    talking.world.append(frames(lo, {"event": "known", "user_id": "ann"}))
    (sent,) = talking.say()
    assert sent.extra["cause"] == first
    assert sent.also[0].startswith("provisional:")
    assert sent.also[1] == "student:testcase-ann"


def test_saying_it_again_gives_the_same_receipts() -> None:
    """A worker that lost its position sends all of it again, and the log does not grow."""
    talking = Talking([echo])
    talking.world.append([event("ann", **{"class": "7b"}) for _ in range(3)])
    first, answers = talking.say(), talking.answers
    size = talking.world.size
    again = Crew([Holding([echo], module="m")], talking.world.vault())
    talking.crew = again
    assert talking.say() == first
    assert [one.index for one in talking.answers] == [one.index for one in answers]
    assert talking.world.size == size


def test_other_content_under_the_same_id_is_a_conflict() -> None:
    """A reducer that says something else at the same event is found out, and the log keeps the first."""
    talking = Talking([echo])
    talking.world.append([event("ann", **{"class": "7b"})])
    (sent,) = talking.say()
    other = submission_of(ORIGIN, said(), ["student:ann"])
    (answer,) = talking.world.archiver.step([Submission(**{**_fields(sent), "payload": other.payload})])
    assert isinstance(answer, Refusal)
    assert answer.reason == "conflict"
    (answer,) = talking.world.archiver.step([Submission(**{**_fields(sent), "received_us": 1, "extra": {}})])
    assert isinstance(answer, Receipt), "content is the payload, not when or by whom it was sent again"


def _fields(one: Submission) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def test_modules_that_answer_each_other_stop_after_eight() -> None:
    """One event gives eight messages and no more, and the state is that of a plain fold of the log."""
    talking = Talking([pingpong])
    talking.world.append([event(None, **{"class": "7b"})])
    rounds = [len(talking.say()) for _ in range(HOPS_MAX + 3)]
    assert rounds == [1] * HOPS_MAX + [0, 0, 0]
    (holding,) = talking.crew.holdings
    slot = holding.get(pingpong, ("7b",))
    assert slot is not None
    assert (slot.state, slot.error) == (1 + HOPS_MAX, None)
    alone = Runner([Holding([pingpong])], talking.world.vault())
    while alone.step(talking.world.source):
        pass
    assert [pair.key for pair in alone.pairs()] == [("7b",)]
    again = alone.holdings[0].get(pingpong, ("7b",))
    assert again is not None
    assert again.state == slot.state, "a muted replay comes to the same"
