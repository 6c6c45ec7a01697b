"""A block: what one commit appends, chained to the block before.

The tree proves entries; the chain tells commits: none can be taken out of the middle or put between unless all later
ones are made anew.  Nobody signs it, so that whoever could do that is found by the seal, which knows the number of the
last one, or by an earlier check, which knows its hash.  Tree and chain are kept apart on purpose and checked against
each other: a block names the root that the tree must have after it.  Layout: docs/formats/block.md.

>>> first = Block(0, 0, 3, bytes(32), b"r" * 32)
>>> decode_block(first.encode()) == first, first.size
(True, 3)

The signed form of (origin, size, root) is a checkpoint: `merkle.checkpoint`.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from archive.errors import FormatError

BLOCK_SIZE: Final = 85
NO_BLOCK: Final = bytes(32)
_DOMAIN: Final = b"treering/block/v1\0"


@dataclass(frozen=True, slots=True)
class Block:
    """One commit: `count` entries from index `first`, after the block whose hash is `previous`."""

    number: int
    first: int
    count: int
    previous: bytes
    root: bytes

    @property
    def size(self) -> int:
        """Size of the log after this block."""
        return self.first + self.count

    def encode(self) -> bytes:
        """Return the block's 85 bytes."""
        return (
            b"\x01"
            + self.number.to_bytes(8)
            + self.first.to_bytes(8)
            + self.count.to_bytes(4)
            + self.previous
            + self.root
        )

    def hash(self) -> bytes:
        """Return the 32-byte hash by which the next block names this one."""
        return sha256(_DOMAIN + self.encode()).digest()


def decode_block(data: bytes) -> Block:
    """Return the block in `data`; raise FormatError if it is none."""
    if len(data) != BLOCK_SIZE or data[0] != 1:
        raise FormatError(f"block of {len(data)} bytes is not of version 1")
    block = Block(
        int.from_bytes(data[1:9]),
        int.from_bytes(data[9:17]),
        int.from_bytes(data[17:21]),
        data[21:53],
        data[53:85],
    )
    if block.count == 0:
        raise FormatError(f"block {block.number} appends nothing")
    return block
