"""A reducer: a pure, versioned function from (state, event) to state, with a scope.

The scope names the key fields that tell one state from another: `("student",)` keeps a state for each
student, `("student", "doc_id")` one for each student's document.  Because the function is pure, its states
are a function of the log alone, and whoever has the log can check them.  Time, randomness, files and
network are not available to it: what it needs enters as events.

    @reducer(scope=("student",), version=1)
    def keystrokes(state: Keystrokes, event: Event) -> Keystrokes: ...

The type of the state is the annotation of the first parameter: a `msgspec.Struct`, a dataclass, or any
JSON-like type.  A reducer returns a *new* state; returning the one it was given says "unchanged".

>>> from archive import Event
>>> from reducers.definition import reducer
>>> @reducer()
... def total(state: int, event: Event) -> int:
...     return state + event.data["points"]
>>> keys, data = {"student": "ann"}, {"points": 7}
>>> seven = Event(index=0, type="t", source="s", keys=keys, data=data, received_ms=0, time_ms=0)
>>> total.name, total.key_of(seven), total.apply(total.initial(), seven), total.encode(7)
('total', ('ann',), 7, b'7')

The decorator is in `reducers.definition`.  How reducers are applied, and what an exception does, is the
business of `reducers.fold`; the test an author writes is `reducers.contract.check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from archive import Event
from reducers import canonical
from reducers.errors import StateError
from reducers.guard import active
from reducers.message import Emit, Outbox
from reducers.shown import built

S = TypeVar("S")
Key = tuple[str, ...]
WHO_AND_WHERE: Final = frozenset({"student", "class", "resource", "teacher"})
"""Key fields that only the ingest finds, whatever an event says."""
VALUE_SIZE_MAX: Final = 1_024
"""Bytes of the value of a key field."""


def certain_fields(scope: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fields of a scope that no code of a reducer may find elsewhere: the first, and who and where.

    >>> certain_fields(("student", "doc_id", "class"))
    ('student', 'class')
    """
    return tuple([name for position, name in enumerate(scope) if position == 0 or name in WHO_AND_WHERE])


@dataclass(frozen=True, slots=True, eq=False)
class Reducer(Generic[S]):
    """A reducer as the system sees it: made by the decorator `reducer`, and still callable as a function."""

    name: str
    version: int
    scope: tuple[str, ...]
    state_type: Any
    code_digest: str
    """Hex SHA-256 of the source file that defines the function."""
    function: Callable[..., S] = field(repr=False)
    default: Callable[[], S] = field(repr=False)
    viewer: Callable[[S], Any] | None = field(repr=False)
    decoder: msgspec.json.Decoder[S] = field(repr=False)
    ticks: int | None = None
    """Period, in whole seconds, of the logged ticks that it is folded over; None: it takes none."""
    emits: bool = False
    """Whether its function takes a third parameter, `emit`."""
    module: str = ""
    """Name of the module that it belongs to; "" until one adopts it."""
    fits: Callable[[Any], bool] | None = field(default=None, repr=False)
    """Tells whether a state is of its type, exactly (`reducers.conforming`); None: whatever is returned is one."""

    def __call__(self, state: S, event: Event, *emit: Emit) -> S:
        """Call the function as it was written, unchecked."""
        return self.function(state, event, *emit)

    def initial(self) -> S:
        """Return the state before any event, a fresh one each time."""
        return self.default()

    def apply(self, state: S, event: Event, emit: Emit | None = None) -> S:
        """Return the state after `event`; the same object means unchanged.

        Without `emit`, what it emits is checked and goes nowhere.  Raises what the function raises, and
        TypeError where it returns None.
        """
        if self.emits:
            after = self.function(state, event, Outbox(None) if emit is None else emit)
        else:
            after = self.function(state, event)
        if after is None:
            raise self.returned_none()
        return after

    def returned_none(self) -> TypeError:
        """Return what is raised where the function returns None, which is no state."""
        return TypeError(
            f"reducer {self.name!r} returned None; return the new state, or `state` if unchanged"
        )

    def encode(self, state: S) -> bytes:
        """Return the canonical JSON of `state` (docs/formats/state.md); StateError where it has none."""
        try:
            return canonical.encode(state)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise StateError(self.name, f"its state cannot be encoded: {error}") from error

    def decode(self, encoding: bytes) -> S:
        """Return the state that `encoding` stands for; raise StateError where it is none of this type."""
        try:
            return self.decoder.decode(encoding)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise StateError(
                self.name, f"stored bytes are not a state of version {self.version}: {error}"
            ) from error

    def normal(self, state: S) -> S:
        """Return a state as it would be stored and read again; raise StateError where it is none of its type."""
        try:
            return self.decoder.decode(canonical.encode(state))
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise StateError(
                self.name, f"it returned what is no {_name_of(self.state_type)} ({error})"
            ) from error

    def view(self, state: S) -> Any:
        """Return what readers are shown, as JSON-like builtins: what `view=` makes of the state, or all.

        Sets become sorted lists here, where they can still be told from lists.
        """
        if self.viewer is None:
            return built(state)
        with active(self):
            shown = self.viewer(state)
        return built(shown)

    @property
    def keyed(self) -> bool:
        """Whether the key of an event is more than its key fields: then nobody but `key_of` can tell it."""
        return type(self).key_of is not Reducer.key_of

    @property
    def certain(self) -> tuple[str, ...]:
        """Fields of the scope that only the key fields of an event can give: without them it has no key."""
        return self.scope

    def key_of(self, event: Event) -> Key | None:
        """Return the values of the scope's fields, in the scope's order; None where one is missing."""
        keys = event.keys
        try:
            return tuple([keys[name] for name in self.scope])
        except KeyError:
            return None


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
