"""Tiles and bundles of a published log, made when they are asked for (C2SP tlog-tiles).

Nothing of a tile is stored but what cannot be computed cheaply (docs/adr/0003-no-stored-leaf-hashes.md): the hashes
of level 0 are those of the leaves, the hashes of higher levels are the log's nodes.  So partial tiles cost no disk,
and may be served for every size that was ever signed.  Exactly those are: a partial tile that belongs to no signed
size would show entries in a state of the log that nobody has vouched for.

    read_tile(log, Tile(0, 273, 112))        the hashes of entries 69,888…69,999, if some checkpoint has size 70,000

>>> from archive.memory_store import MemoryStore
>>> from archive.plan import TABLES, ControlDraft, Head, plan
>>> store = MemoryStore(TABLES)
>>> store.commit(plan(Head(), "example.org/log", [ControlDraft({"n": n}) for n in range(3)], 5, b"", str.encode).writes)
>>> with store.view() as view:
...     len(read_tile(Log(view, 3), Tile(0, 0, 3)))
96

Paths and geometry are `merkle.tile`; HTTP is `api.log`; the same files in a folder, `archive.static`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from archive.errors import NotFound
from archive.log import Log
from merkle import (
    TILE_WIDTH,
    Bundle,
    Node,
    Tile,
    encode_bundle,
    encode_tile,
    leaf_hash,
    nodes_from_tiles,
    tile_width,
)

TILE_HEIGHT: Final = 8


def read_tile(log: Log, tile: Tile) -> bytes:
    """Return the bytes of a tile: 32 for each of its hashes; raise NotFound if no published size has it."""
    _check_published(log, tile.level, tile.index, tile.width, tile.path())
    return encode_tile(_hashes(log, tile))


def read_bundle(log: Log, bundle: Bundle) -> bytes:
    """Return the bytes of an entry bundle, leaves only; raise NotFound if no published size has it."""
    _check_published(log, 0, bundle.index, bundle.width, bundle.path())
    start = bundle.index * TILE_WIDTH
    return encode_bundle([leaf for _, leaf in log.leaves(start, start + bundle.width)])


class TileNodes:
    """Reads the nodes that proofs need, for `merkle.proof`, and remembers them.

    A node never changes, so proofs at any size of the log may share one reader: the proofs of 256 neighbours then
    cost little more than the hashing of their tile.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._tiles: dict[Tile, bytes] = {}
        self._nodes: dict[Node, bytes] = {}
        self._read = nodes_from_tiles(log.size, self._read_tiles)

    def __call__(self, nodes: Sequence[Node]) -> list[bytes]:
        """Return the hashes of perfect subtrees; ValueError for one that reaches beyond the log's size."""
        new = [node for node in dict.fromkeys(nodes) if node not in self._nodes]
        self._nodes.update(zip(new, self._read(new), strict=True))
        return [self._nodes[node] for node in nodes]

    def _read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        for tile in tiles:
            if tile not in self._tiles:
                self._tiles[tile] = encode_tile(_hashes(self._log, tile))
        return [self._tiles[tile] for tile in tiles]


def _hashes(log: Log, tile: Tile) -> list[bytes]:
    assert tile.width <= tile_width(tile.level, tile.index, log.size), f"{tile.path()} is not in this log"
    start = tile.index * TILE_WIDTH
    if tile.level == 0:
        return [leaf_hash(leaf) for _, leaf in log.leaves(start, start + tile.width)]
    level = tile.level * TILE_HEIGHT
    return log.read_nodes([Node(level, index) for index in range(start, start + tile.width)])


def _check_published(log: Log, level: int, index: int, width: int, path: str) -> None:
    """Raise NotFound unless some signed size up to the log's has this tile with just this width.

    A tile of full width is in every size from its completion on.  A partial one is in those sizes only that have
    this many hashes on its level, and one of these must have a checkpoint.
    """
    unit = TILE_WIDTH**level
    least = (index * TILE_WIDTH + width) * unit  # the smallest size with so many hashes on this level
    if least > log.size:
        raise NotFound(f"{path} is not published; the log has {log.size} entries")
    if width < TILE_WIDTH and log.covering(least - 1)[0] >= least + unit:
        raise NotFound(f"{path} is not published: it belongs to no size that was signed")
