"""Private rows, opened: is each what its public leaf commits to, and does all that it says agree.

A leaf alone shows that *something* was recorded.  With the vault one can see that the row beside it is that something,
that it is about the subject whose mark the leaf bears, and that a subject's entries are counted 1, 2, 3 … without a
gap: so that even the holder of every key cannot take one out and close the ranks.  Nor can he file one anew: as what,
and about whom besides, the header says as well (`archive.filing`).

Rows are checked stretch by stretch, in several processes at once, so a count that begins within a stretch is handed
back (`Counted`) and joined to those before by `archive.fsck`.  So is what a header should have said if the last start
entry, which may stand in an earlier stretch, demands it (`unsaid`).

A subject who is not in the vault any more is *erased*: nothing can be opened, nothing is shown, and it is only counted.
Whether it was erased with good reason will be said by its tombstone, once erasing is a command.  A number that the
vault has given to nobody yet is no erased subject but a finding.  What is passed off as an erased one's, and bears the
mark of somebody who is there, is found in the end, from the marks that are handed back (`gone`): `archive.people`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from archive.datakey import DataKey
from archive.entry import (
    NO_ID,
    ROW_EVENT,
    Header,
    Leaf,
    Opened,
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
from archive.filing import MEMBERS, PROMISED, header_version_at, misfiled
from archive.findings import Finding, Findings
from archive.kernel import kernel
from archive.people import GONE, gone
from archive.recent import Recent
from archive.vault import SubjectKeys, Vault

ROUTES_CACHED = 16_384
NUMBERS_MAX: Final = 1 << 27
"""Greater subject numbers are a finding, since each number below one takes 8 bytes (`join_counts`)."""
SEQUENCE_MAX: Final = (1 << 62) - 1
"""Greater numbers are nobody's, and are taken for this one, so that counting on from them stays a number."""
NOT_READ: Final = -(1 << 63)


_TAG: Final = slice(10, 26)
_COMMITMENT: Final = slice(26, 58)
"""Where they stand in a private leaf (docs/formats/entry.md)."""


class Entry(NamedTuple):
    """A leaf, and the private row beside it."""

    at: int
    """Its index."""
    leaf: bytes
    row: bytes


