"""Tiles and bundles are what C2SP tlog-tiles says, at every size that was signed, and at no other."""

from __future__ import annotations

from functools import cache

import pytest

from archive import NotFound, TileNodes, read_bundle, read_tile
from merkle import Bundle, Tile, prove_inclusion, root_nodes, row_root, tile_rows
from tests.archive.published_log import BOUNDARIES, SignedLog, reference_levels


@cache
def big() -> SignedLog:
    """Return a log of 66,000 entries that was signed at each boundary."""
    return SignedLog.of(BOUNDARIES)


@cache
def levels() -> list[list[bytes]]:
    """Return its hashes, level by level, by the reference."""
    return reference_levels(big().leaves())


def edge(size: int) -> list[Tile]:
    """Return the last full tile and the partial one of each level."""
    found = []
    for row in tile_rows(size):
        found += [Tile(row.level, row.full - 1)] if row.full else []
        found += [Tile(row.level, row.full, row.partial)] if row.partial else []
    return found


@pytest.mark.parametrize("size", BOUNDARIES)
def test_tiles_of_every_level_are_those_of_the_specification(size: int) -> None:
    """Level L of size s has floor(s / 256^L) hashes, in full tiles and then one partial tile, never an empty one."""
    with big().open(size) as log:
        for tile in edge(size):
            start = tile.index * 256
            expected = b"".join(levels()[tile.level][start : start + tile.width])
            assert len(expected) == 32 * tile.width
            assert read_tile(log, tile) == expected, tile.path()


def test_the_right_hand_edges_are_the_known_ones() -> None:
    """Size 256 has a level-1 tile of one hash; 65,537 and 66,000 have a partial tile on every level."""
    shape = {size: [(row.full, row.partial) for row in tile_rows(size)] for size in BOUNDARIES}
    assert shape[256] == [(1, 0), (0, 1)]
    assert shape[65_536] == [(256, 0), (1, 0), (0, 1)]
    assert shape[65_537] == [(256, 1), (1, 0), (0, 1)]
    assert shape[66_000] == [(257, 208), (1, 1), (0, 1)]


@pytest.mark.parametrize("size", BOUNDARIES)
def test_bundles_hold_the_leaves_and_nothing_else(size: int) -> None:
    """A bundle is each leaf after its length in two bytes; no private row can be in it."""
    leaves = big().leaves()
    with big().open(size) as log:
        for tile in edge(size):
            if tile.level == 0:
                start = tile.index * 256
                part = leaves[start : start + tile.width]
                expected = b"".join(len(leaf).to_bytes(2) + leaf for leaf in part)
                assert read_bundle(log, Bundle(tile.index, tile.width)) == expected


def test_an_empty_log_has_no_tile() -> None:
    """At size 0 nothing is published, whatever the database holds already."""
    with big().open(0) as log:
        for place in (Tile(0, 0, 1), Tile(0, 0), Tile(1, 0, 1), Tile(63, 0, 1)):
            with pytest.raises(NotFound, match="not published"):
                read_tile(log, place)
        with pytest.raises(NotFound, match="not published"):
            read_bundle(log, Bundle(0, 1))


@pytest.mark.parametrize("size", BOUNDARIES)
def test_nothing_beyond_the_published_size_is_shown(size: int) -> None:
    """The database holds 66,000 entries, but a reader at a smaller size gets none of the tiles that came later."""
    with big().open(size) as log:
        for row in tile_rows(size):
            level_unit = 256**row.level
            for width in range(row.partial + 1, 257, 51):
                if (row.full * 256 + width) * level_unit > size:
                    with pytest.raises(NotFound):
                        read_tile(log, Tile(row.level, row.full, width))
            with pytest.raises(NotFound):
                read_tile(log, Tile(row.level, row.full + 1, 1))


def test_partial_tiles_are_served_for_signed_sizes_only() -> None:
    """With checkpoints at 3, 5, 300 and 700, the widths 3 and 5 exist, 4 never did; 300 leaves 44 of tile 1."""
    signed = SignedLog.of([3, 5, 300, 700])
    shown: dict[int, list[int]] = {}
    with signed.open(700) as log:
        for index in range(3):
            for width in range(1, 256):
                try:
                    tile = read_tile(log, Tile(0, index, width))
                except NotFound:
                    with pytest.raises(NotFound):
                        read_bundle(log, Bundle(index, width))
                    continue
                assert len(tile) == 32 * width
                assert read_bundle(log, Bundle(index, width))
                shown.setdefault(index, []).append(width)
        assert shown == {0: [3, 5], 1: [44], 2: [188]}
        assert [width for width in range(1, 9) if is_there(log, Tile(1, 0, width))] == [1, 2]
    with signed.open(5) as log:
        assert [width for width in range(1, 257) if is_there(log, Tile(0, 0, width))] == [3, 5]


def is_there(log, tile: Tile) -> bool:  # type: ignore[no-untyped-def]
    """Tell whether a tile is published."""
    try:
        read_tile(log, tile)
    except NotFound:
        return False
    return True


def test_a_higher_partial_tile_lives_through_several_sizes() -> None:
    """Level 1 has one hash from 256 to 511 entries: one signed size in between is enough, none is not."""
    with SignedLog.of([300, 800]).open(800) as log:
        assert [width for width in range(1, 9) if is_there(log, Tile(1, 0, width))] == [1, 3]
    with SignedLog.of([255, 800]).open(800) as log:
        assert [width for width in range(1, 9) if is_there(log, Tile(1, 0, width))] == [3]


@pytest.mark.parametrize(
    "tile", [Tile(63, 2**64 - 1), Tile(63, 0, 1), Tile(0, 2**64 - 1, 255), Tile(8, 0, 1)], ids=Tile.path
)
def test_a_tile_of_no_possible_log_is_not_published(tile: Tile) -> None:
    """Coordinates that need more entries than 64 bits count are refused before anything is read."""
    with big().open(66_000) as log, pytest.raises(NotFound):
        read_tile(log, tile)


def test_proofs_through_remembered_tiles_are_those_of_the_log() -> None:
    """A reader that remembers what it read gives the same nodes as one that reads each anew, at every size."""
    with big().open(66_000) as log:
        nodes = TileNodes(log)
        for size in (257, 65_537, 66_000):
            assert row_root(nodes(root_nodes(size).nodes)) == log.root(size)
            for index in (0, 200, 255, 256, size - 1):
                assert prove_inclusion(index, size, nodes) == prove_inclusion(index, size, log.read_nodes)
