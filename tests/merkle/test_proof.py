"""Proofs: the published vectors, the RFC's recursion, and the refusal of everything that was changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofError,
    frontier_at,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.merkle.rfc6962 import consistency, mth, path, stored_tree, vectors

LARGE = stored_tree(3000)
LEAVES = LARGE.levels[0]

NOT_HASHES = {"additional/sizes-are-equal-one-and-proof-is-empty"}
"""Published as valid, with roots of 12 bytes.  We insist on 32: joined hashes do not show their lengths."""


def unhex(values: list[str]) -> list[bytes]:
    """Return the bytes of hexadecimal texts."""
    return [bytes.fromhex(value) for value in values]


def flipped(value: bytes, bit: int) -> bytes:
    """Return `value` with one bit changed."""
    return bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(value))


def named(cases: list[dict[str, Any]]) -> list[Any]:
    """Return published cases as test parameters."""
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", named(vectors("inclusion")["cases"]))
def test_published_inclusion_verdicts_are_ours(case: dict[str, Any]) -> None:
    """Valid and damaged inclusion proofs of transparency-dev/merkle are judged as published."""
    leaf, root = unhex([case["leaf_hash"], case["root"]])
    arguments = (leaf, case["index"], case["size"], root, unhex(case["proof"]))
    if case["valid"]:
        verify_inclusion(*arguments)
    else:
        with pytest.raises(ProofError):
            verify_inclusion(*arguments)


@pytest.mark.parametrize("case", named(vectors("consistency")["cases"]))
def test_published_consistency_verdicts_are_ours(case: dict[str, Any]) -> None:
    """Valid and damaged consistency proofs are judged as published, but for `NOT_HASHES`."""
    old_root, new_root = unhex([case["old_root"], case["new_root"]])
    arguments = (case["old"], old_root, case["new"], new_root, unhex(case["proof"]))
    if case["valid"] and case["name"] not in NOT_HASHES:
        verify_consistency(*arguments)
    else:
        with pytest.raises(ProofError):
            verify_consistency(*arguments)


@pytest.mark.parametrize("size", range(1, 17))
def test_inclusion_proofs_of_small_trees_equal_the_recursive_definition(size: int) -> None:
    """For every entry of every tree up to 16 we prove what the RFC's PATH gives, and accept it."""
    tree = stored_tree(16)
    entries = tree.entries[:size]
    for index in range(size):
        proof = prove_inclusion(index, size, tree.read)
        assert proof == path(index, entries)
        verify_inclusion(tree.levels[0][index], index, size, mth(entries), proof)


@pytest.mark.parametrize("new", range(1, 17))
def test_consistency_proofs_of_small_trees_equal_the_recursive_definition(new: int) -> None:
    """For every pair of sizes up to 16 we prove what the RFC's PROOF gives, and accept it."""
    tree = stored_tree(16)
    for old in range(1, new + 1):
        proof = prove_consistency(old, new, tree.read)
        assert proof == consistency(old, tree.entries[:new])
        verify_consistency(old, mth(tree.entries[:old]), new, mth(tree.entries[:new]), proof)


@given(st.integers(1, 3000), st.data())
def test_proofs_of_larger_trees_equal_the_recursive_definition_and_verify(
    size: int, data: st.DataObject
) -> None:
    """The same in trees of up to 3,000 entries."""
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    entries, root = LARGE.entries[:size], root_of(LEAVES[:size])
    proof = prove_inclusion(index, size, LARGE.read)
    assert proof == path(index, entries)
    verify_inclusion(LEAVES[index], index, size, root, proof)
    proof = prove_consistency(old, size, LARGE.read)
    assert proof == consistency(old, entries)
    verify_consistency(old, root_of(LEAVES[:old]), size, root, proof)


@given(st.integers(0, 3000))
def test_root_and_frontier_of_any_earlier_size_can_be_read_back(size: int) -> None:
    """The stored nodes of a log suffice to name each of its former roots, and to go on from it."""
    assert frontier_at(size, LARGE.read).root() == root_of(LEAVES[:size])
    assert frontier_at(size, LARGE.read) == Frontier.of(LEAVES[:size])


