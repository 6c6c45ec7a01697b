"""Proof texts: self-contained receipts, their one spelling, and what is checked before belief."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    Checkpoint,
    Ed25519Signer,
    FormatError,
    MerkleError,
    NoteError,
    ProofError,
    SignatureError,
    TlogProof,
    frontier_at,
    leaf_hash,
    prove_inclusion,
    sign_checkpoint,
)
from tests.merkle.rfc6962 import stored_tree, vectors

CT = vectors("ct_tree")
GOLDEN = vectors("checkpoint")
SIGNER = Ed25519Signer("example.com/log", bytes(range(32)))
NOTE = GOLDEN["note"].encode()
LEAF = leaf_hash(bytes.fromhex(CT["entries"][5]))
PROOF = TlogProof(
    5, tuple(bytes.fromhex(CT["levels"][level][at]) for level, at in ((0, 4), (1, 3), (2, 0))), NOTE
)
PROOFS = st.builds(
    TlogProof,
    st.integers(0, 2**64 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=64).map(tuple),
    st.binary(min_size=1, max_size=40),
    st.binary(max_size=40),
)


def test_the_golden_proof_is_written_read_and_verified() -> None:
    """The receipt of entry 5 of the eight-entry tree never changes, and shows what it should."""
    text = GOLDEN["proof"].encode()
    assert PROOF.encode() == text
    assert TlogProof.decode(text) == PROOF
    assert PROOF.verify(LEAF, SIGNER.verifier) == Checkpoint(
        "example.com/log", 8, bytes.fromhex(CT["roots"][8])
    )


def test_a_proof_from_a_growing_log_verifies_at_its_size() -> None:
    """Receipts are bound to their checkpoint, not to the head of the log."""
    tree = stored_tree(3000)
    for index, size in ((0, 1), (299, 300), (17, 3000)):
        checkpoint = Checkpoint(SIGNER.name, size, frontier_at(size, tree.read).root())
        path = tuple(prove_inclusion(index, size, tree.read))
        text = TlogProof(index, path, sign_checkpoint(checkpoint, SIGNER)).encode()
        assert TlogProof.decode(text).verify(tree.levels[0][index], SIGNER.verifier) == checkpoint


@given(PROOFS)
def test_every_proof_text_is_read_back(proof: TlogProof) -> None:
    """Writing and reading are inverse, with extra data and without."""
    assert TlogProof.decode(proof.encode()) == proof


PIECES = ["c2sp.org/tlog-proof@v1", "extra AA==", "extra ", "index 0", "index 00", "A" * 43 + "=", "", "x"]


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(PIECES), max_size=8).map(lambda p: "\n".join(p).encode())
)
def test_any_bytes_are_a_proof_text_of_one_spelling_or_are_refused(data: bytes) -> None:
    """Nothing raises anything but the documented error; what is read is written back the same."""
    for candidate in (data, b"c2sp.org/tlog-proof@v1\n" + data, b"c2sp.org/tlog-proof@v1\nindex 7\n" + data):
        try:
            proof = TlogProof.decode(candidate)
        except FormatError:
            continue
        assert proof.encode() == candidate


HASH = "A" * 43 + "="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\nnote\n",
        "c2sp.org/tlog-proof@v2\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n\n",
        "c2sp.org/tlog-proof@v1\nindex 00\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex -1\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex  0\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\nindex {2**64}\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nextra \nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nextra AA==\nextra AA==\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra AA==\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\n{HASH}\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nAA==\n\nnote\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{HASH} \n\nnote\n",
        f"c2sp.org/tlog-proof@v1\r\nindex 0\n{HASH}\n\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + f"{HASH}\n" * 65 + "\nnote\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nä\n\nnote\n",
    ],
)
def test_any_other_spelling_is_refused(text: str) -> None:
    """A receipt that would be read in two ways is read in none."""
    with pytest.raises(FormatError):
        TlogProof.decode(text.encode())


@pytest.mark.parametrize(
    ("index", "proof", "note"),
    [(-1, (), NOTE), (2**64, (), NOTE), (0, (b"short",), NOTE), (0, (LEAF,) * 65, NOTE), (0, (), b"")],
)
def test_what_cannot_be_read_cannot_be_made(index: int, proof: tuple[bytes, ...], note: bytes) -> None:
    """The limits hold for those who write, too."""
    with pytest.raises(FormatError):
        TlogProof(index, proof, note)


def test_the_longest_proof_is_read() -> None:
    """64 hashes, as many as a tree of 2**64 - 1 entries can need."""
    proof = TlogProof(2**64 - 1, (LEAF,) * 64, NOTE)
    assert TlogProof.decode(proof.encode()) == proof


def test_a_receipt_is_believed_only_if_all_of_it_fits() -> None:
    """Another leaf, index, key or log, or an altered note: each is refused by its own error."""
    with pytest.raises(ProofError, match="entry 5 is not in the tree of size 8"):
        PROOF.verify(leaf_hash(b"something else"), SIGNER.verifier)
    with pytest.raises(ProofError, match="entry 4 is not"):
        replace(PROOF, index=4).verify(LEAF, SIGNER.verifier)
    with pytest.raises(ProofError, match="outside"):
        replace(PROOF, index=8).verify(LEAF, SIGNER.verifier)
    with pytest.raises(SignatureError, match="no known key"):
        PROOF.verify(LEAF, Ed25519Signer(SIGNER.name, bytes(32)).verifier)
    with pytest.raises(SignatureError, match="not of 'example\\.com/another'"):
        PROOF.verify(LEAF, SIGNER.verifier, origin="example.com/another")
    with pytest.raises(NoteError, match="does not fit"):
        replace(PROOF, checkpoint=NOTE.replace(b"\n8\n", b"\n9\n")).verify(LEAF, SIGNER.verifier)


def test_every_changed_bit_of_a_receipt_is_noticed() -> None:
    """There is no byte in a receipt without extra data that could be altered unseen."""
    text = GOLDEN["proof"].encode()
    for at in range(len(text)):
        for bit in range(8):
            altered = text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :]
            with pytest.raises(MerkleError):
                TlogProof.decode(altered).verify(LEAF, SIGNER.verifier)


def test_a_missing_index_line_is_shown_as_what_it_is() -> None:
    """The error quotes what stands where the index should: nothing."""
    with pytest.raises(FormatError, match="not an index line: ''"):
        TlogProof.decode(b"c2sp.org/tlog-proof@v1")
