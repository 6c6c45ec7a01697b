"""The whole-log check: recompute everything from the leaves, and compare with everything that was written.

The leaves are the one thing taken as given; whatever else the database holds must follow from them: hashes, nodes,
roots, blocks, the chain of blocks, checkpoints, the order of time.  Private rows must be there, unchanged, and, where
the vault is at hand, be what the leaves commit to.  So a change anywhere shows, and is named with its index.

    for finding in check_log(source, size, keys=OneKey(verifier)): ...

Blocks are read in order, here; all that lies between is checked in stretches of 65,536 entries (`archive.stretch`),
which `run` may hand to other processes.  What comes back of a stretch is small, and one frontier joins the pieces, so
memory does not grow with the log.  Every kept checkpoint is held against the root recomputed at its size: that they
are consistent with one another follows.

Without a key the log can only be shown to agree with itself.  This check is also the oracle of every crash test.  The
command is `tools.verify_log`; what it can find stands in `archive.findings`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archive.attested import Attestations
from archive.block import NO_BLOCK
from archive.chain import Chain, block_hash, sealed_blocks, strays
from archive.duplicates import IdRuns
from archive.entry import control_body, parse_leaf, parse_row
from archive.errors import ArchiveError
from archive.filing import PROMISED, header_version
from archive.findings import Finding, Findings, Tally, limited, span
from archive.log import LogSource
from archive.openings import join_counts
from archive.people import Gone, check_people
from archive.remembered import Remembered
from archive.resume import Resume
from archive.seal import Seal
from archive.stretch import (
    STRETCH,
    STRETCH_LEVEL,
    Answer,
    Job,
    Keys,
    OneKey,
    check_newest,
    check_nodes,
    check_stretch,
    joined_root,
)
from archive.vault import Vault
from merkle import Checkpoint, Ed25519Verifier, Frontier

Run = Callable[[Iterable[Job]], Iterator[tuple[Job, Answer]]]
"""Checks jobs, in whatever process, and yields the answers in the order of the jobs."""


@dataclass
class Given:
    """What the auditor brings along."""

    keys: Keys = field(default_factory=OneKey)
    """Opens checkpoints."""
    vault: Vault | None = None
    """Opens private rows, where `run` does not."""
    with_vault: bool = False
    """Whether `run` opens private rows."""
    seals: Sequence[Seal] = ()
    """All slots of the seal."""
    kept: Sequence[Checkpoint] = ()
    """Checkpoints of this log that were kept elsewhere."""
    resume: Resume | None = None
    """What an earlier check saved."""


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
    """Yield every finding about entries 0…size-1, at most a thousand, in this process.

    `verifier` is the log's public key, `vault` opens the private rows, `seal` is what was sealed last;
    `progress` is called with the number of entries of each stretch.  Nothing is written.
    """
    given = Given(OneKey(verifier), vault, vault is not None, [seal] if seal else [])
    return Check(source, size, given, tally or Tally(), progress).findings()


class Check:
    """One check of one log; afterwards `tally` says what was seen, and `resume` where the next may go on."""

    def __init__(
        self,
        source: LogSource,
        size: int,
        given: Given,
        tally: Tally | None = None,
        progress: Callable[[int], None] = lambda _: None,
        run: Run | None = None,
    ) -> None:
        before = given.resume or _nothing(with_vault=given.with_vault)
        self.tally = tally or Tally()
        self._source, self._size, self._given, self._progress = source, size, given, progress
        self._run = run or self._in_this_process
        self._before = before
        self._memory = Remembered(given.seals, given.kept, given.resume)
        self._frontier = _aligned(before.frontier)
        self._attestations = Attestations(before.size, self._earlier)
        self._chain = Chain(before.block + 1, before.block_hash, before.size)
        self._chained: dict[int, list[Finding]] = {}
        self._time_s = before.time_s
        self._header_version = before.header_version
        self._sequences = None if before.sequences is None else array("Q", before.sequences)
        self._goods = [before.size] if before.size else []
        self._wrong_roots = 0
        self._lost = False
        self._right: Frontier | None = before.frontier

    def findings(self) -> Iterator[Finding]:
        """Yield every finding, at most a thousand."""
        return limited(self._findings())

    @property
    def resume(self) -> Resume | None:
        """Where a later check may go on, if all was read; only to be used if nothing was found."""
        if self._right is None or self._right.size != self._size:
            return None
        chain, origin = self._chain, self.tally.origin or self._before.origin
        return Resume(
            origin,
            self._size,
            self._right,
            chain.number - 1,
            chain.previous,
            self._time_s,
            self._sequences,
            self._header_version,
        )

    def _findings(self) -> Iterator[Finding]:
        with IdRuns() as ids, Gone() as gone:
            try:
                yield from self._start()
                for job, answer in self._run(self._jobs()):
                    chain = self._chained.pop(job.start)  # blocks may have been read far ahead
                    yield from self._located(job, [*chain, *self._judge(job, answer)])
                    ids.add(answer.ids)
                    gone.add(answer.gone)
                    self._progress(job.stop - job.start)
                yield from self._end(ids, gone)
            except ArchiveError as error:
                yield Finding("storage", None, f"the check stopped here: {error}", "unreadable")

    # --- before the first stretch ----------------------------------------------------------------

    def _start(self) -> Iterator[Finding]:
        with self._source.open(self._size) as log:
            yield from strays(log)
            before = self._before
            self._lost = before.size > self._size
            if before.size and not self._lost and block_hash(log, before.block) != before.block_hash:
                detail = f"block {before.block} is not the one verified before"
                yield Finding("since", before.size - 1, detail)
                # Said once: that the next block does not follow it would be the same finding.
                self._chain.previous = b""
            if not self._lost:
                yield from self._memory.behind(self._frontier, log.read_nodes)
                yield from sealed_blocks(log, self._given.seals)
            if before.size == self._size > 0:
                yield from check_newest(log, self._given.keys, before.frontier.root())
        yield from self._memory.beyond(self._size)

    def _earlier(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield indices and bodies of control entries that an earlier check has read."""
        with self._source.open(self._size) as log:
            for index, leaf in log.controls(start, stop):
                yield index, control_body(parse_leaf(leaf))

    # --- the jobs --------------------------------------------------------------------------------

    def _jobs(self) -> Iterator[Job]:
        start = self._frontier.size
        while start < self._size and not self._lost:
            stop = min(start - start % STRETCH + STRETCH, self._size)
            done = max(start, self._before.size)
            with self._source.open(self._size) as log:
                ends, whole = self._chain.read(log, stop, self._size)
            self._chained[start] = self._chain.taken()
            yield Job(start, stop, done, ends, self._memory.sizes(start, stop), whole)
            start = stop

    # --- what a stretch answered -----------------------------------------------------------------

    def _in_this_process(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Answer]]:
        for job in jobs:
            yield job, check_stretch(self._source, job, self._given.keys, self._given.vault)

    def _judge(self, job: Job, answer: Answer) -> Iterator[Finding]:
        yield from answer.findings
        yield from self._origin(job, answer)
        for index, body in answer.bodies:
            yield from self._attestations.take_body(index, body)
        backwards = answer.first_s is not None and answer.first_s < self._time_s
        if backwards and job.start >= self._before.size:
            detail = f"its archive time {answer.first_s} is before that of the entry before, {self._time_s}"
            yield Finding("time", job.start, detail, "order")
        self._time_s = self._time_s if answer.last_s is None else answer.last_s
        roots = {size: joined_root(self._frontier.nodes, root) for size, root in answer.roots.items()}
        yield from self._ends(job, answer, roots)
        yield from self._memory.against(roots)
        yield from join_counts(self._sequences, answer.subjects)
        yield from self._unsaid(answer)
        yield from self._grow(job, answer)
        self._count(job, answer)

    def _origin(self, job: Job, answer: Answer) -> Iterator[Finding]:
        if answer.origin is not None and self.tally.origin not in {None, answer.origin}:
            detail = (
                f"its checkpoints are of the log {answer.origin!r}, those before of {self.tally.origin!r}"
            )
            yield Finding("origin", job.start, detail)
        self.tally.origin = self.tally.origin or answer.origin

    def _unsaid(self, answer: Answer) -> Iterator[Finding]:
        """Yield what headers of a stretch should have said, if those before its first start entry have to say it."""
        if answer.unsaid and self._header_version is None:
            self._header_version = self._version_before()
        if answer.unsaid and self._header_version is not None and self._header_version >= PROMISED:
            yield from answer.unsaid
        for _, body in answer.bodies:
            self._header_version = header_version(body) or self._header_version

    def _version_before(self) -> int:
        """Return which headers there were where an earlier check ended that did not save it."""
        version = 1
        for _, body in self._earlier(0, self._before.size):
            version = header_version(body) or version
        return version

    def _ends(self, job: Job, answer: Answer, roots: dict[int, bytes]) -> Iterator[Finding]:
        """Compare the root at each block's end; the first one that differs is told, later ones are counted."""
        for size, root in job.ends:
            if size not in roots:
                continue
            if roots[size] == root:
                if size not in answer.unsigned:
                    self._goods.append(size)
                continue
            self._wrong_roots += 1
            if self._wrong_roots == 1:
                first = self._goods[-1] if self._goods else 0
                detail = (
                    f"{span(first, size - 1)}: the root at size {size} is not the one that follows from them"
                )
                yield Finding("root", first, detail)

    def _grow(self, job: Job, answer: Answer) -> Iterator[Finding]:
        """Join a stretch to the frontier; where it cannot be trusted, go on with the node that is stored."""
        if job.stop - job.start < STRETCH or not answer.whole:
            self._join_rest(job, answer)
            return
        before = self._frontier
        self._frontier, completed = before.grow(answer.frontier.nodes, level=STRETCH_LEVEL)
        found = Findings()
        with self._source.open(job.stop) as log:
            for level, index, value in completed:
                check_nodes(log, level, index, [value], found)
            stored = log.node(2, job.start // STRETCH)
        yield from found
        self._right = self._frontier
        if self._wrong_roots and stored not in {None, *answer.frontier.nodes}:
            self._go_on_with(before, stored)

    def _join_rest(self, job: Job, answer: Answer) -> None:
        if answer.whole:
            self._right = Frontier(job.stop, (*self._frontier.nodes, *answer.frontier.nodes))
            return
        with self._source.open(job.stop) as log:
            stored = log.node(2, job.start // STRETCH) if job.stop - job.start == STRETCH else None
        self._go_on_with(self._frontier, stored)

    def _go_on_with(self, before: Frontier, stored: bytes | None) -> None:
        """Take a stored node's word for a stretch, so that what follows can still be judged."""
        self._right = None
        if stored is None:
            self._lost = True
        else:
            self._frontier = before.grow([stored], level=STRETCH_LEVEL)[0]

    def _count(self, job: Job, answer: Answer) -> None:
        tally = self.tally
        tally.entries, tally.blocks = job.stop, self._chain.blocks
        tally.control += answer.controls
        tally.attested = self._attestations.count
        tally.opened += answer.opened
        tally.erased += answer.erased
        tally.checkpoints += answer.checkpoints
        if self._right is not None:
            tally.root = self._right.root()

    def _located(self, job: Job, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Say of each finding between which checkpoints it lies."""
        sizes = [size for size, _ in job.ends]
        for finding in findings:
            if finding.index is None:
                yield finding
                continue
            after, before = bisect_right(sizes, finding.index), bisect_right(self._goods, finding.index)
            good = self._goods[before - 1] if before else None
            yield replace(finding, good=good, bad=sizes[after] if after < len(sizes) else None)
        del self._goods[:-1]

    # --- after the last stretch ------------------------------------------------------------------

    def _end(self, ids: IdRuns, gone: Gone) -> Iterator[Finding]:
        self.tally.remarks += self._attestations.remarks()
        if self._wrong_roots > 1:
            yield Finding("root", None, f"{self._wrong_roots - 1} later roots differ as well")
        nothing_new = self._size == self._before.size
        if nothing_new and self._right is not None:
            self.tally.entries, self.tally.root = self._size, self._right.root()
            self.tally.origin = self.tally.origin or self._before.origin or None
        yield from self._memory.of_another(self.tally.origin)
        for first, second in ids.repeated(self._identifier):
            yield Finding("ids", second, f"it bears the same event id as entry {first}", "duplicate")
        if self._given.vault is not None and self._sequences is not None:
            yield from check_people(self._given.vault, self._entries_of, gone)

    def _entries_of(self, number: int) -> int:
        counts = self._sequences
        return counts[number] if counts is not None and number < len(counts) else 0

    def _identifier(self, index: int) -> bytes:
        with self._source.open(self._size) as log:
            return parse_row(log.row(index)).identifier


def _nothing(*, with_vault: bool) -> Resume:
    return Resume("", 0, Frontier(), -1, NO_BLOCK, 0, array("Q") if with_vault else None, 1)


def _aligned(frontier: Frontier) -> Frontier:
    """Return the frontier at the last multiple of a stretch: what lies after it is read and hashed again."""
    size = frontier.size - frontier.size % STRETCH
    return Frontier(size, frontier.nodes[: size.bit_count()])
