"""An entry: a public leaf that commits, and a private row that can be read and destroyed.

The leaf says nothing about anybody: a tag that only the holder of a subject's tag key can recognise, and a
salted commitment.  The row holds what was committed, encrypted under the subject's data key.  Destroy the
key and the row is noise, while the leaf, and every proof that stands on it, stays as it was.

    opening    = salt ‖ header length ‖ header ‖ payload
    leaf       = version kind time tag commitment(opening)          58 bytes, public
    row        = head nonce AES-GCM(opening) crc                    private

AES-GCM alone binds nobody to one plaintext; the commitment does.  Byte layouts, with their reasons, stand
in docs/formats/entry.md.  Which entries a commit appends is decided in `archive.plan`; how leaves and rows lie
together in the database, in `archive.bundles`.

>>> header = encode_header(Header("student:ann", 1, 7_000_000, "", "anonymous", "json", {"student": "ann"}, {}))
>>> key, salt, nonce = DataKey(bytes(32)), bytes(32), bytes(12)
>>> sealed = seal_entry(7, ROW_EVENT, (0,), NO_ID, b"", bytes(32), key, 1, header, b"{}", salt, nonce)
>>> opened = open_entry(sealed.leaf, parse_row(sealed.row), key)
>>> len(sealed.leaf), opened.header.subject, opened.payload
(58, 'student:ann', b'{}')
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec
from cryptography.exceptions import InvalidTag

from archive.datakey import DataKey
from archive.errors import FormatError, IntegrityError

VERSION: Final = 1
LEAF_PRIVATE: Final = 1
LEAF_CONTROL: Final = 2
LEAF_PRIVATE_SIZE: Final = 58
LEAF_SIZE_MAX: Final = 65_535

ROW_EVENT: Final = 1
ROW_FRAME: Final = 2
ROW_REFUSED: Final = 3
ROW_BINDING: Final = 4
PROVISIONAL: Final = 0x80

SALT_SIZE: Final = 32
NONCE_SIZE: Final = 12
RANDOM_SIZE: Final = SALT_SIZE + NONCE_SIZE
NO_ID: Final = bytes(16)
NO_KEY_KINDS: Final = frozenset({"source", "provisional", "refused"})
"""Kinds of subject whose label is not the value of a key field."""
ROUTE_SIZE: Final = 10
SUBJECTS_MAX: Final = 16
ROUTES_MAX: Final = 32
HEAD_SIZE_MAX: Final = 4 + 8 * SUBJECTS_MAX + 16 + ROUTE_SIZE * ROUTES_MAX

_TAG_DOMAIN: Final = b"treering/tag/v1\0"
_COMMITMENT_DOMAIN: Final = b"treering/commitment/v1\0"


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What is known of an entry beside its payload; private, and part of what the leaf commits to."""

    subject: str
    sequence: int
    received_us: int
    source: str
    sender: str
    form: str
    keys: dict[str, str]
    extra: dict[str, Any]


_header_encoder = msgspec.msgpack.Encoder(order="deterministic")
_header_decoder = msgspec.msgpack.Decoder(Header)
encode_header: Callable[[Header | tuple[Any, ...] | dict[str, str]], bytes] = _header_encoder.encode
"""Encode a header, or a tuple of its fields in order, which is the same bytes sooner, or one field of it."""


def keys_of(header: Header) -> dict[str, str]:
    """Return all key fields of an entry: the header's, and the one that its subject stands for.

    >>> keys_of(Header("student:ann", 1, 0, "", "", "json", {"doc_id": "d"}, {}))
    {'doc_id': 'd', 'student': 'ann'}
    """
    return all_keys(header.subject, header.keys)


def all_keys(subject: str, keys: dict[str, str]) -> dict[str, str]:
    """Return `keys` and the one that a subject (kind:label) stands for; the reverse of `other_keys`."""
    kind, _, label = subject.partition(":")
    return keys if kind in NO_KEY_KINDS else {**keys, kind: label}


def other_keys(subject: str, keys: dict[str, str]) -> dict[str, str]:
    """Return the key fields that a header must hold beside its subject."""
    kind = subject.partition(":")[0]
    if kind in NO_KEY_KINDS:  # a sender may call a field of his "source": it says nothing about the subject
        return keys
    return {field: value for field, value in keys.items() if field != kind}


def decode_header(data: bytes) -> Header:
    """Return the header in `data`; raise FormatError if it is none."""
    try:
        return _header_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"entry header: {error}") from None


class Leaf(NamedTuple):
    """A leaf taken apart; `body` is the control body, empty for a private entry."""

    kind: int
    time_s: int
    tag: bytes
    commitment: bytes
    body: bytes


