"""Verifier keys of any kind that we know: a vkey names its own type.

    example.com/log+4d1c8a7b+AYk...        01  a log's Ed25519 key            Ed25519Verifier
    witness.example/w1+9e07b2c1+BOv...     04  a witness's Ed25519 key        CosignatureVerifier
    witness.example/w2+5893dc2c+BtM...     06  an ML-DSA-44 key of either     CosignatureVerifier

>>> from merkle.note import Ed25519Signer
>>> decode_vkey(Ed25519Signer("example.com/log", bytes(32)).verifier.encode()).name
'example.com/log'

How each verifies stands with the key: `merkle.note`, `merkle.cosignature`.
"""

from __future__ import annotations

from merkle.cosignature import ED25519_COSIGNATURE, ML_DSA_44, CosignatureVerifier
from merkle.errors import NoteError
from merkle.note import ED25519, Ed25519Verifier, split_vkey

AnyVerifier = Ed25519Verifier | CosignatureVerifier

LOG_TYPES = (ED25519, ML_DSA_44)
"""What a log may sign its checkpoints with."""
WITNESS_TYPES = (ED25519_COSIGNATURE, ML_DSA_44)
"""What a witness may cosign with."""


def decode_vkey(vkey: str, types: tuple[int, ...] = (*LOG_TYPES, ED25519_COSIGNATURE)) -> AnyVerifier:
    """Return the key that a vkey spells; NoteError if it is malformed or not of one of `types`."""
    name, signature_type, public_key = split_vkey(vkey)
    if signature_type not in types:
        wanted = ", ".join(f"{one:02x}" for one in types)
        raise NoteError(f"the key of {name!r} is of type {signature_type:02x}; here it must be of {wanted}")
    if signature_type == ED25519:
        return Ed25519Verifier(name, public_key)
    return CosignatureVerifier(name, public_key, signature_type)
