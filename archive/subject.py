"""One subject's entries, and how somebody else finds out that none was left out.

Every private leaf holds a tag: a hash of the subject's tag key and of the entry's number among the subject's entries.
Without the key, tags are noise.  With it anybody can compute tags 1, 2, 3, … and look for them in a public copy of the
log: if 1…n are there, each once, and n+1 is nowhere, then n entries are all there are, whatever we say.

    entries_of_subject(log, vault, "student:ann")     whose entries are where (with the vault)
    check_complete(claims, size, leaves)              is that all? (with the leaves and the tag keys only)

What was sent before a connection said who it is stands under provisional subjects of their own (ADR 0007), each with
a tag key and numbers of its own; it belongs to the person, so it is listed and checked along with her own entries.

A count that jumps would hide entries behind the gap: so not only tag n+1 is looked for, but the next thousand.

>>> leaf = bytes((1, 1)) + bytes(8) + tag_of(bytes(32), 1) + bytes(32)
>>> list(check_complete([Claim("student:ann", bytes(32), (0,))], 1, [leaf]))
[]
>>> [finding.detail for finding in check_complete([Claim("student:ann", bytes(32), ())], 1, [leaf])]
['student:ann has an entry number 1 here, beyond the 0 listed: it was left out']

The list as files is docs/formats/receipt.md; the commands are `tools.export` and `tools.receipt`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from archive.entry import LEAF_PRIVATE, ROW_BINDING, parse_leaf, parse_row, tag_of
from archive.errors import NotFound
from archive.findings import Finding
from archive.log import LogSource
from archive.vault import Vault

BEYOND: Final = 1_000
"""How many tags after the last one must be nowhere."""
ROWS_AT_ONCE: Final = 4_096


class SubjectEntries(NamedTuple):
    """Where the entries of one subject are; their sequence numbers are 1, 2, … in this order."""

    name: str
    tag_key: bytes
    indices: tuple[int, ...]


Claim = SubjectEntries
"""The same, as somebody else says it."""


def entries_of_subject(
    source: LogSource,
    vault: Vault,
    name: str,
    size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[SubjectEntries]:
    """Return the entries of a subject (kind:label) among the first `size`, and those of its provisional subjects.

    The subject itself comes first.  Raises NotFound if the vault knows nobody of that name.
    """
    person = vault.find(name)
    if person is None:
        raise NotFound(f"there is no subject {name!r}; names are kind:label, such as student:ann")
    own = _primary(source, {person.number}, size, progress)
    found = [SubjectEntries(name, person.tag_key, tuple(own.indices[person.number]))]
    if own.bound:
        others = _primary(source, own.bound, size, progress).indices
        for number in sorted(own.bound):
            try:
                keys = vault.keys(number)
            except NotFound:
                continue  # its secret is destroyed: nobody can tell its entries any more
            found.append(SubjectEntries(keys.name, keys.tag_key, tuple(others[number])))
    return found


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


class _Primary(NamedTuple):
    indices: dict[int, list[int]]
    bound: set[int]
    """Provisional subjects that one of these entries binds."""


def _primary(source: LogSource, subjects: set[int], size: int, progress: Callable[[int], None]) -> _Primary:
    """Read all rows, some at a time, and return where these subjects are the primary ones."""
    found = _Primary(defaultdict(list), set())
    for start in range(0, size, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, size)
        with source.open(size) as log:
            for index, data in log.rows(start, stop):
                row = parse_row(data) if data else None
                if row is not None and row.subjects[0] in subjects:
                    found.indices[row.subjects[0]].append(index)
                    if row.kind == ROW_BINDING:
                        found.bound.update(row.subjects[1:])
        progress(stop - start)
    return found
