"""A receipt shows that an entry is in the log, an opening what it is; neither can be bent, and no salt leaks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    ArchiveError,
    FormatError,
    IntegrityError,
    Log,
    NotFound,
    Opening,
    Prover,
    Vault,
    check_opening,
    check_receipt,
    open_entry_of,
)
from merkle import Ed25519Verifier, MerkleError, ProofError, TlogProof, leaf_hash, prove_inclusion
from tests.archive.rotting import CLOSED, FORM, NUMBER, rot
from tests.archive.site import SIGNER, VAULT_KEY, Site, event
from tests.golden import ORIGIN as GOLDEN_ORIGIN
from tests.golden import golden_copy, open_golden

VECTOR = Path(__file__).parents[1] / "vectors" / "archive" / "receipt.json"
VERIFIER = SIGNER.verifier


def site() -> Site:
    """Return a log of 2 control entries and 10 events, in commits of 1, 2, 3 and 4."""
    made = Site()
    archiver = made.start()
    for count in (1, 2, 3, 4):
        archiver.step([event(b'{"n":%d}' % number) for number in range(count)])
    return made


def receipts(size: int | None = None) -> list[TlogProof]:
    """Return the receipts of all entries of that log."""
    made = site()
    with made.log.view() as view:
        prover = Prover(Log(view, 12))
        return [prover.receipt(index, size) for index in range(12)]


def opening_of(made: Site, index: int) -> tuple[bytes, Opening]:
    """Return leaf and opening of an entry."""
    with made.log.view() as view:
        log = Log(view, 12)
        return log.leaf(index), open_entry_of(log, Vault(made.vault, VAULT_KEY, made.random), index)


def test_every_entry_has_a_receipt_under_the_first_checkpoint_that_covers_it() -> None:
    """Index, leaf and size are right, and the text reads back as itself."""
    sizes = []
    for index, proof in enumerate(receipts()):
        assert TlogProof.decode(proof.encode()) == proof
        assert proof.index == index
        sizes.append(check_receipt(proof, VERIFIER)[0].size)
    assert sizes == [2, 2, 3, 5, 5, 8, 8, 8, 12, 12, 12, 12]


def test_every_entry_has_a_receipt_under_any_later_checkpoint() -> None:
    """All under the newest one, so that they can be compared."""
    assert {check_receipt(proof, VERIFIER)[0].size for proof in receipts(12)} == {12}


def test_a_checkpoint_that_was_never_signed_proves_nothing() -> None:
    """Sizes between commits, before the entry, or beyond the log are not there."""
    with site().log.view() as view:
        prover = Prover(Log(view, 12))
        for size in (-1, 0, 2, 4, 6, 13, 2**70):
            with pytest.raises(NotFound, match="no checkpoint of size"):
                prover.receipt(3, size)
        assert prover.receipt(3, 5) == prover.receipt(3)


def test_a_receipt_without_its_leaf_cannot_be_checked() -> None:
    """A proof from elsewhere may lack the extra line: it is refused, not taken for anything."""
    proof = receipts()[4]
    with pytest.raises(ProofError, match="no leaf"):
        check_receipt(TlogProof(proof.index, proof.proof, proof.checkpoint), VERIFIER)


def test_a_receipt_of_something_that_is_no_leaf_is_refused() -> None:
    """An inner node's two children are no entry, even if somebody signed a tree with them."""
    proof = receipts()[4]
    with pytest.raises((FormatError, MerkleError)):
        check_receipt(TlogProof(proof.index, proof.proof, proof.checkpoint, b"\x01" * 64), VERIFIER)


