"""Where the hashes of a tree are kept, so that any cache can serve them (C2SP tlog-tiles).

Cut the tree into tiles of height 8.  Tile (level, index) is the row of up to 256 hashes along the *bottom* of
such a piece; what lies between is recomputed by whoever reads it.  Level 0 tiles hold leaf hashes, and each
hash of a higher tile is the root of one full tile below.  A full tile never changes, so it may be cached for
ever; each level has at most one partial tile, the last.  A tree of 70,000 leaves:

    level 2                       1 hash
    level 1    [256]              17 hashes
    level 0    [256] [256] ...    112 hashes

>>> [(row.full, row.partial) for row in tile_rows(70_000)]
[(273, 112), (1, 17), (0, 1)]
>>> Tile(0, 273, 112).path()
'tile/0/273.p/112'

The entries themselves lie in *bundles*, one beside each level 0 tile, with the same index and width.  Files,
HTTP and caches are the business of `archive` and `api`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from merkle.coordinates import Node
from merkle.errors import FormatError
from merkle.hashing import HASH_SIZE, root_of
from merkle.proof import ReadNodes
from merkle.text import MAX_SIZE

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes of a full tile, and entries of a full bundle."""

MAX_ENTRY_SIZE = 0xFFFF
"""Bytes of the largest entry: a bundle gives its length in 16 bits."""

_MAX_LEVEL = 63
_NUMBER_AND_WIDTH = r"((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?"
_TILE = re.compile(r"tile/([0-9]{1,2})/" + _NUMBER_AND_WIDTH)
_BUNDLE = re.compile(r"tile/entries/" + _NUMBER_AND_WIDTH)


@dataclass(frozen=True, slots=True)
class Tile:
    """A row of `width` hashes on tile level `level`: those numbered index * 256 and on.  Partial below width
    256.

    Raises ValueError for coordinates that no tile has.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level <= _MAX_LEVEL:
            raise ValueError(f"tile levels are 0 to {_MAX_LEVEL}, not {self.level}")
        _check_place(self.index, self.width)

    @property
    def is_full(self) -> bool:
        """Whether the tile has all its 256 hashes and will never change."""
        return self.width == TILE_WIDTH

    def path(self) -> str:
        """Return where the tile is served below the log's prefix, such as "tile/0/x001/x234/067.p/8"."""
        return f"tile/{self.level}/{_place(self.index, self.width)}"

    @staticmethod
    def parse(path: str) -> Tile:
        """Return the tile served at `path`; FormatError for any spelling but that of `path()`."""
        if match := _TILE.fullmatch(path):
            with suppress(ValueError):
                tile = Tile(int(match[1]), *_parse_place(match[2], match[3]))
                if tile.path() == path:
                    return tile
        raise FormatError(f"not a tile path: {path[:100]!r}; expected tile/<level>/<index>[.p/<width>]")


@dataclass(frozen=True, slots=True)
class Bundle:
    """The `width` entries numbered index * 256 and on.  Raises ValueError for coordinates of no bundle."""

    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        _check_place(self.index, self.width)

    @property
    def is_full(self) -> bool:
        """Whether the bundle has all its 256 entries and will never change."""
        return self.width == TILE_WIDTH

    def path(self) -> str:
        """Return where the bundle is served below the log's prefix, such as "tile/entries/x001/x234/067"."""
        return f"tile/entries/{_place(self.index, self.width)}"

    @staticmethod
    def parse(path: str) -> Bundle:
        """Return the bundle served at `path`; FormatError for any spelling but that of `path()`."""
        if match := _BUNDLE.fullmatch(path):
            with suppress(ValueError):
                bundle = Bundle(*_parse_place(match[1], match[2]))
                if bundle.path() == path:
                    return bundle
        raise FormatError(f"not a bundle path: {path[:100]!r}; expected tile/entries/<index>[.p/<width>]")


@dataclass(frozen=True, slots=True)
class TileRow:
    """One level of a tree's tiles: tiles 0 to `full` - 1 are full; if `partial`, one more has that width."""

    level: int
    full: int
    partial: int


@dataclass(frozen=True, slots=True)
class TileSpan:
    """Where a node is found: it is the root over hashes `start` up to `stop` of tile (level, index)."""

    level: int
    index: int
    start: int
    stop: int


def tile_rows(size: int) -> list[TileRow]:
    """Return the tiles that make up a tree of `size`, lowest level first; none for the empty tree."""
    rows: list[TileRow] = []
    while size > 0:
        full, partial = divmod(size, TILE_WIDTH)
        rows.append(TileRow(len(rows), full, partial))
        size = full
    return rows


def tiles_between(old: int, new: int) -> Iterator[Tile]:
    """Yield the tiles that a tree of `new` leaves has and one of `old` leaves had not, lowest level first.

    From 0 on these are all tiles of the tree, left to right in each level: about `new` / 255 of them.
    These are the tiles to write when a log grows: full ones, and at most one partial one a level, which may
    be left out (`Tile.is_full`) where partial tiles are made on demand.
    """
    for row in tile_rows(new):
        before = old >> TILE_HEIGHT * row.level  # hashes of this level
        for index in range(before // TILE_WIDTH, row.full):
            yield Tile(row.level, index)
        if row.partial and before < row.full * TILE_WIDTH + row.partial:
            yield Tile(row.level, row.full, row.partial)


def tile_width(level: int, index: int, size: int) -> int:
    """Return how many hashes tile (level, index) has in a tree of `size`: 0 to 256."""
    return max(0, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))


