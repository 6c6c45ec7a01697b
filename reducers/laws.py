"""The laws of a reducer, each as a function: from a reducer and events to the first fault, or None.

What the laws compare is a *trace*: for each event, the rows that it touched (key, encoding of the state,
quarantine, messages).  Two ways of folding the same events that should not differ give two traces, and the
first difference is the fault.  Every law looks at the events in order, so the fault it returns is that of the
smallest failing prefix.

Which laws there are and what they are for: `reducers.contract`.  The one law that needs another process is in
`reducers.elsewhere`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from archive import Event
from reducers import canonical
from reducers.base import Key, Reducer
from reducers.errors import PurityError, StateError
from reducers.fold import Slot, addressed, fold_one
from reducers.forbidden import sentence
from reducers.guard import active
from reducers.message import Message
from reducers.purity import faults
from reducers.watching import watching

CUTS_MAX = 200
BATCHES = (1, 2, 7, 64)
SHARDS = (2, 3)
_SHOWN_MAX = 120
_UNORDERED = "with the dicts of its state in another order, {what}; a state's dicts have no order: keep a list, or sort"

Slots = dict[Key, Slot[Any]]


class Row(NamedTuple):
    """What an event left of one key: the encoding of its state, its quarantine, and what was emitted."""

    key: Key
    encoding: bytes
    error_index: int | None
    messages: tuple[bytes, ...] = ()


Trace = list[tuple[Row, ...]]


class Fault(NamedTuple):
    """How a law is broken, and by how many of the events given at the latest."""

    prefix_size: int
    text: str


Law = Callable[[Reducer[Any], Sequence[Event]], Fault | None]


def purity(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """It reaches for no clock, chance, file, network or process: neither by name nor when it runs."""
    for function in (reducer.function, reducer.viewer):
        for fault in faults(function) if function is not None else ():
            return Fault(0, sentence(reducer.name, *fault))
    with watching(reducer) as seen, contextlib.suppress(PurityError), active(reducer):
        reducer.initial()
    if seen:
        return Fault(0, seen[0])
    slots: Slots = {}
    for position, event in enumerate(copy.deepcopy(events)):
        with watching(reducer) as seen:
            for key, own in addressed(reducer, event, slots):
                slots[key] = fold_one(reducer, slots.get(key), own)
                _shown(reducer, slots[key])
        if seen:
            return Fault(position + 1, seen[0])
    return None


def encoding(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """`decode(encode(s)) == s`, with the same bytes when encoded again."""
    slots: Slots = {}
    for position, event in enumerate(copy.deepcopy(events)):
        for key, own in addressed(reducer, event, slots):
            slots[key] = fold_one(reducer, slots.get(key), own)
            try:
                wrong = _comes_back_wrong(reducer, slots[key].state)
            except StateError as error:
                wrong = str(error)
            if wrong:
                return Fault(position + 1, f"after event {event.index} {wrong}")
    return None


def no_mutation(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """Neither the state nor the event given is changed."""
    slots: Slots = {}
    for position, event in enumerate(events):
        for key, original in addressed(reducer, event, slots):
            own = copy.deepcopy(original)
            # A slot made beforehand, so that a change to the first state shows, too.
            before = slots.get(key) or Slot(reducer.initial(), event.index)
            encoded = reducer.encode(before.state)
            slots[key] = fold_one(reducer, before, own)
            if reducer.encode(before.state) != encoded:
                return Fault(
                    position + 1, f"event {event.index} changed the state it was given; build a new one"
                )
            if own != original:
                return Fault(position + 1, f"event {event.index} was changed; copy what is to be kept")
    return None


def determinism(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """Two folds agree after every event, and so do their messages."""
    one, two = trace(reducer, events), trace(reducer, events)
    return _difference(events, one, two, "two folds differ at event {index}: {was} and {now}")


def view(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """What readers are shown is JSON, and showing changes nothing."""
    slots: Slots = {}
    for position, event in enumerate(events):
        for row in step(reducer, slots, event):
            state = slots[row.key].state
            try:
                canonical.encode(reducer.view(state))
            except Exception as error:  # noqa: BLE001 - a view is the author's code: it may raise anything
                text = f"after event {event.index} the view fails: {type(error).__name__}: {error}"
                return Fault(position + 1, text)
            if reducer.encode(state) != row.encoding:
                return Fault(
                    position + 1, f"after event {event.index} the view changed the state it was given"
                )
    return None


def order(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """However the dicts of a state are ordered, an event makes the same of it, and readers are shown the same.

    In memory they are as the fold filled them, from the store they come sorted.  So each event is folded over the state
    as it comes back from its encoding, and over one with all dicts the other way round: whichever of the two orders the
    fold of this test has made, its events being sorted perhaps, the other is there as well.
    """
    if type(reducer).encode is not Reducer.encode:
        return None  # its states are kept encoded, hence sorted, in memory, too (`reducers.lo_reducer`)
    slots: Slots = {}
    for position, event in enumerate(events):
        for key, own in addressed(reducer, event, slots):
            before = slots.get(key) or Slot(reducer.initial(), event.index)
            slots[key], _ = _after(reducer, key, before, own)
            was, now = (_after(reducer, key, each, own)[1] for each in _both_ways(reducer, before))
            if now != was:
                what = f"event {event.index} gave {_short_rows((now,))} instead of {_short_rows((was,))}"
                return Fault(position + 1, _UNORDERED.format(what=what))
            if reducer.viewer is not None and (differs := _shown_otherwise(reducer, slots[key])):
                what = f"after event {event.index} the view {differs}"
                return Fault(position + 1, _UNORDERED.format(what=what))
    return None


def split(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """Stopping after any event, storing, loading and going on gives what going on would have given.

    Above 200 events, at 200 cuts spread evenly; where these were sampled, again in the prefix found.
    """
    found: Fault | None = None
    while (better := _split_fault(reducer, events)) and (
        found is None or better.prefix_size < found.prefix_size
    ):
        found = better
        events = events[: found.prefix_size]
    return found


def batches(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """However many events are folded between two saves, the states and messages are the same."""
    whole = trace(reducer, events)
    for size in BATCHES:
        slots: Slots = {}
        batched: Trace = []
        for start in range(0, len(events), size):
            rows = trace(reducer, events[start : start + size], slots)
            for key in {row.key for each in rows for row in each}:
                slots[key] = _restored(reducer, slots[key])
                _shown(reducer, slots[key])
            batched += rows
        text = f"stored after every {size} events, event {{index}} gave {{now}} instead of {{was}}"
        if (fault := _difference(events, whole, batched, text)) is not None:
            return fault
    return None


def shards(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """However the keys are spread over workers, the states and messages are the same."""
    whole = trace(reducer, events)
    for count in SHARDS if reducer.scope else ():
        union: Trace = [() for _ in events]
        for shard in reversed(range(count)):
            own = trace(reducer, events, {}, functools.partial(_is_in, shard, count))
            union = [tuple(sorted(one + two)) for one, two in zip(union, own, strict=True)]
        expected = [tuple(sorted(rows)) for rows in whole]
        text = f"as {count} shards, event {{index}} gave {{now}} instead of {{was}}"
        if (fault := _difference(events, expected, union, text)) is not None:
            return fault
    return None


def muted(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """A replay that emits nothing comes to the same states."""
    silent: Slots = {}
    heard: Slots = {}
    for position, event in enumerate(events if reducer.emits else ()):
        for key, own in addressed(reducer, event, heard):
            heard[key] = fold_one(reducer, heard.get(key), own, [])
            silent[key] = fold_one(reducer, silent.get(key), own)
            one, two = _row(reducer, key, heard[key]), _row(reducer, key, silent[key])
            if one != two:
                fault = f"muted, event {event.index} gave {_short(two)} instead of {_short(one)}"
                return Fault(position + 1, fault)
    return None


LAWS: dict[str, Law] = {
    "purity": purity,
    "encoding": encoding,
    "no mutation": no_mutation,
    "determinism": determinism,
    "view": view,
    "order": order,
    "split": split,
    "batches": batches,
    "shards": shards,
    "messages": muted,
}
"""By name, in the order in which they are checked: each relies on those before it."""


def trace(
    reducer: Reducer[Any],
    events: Sequence[Event],
    slots: Slots | None = None,
    keep: Callable[[Key], bool] = lambda _: True,
) -> Trace:
    """Return what stands after each event, beginning from `slots` (which move along), for the keys to keep."""
    held: Slots = {} if slots is None else slots
    return [tuple(step(reducer, held, event, keep)) for event in events]


def step(
    reducer: Reducer[Any], slots: Slots, event: Event, keep: Callable[[Key], bool] = lambda _: True
) -> list[Row]:
    """Fold one event into `slots`, and return a row for each key that it concerns."""
    rows = []
    for key, own in addressed(reducer, event, slots):
        if keep(key):
            out: list[Message] = []
            slots[key] = fold_one(reducer, slots.get(key), own, out)
            rows.append(_row(reducer, key, slots[key], out))
    return rows


def _is_in(shard: int, count: int, key: Key) -> bool:
    """Spread keys over shards by some rule: any will do, since the states may not depend on it."""
    return hashlib.sha256("\0".join(key).encode()).digest()[0] % count == shard


def _row(reducer: Reducer[Any], key: Key, slot: Slot[Any], out: Sequence[Message] = ()) -> Row:
    return Row(
        key, reducer.encode(slot.state), slot.error_index, tuple(canonical.encode(each) for each in out)
    )


def _comes_back_wrong(reducer: Reducer[Any], state: Any) -> str:
    encoded = reducer.encode(state)
    again = reducer.decode(encoded)
    same = again == state and reducer.encode(again) == encoded
    return "" if same else f"the state {_short(state)} comes back as {_short(again)}"


def _split_fault(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    whole = trace(reducer, events)
    cuts = set(range(1, len(events), max(1, -(-len(events) // CUTS_MAX))))
    found: Fault | None = None
    slots: Slots = {}
    for cut, event in enumerate(events):
        if cut in cuts:
            stored = {key: _restored(reducer, slot) for key, slot in slots.items()}
            end = len(events) if found is None else found.prefix_size - 1
            rest = trace(reducer, events[cut:end], stored)
            text = f"stored after {cut} events, it went on to {{now}} instead of {{was}}"
            fault = _difference(events[cut:end], whole[cut:end], rest, text)
            if fault is not None:
                found = Fault(cut + fault.prefix_size, fault.text)
        step(reducer, slots, event)
    return found


def _restored(reducer: Reducer[Any], slot: Slot[Any]) -> Slot[Any]:
    return Slot(reducer.decode(reducer.encode(slot.state)), slot.changed_at, slot.error, slot.error_index)


def _after(reducer: Reducer[Any], key: Key, slot: Slot[Any], event: Event) -> tuple[Slot[Any], Row]:
    out: list[Message] = []
    after = fold_one(reducer, slot, event, out)
    return after, _row(reducer, key, after, out)


def _both_ways(reducer: Reducer[Any], slot: Slot[Any]) -> tuple[Slot[Any], Slot[Any]]:
    """Return a slot with every dict of its state sorted, and with every dict in the reverse of that."""
    encoded = reducer.encode(slot.state)
    turned = msgspec.json.encode(json.loads(encoded, object_pairs_hook=_reversed))
    return _restored(reducer, slot), msgspec.structs.replace(slot, state=reducer.decode(turned))


def _reversed(members: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(members))


def _shown_otherwise(reducer: Reducer[Any], slot: Slot[Any]) -> str:
    was, now = (view_of(reducer, each.state) for each in _both_ways(reducer, slot))
    return "" if now == was else f"shows {_short(now)} instead of {_short(was)}"


def view_of(reducer: Reducer[Any], state: Any) -> bytes:
    """Return what readers are shown, or why there is nothing to show."""
    try:
        return canonical.encode(reducer.view(state))
    except Exception as error:  # noqa: BLE001 - the author's code, and a state that it has not been shown yet
        return f"{type(error).__name__}: {error}".encode(errors="replace")


def _shown(reducer: Reducer[Any], slot: Slot[Any]) -> None:
    """Show a state as a worker would that saves it; what it may not do is another law's business."""
    try:
        reducer.view(slot.state)
    except Exception:  # noqa: BLE001 - the law of views reports it
        return


def _difference(events: Sequence[Event], one: Trace, two: Trace, text: str) -> Fault | None:
    for position, (was, now) in enumerate(zip(one, two, strict=True)):
        if was != now:
            shown = {"was": _short_rows(was), "now": _short_rows(now)}
            return Fault(position + 1, text.format(index=events[position].index, **shown))
    return None


def _short_rows(rows: tuple[Row, ...]) -> str:
    return _short([tuple(row) for row in rows] if len(rows) != 1 else tuple(rows[0]))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
