r"""Which shard holds a key: by the routing hash of one field, and by nothing else.

A reducer's *routing field* is the partition key if its scope has it, else the first field of its scope.  So
all states of one student, whatever their scope, live in one shard, and an entry about a student is decrypted
by one worker of a module only; the others see from the row's routing hash, without a key, that it is not theirs.
A global reducer has one key and no field; the shard of its name sees every event.

>>> shard_of(bytes.fromhex("00000000000000ff"), 4)
3
>>> routing_field(("class", "student")), routing_field(("class",)), routing_field(())
('student', 'class', None)

A row names fields by two bytes of a hash, and a sender chooses the names.  So what a row says is *perhaps*,
any route of that code counts, and `holds` decides, once, when a key is first seen.

**Who lacks a field.**  A code that a row does not have is a field that its event certainly lacks.  So what a reducer
passes over for want of a field is counted by outlines alone, without a key, and by one shard: `counted_fields`.

The number of shards may change at any start; which states there are may not (`reducers.digest`).
Why it is done this way: docs/adr/0008-routing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from archive import Row, Share, field_code, outline, routing_hash
from reducers import Key, Reducer

PARTITION_KEY = "student"
TICK_FIELD = "treering.tick"
"""Key field that every tick has, and by which a row is known as perhaps one."""
SEEN_MAX = 65_536
"""Outlines whose answer is remembered.  Senders choose names, so they could make many; usually there are a few."""
_OUTLINED = 3  # of each route: the code of its field (2), whether it leads here (1)
_HERE = b"\1"
_PARTITION_CODE, _TICK_CODE = field_code(PARTITION_KEY), field_code(TICK_FIELD)


class Only(NamedTuple):
    """One key of one reducer: what a replay of that key alone is about."""

    reducer: Reducer[Any]
    key: Key


def shard_of(route: bytes, shards: int) -> int:
    """Return the shard (0-based) of a routing hash."""
    return int.from_bytes(route) % shards


def routing_field(scope: Sequence[str]) -> str | None:
    """Return the field by which states of this scope are spread; None: there is one key, of no field."""
    if not scope:
        return None
    return PARTITION_KEY if PARTITION_KEY in scope else scope[0]


def home_of(name: str, scope: Sequence[str], key: Key, route_key: bytes, shards: int) -> int:
    """Return the shard that holds a reducer's key, under the site's `route_key`."""
    field = routing_field(scope)
    if field is None:
        return shard_of(sha256(name.encode()).digest()[:8], shards)
    return shard_of(routing_hash(route_key, field, key[scope.index(field)]), shards)


def counted_fields(outlined: bytes, shard: int) -> frozenset[bytes] | None:
    r"""Return the codes of the fields of an event that this shard counts; None: another one does, or it is a tick.

    It is the shard of its student, else of its first field; shard 0 where there is none.  A tick lacks nothing: it is
    for every key.

    >>> ann, unit = field_code("student") + b"\1", field_code("class") + b"\0"
    >>> counted_fields(unit + ann, 0) == {field_code("student"), field_code("class")}
    True
    >>> counted_fields(unit, 0), counted_fields(b"", 1)
    (None, None)
    """
    each = _each(outlined)
    own = [one for one in each if one[:2] == _PARTITION_CODE] or each
    if not (own[0].endswith(_HERE) if own else shard == 0):
        return None
    codes = frozenset([one[:2] for one in each])
    return None if _TICK_CODE in codes else codes


class Routing:
    """The reducers of a worker, by routing field; says which of them an entry may concern.

    With `only`, it is about one key, and the shard does not matter.
    """

    def __init__(
        self,
        reducers: Iterable[Reducer[Any]],
        route_key: bytes,
        shard: int = 0,
        shards: int = 1,
        only: Only | None = None,
    ) -> None:
        self.shard, self.shards, self._route_key, self._only = shard, shards, route_key, only
        by_field: dict[str, list[Reducer[Any]]] = {}
        self._always: list[Reducer[Any]] = []
        self._ticking: list[Reducer[Any]] = []
        for reducer in reducers:
            field = routing_field(reducer.scope)
            if field is not None:
                by_field.setdefault(field, []).append(reducer)
            elif only is not None or home_of(reducer.name, (), (), route_key, shards) == shard:
                self._always.append(reducer)
            if reducer.ticks is not None:
                self._ticking.append(reducer)
        self._by_code = [(field, field_code(field), group) for field, group in sorted(by_field.items())]
        self.share = Share(shard, shards, None if only is None else self._route_of(only))
        """The routing hashes that lead here."""
        self.seen: dict[bytes, list[Reducer[Any]]] = {}
        """What `concerned` answered, by the outline of a row under `share`; look here first."""
        self._answers: dict[tuple[int, ...], list[Reducer[Any]]] = {}

    def concerned(self, row: Row, binding: Row | None = None) -> list[Reducer[Any]]:
        """Return the reducers of this shard that `row` may concern, from its clear part alone.

        With `binding`, the row is backlog, and the person is the one whom the binding names.
        """
        own = outline(row.routes, self.share)
        if binding is None and (known := self.seen.get(own)) is not None:
            return known
        persons = own if binding is None else outline(binding.routes, self.share)
        found = list(self._always)
        for field, code, group in self._by_code:
            if code + _HERE in _each(persons if field == PARTITION_KEY else own):
                found += group
        if self._ticking and row.route(_TICK_CODE) is not None:
            found += [reducer for reducer in self._ticking if reducer not in found]
        # Of equal answers one list, so that whoever is given many can see that they are the same.
        found = self._answers.setdefault(tuple(map(id, found)), found)
        if binding is None:
            if len(self.seen) >= SEEN_MAX:
                self.seen.clear()
            self.seen[own] = found
        return found

    @property
    def everyone(self) -> list[Reducer[Any]]:
        """Return all reducers that have anything here: whom a row concerns that says nothing."""
        return [*self._always, *(one for _, _, group in self._by_code for one in group)]

    def holds(self, reducer: Reducer[Any], key: Key) -> bool:
        """Return whether a key belongs here, by its own value."""
        if self._only is not None:
            return key == self._only.key
        return self.shards == 1 or (
            home_of(reducer.name, reducer.scope, key, self._route_key, self.shards) == self.shard
        )

    def bound_here(self, binding: Row) -> bool:
        """Return whether a binding may concern this shard: it is the person's, or other fields route here."""
        if self._always:
            return True
        return any(
            field != PARTITION_KEY or code + _HERE in _each(outline(binding.routes, self.share))
            for field, code, _ in self._by_code
        )

    def _route_of(self, only: Only) -> bytes | None:
        field = routing_field(only.reducer.scope)
        if field is None:
            return None
        return routing_hash(self._route_key, field, only.key[only.reducer.scope.index(field)])


def _each(outlined: bytes) -> list[bytes]:
    return [outlined[at : at + _OUTLINED] for at in range(0, len(outlined), _OUTLINED)]
