"""The check of steering entries: each speaks of what stands before it, and no two attestations contradict each other.

An attestation says what the states of one reducer came to at a size (`archive.steering.Attest`).  Two of them for the
same reducer, version, code and size must say the same, unless an entry between them changed the fold: a skip or a retry
of that reducer.  Whether an attestation is *true* takes the payloads, and is the business of `replay`.

>>> import msgspec
>>> check = Attestations()
>>> first = Attest(2, "r", 1, "0" * 64, 1, "a" * 64)
>>> list(check.take(3, first)), [each.detail for each in check.take(5, msgspec.structs.replace(first, digest="b" * 64))]
([], ['it attests other states of reducer r at size 2 than entry 3 does'])
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archive.errors import FormatError
from archive.findings import Finding
from archive.steering import Activate, Attest, Retry, Skip, Steering, parse_steering

_Key = tuple[str, int, str, int]


class Attestations:
    """All steering of a log, taken in the order of its entries."""

    def __init__(self) -> None:
        self.count = 0
        self._said: dict[_Key, tuple[int, str, int]] = {}
        self._changed: dict[str, int] = {}
        """Index of the last entry that changed the fold of a reducer."""

    def take_body(self, index: int, body: dict[str, Any]) -> Iterator[Finding]:
        """Yield what is wrong with a control entry of this body, of whatever kind."""
        try:
            steering = parse_steering(body)
        except FormatError as error:
            yield Finding("steering", index, str(error), "unreadable")
        else:
            if steering is not None:
                yield from self.take(index, steering)

    def take(self, index: int, steering: Steering) -> Iterator[Finding]:
        """Yield what is wrong with the entry at `index`."""
        if isinstance(steering, Attest):
            self.count += 1
            yield from self._attest(index, steering)
        elif isinstance(steering, Skip | Retry) and steering.index is not None:
            if steering.index >= index:
                yield Finding(
                    "steering", index, f"it names entry {steering.index}, which is not before it", "order"
                )
            if steering.reducer is not None:
                self._changed[steering.reducer] = index
        elif isinstance(steering, Activate):
            if not steering.reducers:
                yield Finding("steering", index, f"it activates no reducer of module {steering.module}")
            if steering.since is not None and steering.since > index:
                yield Finding(
                    "steering", index, f"it names entry {steering.since}, which is not before it", "order"
                )

    def _attest(self, index: int, one: Attest) -> Iterator[Finding]:
        if one.size > index:
            yield Finding("steering", index, f"it attests size {one.size}, which is not before it", "order")
        key = (one.reducer, one.version, one.code_digest, one.size)
        said = self._said.get(key)
        if (
            said is not None
            and said[1:] != (one.digest, one.states)
            and self._changed.get(one.reducer, -1) < said[0]
        ):
            detail = f"it attests other states of reducer {one.reducer} at size {one.size} than entry {said[0]} does"
            yield Finding("steering", index, detail, "altered")
        self._said[key] = (index, one.digest, one.states)
