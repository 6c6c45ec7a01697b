"""Values that go into a fold and come out of it: an event of one's own, a message, the reason of a stop.

What an author's code raises is never more than material here: its text may hold something of an event, its name may be
one of ours, and asking it for either may raise again.  So what kind of fault a stop is, is said by who stops it, and
never read out of a text.

>>> stopped_by("inverse", 7, KeyError("ann"))
Stopped(reducer='inverse', at=7, reason="KeyError: 'ann'", kind='stopped', ours=False)
>>> stopped_by("inverse", 7, KeyError("ann")).told
'KeyError'

Who folds: `replay.holding`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import msgspec

from archive import Event
from reducers import Key, Message, Reducer
from replay.budget import shares
from replay.escalation import Kind
from replay.portion import Item
from replay.reasons import NAME_LENGTH_MAX, REASON_LENGTH_MAX, name_of_error, reason_of
from replay.routing import PARTITION_KEY


class Stopped(NamedTuple):
    """Why a module's position does not move: what was running, at which event."""

    reducer: str
    at: int
    reason: str
    """For whoever may see the data: the text of an error may hold some of it."""
    kind: Kind = "stopped"
    """What follows from it (`replay.escalation`)."""
    ours: bool = False
    """Whether the reason is in our own words, and says nothing of any event."""

    @property
    def category(self) -> str:
        """The name of the error alone."""
        return self.reason.partition(":")[0]

    @property
    def told(self) -> str:
        """What everybody may be told of it: all of our own words, of others' only the name of the error.

        >>> Stopped("", 7, "Died: SIGSEGV", "died", ours=True).told, Stopped("", 7, "Died: says ann").told
        ('Died: SIGSEGV', 'Died')
        """
        return self.reason[:REASON_LENGTH_MAX] if self.ours else self.category[:NAME_LENGTH_MAX]


class Outgoing(NamedTuple):
    """A message that a reducer emitted, and what it came of."""

    module: str
    reducer: str
    key: Key
    at: int
    """Index of the event that led to it."""
    ordinal: int
    message: Message
    subjects: tuple[int, ...]
    hops: int
    time_ms: int
    """Client time of the event that led to it."""
    received_ms: int
    """When that event was received."""
    person: str | None = None
    """Whose state said it, if it is one person's."""
    budget: int = 0
    """How many messages may come of it; `TOO_MANY` if it is beyond the budget of its input."""


def private(event: Event) -> Event:
    """Return a copy of an event that a reducer may do with what it likes.

    What one reducer does to an event must not reach the next one: its state would depend on who its neighbours are.
    """
    data = event.data
    if isinstance(data, dict | list):
        try:
            data = _decode(_encode(data))
        except OverflowError:  # whole numbers of more than 64 bits
            data = deepcopy(data)
    return Event(
        index=event.index,
        type=event.type,
        source=event.source,
        keys=dict(event.keys),
        data=data,
        received_ms=event.received_ms,
        time_ms=event.time_ms,
    )


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


def outgoing(
    module: str, reducer: Reducer[Any], key: Key, messages: list[Message], item: Item
) -> list[Outgoing]:
    """Return what a reducer emitted at an event, with what it came of."""
    person = dict(zip(reducer.scope, key, strict=True)).get(PARTITION_KEY)
    budgets = shares(item.budget, len(messages))
    return [
        Outgoing(
            module=module,
            reducer=reducer.name,
            key=key,
            at=item.at,
            ordinal=ordinal,
            message=message,
            subjects=item.subjects,
            hops=item.hops + 1,
            time_ms=item.event.time_ms,
            received_ms=item.event.received_ms,
            person=person,
            budget=budget,
        )
        for ordinal, (message, budget) in enumerate(zip(messages, budgets, strict=True))
    ]


def stopped_by(reducer: str, at: int, error: BaseException) -> Stopped:
    """Return the stop that an error is, raised by an author's code at an event."""
    return Stopped(reducer, at, reason_of(error), "memory" if isinstance(error, MemoryError) else "stopped")


def shown_of(reducer: Reducer[Any], state: Any) -> bytes:
    """Return what readers are shown as JSON; a view that fails must not stop the fold, and says so instead.

    Members of objects and of sets are sorted: a state that was read back shows the same bytes as before, and those that
    a replay finds.  Without a view, readers are shown the state as it is encoded.
    """
    try:
        if reducer.viewer is None:
            return reducer.encode(state)
        return msgspec.json.encode(reducer.view(state), order="deterministic")
    except BaseException as error:  # noqa: BLE001 - the author's code: it may raise anything
        return msgspec.json.encode({"view_failed": name_of_error(error)})
