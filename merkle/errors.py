"""What can be wrong with a tree, a proof or a note, and what to do about it.

Everything raised here means "do not rely on these bytes".  Which of them came from a client (answer 4xx) and
which from our own disk (stop) is known to the caller alone: `archive` and `api` translate.  A mistake of the
caller, such as asking for entry 9 of a tree of size 8, is a plain `ValueError`.

>>> issubclass(SignatureError, NoteError) and issubclass(NoteError, MerkleError)
True
"""

from __future__ import annotations


class MerkleError(Exception):
    """Something from outside cannot be relied upon; the message says why."""


class FormatError(MerkleError):
    """A tile path, tile, bundle, checkpoint or proof text is not in its format: refuse it, ask its sender."""


class ProofError(MerkleError):
    """A proof does not show what it claims: trust neither the proof nor the root that came with it.

    `expected` and `computed` are the two hashes that differ, where the proof had the right shape; else None.
    """

    def __init__(self, message: str, *, expected: bytes | None = None, computed: bytes | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.computed = computed


class NoteError(MerkleError):
    """A signed note or a verifier key is malformed: refuse it, ask its sender."""


class SignatureError(NoteError):
    """A well-formed note is not signed as required: ignore its text; is the right key configured?"""


class UnknownKeyError(SignatureError):
    """None of the keys that signed a note is known: had the log another key then, or is it another log?"""
