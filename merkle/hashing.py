r"""How bytes become leaves, leaves become nodes, and nodes become one root (RFC 6962, 2.1).

A leaf is SHA-256 of 0x00 and the entry, an inner node SHA-256 of 0x01 and its two children.  The first byte
keeps the two apart: without it, two children side by side could be passed off as an entry.  A tree of n
leaves splits at the largest power of two below n, so its left side is always a perfect tree that no later
leaf will change.

Bottom-up the same tree is simpler to build: pair the neighbours of a level, let a last one without partner
rise as it is, repeat.

    level 2          r            r = node(m, e)
                   /   \
    level 1       m     e         e has no partner and rises
                 / \     \
    level 0     c   d     e

>>> root_of([leaf_hash(b""), leaf_hash(b"\0")]).hex()[:16]
'fac54203e7cc696c'
>>> root_of([]) == EMPTY_ROOT
True

A tree that grows is the business of `merkle.frontier`; what must be read to prove something about a stored
one, of `merkle.coordinates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

HASH_SIZE = 32
"""Bytes of every leaf hash, node hash and root."""

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves (RFC 6962, 2.1)."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the 32-byte hash of one log entry (RFC 6962, 2.1)."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the 32-byte hash of two neighbouring subtrees (RFC 6962, 2.1)."""
    return sha256(b"\1" + left + right).digest()


def pair_up(level: Sequence[bytes]) -> list[bytes]:
    """Return the level above an even number of hashes: one node for each two neighbours.

    Every bulk operation ends here, hence the inlined `node_hash`: the call would cost as much as the hash.
    """
    pairs = zip(level[::2], level[1::2], strict=True)
    return [sha256(b"\1" + left + right).digest() for left, right in pairs]


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over these leaf hashes, in O(n) time and O(n) memory (RFC 6962, 2.1)."""
    level: Sequence[bytes] = leaf_hashes
    while len(level) > 1:
        paired = len(level) & ~1
        level = [*pair_up(level[:paired]), *level[paired:]]
    return level[0] if level else EMPTY_ROOT


def row_root(subtrees: Sequence[bytes]) -> bytes:
    """Return the root over a row of perfect subtrees, largest first: one for each 1 bit of the size.

    The smallest joins its neighbour first, because only the rightmost split of a tree is uneven.
    """
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root
