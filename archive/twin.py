"""The kernel in Python: what is done for every entry, for many at once, in the words of `archive.entry`.

This is the definition.  `archive.native` does the same with C, and must give the same bytes and the same errors for
any arguments; the tests hold the two against each other.  Which of them runs is chosen in `archive.kernel`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar
from zlib import crc32

from msgspec import Raw

from archive.bundles import unbundle as each_part
from archive.datakey import KEY_SIZE, DataKey
from archive.entry import (
    HEAD_SIZE_MAX,
    LEAF_PRIVATE_SIZE,
    NO_ID,
    NONCE_SIZE,
    RANDOM_SIZE,
    ROW_BINDING,
    ROW_EVENT,
    SALT_SIZE,
    Draft,
    Opened,
    Row,
    encode_header,
    open_row,
    parse_opening,
    parse_row,
    seal,
)
from archive.errors import FormatError
from archive.picking import Share, outline
from archive.vault import SubjectKeys
from archive.wire import Submission
from merkle import leaf_hash, pair_up

__all__ = [
    "Keys",
    "brackets",
    "bundle_hashes",
    "draft_many",
    "excess",
    "find_ids",
    "leaf_hashes",
    "open_rows",
    "pair_up",
    "parse_rows",
    "pick_rows",
    "plain_rows",
    "read_events",
    "seal_many",
    "unbundle",
]


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """Return the leaf hash of each entry (RFC 6962, 2.1)."""
    return [leaf_hash(entry) for entry in entries]


def unbundle(value: bytes, width: int) -> list[bytes]:
    """Return the parts of a bundle; raise FormatError where a length runs over the end."""
    return list(each_part(value, width))


def bundle_hashes(value: bytes) -> list[bytes]:
    """Return the leaf hash of each part of a bundle of leaves; raise FormatError as `unbundle` does."""
    rows, rest = divmod(len(value), _RECORD)
    if rest or value[::_RECORD] != bytes(rows) or value[1::_RECORD] != _LENGTH * rows:
        return [leaf_hash(leaf) for leaf in each_part(value, 2)]
    # Private leaves only: the low byte of each length becomes the 00 with which a leaf is hashed, no copy a leaf.
    data = bytearray(value)
    data[1::_RECORD] = bytes(rows)
    plain = bytes(data)
    return [sha256(plain[at : at + _RECORD - 1]).digest() for at in range(1, len(plain), _RECORD)]


def find_ids(prefixes: Any, identifiers: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return which of these id hashes may stand in a run, and where: (place among `identifiers`, place in the run).

    `prefixes` are the sorted numbers that the first 8 bytes of the run's hashes are, 64 bits each, in any buffer of
    them; a hash whose number stands there more than once is found at each.  Raises ValueError for what is no hash.
    """
    if any(len(one) != len(NO_ID) for one in identifiers):
        raise ValueError("id hashes have 16 bytes")
    words, found = memoryview(prefixes).cast("B").cast("Q"), []
    for which, one in enumerate(identifiers):
        wanted = int.from_bytes(one[:8])
        at = bisect_left(words, wanted)
        while at < len(words) and words[at] == wanted:
            found.append((which, at))
            at += 1
    return found


class Shared(NamedTuple):
    """What entries of one kind, subject and keys have in common, and need not work out again."""

    others: bytes
    """The key fields of the header, encoded."""
    prefix: bytes
    """What stands in the row before the id hash."""
    routes: bytes
    """And after it, up to the nonce."""
    cost: int
    """About how many bytes it takes to remember this."""


Learn = Callable[[bytes | None, Submission, int], Shared]


def draft_many(
    submissions: Sequence[Submission],
    identifiers: Sequence[bytes],
    keys: Sequence[SubjectKeys],
    sequences: Sequence[int],
    remembered: dict[bytes, Shared],
    learn: Learn,
) -> list[Draft]:
    """Return the draft of each submission, which is about one subject: its id hash, its keys, its number there.

    What is `remembered` under a name (each kernel has its own) is used; else `learn(name, submission, number)` says
    it, without a name (None) where it is not worth remembering.  Raises TypeError, ValueError, OverflowError or
    RecursionError where a header cannot be written, and ValueError where lengths differ.
    """
    drafts = []
    for one, identifier, of, sequence in zip(submissions, identifiers, keys, sequences, strict=True):
        # One flat name: of a tuple of tuples of strings, a look-up would fetch each from main memory.
        number, name = of.number, encode_header((one.kind, of.number, one.keys))
        others, prefix, routes, _ = remembered.get(name) or learn(name, one, number)
        extra = one.extra if one.id is None else {**one.extra, "id": one.id}
        header = encode_header(
            (one.subject, sequence, one.received_us, one.source, one.sender, one.form, Raw(others), extra)
        )
        head = prefix + identifier + routes
        drafts.append(Draft(number, identifier, head, of.tag_key, of.data_key, sequence, header, one.payload))
    return drafts


