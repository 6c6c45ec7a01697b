"""The whole-log check: recompute everything from the leaves, and compare with everything that was written.

The leaves are the one thing taken as given; whatever else the database holds must follow from them: hashes, nodes,
roots, blocks, the chain of blocks, checkpoints, the order of time.  Private rows must be there, unchanged, and, where
the vault is at hand, be what the leaves commit to.  So a change anywhere shows, and is named with its index.

It reads block by block and keeps one frontier, so its memory does not grow with the log.

    for finding in check_log(source, size, verifier): ...

Without a verifier the log can only be shown to agree with itself.  This check is also the oracle of every crash
test.  The command is `tools.verify_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from archive.block import NO_BLOCK, Block
from archive.entry import (
    LEAF_CONTROL,
    Leaf,
    check_row,
    commitment_of,
    control_body,
    open_row,
    parse_leaf,
    parse_opening,
    parse_row,
    tag_of,
)
from archive.errors import ArchiveError, FormatError, IntegrityError, NotFound
from archive.log import Log, LogSource
from archive.seal import Seal
from archive.vault import Vault
from merkle import Checkpoint, Ed25519Verifier, Frontier, MerkleError, leaf_hash, open_checkpoint

BLOCKS_AT_ONCE = 64
FINDINGS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be: which check, at which entry (None: not one entry), and what differs."""

    check: str
    index: int | None
    detail: str


@dataclass
class Tally:
    """What was seen, for the report."""

    entries: int = 0
    blocks: int = 0
    control: int = 0
    opened: int = 0
    erased: int = 0
    root: bytes = b""
    origin: str | None = None


def check_log(
    source: LogSource,
    size: int,
    *,
    verifier: Ed25519Verifier | None = None,
    vault: Vault | None = None,
    seal: Seal | None = None,
    tally: Tally | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Finding]:
    """Yield every finding about entries 0…size-1, at most a thousand.

    `verifier` is the log's public key, `vault` opens the private rows, `seal` is what was sealed last;
    `progress` is called with the number of entries of each block.  Nothing is written.
    """
    check = _Check(verifier, vault, tally or Tally())
    found = _walk(source, size, check, seal, progress)
    for count, finding in enumerate(found, 1):
        yield finding
        if count == FINDINGS_MAX:
            yield Finding("limit", None, f"more than {FINDINGS_MAX} findings; the rest is not listed")
            return


def _walk(
    source: LogSource, size: int, check: _Check, seal: Seal | None, progress: Callable[[int], None]
) -> Iterator[Finding]:
    while check.frontier.size < size:
        # A view for some blocks only: a long one would pin pages of a log that is being written.
        with source.open(size) as log:
            blocks = list(islice(log.blocks(check.next_block), BLOCKS_AT_ONCE))
            for block in blocks:
                yield from check.block(log, block)
                progress(block.count)
                if check.lost:
                    return
        if not blocks:
            yield Finding("blocks", check.frontier.size, "no block covers this entry and those after it")
            return
        yield from check.seal(seal)
    if seal is not None and seal.size > size:
        yield Finding(
            "seal", None, f"{seal.size} entries were sealed, the database has {size}: an older copy"
        )


