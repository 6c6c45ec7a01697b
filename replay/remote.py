"""What stands for a reducer that a cell runs, and what of a cell's answers is believed.

To a worker, a module in a cell is names and scopes; its states are encodings that came from the cell (`Sealed`).  What
a cell says of a state or of a key is judged here by what it was asked: an error is a breach, which stops the module.

>>> tabs = remote(ReducerInfo("tabs", 1, ("student", "tab"), "", keyed=True), "essay", viewed=False)
>>> ann = Event(index=7, type="t", source="", keys={"student": "ann"}, data={}, received_ms=0, time_ms=0)
>>> checked_key(tabs, ann, ("ann", "1"))
('ann', '1')
>>> checked_key(tabs, ann, ("bob", "1"))
Traceback (most recent call last):
archive.errors.FormatError: a key of somebody else

Who asks: `replay.cell`.  How it is said: `replay.cell_wire`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from archive import Event, FormatError
from reducers import VALUE_SIZE_MAX, Key, Reducer, Slot, certain_fields, is_module_name
from replay.catalogue import ReducerInfo
from replay.cell_wire import STATE_BYTES_MAX
from replay.layout import StoredSlot

ERROR_LENGTH_MAX = 400


class Sealed(msgspec.Struct, frozen=True):
    """A state of which only the encoding is known, and what readers are shown of it."""

    encoding: bytes
    shown: bytes | None = None


class Remote(Reducer[Sealed]):
    """A reducer that runs elsewhere: it has a name, a scope and states, and no function."""

    __slots__ = ()

    def encode(self, state: Sealed) -> bytes:
        """Return the encoding that came from the cell."""
        return state.encoding

    def decode(self, encoding: bytes) -> Sealed:
        """Return the encoding as a state: whether it is one is the cell's to say."""
        return Sealed(encoding)

    def view(self, state: Sealed) -> Any:
        """Return what the cell said that readers are shown."""
        return msgspec.Raw(state.encoding if state.shown is None else state.shown)


class RemoteKeyed(Remote):
    """One of which nobody but the cell can tell whose states an event goes into."""

    __slots__ = ()

    @property
    def certain(self) -> tuple[str, ...]:
        """Fields of the scope that the cell cannot choose."""
        return certain_fields(self.scope)

    def key_of(self, event: Event) -> Key | None:
        """Fail: its holding asks the cell (`CellHolding.keys_of`)."""
        raise AssertionError(f"only its cell knows whose state event {event.index} goes into")


def checked_key(reducer: Reducer[Any], event: Event, key: Key | None) -> Key | None:
    """Return a key that a cell answered; raise FormatError if the event cannot go into it."""
    if key is None:
        return None
    if len(key) != len(reducer.scope) or not all(0 < len(part.encode()) <= VALUE_SIZE_MAX for part in key):
        raise FormatError("a key of another shape")
    fields = dict(zip(reducer.scope, key, strict=True))
    if any(fields[name] != event.keys.get(name) for name in reducer.certain):
        raise FormatError("a key of somebody else")
    return key


def checked(reducer: Reducer[Any], stored: StoredSlot, indices: set[int]) -> Slot[Any]:
    """Return the slot that a cell answered; raise FormatError or DecodeError if no fold can have made it."""
    met = {stored.changed_at} if stored.error_index is None else {stored.changed_at, stored.error_index}
    if not met <= indices or (stored.error is None) != (stored.error_index is None):
        raise FormatError("a state of events that were not asked for")
    if len(stored.error or "") > ERROR_LENGTH_MAX or stored.version != reducer.version:
        raise FormatError("a state of another version, or with too long an error")
    for data in (stored.encoding, stored.shown or b"null"):
        if len(data) > STATE_BYTES_MAX:
            raise FormatError(f"a state of {len(data):,} bytes; at most {STATE_BYTES_MAX:,}")
        msgspec.json.decode(data)
    return Slot(Sealed(stored.encoding, stored.shown), stored.changed_at, stored.error, stored.error_index)


def remote(info: ReducerInfo, module: str, *, viewed: bool) -> Reducer[Any]:
    """Return what stands for a reducer that a cell runs; raise FormatError for what cannot be one."""
    if not (is_module_name(info.name.replace(".", "_")[:64]) and 1 <= info.version < 1 << 32):
        raise FormatError(f"a cell named a reducer {info.name!r} of version {info.version}")
    kind = RemoteKeyed if info.keyed else Remote
    return kind(
        name=info.name,
        version=info.version,
        scope=info.scope,
        state_type=Sealed,
        code_digest=info.code_digest,
        function=_nowhere,
        default=_nowhere,
        viewer=_nowhere if viewed else None,
        decoder=msgspec.json.Decoder(),
        ticks=info.ticks,
        emits=info.emits,
        module=module,
    )


def _nowhere(*_: Any) -> Any:
    raise AssertionError("this reducer runs in a cell")
