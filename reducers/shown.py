"""What readers are shown of a value: JSON-like builtins, the same in every process.

Sets have no order of their own, so they become sorted lists, and since their members may be of types that do not
compare (enums, None beside texts), it is what is shown that is sorted: numbers, then texts, then the rest by its
canonical JSON.  All else stays in the order in which it was put in.

    {"seen": {Kind.PAGE, None}, "by": {2, 10}}   ->   {"seen": ["page", None], "by": [2, 10]}

How states are stored, which is another matter: `reducers.canonical`.

>>> built({"z": {10, 2, "b", "a", None}, "a": [{(2, 1), (1, 2)}]})
{'z': [2, 10, 'a', 'b', None], 'a': [[(1, 2), (2, 1)]]}
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

_NUMBER, _TEXT, _OTHER = range(3)
_SIMPLE = {str, int, float, bool, type(None)}


def built(value: Any) -> Any:
    """Return JSON-like builtins: members of sets are sorted, those of dicts stay as they were put in."""
    shown = msgspec.to_builtins(value, str_keys=True)
    return _settled(value, shown) if _has_sets(value) else shown


def _has_sets(value: Any) -> bool:
    """Return whether there is anything to sort: mostly there is not, and this is told in a tenth of the time."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, set | frozenset):
            return True
        todo += [part for part in _parts(each) if type(part) not in _SIMPLE]
    return False


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.astuple(value)
    kind = type(value)
    names = getattr(kind, "__dataclass_fields__", ()) or [
        each.name for each in getattr(kind, "__attrs_attrs__", ())
    ]
    return [getattr(value, name, None) for name in names]


def _settled(value: Any, shown: Any) -> Any:
    """Return what is shown of a value, in which only the lists that were sets are in a new order."""
    if isinstance(value, set | frozenset):
        return sorted(map(_settled, value, shown), key=_rank)
    if isinstance(shown, dict):
        named = _named(value, shown)
        return {name: _settled(named.get(name), part) for name, part in shown.items()}
    if isinstance(shown, list | tuple):
        settled = map(_settled, _listed(value, len(shown)), shown)
        return list(settled) if isinstance(shown, list) else tuple(settled)
    return shown


def _named(value: Any, shown: dict[str, Any]) -> dict[str, Any]:
    """Return what a dict, a Struct or a dataclass is made of, under the names that are shown."""
    if isinstance(value, dict):
        return {name if type(name) is str else _text(name): part for name, part in value.items()}
    if isinstance(value, msgspec.Struct):
        return {each.encode_name: getattr(value, each.name) for each in msgspec.structs.fields(value)}
    return {name: getattr(value, name, None) for name in shown}


def _text(key: Any) -> str:
    (text,) = msgspec.to_builtins({key: None}, str_keys=True)
    return str(text)


def _listed(value: Any, size: int) -> list[Any]:
    """Return what a list, a tuple, or a Struct that is shown as one is made of; the tag of a Struct stands first."""
    if isinstance(value, msgspec.Struct):
        parts = [getattr(value, name) for name in value.__struct_fields__]
        return [None] * (size - len(parts)) + parts
    return list(value) if isinstance(value, list | tuple) else [None] * size


def _rank(shown: Any) -> tuple[int, Any, str]:
    """Return what builtins are sorted by: two that rank alike look alike."""
    kind = type(shown).__name__
    if isinstance(shown, str):
        return _TEXT, shown, kind
    if kind == "int" or (kind == "float" and math.isfinite(shown)):
        return _NUMBER, shown, kind
    return _OTHER, msgspec.json.encode(shown, order="deterministic"), kind
