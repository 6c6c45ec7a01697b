"""The plan of a commit: from drafts to every byte that will be written.  Pure.

    plan(head, drafts, now, random bytes) -> block, writes, checkpoint, next head

Everything that can go wrong with time, disks and processes happens outside; here the same arguments give the
same bytes, which is why a crash test may compare them.  What a commit consists of and in which order it becomes
durable is `archive.archiver`; what a draft's subject keys are, `archive.vault`.

>>> planned = plan(Head(), "example.org/log", [ControlDraft({"control": "origin"})], 5, b"", lambda text: text)
>>> planned.block.size, planned.head.time_s, [write.table for write in planned.writes]
(1, 5, ['leaves', 'rows', 'blocks', 'checkpoints'])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from archive.block import NO_BLOCK, Block
from archive.bundles import bundle
from archive.cutting import cuts
from archive.entry import RANDOM_SIZE, Draft, encode_control, leaf_prefix
from archive.kernel import kernel
from archive.ports import Write
from merkle import Checkpoint, Frontier

TABLES: Final = ("leaves", "rows", "nodes", "blocks", "checkpoints")
APPEND_TABLES: Final = ("leaves", "rows", "blocks", "checkpoints")

BUNDLE_ROWS_MIN: Final = 32


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log stands: all that the next block depends on."""

    frontier: Frontier = Frontier()
    time_s: int = 0
    block: int = 0
    previous: bytes = NO_BLOCK

    @property
    def size(self) -> int:
        """Number of entries so far."""
        return self.frontier.size


Entries = tuple[list[bytes], list[bytes], list[bytes]]
"""Leaves, rows and leaf hashes."""


class ControlDraft(NamedTuple):
    """A control entry to be."""

    body: dict[str, Any]


class Planned(NamedTuple):
    """A commit, complete in memory."""

    block: Block
    writes: list[Write]
    checkpoint: bytes
    head: Head


def plan(
    head: Head,
    origin: str,
    drafts: Sequence[Draft | ControlDraft],
    now_s: int,
    random: bytes,
    sign: Callable[[str], Any],
) -> Planned:
    """Return the commit that appends `drafts` (at least one) to the log at `head`.

    `now_s` is Unix seconds; a time before the head's is lifted to it.  `random` holds RANDOM_SIZE fresh bytes
    for each draft.  `sign` turns a checkpoint's text into a signed note.
    """
    time_s = max(now_s, head.time_s)
    leaves, rows, hashes = _entries(drafts, time_s, random)
    frontier, nodes = head.frontier.grow(hashes, pair_up=kernel.pair_up)
    block = Block(head.block, head.size, len(drafts), head.previous, frontier.root())
    checkpoint = sign(Checkpoint(origin, block.size, block.root).encode())
    writes = [
        *_bundled("leaves", head.size, leaves, 2, 1),
        *_bundled("rows", head.size, rows, 4, BUNDLE_ROWS_MIN),
        *(Write("nodes", node_key(level, index), value) for level, index, value in nodes),
        Write("blocks", block.number.to_bytes(8), block.encode()),
        Write("checkpoints", block.size.to_bytes(8), checkpoint),
    ]
    return Planned(block, writes, checkpoint, Head(frontier, time_s, block.number + 1, block.hash()))


def node_key(level: int, index: int) -> bytes:
    """Return the database key of the hash of subtree `index` of 256^level leaves."""
    return bytes((level,)) + index.to_bytes(8)


def _entries(drafts: Sequence[Draft | ControlDraft], time_s: int, random: bytes) -> Entries:
    """Return leaves, rows and leaf hashes: private entries by the kernel, all at once; the few others one by one."""
    private = [(at, one) for at, one in enumerate(drafts) if isinstance(one, Draft)]
    if len(private) == len(drafts):
        return kernel.seal_many(leaf_prefix(time_s), [one for _, one in private], random)
    leaves = [encode_control(time_s, one.body) if isinstance(one, ControlDraft) else b"" for one in drafts]
    rows, hashes = [b""] * len(drafts), kernel.leaf_hashes(leaves)
    chance = b"".join([random[at * RANDOM_SIZE : (at + 1) * RANDOM_SIZE] for at, _ in private])
    sealed = kernel.seal_many(leaf_prefix(time_s), [one for _, one in private], chance)
    for (at, _), leaf, row, leaf_hash in zip(private, *sealed, strict=True):
        leaves[at], rows[at], hashes[at] = leaf, row, leaf_hash
    return leaves, rows, hashes


def _bundled(table: str, first: int, parts: Sequence[bytes], width: int, bundle_min: int) -> Iterator[Write]:
    """Yield writes that keep `parts`; where they are cut is said by `archive.cutting`."""
    for start, stop in cuts(first, [width + len(part) for part in parts], bundle_min):
        yield Write(table, (first + start).to_bytes(8), bundle(parts[start:stop], width))
