r"""Where two JSON values differ: the places, as normalized paths (RFC 9535, 2.7), each with both values.

>>> differing({"events": 3, "by": {"a": 1}}, {"events": 3, "by": {"a": 2, "b": 1}})
[At("$['by']['a']", 1, 2), At("$['by']['b']", absent, 1)]
>>> print(At("$['by']['a']", 1, 2))
$['by']['a']: 1 here, 2 there

Types count: `1`, `1.0` and `true` are three values, since a state digest tells them apart.  Which states are compared:
`replay.trace`, and the commands that audit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from typing import Any, Final, NamedTuple

SHOWN_MAX: Final = 200
PLACES_MAX: Final = 20


class Absent(Enum):
    """The value of a place that is not there."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent.ABSENT


class At(NamedTuple):
    """One place, and what stands there on either side (`ABSENT`: nothing)."""

    path: str
    ours: Any
    theirs: Any

    def __repr__(self) -> str:
        return f'At("{self.path}", {self.ours!r}, {self.theirs!r})'

    def __str__(self) -> str:
        return f"{self.path}: {self.shown(self.ours)} here, {self.shown(self.theirs)} there"

    @staticmethod
    def shown(value: Any) -> str:
        """Return a side as people are shown it: JSON of bounded length, or "nothing"."""
        if value is ABSENT:
            return "nothing"
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"

    def as_json(self) -> dict[str, Any]:
        """Return it for a report; a side that has nothing there is left out."""
        sides = {"ours": self.ours, "theirs": self.theirs}
        return {"path": self.path, **{name: one for name, one in sides.items() if one is not ABSENT}}


def differing(ours: Any, theirs: Any, limit: int = PLACES_MAX) -> list[At]:
    """Return the first `limit` places in which two JSON values differ, in the order of the document."""
    return list(islice(_walk("$", ours, theirs), limit))


def differing_encodings(ours: bytes, theirs: bytes, limit: int = PLACES_MAX) -> list[At]:
    """Return the places in which two encoded states differ; at least one, if the bytes do.

    >>> differing_encodings(b'{"a":1,"b":2}', b'{"b":2,"a":1}')
    [At("$", 'members in the order a, b', 'members in the order b, a')]
    """
    if ours == theirs:
        return []
    one, other = json.loads(ours), json.loads(theirs)  # whole numbers of any size stay what they are
    return differing(one, other, limit) or [_order("$", one, other)]


def _order(path: str, ours: Any, theirs: Any) -> At:
    """Return the first place in which equal values are written in another order of their members."""
    if isinstance(ours, dict):
        if list(ours) != list(theirs):
            orders = [f"members in the order {', '.join(one)}" for one in (ours, theirs)]
            return At(path, *orders)
        pairs = [(f"{path}[{_quoted(name)}]", ours[name], theirs[name]) for name in ours]
    elif isinstance(ours, list):
        pairs = [(f"{path}[{at}]", *both) for at, both in enumerate(zip(ours, theirs, strict=True))]
    else:
        pairs = []
    inner = [found for one in pairs if (found := _order(*one)).path]
    return inner[0] if inner else At("", ours, theirs)


def _walk(path: str, ours: Any, theirs: Any) -> Iterator[At]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            yield from _walk(f"{path}[{_quoted(name)}]", ours.get(name, ABSENT), theirs.get(name, ABSENT))
    elif isinstance(ours, list) and isinstance(theirs, list):
        for at in range(max(len(ours), len(theirs))):
            one = ours[at] if at < len(ours) else ABSENT
            yield from _walk(f"{path}[{at}]", one, theirs[at] if at < len(theirs) else ABSENT)
    elif type(ours) is not type(theirs) or repr(ours) != repr(theirs):  # -0.0 is not 0.0
        yield At(path, ours, theirs)


_ESCAPED: Final = {"'": "\\'", "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _quoted(name: str) -> str:
    r"""Return a member's name as in a normalized path.

    >>> print(_quoted("it's"), _quoted("a" + chr(1)))
    'it\'s' 'a\u0001'
    """
    parts = [_ESCAPED.get(one) or (f"\\u{ord(one):04x}" if one < " " else one) for one in name]
    return f"'{''.join(parts)}'"
