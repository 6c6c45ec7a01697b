r"""Which stored hashes answer which question about a tree.

Name a perfect subtree by (level, index): it covers the leaves index * 2**level up to (index + 1) * 2**level.
Such a hash never changes once its leaves exist, so these are the hashes worth storing.  Every question about
a tree (its root, a proof) asks for the roots over some ranges of leaves; only the range at the right-hand
edge is not perfect, and that is a row of perfect subtrees again.

    size 7, proof for entry 4:          *
                                   /         \
                               (2,0)          *       the proof: entry 5, then 6, then 0..3
                              0..3         /     \
                                       (1,2)    (0,6)     = (0,5), (0,6), (2,0)
                                       4   5      6

>>> inclusion_nodes(4, 7).nodes
(Node(level=0, index=5), Node(level=0, index=6), Node(level=2, index=0))

So every answer is made in three steps: *plan* which nodes are needed (here, pure), *read* them in one go (the
caller's business), *combine* them (`Plan.combine`, pure).  `merkle.proof` puts the three together, and
`merkle.tile` says where a node is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from merkle.hashing import row_root


@dataclass(frozen=True, slots=True)
class Node:
    """The perfect subtree over the leaves index * 2**level up to (index + 1) * 2**level, exclusive."""

    level: int
    index: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Which nodes to read, and which of them make up each hash of the answer.

    `parts` holds, for each hash of the answer, a row of perfect subtrees, largest first.
    """

    parts: tuple[tuple[Node, ...], ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes to read, each once, in the order in which `combine` takes their hashes."""
        return tuple(node for part in self.parts for node in part)

    def combine(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Return the answer, made of the hashes of `nodes` in order; ValueError for another number."""
        needed = sum(map(len, self.parts))
        if len(hashes) != needed:
            raise ValueError(f"{needed} nodes were asked for, {len(hashes)} hashes came back")
        answer, start = [], 0
        for part in self.parts:
            answer.append(row_root(hashes[start : start + len(part)]))
            start += len(part)
        return answer


def split(size: int) -> int:
    """Return where a tree of 2 or more divides: at the largest power of two below `size` (RFC 6962, 2.1)."""
    return 1 << (size - 1).bit_length() - 1


def range_nodes(begin: int, end: int) -> tuple[Node, ...]:
    """Return the fewest perfect subtrees that cover the leaves `begin` up to `end`, left to right."""
    nodes = []
    while begin < end:
        aligned = (begin & -begin).bit_length() - 1 if begin else end.bit_length()
        level = min(aligned, (end - begin).bit_length() - 1)
        nodes.append(Node(level, begin >> level))
        begin += 1 << level
    return tuple(nodes)


def root_nodes(size: int) -> Plan:
    """Plan the root of the first `size` leaves; its nodes are those of a Frontier, in the same order."""
    if size < 0:
        raise ValueError(f"a tree cannot have {size} leaves")
    return Plan((range_nodes(0, size),))


def inclusion_nodes(index: int, size: int) -> Plan:
    """Plan the proof that entry `index` is in the tree of `size`, leaf's sibling first (RFC 6962, 2.1.1).

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of size {size} has no entry {index}")
    ranges, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return _plan(ranges)


def consistency_nodes(old: int, new: int) -> Plan:
    """Plan the proof that the tree of size `old` is a prefix of that of size `new` (RFC 6962, 2.1.2).

    The plan is empty for equal sizes and for old = 0.  Raises ValueError unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ValueError(f"no consistency proof leads from size {old} to size {new}")
    ranges, begin, end = [], 0, new
    while old not in (0, end):
        middle = begin + split(end - begin)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    if begin > 0:  # the old tree's last subtree, which whoever knows only the old root cannot know
        ranges.append((begin, end))
    return _plan(ranges)


def _plan(ranges: list[tuple[int, int]]) -> Plan:
    """Turn ranges found from the root downwards into a plan, which goes upwards."""
    return Plan(tuple(range_nodes(begin, end) for begin, end in reversed(ranges)))
