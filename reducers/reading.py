"""Typed access to what an event carries: `read(event, KeyStroke)` instead of `event.data["key"]`.

Clients send what they like.  Reading it as a type says in one place what is expected, and a reducer that is
given something else gets one clear error, which names the field: always the same for the same event, so that
a replay meets it where the live fold did.  With a default, what does not fit is passed over instead.

>>> class KeyStroke(msgspec.Struct):
...     key: str
...     held_ms: int = 0
>>> def typed(data: Any) -> Event:
...     return Event(index=7, type="keystroke", source="s", keys={}, data=data, received_ms=0, time_ms=0)
>>> read(typed({"key": "a", "more": True}), KeyStroke)
KeyStroke(key='a', held_ms=0)
>>> read(typed({"key": 7}), KeyStroke, default=None)
>>> read(typed({"key": 7}), KeyStroke)
Traceback (most recent call last):
reducers.errors.DataError: event 7 ('keystroke'): its data is no KeyStroke: Expected `str`, got `int` - at `$.key`

The type may be a `msgspec.Struct`, a dataclass, a TypedDict or anything else that msgspec converts to; fields
that it does not name are ignored.  How bytes become an event: `archive.event`.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

import msgspec

from archive import Event
from reducers.errors import DataError

T = TypeVar("T")
D = TypeVar("D")

_NONE: Final[Any] = object()  # None is a default that people ask for


@overload
def read(event: Event, kind: type[T]) -> T: ...
@overload
def read(event: Event, kind: type[T], default: D) -> T | D: ...
def read(event: Event, kind: type[T], default: Any = _NONE) -> Any:
    """Return `event.data` as a `kind`; where it is none, return `default`, or raise DataError if none is given."""
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as error:
        if default is not _NONE:
            return default
        name = getattr(kind, "__name__", str(kind))
        raise DataError(f"event {event.index} ({event.type!r}): its data is no {name}: {error}") from None
