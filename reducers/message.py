"""What a reducer says to other modules: messages, which become events of the log.

A reducer whose function takes a third parameter is given `emit`, and calls it as often as it has something
to say.  A message is only a value here.  Whoever drives the fold appends it to the log, once, and from there
it reaches the states of its keys as any event does: through the front door, recorded, replayable.

>>> said: list[Message] = []
>>> emit = Outbox(said)
>>> emit("essay.finished", keys={"class": "7b"}, data={"words": 412})
>>> said
[Message(type='essay.finished', keys={'class': '7b'}, data={'words': 412})]

A message is checked and copied when it is emitted, whether or not anyone is to receive it: a replay that is
muted must raise where the live fold raised, or their states would part.  How messages come back as events is
the business of `replay`.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from reducers import canonical

EMITTED_MAX = 1_000
"""Messages of one reducer at one event.  One that cannot stop is a fault of that reducer, not of the log."""
DATA_BYTES_MAX = 64 << 10
"""What the messages of one reducer at one event may hold together.  What is said is kept for ever, and nobody can take
it back, so that a module must not be able to make much of little; what is long belongs into a state."""
TYPE_BYTES_MAX = 1_024
FIELDS_MAX, FIELD_BYTES_MAX, VALUE_BYTES_MAX = 16, 64, 1_024
"""As at the front door (`api.ingest`): a message is an event, and any event of ours could come in there."""
RESERVED = "treering."
"""How the types and key fields begin that are the system's own."""


class Message(msgspec.Struct, frozen=True):
    """Something that a reducer says: the event that it becomes has this type, these keys and this data."""

    type: str
    keys: dict[str, str]
    data: Any
    """JSON-like builtins: a copy, which nothing changes later."""


def source_of(module: str) -> str:
    """Return the source of all events that are messages of a module; nobody outside can send one of it.

    A reducer that believes only messages of `progress` asks whether `event.source` is this.

    >>> source_of("progress")
    'treering.module.progress'
    """
    return f"{RESERVED}module.{module}"


class Emit(Protocol):
    """The type of a reducer's third parameter."""

    def __call__(self, type: str, *, keys: dict[str, str], data: Any = None) -> None:  # noqa: A002 - an event's word
        """Say that `type` happened to `keys`; TypeError or ValueError where that can be no event."""


class Outbox:
    """`emit` during one call of one reducer: appends to `out`, or to nothing where that is None (muted)."""

    __slots__ = ("_closed", "_count", "_out", "_size")

    def __init__(self, out: list[Message] | None) -> None:
        self._out, self._count, self._size, self._closed = out, 0, 0, False

    def __call__(self, type: str, *, keys: dict[str, str], data: Any = None) -> None:  # noqa: A002 - as above
        """Check and copy one message; raise TypeError or ValueError that says what is wrong with it."""
        if self._closed:
            raise ValueError("emit was called after its event; call it while the reducer runs")
        if self._count == EMITTED_MAX:
            raise ValueError(f"more than {EMITTED_MAX:,} messages at one event; emit one that sums them up")
        self._count += 1
        encoding = canonical.encode(data)
        self._size += len(encoding)
        if self._size > DATA_BYTES_MAX:
            raise ValueError(
                f"emit: the messages of one event hold {self._size:,} bytes; at most {DATA_BYTES_MAX:,} together"
            )
        message = Message(_checked_type(type), _checked_keys(keys), msgspec.json.decode(encoding))
        if self._out is not None:
            self._out.append(message)

    def close(self) -> None:
        """Refuse whatever comes later: a message belongs to the event at which it is emitted."""
        self._closed = True


def _checked_type(type: Any) -> str:  # noqa: A002 - as above
    if not isinstance(type, str) or not type:
        raise TypeError(f"emit: the type of a message must be a text such as 'essay.finished', not {type!r}")
    if type.startswith(RESERVED):
        raise ValueError(f"emit: the type {type!r} is the system's own; begin with your module's name")
    if len(type.encode()) > TYPE_BYTES_MAX:
        raise ValueError(f"emit: the type is longer than {TYPE_BYTES_MAX:,} bytes")
    return type


def _checked_keys(keys: Any) -> dict[str, str]:
    if not isinstance(keys, dict):
        raise TypeError(f'emit: keys must be a dict such as {{"student": "..."}}, not {keys!r}')
    if len(keys) > FIELDS_MAX:
        raise ValueError(f"emit: {len(keys)} keys; at most {FIELDS_MAX}")
    for name, value in keys.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"emit: keys must be texts, not {name!r}: {value!r}")
        if name.startswith(RESERVED):
            raise ValueError(f"emit: the key field {name!r} is the system's own; choose another name")
        if not 1 <= len(name.encode()) <= FIELD_BYTES_MAX or not 1 <= len(value.encode()) <= VALUE_BYTES_MAX:
            raise ValueError(
                f"emit: key field {name[:FIELD_BYTES_MAX]!r}: a name has 1 to {FIELD_BYTES_MAX} bytes, "
                f"its value 1 to {VALUE_BYTES_MAX:,}"
            )
    return dict(keys)
