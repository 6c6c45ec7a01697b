"""The laws of a reducer as one call: the test its author writes.

    def test_my_reducer_is_lawful() -> None:
        check(my_reducer, events)

These laws make states a function of the log, and so let anyone check them:

    purity        no clock, chance, file, network or process is asked for anything
    encoding      decode(encode(s)) == s, with the same bytes when encoded again
    no mutation   neither the state nor the event given is changed
    determinism   two folds of the same events agree after every event, and emit the same messages
    view          what readers are shown is JSON, and showing changes nothing
    order         however the dicts of a state are ordered, states, messages and what is shown are the same
    split         stopping after any event, storing, loading and going on gives what going on would have given
    batches       however many events are folded between two saves, the states are the same
    shards        however keys are spread over workers, the states are the same
    messages      a replay, which is muted, comes to the same states
    processes     a fresh interpreter, under another hash seed and in another time zone, comes to the same states, and
                  shows the same of them

Each law is checked after every event, in the order of the log, so the first failure found is also the
shortest; then events that it does not need are left out, and the message shows those that are left.  A
reducer that takes ticks is given three of them after the events, unless there are some among these.

>>> from archive import Event
>>> from reducers.definition import reducer
>>> @reducer()
... def types(state: list[str], event: Event) -> list[str]:
...     state.append(event.type)
...     return state
>>> ann = Event(index=0, type="t", source="s", keys={"student": "ann"}, data={}, received_ms=0, time_ms=0)
>>> check(types, [ann])
Traceback (most recent call last):
reducers.errors.ContractError: reducer 'types' breaks the law of no mutation: event 0 changed the state ...

The laws themselves: `reducers.laws`, `reducers.elsewhere`.  That a running system keeps them is the business
of `replay`'s audit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from archive import Event
from reducers import canonical
from reducers.base import Key, Reducer
from reducers.elsewhere import elsewhere, place_of
from reducers.errors import ContractError, ContractNote
from reducers.fold import Slot, fold
from reducers.guard import install
from reducers.laws import LAWS, Law
from reducers.shrink import TRIES_MAX, shrink
from reducers.ticks import is_tick, tick

S = TypeVar("S")

TICKS = 3
_TRIES_ELSEWHERE = 12  # each takes two processes
_SHOWN_EVENTS, _SHOWN_LENGTH = 10, 200


def check(reducer: Reducer[S], events: Iterable[Event], *, processes: bool = True) -> dict[Key, Slot[S]]:
    """Return the slots after `events`, or raise ContractError that names the law and shows the events.

    A reducer may raise: the quarantine is part of the fold, and is in the slots returned.  Above 200
    events, the law of split is checked at 200 cuts spread evenly.  `processes=False` starts no other
    processes; a reducer that these cannot import is checked without, and a ContractNote (a warning) says so.
    Raises ValueError for events that no log can hold.
    """
    given = list(events)
    for event in given:
        _check_event(event)
    install(numpy=True)
    laws = with_ticks(reducer, given)
    for name, law in LAWS.items():
        _enforce(reducer, name, law, laws, TRIES_MAX)
    if processes and place_of(reducer) is None:
        warnings.warn(
            f"reducer {reducer.name!r} cannot be imported by name, so other processes were not tried; "
            "define it at the top level of a file, or pass processes=False",
            ContractNote,
            stacklevel=2,
        )
    elif processes:
        _enforce(reducer, "processes", elsewhere, laws, _TRIES_ELSEWHERE)
    return fold(reducer, given)


def with_ticks(reducer: Reducer[Any], events: Sequence[Event]) -> list[Event]:
    """Return the events and, for a reducer that takes ticks and was given none, the next three after them."""
    if reducer.ticks is None or not events or any(map(is_tick, events)):
        return list(events)
    period_ms = 1_000 * reducer.ticks
    index, time_ms = events[-1].index, max(event.received_ms for event in events)
    first_ms = (time_ms // period_ms + 1) * period_ms
    return [*events, *(tick(index + 1 + n, first_ms + n * period_ms) for n in range(TICKS))]


def _enforce(reducer: Reducer[Any], name: str, law: Law, events: Sequence[Event], tries: int) -> None:
    fault = law(reducer, events)
    if fault is None:
        return
    needed, smaller = shrink(law, reducer, events, fault, tries)
    raise ContractError(
        reducer.name, name, fault.prefix_size, smaller.text, tuple(needed), "\n".join(_shown(needed))
    )


def _shown(events: Sequence[Event]) -> list[str]:
    lines = []
    for event in events[:_SHOWN_EVENTS]:
        text = msgspec.json.encode(event).decode()
        lines.append("    " + (text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "..."))
    if len(events) > _SHOWN_EVENTS:
        lines.append(f"    and {len(events) - _SHOWN_EVENTS:,} more")
    return lines


def _check_event(event: Event) -> None:
    try:
        canonical.encode(event)
    except (TypeError, ValueError) as error:
        raise ValueError(f"event {event.index} can be in no log: {error}") from error
