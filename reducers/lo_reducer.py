"""A reducer of the Learning Observer as one of ours.

Theirs is an async function that takes an event and an internal state, which it may change in place, and returns
two states, internal and external, either of which may be False: "do not write".  Ours is a pure function of a
state it must not touch.  Between the two lies one decision: *a state is kept encoded*.  The function is given
what the encoding decodes to, and what it returns is encoded again, so that it can change what it likes, and
"unchanged" is an equality of bytes.  That server keeps its states as JSON, too.

    {"internal": I}                  the external state was never written
    {"internal": I, "same": true}    both are equal, as nearly all reducers have it
    {"external": E, "internal": I}   they differ

The function runs without an event loop: one that has to wait for something cannot be a function of the log, and
is told so.  While it runs, the clock shows the time of the event (`reducers.lo_clock`).

>>> async def count(event, state):
...     state["n"] += 1
...     return state, False
>>> state = LoState(b'{"n":1}')
>>> advance(count, {"n": 0}, state, {"client": {"event": "hello"}}, 1_000)
LoState(internal=b'{"n":2}', external=None)

Where these functions come from: `reducers.lo`.  What an exception in one does: `reducers.fold`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from archive import Event
from reducers import canonical
from reducers.base import WHO_AND_WHERE, Key, Reducer, certain_fields
from reducers.errors import StateError
from reducers.lo_clock import EVENT_MS
from reducers.lo_event import Envelope, Envelopes, key_text

NULL = b"null"
_decode = msgspec.json.decode


class LoState(msgspec.Struct, frozen=True):
    """Both states of a key, as canonical JSON."""

    internal: bytes = NULL
    """`null` where there is none: the function then gets the first state that its decorator names."""
    external: bytes | None = None
    """None where it was never written."""


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    internal: msgspec.Raw
    external: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    same: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LoReducer(Reducer[LoState]):
    """A reducer that sees the events of some sources only, and whose state is kept encoded."""

    contexts: frozenset[str] = frozenset()
    """Sources of its events, by their canonical names."""
    required: tuple[str, ...] = ()
    """Fields that an event must have, though they are in no key."""
    envelopes: Envelopes = field(default_factory=lambda: Envelopes([]), repr=False)

    @property
    def certain(self) -> tuple[str, ...]:
        """Fields of the scope that only the ingest finds."""
        return certain_fields(self.scope)

    def key_of(self, event: Event) -> Key | None:
        """Return the key of the state that this event concerns; None where it concerns none.

        The first field is the one by which entries find their shard, so it is what the ingest found; of the
        others, what stands in the event counts, after the module's migrators.
        """
        envelope = self.envelopes.of(event)
        if envelope is None or envelope.source not in self.contexts:
            return None
        if not all(name in envelope.client for name in self.required):
            return None
        key = tuple([_part(envelope, name, position) for position, name in enumerate(self.scope)])
        return None if "" in key else key

    def encode(self, state: LoState) -> bytes:
        """Return the canonical JSON of both states."""
        if state.external is None:
            return b'{"internal":' + state.internal + b"}"
        if state.external == state.internal:
            return b'{"internal":' + state.internal + b',"same":true}'
        return b'{"external":' + state.external + b',"internal":' + state.internal + b"}"

    def decode(self, encoding: bytes) -> LoState:
        """Return the state that `encoding` stands for; raise StateError where it is none."""
        try:
            stored = _decode(encoding, type=_Stored)
        except msgspec.MsgspecError as error:
            raise StateError(self.name, f"stored bytes are no state of an LO reducer: {error}") from error
        internal = bytes(stored.internal)
        if stored.same:
            return LoState(internal, internal)
        return LoState(internal, None if stored.external is msgspec.UNSET else bytes(stored.external))


class Step:
    """The step of an LO reducer, called as a plain function of (state, event).

    It is an object and not a function: `reducers.purity` then leaves the source alone, which may name a clock or
    a `print` that is harmless here.  The guard sees what is really called, and names the place by `__module__`.
    """

    def __init__(self, function: Callable[[Any, Any], Any], null_state: Any, envelopes: Envelopes) -> None:
        self._function, self._null_state, self._envelopes = function, null_state, envelopes
        self.__module__, self.__name__ = function.__module__, function.__name__
        self.__qualname__ = function.__qualname__

    def __call__(self, state: LoState, event: Event) -> LoState:
        """Return the state after `event`; the same one where it is nothing such a reducer could be given."""
        envelope = self._envelopes.of(event)
        if envelope is None:
            return state
        return advance(self._function, self._null_state, state, envelope.copy(), event.received_ms)


def advance(
    function: Callable[[Any, Any], Any],
    null_state: Any,
    state: LoState,
    event: dict[str, Any],
    event_ms: int,
) -> LoState:
    """Return the state after `event` (an envelope's copy), received at `event_ms`; the same one if unchanged.

    Raises what the function raises, TypeError or ValueError where it does not return two JSON values, and
    RuntimeError where it waits.
    """
    before = json_of(null_state) if state.internal == NULL else state.internal
    token = EVENT_MS.set(event_ms)
    try:
        returned = outcome(function(event, _decode(before)))
    finally:
        EVENT_MS.reset(token)
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise TypeError(f"returned {returned!r:.80}; a reducer returns (internal state, external state)")
    internal, external = returned
    after = before if internal is False else json_of(internal)
    shown = state.external if external is False else after if external is internal else json_of(external)
    if after == state.internal and shown == state.external:
        return state
    return LoState(after, shown)


def outcome(running: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns without ever waiting; raise RuntimeError if it waits."""
    try:
        running.send(None)
    except StopIteration as end:
        return end.value
    running.close()
    raise RuntimeError(
        "the reducer waits for something outside of it; all that it may await are functions that do not"
    )


def json_of(value: Any) -> bytes:
    """Return the canonical JSON of a state; keys that are numbers, booleans or None become texts.

    Raises TypeError or ValueError for what JSON does not have, NaN among it.

    >>> json_of({7: {None: (1, 2)}})
    b'{"7":{"null":[1,2]}}'
    """
    try:
        return canonical.encode(value)
    except TypeError:
        return canonical.encode(_with_text_keys(value))


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key_name(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _key_name(key: Any) -> Any:
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return repr(key) if isinstance(key, int | float) else key


def _part(envelope: Envelope, name: str, position: int) -> str:
    """Return one field of a key, "" where it is missing."""
    found = key_text(envelope.event.keys.get(name))
    return found if position == 0 or name in WHO_AND_WHERE else envelope.text(name) or found