def encode_control(time_s: int, body: dict[str, Any]) -> bytes:
    """Return the leaf of a control entry; raise FormatError if it is longer than 65,535 bytes."""
    text = json.dumps(
        body, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()
    leaf = bytes((VERSION, LEAF_CONTROL)) + time_s.to_bytes(8) + text
    if len(leaf) > LEAF_SIZE_MAX:
        raise FormatError(f"control entry of {len(leaf)} bytes; at most {LEAF_SIZE_MAX}")
    return leaf


def parse_leaf(leaf: bytes) -> Leaf:
    """Take a leaf apart; raise FormatError if it is none.  The body of a control entry is read by `control_body`."""
    if len(leaf) < 10 or leaf[0] != VERSION:
        raise FormatError(f"leaf of {len(leaf)} bytes is not of version {VERSION}")
    kind, time_s = leaf[1], int.from_bytes(leaf[2:10])
    if kind == LEAF_PRIVATE and len(leaf) == LEAF_PRIVATE_SIZE:
        return Leaf(kind, time_s, leaf[10:26], leaf[26:58], b"")
    if kind == LEAF_CONTROL and len(leaf) <= LEAF_SIZE_MAX:
        return Leaf(kind, time_s, b"", b"", leaf[10:])
    raise FormatError(f"leaf of kind {kind} and {len(leaf)} bytes is of no known form")


def control_body(leaf: Leaf) -> dict[str, Any]:
    """Return the body of a control entry; raise FormatError if it is not canonical JSON of an object."""
    try:
        body = json.loads(leaf.body)
        canonical = isinstance(body, dict) and encode_control(leaf.time_s, body)[10:] == leaf.body
    except (ValueError, RecursionError):  # also what is read but not written: NaN, half of a surrogate pair
        raise FormatError("control entry: body is not JSON") from None
    if not canonical:
        raise FormatError("control entry: body is not canonical JSON of an object")
    parsed: dict[str, Any] = body
    return parsed


def tag_of(tag_key: bytes, sequence: int) -> bytes:
    """Return the 16-byte tag of a subject's entry number `sequence` (from 1)."""
    return sha256(_TAG_DOMAIN + tag_key + sequence.to_bytes(8)).digest()[:16]


def commitment_of(opening: bytes) -> bytes:
    """Return the 32-byte commitment to an opening (salt ‖ header length ‖ header ‖ payload)."""
    return sha256(_COMMITMENT_DOMAIN + opening).digest()


def field_code(field: str) -> bytes:
    """Return the 2-byte code of a key field; equal codes mean perhaps the same field."""
    return sha256(field.encode()).digest()[:2]


def routing_hash(route_key: bytes, field: str, value: str) -> bytes:
    """Return the keyed 8-byte hash by which entries of one key find their shard."""
    return blake2b(f"{field}\0{value}".encode(), digest_size=8, key=route_key).digest()


def id_hash(id_key: bytes, producer: str, identifier: str) -> bytes:
    """Return the keyed 16-byte hash of an event's id under its producer."""
    return blake2b(f"{producer}\0{identifier}".encode(), digest_size=16, key=id_key).digest()


class Sealed(NamedTuple):
    """The two parts of a new entry."""

    leaf: bytes
    row: bytes


def seal_entry(
    time_s: int,
    kind: int,
    subjects: Sequence[int],
    identifier: bytes,
    routes: bytes,
    tag_key: bytes,
    data_key: DataKey,
    sequence: int,
    header: bytes,
    payload: bytes,
    salt: bytes,
    nonce: bytes,
) -> Sealed:
    """Return leaf and row of an entry.  Pure: `salt` (32) and `nonce` (12) are fresh random bytes.

    `kind` is a ROW_ constant, with PROVISIONAL or not; `identifier` the 16-byte id hash or NO_ID;
    `routes` the joined (field code ‖ routing hash); `header` is `encode_header`'s.  docs/formats/entry.md.
    """
    head = row_prefix(kind, subjects, len(routes) // ROUTE_SIZE) + identifier + routes
    begin = leaf_prefix(time_s)
    return Sealed(*seal(begin, head, tag_key, data_key, sequence, header, payload, salt, nonce))


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A private entry to be: the arguments of `seal`, and what the caches will know of it."""

    subject: int
    """Number of the primary subject."""
    identifier: bytes
    head: bytes
    """All of the row before the nonce."""
    tag_key: bytes
    data_key: DataKey
    sequence: int
    header: bytes
    payload: bytes


def leaf_prefix(time_s: int) -> bytes:
    """Return the 10 bytes with which the leaf of every private entry of that second begins."""
    return bytes((VERSION, LEAF_PRIVATE)) + time_s.to_bytes(8)


def row_prefix(kind: int, subjects: Sequence[int], routes: int) -> bytes:
    """Return what stands before the id hash in a row with so many routes."""
    numbers = b"".join([number.to_bytes(8) for number in subjects])
    return bytes((VERSION, kind, len(subjects), routes)) + numbers


def seal(
    begin: bytes,
    head: bytes,
    tag_key: bytes,
    data_key: DataKey,
    sequence: int,
    header: bytes,
    payload: bytes,
    salt: bytes,
    nonce: bytes,
) -> tuple[bytes, bytes]:
    """Return (leaf, row) as `seal_entry` does, from parts that many entries share.

    `begin` is the leaf's prefix, `head` all of the row before the nonce.  This is the hot path of every commit.
    """
    opening = salt + len(header).to_bytes(4) + header + payload
    tag = sha256(_TAG_DOMAIN + tag_key + sequence.to_bytes(8)).digest()[:16]
    row = head + nonce + data_key.encrypt(nonce, opening, head)
    return (
        begin + tag + sha256(_COMMITMENT_DOMAIN + opening).digest(),
        row + crc32(row).to_bytes(4),
    )


class Row(msgspec.Struct, frozen=True, gc=False):
    """A private row taken apart; the ciphertext is still closed."""

    kind: int
    provisional: bool
    subjects: tuple[int, ...]
    identifier: bytes
    routes: bytes
    data: bytes
    """All of its bytes."""

    @property
    def head_size(self) -> int:
        """How many bytes stand before the nonce."""
        return 20 + 8 * len(self.subjects) + len(self.routes)

    @property
    def head(self) -> bytes:
        """All that stands before the nonce: what is authenticated with the ciphertext."""
        return self.data[: self.head_size]

    @property
    def nonce(self) -> bytes:
        """The nonce, 12 bytes."""
        return self.data[self.head_size : self.head_size + NONCE_SIZE]

    @property
    def ciphertext(self) -> bytes:
        """The opening, encrypted, with its 16-byte tag."""
        return self.data[self.head_size + NONCE_SIZE : -4]

    def route(self, code: bytes) -> bytes | None:
        """Return the routing hash of the field with this code, or None."""
        routes = self.routes
        for at in range(0, len(routes), ROUTE_SIZE):
            if routes[at : at + 2] == code:
                return routes[at + 2 : at + ROUTE_SIZE]
        return None


def check_row(row: bytes) -> None:
    """Raise IntegrityError if the row's bytes changed since they were written (bit rot)."""
    if crc32(row[:-4]) != int.from_bytes(row[-4:]):
        raise IntegrityError("private row: checksum differs, its bytes changed on disk")


def parse_row(row: bytes) -> Row:
    """Take a row apart without a key; raise FormatError if it is none.  The checksum is `check_row`'s."""
    if len(row) < 4 or row[0] != VERSION:
        raise FormatError(f"private row of {len(row)} bytes is not of version {VERSION}")
    kind, count, routed = row[1], row[2], row[3]
    subjects_end = 4 + 8 * count
    routes_at = subjects_end + 16
    head_end = routes_at + ROUTE_SIZE * routed
    cipher_at = head_end + NONCE_SIZE
    counted = 1 <= count <= SUBJECTS_MAX and routed <= ROUTES_MAX
    known = ROW_EVENT <= kind & ~PROVISIONAL <= ROW_BINDING
    if not known or not counted or len(row) < cipher_at + SALT_SIZE + 4 + 16 + 4:
        raise FormatError(f"private row of {len(row)} bytes and kind {kind} is of no known form")
    if count == 1:
        subjects: tuple[int, ...] = (int.from_bytes(row[4:12]),)
    else:
        subjects = tuple([int.from_bytes(row[at : at + 8]) for at in range(4, subjects_end, 8)])
    return Row(
        kind & ~PROVISIONAL,
        bool(kind & PROVISIONAL),
        subjects,
        row[subjects_end:routes_at],
        row[routes_at:head_end],
        row,
    )


class Opened(msgspec.Struct, frozen=True, gc=False):
    """What an entry committed to."""

    salt: bytes
    header: Header
    payload: bytes


def open_row(row: Row, data_key: DataKey) -> bytes:
    """Return the opening in a row; raise IntegrityError if it was altered or the key is not its own."""
    data, nonce_at = row.data, row.head_size
    cipher_at = nonce_at + NONCE_SIZE
    try:
        return data_key.decrypt(data[nonce_at:cipher_at], data[cipher_at:-4], data[:nonce_at])
    except InvalidTag:
        raise IntegrityError("private row: it was altered, or is not under this key") from None


def parse_opening(opening: bytes) -> Opened:
    """Take an opening apart; raise FormatError if it is none."""
    header_end = SALT_SIZE + 4 + int.from_bytes(opening[SALT_SIZE : SALT_SIZE + 4])
    if len(opening) < header_end:
        raise FormatError(f"opening of {len(opening)} bytes ends before its header does")
    header = decode_header(opening[SALT_SIZE + 4 : header_end])
    return Opened(opening[:SALT_SIZE], header, opening[header_end:])


def open_entry(leaf: bytes, row: Row, data_key: DataKey) -> Opened:
    """Decrypt a row and check it against its leaf; raise IntegrityError if they disagree."""
    opening = open_row(row, data_key)
    if commitment_of(opening) != parse_leaf(leaf).commitment:
        raise IntegrityError("entry: the private row is not what the leaf commits to")
    return parse_opening(opening)