@dataclass(slots=True)
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
    versions: Sequence[tuple[int, int]] = ()
    """Index of each start entry at hand, in order, and the version of the headers that follow it."""
    unsaid: Findings = field(default_factory=Findings)
    """What else is a finding about entries before these, if headers of version 2 began still earlier."""
    subjects: dict[int, Counted] = field(default_factory=dict)
    opened: int = 0
    gone: bytearray = field(default_factory=bytearray)
    """Records (`archive.people`) of the entries whose subjects are erased."""
    _routes: Recent[tuple[object, ...], bytes] = field(default_factory=lambda: Recent(ROUTES_CACHED))
    _admitted: int = field(init=False)
    """Subjects have lower numbers.  Read once: the entries to be checked were there before, and their subjects too."""

    def __post_init__(self) -> None:
        self._admitted = min(self.vault.admitted, NUMBERS_MAX)

    def check_all(self, entries: Sequence[Entry]) -> None:
        """Check some rows that follow one another, whole and well-formed, against their leaves, which are private.

        All keys are read at once, and all rows opened by the kernel.  What is not as usual is looked at by itself.
        """
        rows = [row for row in kernel.parse_rows([one.row for one in entries]) if row is not None]
        self.vault.read_ahead({number for row in rows for number in row.subjects[:1]})
        for one, row, opened in zip(entries, rows, self._opened(rows), strict=True):
            if opened is None or not self._usual(one, row, opened):
                self.check(*one)

    @property
    def erased(self) -> int:
        """How many entries are of subjects who are erased."""
        return len(self.gone) // GONE.itemsize

    def counts(self) -> Counts:
        """Return how many entries each subject had."""
        return Counts.of(self.subjects)

    def check(self, index: int, leaf: bytes, data: bytes) -> None:
        """Check one row, whole and well-formed, against its leaf."""
        try:
            self._check(index, parse_leaf(leaf), parse_row(data))
        except (FormatError, IntegrityError) as error:
            self.found.add("opening", index, str(error))

    def _opened(self, rows: Sequence[Row]) -> list[Opened | None]:
        """Return what all of these rows committed to; None where that is not to be had, for one or for all."""
        found: list[Opened | None] = [None] * len(rows)
        try:
            keys = [self._data_key(row) for row in rows]
            at = [place for place, key in enumerate(keys) if key is not None]
            opened = kernel.open_rows([rows[place] for place in at], [key for key in keys if key is not None])
        except (FormatError, IntegrityError):
            return found
        for place, one in zip(at, opened, strict=True):
            found[place] = one
        return found

    def _usual(self, one: Entry, row: Row, opened: Opened) -> bool:
        """Judge an entry that commits to what was opened, in its usual spelling; else return False."""
        if (text := canonical_header(opened.header)) is None:
            return False
        opening = b"".join((opened.salt, len(text).to_bytes(4), text, opened.payload))
        if commitment_of(opening) != one.leaf[_COMMITMENT]:
            return False
        keys, counted = self.vault.keys(row.subjects[0]), self._counted(one.at, row)
        self._judge(one.at, one.leaf[_TAG], row, keys, opened.header, counted)
        return True

    def _check(self, index: int, leaf: Leaf, row: Row) -> None:
        if not self._is_admitted(row):
            raise IntegrityError(
                f"it is about subject {max(row.subjects)}, but the vault has admitted {self._admitted} only: the row "
                "was forged, or the vault is an older copy than the log"
            )
        counted = self._counted(index, row)
        if (data_key := self._data_key(row)) is None:
            self.gone += gone(index, leaf.tag)
            return
        opening = open_row(row, data_key)
        if commitment_of(opening) != leaf.commitment:
            raise IntegrityError("its private row is not what the leaf commits to")
        header = parse_opening(opening).header
        length = int.from_bytes(opening[32:36])
        usual = opening[36 : 36 + length] == canonical_header(header)
        keys = self.vault.keys(row.subjects[0])
        self._judge(index, leaf.tag, row, keys, header, counted, usual=usual)

    def _data_key(self, row: Row) -> DataKey | None:
        """Return the key of a row, None if one of its subjects is erased, or was never admitted."""
        if not self._is_admitted(row):
            return None
        try:
            keys = self.vault.keys(row.subjects[0])
            return keys.data_key if len(row.subjects) == 1 else self.vault.data_key(row.subjects)
        except NotFound:
            return None

    def _is_admitted(self, row: Row) -> bool:
        return max(row.subjects) < self._admitted

    def _counted(self, index: int, row: Row) -> Counted:
        if (counted := self.subjects.get(row.subjects[0])) is None:
            counted = self.subjects[row.subjects[0]] = Counted(index)
        counted.count += 1
        return counted

    def _judge(
        self,
        index: int,
        tag: bytes,
        row: Row,
        keys: SubjectKeys,
        header: Header,
        counted: Counted,
        *,
        usual: bool = True,
    ) -> None:
        sequence = header.sequence
        if not 0 <= sequence <= SEQUENCE_MAX or tag_of(keys.tag_key, sequence) != tag:
            self.found.add("tag", index, f"its tag is not that of entry {sequence} of its subject")
        self._count(index, counted, min(max(sequence, 0), SEQUENCE_MAX))
        wrong = self._disagreement(row, header, keys.name) if usual else "its header is not in canonical form"
        if wrong:
            self.found.add("header", index, wrong)
        if row.kind != ROW_EVENT or len(row.subjects) > 1 or not MEMBERS.isdisjoint(header.extra):
            self._judge_filing(index, row, header)
        self.opened += 1

    def _judge_filing(self, index: int, row: Row, header: Header) -> None:
        also = [self.vault.keys(number).name for number in row.subjects[1:]]
        version = header_version_at(self.versions, index)
        for member, wrong in misfiled(row.kind, also, header.extra):
            if member in header.extra or (version is not None and version >= PROMISED):
                self.found.add("header", index, wrong)
            elif version is None:
                self.unsaid.add("header", index, wrong)

    def _count(self, index: int, counted: Counted, sequence: int) -> None:
        if counted.first is None:
            counted.first = sequence - counted.count + 1
        elif sequence != counted.first + counted.count - 1:
            due = counted.first + counted.count - 1
            self.found.add("sequence", index, gap(sequence, due), "order")
            counted.first += sequence - due  # each gap is reported once

    def _disagreement(self, row: Row, header: Header, name: str) -> str:
        """Say what of a row's open part does not follow from its header, or nothing."""
        identifier = header.extra.get("id")
        hashed = (
            id_hash(self.vault.id_key, header.sender, identifier) if isinstance(identifier, str) else NO_ID
        )
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
            fields, key = all_keys(subject, dict(keys)), self.vault.route_key
            pieces = [field_code(one) + routing_hash(key, one, fields[one]) for one in sorted(fields)]
            found = b"".join(pieces)
            self._routes.put(cached, found)
        return found


def canonical_header(header: Header) -> bytes | None:
    """Return the one spelling of a header; None if it has none: a map in it has keys that are no text."""
    try:
        return encode_header(header)
    except TypeError:
        return None


@dataclass(frozen=True, slots=True)
class Counts:
    """What `Counted` says of many subjects, in columns: 32 bytes each where objects would take 200."""

    subjects: array[int] = field(default_factory=lambda: array("Q"))
    first_indices: array[int] = field(default_factory=lambda: array("Q"))
    firsts: array[int] = field(default_factory=lambda: array("q"))
    """Sequence numbers; NOT_READ for None."""
    counts: array[int] = field(default_factory=lambda: array("Q"))

    @staticmethod
    def of(subjects: Mapping[int, Counted]) -> Counts:
        """Put what was counted into columns."""
        made = Counts()
        for subject, one in subjects.items():
            made.subjects.append(subject)
            made.first_indices.append(one.first_index)
            made.firsts.append(NOT_READ if one.first is None else one.first)
            made.counts.append(one.count)
        return made

    def __iter__(self) -> Iterator[tuple[int, Counted]]:
        """Yield each subject with what was counted."""
        columns = zip(self.subjects, self.first_indices, self.firsts, self.counts, strict=True)
        for subject, first_index, first, count in columns:
            yield subject, Counted(first_index, None if first == NOT_READ else first, count)


def join_counts(known: array[int] | None, subjects: Iterable[tuple[int, Counted]]) -> Iterator[Finding]:
    """Join the counts of a stretch to those before it, in place; yield a finding for each that does not follow.

    `known` has the last sequence number of each subject, by its number, and grows as far as `Openings` lets numbers
    pass; None if rows are not opened.
    """
    for subject, counted in subjects:
        if known is None or (counted.first is None and subject >= len(known)):
            continue  # of an erased subject any number could be claimed
        if subject >= len(known):
            known.frombytes(bytes(known.itemsize * (subject + 1024 - len(known))))
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
