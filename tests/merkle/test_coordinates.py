"""Coordinates: which perfect subtrees a range, a root or a proof is made of."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import Node, Plan, consistency_nodes, inclusion_nodes, node_hash, range_nodes, root_nodes
from tests.merkle.rfc6962 import stored_tree

SIZES = st.integers(0, 2**63)


def leaves_of(node: Node) -> range:
    """Return the leaves that a node covers."""
    return range(node.index << node.level, node.index + 1 << node.level)


@given(st.tuples(SIZES, SIZES).map(sorted))
def test_a_range_is_covered_gapless_and_from_left_to_right(bounds: list[int]) -> None:
    """Each leaf of the range belongs to exactly one of the subtrees, whatever the size of the log."""
    at, end = bounds
    nodes = range_nodes(at, end)
    for node in nodes:
        assert leaves_of(node).start == at
        at = leaves_of(node).stop
    assert at == end
    assert len(nodes) <= 2 * 64


@given(st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted))
def test_a_range_is_covered_by_as_few_subtrees_as_can_be(bounds: list[int]) -> None:
    """No two neighbours could be named by their parent instead."""
    nodes = range_nodes(*bounds)
    for left, right in pairwise(nodes):
        assert not (left.level == right.level and left.index % 2 == 0)


@given(SIZES)
def test_the_nodes_of_a_root_are_one_for_each_1_bit_of_the_size(size: int) -> None:
    """Exactly what a frontier holds, the largest first."""
    levels = [node.level for node in root_nodes(size).nodes]
    assert levels == [bit for bit in range(64, -1, -1) if size >> bit & 1]


@given(st.integers(1, 2**63), st.data())
def test_no_plan_asks_for_a_node_that_the_tree_does_not_have_or_asks_twice(
    size: int, data: st.DataObject
) -> None:
    """Whatever is asked of the store exists in it, however large the log."""
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    for plan in (inclusion_nodes(index, size), consistency_nodes(old, size)):
        assert all(leaves_of(node).stop <= size for node in plan.nodes)
        assert len(set(plan.nodes)) == len(plan.nodes) <= 2 * 64


@given(st.integers(1, 2**63), st.data())
def test_an_inclusion_plan_and_the_leaf_cover_the_tree_exactly(size: int, data: st.DataObject) -> None:
    """The proof speaks of every other leaf once, and of the leaf itself not at all."""
    index = data.draw(st.integers(0, size - 1))
    spans = sorted((leaves_of(n).start, leaves_of(n).stop) for n in inclusion_nodes(index, size).nodes)
    at = 0
    for start, stop in sorted([*spans, (index, index + 1)]):
        assert start == at
        at = stop
    assert at == size


def test_plans_outside_the_tree_are_refused() -> None:
    """A question that no tree answers is an error of the caller, not an empty plan."""
    for index, size in ((0, 0), (-1, 5), (5, 5), (6, 5)):
        with pytest.raises(ValueError, match="has no entry"):
            inclusion_nodes(index, size)
    for old, new in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="no consistency proof"):
            consistency_nodes(old, new)
    with pytest.raises(ValueError, match="-1 leaves"):
        root_nodes(-1)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_too_few_or_too_many_hashes_are_refused(number: int) -> None:
    """A store that answers something else than it was asked never becomes a proof."""
    plan = inclusion_nodes(4, 7)
    with pytest.raises(ValueError, match="3 nodes were asked for"):
        plan.combine(stored_tree(8).levels[0][:number])


def test_an_empty_plan_combines_to_an_empty_answer() -> None:
    """A proof between equal sizes is empty, and needs nothing read."""
    assert Plan(()).combine([]) == []
    assert consistency_nodes(7, 7) == consistency_nodes(0, 7) == Plan(())


# The tree of seven leaves that RFC 6962, 2.1.3 draws, by the letters that it gives to the nodes.
a, b, c, d, e, f, j = (Node(0, index) for index in range(7))
g, h, i = (Node(1, index) for index in range(3))
k = Node(2, 0)


@pytest.mark.parametrize(
    ("index", "parts"),
    [(0, ((b,), (h,), (i, j))), (3, ((c,), (g,), (i, j))), (4, ((f,), (j,), (k,))), (6, ((i,), (k,)))],
)
def test_inclusion_proofs_are_those_that_the_rfc_draws(
    index: int, parts: tuple[tuple[Node, ...], ...]
) -> None:
    """The audit paths of RFC 6962, 2.1.3; its node l, over leaves 4 to 6, is made of i and j."""
    assert inclusion_nodes(index, 7).parts == parts


@pytest.mark.parametrize(
    ("old", "parts"),
    [(3, ((c,), (d,), (g,), (i, j))), (4, ((i, j),)), (6, ((i,), (j,), (k,))), (1, ((b,), (h,), (i, j)))],
)
def test_consistency_proofs_are_those_that_the_rfc_draws(
    old: int, parts: tuple[tuple[Node, ...], ...]
) -> None:
    """The proofs of RFC 6962, 2.1.3, from the trees of 3, 4 and 6 leaves to that of seven; and from that of one."""
    assert consistency_nodes(old, 7).parts == parts


def test_hashes_are_combined_part_by_part() -> None:
    """Each hash of an answer is made of its own nodes, in the order in which they were asked for."""
    one, two, three, four, five, six = (bytes([number]) * 32 for number in range(6))
    plan = Plan(((a,), (g, c), (i, d, e)))
    assert plan.nodes == (a, g, c, i, d, e)
    assert plan.combine([one, two, three, four, five, six]) == [
        one,
        node_hash(two, three),
        node_hash(four, node_hash(five, six)),
    ]
