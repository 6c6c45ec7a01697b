"""The second implementation: RFC 6962, 2.1 to 2.1.2, transcribed as it stands, and a tree to ask.

Recursive and slow on purpose, it shares neither code nor method with `merkle`, which climbs by arithmetic on
indices.  Names and slices are the RFC's: MTH, PATH, SUBPROOF; D is a list of entries, k the largest power of
two below n.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from merkle import Node, leaf_hash, node_hash

VECTORS = Path(__file__).parents[1] / "vectors" / "merkle"


def vectors(name: str) -> Any:
    """Return the golden file of that name."""
    return json.loads((VECTORS / f"{name}.json").read_text())


def below(n: int) -> int:
    """Return the largest power of two smaller than n, found by doubling."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d: Sequence[bytes]) -> bytes:
    """Return the Merkle Tree Hash of the entries (2.1)."""
    n = len(d)
    if n == 0:
        return sha256(b"").digest()
    if n == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = below(n)
    return sha256(b"\x01" + mth(d[0:k]) + mth(d[k:n])).digest()


def path(m: int, d: Sequence[bytes]) -> list[bytes]:
    """Return the Merkle audit path for entry m (2.1.1)."""
    n = len(d)
    if n == 1:
        return []
    k = below(n)
    if m < k:
        return [*path(m, d[0:k]), mth(d[k:n])]
    return [*path(m - k, d[k:n]), mth(d[0:k])]


def consistency(m: int, d: Sequence[bytes]) -> list[bytes]:
    """Return the consistency proof from the first m entries, 0 < m <= n (2.1.2, PROOF)."""
    return subproof(m, d, b=True)


def subproof(m: int, d: Sequence[bytes], *, b: bool) -> list[bytes]:
    """Return SUBPROOF(m, D[n], b) (2.1.2)."""
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    k = below(n)
    if m <= k:
        return [*subproof(m, d[0:k], b=b), mth(d[k:n])]
    return [*subproof(m - k, d[k:n], b=False), mth(d[0:k])]


class StoredTree:
    """All perfect subtrees of a tree of small distinct entries; counts how often it was asked."""

    def __init__(self, size: int) -> None:
        self.entries = [index.to_bytes(4, "big") for index in range(size)]
        self.levels = [[leaf_hash(entry) for entry in self.entries]]
        while len(self.levels[-1]) > 1:
            row = self.levels[-1]
            self.levels.append([node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)])
        self.asked = 0

    def read(self, nodes: Sequence[Node]) -> list[bytes]:
        """Return the hashes of these nodes: a `ReadNodes`."""
        self.asked += 1
        return [self.levels[node.level][node.index] for node in nodes]


@cache
def stored_tree(size: int) -> StoredTree:
    """Return a tree of `size`, made once for all tests."""
    return StoredTree(size)
