"""What a check of the log can find, in words and in numbers.

A *finding* is one thing that is not as it must be.  It says which check found it, at which entry, what differs, of
what kind it is, and between which two signed checkpoints it lies: the last one before it that is right, and the first
one that covers it.  Whoever holds the first of them knows up to where the log can still be believed.

>>> print(Finding("root", 40, "block 3: its root is not that of its entries", good=32, bad=48))
entry 40: root: block 3: its root is not that of its entries [right up to checkpoint 32; first in doubt: 48]

`CHECKS` lists every check, in the order in which a reader would make them; docs/formats/findings.md explains them.
Who looks: `archive.fsck`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

FINDINGS_MAX: Final = 1_000

CHECKS: Final = {
    "storage": "the database can be read to its end",
    "structure": "every page of the database file is in its place",
    "leaves": "every public entry is there, once and in order",
    "entry": "every public entry has a known form",
    "time": "time never runs backwards",
    "origin": "entry 0, and it alone, says which log this is, and all checkpoints are of that log",
    "rows": "beside every entry stands its private row, once and in order",
    "row": "no private row has changed since it was written (checksum)",
    "ids": "no event id was accepted twice",
    "nodes": "every stored hash of the tree is the one that follows from the entries",
    "blocks": "the commits follow one another without gap",
    "chain": "each commit names the one before it",
    "root": "each commit's root is the one that follows from the entries",
    "checkpoint": "every commit has a checkpoint, signed, of that size and that root",
    "keys": "the log's key changes only as an entry signed by both keys says",
    "steering": "what steers the reducers may be said where it stands, and no two attestations contradict each other",
    "stray": "nothing lies beyond the last commit",
    "seal": "what was sealed last is still there",
    "kept": "a checkpoint that somebody kept elsewhere is still part of this log",
    "quorum": "enough witnesses have signed what the outside is shown",
    "since": "the log continues what was verified before",
    "opening": "every private row is what its public entry promises (vault)",
    "header": "what a private row says openly follows from what it says inside (vault)",
    "names": "everybody in the vault is found by her name (vault)",
    "tag": "every entry's mark is that of its subject (vault)",
    "sequence": "each subject's entries are counted without gap or repetition (vault)",
}
"""Every check by name, and what holds if it finds nothing."""

KINDS: Final = ("altered", "missing", "stray", "order", "duplicate", "signature", "rolled back", "unreadable")
"""Bytes differ, are gone, too many, out of order, there twice, badly signed, too old, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be: which check, at which entry (None: not one entry), and what differs."""

    check: str
    index: int | None
    detail: str
    kind: str = "altered"
    """One of KINDS."""
    good: int | None = None
    """Size of the last checkpoint before it that is right; None if there is none, or it is not about entries."""
    bad: int | None = None
    """Size of the first signed checkpoint that covers it, hence is in doubt; None as above."""

    def __str__(self) -> str:
        place = "log" if self.index is None else f"entry {self.index}"
        since = ""
        if self.bad is not None:
            before = (
                "no checkpoint before it is right"
                if self.good is None
                else f"right up to checkpoint {self.good}"
            )
            since = f" [{before}; first in doubt: {self.bad}]"
        return f"{place}: {self.check}: {self.detail}{since}"


@dataclass
class Tally:
    """What was seen, for the report."""

    entries: int = 0
    blocks: int = 0
    checkpoints: int = 0
    control: int = 0
    attested: int = 0
    """Attestations of states."""
    opened: int = 0
    erased: int = 0
    """Private entries whose subject is not in the vault any more."""
    root: bytes = b""
    origin: str | None = None
    remarks: list[str] = field(default_factory=list)
    """What could not be checked, and why; no findings."""


class Findings:
    """A list that stops growing: whoever alters everything must not fill the auditor's memory."""

    def __init__(self, limit: int = FINDINGS_MAX) -> None:
        self.found: list[Finding] = []
        self._limit = limit

    def add(self, check: str, index: int | None, detail: str, kind: str = "altered") -> None:
        """Take note of a finding, if there are not too many."""
        if len(self.found) < self._limit:
            self.found.append(Finding(check, index, detail, kind))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)


def limited(found: Iterator[Finding], limit: int = FINDINGS_MAX) -> Iterator[Finding]:
    """Yield at most `limit` findings, and then one that says so."""
    for count, finding in enumerate(found):
        if count == limit:
            yield Finding("limit", None, f"more than {limit} findings; the rest is not listed")
            return
        yield finding


def span(first: int, last: int) -> str:
    """Return how a stretch of entries is named.

    >>> span(3, 3), span(3, 9)
    ('entry 3', 'entries 3 to 9')
    """
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def checks_of(findings: Sequence[Finding]) -> list[str]:
    """Return the names of the checks that found something, each once, in the order of CHECKS."""
    names = {finding.check for finding in findings}
    return [name for name in CHECKS if name in names]
