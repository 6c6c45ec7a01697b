"""The contract bites: each unlawful way is caught, by the law it breaks, at the first event that shows it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from archive import Event
from reducers import TICK, ContractError, Emit, Reducer, Slot, laws, reducer, shipped, tick
from reducers.contract import check, with_ticks


def events(size: int, data: Any = None) -> list[Event]:
    """This many events of two students, one a second."""
    return [
        Event(
            index=10 + number,
            type=f"type-{(7 * number) % 5}",
            source="s",
            keys={"student": f"s{number % 2}", "doc_id": "d"},
            data={"n": number, "list": [number]} if data is None else data,
            received_ms=1_000 * number,
            time_ms=1_000 * number,
        )
        for number in range(size)
    ]


TICKS = [0]


@reducer()
def clocked(state: int, _event: Event) -> int:
    """Depend on something outside, as a clock would be."""
    TICKS[0] += 1
    return state if TICKS[0] < 4 else TICKS[0]


@reducer()
def mutating(state: dict[str, int], event: Event) -> dict[str, int]:
    """Change the state it was given, from the third event on."""
    if event.index >= 12:
        state[event.type] = 1
    return state


@reducer()
def mutating_first(state: list[int], event: Event) -> list[int]:
    """Change the very first state, and return a new one ever after."""
    if not state:
        state.append(event.index)
        return state
    return [*state, event.index]


@reducer()
def meddling(state: int, event: Event) -> int:
    """Change the event."""
    event.data["list"].append(1)
    return state + 1


@dataclass
class Lossy:
    """A state with a part that no encoding holds."""

    n: int = 0
    hidden: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hidden = list(self.hidden)[:1]


@reducer()
def lossy(_state: Lossy, event: Event) -> Lossy:
    """Hold two hidden numbers, of which loading keeps one."""
    made = Lossy(event.index)
    made.hidden = [event.index] * (2 if event.index >= 11 else 1)
    return made


@reducer()
def tupled(_state: list[Any], event: Event) -> list[Any]:
    """Hold tuples that come back as lists."""
    return [(event.index,)]


@reducer()
def unencodable(state: list[Any], event: Event) -> list[Any]:
    """Hold a NaN from the fourth event on."""
    return [*state, float("nan") if event.index >= 13 else 1.0]


@reducer()
def ordered(state: dict[str, int], event: Event) -> dict[str, int]:
    """Depend on the order in which a dict was filled, which storing forgets."""
    if len(state) < 3:
        return {**state, event.type: event.index}
    return {next(iter(state)): event.index}


class Remembering(dict[str, int]):
    """A dict that knows whether it was loaded."""


@reducer(default=dict)
def identical(state: Any, event: Event) -> Any:
    """Depend on the very class of the state, which storing forgets; only after the 300th event."""
    if event.index >= 310 and type(state) is Remembering:
        return Remembering(n=-event.index)
    return Remembering(n=event.index)


@reducer(scope=("doc_id",), default=dict)
def early(state: Any, event: Event) -> Any:
    """Depend on the very class of the state at the second event, and at no other."""
    return Remembering(n=int(event.index == 11 and type(state) is Remembering))


@reducer(view=lambda state: {"n": 1 // (13 - state)})
def unviewable(_state: int, event: Event) -> int:
    """Have a view that fails at the index 13."""
    return event.index


def _take(state: list[int]) -> list[int]:
    state.append(0)
    return state


@reducer(view=_take)
def view_mutating(state: list[int], _event: Event) -> list[int]:
    """Have a view that changes the state it shows."""
    return [*state]


@pytest.mark.parametrize(
    ("unlawful", "law", "prefix_size", "says"),
    [
        (clocked, "determinism", None, "two folds differ"),
        (mutating, "no mutation", 3, "event 12 changed the state it was given"),
        (mutating_first, "no mutation", 1, "event 10 changed the state it was given"),
        (meddling, "no mutation", 1, "event 10 was changed"),
        (lossy, "encoding", 2, "comes back as"),
        (tupled, "encoding", 1, r"\[\(10,\)\] comes back as \[\[10\]\]"),
        (unencodable, "encoding", 4, "nan is not a JSON number"),
        (ordered, "order", 7, "dicts have no order: keep a list, or sort"),
        (early, "split", 2, "stored after 1 events"),
        (unviewable, "view", 4, "the view fails: ZeroDivisionError"),
        (view_mutating, "view", 1, "the view changed the state"),
    ],
    ids=lambda value: value.name if isinstance(value, Reducer) else None,
)
def test_an_unlawful_reducer_is_caught(
    unlawful: Reducer[Any], law: str, prefix_size: int | None, says: str
) -> None:
    """The law is named, and no shorter prefix of the events would show the fault."""
    TICKS[0] = 0
    with pytest.raises(ContractError, match=says) as caught:
        check(unlawful, events(24))
    assert (caught.value.reducer, caught.value.law) == (unlawful.name, law)
    assert f"breaks the law of {law}" in str(caught.value)
    if prefix_size is not None:
        assert caught.value.prefix_size == prefix_size
        check(unlawful, events(prefix_size - 1), processes=False)


def test_a_failure_shows_the_few_events_that_it_needs() -> None:
    """Of 24 events, those that do not matter are left out, and the message holds the others to copy from."""
    with pytest.raises(ContractError, match="it takes these 1:") as caught:
        check(mutating, events(24))
    assert [event.index for event in caught.value.events] == [12]
    assert '"index":12,' in str(caught.value)
    with pytest.raises(ContractError) as caught:
        check(ordered, events(24))
    assert caught.value.prefix_size == 7
    assert len(caught.value.events) < 7
    with pytest.raises(ContractError, match="order"):
        check(ordered, caught.value.events)


def test_a_fault_among_many_events_is_shrunk() -> None:
    """Above 200 events the cuts are sampled, and the prefix reported is still the smallest."""
    with pytest.raises(ContractError, match="split") as caught:
        check(identical, events(450))
    assert caught.value.prefix_size == 301


def test_the_slots_are_returned_with_their_quarantines() -> None:
    """A reducer may raise: that is part of the fold, and its author sees which keys it stopped."""

    @reducer()
    def raising(state: int, event: Event) -> int:
        if event.index == 12:
            raise ValueError("no")
        return state + 1

    assert check(raising, events(6), processes=False) == {
        ("s0",): Slot(1, 12, "ValueError: no", 12),
        ("s1",): Slot(3, 15),
    }


def test_events_of_the_caller_stay_as_they_are() -> None:
    """Not even a reducer that changes its events changes those the caller holds."""
    given = events(3)
    with pytest.raises(ContractError):
        check(meddling, given)
    assert given == events(3)


LEAK: dict[str, int] = {}
NUMBERS = itertools.count()


@reducer()
def leaking(state: int, event: Event) -> int:
    """Remember in a global whose event came last: what the workers of other shards do not see."""
    other = LEAK.get("last", 0)
    LEAK["last"] = int(event.keys["student"][1:])
    return state + other


@reducer(view=lambda state: {"n": state.append(1)})
def shown_and_changed(state: list[int], _event: Event) -> list[int]:
    """Have a view that changes the state that it is shown."""
    return state


@reducer(scope=("student",), ticks=5)
def ticked(state: list[int], event: Event) -> list[int]:
    """Count the ticks of this process: lawful until time passes."""
    return state if event.type != TICK else [*state, next(NUMBERS)]


@reducer()
def chatty(state: int, event: Event, emit: Emit) -> int:
    """Emit a number that no other fold gives."""
    emit("chat.line", keys={"class": event.type}, data=next(NUMBERS))
    return state + 1


@reducer()
def deaf(state: int, event: Event, emit: Emit) -> int:
    """Let the state depend on what can only be had from emit itself."""
    return state + (getattr(emit, "_out", None) is None) + event.index


@pytest.mark.parametrize(
    ("unlawful", "law"),
    [
        (leaking, "split"),
        (shown_and_changed, "view"),
        (ticked, "determinism"),
        (chatty, "determinism"),
        (deaf, "messages"),
    ],
)
def test_what_only_a_server_would_meet_is_met_here(unlawful: Reducer[Any], law: str) -> None:
    """Shards, saves, ticks, messages and muted replays are tried, though the author tests one plain list."""
    LEAK.clear()
    with pytest.raises(ContractError, match=f"breaks the law of ({law}):"):
        check(unlawful, events(24), processes=False)


def test_states_that_leak_between_keys_break_the_law_of_shards() -> None:
    """Though every whole fold is alike, a worker that holds some of the keys comes to other states."""
    LEAK.clear()
    fault = laws.shards(leaking, events(24))
    assert fault is not None
    assert fault.text.startswith("as 2 shards, event 1")


def test_states_that_every_save_changes_break_the_law_of_batches() -> None:
    """A state that is another one once loaded is found by saving often, too."""
    fault = laws.batches(early, events(24))
    assert fault is not None
    assert fault.prefix_size == 2
    assert fault.text.startswith("stored after every 1 events, event 11 gave")


def test_ticks_are_given_to_a_reducer_that_takes_them() -> None:
    """Three follow the events; where the author wrote some, those are all."""
    assert [tick.time_ms for tick in with_ticks(ticked, events(8))[8:]] == [10_000, 15_000, 20_000]
    with_one = [*events(2), tick(12, 60_000)]
    assert with_ticks(ticked, with_one) == with_one
    assert with_ticks(ticked, []) == []
    assert with_ticks(clocked, events(2)) == events(2)


def test_an_event_that_no_log_can_hold_is_the_mistake_of_the_test() -> None:
    """The author is told which one it is, and not that a law is broken."""
    with pytest.raises(ValueError, match="event 10 can be in no log: nan"):
        check(clocked, events(1, {"n": float("nan")}))


@pytest.mark.parametrize("size", [0, 1])
def test_few_events_are_enough(size: int) -> None:
    """An empty list and a single event are checked, and not taken for a failure."""
    assert len(check(shipped().get("event_count"), events(size), processes=False)) == size


@pytest.mark.parametrize("lawful", list(shipped()), ids=lambda each: each.name)
@pytest.mark.parametrize("size", [0, 1, 40, 210])
def test_shipped_reducers_are_lawful(lawful: Reducer[Any], size: int) -> None:
    """What comes with the package keeps the contract that it asks of others."""
    keys = 0 if "class" in lawful.scope else min(size, 2)  # these events name no class
    assert len(check(lawful, events(size), processes=False)) == keys
