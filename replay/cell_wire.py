r"""What a worker and a cell say to each other: frames of 4 bytes (length) and as many of MessagePack.

    worker -> cell   Question  events, of which only code of the module can tell whose states they go into
                     Piece     events, what to fold them into, and the states of keys that the cell does not hold yet
    cell -> worker   Hello     the module's reducers, once it is imported; or Refused, why it is not
                     Keyed     the key of each event that was asked about
                     Done      what changed, what was emitted, and where it stopped, if it did

A cell runs code that nobody trusts, so a worker believes nothing of what it reads: frames are of bounded size, every
field has a type, and what it says about keys is held against what it was asked (`replay.cell`).  A cell believes its
worker.

>>> frame = encode_frame(Refused("no"))
>>> decode_back(frame[4:])
Refused(reason='no')
>>> decode_back(b"\xc1")
Traceback (most recent call last):
archive.errors.FormatError: a cell said what is no answer: MessagePack data is malformed...

How a piece is folded on the other side: `replay.tenant`.
"""

from __future__ import annotations

import marshal
from typing import Annotated, Any

import msgspec

from archive import Event, FormatError
from reducers import Message
from replay.catalogue import ReducerInfo
from replay.layout import StoredSlot

FRAME_BYTES_MAX = 64 << 20
STATE_BYTES_MAX = 16 << 20
"""Of one encoding that a cell answers."""
Ordinal = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Key = tuple[str, ...]


class WireEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event on its way; `huge` holds its data where MessagePack cannot: whole numbers of more than 64 bits."""

    index: int
    type: str
    source: str
    keys: dict[str, str]
    data: Any
    received_ms: int
    time_ms: int
    huge: bytes | None = None


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One event to fold into the state of one key; all by their places in lists."""

    event: Ordinal
    reducer: Ordinal
    key: Key
    emits: bool = False
    tick: bool = False


class Given(msgspec.Struct, frozen=True, array_like=True):
    """The state of a key that the cell does not hold."""

    reducer: Ordinal
    slot: StoredSlot


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """What to fold next.  `space` tells the states of a fold apart from those of another, made anew beside it."""

    space: int
    events: list[WireEvent]
    tasks: list[Task]
    given: list[Given]
    dropped: list[tuple[Ordinal, Key]]
    fresh: bool = False
    """Forget every state of this space first."""
    careful: bool = False
    """Encode after each event, to find the one that makes a state which has no encoding."""


class Question(msgspec.Struct, frozen=True, tag="question"):
    """Whose state does an event go into, by the code of a reducer (`reducers.Reducer.keyed`)?"""

    events: list[WireEvent]
    asked: list[tuple[Ordinal, Ordinal]]
    """Event and reducer, by their places."""


class Hello(msgspec.Struct, frozen=True, tag="hello", forbid_unknown_fields=True):
    """The module is there."""

    version: Annotated[str, msgspec.Meta(max_length=200)]
    reducers: Annotated[list[ReducerInfo], msgspec.Meta(max_length=200)]
    viewed: Annotated[list[bool], msgspec.Meta(max_length=200)]
    """Which of them show something else than their state."""
    confined: Annotated[list[str], msgspec.Meta(max_length=20)]
    """What the system keeps this process from."""


class Refused(msgspec.Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """The module cannot be used."""

    reason: Annotated[str, msgspec.Meta(max_length=10_000)]


class Said(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message that a task emitted; its data as JSON, since MessagePack has no whole number of more than 64 bits."""

    task: Ordinal
    type: str
    keys: dict[str, str]
    data: bytes


class Halt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a module cannot go on; with `encoding`, the state has none, and some earlier task may have done it."""

    task: Ordinal
    reason: Annotated[str, msgspec.Meta(max_length=2_000)]
    encoding: bool = False
    unreadable: bool = False
    """A state that was given is none of this reducer."""
    unsaid: bool = False
    """It folded all of it, and the answer cannot be sent; one to fewer tasks may be."""
    memory: bool = False
    """It found no memory."""


class Done(msgspec.Struct, frozen=True, tag="done", forbid_unknown_fields=True):
    """What came of a piece."""

    changed: list[Given]
    said: list[Said]
    halt: Halt | None = None


class Keyed(msgspec.Struct, frozen=True, tag="keyed", forbid_unknown_fields=True):
    """The answer to a question: a key for each thing asked, None where the event is none of the reducer's."""

    keys: list[Key | None]
    halt: Halt | None = None


Back = Hello | Refused | Done | Keyed
_encoder = msgspec.msgpack.Encoder()
_decode_back = msgspec.msgpack.Decoder(Back).decode
decode_piece = msgspec.msgpack.Decoder(Piece | Question).decode


def encode_frame(message: Piece | Question | Back) -> bytes:
    """Return a message with its length before it; raise ValueError if it is too large."""
    data = _encoder.encode(message)
    if len(data) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(data):,} bytes; at most {FRAME_BYTES_MAX:,}")
    return len(data).to_bytes(4) + data


def decode_back(data: bytes) -> Back:
    """Return what a cell said; raise FormatError if it is no answer."""
    try:
        back: Back = _decode_back(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"a cell said what is no answer: {error}") from None
    return back


def to_wire(event: Event) -> WireEvent:
    """Return an event as it goes to a cell."""
    data, huge = event.data, None
    if isinstance(data, dict | list | int):
        try:
            _encoder.encode(data)
        except OverflowError:
            data, huge = None, marshal.dumps(event.data)
    return WireEvent(
        event.index, event.type, event.source, event.keys, data, event.received_ms, event.time_ms, huge
    )


def to_said(task: int, message: Message) -> Said:
    """Return a message as it goes back to the worker."""
    return Said(task, message.type, message.keys, msgspec.json.encode(message.data))


def data_of(said: Said) -> Any:
    """Return the data of what a cell says that was emitted; raise FormatError if it is none.

    >>> data_of(to_said(0, Message("t", {}, [1 << 80])))
    [1208925819614629174706176]
    """
    try:
        return msgspec.json.decode(said.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"a cell said a message without data: {error}") from None


def from_wire(one: WireEvent) -> Event:
    """Return the event that a worker sent.

    >>> event = Event(index=1, type="t", source="", keys={}, data=[1 << 80], received_ms=0, time_ms=0)
    >>> from_wire(to_wire(event)) == event
    True
    """
    return Event(
        index=one.index,
        type=one.type,
        source=one.source,
        keys=one.keys,
        data=one.data if one.huge is None else marshal.loads(one.huge),  # noqa: S302 - of our own worker
        received_ms=one.received_ms,
        time_ms=one.time_ms,
    )
