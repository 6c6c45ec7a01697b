"""Is a state of the type that its reducer names?  Asked after every event, so it must cost next to nothing.

A state is kept in memory, and now and then it is stored and read again.  Both must behave alike, or states depend on
restarts.  What is read again is of the annotated type, exactly: a float that was given as 5 comes back as 5.0, a list
where a tuple was returned, and a text in a field of numbers does not come back at all.  So what a reducer returns is
held against its type at once.  What does not fit takes the way through its encoding there and then (`Reducer.normal`):
either it fits afterwards, or that is the event's result, and the key is quarantined (`reducers.fold`).

The test is one expression, made once from the type, since a walk through it at each event would take longer than most
reducers do.  Whatever stands where the type says `Any`, or inside of a bare `dict` or `list`, fits.  What such an
expression cannot tell (bounds, typed dicts, abstract classes) never fits: it takes the long way each time.

>>> from collections import OrderedDict
>>> fits = checker(dict[str, tuple[float, int | None]])
>>> fits({"a": (5.0, 1)}), fits({"a": (5.0, None)}), fits({"a": (5, 1)}), fits({"a": [5.0, 1]}), fits({7: (5.0, 1)})
(True, True, False, False, False)
>>> checker(dict)({}), checker(dict)(OrderedDict()), checker(Any) is None
(True, False, True)

Who applies it: `reducers.fold`.  What an author's test finds beside it: `reducers.contract`.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

Check = Callable[[Any], bool]

_SCALARS: Final = frozenset({bool, int, str, bytes})
_CONTAINERS: Final = (list, set, frozenset, tuple, dict)
_ANYTHING, _NOTHING = "True", "False"
"""Tests that every value passes, and none."""


def checker(kind: Any) -> Check | None:
    """Return what tells whether a value is of a type, exactly; None where every value is taken."""
    made = _Maker()
    test = made.test(kind, "x")
    return None if test == _ANYTHING else made.function(test)


class _Maker:
    """Writes expressions; `space` holds the objects that they name."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {}
        self._known: dict[Any, str] = {}
        """Names of the functions that test types which have parts."""

    def function(self, test: str) -> Check:
        """Return an expression about `x` as a function."""
        # All of it is our own text: of authors there are field names in it, which Python has taken for names.
        return typing.cast("Check", eval(f"lambda x: {test}", self.space))  # noqa: S307

    def test(self, kind: Any, x: str) -> str:
        """Return an expression that tells whether the value that `x` names is of a type."""
        while (bare := _bare(kind)) is not kind:
            kind = bare
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if kind in (Any, object) or isinstance(kind, typing.TypeVar):
            return _ANYTHING
        if kind in (None, type(None)):
            return f"{x} is None"
        if kind is float:  # what is not finite has no encoding
            return f"(type({x}) is float and {x} - {x} == 0.0)"
        if kind in _SCALARS:
            return f"type({x}) is {self._name(kind)}"
        if origin in (typing.Union, types.UnionType):
            tests = [self.test(part, x) for part in parts]
            return _ANYTHING if _ANYTHING in tests else f"({' or '.join(tests)})"
        if origin is typing.Literal:
            options = self._name(frozenset((type(part), part) for part in parts))
            kinds = self._name(frozenset(map(type, parts)))
            return f"(type({x}) in {kinds} and (type({x}), {x}) in {options})"
        if origin in _CONTAINERS or _fields(kind) is not None:
            return f"{self._of_parts(kind, origin, parts)}({x})"
        if kind in _CONTAINERS or (isinstance(kind, type) and not _is_open(kind)):
            return f"type({x}) is {self._name(kind)}"
        return _NOTHING

    def _of_parts(self, kind: Any, origin: Any, parts: tuple[Any, ...]) -> str:
        """Return the name of the function that tests a type with parts; a type may have itself as a part."""
        if kind not in self._known:
            name = self._known[kind] = f"f{len(self._known)}"
            fields = _fields(kind)
            if fields is not None:
                tests = [f"type(x) is {self._name(kind)}"]
                tests += [self.test(field, f"x.{label}") for label, field in fields.items()]
            elif origin is tuple and (len(parts) != 2 or parts[1] is not ...):
                tests = ["type(x) is tuple", f"len(x) == {len(parts)}"]
                tests += [self.test(part, f"x[{at}]") for at, part in enumerate(parts)]
            elif origin is dict:
                tests = ["type(x) is dict", self._each(parts[0], "x"), self._each(parts[1], "x.values()")]
            else:
                tests = [f"type(x) is {self._name(origin)}", self._each(parts[0], "x")]
            self.space[name] = self.function(" and ".join(test for test in tests if test != _ANYTHING))
        return self._known[kind]

    def _each(self, kind: Any, items: str) -> str:
        """Return an expression that tells whether all items are of a type."""
        while (bare := _bare(kind)) is not kind:
            kind = bare
        if kind in _SCALARS:  # without a step of ours for each
            return f"{{*map(type, {items})}} <= {self._name(frozenset({kind}))}"
        test = self.test(kind, "x")
        return _ANYTHING if test == _ANYTHING else f"all(map({self._name(self.function(test))}, {items}))"

    def _name(self, thing: Any) -> str:
        name = f"g{len(self.space)}"
        self.space[name] = thing
        return name


def _bare(kind: Any) -> Any:
    """Return a type without what says nothing of its values."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        bounded = any(isinstance(one, msgspec.Meta) and _bounds(one) for one in parts[1:])
        return kind if bounded else parts[0]
    return parts[0] if origin is typing.Final else getattr(kind, "__supertype__", kind)


def _bounds(meta: msgspec.Meta) -> bool:
    """Return whether there are values of the type that are refused, and not only words about it."""
    names = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
    return any(getattr(meta, name) is not None for name in names)


def _is_open(kind: type) -> bool:
    """Return whether values of a class have other classes."""
    return typing.is_typeddict(kind) or inspect.isabstract(kind)


def _fields(kind: Any) -> dict[str, Any] | None:
    """Return the fields of a class that has some, with their types; None for any other, and where nobody can tell."""
    if not isinstance(kind, type):
        return None
    try:
        if issubclass(kind, msgspec.Struct):
            return {field.name: field.type for field in msgspec.structs.fields(kind)}
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind, include_extras=True)
            return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            hints = typing.get_type_hints(kind, include_extras=True)
            return {name: hints.get(name, Any) for name in kind._fields}
    except (NameError, TypeError):
        return None
    return None
