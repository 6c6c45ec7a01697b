"""From submissions to drafts: headers encoded, routes and numbers looked up, ready to be sealed.

A class of students sends the same few key fields again and again, so what entries of one kind, subject and keys have
in common is worked out once and remembered, up to a bound.  Nothing here reads a disk or decides whether an event is
new; that is `archive.archiver`.

>>> from archive.datakey import DataKey
>>> keys = SubjectKeys(7, "student:ann", bytes(32), DataKey(bytes(32)))
>>> one = Submission(ROW_EVENT, "student:ann", b"{}", 5, "", "", "json", {"student": "ann"})
>>> draft = Drafter(bytes(32)).draft(one, NO_ID, keys, 1)
>>> draft.subject, draft.sequence, draft.head.hex()[:24]
(7, 1, '010101010000000000000007')
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from archive.datakey import DataKey
from archive.entry import (
    NO_ID,
    PROVISIONAL,
    ROUTE_SIZE,
    ROUTES_MAX,
    ROW_BINDING,
    ROW_EVENT,
    SUBJECTS_MAX,
    Draft,
    all_keys,
    encode_header,
    field_code,
    other_keys,
    routing_hash,
    row_prefix,
)
from archive.filing import OWN, told
from archive.kernel import kernel
from archive.twin import Shared
from archive.vault import SubjectKeys
from archive.wire import PAYLOAD_SIZE_MAX, Submission

SHARED_BYTES_MAX = 32 << 20
SHARED_COST = 600
"""Roughly what remembering the shared parts of one key takes beside its text, bytes: tuple, dict, objects."""
FIELD_LENGTH_MAX: Final = 64
UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What is raised where a header cannot be written."""


def shared_of(one: Submission, number: int, route_key: bytes) -> Shared:
    """Return what entries have in common with this one that are about the same subject, kind and keys."""
    fields = all_keys(one.subject, one.keys)
    if any(len(name) > FIELD_LENGTH_MAX for name in fields):
        raise ValueError(f"the name of a key field is longer than {FIELD_LENGTH_MAX} characters")
    routes = [field_code(name) + routing_hash(route_key, name, fields[name]) for name in sorted(fields)]
    kind = one.kind | PROVISIONAL if one.subject.startswith("provisional:") else one.kind
    prefix = row_prefix(kind, (number,), len(routes))
    cost = SHARED_COST + 4 * sum(len(name) + len(value) for name, value in fields.items())
    return Shared(encode_header(other_keys(one.subject, one.keys)), prefix, b"".join(routes), cost)


class Drafter:
    """Makes drafts; `route_key` is the site's."""

    def __init__(self, route_key: bytes) -> None:
        self._route_key = route_key
        self._shared: dict[bytes, Shared] = {}
        self._bytes = 0

    def draft_many(
        self,
        submissions: Sequence[Submission],
        identifiers: Sequence[bytes],
        keys: Sequence[SubjectKeys],
        sequences: Sequence[int],
    ) -> list[Draft]:
        """Return the draft of each entry, about one subject, of which it is the `sequence`-th (from 1).

        Raises TypeError, ValueError, OverflowError or RecursionError where a header cannot be written.
        """
        submissions = [one if one.kind == ROW_EVENT and not one.also else told(one) for one in submissions]
        return kernel.draft_many(submissions, identifiers, keys, sequences, self._shared, self._learn)

    def draft(self, one: Submission, identifier: bytes, keys: SubjectKeys, sequence: int) -> Draft:
        """Return the draft of one entry, else as `draft_many`."""
        (made,) = self.draft_many((one,), (identifier,), (keys,), (sequence,))
        return made

    def draft_of_several(
        self,
        one: Submission,
        identifier: bytes,
        keys: SubjectKeys,
        sequence: int,
        numbers: Sequence[int],
        data_key: DataKey,
    ) -> Draft:
        """Return the draft of an entry about these subjects, under the key that all of them give; else as `draft`.

        `keys` and `sequence` are those of the first, `numbers[0]`.
        """
        alone = self.draft(one, identifier, keys, sequence)
        routes = alone.head[12 + len(NO_ID) :]
        prefix = row_prefix(alone.head[1], numbers, len(routes) // ROUTE_SIZE)
        head, tag_key = prefix + identifier + routes, alone.tag_key
        return Draft(keys.number, identifier, head, tag_key, data_key, sequence, alone.header, one.payload)

    def _learn(self, name: bytes | None, one: Submission, number: int) -> Shared:
        found = shared_of(one, number, self._route_key)
        if name is not None:
            self._bytes += found.cost
            if self._bytes > SHARED_BYTES_MAX:
                self._shared.clear()
                self._bytes = found.cost
            self._shared[name] = found
        return found


def are_plain(submissions: Sequence[Submission]) -> bool:
    """Return whether each is about one subject, and may be kept: `fault_of` says nothing of it."""
    return all(
        not one.also
        and len(one.keys) < ROUTES_MAX
        and ROW_EVENT <= one.kind <= ROW_BINDING
        and len(one.payload) <= PAYLOAD_SIZE_MAX
        and (not one.extra or OWN.isdisjoint(one.extra))
        for one in submissions
    )


def fault_of(one: Submission) -> str:
    """Say why nobody could read this back once it is written, or nothing."""
    if are_plain((one,)):
        return ""
    if len(one.payload) > PAYLOAD_SIZE_MAX:
        return f"event of {len(one.payload)} bytes; at most {PAYLOAD_SIZE_MAX}"
    if not ROW_EVENT <= one.kind <= ROW_BINDING:
        return f"event of kind {one.kind}; there is none"
    if own := OWN & one.extra.keys():
        return f"event whose extra says {', '.join(sorted(own))}; that is the archiver's to say"
    fields = len(all_keys(one.subject, one.keys))
    if len(one.also) >= SUBJECTS_MAX or fields > ROUTES_MAX:
        numbers = f"{1 + len(one.also)} subjects and {fields} keys"
        return f"event with {numbers}; at most {SUBJECTS_MAX} and {ROUTES_MAX}"
    return ""


def are_distinct(hashes: Sequence[bytes]) -> bool:
    """Return whether no id hash is there twice, but for NO_ID."""
    return len(set(hashes)) + max(0, hashes.count(NO_ID) - 1) == len(hashes)


def id_hashes(id_key: bytes, ids: Iterable[tuple[str, str | None]]) -> list[bytes]:
    """Return `archive.entry.id_hash` of each (producer, id), NO_ID where there is no id.

    The key is taken in once for all of them.
    """
    keyed, hashes = blake2b(digest_size=16, key=id_key), []
    for producer, identifier in ids:
        if identifier is None:
            hashes.append(NO_ID)
            continue
        one = keyed.copy()
        one.update(f"{producer}\0{identifier}".encode())
        hashes.append(one.digest())
    return hashes
