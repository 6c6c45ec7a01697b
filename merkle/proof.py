r"""Proofs that an entry is in the log, and that a log only grew (RFC 6962, 2.1.1 and 2.1.2).

Both kinds of proof are the siblings met on the way from one node up to the root.  The tree's shape follows
from its size alone, so a proof is nothing but hashes, lowest first: the verifier knows on which side each
belongs.

    way up from entry 4 of 7:      sibling 5 to the right, then 6 to the right, then 0..3 to the left

An inclusion proof starts at the leaf and must arrive at the root.  A consistency proof starts at the last
perfect subtree of the *old* tree and arrives at both roots: what stands to the left was in the old tree
already, what stands to the right is new and enters the new root only.

Proving is planned in `merkle.coordinates`; verifying below climbs the other way and shares no code with it.

>>> from merkle.hashing import leaf_hash, node_hash
>>> a, b = leaf_hash(b"a"), leaf_hash(b"b")
>>> verify_inclusion(a, 0, 2, node_hash(a, b), [b])
>>> verify_inclusion(a, 1, 2, node_hash(a, b), [b])  # doctest: +ELLIPSIS
Traceback (most recent call last):
merkle.errors.ProofError: entry 1 is not in the tree of size 2: root ..., not ...

How a proof is handed to somebody, with index and checkpoint, is the business of `merkle.proof_text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from merkle.coordinates import Node, consistency_nodes, inclusion_nodes, root_nodes
from merkle.errors import ProofError
from merkle.frontier import Frontier
from merkle.hashing import EMPTY_ROOT, HASH_SIZE, node_hash

ReadNodes = Callable[[Sequence[Node]], Sequence[bytes]]
"""Returns the hash of each perfect subtree asked for, in the same order; every function asks exactly once."""


def frontier_at(size: int, read_nodes: ReadNodes) -> Frontier:
    """Return the frontier of the first `size` leaves of a stored tree, ready to be extended."""
    return Frontier(size, tuple(read_nodes(root_nodes(size).nodes)))


def prove_inclusion(index: int, size: int, read_nodes: ReadNodes) -> list[bytes]:
    """Return the proof that entry `index` is in the tree of `size`, leaf's sibling first (RFC 6962, 2.1.1).

    Raises ValueError unless 0 <= index < size.
    """
    plan = inclusion_nodes(index, size)
    return plan.combine(read_nodes(plan.nodes))


def prove_consistency(old: int, new: int, read_nodes: ReadNodes) -> list[bytes]:
    """Return the proof that the tree of size `old` is a prefix of that of size `new` (RFC 6962, 2.1.2).

    It is empty for equal sizes and for old = 0.  Raises ValueError unless 0 <= old <= new.
    """
    plan = consistency_nodes(old, new)
    return plan.combine(read_nodes(plan.nodes))


def verify_inclusion(leaf_hash: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Return if `proof` shows that entry `index` of the tree (`size`, `root`) has this leaf hash.

    Raises ProofError otherwise (RFC 9162, 2.1.3.2).
    """
    if not 0 <= index < size:
        raise ProofError(f"entry {index} is not in the tree of size {size}: it would lie outside")
    _check_sizes(leaf_hash, root, *proof)
    sides = list(_siblings(index, size - 1))
    _check_number(len(proof), len(sides))
    computed = leaf_hash
    for is_left, sibling in zip(sides, proof, strict=True):
        computed = node_hash(sibling, computed) if is_left else node_hash(computed, sibling)
    if computed != root:
        raise _differs(f"entry {index} is not in the tree of size {size}", root, computed)


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Return if `proof` shows that the tree (`old`, `old_root`) is a prefix of (`new`, `new_root`).

    Raises ProofError otherwise (RFC 9162, 2.1.4.2).  Every tree begins with the empty one: from old = 0 an
    empty proof is accepted, as the C2SP witness protocol requires (transparency-dev/merkle refuses it).
    """
    if not 0 <= old <= new:
        raise ProofError(f"a log of size {new} cannot have grown from size {old}")
    _check_sizes(old_root, new_root, *proof)
    for size, root in ((old, old_root), (new, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise _differs("the tree of size 0 has one root only", EMPTY_ROOT, root)
    if old in (0, new):
        _check_number(len(proof), 0)
        if old == new and old_root != new_root:
            raise _differs(f"two trees of size {old} differ", old_root, new_root)
        return
    _climb_to_both(old, old_root, new, new_root, proof)


def _climb_to_both(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify a consistency proof between two different sizes, 0 < old < new."""
    index, last = old - 1, new - 1
    while index & 1:  # up to the largest perfect subtree that ends where the old tree ends
        index, last = index >> 1, last >> 1
    sides = list(_siblings(index, last))
    _check_number(len(proof), len(sides) + (index > 0))
    path = list(proof) if index else [old_root, *proof]  # index 0: that subtree is the whole old tree
    old_computed = new_computed = path[0]
    for is_left, sibling in zip(sides, path[1:], strict=True):
        if is_left:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
        else:
            new_computed = node_hash(new_computed, sibling)
    if old_computed != old_root:
        raise _differs(f"the proof does not start at the tree of size {old}", old_root, old_computed)
    if new_computed != new_root:
        raise _differs(f"the tree of size {new} does not continue that of size {old}", new_root, new_computed)


def _siblings(index: int, last: int) -> Iterator[bool]:
    """Yield for each sibling on the way up whether it stands to the left.

    `index` is a node and `last` the last node of its level; a last node without partner rises as it is, and
    there is nothing to yield.
    """
    while last:
        if index & 1:
            yield True
        elif index < last:
            yield False
        index, last = index >> 1, last >> 1


def _check_sizes(*hashes: bytes) -> None:
    # A short hash beside a long one could be another pair of hashes: the node hash joins them without a mark.
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise ProofError(f"a hash has {HASH_SIZE} bytes, not {len(value)}")


def _check_number(given: int, needed: int) -> None:
    if given != needed:
        raise ProofError(f"a proof between these sizes takes {needed} hashes, not {given}")


def _differs(claim: str, expected: bytes, computed: bytes) -> ProofError:
    message = f"{claim}: root {computed.hex()}, not {expected.hex()}"
    return ProofError(message, expected=expected, computed=computed)
