"""The frontier: however a tree grows, it ends at the same edge and the same root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import EMPTY_ROOT, Frontier, leaf_hash, root_of
from tests.merkle.rfc6962 import mth, stored_tree

LEAVES = stored_tree(3000).levels[0]


def test_one_leaf_after_another_gives_the_root_of_every_prefix() -> None:
    """At each size the frontier names the root that the RFC defines for that prefix."""
    frontier, entries = Frontier(), stored_tree(70).entries
    for size, entry in enumerate(entries):
        assert frontier.size == size
        assert frontier.root() == mth(entries[:size])
        frontier = frontier.extend(leaf_hash(entry))


@given(st.lists(st.integers(0, 700), max_size=4))
def test_growth_in_any_portions_gives_the_same_frontier(portions: list[int]) -> None:
    """Commits may be of any size: the edge depends on the leaves alone."""
    frontier, single = Frontier(), Frontier()
    for portion in portions:
        leaves = LEAVES[frontier.size : frontier.size + portion]
        frontier = frontier.extend_all(iter(leaves))
        for leaf in leaves:
            single = single.extend(leaf)
    assert frontier == single == Frontier.of(LEAVES[: sum(portions)])
    assert frontier.root() == root_of(LEAVES[: sum(portions)])


@given(st.integers(0, 20), st.integers(0, 3), st.integers(0, 6))
def test_whole_subtrees_may_be_added_at_once(before: int, level: int, number: int) -> None:
    """Adding roots of perfect subtrees equals adding their leaves, so that full tiles need not be opened."""
    begin = before << level
    roots = stored_tree(3000).levels[level][before : before + number]
    end = begin + (number << level)
    assert Frontier.of(LEAVES[:begin]).extend_all(roots, level=level) == Frontier.of(LEAVES[:end])


@pytest.mark.parametrize(
    "portions", [[70_000], [255, 1, 1], [1, 65_535, 256, 511], [256, 256, 65_024, 1_000]]
)
def test_growing_names_each_completed_hash_of_the_higher_tiles_once(portions: list[int]) -> None:
    """What the archive writes to tile levels 1 and up is, in all, exactly what those levels hold."""
    tree, frontier, written = stored_tree(70_000), Frontier(), []
    for portion in portions:
        frontier, nodes = frontier.grow(tree.levels[0][frontier.size : frontier.size + portion])
        written += nodes
    assert frontier == Frontier.of(tree.levels[0][: sum(portions)])
    for level in (1, 2):
        expected = list(enumerate(tree.levels[8 * level][: sum(portions) >> 8 * level]))
        assert [(index, value) for at, index, value in written if at == level] == expected
    assert {level for level, _, _ in written} <= {1, 2}


def test_a_subtree_cannot_follow_leaves_that_do_not_fill_one() -> None:
    """A subtree of four leaves has no place after six."""
    with pytest.raises(ValueError, match="subtrees of 4 leaves cannot follow 6 leaves"):
        Frontier.of(LEAVES[:6]).extend_all(stored_tree(3000).levels[2][:1], level=2)


def test_extending_leaves_the_old_frontier_alone() -> None:
    """A frontier is a value: a commit that fails after planning has changed nothing."""
    frontier = Frontier.of(LEAVES[:7])
    nodes = frontier.nodes
    frontier.extend(LEAVES[7])
    frontier.extend_all(LEAVES[7:99])
    assert (frontier.size, frontier.nodes) == (7, nodes)


@pytest.mark.parametrize(("size", "number"), [(0, 1), (1, 0), (6, 1), (6, 3), (-1, 1), (-2, 1)])
def test_a_frontier_that_does_not_fit_its_size_cannot_be_made(size: int, number: int) -> None:
    """A truncated or foreign saved frontier is noticed before it can name a wrong root."""
    with pytest.raises(ValueError, match=f"cannot cover {size} leaves"):
        Frontier(size, (EMPTY_ROOT,) * number)


@pytest.mark.parametrize("level", range(1, 8))
def test_tile_levels_are_counted_up_to_the_top_of_any_tree(level: int) -> None:
    """Whole subtrees of 256^level leaves are hashes of that tile level, and numbered from what is there already."""
    frontier, nodes = Frontier().grow([LEAVES[0]], level=8 * level)
    assert nodes == [(level, 0, LEAVES[0])]
    assert frontier.grow([LEAVES[1]], level=8 * level)[1] == [(level, 1, LEAVES[1])]
