"""Values that go into a fold and come out of it: an event of one's own, a message, the reason of a stop.

>>> Stopped("inverse", 7, "MemoryError: ").category
'MemoryError'

Who folds: `replay.holding`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import msgspec

from archive import Event
from reducers import Key, Message, Reducer


class Stopped(NamedTuple):
    """Why a module's position does not move: what was running, at which event."""

    reducer: str
    at: int
    reason: str
    """For whoever may see the data: the text of an error may hold some of it."""

    @property
    def category(self) -> str:
        """The kind of error alone, for everybody."""
        return self.reason.partition(":")[0]


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


def reason_of(error: BaseException) -> str:
    """Return what is said of an error: its kind and its text, of bounded length."""
    return f"{type(error).__name__}: {error}"[:200]


def shown_of(reducer: Reducer[Any], state: Any) -> bytes:
    """Return what readers are shown as JSON; a view that fails must not stop the fold, and says so instead."""
    try:
        return msgspec.json.encode(reducer.view(state))
    except BaseException as error:  # noqa: BLE001 - the author's code: it may raise anything
        return msgspec.json.encode({"view_failed": f"{type(error).__name__}"})
