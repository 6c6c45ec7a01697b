"""The right-hand edge of a growing RFC 6962 tree.

A tree of n leaves is a row of perfect subtrees, one for each 1 bit of n, the largest on the left.  Their
roots, at most log2(n) + 1 of them, are the *frontier*: all that must be remembered to take in the next leaf
and to name the new root.  Leaves behind the frontier never change again, which is why an append-only log can
be extended in memory the size of a postcard.

    size 7 = 0b111          frontier = [ (0..3)  (4..5)  (6) ]

Adding leaves is adding numbers in binary: wherever two subtrees of one size meet, the carry merges them into
one of the next.

>>> from merkle.hashing import leaf_hash
>>> Frontier().extend(leaf_hash(b"")).root().hex()[:16]
'6e340b9cffb37a98'

Everything here is a pure function of its arguments.  Where hashes are kept is the business of `archive`; how
others check us, of `merkle.proof`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from merkle.hashing import node_hash, pair_up, row_root

TileNode = tuple[int, int, bytes]
"""Tile level (from 1), index, hash."""
PairUp = Callable[[Sequence[bytes]], list[bytes]]
"""What turns an even number of hashes into the level above: `merkle.hashing.pair_up`, or one that does the same."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the perfect subtrees that make up `size` leaves, largest first.

    Raises ValueError if there is not exactly one node for each 1 bit of `size`.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count():
            raise ValueError(f"{len(self.nodes)} nodes cannot cover {self.size} leaves")

    @staticmethod
    def of(leaf_hashes: Iterable[bytes]) -> Frontier:
        """Return the frontier of the tree over these leaf hashes."""
        return Frontier().extend_all(leaf_hashes)

    def extend(self, leaf: bytes) -> Frontier:
        """Return the frontier after one more leaf hash: 1 is added to `size`, each trailing 1 bit a carry."""
        nodes, carry, size = list(self.nodes), leaf, self.size
        while size & 1:
            carry = node_hash(nodes.pop(), carry)
            size >>= 1
        return Frontier(self.size + 1, (*nodes, carry))

    def extend_all(self, hashes: Iterable[bytes], *, level: int = 0) -> Frontier:
        """Return the frontier after many more leaf hashes, level by level: every carry of a level at once.

        With `level`, the hashes are roots of perfect subtrees of 2**level leaves each, such as 8 for those of
        full tiles; then `size` must be a multiple of 2**level, else ValueError.
        """
        return self.grow(hashes, level=level)[0]

    def grow(
        self, hashes: Iterable[bytes], *, level: int = 0, pair_up: PairUp = pair_up
    ) -> tuple[Frontier, list[TileNode]]:
        """Return what `extend_all` does, and the hashes of higher tiles that the new leaves complete.

        Each is (tile level, index, hash): the root of subtree `index` of 256**level leaves (C2SP tlog-tiles).
        `pair_up` hashes a level; whoever has a faster one than ours brings it along.
        """
        row, nodes, size, left_over = list(hashes), list(self.nodes), self.size >> level, []
        if size << level != self.size:
            raise ValueError(f"subtrees of {1 << level} leaves cannot follow {self.size} leaves")
        new_size, completed = self.size + (len(row) << level), []
        while row:
            if level and level % 8 == 0:  # before the carry joins: `row` is just what is newly complete
                completed += [(level // 8, index, node) for index, node in enumerate(row, size)]
            if size & 1:
                row.insert(0, nodes.pop())
            if len(row) & 1:
                left_over.append(row.pop())
            row = pair_up(row)
            size >>= 1
            level += 1
        return Frontier(new_size, (*nodes, *reversed(left_over))), completed

    def root(self) -> bytes:
        """Return the root of the whole tree (RFC 6962, 2.1); EMPTY_ROOT for size 0."""
        return row_root(self.nodes)
