"""Checking one stretch of a log by itself, so that several can be checked at once.

A stretch is 65,536 entries, aligned: one node of tile level 2.  Leaves, rows, level-1 nodes and checkpoints in it can
be judged without knowing anything of the rest.  What depends on the rest is handed back in a few hashes: where a block
ends within the stretch, the root over the stretch up to there.  Joined with what stands to the left (`joined_root`),
that is the root of the log, since the right edge of a tree is folded from the right:

    root = node(left[0], node(left[1], … node(left[k], root of the stretch so far)))

Who hands out stretches and puts the answers together is `archive.fsck`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from archive.bundles import unbundle
from archive.errors import FormatError, IntegrityError
from archive.filing import header_version
from archive.findings import Finding, Findings
from archive.kernel import kernel
from archive.leafscan import Leaves, scan_leaves
from archive.log import Log, LogSource
from archive.openings import Counts, Entry, Openings
from archive.plan import node_key
from archive.rowscan import Rows, id_table, scan_rows
from archive.vault import Vault
from merkle import Checkpoint, Ed25519Verifier, Frontier, MerkleError, Note, node_hash, open_checkpoint

STRETCH = 1 << 16
STRETCH_LEVEL = 16


class Job(NamedTuple):
    """Entries start…stop-1; those before `done` were checked earlier and are only hashed again."""

    start: int
    stop: int
    done: int
    ends: list[tuple[int, bytes]]
    """Size after each block that ends in (done, stop], and the root that the block names."""
    marks: list[int]
    """Further sizes in (start, stop] at which a root is wanted."""
    whole: bool = True
    """Whether all blocks of the stretch were there, so that a checkpoint without one is a stray one."""


@dataclass
class Answer:
    """What a stretch says; findings are about it alone."""

    findings: list[Finding] = field(default_factory=list)
    roots: dict[int, bytes] = field(default_factory=dict)
    """Root over the stretch from its start up to a size, for each end and mark."""
    frontier: Frontier = field(default_factory=Frontier)
    """Of the stretch alone, up to where it could be read."""
    unsigned: set[int] = field(default_factory=set)
    """Sizes whose checkpoint is missing or wrong."""
    origin: str | None = None
    controls: int = 0
    bodies: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Indices and bodies of control entries, in order."""
    checkpoints: int = 0
    opened: int = 0
    erased: int = 0
    gone: bytes = b""
    """A record (`archive.people`) of each that is erased."""
    first_s: int | None = None
    last_s: int | None = None
    whole: bool = True
    subjects: Counts = field(default_factory=Counts)
    unsaid: list[Finding] = field(default_factory=list)
    """Further findings before its first start entry, if the last one before the stretch is of header version 2."""
    ids: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty((2, 0), dtype=np.uint64))


class Keys(Protocol):
    """What opens checkpoints: a log's key, or all keys that it ever had."""

    def open(self, note: bytes) -> Checkpoint:
        """Return the checkpoint in a note; raise MerkleError if it is not signed as it must be."""

    def check(self, index: int, body: dict[str, Any]) -> None:
        """Raise IntegrityError if a control entry changes the key in a way that the checkpoints do not follow."""


@dataclass(frozen=True, slots=True)
class OneKey:
    """The verifier of a log that never changed its key; without one, signatures are passed over."""

    verifier: Ed25519Verifier | None = None

    def open(self, note: bytes) -> Checkpoint:
        """Return the checkpoint in a note; raise MerkleError if the key has not signed it."""
        if self.verifier is not None:
            return open_checkpoint(note, self.verifier)
        return Checkpoint.decode(Note.decode(note).text)

    def check(self, index: int, body: dict[str, Any]) -> None:
        """Do nothing: whoever knows one key only follows no other."""


