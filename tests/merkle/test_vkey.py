"""Verifier keys of all kinds: each is read as what it is, and only where its kind is wanted."""

from __future__ import annotations

import pytest

from merkle import (
    ED25519,
    ED25519_COSIGNATURE,
    LOG_TYPES,
    ML_DSA_44,
    WITNESS_TYPES,
    CosignatureVerifier,
    Cosigner,
    Ed25519Signer,
    NoteError,
    decode_vkey,
)

LOG = Ed25519Signer("example.com/log", bytes(32)).verifier
WITNESS = Cosigner("witness.example/w", bytes(32)).verifier
EITHER = Cosigner("example.com/pq", bytes(32), ML_DSA_44).verifier


def test_the_types_are_those_of_the_specifications() -> None:
    """Plain Ed25519 is a log's, timestamped Ed25519 a witness's, and ML-DSA-44 may be either's."""
    assert (ED25519, ED25519_COSIGNATURE, ML_DSA_44) == (1, 4, 6)
    assert (LOG_TYPES, WITNESS_TYPES) == ((1, 6), (4, 6))


@pytest.mark.parametrize("verifier", [LOG, WITNESS, EITHER])
def test_a_key_of_any_kind_is_read_as_what_it_is(verifier: CosignatureVerifier) -> None:
    """A vkey says by itself which kind of key it is, and gives the same key back."""
    assert decode_vkey(verifier.encode()) == verifier
    assert type(decode_vkey(verifier.encode())) is type(verifier)


def test_a_key_of_another_kind_than_is_wanted_is_refused_with_both() -> None:
    """A witness's key where a log's is wanted, or the reverse, is a mix-up, and told as one."""
    assert decode_vkey(EITHER.encode(), LOG_TYPES) == decode_vkey(EITHER.encode(), WITNESS_TYPES) == EITHER
    with pytest.raises(NoteError, match=r"'witness\.example/w' is of type 04; here it must be of 01, 06$"):
        decode_vkey(WITNESS.encode(), LOG_TYPES)
    with pytest.raises(NoteError, match=r"'example\.com/log' is of type 01; here it must be of 04, 06$"):
        decode_vkey(LOG.encode(), WITNESS_TYPES)
    with pytest.raises(NoteError, match="not a verifier key"):
        decode_vkey("example.com/log")
