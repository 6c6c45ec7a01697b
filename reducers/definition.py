"""The decorator: what makes a function a reducer, and what it refuses.

Mistakes show here, when the author's module is imported, and not at the first event of a student: each
DefinitionError names the reducer and says what to write instead.

>>> from reducers import Event
>>> @reducer(scope=("class",), ticks=60)
... def minutes(state: int, event: Event) -> int:
...     return state + (event.type == "treering.tick")
>>> minutes.scope, minutes.ticks, minutes.emits, minutes.initial()
(('class',), 60, False, 0)
>>> reducer(scope="class")(minutes.function)
Traceback (most recent call last):
reducers.errors.DefinitionError: reducer 'minutes': scope must be a tuple ... such as ("student",), not 'class'

What a reducer is: `reducers.base`.  What it may not reach for: `reducers.guard`.
"""

from __future__ import annotations

import copy
import inspect
import re
import typing
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, TypeVar

import msgspec

from reducers.base import Reducer
from reducers.conforming import checker
from reducers.errors import DefinitionError, PurityError, StateError
from reducers.guard import active, running
from reducers.purity import check_purity, closed_over
from reducers.sources import code_digest

S = TypeVar("S")

VERSION_MAX = 2**32 - 1
TICKS_MAX = 2**32 - 1
SCOPE_FIELDS_MAX, FIELD_LENGTH_MAX = 32, 64
"""What an activation in the log may name (docs/formats/control.md)."""
RESERVED_FIELDS = frozenset({"min_size", "at_size", "limit", "after"})
"""No field of a scope may be named so: in `GET /v1/states/…?limit=5` nobody could tell the key from the question."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_NOT_GIVEN: Any = object()
"""Stands for a default that nobody passed: None is one that somebody may have."""


def reducer(
    scope: tuple[str, ...] = ("student",),
    version: int = 1,
    name: str | None = None,
    view: Callable[[Any], Any] | None = None,
    default: Any = _NOT_GIVEN,
    ticks: int | None = None,
) -> Callable[[Callable[..., S]], Reducer[S]]:
    """Return a decorator that makes a function a Reducer.

    The function takes (state, event), or (state, event, emit).  `scope` names the key fields of a state;
    `()` keeps one state for all.  `version` is raised by whoever changes the meaning.  `name` is the
    function's unless given.  `view` turns a state into what readers see.  `default` is the first state, or a
    function that returns it; without it the state type is called without arguments.  It is never None: who returns
    that has forgotten to return a state.  `ticks` asks for an event of type "treering.tick" each so many whole
    seconds.  Raises DefinitionError, at the decoration, where any of this does not fit.
    """

    def decorate(function: Callable[..., S]) -> Reducer[S]:
        if not callable(function):
            raise DefinitionError(f"@reducer(...) decorates a function, not {function!r}")
        label = function.__name__ if name is None else name
        state_type = _state_type(function, label)
        made: Reducer[S] = Reducer(
            name=_checked_name(label),
            version=_checked_version(version, label),
            scope=_checked_scope(scope, label),
            state_type=state_type,
            code_digest=code_digest(function),
            function=function,
            default=_factory(state_type, default),
            viewer=view,
            decoder=_decoder(state_type, label),
            ticks=_checked_ticks(ticks, label),
            emits=_emits(function, label),
            fits=checker(state_type),
        )
        check_purity(label, function, view, default if callable(default) else None)
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
    if (not fields and scope not in ((), [])) or not all(isinstance(each, str) and each for each in fields):
        raise DefinitionError(
            f'reducer {name!r}: scope must be a tuple of key field names such as ("student",), not {scope!r}'
        )
    if len(fields) > SCOPE_FIELDS_MAX or max(map(len, fields), default=0) > FIELD_LENGTH_MAX:
        raise DefinitionError(
            f"reducer {name!r}: scope names at most {SCOPE_FIELDS_MAX} fields of at most {FIELD_LENGTH_MAX} "
            "characters each; shorten it"
        )
    refuse_reserved(fields, name)
    if len(set(fields)) < len(fields):
        raise DefinitionError(f"reducer {name!r}: scope {scope!r} names a field twice")
    return fields


def refuse_reserved(scope: Iterable[str], name: str) -> None:
    """Raise DefinitionError if a field of a scope cannot be asked for."""
    if reserved := sorted(RESERVED_FIELDS.intersection(scope)):
        raise DefinitionError(
            f"reducer {name!r}: scope field {reserved[0]!r} is a parameter of every question about states, so its keys "
            f"could not be asked for; rename the field (reserved are {', '.join(sorted(RESERVED_FIELDS))})"
        )


def _checked_ticks(ticks: int | None, name: str) -> int | None:
    if ticks is not None and (type(ticks) is not int or not 1 <= ticks <= TICKS_MAX):
        raise DefinitionError(
            f"reducer {name!r}: ticks must be a period of whole seconds from 1, not {ticks!r}"
        )
    return ticks


def _emits(function: Callable[..., Any], name: str) -> bool:
    """Return whether the function takes `emit`; raise DefinitionError where it cannot be called as a reducer."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(
            f"reducer {name!r}: write a plain `def` that returns the state, without await or yield"
        )
    parameters = inspect.signature(function).parameters
    emits = list(parameters)[2:3] == ["emit"]
    try:
        inspect.signature(function).bind(*range(3 if emits else 2))
    except TypeError as error:
        raise DefinitionError(
            f"reducer {name!r}: its function must take (state, event) or (state, event, emit): {error}"
        ) from error
    return emits


def _state_type(function: Callable[..., Any], name: str) -> Any:
    first = next(iter(inspect.signature(function).parameters), None)
    try:
        # A class made inside another function is found only where the reducer's body uses it, too.
        hints = typing.get_type_hints(function, localns=closed_over(function))
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
    if default is _NOT_GIVEN:
        origin = typing.get_origin(state_type) or state_type
        return typing.cast("Callable[[], Any]", origin)
    if callable(default):
        return typing.cast("Callable[[], Any]", default)
    return lambda: copy.deepcopy(default)


def _check_default(made: Reducer[Any]) -> None:
    """Find at the definition what would else stop a worker at its first event or snapshot."""
    try:
        # Where modules are loaded the guard stands already; here it must not be what puts it up.
        with active(made) if running.installed else nullcontext():
            state = made.initial()
        encoding = made.encode(state)
        again = made.encode(made.decode(encoding))
    except (TypeError, StateError) as error:
        raise DefinitionError(
            f"reducer {made.name!r}: no first state of type {made.state_type!r}: {error}; pass default=..."
        ) from error
    except PurityError as error:
        raise DefinitionError(str(error)) from error
    if state is None:
        raise DefinitionError(
            f"reducer {made.name!r}: its first state is None, which is no state (a reducer that returns None has "
            "forgotten to return one); pass a default that is a value, or keep what may be None in a field of a Struct"
        )
    if again != encoding:
        raise DefinitionError(
            f"reducer {made.name!r}: default {state!r} is not of its state type {made.state_type!r}"
        )
