"""Folding: the one way in which an event changes a state.

A key's state lives in a `Slot`.  `fold_one` takes a slot and an event to the next slot, and so does
everyone: the live worker, the replay, the audit and the tests.  A deterministic exception is part of the
fold: it *quarantines* the key, which keeps its last good state, the error and the index, and which no later
event changes.  Replay meets the same exception at the same event, so a quarantine is as much a function of
the log as a state is.

The law: folding a split equals folding the whole, wherever the cut.

>>> from archive import Event
>>> from reducers.definition import reducer
>>> @reducer()
... def inverse(state: float, event: Event) -> float:
...     return 1.0 / event.data
>>> def at(index: int, data: int) -> Event:
...     keys = {"student": "ann"}
...     return Event(index=index, type="t", source="s", keys=keys, data=data, received_ms=0, time_ms=0)
>>> fold(inverse, [at(5, 2), at(6, 0), at(7, 4)])[("ann",)]
Slot(state=0.5, changed_at=6, error='ZeroDivisionError: float division by zero', error_index=6)

What a reducer emits belongs to the event as well: if the function returns, all of it counts; if it raises,
none of it does.

A state is what comes back from its encoding, in memory, too: what a reducer returns is held against its type, and
where it does not fit takes that way at once (`reducers.conforming`).  What cannot be of its type is such an exception.

What stops a module rather than a key (memory, recursion, limits, crashes) passes through here untouched,
and is the business of `replay`.  What a set of slots hashes to: `reducers.digest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from archive import Event
from reducers.base import Key, Reducer
from reducers.guard import entry, install, running
from reducers.message import Message, Outbox
from reducers.ticks import due, is_tick, tick_of

S = TypeVar("S")

ERROR_LENGTH_MAX = 200


class Slot(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """What is held for one key: its state, or its last good state and why it is quarantined."""

    state: S
    changed_at: int
    """Index of the event that last replaced the state (or began the slot, or quarantined it), as far as was noticed.

    It goes by object identity, as a hint for what must be written and shown anew.  A state that was stored and read
    again is another object, so two honest folds may differ in it: it is no part of the state, in no digest, and no
    audit compares it."""
    error: str | None = None
    """For people: such as "ValueError: ...", at most 200 characters.  It may differ between machines."""
    error_index: int | None = None
    """Index of the event that raised; None unless quarantined."""


class Word(Protocol):
    """Something whose item 0 is a number: an `array("Q", [0])`, or memory that is shared."""

    def __getitem__(self, at: int, /) -> int:
        """Return the number."""

    def __setitem__(self, at: int, value: int, /) -> None:
        """Store the number."""


@entry
def fold_one(
    reducer: Reducer[S], slot: Slot[S] | None, event: Event, out: list[Message] | None = None
) -> Slot[S]:
    """Return the slot after `event`; the very slot given where nothing changed.  None stands for a new key.

    What the reducer emits is appended to `out` if it returns; with None, it is checked and goes nowhere.
    MemoryError and RecursionError depend on the machine and the depth of the caller, not on the log; they
    propagate, as does every BaseException that is no Exception, which is what limits and cancellations must
    be.
    """
    if not running.installed:
        install()
    if slot is None:
        before = reducer.initial()
    elif slot.error_index is not None:
        return slot
    else:
        before = slot.state
    outer, running.reducer = running.reducer, reducer
    try:
        after = _emitting(reducer, before, event, out) if reducer.emits else reducer.apply(before, event)
        if reducer.fits is not None and (slot is None or after is not before) and not reducer.fits(after):
            after = reducer.normal(after)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it raises is its result
        return Slot(before, event.index, _describe(error), event.index)
    finally:
        running.reducer = outer
    if slot is not None and after is before:
        return slot
    return Slot(after, event.index)


class Run(NamedTuple):
    """What `fold_run` folds events into."""

    reducer: Reducer[Any]
    slots: dict[Key, Slot[Any] | None]
    """By key; a key may be there without a slot."""
    changed: set[Key]
    """Takes the keys whose slot is replaced."""
    since: int
    """Slots that changed at this index or later are in `changed` already."""
    word: Word
    """Takes the index of the event that is about to be folded, plus one: what is to blame if this process dies."""
    own: Callable[[Event], Event] | None = None
    """Makes the copy of an event that this reducer may do with what it likes; None: it does nothing to an event."""


@entry
def fold_run(  # noqa: C901, PLR0912 - one loop, in which a call more is seen in every replay
    run: Run, events: Sequence[Event], place: int, stop: int, out: list[Message] | None = None
) -> tuple[int, BaseException | None]:
    """Fold events[place:stop] into slots that are at hand, as `fold_one` would one by one; return how far it got.

    That is `stop` or, before it, the place of an event whose key has no slot here (that one is the caller's to fold);
    or the place behind an event at which the reducer emitted, its messages being in `out`; or the place of an event
    at which something was raised that is no result of the event (see `fold_one`), and what that was.  Ticks are not
    for this function, nor are reducers that find keys by code of their own (`Reducer.keyed`).  The loop is spelled
    out, since most of what a replay does beside reading is this.
    """
    if not running.installed:
        install()
    reducer, slots, changed, since, word, own = run
    function, emits, scope, fits = reducer.function, reducer.emits, reducer.scope, reducer.fits
    field = scope[0] if len(scope) == 1 else None
    fields: Callable[[dict[str, str]], Key] = itemgetter(*scope) if len(scope) > 1 else _no_fields
    outer, running.reducer = running.reducer, reducer
    try:
        for place, event in enumerate(events[place:stop], place):  # noqa: B020, PLR1704 - how far it got is returned
            try:
                key = (event.keys[field],) if field is not None else fields(event.keys)
            except KeyError:
                continue
            slot = slots.get(key)
            if slot is None:
                return place, None
            if slot.error_index is not None:
                continue
            index, before = event.index, slot.state
            word[0] = index + 1
            if own is not None:
                event = own(event)  # noqa: PLW2901 - from here on there is no other
            try:
                after = _emitting(reducer, before, event, out) if emits else function(before, event)
                if after is None:
                    raise reducer.returned_none()
                if fits is not None and after is not before and not fits(after):
                    after = reducer.normal(after)
            except (MemoryError, RecursionError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it raises is its result
                slots[key] = Slot(before, index, _describe(error), index)
                changed.add(key)
                continue
            if after is not before:
                slots[key] = Slot(after, index)
                if slot.changed_at < since:
                    changed.add(key)
            if out:
                return place + 1, None
    except BaseException as error:  # noqa: BLE001 - what it means is for the caller to say
        return place, error
    finally:
        running.reducer = outer
    return stop, None


def _no_fields(_: dict[str, str]) -> Key:
    return ()


def fold(
    reducer: Reducer[S],
    events: Iterable[Event],
    slots: Mapping[Key, Slot[S]] | None = None,
    out: list[Message] | None = None,
) -> dict[Key, Slot[S]]:
    """Return the slots by key after `events`, beginning from `slots` (which stay as they are).

    Events that lack a field of the scope are passed over.  A tick goes to each key that there is, in the
    order of the keys, if the reducer takes ticks and this one is due.
    """
    after = dict(slots or {})
    for event in events:
        for key, own in addressed(reducer, event, after):
            after[key] = fold_one(reducer, after.get(key), own, out)
    return after


def addressed(reducer: Reducer[S], event: Event, held: Iterable[Key]) -> list[tuple[Key, Event]]:
    """Return the keys of `reducer` that `event` concerns, each with the event as that key's fold sees it.

    `held` are the keys that have a slot; only a tick looks at them.  The one key of a global reducer counts
    as held.
    """
    if is_tick(event):
        if not due(reducer, event):
            return []
        keys = sorted(held) if reducer.scope else [()]
        return [(key, tick_of(event, reducer.scope, key)) for key in keys]
    key = reducer.key_of(event)
    return [] if key is None else [(key, event)]


def _emitting(reducer: Reducer[S], before: S, event: Event, out: list[Message] | None) -> S:
    sent: list[Message] | None = None if out is None else []
    emit = Outbox(sent)
    try:
        after = reducer.apply(before, event, emit)
    finally:
        emit.close()
    if out is not None and sent:
        out += sent
    return after


def tell_errors(told: Callable[[Exception], None] | None) -> None:
    """Let somebody in this process be told of each exception that a reducer raises; None: nobody any more.

    Where it was raised is for the reducer's author, and no part of any state: a line that moves changes no digest.
    """
    running.told = told


def _describe(error: Exception) -> str:
    if running.told is not None:
        running.told(error)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is must not stop the others
        text = "(its message cannot be read)"
    line = f"{type(error).__name__}: {text}"[:ERROR_LENGTH_MAX]
    return line.encode("utf-8", "replace").decode()  # lone surrogates could not be stored or sent