_RECORD: Final = 2 + LEAF_PRIVATE_SIZE
_LENGTH: Final = bytes((LEAF_PRIVATE_SIZE,))


def seal_many(
    begin: bytes, drafts: Sequence[Draft], random: bytes
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return leaves, rows and leaf hashes of these drafts.

    `begin` is the leaves' prefix (10 bytes), `random` has 44 fresh bytes for each draft: salt and nonce.  Raises
    ValueError where lengths are wrong, OverflowError where a sequence number or an entry is too large.
    """
    if len(begin) != 10 or len(random) != RANDOM_SIZE * len(drafts):
        raise ValueError(f"{len(drafts)} drafts, a prefix of {len(begin)} and {len(random)} random bytes")
    leaves, rows, at = [], [], 0
    for one in drafts:
        salt, nonce = random[at : at + SALT_SIZE], random[at + SALT_SIZE : at + RANDOM_SIZE]
        key, tag_key = one.data_key, one.tag_key
        if len(one.head) > HEAD_SIZE_MAX or len(tag_key) != KEY_SIZE:
            raise ValueError(f"a draft with a head of {len(one.head)} and a tag key of {len(tag_key)} bytes")
        leaf, row = seal(begin, one.head, tag_key, key, one.sequence, one.header, one.payload, salt, nonce)
        leaves.append(leaf)
        rows.append(row)
        at += RANDOM_SIZE
    return leaves, rows, leaf_hashes(leaves)


_Answer = TypeVar("_Answer")


def parse_rows(rows: Iterable[bytes]) -> list[Row | None]:
    """Return each row taken apart, None for an empty one (a control entry's); raise FormatError as `parse_row`."""
    return [parse_row(row) if row else None for row in rows]


Picked = tuple[int, int, list[int], list[int], list[_Answer | None], dict[bytes, int]]
"""Index after the last row that was looked at; of those that were picked how many answers are None, their indices, the
bytes of the bundle at which they begin, and the answers; and of all plain events how many have which outline."""


def pick_rows(
    value: bytes, first: int, start: int, stop: int, share: Share, known: dict[bytes, _Answer]
) -> Picked[_Answer]:
    """Return the rows of a bundle that a reader wants, of those with start <= index < stop; `first` is the bundle's.

    Plain events are wanted as `known` says for their outline (`archive.picking`): not at all, if its answer is empty.
    Where it has none the answer is None: the reader must look for himself.  So it is for bindings, and for whatever is
    provisional.  Other rows nobody reads.  Raises FormatError for a row or a bundle that is none.
    """
    if share.shards < 1 or (share.wanted is not None and len(share.wanted) != 8):
        raise ValueError("a share of no shard, or of no routing hash")
    indices: list[int] = []
    places: list[int] = []
    answers: list[_Answer | None] = []
    tally: dict[bytes, int] = {}
    parts, index, end = each_part(value, 4), first, 0
    while index < stop and (part := next(parts, None)) is not None:
        place = end + 4
        end = place + len(part)
        if index >= start and part:
            row = parse_row(part)
            answer = None
            plain = row.kind == ROW_EVENT and not row.provisional
            if plain:
                own = outline(row.routes, share)
                answer, tally[own] = known.get(own), tally.get(own, 0) + 1
            if answer or (answer is None and (plain or row.provisional or row.kind == ROW_BINDING)):
                indices.append(index)
                places.append(place)
                answers.append(answer)
        index += 1
    return index, answers.count(None), indices, places, answers, tally


def plain_rows(value: bytes, at: int) -> tuple[int, int, list[bytes], list[int]]:
    """Return what the rows of a bundle say openly, from byte `at` on up to the first that is not plain.

    Plain is a row that is whole, of a known form, and whose checksum is right.  The answer is the byte after the last
    plain one, how many they are, and the id hashes of those that have one, with their places (0-based, from `at`).
    The loop is the hot path of a check: what is the same for many rows is looked up.
    """
    if not 0 <= at <= len(value):
        raise ValueError(f"byte {at} of a bundle of {len(value)}")
    number, shapes, end, count = int.from_bytes, _SHAPES, len(value), 0
    identifiers: list[bytes] = []
    places: list[int] = []
    while at < end:
        start = at + 4
        stop = start + number(value[at:start])
        shape = shapes.get(value[start : start + 4]) or _learned(value[start:stop])
        if stop > end or shape is None or stop - start < shape[0]:
            break
        body = value[start : stop - 4]
        if crc32(body) != number(value[stop - 4 : stop]):
            break
        identifier = body[shape[1] : shape[1] + 16]
        if identifier != NO_ID:
            identifiers.append(identifier)
            places.append(count)
        at, count = stop, count + 1
    return at, count, identifiers, places


def _learned(row: bytes) -> tuple[int, int] | None:
    """Return the shape of a row, known from now on, or None if it has none."""
    try:
        parsed = parse_row(row)
    except FormatError:
        return None
    _SHAPES[row[:4]] = parsed.head_size + _CLOSED_MIN, 4 + 8 * len(parsed.subjects)
    return _SHAPES[row[:4]]


_CLOSED_MIN: Final = NONCE_SIZE + SALT_SIZE + 4 + 16 + 4
"""Bytes after a row's head, at least: nonce, salt, header length, tag, checksum (docs/formats/entry.md)."""
_SHAPES: dict[bytes, tuple[int, int]] = {}
"""By the first four bytes of a row (version, kind, counts): its least length, and where its id hash stands."""


def open_rows(rows: Sequence[Row], keys: Sequence[DataKey]) -> list[Opened]:
    """Return what these rows committed to, each opened with its key.

    Raises IntegrityError as `open_row` and FormatError as `parse_opening`, for the first row that is not sound.
    """
    if len(rows) != len(keys):
        raise ValueError(f"{len(rows)} rows and {len(keys)} keys")
    return [parse_opening(open_row(row, key)) for row, key in zip(rows, keys, strict=True)]


class Keys:
    """Data keys of at most `size` subjects, by number, where `read_events` finds those of rows about one subject.

    `put` remembers one, `unknown` says which are wanting for the rows at these places, `clear` forgets all.  What is
    asked for seldom is forgotten when there are too many.  This kernel needs none, and keeps none.
    """

    def __init__(self, size: int) -> None:
        del size

    def put(self, number: int, key: bytes) -> None:
        """Remember the data key of a subject; raise ValueError if it has not 32 bytes, OverflowError for no number."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"a data key has {KEY_SIZE} bytes, not {len(key)}")
        number.to_bytes(8)

    def unknown(self, bundles: Sequence[bytes], places: list[int]) -> list[int]:
        """Return the subjects of these rows whose keys are wanted and not known."""
        if len(bundles) != len(places):
            raise ValueError(f"{len(bundles)} bundles and {len(places)} places")
        return []

    def clear(self) -> None:
        """Forget all."""

    def __len__(self) -> int:
        """Return how many keys are remembered, or a few more."""
        return 0


_Event = TypeVar("_Event")
How = tuple[type[_Event], Callable[[bytes], Any], Callable[[Any, int], int], int]
"""How events are read: their class, what decodes JSON, what finds a client's time, how deep JSON may be nested."""


def read_events(
    indices: list[int],
    bundles: Sequence[bytes],
    places: list[int],
    keys: Keys,
    special: bytes,
    how: How[_Event],
) -> tuple[list[_Event | None], list[int]]:
    """Return for each row, at its place in its bundle, its event, or None; and where (from 0) the latter are.

    None says only: read it as `archive.reading` does, one by one.

    A kernel answers for those that are usual: about one subject whose key is among `keys`, from no sender whose name
    begins with `special`, and with nothing in the header that changes what the payload means.  This one leaves all of
    them to the reader.
    """
    del keys, special, how
    if not len(bundles) == len(indices) == len(places):
        raise ValueError(f"{len(bundles)} rows, {len(indices)} indices and {len(places)} places")
    return [None] * len(bundles), list(range(len(bundles)))


def brackets(payload: bytes) -> int:
    """Return how many `[` and `{` there are: JSON cannot be nested deeper than that."""
    return payload.count(b"[") + payload.count(b"{")


_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def excess(payload: bytes, values_max: int, depth_max: int) -> int:
    r"""Return 1 for JSON of more than `values_max` values beside the first, else 2 if it is too deep, or 0.

    A value more shows as a comma or as a bracket that opens.  Strings are passed over, one that does not end up to the
    end.

    >>> excess(b'[1, "a,,,,"]', 2, 1), excess(b"[1, 2, 3]", 2, 1), excess(b"[[]]", 2, 1)
    (0, 1, 2)
    """
    bare = _STRINGS.sub(b"", payload)
    if bare.count(b",") + brackets(bare) > values_max:
        return 1
    depth = 0
    for bracket in _BRACKETS.findall(bare):
        depth += 1 if bracket in b"[{" else -1
        if depth > depth_max:
            return 2
    return 0
