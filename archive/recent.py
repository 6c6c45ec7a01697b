"""What was asked for lately: a mapping of bounded size that forgets what nobody asks for any more.

It has two halves, the *young* and the *old*.  What is new, or asked for again, is young.  When the young half is full
it becomes the old one, and what was old is gone.  So whatever was asked for among the last `size / 2` different ones
is there, and each step costs one or two look-ups, however long it has been running.  (To take the oldest out of one
dictionary, one by one, does not: Python looks for the first key from the front, past every one removed before.)

>>> recent = Recent[str, int](4)
>>> for at, name in enumerate("abcde"):
...     recent.put(name, at)
>>> [recent.get(name) for name in "abcde"], len(recent) <= 4
([None, None, 2, 3, 4], True)

Threads may share one: at worst something is forgotten too early, and asked for again.  Who remembers keys in it is
`archive.vault`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most `size` values (at least 2) by key; a value is never None."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 1)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value of a key, which is young from now on, or None."""
        found = self._young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.put(key, found)
        return found

    def get_many(self, keys: Iterable[K]) -> list[V | None]:
        """Do what `get` does for each: sooner, as most are young."""
        young = self._young.get
        return [young(key) or self.get(key) for key in keys]

    def put(self, key: K, value: V) -> None:
        """Remember a value, and forget the old ones if there is no room."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def clear(self) -> None:
        """Forget all."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        """Return how many values are remembered."""
        return len(self._young) + len(self._old)
