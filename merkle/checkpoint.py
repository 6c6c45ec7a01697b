r"""What a log commits to when it signs: its name, its size and its root (C2SP tlog-checkpoint).

    example.com/log                                   origin: which log
    8                                                 size: number of entries
    XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=      root, in base64

Two checkpoints of one origin must be consistent for ever: whoever holds the two that are not, with their
signatures, can show everybody that the log forked.  So the origin belongs to the signed text, and this module
never signs for an origin that the key is not named after.

>>> from merkle.note import Ed25519Signer
>>> from merkle.hashing import EMPTY_ROOT
>>> signer = Ed25519Signer("example.com/log", bytes(32))
>>> note = sign_checkpoint(Checkpoint("example.com/log", 0, EMPTY_ROOT), signer)
>>> open_checkpoint(note, signer.verifier).size
0

How signatures look is the business of `merkle.note`; when a log may sign, of `archive`.
"""

from __future__ import annotations

from dataclasses import dataclass

from merkle.errors import FormatError, SignatureError
from merkle.hashing import HASH_SIZE
from merkle.note import Signer, Verifier, open_note, sign_note
from merkle.text import MAX_SIZE, decode_base64, encode_base64, is_line, parse_decimal


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's name, its size and its root at that size.  Raises FormatError if no text can say them.

    `extensions` are further lines, which the specification advises against and nothing of ours depends upon:
    kept so that foreign checkpoints can be read and written again.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(map(is_line, (self.origin, *self.extensions))):
            raise FormatError("origin and extensions must be lines, not empty and without control characters")
        if not 0 <= self.size < MAX_SIZE:
            raise FormatError(f"{self.size} cannot be the size of a log")
        if len(self.root) != HASH_SIZE:
            raise FormatError(f"a root has {HASH_SIZE} bytes, not {len(self.root)}")

    def encode(self) -> str:
        """Return the text that is signed, final newline included."""
        return "\n".join([self.origin, str(self.size), encode_base64(self.root), *self.extensions, ""])

    @staticmethod
    def decode(text: str) -> Checkpoint:
        """Return what `encode` wrote; FormatError for any other text.  Verify the text before."""
        *lines, end = text.split("\n")
        if len(lines) < 3 or end:
            raise FormatError("a checkpoint is origin, size and root, with a newline each")
        origin, decimal, encoded, *extensions = lines
        size, root = parse_decimal(decimal, limit=MAX_SIZE), decode_base64(encoded)
        if size is None:
            raise FormatError(
                f"not a size: {decimal[:100]!r}; expected digits without leading zeros, below 2^64"
            )
        if root is None:
            raise FormatError(f"not a root in base64: {encoded[:100]!r}")
        return Checkpoint(origin, size, root, tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Return the checkpoint as a note, signed; ValueError unless the key is named after the origin.

    The caller promises never to have signed, and never to sign, an inconsistent one.
    """
    if signer.name != checkpoint.origin:
        raise ValueError(f"the key {signer.name!r} must not sign for the log {checkpoint.origin!r}")
    return sign_note(checkpoint.encode(), [signer])


def open_checkpoint(note: bytes, verifier: Verifier, *, origin: str | None = None) -> Checkpoint:
    """Return the checkpoint in a note that the log's key has signed; other signatures are passed over.

    `origin` is the name of the log expected, if it differs from the key's.  Raises NoteError for a malformed
    note, SignatureError if the key has not signed it or it speaks of another log, FormatError for any other
    text.
    """
    checkpoint = Checkpoint.decode(open_note(note, [verifier]).text)
    expected = verifier.name if origin is None else origin
    if checkpoint.origin != expected:
        raise SignatureError(f"this is a checkpoint of the log {checkpoint.origin!r}, not of {expected!r}")
    return checkpoint
