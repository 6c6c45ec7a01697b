"""The laws of a reducer as one call: the test its author writes.

    def test_my_reducer_is_lawful() -> None:
        check(my_reducer, events)

Five laws make states a function of the log, and so let anyone check them:

    encoding      decode(encode(s)) == s, with the same bytes when encoded again
    no mutation   neither the state nor the event given is changed
    determinism   two folds of the same events agree after every event
    split         stopping after any event, storing, loading and going on gives what going on would have given
    view          what readers are shown is JSON, and showing changes nothing

Each law is checked after every event, in the order of the log, so the first failure found is also the
shortest.

>>> from archive import Event
>>> from reducers.base import reducer
>>> @reducer()
... def types(state: list[str], event: Event) -> list[str]:
...     state.append(event.type)
...     return state
>>> ann = Event(index=0, type="t", source="s", keys={"student": "ann"}, data={}, received_ms=0, time_ms=0)
>>> check(types, [ann])
Traceback (most recent call last):
reducers.errors.ContractError: reducer 'types' breaks the law of no mutation: event 0 changed the state ...

Dependence on the hash seed shows only between processes, and is tested there.  That a running system keeps
these laws is the business of `replay`'s audit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from archive import Event
from reducers.base import Key, Reducer
from reducers.errors import ContractError, StateError
from reducers.fold import Slot, fold, fold_one

S = TypeVar("S")

CUTS_MAX = 200
_SHOWN_MAX = 120
# What the laws compare: the key of an event, and the encoding and quarantine of its slot.
_Trace = list[tuple[Key, bytes, int | None] | None]


def check(reducer: Reducer[S], events: Iterable[Event]) -> dict[Key, Slot[S]]:
    """Return the slots after `events`, or raise ContractError that names the law and the smallest failing
    prefix.

    A reducer may raise: the quarantine is part of the fold, and is in the slots returned.  Above 200
    events, the law of split is checked at 200 cuts spread evenly.
    """
    given = list(events)
    _check_encoding(reducer, given)
    _check_no_mutation(reducer, given)
    _check_determinism(reducer, given)
    _check_split(reducer, given)
    _check_view(reducer, given)
    return fold(reducer, given)


def _check_encoding(reducer: Reducer[S], events: Sequence[Event]) -> None:
    slots: dict[Key, Slot[S]] = {}
    for position, event in enumerate(copy.deepcopy(events)):
        if (slot := _step(reducer, slots, event)) is None:
            continue
        try:
            encoding = reducer.encode(slot.state)
            again = reducer.decode(encoding)
            same = again == slot.state and reducer.encode(again) == encoding
        except StateError as error:
            raise ContractError(reducer.name, "encoding", position + 1, str(error)) from error
        if not same:
            fault = f"after event {event.index} the state {_show(slot.state)} comes back as {_show(again)}"
            raise ContractError(reducer.name, "encoding", position + 1, fault)


def _check_no_mutation(reducer: Reducer[S], events: Sequence[Event]) -> None:
    slots: dict[Key, Slot[S]] = {}
    for position, original in enumerate(events):
        event = copy.deepcopy(original)
        if (key := reducer.key_of(event)) is None:
            continue
        # A slot made beforehand, so that a change to the first state shows, too.
        before = slots.get(key) or Slot(reducer.initial(), event.index)
        encoding = reducer.encode(before.state)
        slots[key] = fold_one(reducer, before, event)
        if reducer.encode(before.state) != encoding:
            fault = f"event {event.index} changed the state it was given; build a new one"
            raise ContractError(reducer.name, "no mutation", position + 1, fault)
        if event != original:
            fault = f"event {event.index} was changed; copy what is to be kept"
            raise ContractError(reducer.name, "no mutation", position + 1, fault)


def _check_determinism(reducer: Reducer[S], events: Sequence[Event]) -> None:
    one, two = (_trace(reducer, {}, events) for _ in range(2))
    if (position := _first_difference(one, two)) is not None:
        results = f"{_show(one[position])} and {_show(two[position])}"
        fault = f"two folds differ at event {events[position].index}: {results}"
        raise ContractError(reducer.name, "determinism", position + 1, fault)


def _check_split(reducer: Reducer[S], events: Sequence[Event]) -> None:
    """Find the earliest difference over all cuts; where cuts were sampled, look again in the prefix found."""
    found: tuple[int, str] | None = None
    while (better := _split_fault(reducer, events)) is not None and (found is None or better[0] < found[0]):
        found = better
        events = events[: found[0]]
    if found is not None:
        raise ContractError(reducer.name, "split", *found)


def _split_fault(reducer: Reducer[S], events: Sequence[Event]) -> tuple[int, str] | None:
    whole = _trace(reducer, {}, events)
    cuts = set(range(1, len(events), max(1, -(-len(events) // CUTS_MAX))))
    found: tuple[int, str] | None = None
    slots: dict[Key, Slot[S]] = {}
    for cut, event in enumerate(events):
        if cut in cuts:
            stored = {key: _restored(reducer, slot) for key, slot in slots.items()}
            end = len(events) if found is None else found[0] - 1
            rest = _trace(reducer, stored, events[cut:end])
            if (offset := _first_difference(whole[cut:end], rest)) is not None:
                size = cut + offset + 1
                was, now = whole[size - 1], rest[offset]
                found = size, f"stored after {cut} events, it went on to {_show(now)} instead of {_show(was)}"
        _step(reducer, slots, event)
    return found


def _check_view(reducer: Reducer[S], events: Sequence[Event]) -> None:
    slots: dict[Key, Slot[S]] = {}
    for position, event in enumerate(events):
        if (slot := _step(reducer, slots, event)) is None:
            continue
        encoding = reducer.encode(slot.state)
        try:
            msgspec.json.encode(reducer.view(slot.state))
        except Exception as error:  # a view is the author's code: it may raise anything
            fault = f"after event {event.index} the view fails: {type(error).__name__}: {error}"
            raise ContractError(reducer.name, "view", position + 1, fault) from error
        if reducer.encode(slot.state) != encoding:
            fault = f"after event {event.index} the view changed the state it was given"
            raise ContractError(reducer.name, "view", position + 1, fault)


def _step(reducer: Reducer[S], slots: dict[Key, Slot[S]], event: Event) -> Slot[S] | None:
    if (key := reducer.key_of(event)) is None:
        return None
    slots[key] = fold_one(reducer, slots.get(key), event)
    return slots[key]


def _trace(reducer: Reducer[S], slots: dict[Key, Slot[S]], events: Sequence[Event]) -> _Trace:
    """Return what stands after each event, beginning from `slots`."""
    trace: _Trace = []
    for event in events:
        slot = _step(reducer, slots, event)
        key = reducer.key_of(event)
        trace.append(
            None if slot is None or key is None else (key, reducer.encode(slot.state), slot.error_index)
        )
    return trace


def _first_difference(one: _Trace, two: _Trace) -> int | None:
    return next((position for position, (a, b) in enumerate(zip(one, two, strict=True)) if a != b), None)


def _restored(reducer: Reducer[S], slot: Slot[S]) -> Slot[S]:
    return Slot(reducer.decode(reducer.encode(slot.state)), slot.changed_at, slot.error, slot.error_index)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