def check_stretch(source: LogSource, job: Job, keys: Keys, vault: Vault | None) -> Answer:
    """Check one stretch.  Raises ArchiveError where the database cannot be read."""
    found, answer = Findings(), Answer()
    with source.open(job.stop) as log:
        pairs = log.raw("leaves", _key(job.start), job.stop.to_bytes(8))
        tree = _Tree(job)
        leaves = scan_leaves(pairs, job.start, job.stop, found, keep=vault is not None, take=tree.take)
        rows = _rows(log, job, leaves, vault, found, answer)
        answer.frontier, answer.roots = tree.frontier, tree.roots
        check_nodes(log, 1, job.start >> 8, tree.nodes, found)
        _checkpoints(log, job, keys, found, answer)
    _controls(job, leaves, rows, found, answer)
    _rotations(job, leaves, keys, found)
    answer.findings, answer.ids = found.found, id_table(rows)
    answer.first_s, answer.last_s, answer.whole = leaves.first_s, leaves.last_s, leaves.whole
    return answer


def joined_root(left: Sequence[bytes], root: bytes) -> bytes:
    """Return the root of a tree whose rightmost part has `root`, and stands after the perfect subtrees `left`."""
    for node in reversed(left):
        root = node_hash(node, root)
    return root


def _key(index: int) -> bytes:
    """Return where a scan begins; at 0 with the very first key, so that nothing hides before it."""
    return index.to_bytes(8) if index else b""


def _rows(log: Log, job: Job, leaves: Leaves, vault: Vault | None, found: Findings, answer: Answer) -> Rows:
    pairs = log.raw("rows", _key(job.done), job.stop.to_bytes(8))
    if vault is None:
        return scan_rows(pairs, job.done, job.stop, found)
    versions = [(index, made) for index, body in leaves.controls.items() if (made := header_version(body))]
    openings, each = Openings(vault, found, versions), _Leaves(leaves.bundles)

    def check(first: int, some: list[bytes]) -> None:
        openings.check_all(
            [
                Entry(index, each.leaf(index), row)
                for index, row in enumerate(some, first)
                if index < leaves.stop and index not in leaves.controls and index not in leaves.malformed
            ]
        )

    rows = scan_rows(pairs, job.done, job.stop, found, check)
    answer.opened, answer.erased, answer.subjects = openings.opened, openings.erased, openings.counts()
    answer.unsaid, answer.gone = openings.unsaid.found, bytes(openings.gone)
    return rows


class _Leaves:
    """Leaves by index, asked for in order."""

    def __init__(self, bundles: Iterable[tuple[int, bytes]]) -> None:
        self._bundles = iter(bundles)
        self._first, self._leaves = 0, list[bytes]()

    def leaf(self, index: int) -> bytes:
        while index >= self._first + len(self._leaves):
            self._first, value = next(self._bundles)
            self._leaves.clear()
            with suppress(
                FormatError
            ):  # that is found by itself, and what stands before it is asked for still
                self._leaves.extend(unbundle(value, 2))
        return self._leaves[index - self._first]


class _Tree:
    """The tree over a stretch, grown as its leaves come in; what counts are the sizes at which a root is wanted."""

    def __init__(self, job: Job) -> None:
        self.frontier = Frontier()
        self.roots: dict[int, bytes] = {}
        self.nodes: list[bytes] = []
        """Those of tile level 1, up to the last of these sizes that was reached."""
        self._size = job.start
        self._fresh: list[bytes] = []
        self._next = sorted({*(size for size, _ in job.ends), *job.marks, job.stop}, reverse=True)

    def take(self, hashes: list[bytes]) -> None:
        """Add the hashes of some leaves, none of them beyond the stretch."""
        while hashes:
            room = self._next[-1] - self._size
            part, hashes = hashes[:room], hashes[room:]
            self.frontier, completed = self.frontier.grow(part, pair_up=kernel.pair_up)
            self._fresh += [value for level, _, value in completed if level == 1]
            self._size += len(part)
            if len(part) == room:
                self.roots[self._next.pop()] = self.frontier.root()
                self.nodes += self._fresh
                self._fresh.clear()


def check_nodes(log: Log, level: int, first: int, nodes: Sequence[bytes], found: Findings) -> None:
    """Compare computed hashes of tile `level`, from index `first` on, with those that are stored."""
    width = 8 * level
    expected = first
    for key, value in log.raw("nodes", node_key(level, first), node_key(level, first + len(nodes))):
        index = int.from_bytes(key[1:])
        if len(key) != 9 or not expected <= index < first + len(nodes):
            found.add("nodes", None, f"a node stands under key {key.hex()}, where none may", "stray")
            continue
        for missing in range(expected, index):
            found.add(
                "nodes", missing << width, f"node {missing} of tile level {level} is missing", "missing"
            )
        if value != nodes[index - first]:
            detail = f"node {index} of tile level {level} is not that of its {256**level:,} entries"
            found.add("nodes", index << width, detail)
        expected = index + 1
    for missing in range(expected, first + len(nodes)):
        found.add("nodes", missing << width, f"node {missing} of tile level {level} is missing", "missing")


