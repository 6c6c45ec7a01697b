"""What a value holds that may be called through it: what it wraps, what it keeps, what its class defines.

    @lru_cache                     a wrapper               -> the function below it
    HANDLERS = {"open": on_open}   a dict, list, tuple     -> its members, if one takes them out
    CLOCK = Clock()                an object of one's own  -> the methods of its class, by name
    Clock.now                      of a class              -> the function, whatever makes it a method

Nothing is called to find out: attributes are looked up where they stand, not asked for.  Who asks is
`reducers.purity`, for names that stand in an author's source.

>>> [part for part, _owner in parts_of({"a": len, "b": [1]}, None)]
[<built-in function len>, [1]]
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import suppress
from types import MappingProxyType, MemberDescriptorType, ModuleType
from typing import Any

from reducers.base import Reducer
from reducers.scopes import UNKNOWN, Key, of_module

_MEMBERS: dict[type, Any] = {
    dict: dict.values,
    list: list.__iter__,
    tuple: tuple.__iter__,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
    MappingProxyType: MappingProxyType.values,
}
"""How to get at the members of a container without running code of somebody who derived from it."""
_TAKING = {"get", "values", "items", "pop", "popitem", "setdefault", "copy", "__getitem__"}
"""Methods that give members of a container; others only count, compare or change them."""


def parts_of(value: Any, owner: Any) -> Iterable[tuple[Any, Any]]:
    """Return what a value wraps or keeps, each with the object or class that is its first argument, if any.

    `owner` is that of the value itself, as something that was found in a class.
    """
    kind = type(value)
    if issubclass(kind, Reducer):
        return [(value.function, None)]
    if issubclass(kind, staticmethod):
        return [(value.__func__, None)]
    if issubclass(kind, functools.partial):
        return [(each, None) for each in (value.func, *value.args, *value.keywords.values())]
    if issubclass(kind, classmethod):
        return [(value.__func__, owner)]
    if issubclass(kind, property):
        return [(value.fget, owner)]
    if issubclass(kind, functools.cached_property | functools.partialmethod):
        return [(value.func, owner)]
    for container, members in _MEMBERS.items():
        if issubclass(kind, container):
            return ((each, None) for each in members(value))
    own = _own(value)
    return [(own[name], owner) for name in ("__wrapped__", "registry") if name in own]


def member(value: Any, key: Key, package: str) -> tuple[Any, Any]:
    """Return what stands under a key, or what is called to find it, and what the first argument of that would be."""
    if isinstance(value, type | ModuleType):
        return UNKNOWN, None
    for name in ("__getitem__", "__missing__"):
        found, owner = attribute(value, name, package)
        if found is not UNKNOWN and found is not value:
            return found, owner
    for kind, items in (
        (dict, dict.get),
        (list, _item),
        (tuple, _item),
        (MappingProxyType, MappingProxyType.get),
    ):
        if issubclass(type(value), kind):
            return items(value, key.value, UNKNOWN), None
    return UNKNOWN, None


def _item(value: Any, place: Any, default: Any) -> Any:
    return tuple(value)[place] if isinstance(place, int) and -len(value) <= place < len(value) else default


def attribute(value: Any, name: str, package: str) -> tuple[Any, Any]:
    """Return an attribute, and what its first argument would be; UNKNOWN if it takes somebody else's code to tell.

    `package` is the author's: of objects and base classes of others, nothing is looked at.
    """
    if isinstance(value, ModuleType):
        return of_module(value, name), None
    if isinstance(value, type):
        return _of_class(value, name, package), value
    if is_of(type(value), package):
        found = _of_class(type(value), name, package)
        if isinstance(found, MemberDescriptorType):
            with suppress(AttributeError):  # not assigned
                return found.__get__(value), None
        if name in _own(value):
            return _own(value)[name], None
        if found is not UNKNOWN:
            return found, value
    if issubclass(type(value), tuple(_MEMBERS)):
        by_key = issubclass(type(value), dict | MappingProxyType)
        taken = name in _TAKING or (name == "__iter__" and not by_key)
        return (value if taken else UNKNOWN), None
    return UNKNOWN, None


def is_of(kind: Any, package: str) -> bool:
    """Return whether a function or class is defined in this package."""
    return str(getattr(kind, "__module__", "")).partition(".")[0] == package


def _of_class(kind: type, name: str, package: str) -> Any:
    for each in kind.__mro__:
        if name in vars(each):
            return vars(each)[name] if each is kind or is_of(each, package) else UNKNOWN
    return UNKNOWN


def _own(value: Any) -> dict[str, Any]:
    """Return what an object keeps under names, without asking it."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
