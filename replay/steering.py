"""What the control entries of a log say about folding it, gathered once and kept up to the head.

    activate   from which entry on these reducers may emit messages, and which versions went before
    skip       which events a reducer passes over
    retry      which quarantined keys, and which parked modules, are to be tried again

The rule, which makes states a function of the log: the states at size n are the fold of entries 0…n-1, without the
events that a skip among them names.  A replay to n therefore reads the steering of 0…n-1 first.  A live worker meets a
skip after it has folded the event, and folds that one key again (`replay.runner`).

>>> steering = Gathered()
>>> steering.take(9, Skip("inverse", 7))
>>> steering.skipped("inverse")
frozenset({7})

The entries themselves: `archive.steering`, docs/formats/control.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from archive import (
    Activate,
    ActiveReducer,
    Attest,
    FormatError,
    Log,
    Retry,
    Skip,
    Steering,
    control_body,
    parse_leaf,
    parse_steering,
)


class Change(NamedTuple):
    """A skip or a retry: what states have to be folded again for."""

    at: int
    """Index of the control entry."""
    reducer: str
    event: int
    """Index of the event that it is about."""
    skip: bool


class Gathered:
    """All steering of entries 0…size-1."""

    def __init__(self) -> None:
        self.size = 0
        self.activations: dict[str, list[tuple[int, Activate]]] = {}
        """By module, ascending."""
        self._skips: dict[str, frozenset[int]] = {}
        self._retried: dict[str, int] = {}
        self._attested: dict[tuple[str, int, str, int], tuple[int, Attest]] = {}
        self._changes: list[Change] = []

    def extend(self, log: Log, until: int | None = None) -> list[tuple[int, Steering]]:
        """Read the control entries up to the log's size (or `until`), and return what they steer, with indices."""
        size = log.size if until is None else min(until, log.size)
        fresh: list[tuple[int, Steering]] = []
        for index, leaf in log.controls(self.size, size):
            try:
                steering = parse_steering(control_body(parse_leaf(leaf)))
            except FormatError:
                continue  # written by a later version: what this one cannot read steers nothing here
            if steering is not None:
                self.take(index, steering)
                fresh.append((index, steering))
        self.size = max(self.size, size)
        return fresh

    def take(self, index: int, steering: Steering) -> None:
        """Take note of one control entry."""
        if isinstance(steering, Activate):
            self.activations.setdefault(steering.module, []).append((index, steering))
        elif isinstance(steering, Skip):
            self._skips[steering.reducer] = self.skipped(steering.reducer) | {steering.index}
            self._changes.append(Change(index, steering.reducer, steering.index, skip=True))
        elif isinstance(steering, Attest):
            self._attested[_about(steering)] = (index, steering)
        elif isinstance(steering, Retry):
            if steering.module is not None:
                self._retried[steering.module] = index
            elif steering.reducer is not None and steering.index is not None:
                self._changes.append(Change(index, steering.reducer, steering.index, skip=False))

    def changes(self, start: int) -> list[Change]:
        """Return the skips and retries of single events from entry `start` on."""
        return self._changes[bisect_left(self._changes, start, key=lambda one: one.at) :]

    def skipped(self, reducer: str) -> frozenset[int]:
        """Return the indices of the events that a reducer passes over."""
        return self._skips.get(reducer, frozenset())

    def superseded(self, reducer: str, at: int, *, late: bool = False) -> bool:
        """Return whether what a reducer says at event `at` may differ from what it said there first, by the log itself.

        So it is between an event and the entry that skips it or tries it again: what was said there first came of a
        fold by the rule before.  With `late`, the event waited for its identity and was folded behind others that stand
        above it, so any such entry above it counts.

        >>> steering = Gathered()
        >>> steering.take(9, Skip("inverse", 7))
        >>> [steering.superseded("inverse", at) for at in (6, 7, 8, 9)]
        [False, True, True, False]
        """
        return any(
            change.at > at and (late or change.event <= at)
            for change in self._changes
            if change.reducer == reducer
        )

    def retried(self, module: str) -> int | None:
        """Return the index of the last entry that asks to try a parked module again."""
        return self._retried.get(module)

    def active(self, module: str) -> tuple[int, Activate] | None:
        """Return (index, entry) of a module's last activation, or None if it never was active."""
        known = self.activations.get(module)
        return known[-1] if known else None

    def holder(self, reducer: str) -> str | None:
        """Return the module whose states those of a reducer are: of all that run one of this name, the last to begin.

        None if no module does.  A module that was renamed takes its reducers along.

        >>> steering, words = Gathered(), ActiveReducer("words", 1, ("student",), "0" * 64)
        >>> steering.take(3, Activate("essay", (words,)))
        >>> steering.take(9, Activate("lexis", (words,)))
        >>> steering.holder("words")
        'lexis'
        """
        last = [(*known[-1], module) for module, known in self.activations.items()]
        found = [
            (index, module)
            for index, entry, module in last
            if any(one.name == reducer for one in entry.reducers)
        ]
        return max(found)[1] if found else None

    def emits_from(self, module: str, identities: Iterable[ActiveReducer]) -> int | None:
        """Return the index from which on these reducers emit messages; None: they are not the active ones.

        Whoever activates what is active already takes nothing back: the first activation of a row counts.
        """
        found, own = None, set(identities)
        for index, active in reversed(self.activations.get(module, [])):
            if set(active.reducers) != own:
                break
            found = index if active.since is None else min(index, active.since)
        return found

    def attested(self, one: Attest) -> tuple[int, Attest] | None:
        """Return (index, entry) of the last attestation of the same reducer, version, code and size, or None."""
        return self._attested.get(_about(one))

    def attestations(self) -> list[tuple[int, Attest]]:
        """Return (index, entry) of the last attestation of each reducer, version, code and size, in order."""
        return sorted(self._attested.values(), key=lambda one: one[0])

    def versions(self, module: str) -> dict[str, int]:
        """Return the version of each reducer of a module's last activation."""
        active = self.active(module)
        return {} if active is None else {one.name: one.version for one in active[1].reducers}


def _about(one: Attest) -> tuple[str, int, str, int]:
    return (one.reducer, one.version, one.code_digest, one.size)