def test_each_answer_asks_the_store_exactly_once() -> None:
    """One read transaction suffices, also where nothing is to be read."""
    for size in (1, 2, 3000):
        before = LARGE.asked
        prove_inclusion(size - 1, size, LARGE.read)
        prove_consistency(size, size, LARGE.read)
        frontier_at(size, LARGE.read).root()
        assert LARGE.asked - before == 3


@given(st.integers(1, 3000), st.data())
def test_every_one_bit_change_of_an_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    """No bit of proof, leaf or root may differ, and no other index will do."""
    index = data.draw(st.integers(0, size - 1))
    proof, root, leaf = prove_inclusion(index, size, LARGE.read), root_of(LEAVES[:size]), LEAVES[index]
    values = [leaf, root, *proof]
    at, bit = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(0, 255))
    values[at] = flipped(values[at], bit)
    with pytest.raises(ProofError):
        verify_inclusion(values[0], index, size, values[1], values[2:])
    other = data.draw(st.integers(-1, size).filter(lambda drawn: drawn != index))
    with pytest.raises(ProofError):
        verify_inclusion(leaf, other, size, root, proof)


@given(st.integers(2, 3000), st.data())
def test_every_one_bit_change_of_a_consistency_proof_is_refused(new: int, data: st.DataObject) -> None:
    """No bit of the proof or of either root may differ."""
    old = data.draw(st.integers(1, new))
    values = [root_of(LEAVES[:old]), root_of(LEAVES[:new]), *prove_consistency(old, new, LARGE.read)]
    at, bit = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(0, 255))
    values[at] = flipped(values[at], bit)
    with pytest.raises(ProofError):
        verify_consistency(old, values[0], new, values[1], values[2:])


@given(st.integers(1, 3000), st.data())
def test_a_proof_with_a_hash_too_many_or_too_few_is_refused(size: int, data: st.DataObject) -> None:
    """The number of hashes follows from the sizes, and nothing may hide behind them."""
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root, old_root = root_of(LEAVES[:size]), root_of(LEAVES[:old])
    inclusion, consistent = prove_inclusion(index, size, LARGE.read), prove_consistency(old, size, LARGE.read)
    for proof in ([*inclusion, root], [root, *inclusion], inclusion[1:], inclusion[:-1]):
        if proof != inclusion:
            with pytest.raises(ProofError):
                verify_inclusion(LEAVES[index], index, size, root, proof)
    for proof in ([*consistent, root], [root, *consistent], consistent[1:], consistent[:-1]):
        if proof != consistent:
            with pytest.raises(ProofError):
                verify_consistency(old, old_root, size, root, proof)


def test_hashes_of_other_lengths_are_refused() -> None:
    """Moving a byte from one hash to its neighbour keeps what is hashed: only lengths give it away."""
    left, right = LEAVES[:2]
    root = root_of([left, right])
    verify_inclusion(left, 0, 2, root, [right])
    with pytest.raises(ProofError, match="32 bytes"):
        verify_inclusion(left + right[:1], 0, 2, root, [right[1:]])
    with pytest.raises(ProofError, match="32 bytes"):
        verify_consistency(1, left + right[:1], 2, root, [right[1:]])
    with pytest.raises(ProofError, match="32 bytes"):
        verify_consistency(1, b"same", 1, b"same", [])


def test_every_log_grew_from_the_empty_one() -> None:
    """The C2SP witness protocol: from size 0 an empty proof is accepted, and no other."""
    root = root_of(LEAVES[:5])
    verify_consistency(0, EMPTY_ROOT, 5, root, prove_consistency(0, 5, LARGE.read))
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    for old_root, new, new_root, proof in (
        (EMPTY_ROOT, 5, root, [root]),
        (root, 5, root, []),
        (EMPTY_ROOT, 0, root, []),
        (root, 0, root, []),
    ):
        with pytest.raises(ProofError):
            verify_consistency(0, old_root, new, new_root, proof)


