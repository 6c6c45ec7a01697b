"""Hashes: the published tree, the RFC's own recursion, and the separation of leaves from nodes."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import EMPTY_ROOT, HASH_SIZE, leaf_hash, node_hash, root_of, row_root
from merkle.hashing import pair_up
from tests.merkle.rfc6962 import mth, stored_tree, vectors

CT = vectors("ct_tree")
LEAVES = [leaf_hash(bytes.fromhex(entry)) for entry in CT["entries"]]


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_of_the_ct_tree_are_ours(size: int) -> None:
    """Every prefix of the eight Certificate Transparency entries has the root that is published for it."""
    assert root_of(LEAVES[:size]).hex() == CT["roots"][size]


def test_the_published_nodes_of_the_ct_tree_are_ours() -> None:
    """Each published inner hash is the node hash of the two published below it."""
    levels = [[bytes.fromhex(value) for value in level] for level in CT["levels"]]
    assert levels[0] == LEAVES
    for below, above in pairwise(levels):
        assert [node_hash(*below[i : i + 2]) for i in range(0, len(below), 2)] == above


def test_hashes_of_single_values_are_the_published_ones() -> None:
    """The hasher vectors of transparency-dev/merkle: the prefixes stand where the RFC puts them."""
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    expected = "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    assert node_hash(b"N123", b"N456").hex() == expected


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    """The empty tree has a root of its own, which no leaf can have."""
    assert sha256(b"").digest() == EMPTY_ROOT == root_of([]) == row_root([])
    assert leaf_hash(b"") != EMPTY_ROOT
    assert len(EMPTY_ROOT) == HASH_SIZE


@pytest.mark.parametrize("size", [*range(70), 255, 256, 257, 1000])
def test_roots_equal_the_recursive_definition(size: int) -> None:
    """Pairing level by level gives the same root as splitting at the largest power of two."""
    entries = stored_tree(size).entries
    assert root_of([leaf_hash(entry) for entry in entries]) == mth(entries)


@given(st.lists(st.binary(max_size=80), max_size=40))
def test_roots_of_any_entries_equal_the_recursive_definition(entries: list[bytes]) -> None:
    """Entries may be of any length, empty and repeated ones included."""
    assert root_of([leaf_hash(entry) for entry in entries]) == mth(entries)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_no_entry_can_pose_as_a_node(left: bytes, right: bytes) -> None:
    """The bytes of two children, logged as an entry, do not get the hash of their parent."""
    assert leaf_hash(left + right) != node_hash(left, right)


def test_bulk_hashing_does_not_touch_its_argument() -> None:
    """What is handed in is still the caller's afterwards."""
    leaves = stored_tree(100).levels[0][:]
    before = leaves[:]
    root_of(leaves)
    assert leaves == before


def test_a_row_of_subtrees_joins_from_the_right() -> None:
    """The smallest subtree joins its neighbour first, and stands to the right of it."""
    a, b, c, d = stored_tree(4).levels[0]
    assert row_root([a]) == a
    assert row_root([a, b]) == node_hash(a, b)
    assert row_root([a, b, c, d]) == node_hash(a, node_hash(b, node_hash(c, d)))


def test_hashes_pair_up_with_none_left_over() -> None:
    """An odd number is a mistake of the caller's: the last hash would be lost without a word."""
    a, b, c, d = stored_tree(4).levels[0]
    assert pair_up([a, b, c, d]) == [node_hash(a, b), node_hash(c, d)]
    with pytest.raises(ValueError, match="shorter"):
        pair_up([a, b, c])