@dataclass
class _Check:
    verifier: Ed25519Verifier | None
    vault: Vault | None
    tally: Tally
    frontier: Frontier = field(default_factory=Frontier)
    next_block: int = 0
    lost: bool = False
    _previous: bytes = NO_BLOCK
    _time_s: int = 0
    _sequences: dict[int, int] = field(default_factory=dict)
    _roots: dict[int, bytes] = field(default_factory=dict)

    def block(self, log: Log, block: Block) -> Iterator[Finding]:
        """Check one block: the chain, its entries, the tree after them, its checkpoint."""
        first = self.frontier.size
        if (block.number, block.first) != (self.next_block, first):
            self.lost = True
            yield Finding("blocks", first, f"block {self.next_block} from entry {first} is missing")
            return
        if block.previous != self._previous:
            yield Finding("chain", first, f"block {block.number} does not name the block before it")
        try:
            leaves = [leaf for _, leaf in log.leaves(first, block.size)]
        except ArchiveError as error:
            self.lost = True
            yield Finding("leaves", first, str(error))
            return
        yield from self._entries(log, first, leaves)
        yield from self._tree(log, block, leaves)
        yield from self._checkpoint(log, block)
        self.next_block, self._previous = block.number + 1, block.hash()
        self._roots = {block.size: block.root}
        self.tally.entries, self.tally.blocks, self.tally.root = block.size, self.next_block, block.root

    def seal(self, seal: Seal | None) -> Iterator[Finding]:
        """Check the seal once the entries that it covers are known."""
        if seal is not None and self._roots.get(seal.size, seal.root) != seal.root:
            yield Finding("seal", None, f"the root at size {seal.size} is not the one that was sealed")

    def _tree(self, log: Log, block: Block, leaves: Sequence[bytes]) -> Iterator[Finding]:
        self.frontier, nodes = self.frontier.grow([leaf_hash(leaf) for leaf in leaves])
        if self.frontier.root() != block.root:
            yield Finding("root", block.first, f"block {block.number}: its root is not that of its leaves")
        for level, index, value in nodes:
            if log.node(level, index) != value:
                yield Finding("nodes", index << 8 * level, f"node {index} of tile level {level} differs")

    def _checkpoint(self, log: Log, block: Block) -> Iterator[Finding]:
        try:
            size, note = log.covering(block.size - 1)
            checkpoint = self._opened(note)
        except (NotFound, MerkleError, UnicodeDecodeError) as error:
            yield Finding("checkpoint", block.size - 1, f"size {block.size}: {error}")
            return
        if (size, checkpoint.size, checkpoint.root) != (block.size, block.size, block.root):
            yield Finding("checkpoint", block.size - 1, f"size {block.size}: it signs another size or root")
        if self.tally.origin not in {None, checkpoint.origin}:
            yield Finding("checkpoint", block.size - 1, f"size {block.size}: it is of another log")

    def _opened(self, note: bytes) -> Checkpoint:
        if self.verifier is not None:
            return open_checkpoint(note, self.verifier)
        return Checkpoint.decode(note.decode().partition("\n\n")[0] + "\n")

    def _entries(self, log: Log, first: int, leaves: Sequence[bytes]) -> Iterator[Finding]:
        rows = self._rows(log, first, first + len(leaves))
        for index, leaf in enumerate(leaves, first):
            try:
                parsed = parse_leaf(leaf)
                if parsed.time_s < self._time_s:
                    yield Finding("time", index, "its archive time is before that of the entry before")
                self._time_s = max(self._time_s, parsed.time_s)
                self._entry(index, parsed, rows.get(index))
            except (FormatError, IntegrityError) as error:
                yield Finding("entry", index, str(error))

    @staticmethod
    def _rows(log: Log, start: int, stop: int) -> Mapping[int, bytes]:
        """Return the rows that are there; which are not is found entry by entry."""
        rows: dict[int, bytes] = {}
        while start < stop:
            try:
                rows |= log.rows(start, stop)
                break
            except ArchiveError:
                start = max(rows, default=start) + 1
        return rows

    def _entry(self, index: int, leaf: Leaf, row: bytes | None) -> None:
        if leaf.kind == LEAF_CONTROL:
            self._control(index, leaf, row)
        elif not row:
            raise IntegrityError("its private row is missing")
        else:
            check_row(row)
            self._private(leaf, row)

    def _control(self, index: int, leaf: Leaf, row: bytes | None) -> None:
        self.tally.control += 1
        body = control_body(leaf)
        if index == 0:
            self.tally.origin = str(body.get("origin"))
        if row is None or row:
            raise IntegrityError("a control entry must have an empty private row")

    def _private(self, leaf: Leaf, data: bytes) -> None:
        row = parse_row(data)
        if self.vault is None:
            return
        subject = row.subjects[0]
        sequence = self._sequences[subject] = self._sequences.get(subject, 0) + 1
        try:
            keys, data_key = self.vault.keys(subject), self.vault.data_key(row.subjects)
        except NotFound:
            self.tally.erased += 1
            return
        opening = open_row(row, data_key)
        if commitment_of(opening) != leaf.commitment:
            raise IntegrityError("its private row is not what the leaf commits to")
        header = parse_opening(opening).header
        if header.sequence != sequence or tag_of(keys.tag_key, sequence) != leaf.tag:
            raise IntegrityError(
                f"it is not entry {sequence} of its subject: one was added, lost or reordered"
            )
        self.tally.opened += 1
