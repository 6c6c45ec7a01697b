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
>>> @reducer()
... def total(state: int, event: Event) -> int:
...     return state + event.data["points"]
>>> keys, data = {"student": "ann"}, {"points": 7}
>>> seven = Event(index=0, type="t", source="s", keys=keys, data=data, received_ms=0, time_ms=0)
>>> total.name, total.key_of(seven), total.apply(total.initial(), seven), total.encode(7)
('total', ('ann',), 7, b'7')

How reducers are applied, and what an exception does, is the business of `reducers.fold`; the test an author
writes is `reducers.contract.check`.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from archive import Event
from reducers import canonical
from reducers.errors import DefinitionError, StateError

S = TypeVar("S")
Key = tuple[str, ...]

VERSION_MAX = 2**32 - 1
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, eq=False)
class Reducer(Generic[S]):
    """A reducer as the system sees it: made by the decorator `reducer`, and still callable as a function."""

    name: str
    version: int
    scope: tuple[str, ...]
    state_type: Any
    code_digest: str
    """Hex SHA-256 of the source file that defines the function."""
    function: Callable[[S, Event], S] = field(repr=False)
    default: Callable[[], S] = field(repr=False)
    viewer: Callable[[S], Any] | None = field(repr=False)
    decoder: msgspec.json.Decoder[S] = field(repr=False)

    def __call__(self, state: S, event: Event) -> S:
        """Call the function as it was written, unchecked."""
        return self.function(state, event)

    def initial(self) -> S:
        """Return the state before any event, a fresh one each time."""
        return self.default()

    def apply(self, state: S, event: Event) -> S:
        """Return the state after `event`; the same object means unchanged.

        Raises what the function raises, and TypeError where it returns None.
        """
        after = self.function(state, event)
        if after is None:
            raise TypeError(
                f"reducer {self.name!r} returned None; return the new state, or `state` if unchanged"
            )
        return after

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

    def view(self, state: S) -> Any:
        """Return what readers are shown, as JSON-like builtins: what `view=` makes of the state, or all."""
        shown = state if self.viewer is None else self.viewer(state)
        return msgspec.to_builtins(shown, str_keys=True)

    def key_of(self, event: Event) -> Key | None:
        """Return the values of the scope's fields, in the scope's order; None where one is missing."""
        keys = event.keys
        try:
            return tuple([keys[name] for name in self.scope])
        except KeyError:
            return None


def reducer(
    scope: tuple[str, ...] = ("student",),
    version: int = 1,
    name: str | None = None,
    view: Callable[[Any], Any] | None = None,
    default: Any = None,
) -> Callable[[Callable[[S, Event], S]], Reducer[S]]:
    """Return a decorator that makes a function a Reducer.

    `version` is raised by whoever changes the meaning.  `name` is the function's unless given.  `view`
    turns a state into what readers see.  `default` is the first state, or a function that returns it;
    without it the state type is called without arguments.  Raises DefinitionError, at the decoration, where
    any of this does not fit.
    """

    def decorate(function: Callable[[S, Event], S]) -> Reducer[S]:
        if not callable(function):
            raise DefinitionError(f"@reducer(...) decorates a function, not {function!r}")
        label = function.__name__ if name is None else name
        state_type = _state_type(function, label)
        made: Reducer[S] = Reducer(
            name=_checked_name(label),
            version=_checked_version(version, label),
            scope=_checked_scope(scope, label),
            state_type=state_type,
            code_digest=_code_digest(function),
            function=function,
            default=_factory(state_type, default),
            viewer=view,
            decoder=_decoder(state_type, label),
        )
        _check_default(made)
        return made

    return decorate


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DefinitionError(
            f"reducer name {name!r}: use 1 to 128 letters, digits, '_', '.', '-'; begin with a letter or '_'"
        )
    return name


def _checked_version(version: int, name: str) -> int:
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise DefinitionError(f"reducer {name!r}: version must be a whole number from 1, not {version!r}")
    return version


def _checked_scope(scope: tuple[str, ...], name: str) -> tuple[str, ...]:
    fields: tuple[Any, ...] = tuple(scope) if isinstance(typing.cast("Any", scope), tuple | list) else ()
    if not fields or not all(isinstance(each, str) and each for each in fields):
        raise DefinitionError(
            f'reducer {name!r}: scope must be a tuple of key field names such as ("student",), not {scope!r}'
        )
    if len(set(fields)) < len(fields):
        raise DefinitionError(f"reducer {name!r}: scope {scope!r} names a field twice")
    return fields


def _state_type(function: Callable[..., Any], name: str) -> Any:
    first = next(iter(inspect.signature(function).parameters), None)
    try:
        # A class made inside another function is found only where the reducer's body uses it, too.
        hints = typing.get_type_hints(function, localns=dict(inspect.getclosurevars(function).nonlocals))
    except NameError as error:
        raise DefinitionError(
            f"reducer {name!r}: its annotations cannot be resolved ({error}); "
            "define and import what they name at the top level of the module, not under TYPE_CHECKING"
        ) from error
    if first is None or first not in hints:
        raise DefinitionError(f"reducer {name!r}: annotate its first parameter with the type of the state")
    return hints[first]


def _decoder(state_type: Any, name: str) -> msgspec.json.Decoder[Any]:
    try:
        return msgspec.json.Decoder(state_type)
    except TypeError as error:
        raise DefinitionError(f"reducer {name!r}: {state_type!r} cannot be a state type: {error}") from error


def _factory(state_type: Any, default: Any) -> Callable[[], Any]:
    if default is None:
        origin = typing.get_origin(state_type) or state_type
        return typing.cast("Callable[[], Any]", origin)
    if callable(default):
        return typing.cast("Callable[[], Any]", default)
    return lambda: copy.deepcopy(default)


def _check_default(made: Reducer[Any]) -> None:
    """Find at the definition what would else stop a worker at its first event or snapshot."""
    try:
        state = made.initial()
        encoding = made.encode(state)
        again = made.encode(made.decode(encoding))
    except (TypeError, StateError) as error:
        raise DefinitionError(
            f"reducer {made.name!r}: no first state of type {made.state_type!r}: {error}; pass default=..."
        ) from error
    if state is None or again != encoding:
        raise DefinitionError(
            f"reducer {made.name!r}: default {state!r} is not of its state type {made.state_type!r}"
        )


def _code_digest(function: Callable[..., Any]) -> str:
    """Return the hex SHA-256 of the file's text with LF line ends, so that checkouts of any system agree.

    Code typed at a prompt has no file; there the byte code stands in, which only the same interpreter
    reproduces.
    """
    plain: Any = inspect.unwrap(function)
    try:
        lines, _ = inspect.findsource(plain)
    except OSError:
        return hashlib.sha256(plain.__code__.co_code).hexdigest()
    return hashlib.sha256("".join(lines).encode()).hexdigest()
