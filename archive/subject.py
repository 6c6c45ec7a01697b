"""One subject's entries, and how somebody else finds out that none was left out.

Every private leaf holds a tag: a hash of the subject's tag key and of the entry's number among the subject's entries.
Without the key, tags are noise.  With it anybody can compute tags 1, 2, 3, … and look for them in a public copy of the
log: if 1…n are there, each once, and n+1 is nowhere, then n entries are all there are, whatever we say.

    entries_of_subject(log, vault, "student:ann")     whose entries are where (with the vault)
    check_complete(claims, size, leaves)              is that all? (with the leaves and the tag keys only)

What was sent before a connection said who it is stands under provisional subjects of their own (ADR 0007), each with
a tag key and numbers of its own; it belongs to the person, so it is listed and checked along with her own entries.

A count that jumps would hide entries behind the gap: so not only tag n+1 is looked for, but the next thousand.

An entry may concern several subjects, and bears the tag of the first.  So tags show that the entries are all there of
which somebody is the *first* subject.  Those that concern her *also* are listed beside them, from the rows: whether
these are all no leaf can show.

A row that changed on disk no longer says whom it is about, and its leaf still does: the next tag of a subject there
makes it hers.  Rows that cannot be read and bear no such tag may concern her also, and are named to whoever asks.

>>> leaf = bytes((1, 1)) + bytes(8) + tag_of(bytes(32), 1) + bytes(32)
>>> list(check_complete([Claim("student:ann", bytes(32), (0,))], 1, [leaf]))
[]
>>> [finding.detail for finding in check_complete([Claim("student:ann", bytes(32), ())], 1, [leaf])]
['student:ann has an entry number 1 here, beyond the 0 listed: it was left out']

The list as files is docs/formats/receipt.md; the commands are `tools.export` and `tools.receipt`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from archive.entry import (
    LEAF_CONTROL,
    LEAF_PRIVATE,
    ROW_BINDING,
    Row,
    check_row,
    parse_leaf,
    parse_row,
    tag_of,
)
from archive.errors import FormatError, IntegrityError, NotFound
from archive.findings import Finding
from archive.log import Log, LogSource
from archive.vault import Vault

BEYOND: Final = 1_000
"""How many tags after the last one must be nowhere."""
ROWS_AT_ONCE: Final = 4_096


class SubjectEntries(NamedTuple):
    """Where the entries of one subject are."""

    name: str
    tag_key: bytes
    indices: tuple[int, ...]
    """Of which it is the first subject; their sequence numbers are 1, 2, … in this order."""
    also: tuple[int, ...] = ()
    """Of which somebody who is not listed is the first subject, and this one another."""


Claim = SubjectEntries
"""The same, as somebody else says it."""


def entries_of_subject(
    source: LogSource,
    vault: Vault,
    name: str,
    size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[SubjectEntries], list[int]]:
    """Return the entries of a subject (kind:label) among the first `size`, and those of its provisional subjects.

    The subject itself comes first.  With them come the indices of rows that cannot be read and are not known to be
    theirs.  Raises NotFound if the vault knows nobody of that name.
    """
    person = vault.find(name)
    if person is None:
        raise NotFound(f"there is no subject {name!r}; names are kind:label, such as student:ann")
    theirs = {person.number: person}
    found = _scan(source, {person.number: person.tag_key}, size, progress)
    for number in sorted(found.bound):
        with suppress(NotFound):  # its secret is destroyed: nobody can tell its entries any more
            theirs[number] = vault.keys(number)
    if len(theirs) > 1:
        found = _scan(source, {number: keys.tag_key for number, keys in theirs.items()}, size, progress)
    listed = [
        SubjectEntries(keys.name, keys.tag_key, tuple(found.indices[number]), tuple(found.also[number]))
        for number, keys in theirs.items()
    ]
    return listed, found.unread


def check_complete(claims: Sequence[Claim], size: int, leaves: Iterable[bytes]) -> Iterator[Finding]:
    """Yield what is wrong with these claims about the first `size` entries, given all leaves from entry 0 on.

    Believe it only if the leaves are those of a root that was signed, which the caller must check.  Entries from
    `size` on may be the subject's, too: they came later.
    """
    wanted = {
        tag_of(claim.tag_key, sequence): (number, sequence)
        for number, claim in enumerate(claims)
        for sequence in range(1, len(claim.indices) + 1 + BEYOND)
    }
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, leaf in enumerate(leaves):
        parsed = parse_leaf(leaf)
        if index < size and parsed.kind == LEAF_PRIVATE and (place := wanted.get(parsed.tag)):
            seen[place].append(index)
    for number, claim in enumerate(claims):
        for sequence in range(1, len(claim.indices) + 1 + BEYOND):
            yield from _judge(claim, sequence, seen.get((number, sequence), []))


def _judge(claim: Claim, sequence: int, seen: Sequence[int]) -> Iterator[Finding]:
    """Hold one sequence number against the places where its tag was seen."""
    number = f"{claim.name} has an entry number {sequence}"
    if sequence > len(claim.indices):
        for index in seen:
            detail = f"{number} here, beyond the {len(claim.indices)} listed: it was left out"
            yield Finding("complete", index, detail)
        return
    listed = claim.indices[sequence - 1]
    if not seen:
        yield Finding("complete", listed, f"{number} listed here, but its tag is nowhere in the log")
    elif len(seen) > 1:
        yield Finding("complete", seen[1], f"{number} more than once: at {', '.join(map(str, seen))}")
    elif seen[0] != listed:
        yield Finding("complete", seen[0], f"{number} here, but it is listed as entry {listed}")


class _Found:
    """What was found of some subjects, who are known by their numbers and tag keys."""

    def __init__(self, tag_keys: Mapping[int, bytes]) -> None:
        self._tag_keys = tag_keys
        self.indices: dict[int, list[int]] = defaultdict(list)
        self.also: dict[int, list[int]] = defaultdict(list)
        self.bound: set[int] = set()
        """Provisional subjects that one of these entries binds."""
        self.unread: list[int] = []
        """Rows that cannot be read, with leaves that are not known to be theirs."""

    def take(self, index: int, row: Row) -> None:
        """Take in a row that can be read."""
        first, *others = row.subjects
        if first not in self._tag_keys:
            for number in self._tag_keys.keys() & set(others):
                self.also[number].append(index)
            return
        self.indices[first].append(index)
        if row.kind == ROW_BINDING:
            self.bound.update(others)

    def take_rotten(self, index: int, tag: bytes) -> None:
        """Take in an entry whose row cannot be read, by the tag in its leaf."""
        for number, tag_key in self._tag_keys.items():
            if tag == tag_of(tag_key, len(self.indices[number]) + 1):
                self.indices[number].append(index)
                return
        self.unread.append(index)


def _scan(
    source: LogSource, tag_keys: Mapping[int, bytes], size: int, progress: Callable[[int], None]
) -> _Found:
    """Read all rows, some at a time, and return which of them are about these subjects."""
    found = _Found(tag_keys)
    for start in range(0, size, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, size)
        with source.open(size) as log:
            for index, data in _rows(log, start, stop):
                if (row := _sound(data)) is not None:
                    found.take(index, row)
                elif (tag := _tag_at(log, index)) is not None:
                    found.take_rotten(index, tag)
        progress(stop - start)
    return found


def _rows(log: Log, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yield (index, row); an empty one where the database has none, or not to be told from its neighbours."""
    while start < stop:
        try:
            for index, data in log.rows(start, stop):
                yield index, data
                start = index + 1
        except (FormatError, IntegrityError):
            yield start, b""
            start += 1


def _sound(data: bytes) -> Row | None:
    """Return a row taken apart; None if it is none, or its bytes changed."""
    try:
        check_row(data)
        return parse_row(data)
    except (FormatError, IntegrityError):
        return None


def _tag_at(log: Log, index: int) -> bytes | None:
    """Return the tag in the leaf of an entry, b"" if that cannot be read either, None for a control entry."""
    try:
        leaf = parse_leaf(log.leaf(index))
    except (FormatError, IntegrityError):
        return b""
    return None if leaf.kind == LEAF_CONTROL else leaf.tag
