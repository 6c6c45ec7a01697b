"""Which shard holds a key: by the routing hash of one field, and by nothing else.

A reducer's *routing field* is the partition key if its scope has it, else the first field of its scope.  So
all states of one student, whatever their scope, live in one worker, and an entry about a student is decrypted
by one worker only; the others see from the row's routing hash, without a key, that it is not theirs.

>>> shard_of(bytes.fromhex("00000000000000ff"), 4)
3
>>> routing_field(("class", "student")), routing_field(("class",))
('student', 'class')

A row names fields by two bytes of a hash, and a sender chooses the names.  So what a row says is *perhaps*,
any route of that code counts, and `holds` decides, once, when a key is first seen.

The number of shards may change at any start; which states there are may not (`reducers.digest`).
Why it is done this way: docs/adr/0008-routing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from archive import Row, field_code, routing_hash
from reducers import Key, Reducer

PARTITION_KEY = "student"
_ROUTE_SIZE = 10  # field code (2), routing hash (8): docs/formats/entry.md
SEEN_MAX = 65_536
"""Routes whose answer is remembered: those of one key recur with every event of it."""


def shard_of(route: bytes, shards: int) -> int:
    """Return the shard (0-based) of a routing hash."""
    return int.from_bytes(route) % shards


def routing_field(scope: Sequence[str]) -> str:
    """Return the field by which states of this scope are spread."""
    return PARTITION_KEY if PARTITION_KEY in scope else scope[0]


class Routing:
    """The reducers of a worker, by routing field; says which of them an entry may concern."""

    def __init__(self, reducers: Iterable[Reducer[Any]], shard: int, shards: int) -> None:
        self.shard, self.shards = shard, shards
        by_field: dict[str, list[Reducer[Any]]] = {}
        for reducer in reducers:
            by_field.setdefault(routing_field(reducer.scope), []).append(reducer)
        self._seen: dict[bytes, list[Reducer[Any]]] = {}
        self._by_code = [(field, field_code(field), group) for field, group in sorted(by_field.items())]

    def concerned(self, row: Row, binding: Row | None = None) -> list[Reducer[Any]]:
        """Return the reducers of this shard that `row` may concern, from its clear part alone.

        With `binding`, the row is backlog, and the person is the one whom the binding names.
        """
        if binding is None and (known := self._seen.get(row.routes)) is not None:
            return known
        found: list[Reducer[Any]] = []
        for field, code, group in self._by_code:
            routed = binding if binding is not None and field == PARTITION_KEY else row
            if self._perhaps_here(routed.routes, code):
                found += group
        if binding is None:
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen[row.routes] = found
        return found

    def holds(self, reducer: Reducer[Any], key: Key, route_key: bytes) -> bool:
        """Return whether a key belongs to this shard, by its own value under the site's `route_key`."""
        if self.shards == 1:
            return True
        field = routing_field(reducer.scope)
        value = key[reducer.scope.index(field)]
        return shard_of(routing_hash(route_key, field, value), self.shards) == self.shard

    def bound_here(self, binding: Row) -> bool:
        """Return whether a binding may concern this shard: it is the person's, or other fields route here."""
        for field, code, _ in self._by_code:
            route = binding.route(code)
            if field != PARTITION_KEY or (route is not None and shard_of(route, self.shards) == self.shard):
                return True
        return False

    def _perhaps_here(self, routes: bytes, code: bytes) -> bool:
        for at in range(0, len(routes), _ROUTE_SIZE):
            if (
                routes[at : at + 2] == code
                and shard_of(routes[at + 2 : at + _ROUTE_SIZE], self.shards) == self.shard
            ):
                return True
        return False
