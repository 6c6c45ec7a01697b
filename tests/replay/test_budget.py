"""Promise: one event makes a bounded number of messages, whatever modules answer; a rebuild finds the same bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archive import Receipt, Submission
from reducers import Emit, Event, is_tick, reducer
from replay import HOPS_MAX, TICK_SENDER, Crew, Holding, submission_of, too_far
from replay.budget import BUDGET, TOO_MANY, shares
from tests.replay.test_messages import ORIGIN, Talking, said
from tests.world import event, tick_at

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors" / "replay" / "message.json").read_text())
STUDENTS = 30


def repeated(pairs: list[list[int]]) -> list[int]:
    """Return numbers of which each is said with how many of it there are."""
    return [share for share, times in pairs for _ in range(times)]


@given(st.integers(0, 300), st.data())
def test_no_tree_of_messages_is_larger_than_the_budget_of_its_event(budget: int, data: st.DataObject) -> None:
    """However many messages each key says, and however deep they go: all together are as many as the first may make."""
    waiting, sent = [budget], 0
    while waiting:
        at = waiting.pop()
        said_here = data.draw(st.integers(0, 12) if sent < 100 else st.integers(1, 40))
        kept = [one for one in shares(at, said_here) if one != TOO_MANY]
        assert len(kept) == min(at, said_here)
        sent += len(kept)
        waiting += kept
    assert sent <= budget


@given(st.integers(0, 20_000), st.integers(0, 1_000))
def test_shares_are_equal_and_waste_less_than_one_each(budget: int, count: int) -> None:
    """What is left is shared: nobody gets more than another, and what nobody gets is the rest of a division."""
    kept = [one for one in shares(budget, count) if one != TOO_MANY]
    assert len(set(kept)) <= 1
    left = budget - len(kept) - sum(kept)
    assert 0 <= left < max(1, len(kept)) or not kept


@pytest.mark.parametrize("budget", [0, 7, TOO_MANY])
def test_a_message_beyond_the_budget_is_as_one_too_far(budget: int) -> None:
    """It is not sent, as the ninth of a chain is not; one that may lead to nothing is sent all the same."""
    assert too_far(said(budget=budget)) == (budget == TOO_MANY)


# --- through a log -------------------------------------------------------------------------------


@reducer(scope=("student",), version=1)
def pupil(state: int, event: Event, emit: Emit) -> int:
    """Answer its class, whoever speaks."""
    emit("pupil.heard", keys={"class": "7b"}, data=None)
    return state + (event.index >= 0)


@reducer(scope=("class",), version=1)
def teacher(state: int, event: Event, emit: Emit) -> int:
    """Tell all its students, whenever one speaks."""
    for number in range(STUDENTS):
        emit("teacher.told", keys={"student": f"s{number}"}, data=None)
    return state + (event.index >= 0)


@reducer(scope=("student",), version=1, ticks=60)
def counting(state: int, event: Event, emit: Emit) -> int:
    """Say as many words as it is told to, and at a tick as many as at the event before."""
    count = state if is_tick(event) else event.data
    for _ in range(count):
        emit("counting.word", keys={"class": "7b"})
    return int(count)


def storm(talking: Talking) -> list[Submission]:
    """Return all that is said until nobody says anything more."""
    sent: list[Submission] = []
    for _ in range(HOPS_MAX + 3):
        sent += talking.say()
        assert len(sent) <= BUDGET, "a storm"
    assert talking.say() == []
    return sent


def test_a_class_that_tells_all_its_students_each_word_makes_one_event_ten_thousand_at_most() -> None:
    """The storm of before: 866,000 entries of one event; now it ends by its budget, and nobody is quarantined."""
    talking = Talking([pupil, teacher])
    talking.world.append([event("s0")])
    sent = storm(talking)
    assert 9_000 < len(sent) <= BUDGET
    assert len({one.id for one in sent}) == len(sent)
    (holding,) = talking.crew.holdings
    slots = [holding.get(pupil, (f"s{number}",)) for number in range(STUDENTS)]
    assert [slot.error for slot in (*slots, holding.get(teacher, ("7b",))) if slot] == [None] * (STUDENTS + 1)


@pytest.mark.parametrize("case", GOLDEN["budgets"], ids=lambda case: case["name"])
def test_messages_of_an_entry_share_what_the_format_says(case: Any) -> None:
    """Only what the system wrote is believed; a message of before has what one alone would have left."""
    talking, given_ = Talking([counting]), case["input"]
    ticks = given_["sender"] == TICK_SENDER
    one = replace(event("ann", data=case["messages"]), **({} if ticks else given_))
    talking.world.append([one, *([tick_at(60)] if ticks else [])])
    while talking.crew.step(talking.world.source):
        pass
    found = [one.budget for one in talking.crew.outbox]
    assert found == repeated(case["shares"]) * (2 if ticks else 1)
    sent = talking.say()
    assert [one.extra["budget"] for one in sent] == [one for one in found if one != TOO_MANY]


class Before(Talking):
    """The server of before: what it says has no budget in its header."""

    def say(self) -> list[Submission]:
        """Fold what is there, append it without a budget, and return it."""
        while self.crew.step(self.world.source):
            pass
        name = self.world.vault().name
        sent = [
            submission_of(ORIGIN, one, [name(number) for number in one.subjects]) for one in self.crew.outbox
        ]
        for one in sent:
            del one.extra["budget"]
        self.answers = self.world.archiver.step(sent)
        self.crew.sent()
        return sent


def test_a_log_of_before_is_said_again_as_it_stands_and_grows_by_nothing() -> None:
    """A rebuild after the upgrade: same ids, same content, the same receipts, though headers differ by the budget."""
    before = Before([pupil, teacher])
    before.world.append([event("s0")])
    kept = [one for _ in range(4) for one in before.say()]
    size = before.world.size
    assert len(kept) == 1 + STUDENTS + STUDENTS + STUDENTS**2
    before.crew = Crew([Holding([pupil, teacher], module="m")], before.world.vault())
    again = dict(zip(((one.id, one.payload) for one in Talking.say(before)), before.answers, strict=True))
    receipts = [again[one.id, one.payload] for one in kept]
    assert [one.index for one in receipts if isinstance(one, Receipt)] == list(range(size - len(kept), size))