@pytest.mark.parametrize("index", [0, 4, 11])
def test_every_changed_bit_of_a_receipt_is_refused(index: int) -> None:
    """Whatever bit of the text is flipped, the receipt fails, or says the same in every part that counts."""
    whole = receipts()[index]
    text = whole.encode()
    for at in range(len(text) * 8):
        changed = bytearray(text)
        changed[at // 8] ^= 1 << at % 8
        try:
            proof = TlogProof.decode(bytes(changed))
            check_receipt(proof, VERIFIER)
        except (MerkleError, ArchiveError):
            continue
        pytest.fail(f"bit {at} of the receipt may be flipped: {bytes(changed)!r}")


def test_an_opening_is_what_the_leaf_commits_to() -> None:
    """It decodes to the event that was sent, encodes to the bytes of the commitment, and survives JSON."""
    leaf, opening = opening_of(site(), 5)
    assert Opening.decode(opening.encode()) == opening
    assert Opening.from_json(json.dumps(opening.to_json()).encode()) == opening
    opened_entry = check_opening(leaf, opening)
    assert (opened_entry.payload, opened_entry.header.sequence) == (b'{"n":0}', 4)


@pytest.mark.parametrize("part", ["salt", "header", "payload"])
def test_an_opening_that_differs_in_one_bit_is_refused(part: str) -> None:
    """No other salt, header or payload fits the leaf; nor does moving a byte from one to the next."""
    leaf, opening = opening_of(site(), 5)
    values = {"salt": opening.salt, "header": opening.header, "payload": opening.payload}
    for at in range(len(values[part]) * 8):
        changed = bytearray(values[part])
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(IntegrityError, match="does not commit"):
            check_opening(leaf, Opening(**{**values, part: bytes(changed)}))
    moved = Opening(opening.salt, opening.header + opening.payload[:1], opening.payload[1:])
    with pytest.raises(IntegrityError):
        check_opening(leaf, moved)


def test_equal_events_have_unrelated_leaves() -> None:
    """A guess at the event cannot be tried out on the leaf: the salt differs from entry to entry."""
    made = site()
    one, other = opening_of(made, 3)[1], opening_of(made, 8)[1]
    assert one.payload == other.payload
    assert one.salt != other.salt


def test_a_control_entry_has_nothing_to_open() -> None:
    """Its leaf says it all."""
    made = site()
    with pytest.raises(NotFound, match="nothing to open"):
        opening_of(made, 0)
    with pytest.raises(IntegrityError, match="nothing to open"):
        check_opening(receipts()[0].extra, opening_of(made, 5)[1])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"salt":"00","header":"","payload":""}',
        b'{"salt":"%s","header":"","payload":3}' % (b"0" * 64),
        b'{"salt":"%s","header":"*","payload":""}' % (b"0" * 64),
        b'{"salt":"%s","header":"\xc3\xa9","payload":""}' % (b"0" * 64),
        b'{"salt":3,"header":"","payload":""}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_opening_is_refused(text: bytes) -> None:
    """One error, that of a malformed format, for whatever may lie in a file."""
    with pytest.raises(FormatError):
        Opening.from_json(text)


@given(st.binary())
def test_any_bytes_are_an_opening_or_refused(data: bytes) -> None:
    """Bytes decode and encode to themselves, or raise the one error."""
    for read in (Opening.decode, Opening.from_json):
        try:
            opening = read(data)
        except FormatError:
            continue
        assert read is not Opening.decode or opening.encode() == data


def vector() -> Any:
    """Return the golden vector."""
    return json.loads(VECTOR.read_text())


def test_the_golden_receipt_is_still_made(tmp_path: Path) -> None:
    """Format version 1: the receipt and opening of the golden log's entries, byte for byte."""
    with golden_copy(tmp_path / "golden") as folder:
        source, _ = open_golden(folder)
        vault = folder.open_vault(os.urandom)
        with source.open() as log:
            for one in vector()["entries"]:
                assert Prover(log).receipt(one["index"], one["size"]).encode().decode() == one["receipt"]
                assert open_entry_of(log, vault, one["index"]).to_json() == one["opening"]
        vault.close()


def test_the_golden_receipt_still_holds() -> None:
    """A verifier of this version believes it, and finds the golden event in it."""
    verifier = Ed25519Verifier.decode(vector()["vkey"])
    assert verifier.name == GOLDEN_ORIGIN
    for one in vector()["entries"]:
        proof = TlogProof.decode(one["receipt"].encode())
        checkpoint, leaf = check_receipt(proof, verifier)
        assert (checkpoint.size, leaf.time_s) == (one["size"], one["archived_s"])
        shown = check_opening(proof.extra, Opening.from_json(json.dumps(one["opening"]).encode()))
        assert shown.payload.decode() == one["payload"]


def test_a_receipt_is_as_long_as_the_tree_is_high() -> None:
    """An inclusion proof by the log's own reader gives the same hashes."""
    with site().log.view() as view:
        log = Log(view, 12)
        proof = Prover(log).receipt(7, 12)
        assert list(proof.proof) == prove_inclusion(7, 12, log.read_nodes)
        assert leaf_hash(proof.extra) not in proof.proof


@pytest.mark.parametrize("place", [CLOSED, FORM, NUMBER])
def test_a_rotten_row_has_no_opening(place: int) -> None:
    """It is said to have changed; never that somebody was erased, whose number a flipped bit made of another's."""
    made = site()
    rot(made.log, 5, place)
    with pytest.raises(IntegrityError, match="bytes changed on disk"):
        opening_of(made, 5)