def tile_for_node(level: int, index: int) -> TileSpan:
    """Return which hashes of which tile make up the perfect subtree of `merkle.coordinates`."""
    tile_level, height = divmod(level, TILE_HEIGHT)
    tile_index, start = divmod(index << height, TILE_WIDTH)
    return TileSpan(tile_level, tile_index, start, start + (1 << height))


def nodes_from_tiles(size: int, read_tiles: Callable[[Sequence[Tile]], Sequence[bytes]]) -> ReadNodes:
    """Return a reader of nodes, for `merkle.proof`, over the tiles of a tree of `size`.

    `read_tiles` is asked once, for each tile once, and returns their bytes in the same order.  The reader
    raises FormatError if a tile has not the width it was asked for with, ValueError for a node that reaches
    beyond `size`.
    """

    def read_nodes(nodes: Sequence[Node]) -> list[bytes]:
        spans = [tile_for_node(node.level, node.index) for node in nodes]
        tiles = list(dict.fromkeys(_tile_of(span, size) for span in spans))
        answers = zip(tiles, read_tiles(tiles), strict=True)
        hashes = {(tile.level, tile.index): _hashes_of(tile, data) for tile, data in answers}
        return [root_of(hashes[span.level, span.index][span.start : span.stop]) for span in spans]

    return read_nodes


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """Return the bytes of a tile: 1 to 256 hashes in a row; ValueError for another number or length."""
    if not 1 <= len(hashes) <= TILE_WIDTH or any(len(value) != HASH_SIZE for value in hashes):
        raise ValueError(f"a tile is made of 1 to {TILE_WIDTH} hashes of {HASH_SIZE} bytes")
    return b"".join(hashes)


def decode_tile(data: bytes) -> list[bytes]:
    """Return the 1 to 256 hashes of a tile; FormatError if its length is not that of a tile."""
    if len(data) % HASH_SIZE or not HASH_SIZE <= len(data) <= HASH_SIZE * TILE_WIDTH:
        raise FormatError(f"a tile is 1 to {TILE_WIDTH} hashes of {HASH_SIZE} bytes, not {len(data)} bytes")
    return [data[start : start + HASH_SIZE] for start in range(0, len(data), HASH_SIZE)]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return a bundle: each entry after its length in two bytes, big-endian (C2SP tlog-tiles, "Log entries").

    Raises ValueError for more than 256 entries or for one longer than 65,535 bytes.
    """
    if len(entries) > TILE_WIDTH:
        raise ValueError(f"a bundle has at most {TILE_WIDTH} entries, not {len(entries)}")
    for entry in entries:
        if len(entry) > MAX_ENTRY_SIZE:
            raise ValueError(f"an entry has at most {MAX_ENTRY_SIZE} bytes, not {len(entry)}")
    return b"".join([part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry)])


def decode_bundle(data: bytes) -> list[bytes]:
    """Return the entries of a bundle; FormatError if it ends within an entry or has more than 256."""
    entries, at = [], 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        entries.append(data[start:at])
    if at != len(data):
        raise FormatError(f"the bundle ends within entry {len(entries) - 1}: {at} bytes, not {len(data)}")
    if len(entries) > TILE_WIDTH:
        raise FormatError(f"a bundle has at most {TILE_WIDTH} entries, not {len(entries)}")
    return entries


def _tile_of(span: TileSpan, size: int) -> Tile:
    width = tile_width(span.level, span.index, size)
    if span.stop > width:
        raise ValueError(f"a tree of size {size} has not all of {span}")
    return Tile(span.level, span.index, width)


def _hashes_of(tile: Tile, data: bytes) -> list[bytes]:
    if len(data) != tile.width * HASH_SIZE:
        raise FormatError(f"{tile.path()} should have {tile.width * HASH_SIZE} bytes, not {len(data)}")
    return decode_tile(data)


def _check_place(index: int, width: int) -> None:
    if not 0 <= index < MAX_SIZE:
        raise ValueError(f"index {index} is outside any log")
    if not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"a width is 1 to {TILE_WIDTH}, not {width}")


def _place(index: int, width: int) -> str:
    """Spell an index in groups of three digits, all but the last marked by x: no file is also a directory."""
    place = f"{index % 1000:03}" if width == TILE_WIDTH else f"{index % 1000:03}.p/{width}"
    while index >= 1000:
        index //= 1000
        place = f"x{index % 1000:03}/{place}"
    return place


def _parse_place(number: str, width: str | None) -> tuple[int, int]:
    """Undo `_place` generously: whoever calls must compare the spelling."""
    return int(number.replace("x", "").replace("/", "")), TILE_WIDTH if width is None else int(width)
