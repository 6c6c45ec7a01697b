"""What a reducer says: checked and copied when it is said, heard or not, and only if the reducer returns."""

from __future__ import annotations

from typing import Any

import pytest

from archive import Event
from reducers import DefinitionError, Emit, Message, Outbox, Slot, fold, fold_one, reducer
from reducers.message import DATA_BYTES_MAX, EMITTED_MAX


def at(index: int, data: Any = None) -> Event:
    """An event of one student."""
    return Event(
        index=index, type="t", source="s", keys={"student": "ann"}, data=data, received_ms=0, time_ms=0
    )


@reducer()
def telling(state: int, event: Event, emit: Emit) -> int:
    """Say what it is told to; then raise, change nothing, or go on."""
    for data in event.data["say"]:
        emit("tell.said", keys={"class": "7b"}, data=data)
    if event.data.get("raise"):
        raise ValueError("no")
    return state if event.data.get("still") else state + 1


def test_what_is_emitted_is_heard_in_order() -> None:
    """Messages come in the order in which they were emitted, after those that were there."""
    out = [Message("old", {}, None)]
    slot = fold_one(telling, None, at(4, {"say": [1, {"b": 2}]}), out)
    assert slot == Slot(1, 4)
    assert out[1:] == [
        Message("tell.said", {"class": "7b"}, 1),
        Message("tell.said", {"class": "7b"}, {"b": 2}),
    ]


def test_a_reducer_that_raises_has_said_nothing() -> None:
    """A quarantined event leaves no message: half of what was to be said is not what was meant."""
    out: list[Message] = []
    slot = fold_one(telling, Slot(3, 0), at(4, {"say": [1], "raise": True}), out)
    assert (slot.error_index, out) == (4, [])


def test_saying_something_need_not_change_the_state() -> None:
    """The very slot comes back, and the message counts."""
    out: list[Message] = []
    slot = Slot(3, 0)
    assert fold_one(telling, slot, at(4, {"say": [1], "still": True}), out) is slot
    assert len(out) == 1


@pytest.mark.parametrize("bad", [{1: 2}, float("nan"), "\ud800", object])
def test_muted_or_not_the_same_messages_are_refused(bad: Any) -> None:
    """A replay that sends nothing quarantines where the live fold did."""
    out: list[Message] = []
    heard = fold_one(telling, None, at(4, {"say": [bad]}), out)
    muted = fold_one(telling, None, at(4, {"say": [bad]}))
    assert heard == muted
    assert heard.error_index == 4


def test_fold_hears_all() -> None:
    """The messages of a whole fold come in the order of the log."""
    out: list[Message] = []
    fold(telling, [at(n, {"say": [n]}) for n in range(3)], out=out)
    assert [each.data for each in out] == [0, 1, 2]


def test_a_message_is_a_copy() -> None:
    """What the reducer changes later is not what it said."""
    out: list[Message] = []
    data, keys = {"n": [1]}, {"class": "7b"}
    Outbox(out)("t.x", keys=keys, data=data)
    data["n"].append(2)
    keys["class"] = "8a"
    assert out == [Message("t.x", {"class": "7b"}, {"n": [1]})]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"type": "", "keys": {}}, "the type of a message must be a text"),
        ({"type": 7, "keys": {}}, "the type of a message must be a text"),
        ({"type": "treering.tick", "keys": {}}, "is the system's own"),
        ({"type": "t", "keys": [("student", "ann")]}, "keys must be a dict"),
        ({"type": "t", "keys": {"student": 7}}, "keys must be texts, not 'student': 7"),
        ({"type": "t", "keys": {7: "x"}}, "keys must be texts"),
        ({"type": "t", "keys": {}, "data": {1: 2}}, r"dict key 1 is not a string; use str\(1\)"),
        (
            {"type": "t", "keys": {}, "data": "x" * DATA_BYTES_MAX},
            "hold 65,538 bytes; at most 65,536 together",
        ),
    ],
)
def test_what_can_be_no_event_is_refused_at_once(arguments: dict[str, Any], says: str) -> None:
    """The author sees it at the line that emits it, with what to write instead."""
    with pytest.raises((TypeError, ValueError), match=says):
        Outbox([])(**arguments)


def test_a_reducer_that_cannot_stop_is_stopped() -> None:
    """An event gives a bounded number of messages; one more quarantines the key."""
    assert fold_one(telling, None, at(0, {"say": [0] * EMITTED_MAX}), []).error is None
    slot = fold_one(telling, None, at(0, {"say": [0] * (EMITTED_MAX + 1)}), [])
    assert slot.error == "ValueError: more than 1,000 messages at one event; emit one that sums them up"


def test_emit_is_of_use_during_its_event_only() -> None:
    """One that is kept for later raises, since nobody could say which event it belongs to."""
    kept: list[Any] = []

    @reducer()
    def keeping(state: int, event: Event, emit: Emit) -> int:
        for each in kept:
            each("t.x", keys={})
        kept.append(emit)
        return state + event.index

    slots = fold(keeping, [at(0), at(1)])
    assert (
        slots[("ann",)].error == "ValueError: emit was called after its event; call it while the reducer runs"
    )


def test_a_reducer_takes_emit_by_its_third_parameter() -> None:
    """Its name decides, and one that takes none is called without."""

    def two(state: int, _event: Event) -> int:
        return state

    def wide(state: int, _event: Event, factor: int = 2) -> int:
        return state * factor

    assert [reducer()(each).emits for each in (two, wide, telling.function)] == [False, False, True]
    assert telling.apply(0, at(0, {"say": [1]})) == 1
    assert telling(0, at(0, {"say": [1]}), Outbox(None)) == 1


def _one(state: int) -> int:
    return state


def _three(state: int, _event: Event, _other: int) -> int:
    return state


def _named(state: int, _event: Event, *, emit: Emit) -> int:
    emit("t.x", keys={})
    return state


async def _later(state: int, _event: Event) -> int:
    return state


def _yielding(state: int, _event: Event) -> Any:
    yield state


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_one, r"must take \(state, event\) or \(state, event, emit\)"),
        (_three, "missing a required argument: '_other'"),
        (_named, "too many positional arguments"),
        (_later, "write a plain `def`"),
        (_yielding, "write a plain `def`"),
    ],
)
def test_a_function_that_cannot_be_called_as_a_reducer_is_refused(function: Any, says: str) -> None:
    """It shows at the definition, not at the first event."""
    with pytest.raises(DefinitionError, match=says):
        reducer()(function)
