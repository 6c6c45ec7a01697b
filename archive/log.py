"""The log as readers see it: entries, hashes and checkpoints up to one size, and nothing beyond.

A `Log` is a view of the database together with a size that was published.  All reading goes through it, so that
no reader can see an entry before it is final.  Level-0 hashes are not stored, they are a function of the leaves;
above them stands one 32-byte node for each 256 (65,536, …) leaves, so that a proof costs a handful of reads.

    source = PublishedLog(store, published.get)
    with source.open() as log:
        for index, row in log.rows(start, log.size): ...

Keep a log no longer than its view.  Writing is the business of `archive.archiver`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from archive.block import Block, decode_block
from archive.bundles import unbundle
from archive.cutting import BUNDLE_ENTRIES
from archive.entry import LEAF_CONTROL, LEAF_PRIVATE, LEAF_PRIVATE_SIZE, parse_leaf
from archive.errors import OLDER_COPY, FormatError, IntegrityError, NotFound, Unavailable
from archive.kernel import kernel
from archive.picking import Share
from archive.plan import Head, node_key
from archive.ports import Store, View
from archive.twin import Picked
from merkle import Frontier, Node, frontier_at, leaf_hash, root_of

TILE_LEVELS = 8
_PRIVATE = bytes((LEAF_PRIVATE,))
_Answer = TypeVar("_Answer")


class Log:
    """Entries 0…size-1 of one log."""

    def __init__(self, view: View, size: int) -> None:
        self._view = view
        self.size = size

    def leaves(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, leaf) for start <= index < stop; `stop` is cut to the size."""
        return self._parts("leaves", 2, start, min(stop, self.size))

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, private row) for start <= index < stop; a control entry's row is empty."""
        return self._parts("rows", 4, start, min(stop, self.size))

    def picked(
        self, start: int, stop: int, share: Share, known: dict[bytes, _Answer]
    ) -> Iterator[tuple[bytes, Picked[_Answer]]]:
        """Yield each bundle of the database with what a reader wants of its rows start <= index < stop.

        What `share` and `known` are, and what of a bundle is said, says `archive.twin.pick_rows`.  The rows of a bundle
        are at most 256 and about 1 MiB, or one that is larger.  Raises FormatError for a row that is none,
        IntegrityError where one is missing.
        """
        stop, expected = min(stop, self.size), start
        for key, value in self._scan("rows", start, stop):
            first = int.from_bytes(key)
            found = kernel.pick_rows(value, first, start, stop, share, known)
            if found[0] <= start:
                continue
            if max(first, start) != expected:
                break
            yield value, found
            expected = found[0]
        if expected < stop:
            raise IntegrityError(f"table rows: entry {expected} is missing")

    def controls(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, leaf) of the control entries with start <= index < stop; far quicker than all leaves.

        Raises IntegrityError where an entry of these is missing, though it might have been no control entry.
        """
        stop = min(stop, self.size)
        if start >= stop:
            return
        expected = start - start % BUNDLE_ENTRIES
        for key, value in self._view.scan("leaves", expected.to_bytes(8), stop.to_bytes(8)):
            first = int.from_bytes(key)
            if first != expected and not expected < first <= start:  # what lies before is nobody's question
                break
            expected = first + _private_leaves(value)
            if expected > first:
                continue
            for index, leaf in enumerate(unbundle(value, 2), first):
                expected = index + 1
                if start <= index < stop and leaf[1:2] == bytes((LEAF_CONTROL,)):
                    yield index, leaf
        if expected < stop:
            raise IntegrityError(f"table leaves: entry {max(expected, start)} is missing")

    def leaf(self, index: int) -> bytes:
        """Return one leaf; raise NotFound beyond the size."""
        return self._one("leaves", 2, index)

    def row(self, index: int) -> bytes:
        """Return one private row; raise NotFound beyond the size."""
        return self._one("rows", 4, index)

    def checkpoint(self) -> tuple[int, bytes]:
        """Return (size, signed note) of the newest checkpoint; raise NotFound for an empty log."""
        return self.covering(self.size - 1)

    def covering(self, index: int) -> tuple[int, bytes]:
        """Return (size, signed note) of the first checkpoint that covers an entry; raise NotFound beyond the size."""
        stop = (self.size + 1).to_bytes(8)
        for key, note in self._view.scan("checkpoints", (index + 1).to_bytes(8), stop):
            return int.from_bytes(key), note
        raise NotFound(f"no checkpoint covers entry {index}; the log has {self.size} entries")

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        """Yield (size, signed note) of every checkpoint up to the size."""
        for key, note in self._view.scan("checkpoints", b"", (self.size + 1).to_bytes(8)):
            yield int.from_bytes(key), note

    def blocks(self, number: int = 0) -> Iterator[Block]:
        """Yield every block up to the size, from block `number` on."""
        for _, data in self._view.scan("blocks", number.to_bytes(8)):
            block = decode_block(data)
            if block.size > self.size:
                return
            yield block

    def raw(self, table: str, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of a table as they are stored, published or not: for checks only."""
        return self._view.scan(table, start, stop)

    def raw_size(self) -> int:
        """Return how far the database goes by its last block or, if that is damaged, by its last checkpoint."""
        try:
            return load_size(self._view)
        except FormatError:
            last = self._view.last("checkpoints")
            return 0 if last is None else int.from_bytes(last[0][:8])

    def node(self, level: int, index: int) -> bytes | None:
        """Return the stored hash of subtree `index` of 256^level leaves (level from 1), or None."""
        return self._view.get("nodes", node_key(level, index))

    def root(self, size: int | None = None) -> bytes:
        """Return the root at `size` (the log's own by default), recomputed from stored nodes and leaves."""
        return self.frontier(self.size if size is None else size).root()

    def frontier(self, size: int) -> Frontier:
        """Return the frontier at `size`."""
        return frontier_at(size, self.read_nodes)

    def read_nodes(self, nodes: Sequence[Node]) -> list[bytes]:
        """Return the hashes of perfect subtrees (level, index); raise IntegrityError where one is missing."""
        return [self._node(node.level, node.index) for node in nodes]

    def _node(self, level: int, index: int) -> bytes:
        tile_level, rest = divmod(level, TILE_LEVELS)
        if tile_level and not rest:
            if (value := self._view.get("nodes", node_key(tile_level, index))) is None:
                raise IntegrityError(f"node {index} of tile level {tile_level} is missing")
            return value
        start, width = index << rest, 1 << rest
        if tile_level:
            keys = (node_key(tile_level, start), node_key(tile_level, start + width))
            row = [value for _, value in self._view.scan("nodes", *keys)]
        else:
            row = [leaf_hash(leaf) for _, leaf in self._parts("leaves", 2, start, start + width)]
        if len(row) != width:
            raise IntegrityError(f"{width - len(row)} hashes below node {index} of level {level} are missing")
        return root_of(row)

    def _one(self, table: str, width: int, index: int) -> bytes:
        if 0 <= index < self.size:
            for _, part in self._parts(table, width, index, index + 1):
                return part
        raise NotFound(f"entry {index} does not exist; the log has {self.size} entries")

    def _scan(self, table: str, start: int, stop: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the bundles that hold the entries start <= index < stop, and perhaps a few before them."""
        if start >= stop:
            return
        # A bundle never crosses a multiple of 256, so the one that holds `start` begins at or after it.
        exact = self._view.get(table, start.to_bytes(8)) is not None
        floor = start if exact else start - start % BUNDLE_ENTRIES
        yield from self._view.scan(table, floor.to_bytes(8), stop.to_bytes(8))

    def _parts(self, table: str, width: int, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        expected = start
        for key, value in self._scan(table, start, stop):
            for index, part in enumerate(unbundle(value, width), int.from_bytes(key)):
                if index < start:
                    continue
                if index >= stop:
                    return
                if index != expected:
                    raise IntegrityError(f"table {table}: entry {expected} is missing")
                yield index, part
                expected += 1
        if expected < stop:
            raise IntegrityError(f"table {table}: entry {expected} is missing")


def _private_leaves(bundle: bytes) -> int:
    """Return how many leaves a bundle of private leaves has; 0 for any other.

    Each of them takes the same 60 bytes, its kind at the fourth.
    """
    count, rest = divmod(len(bundle), 2 + LEAF_PRIVATE_SIZE)
    return count if not rest and bundle[3 :: 2 + LEAF_PRIVATE_SIZE] == _PRIVATE * count else 0


class LogSource:
    """Where a reader gets a `Log` from, again and again: a store, and what is published of it.

    `published` is asked before each view begins; a view begun later holds at least that much.
    """

    def __init__(self, store: Store, published: Callable[[], int]) -> None:
        self._store, self.published = store, published

    @contextmanager
    def open(self, size: int | None = None) -> Iterator[Log]:
        """Return the log at its published size, or at a smaller `size`; it ends with the context."""
        size = self.published() if size is None else size
        with self._store.view() as view:
            yield Log(view, size)


class PublishedLog(LogSource):
    """A log of which an archiver has published so much that the database must hold.

    A database that ends before is an older copy, brought back by somebody.  What was shown may be gone from it, so
    nothing of it is shown: `open` raises Unavailable, and this is the one place that decides so.
    """

    @contextmanager
    def open(self, size: int | None = None) -> Iterator[Log]:
        """Return the log as `LogSource.open` does; raise Unavailable if the database ends before what is published."""
        published = self.published()
        with self._store.view() as view:
            if (held := _held(view)) < published:
                raise Unavailable(
                    f"the database holds {held:,} of the {published:,} entries that were published, it is an older "
                    f'copy; nothing is read from it (docs/recovery.md, "{OLDER_COPY}")',
                    section=OLDER_COPY,
                )
            yield Log(view, published if size is None else size)


def _held(view: View) -> int:
    """Return how far a database goes by its last checkpoint; nothing is decoded, for every reader asks."""
    last = view.last("checkpoints")
    return 0 if last is None else int.from_bytes(last[0])


def load_size(view: View) -> int:
    """Return the size of the log in a database, published or not: for offline checks only."""
    last = view.last("blocks")
    return 0 if last is None else decode_block(last[1]).size


def size_of(view: View) -> int:
    """Return the size to check a database up to: that of the last block, or what else says how far it goes."""
    return Log(view, 0).raw_size()


def load_head(view: View) -> Head:
    """Return the head that the database stands at; raise IntegrityError if its tables disagree about it."""
    last = view.last("blocks")
    if last is None:
        return Head()
    block = decode_block(last[1])
    log = Log(view, block.size)
    frontier = log.frontier(block.size)
    if frontier.root() != block.root:
        raise IntegrityError(f"block {block.number}: its root is not that of the entries; run verify-log")
    time_s = parse_leaf(log.leaf(block.size - 1)).time_s
    return Head(frontier, time_s, block.number + 1, block.hash())
