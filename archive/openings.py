"""Private rows, opened: is each what its public leaf commits to, and does all that it says agree.

A leaf alone shows that *something* was recorded.  With the vault one can see that the row beside it is that something,
that it is about the subject whose mark the leaf bears, and that a subject's entries are counted 1, 2, 3 … without a
gap: so that even the holder of every key cannot take one out and close the ranks.

Rows are checked stretch by stretch, in several processes at once, so a count that begins within a stretch is handed
back (`Counted`) and joined to those before by `archive.fsck`.

A subject who is not in the vault is *erased*: nothing can be opened, nothing is shown, and it is only counted.  Whether
it was erased with good reason will be said by its tombstone, once erasing is a command.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from archive.entry import (
    NO_ID,
    Header,
    Leaf,
    Row,
    all_keys,
    commitment_of,
    encode_header,
    field_code,
    id_hash,
    open_row,
    parse_leaf,
    parse_opening,
    parse_row,
    routing_hash,
    tag_of,
)
from archive.errors import FormatError, IntegrityError, NotFound
from archive.findings import Finding, Findings
from archive.vault import Vault

ROUTES_CACHED = 32_768


@dataclass
class Counted:
    """The entries of one subject in one stretch."""

    first_index: int
    first: int | None = None
    """Sequence number that the first of them must have, as far as one could be read."""
    count: int = 0


@dataclass
class Openings:
    """Opens rows; findings go to `found`: "opening", "header", "tag", "sequence"."""

    vault: Vault
    found: Findings
    subjects: dict[int, Counted] = field(default_factory=dict)
    opened: int = 0
    erased: int = 0
    _routes: dict[tuple[object, ...], bytes] = field(default_factory=dict)

    def check(self, index: int, leaf: bytes, data: bytes) -> None:
        """Check one row, whole and well-formed, against its leaf."""
        try:
            self._check(index, parse_leaf(leaf), parse_row(data))
        except (FormatError, IntegrityError) as error:
            self.found.add("opening", index, str(error))

    def _check(self, index: int, leaf: Leaf, row: Row) -> None:
        counted = self.subjects.setdefault(row.subjects[0], Counted(index))
        counted.count += 1
        try:
            keys, data_key = self.vault.keys(row.subjects[0]), self.vault.data_key(row.subjects)
        except NotFound:
            self.erased += 1
            return
        opening = open_row(row, data_key)
        if commitment_of(opening) != leaf.commitment:
            raise IntegrityError("its private row is not what the leaf commits to")
        header = parse_opening(opening).header
        if header.sequence < 0 or tag_of(keys.tag_key, header.sequence) != leaf.tag:
            self.found.add("tag", index, f"its tag is not that of entry {header.sequence} of its subject")
        self._count(index, counted, header.sequence)
        if wrong := self._disagreement(row, header, keys.name, opening):
            self.found.add("header", index, wrong)
        self.opened += 1

    def _count(self, index: int, counted: Counted, sequence: int) -> None:
        if counted.first is None:
            counted.first = sequence - counted.count + 1
        elif sequence != counted.first + counted.count - 1:
            due = counted.first + counted.count - 1
            self.found.add("sequence", index, gap(sequence, due), "order")
            counted.first += sequence - due  # each gap is reported once

    def _disagreement(self, row: Row, header: Header, name: str, opening: bytes) -> str:
        """Say what of a row's open part does not follow from its header, or nothing."""
        length = int.from_bytes(opening[32:36])
        identifier = header.extra.get("id")
        hashed = (
            id_hash(self.vault.id_key, header.sender, identifier) if isinstance(identifier, str) else NO_ID
        )
        if opening[36 : 36 + length] != encode_header(header):
            return "its header is not in canonical form"
        if header.subject != name or row.provisional != name.startswith("provisional:"):
            return "its header names another subject than the vault"
        if hashed != row.identifier:
            return "its id hash is not that of the id in its header"
        if row.routes != self._routes_of(header.subject, header.keys):
            return "its routes are not those of the keys in its header"
        return ""

    def _routes_of(self, subject: str, keys: Mapping[str, str]) -> bytes:
        cached = (subject, *keys.items())
        if (found := self._routes.get(cached)) is None:
            if len(self._routes) >= ROUTES_CACHED:
                self._routes.clear()
            fields, key = all_keys(subject, dict(keys)), self.vault.route_key
            pieces = [field_code(one) + routing_hash(key, one, fields[one]) for one in sorted(fields)]
            found = self._routes[cached] = b"".join(pieces)
        return found


def join_counts(known: array[int] | None, subjects: Mapping[int, Counted]) -> Iterator[Finding]:
    """Join the counts of a stretch to those before it, in place; yield a finding for each that does not follow.

    `known` has the last sequence number of each subject, by its number; None if rows are not opened.
    """
    for subject, counted in subjects.items():
        if known is None or (counted.first is None and subject >= len(known)):
            continue  # of an erased subject any number could be claimed
        if subject >= len(known):
            known.extend([0] * (subject + 1024 - len(known)))
        due = known[subject] + 1
        first = due if counted.first is None else counted.first
        if first != due:
            yield Finding("sequence", counted.first_index, gap(first, due), "order")
        known[subject] = max(first, 1) + counted.count - 1


def gap(sequence: int, due: int) -> str:
    """Say what it means that a subject's entry bears `sequence` where `due` was next."""
    if sequence > due:
        lost = sequence - due
        return f"it is entry {sequence} of its subject, but {due} was due: {lost} taken out or moved"
    return f"it is entry {sequence} of its subject, but {due} was due: repeated or moved"
