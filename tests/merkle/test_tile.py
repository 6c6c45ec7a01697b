"""Tiles: their geometry at every boundary, their paths, and the bytes of tiles and bundles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    MAX_ENTRY_SIZE,
    TILE_WIDTH,
    Bundle,
    FormatError,
    Node,
    Tile,
    TileRow,
    TileSpan,
    decode_bundle,
    decode_tile,
    encode_bundle,
    encode_tile,
    frontier_at,
    nodes_from_tiles,
    prove_consistency,
    prove_inclusion,
    root_of,
    tile_for_node,
    tile_rows,
    tile_width,
    tiles_between,
    verify_consistency,
    verify_inclusion,
)
from tests.merkle.rfc6962 import stored_tree

BOUNDARIES = [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 66_000, 70_000]
"""Where mirrors have gone wrong: a tile that is exactly full, one hash short, one hash over."""

LARGE = stored_tree(70_000)
TILES = st.builds(Tile, st.integers(0, 63), st.integers(0, 2**64 - 1), st.integers(1, 256))


def tile_bytes(tile: Tile) -> bytes:
    """Return a tile of the large tree, cut from its levels."""
    start = tile.index * TILE_WIDTH
    return encode_tile(LARGE.levels[8 * tile.level][start : start + tile.width])


def read_tiles(tiles: Sequence[Tile]) -> list[bytes]:
    """Return the bytes of several tiles."""
    return [tile_bytes(tile) for tile in tiles]


def answered(answer: list[bytes], _tiles: Sequence[Tile]) -> list[bytes]:
    """Return `answer`, whatever was asked."""
    return answer


@pytest.mark.parametrize("size", BOUNDARIES)
def test_the_tiles_of_a_size_follow_the_formula_of_the_specification(size: int) -> None:
    """Level l of size s has floor(s / 256**l) hashes: full tiles and at most one partial, never empty."""
    expected = []
    for level in range(64):
        hashes = size // 256**level
        expected += [Tile(level, index) for index in range(hashes // 256)]
        expected += [Tile(level, hashes // 256, hashes % 256)] if hashes % 256 else []
    assert list(tiles_between(0, size)) == expected
    for row in tile_rows(size):
        assert (row.full + bool(row.partial), len(tile_rows(size))) != (0, 0)
        assert tile_width(row.level, row.full, size) == row.partial
        assert tile_width(row.level, row.full + 1, size) == 0
        assert row.full == 0 or tile_width(row.level, row.full - 1, size) == 256


def test_the_examples_of_the_specification_hold() -> None:
    """The two sizes that C2SP tlog-tiles spells out: 256 and 70,000."""
    assert tile_rows(256) == [TileRow(0, 1, 0), TileRow(1, 0, 1)]
    assert tile_rows(70_000) == [TileRow(0, 273, 112), TileRow(1, 1, 17), TileRow(2, 0, 1)]
    assert tile_rows(0) == []


@pytest.mark.parametrize("size", [256, 65_536, 70_000])
def test_each_hash_of_a_higher_tile_is_the_root_of_a_full_tile_below(size: int) -> None:
    """What is served on level 1 and up can be recomputed from the level below it."""
    for tile in tiles_between(0, size):
        if tile.level:
            for number, value in enumerate(decode_tile(tile_bytes(tile))):
                below = Tile(tile.level - 1, tile.index * 256 + number)
                assert root_of(decode_tile(tile_bytes(below))) == value


@given(st.lists(st.sampled_from(BOUNDARIES) | st.integers(0, 70_000), min_size=2, max_size=2).map(sorted))
def test_growing_writes_exactly_the_tiles_that_were_not_there(sizes: list[int]) -> None:
    """Between two sizes each new tile is named once, no finished tile is written again, none is forgotten."""
    old, new = sizes
    assert list(tiles_between(old, new)) == [
        t for t in tiles_between(0, new) if t not in set(tiles_between(0, old))
    ]


@given(st.integers(0, 60), st.integers(0, 2**40))
def test_a_node_is_in_the_tile_that_covers_its_leaves(level: int, index: int) -> None:
    """The hashes named cover the same leaves as the node, within one tile."""
    span = tile_for_node(level, index)
    width = 256**span.level
    assert (span.index * 256 + span.start) * width == index << level
    assert (span.index * 256 + span.stop) * width == index + 1 << level
    assert 0 <= span.start < span.stop <= 256


def test_a_full_tile_is_one_hash_of_the_tile_above() -> None:
    """A node of height 8 is read from the higher tile, not hashed together from the lower."""
    assert tile_for_node(8, 3) == TileSpan(1, 0, 3, 4)
    assert tile_for_node(7, 3) == TileSpan(0, 1, 128, 256)


@given(st.sampled_from(BOUNDARIES[1:]) | st.integers(1, 70_000), st.data())
def test_proofs_can_be_made_from_served_tiles_alone(size: int, data: st.DataObject) -> None:
    """An auditor with the tiles of one checkpoint proves what the log itself would prove."""
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    read = nodes_from_tiles(size, read_tiles)
    root = frontier_at(size, read).root()
    assert root == root_of(LARGE.levels[0][:size])
    proof = prove_inclusion(index, size, read)
    assert proof == prove_inclusion(index, size, LARGE.read)
    verify_inclusion(LARGE.levels[0][index], index, size, root, proof)
    verify_consistency(old, frontier_at(old, read).root(), size, root, prove_consistency(old, size, read))


def test_reading_nodes_asks_for_each_tile_once_and_only_for_those_of_the_size() -> None:
    """A client fetches no partial tile but those of a checkpoint it has seen, and none twice."""
    asked: list[Tile] = []

    def read(tiles: Sequence[Tile]) -> list[bytes]:
        asked.extend(tiles)
        return read_tiles(tiles)

    prove_inclusion(65_536, 70_000, nodes_from_tiles(70_000, read))
    assert len(asked) == len(set(asked))
    assert set(asked) <= set(tiles_between(0, 70_000))


def test_tiles_of_a_wrong_width_and_nodes_beyond_the_size_are_refused() -> None:
    """A truncated tile, or one of another size, is noticed before anything is computed from it."""
    for answer in ([b""], [bytes(32)], [bytes(32 * 4)], [bytes(32 * 3 - 1)]):
        with pytest.raises(FormatError, match="should have 96 bytes"):
            nodes_from_tiles(3, partial(answered, answer))([Node(0, 1)])
    with pytest.raises(ValueError, match="shorter"):
        nodes_from_tiles(3, partial(answered, []))([Node(0, 1)])
    with pytest.raises(ValueError, match="has not all of"):
        nodes_from_tiles(3, read_tiles)([Node(1, 1)])


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1_234_067, 8), "tile/0/x001/x234/067.p/8"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(2, 1_000), "tile/2/x001/000"),
        (Bundle(1_234_067), "tile/entries/x001/x234/067"),
        (Bundle(5, 1), "tile/entries/005.p/1"),
    ],
)
def test_paths_are_spelled_as_in_the_specification(tile: Tile | Bundle, path: str) -> None:
    """The examples of C2SP tlog-tiles, and the ends of each range."""
    assert tile.path() == path
    assert type(tile).parse(path) == tile


NOT_TILE_PATHS = """
tile tile/0 tile/0/ /tile/0/000 tile/0/000/ tile/00/000 tile/01/000 tile/64/000 tile/-1/000 TILE/0/000
tile/0/0 tile/0/00 tile/0/0000 tile/0/1234 tile/0/x000/001 tile/0/001/002 tile/0/x001/x002 tile/0/x1/000
tile/0/X001/000 tile/0/../000 tile/0/٠٠٠ tile/0/x018/x446/x744/x073/x709/x551/616
tile/0/000.p tile/0/000.p/ tile/0/000.p/0 tile/0/000.p/01 tile/0/000.p/256 tile/0/000.p/257 tile/0/000.p/1000
tile/0/000.p/٣ tile/0/000.P/1 tile/entries/000
"""


@pytest.mark.parametrize(
    "path", ["", *NOT_TILE_PATHS.split(), "tile/0/000\n", "tile/0/ 00", "tile/0/" + "x001/" * 2000 + "000"]
)
def test_any_other_spelling_of_a_tile_path_is_refused(path: str) -> None:
    """One tile has one path, so that caches keep one copy; what is no path cannot reach a file."""
    with pytest.raises(FormatError, match="not a tile path"):
        Tile.parse(path)


@pytest.mark.parametrize(
    "path", ["tile/entries/", "tile/entries/x000/001", "tile/entries/000.p/256", "tile/0/000"]
)
def test_any_other_spelling_of_a_bundle_path_is_refused(path: str) -> None:
    """The same for bundles."""
    with pytest.raises(FormatError, match="not a bundle path"):
        Bundle.parse(path)


@given(TILES)
def test_every_tile_and_bundle_is_found_by_its_path(tile: Tile) -> None:
    """Writing and reading a path are inverse, over the whole range of coordinates."""
    assert Tile.parse(tile.path()) == tile
    bundle = Bundle(tile.index, tile.width)
    assert Bundle.parse(bundle.path()) == bundle
    assert tile.is_full == bundle.is_full == (tile.width == 256)


@given(
    st.text(max_size=40)
    | TILES.map(Tile.path).flatmap(lambda path: st.from_regex(path[:9] + r"[x0-9/.p]{0,30}"))
)
def test_any_text_is_a_path_of_one_spelling_or_is_refused(text: str) -> None:
    """Nothing from a URL raises anything but the documented error."""
    for kind in (Tile, Bundle):
        try:
            place = kind.parse(text)
        except FormatError:
            continue
        assert place.path() == text


@pytest.mark.parametrize(
    "arguments", [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 2**64, 1), (0, 0, 0), (0, 0, 257)]
)
def test_coordinates_that_no_tile_has_cannot_be_made(arguments: tuple[int, int, int]) -> None:
    """The limits of the specification hold for those who write, too."""
    with pytest.raises(ValueError, match=r"not|outside"):
        Tile(*arguments)
    if arguments[0] == 0:
        with pytest.raises(ValueError, match=r"not|outside"):
            Bundle(*arguments[1:])


def test_a_tile_has_1_to_256_whole_hashes() -> None:
    """An empty tile is never served, and a torn one never read."""
    hashes = LARGE.levels[0][:256]
    assert decode_tile(encode_tile(hashes)) == hashes
    for bad in ([], [*hashes, hashes[0]], [b"short"], [hashes[0], b"short"]):
        with pytest.raises(ValueError, match="1 to 256 hashes"):
            encode_tile(bad)
    for data in (b"", bytes(31), bytes(33), bytes(257 * 32)):
        with pytest.raises(FormatError, match="1 to 256 hashes"):
            decode_tile(data)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_give_back_their_entries(entries: list[bytes]) -> None:
    """Entries of any content, empty ones included, come back as they were."""
    assert decode_bundle(encode_bundle(entries)) == entries


@given(st.binary(max_size=60))
def test_any_bytes_are_a_bundle_of_one_spelling_or_are_refused(data: bytes) -> None:
    """A torn bundle is refused, never shortened or padded."""
    try:
        entries = decode_bundle(data)
    except FormatError:
        return
    assert encode_bundle(entries) == data


@pytest.mark.parametrize(
    ("data", "entry"),
    [
        (b"\0", 0),
        (b"\1", 0),
        (b"\0\1", 0),
        (b"\0\2a", 0),
        (b"\xff\xff" + bytes(65_534), 0),
        (b"\0\0\0", 1),
        (b"\0\1a\0\1", 1),
    ],
)
def test_a_bundle_that_ends_within_an_entry_is_refused(data: bytes, entry: int) -> None:
    """Cut in a length or in an entry, it says in which entry."""
    with pytest.raises(FormatError, match=f"ends within entry {entry}:"):
        decode_bundle(data)


def test_an_entry_too_long_and_an_entry_too_many_are_refused() -> None:
    """65,535 bytes and 256 entries are the limits, on both sides."""
    largest = bytes(MAX_ENTRY_SIZE)
    assert decode_bundle(encode_bundle([largest])) == [largest]
    with pytest.raises(ValueError, match="at most 65535 bytes"):
        encode_bundle([largest + b"\0"])
    assert len(decode_bundle(encode_bundle([b""] * 256))) == 256
    with pytest.raises(ValueError, match="at most 256 entries"):
        encode_bundle([b""] * 257)
    with pytest.raises(FormatError, match="at most 256 entries"):
        decode_bundle(bytes(2 * 257))
