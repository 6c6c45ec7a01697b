r"""Cosignatures: a witness says when it saw a log at its largest, and consistent (C2SP tlog-cosignature).

A log that shows one history to some and another to others is found out only if somebody compares.  A witness
does: it signs a checkpoint only after it has seen that it continues the one before, and says at what time.

    — witness.example/w1 base64( key id ‖ time in 8 bytes ‖ signature )

There are two kinds.  Both put the time into what they sign; they differ in the rest.

    04  Ed25519     "cosignature/v1", the time, the whole checkpoint
    06  ML-DSA-44   "subtree/v1", the cosigner's name, the time, origin, size and root: no extension lines

The second withstands quantum computers, at 2,420 bytes a signature.  Since it leaves extension lines out, a
checkpoint that has any is refused under such a key: nobody may take for signed what is not.

>>> from merkle.note import open_note, sign_note
>>> from merkle.hashing import EMPTY_ROOT
>>> cosigner = Cosigner("witness.example/w1", bytes(32))
>>> text = Checkpoint("example.com/log", 0, EMPTY_ROOT).encode()
>>> opened = open_note(sign_note(text, [cosigner.at(1_700_000_000)]), [cosigner.verifier])
>>> cosigned_at(opened.verified[0])
1700000000

What a witness checks before it signs is the business of `merkle.witness`; how many must have signed, of
`merkle.policy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from merkle.checkpoint import Checkpoint
from merkle.errors import FormatError, NoteError
from merkle.note import Signature, check_name, join_vkey, key_id, split_vkey

ED25519_COSIGNATURE = 0x04
"""Signature type of a timestamped Ed25519 cosignature."""
ML_DSA_44 = 0x06
"""Signature type of a timestamped ML-DSA-44 cosignature; logs sign their own checkpoints with it, too."""

TIME_LIMIT = 2**63
"""Times are below this (seconds since 1970)."""

_KEY_SIZES = {ED25519_COSIGNATURE: 32, ML_DSA_44: 1312}
_TIME_SIZE = 8
_SUBTREE = b"subtree/v1\n\0"


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """A cosigner's public key of 32 (Ed25519) or 1312 bytes (ML-DSA-44).  Raises NoteError for any other."""

    name: str
    public_key: bytes
    signature_type: int = ED25519_COSIGNATURE
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != _KEY_SIZES.get(self.signature_type):
            kind, size = self.signature_type, len(self.public_key)
            raise NoteError(f"{self.name}: {size} bytes are no cosigner's key of type {kind:02x}")
        object.__setattr__(self, "key_id", key_id(self.name, self.signature_type, self.public_key))

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Tell whether `signature` (time and signature proper) is this cosigner's over a checkpoint's text."""
        time_s = int.from_bytes(signature[:_TIME_SIZE])
        message = cosigned_message(self.signature_type, self.name, time_s, text)
        try:
            if message is None:
                return False
            if self.signature_type == ML_DSA_44:
                MLDSA44PublicKey.from_public_bytes(self.public_key).verify(signature[_TIME_SIZE:], message)
            else:
                Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature[_TIME_SIZE:], message)
        except (InvalidSignature, ValueError):  # ValueError: the bytes are no key
            return False
        except UnsupportedAlgorithm:
            raise NoteError(f"{self.name}: this installation of cryptography has no ML-DSA-44") from None
        return True

    def encode(self) -> str:
        """Return the key as a vkey."""
        return join_vkey(self.name, self.signature_type, self.public_key)

    @staticmethod
    def decode(vkey: str) -> CosignatureVerifier:
        """Return the key that a vkey spells; NoteError if malformed or of another type."""
        name, signature_type, public_key = split_vkey(vkey)
        if signature_type not in _KEY_SIZES:
            raise NoteError(f"not a cosigner's key: {vkey[:200]!r}; its type is {signature_type:02x}")
        return CosignatureVerifier(name, public_key, signature_type)


class Cosigner:
    """A cosigner's private key, made from 32 secret bytes; `at` gives it the time it signs with.

    Raises NoteError for a name that cannot be one, ValueError for another number of bytes or another type.
    """

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, seed: bytes, signature_type: int = ED25519_COSIGNATURE) -> None:
        self._key = _private_key(seed, signature_type)
        public = self._key.public_key().public_bytes_raw()
        self.verifier = CosignatureVerifier(name, public, signature_type)

    def __repr__(self) -> str:
        return f"Cosigner({self.verifier.name}, {self.verifier.key_id.hex()})"

    def at(self, time_s: int) -> CosignatureSigner:
        """Return the signer that says "seen at `time_s`" (seconds since 1970, from 1)."""
        return CosignatureSigner(self, time_s)

    def sign(self, message: bytes) -> bytes:
        """Return the signature proper over a `cosigned_message`.  ML-DSA's differs from call to call."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class CosignatureSigner:
    """A cosigner at one moment: what `sign_note` and `sign_checkpoint` take."""

    cosigner: Cosigner
    time_s: int

    @property
    def name(self) -> str:
        """The cosigner's name."""
        return self.cosigner.verifier.name

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        return self.cosigner.verifier.key_id

    def sign(self, text: bytes) -> bytes:
        """Return time and signature over a checkpoint's text; FormatError if it is none that can be cosigned."""
        signature_type = self.cosigner.verifier.signature_type
        message = cosigned_message(signature_type, self.name, self.time_s, text)
        if message is None or self.time_s < 1:
            raise FormatError(f"{self.name} cannot cosign this at {self.time_s}: {text[:100]!r}")
        return self.time_s.to_bytes(_TIME_SIZE) + self.cosigner.sign(message)


def cosigned_message(signature_type: int, name: str, time_s: int, text: bytes) -> bytes | None:
    """Return what a cosignature over a checkpoint signs, or None where there can be none.

    There is none at a time of 2**63 and later, over a text that is no checkpoint, and for ML-DSA-44 with a
    name or origin above 255 bytes or with extension lines, which it would not cover.
    """
    try:
        checkpoint = Checkpoint.decode(text.decode())
    except (FormatError, UnicodeDecodeError):
        return None
    if not 0 <= time_s < TIME_LIMIT:
        return None
    if signature_type == ED25519_COSIGNATURE:
        return b"cosignature/v1\ntime %d\n%b" % (time_s, text)
    names = [name.encode(), checkpoint.origin.encode()]
    if checkpoint.extensions or max(map(len, names)) > 255:
        return None
    return subtree_message(names[0], time_s, names[1], 0, checkpoint.size, checkpoint.root)


def subtree_message(name: bytes, time_s: int, origin: bytes, start: int, end: int, root: bytes) -> bytes:
    """Return the bytes that an ML-DSA-44 cosignature signs: entries `start` to `end` - 1 have this root."""
    cosigner = bytes([len(name)]) + name + time_s.to_bytes(8)
    log = bytes([len(origin)]) + origin + start.to_bytes(8) + end.to_bytes(8) + root
    return _SUBTREE + cosigner + log


def cosigned_at(signature: Signature) -> int:
    """Return the time that a *verified* cosignature states, in seconds since 1970; 0 if it states none."""
    return int.from_bytes(signature.signature[:_TIME_SIZE])


def _private_key(seed: bytes, signature_type: int) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    if signature_type == ED25519_COSIGNATURE:
        return Ed25519PrivateKey.from_private_bytes(seed)
    if signature_type == ML_DSA_44:
        return MLDSA44PrivateKey.from_seed_bytes(seed)
    raise ValueError(f"no cosignature is of type {signature_type:02x}")
