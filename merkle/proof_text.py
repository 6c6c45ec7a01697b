r"""A proof to keep: one text that shows offline, for ever, that an entry is in a log (C2SP tlog-proof).

    c2sp.org/tlog-proof@v1
    extra c29tZXRoaW5n                                optional, not covered by any signature
    index 0
    fcUH5yLm4rOo54BEmP2lnnlLnFFhG1s1WfF7IjxSx2c=      the proof, sibling of the leaf first
                                                      an empty line; then the checkpoint, as the log signed it
    example.com/log
    2
    ...

>>> from merkle import Checkpoint, Ed25519Signer, leaf_hash, node_hash, sign_checkpoint
>>> a, b = leaf_hash(b"a"), leaf_hash(b"b")
>>> signer = Ed25519Signer("example.com/log", bytes(32))
>>> note = sign_checkpoint(Checkpoint("example.com/log", 2, node_hash(a, b)), signer)
>>> TlogProof.decode(TlogProof(0, (b,), note).encode()).verify(a, signer.verifier).size
2

Our receipts are such texts.  Which bytes make up an entry is the business of `archive`.
"""

from __future__ import annotations

from dataclasses import dataclass

from merkle.checkpoint import Checkpoint, open_checkpoint
from merkle.errors import FormatError
from merkle.hashing import HASH_SIZE
from merkle.note import Verifier
from merkle.proof import verify_inclusion
from merkle.text import MAX_SIZE, decode_base64, encode_base64, parse_decimal

PROOF_HEADER = "c2sp.org/tlog-proof@v1"

_MAX_HASHES = 64
"""A tree of fewer than 2**64 leaves is no higher."""


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Position, inclusion proof and signed checkpoint (the note's bytes, verbatim) of one entry.

    `extra` may carry what else a reader needs to compute the leaf hash; nothing vouches for it.  Nothing here
    is checked yet but the form: `verify` is what tells whether to believe it.  Raises FormatError for a value
    that cannot be written.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_SIZE:
            raise FormatError(f"{self.index} cannot be an index")
        if len(self.proof) > _MAX_HASHES or any(len(value) != HASH_SIZE for value in self.proof):
            raise FormatError(f"a proof is at most {_MAX_HASHES} hashes of {HASH_SIZE} bytes")
        if not self.checkpoint:
            raise FormatError("a proof without checkpoint proves nothing")

    def encode(self) -> bytes:
        """Return the text, to be kept as <name>.tlog-proof."""
        extra = [f"extra {encode_base64(self.extra)}"] if self.extra else []
        hashes = map(encode_base64, self.proof)
        head = "\n".join([PROOF_HEADER, *extra, f"index {self.index}", *hashes])
        return head.encode() + b"\n\n" + self.checkpoint

    @staticmethod
    def decode(data: bytes) -> TlogProof:
        """Return what `encode` wrote; FormatError for any other bytes."""
        head, _, checkpoint = data.partition(b"\n\n")
        try:
            header, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            header, lines = "", []
        if header != PROOF_HEADER:
            raise FormatError(f"not a proof: its first line should be {PROOF_HEADER!r}")
        extra = _base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
        if extra == b"":
            raise FormatError("an empty extra line must be left out")
        index = _index(lines.pop(0) if lines else "")
        return TlogProof(index, tuple(map(_base64, lines)), checkpoint, extra or b"")

    def verify(self, leaf_hash: bytes, verifier: Verifier, *, origin: str | None = None) -> Checkpoint:
        """Return the checkpoint under which the entry with this leaf hash is, after checking everything.

        `origin` is as in `open_checkpoint`.  Raises NoteError or FormatError if the checkpoint is not the
        log's, ProofError if the entry is not in it at this index.
        """
        checkpoint = open_checkpoint(self.checkpoint, verifier, origin=origin)
        verify_inclusion(leaf_hash, self.index, checkpoint.size, checkpoint.root, self.proof)
        return checkpoint


def _index(line: str) -> int:
    word, _, decimal = line.partition(" ")
    index = parse_decimal(decimal, limit=MAX_SIZE) if word == "index" else None
    if index is None:
        raise FormatError(f"not an index line: {line[:100]!r}; expected index <number>")
    return index


def _base64(line: str) -> bytes:
    data = decode_base64(line)
    if data is None:
        raise FormatError(f"not base64: {line[:100]!r}")
    return data
