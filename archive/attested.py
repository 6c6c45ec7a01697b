"""The check of steering entries: each says what it may say at its place, and no two attestations contradict each other.

What an entry may say at its place is `archive.steering.fault_at`; the archiver takes nothing else.

An attestation says what the states of one reducer came to at a size (`archive.steering.Attest`).  Two of them for the
same reducer, version, code and size must say the same, unless an entry between them changed the fold: a skip or a retry
of that reducer.  Whether an attestation is *true* takes the payloads, and is the business of `replay`.

A check that goes on where another ended has not seen what was attested before.  An attestation of a size stands behind
the entries that it speaks of, so one that speaks of a size before that place is rare, and only then is looked back, no
further than to that size.

>>> import msgspec
>>> check = Attestations()
>>> first = Attest(2, "r", 1, "0" * 64, 1, "a" * 64)
>>> list(check.take(3, first)), [each.detail for each in check.take(5, msgspec.structs.replace(first, digest="b" * 64))]
([], ['it attests other states of reducer r at size 2 than entry 3 does'])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from archive.errors import FormatError
from archive.findings import Finding
from archive.keyring import ROTATE
from archive.steering import Attest, Retry, Skip, Steering, fault_at, parse_steering

UNKNOWN_MAX: Final = 1_000
_OTHERS: Final = ("origin", "start", ROTATE)
"""Kinds of control entries that do not steer; a tuple, for a body may hold what cannot be hashed."""
_Key = tuple[str, int, str, int]

Earlier = Callable[[int, int], Iterable[tuple[int, dict[str, Any]]]]
"""Returns indices and bodies of the control entries from one index up to another, in order."""


class Attestations:
    """All steering of a log, taken in the order of its entries, from entry `since` on.

    `earlier` is asked for what stands before that, as far back as it matters.
    """

    def __init__(self, since: int = 0, earlier: Earlier = lambda *_: ()) -> None:
        self.count = 0
        self.unknown: list[int] = []
        """Indices of the first control entries of no known kind."""
        self._since, self._earlier = since, earlier
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
            elif index and body.get("control") not in _OTHERS and len(self.unknown) < UNKNOWN_MAX:
                self.unknown.append(index)  # of entry 0 more is said elsewhere

    def remarks(self) -> list[str]:
        """Return what to say of entries that nobody here understands: a newer archiver may, so they are no findings."""
        if not self.unknown:
            return []
        some = ", ".join(map(str, self.unknown[:3])) + (", …" if len(self.unknown) > 3 else "")
        return [f"control entries of no known kind: {some}; a newer version may know what they say"]

    def take(self, index: int, steering: Steering) -> Iterator[Finding]:
        """Yield what is wrong with the entry at `index`."""
        if isinstance(steering, Attest):
            self.count += 1
            self._look_back(steering.size)
        if (fault := fault_at(steering, index)) is not None:
            yield Finding("steering", index, fault, "order")
        if isinstance(steering, Attest):
            yield from self._attest(index, steering)
        elif isinstance(steering, Skip | Retry) and steering.reducer is not None:
            self._changed[steering.reducer] = index

    def _look_back(self, size: int) -> None:
        """Take in what stands between `size` and where this began; what is wrong with that was found earlier."""
        if size >= self._since:
            return
        older = Attestations()
        for index, body in self._earlier(size, self._since):
            for _ in older.take_body(index, body):
                pass
        self._since = size
        self._said = older._said | self._said
        self._changed = older._changed | self._changed

    def _attest(self, index: int, one: Attest) -> Iterator[Finding]:
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
