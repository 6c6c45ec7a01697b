"""A second implementation: docs/formats/entry.md, block.md and vault.md, transcribed line by line.

It is slow, plain, and shares no code with `archive` or `merkle`: a mistake would have to be made twice.  Only
standard hashes and the AES-GCM of `cryptography` are taken for granted.

>>> tree_root([]).hex()[:8], msgpack([1, "a"]).hex()
('e3b0c442', '9201a161')
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def sha256(data: bytes) -> bytes:
    """Return SHA-256."""
    return hashlib.sha256(data).digest()


def u16(number: int) -> bytes:
    """Return 2 bytes, big-endian."""
    return struct.pack(">H", number)


def u32(number: int) -> bytes:
    """Return 4 bytes, big-endian."""
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    """Return 8 bytes, big-endian."""
    return struct.pack(">Q", number)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash of RFC 6962, 2.1, by its recursive definition."""
    if len(leaves) <= 1:
        return sha256(b"\x00" + leaves[0]) if leaves else sha256(b"")
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:]))


def hkdf_expand(secret: bytes, info: str) -> bytes:
    """Return the first block of HKDF-Expand (RFC 5869, 2.3): T(1) = HMAC(PRK, info ‖ 01)."""
    return hmac.new(secret, info.encode() + b"\x01", hashlib.sha256).digest()


def tag_key(secret: bytes) -> bytes:
    """Return the key of a subject's tags."""
    return hkdf_expand(secret, "treering/tag/v1")


def data_key(secrets: Sequence[bytes]) -> bytes:
    """Return the key of rows about these subjects."""
    if len(secrets) == 1:
        return hkdf_expand(secrets[0], "treering/data/v1")
    return hkdf_expand(sha256(b"".join(secrets)), "treering/data/v1/combined")


def tag(key: bytes, sequence: int) -> bytes:
    """Return the tag of a subject's entry."""
    return sha256(b"treering/tag/v1" + b"\x00" + key + u64(sequence))[:16]


def commitment(opening: bytes) -> bytes:
    """Return the commitment to an opening."""
    return sha256(b"treering/commitment/v1" + b"\x00" + opening)


def keyed(size: int, key: bytes, data: bytes) -> bytes:
    """Return keyed BLAKE2b of `size` bytes."""
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


def id_hash(key: bytes, producer: str, identifier: str) -> bytes:
    """Return the hash of an event's id under its producer."""
    return keyed(16, key, producer.encode() + b"\x00" + identifier.encode())


def route(key: bytes, field: str, value: str) -> bytes:
    """Return a route: field code ‖ routing hash."""
    return sha256(field.encode())[:2] + keyed(8, key, field.encode() + b"\x00" + value.encode())


def opening(salt: bytes, header: bytes, payload: bytes) -> bytes:
    """Return what an entry commits to."""
    return salt + u32(len(header)) + header + payload


def private_leaf(time_s: int, tag: bytes, commitment: bytes) -> bytes:
    """Return the leaf of a private entry."""
    return b"\x01\x01" + u64(time_s) + tag + commitment


def control_leaf(time_s: int, body: dict[str, Any]) -> bytes:
    """Return the leaf of a control entry."""
    text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return b"\x01\x02" + u64(time_s) + text.encode()


def row(
    kind: int,
    subjects: Sequence[int],
    identifier: bytes,
    routes: Sequence[bytes],
    nonce: bytes,
    key: bytes,
    opening: bytes,
) -> bytes:
    """Return a private row."""
    head = bytes([1, kind, len(subjects), len(routes)])
    head += b"".join(u64(number) for number in subjects) + identifier + b"".join(routes)
    whole = head + nonce + AESGCM(key).encrypt(nonce, opening, head)
    return whole + u32(zlib.crc32(whole))


def block(number: int, first: int, count: int, previous: bytes, root: bytes) -> bytes:
    """Return a block."""
    return b"\x01" + u64(number) + u64(first) + u32(count) + previous + root


def block_hash(block: bytes) -> bytes:
    """Return the hash by which the next block names this one."""
    return sha256(b"treering/block/v1" + b"\x00" + block)


def seal_slot(turn: int, size: int, root: bytes, block: int) -> bytes:
    """Return one slot of the seal."""
    body = b"TRSEAL1\x00" + u64(turn) + u64(size) + root + u64(block)
    return body + sha256(body) + bytes(416)


def wrap(key: bytes, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
    """Return what the vault stores of a secret."""
    return nonce + AESGCM(key).encrypt(nonce, plain, aad)


def unwrap(key: bytes, wrapped: bytes, aad: bytes) -> bytes:
    """Return the secret in what the vault stores, or the opening in a row (nonce ‖ ciphertext)."""
    return AESGCM(key).decrypt(wrapped[:12], wrapped[12:], aad)


def subject_aad(number: int) -> bytes:
    """Return the associated data of a wrapped subject."""
    return b"treering/subject/v1" + b"\x00" + u64(number)


def msgpack(value: Any) -> bytes:
    """Return MessagePack, shortest encodings, maps sorted by key; no floats and no extensions."""
    match value:
        case None | bool():
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            return _number(value)
        case str():
            data = value.encode()
            if len(data) < 32:
                return bytes([0xA0 | len(data)]) + data
            return _sized(len(data), {1: 0xD9, 2: 0xDA, 4: 0xDB}) + data
        case bytes():
            return _sized(len(value), {1: 0xC4, 2: 0xC5, 4: 0xC6}) + value
        case list():
            lead = bytes([0x90 | len(value)]) if len(value) < 16 else _sized(len(value), {2: 0xDC, 4: 0xDD})
            return lead + b"".join(msgpack(one) for one in value)
        case dict():
            lead = bytes([0x80 | len(value)]) if len(value) < 16 else _sized(len(value), {2: 0xDE, 4: 0xDF})
            return lead + b"".join(msgpack(key) + msgpack(value[key]) for key in sorted(value))
    raise TypeError(type(value))


def _number(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    if -32 <= value < 0:
        return bytes([256 + value])
    if value > 0:
        return _sized(value, {1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF})
    for width, lead in {1: 0xD0, 2: 0xD1, 4: 0xD2, 8: 0xD3}.items():
        if value >= -(1 << (8 * width - 1)):
            return bytes([lead]) + value.to_bytes(width, "big", signed=True)
    raise OverflowError(value)


def _sized(number: int, leads: dict[int, int]) -> bytes:
    for width, lead in leads.items():
        if number < 1 << 8 * width:
            return bytes([lead]) + number.to_bytes(width, "big")
    raise OverflowError(number)