def test_a_log_cannot_shrink_and_an_entry_cannot_lie_outside() -> None:
    """Impossible sizes and indices are refused, not computed with."""
    root = root_of(LEAVES[:5])
    for old, new in ((6, 5), (-1, 5)):
        with pytest.raises(ProofError, match="cannot have grown"):
            verify_consistency(old, root, new, root, [])
    for index, size in ((5, 5), (-1, 5), (0, 0)):
        with pytest.raises(ProofError, match="outside"):
            verify_inclusion(LEAVES[0], index, size, root, [])


def test_a_fork_is_named_with_both_roots() -> None:
    """The error carries the two hashes that differ, the evidence that an auditor wants to keep."""
    ours, theirs = root_of(LEAVES[:4]), root_of(LEAVES[1:5])
    with pytest.raises(ProofError, match=ours.hex()) as caught:
        verify_consistency(4, ours, 4, theirs, [])
    assert (caught.value.expected, caught.value.computed) == (ours, theirs)
    proof = prove_consistency(3, 4, LARGE.read)
    with pytest.raises(ProofError, match="does not start at the tree of size 3"):
        verify_consistency(3, theirs, 4, ours, proof)
    with pytest.raises(ProofError, match="does not continue that of size 3"):
        verify_consistency(3, root_of(LEAVES[:3]), 4, theirs, proof)


@pytest.mark.parametrize("at", range(3))
def test_every_hash_of_a_proof_has_32_bytes(at: int) -> None:
    """A sibling that is too long or too short is refused for its length, wherever it stands."""
    root, old_root = root_of(LEAVES[:8]), root_of(LEAVES[:7])
    inclusion, consistent = prove_inclusion(2, 8, LARGE.read), prove_consistency(7, 8, LARGE.read)
    for wrong in (inclusion[at][:-1], inclusion[at] + b"\0", b""):
        with pytest.raises(ProofError, match=f"32 bytes, not {len(wrong)}"):
            verify_inclusion(LEAVES[2], 2, 8, root, [*inclusion[:at], wrong, *inclusion[at + 1 :]])
        with pytest.raises(ProofError, match=f"32 bytes, not {len(wrong)}"):
            verify_consistency(7, old_root, 8, root, [*consistent[:at], wrong, *consistent[at + 1 :]])


def test_a_refusal_says_which_root_was_expected_and_which_computed() -> None:
    """Whoever reads the error can tell our root from the one that the proof leads to."""
    three, four, five = (root_of(LEAVES[:size]) for size in (3, 4, 5))
    inclusion, consistent = prove_inclusion(1, 5, LARGE.read), prove_consistency(3, 5, LARGE.read)
    refusals: list[tuple[Callable[[], None], bytes, bytes]] = [
        (lambda: verify_inclusion(LEAVES[1], 1, 5, four, inclusion), four, five),
        (lambda: verify_consistency(3, three, 5, four, consistent), four, five),
        (lambda: verify_consistency(3, four, 5, five, consistent), four, three),
        (lambda: verify_consistency(0, five, 5, five, []), EMPTY_ROOT, five),
    ]
    for verify, expected, computed in refusals:
        with pytest.raises(ProofError) as caught:
            verify()
        assert (caught.value.expected, caught.value.computed) == (expected, computed)
        assert str(caught.value).endswith(f": root {computed.hex()}, not {expected.hex()}")
    with pytest.raises(ProofError, match="size 0 has one root only"):
        verify_consistency(0, EMPTY_ROOT, 0, five, [])


@pytest.mark.parametrize(("old", "needed"), [(3, 4), (4, 1), (5, 0), (0, 0)])
def test_a_refusal_says_how_many_hashes_a_proof_takes(old: int, needed: int) -> None:
    """The numbers are those of the proof that was handed in, also where the old root stands in for a hash of it."""
    proof, root = prove_consistency(old, 5, LARGE.read), root_of(LEAVES[:5])
    assert len(proof) == needed
    with pytest.raises(ProofError, match=f"takes {needed} hashes, not {needed + 1}$"):
        verify_consistency(old, root_of(LEAVES[:old]), 5, root, [*proof, root])
    with pytest.raises(ProofError, match=r"takes 3 hashes, not 2$"):
        verify_inclusion(LEAVES[1], 1, 5, root, prove_inclusion(1, 5, LARGE.read)[:2])