def _checkpoints(log: Log, job: Job, keys: Keys, found: Findings, answer: Answer) -> None:
    due = dict(job.ends)
    for key, note in log.raw(
        "checkpoints", _key(job.done + 1 if job.done else 0), (job.stop + 1).to_bytes(8)
    ):
        size = int.from_bytes(key)
        root = due.pop(size, None) if len(key) == 8 else None
        if root is None:
            if job.whole:
                found.add("checkpoint", size - 1, f"size {size}: no block ends there", "stray")
            continue
        answer.checkpoints += 1
        if wrong := _wrong(keys, note, size, root, answer):
            answer.unsigned.add(size)
            found.add("checkpoint", size - 1, f"size {size}: {wrong[0]}", wrong[1])
    for size in due:
        answer.unsigned.add(size)
        found.add("checkpoint", size - 1, f"size {size}: its checkpoint is missing", "missing")


def check_newest(log: Log, keys: Keys, root: bytes) -> Iterator[Finding]:
    """Find what is wrong with the checkpoint of the whole log, which has this root, where no stretch looks at it.

    An earlier check read all entries, but may have known no key.
    """
    size = log.size
    note = next(
        (value for key, value in log.raw("checkpoints", size.to_bytes(8)) if key == size.to_bytes(8)), b""
    )
    if wrong := _wrong(keys, note, size, root, Answer()):
        yield Finding("checkpoint", size - 1, f"size {size}: {wrong[0]}", wrong[1])


def _wrong(keys: Keys, note: bytes, size: int, root: bytes, answer: Answer) -> tuple[str, str] | None:
    """Say what is wrong with a checkpoint, and of what kind it is."""
    try:
        checkpoint = keys.open(note)
        signatures = len(Note.decode(note).signatures)
    except MerkleError as error:
        return str(error), "signature"
    if signatures > 1:  # others may be among those of a note that goes round; ours is as it was signed
        return f"it bears {signatures} signatures, and a log signs once", "signature"
    if (checkpoint.size, checkpoint.root) != (size, root):
        return f"it speaks of size {checkpoint.size} and root {checkpoint.root.hex()[:16]}…", "altered"
    if answer.origin not in {None, checkpoint.origin}:
        return f"it is of the log {checkpoint.origin!r}", "altered"
    answer.origin = checkpoint.origin
    return None


def _controls(job: Job, leaves: Leaves, rows: Rows, found: Findings, answer: Answer) -> None:
    controls = {index for index in leaves.controls if index >= job.done}
    answer.controls = len(controls)
    for index in sorted((controls ^ rows.empty) - rows.unread - leaves.malformed):
        if index < job.done or index >= leaves.stop:
            continue
        if index in rows.empty:
            found.add("rows", index, "its private row is empty", "missing")
        else:
            found.add("rows", index, "a control entry must have an empty private row", "stray")
    for index in sorted(controls | ({0} if job.start == 0 and job.done == 0 else set())):
        body: dict[str, Any] = leaves.controls.get(index, {})
        if (body.get("control") == "origin") != (index == 0) and index not in leaves.malformed:
            found.add("origin", index, "the origin entry must be entry 0, and no other", "order")
        answer.bodies.append((index, body))
    if job.start == 0 and job.done == 0 and 0 in controls:
        named = str(leaves.controls[0].get("origin"))
        if answer.origin not in {None, named}:
            found.add("origin", 0, f"it names the log {named!r}, the checkpoints {answer.origin!r}")
        answer.origin = named


def _rotations(job: Job, leaves: Leaves, keys: Keys, found: Findings) -> None:
    for index, body in leaves.controls.items():
        if index >= job.done:
            try:
                keys.check(index, body)
            except IntegrityError as error:
                found.add("keys", index, str(error), "signature")
