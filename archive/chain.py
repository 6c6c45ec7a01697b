"""The chain of blocks, read from one end to the other: every commit names the one before it, and none is missing.

Blocks are few and small, so one process reads them in order while others hash leaves.  What a block says about a root
is only passed on here; `archive.fsck` compares it once the leaves are known.  After a block that is missing or cannot
be read, the chain is taken up again at the next one, so that one hole is one finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archive.block import Block, decode_block
from archive.errors import FormatError
from archive.findings import Finding
from archive.log import Log
from archive.plan import node_key
from archive.seal import Seal

NODE_LEVELS = 8


class Chain:
    """How far the chain was followed."""

    def __init__(self, number: int, previous: bytes, size: int) -> None:
        self.number, self.previous, self.size = number, previous, size
        """Number of the next block, hash of the last one (empty: unknown), size of the log after it."""
        self.blocks = 0
        self._holed = False
        self._found: list[Finding] = []

    def taken(self) -> list[Finding]:
        """Return the findings since the last call."""
        found, self._found = self._found, []
        return found

    def read(self, log: Log, stop: int, end: int) -> tuple[list[tuple[int, bytes]], bool]:
        """Return (size, root) of the blocks that end up to `stop`, and whether none of them is missing.

        `end` is the size of the log.
        """
        ends, whole = [], True
        # From the very first key on, so that nothing hides before block 0.
        for key, value in log.raw("blocks", self.number.to_bytes(8) if self.number else b""):
            block = self._decoded(key, value)
            if block is not None and block.size > stop:
                break
            if block is None or not self._follows(block):
                whole = False
            if block is not None and block.size > self.size:
                ends.append((block.size, block.root))
                self.size = block.size
        if stop == end and self.size < stop:
            whole = False
            self._note("blocks", self.size, "no block ends with the last entry", "missing")
        return ends, whole

    def _decoded(self, key: bytes, value: bytes) -> Block | None:
        try:
            block = decode_block(value)
            if key == block.number.to_bytes(8):
                return block
            wrong = f"block {block.number} stands under key {key.hex()}"
        except FormatError as error:
            wrong = f"key {key.hex()}: {error}"
        self._note("blocks", self.size, wrong, "order")
        if len(key) != 8:  # beside the chain, which goes on as if it were not there
            return None
        self.number, self.previous, self._holed = int.from_bytes(key[:8]) + 1, b"", True
        return None

    def _follows(self, block: Block) -> bool:
        followed = (block.number, block.first) == (self.number, self.size) or self._holed
        if not followed:
            detail = f"block {self.number} from entry {self.size} is missing; block {block.number} follows"
            self._note("blocks", self.size, detail, "missing")
        elif self.previous and block.previous != self.previous:
            self._note("chain", block.first, f"block {block.number} does not name the block before it")
        self.number, self.previous, self._holed = block.number + 1, block.hash(), False
        self.blocks += 1
        return followed

    def _note(self, check: str, index: int, detail: str, kind: str = "altered") -> None:
        self._found.append(Finding(check, index, detail, kind))


def block_hash(log: Log, number: int) -> bytes | None:
    """Return the hash of a stored block, or None if there is none that can be read."""
    block = _stored(log, number)
    return None if block is None else block.hash()


def sealed_blocks(log: Log, seals: Iterable[Seal]) -> Iterator[Finding]:
    """Find seals that were written after another commit than the one that ends there now.

    Nobody signs the chain: whoever can write the database can join two commits, and number the later ones anew.  A seal
    knows the number of the last commit.
    """
    for seal in seals:
        if 0 < seal.size <= log.size:
            block = _stored(log, seal.block)
            if block is None or block.size != seal.size:
                detail = f"block {seal.block} ended with it when it was sealed: commits were joined or divided since"
                yield Finding("seal", seal.size - 1, detail)


def _stored(log: Log, number: int) -> Block | None:
    key = number.to_bytes(8)
    for found, value in log.raw("blocks", key):
        try:
            return decode_block(value) if found == key else None
        except FormatError:
            return None
    return None


def strays(log: Log) -> list[Finding]:
    """Find what lies beyond the last block of the database as it stands now, which may have grown meanwhile."""
    end = log.raw_size()
    places: list[tuple[str, bytes, bytes | None]] = [
        ("leaves", end.to_bytes(8), None),
        ("rows", end.to_bytes(8), None),
        ("checkpoints", (end + 1).to_bytes(8), None),
        ("nodes", b"", node_key(1, 0)),
    ]
    places += [
        ("nodes", node_key(level, end >> 8 * level), node_key(level + 1, 0))
        for level in range(1, NODE_LEVELS + 1)
    ]
    places.append(("nodes", node_key(NODE_LEVELS + 1, 0), None))
    found = []
    for table, start, stop in places:
        if (key := next((key for key, _ in log.raw(table, start, stop)), None)) is not None:
            detail = f"table {table}: something lies under key {key.hex()}, beyond what {end} entries have"
            found.append(Finding("stray", None, detail, "stray"))
    return found
