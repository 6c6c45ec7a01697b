"""Which reducers there are: an explicit table, filled by calls and never by importing.

Whoever composes a program says which reducers it runs; two parts of a program may hold two registries.  The
fingerprint names the set: equal fingerprints mean equal names, versions, scopes and code.

>>> from reducers import shipped
>>> [each.name for each in shipped()]
['class_progress', 'event_count', 'last_activity', 'reconstruct', 'student_progress', 'time_on_task']

How modules are found and loaded: `reducers.modules`.  How they are isolated is the business of `replay`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from reducers import canonical
from reducers.base import Reducer
from reducers.errors import DefinitionError, UnknownReducer

_DOMAIN = b"treering/reducers/v1\0"


class Registry:
    """Reducers by name; iterates in the order of their names."""

    def __init__(self) -> None:
        self._by_name: dict[str, Reducer[Any]] = {}

    def register(self, reducer: Reducer[Any]) -> None:
        """Add `reducer`; raise DefinitionError if its name is taken or if it is none."""
        if not isinstance(reducer, Reducer):
            raise DefinitionError(f"{reducer!r} is not a reducer; decorate it with @reducer(...)")
        if reducer.name in self._by_name:
            raise DefinitionError(
                f"a reducer named {reducer.name!r} is registered already; pass another name="
            )
        self._by_name[reducer.name] = reducer

    def get(self, name: str) -> Reducer[Any]:
        """Return the reducer of that name; raise UnknownReducer, which lists the names there are."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownReducer(name, tuple(sorted(self._by_name))) from None

    def __iter__(self) -> Iterator[Reducer[Any]]:
        return iter([self._by_name[name] for name in sorted(self._by_name)])

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def fingerprint(self) -> str:
        """Return the hex SHA-256 over names, versions, scopes, code digests and ticks (docs/formats/state.md)."""
        rows = [
            [each.name, each.version, each.scope, each.code_digest, *([each.ticks] if each.ticks else [])]
            for each in self
        ]
        return hashlib.sha256(_DOMAIN + canonical.encode(rows)).hexdigest()
