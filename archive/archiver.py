"""The archiver: load, plan, commit.  One writer per log; whatever it has answered is kept.

The order of a commit is the whole safety argument, and nothing in it may be moved:

    1. plan and sign in memory                       (a crash: nothing happened)
    2. one synchronous transaction with all of it    (a crash: kept or not, never answered)
    3. the seal, synced                              (a crash: the database is ahead, and goes on)
    4. the published size                            (from here on others may see it)
    5. the answers

At the start the database is held against the seal: behind it means a restored backup, which must never go on under
the same name.  A step that fails in a sync leaves the archiver *failed* for good: what the disk then says about
itself cannot be trusted.

The archiver knows no sockets and has no loop: `tools.archiver` calls `step` with whatever arrived during the last
one, which is group commit without a timer.  What is written is decided by `archive.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from archive.caches import Caches
from archive.drafting import Drafter, fault_of, id_hashes
from archive.entry import NO_ID, RANDOM_SIZE, Draft, open_row, parse_opening, parse_row
from archive.errors import IntegrityError, StorageFailed, Unavailable
from archive.log import Log, load_head
from archive.plan import ControlDraft, Head, Planned, plan
from archive.ports import Clock, Random, Store
from archive.seal import Seal
from archive.vault import SubjectKeys, Vault
from archive.wire import Answer, Receipt, Refusal, Submission


class Sealing(Protocol):
    """Where the last signed size and root are kept apart from the database."""

    last: Seal | None

    def write(self, size: int, root: bytes, block: int) -> None:
        """Seal a size, durably."""


class Publishing(Protocol):
    """Where readers look for the published size."""

    def set(self, size: int) -> None:
        """Publish a size."""


class Archiver:
    """Appends to one log.  `open` it once, then `step` for ever.

    `sign` turns a checkpoint's text into a signed note and must always give the same bytes for the same text.
    """

    def __init__(
        self,
        origin: str,
        store: Store,
        vault: Vault,
        *,
        caches: Caches,
        seal: Sealing,
        published: Publishing,
        clock: Clock,
        random: Random,
        sign: Callable[[str], bytes],
    ) -> None:
        self.origin = origin
        self.head = Head()
        self.failed = False
        self._store, self._vault, self._caches = store, vault, caches
        self._seal, self._published = seal, published
        self._clock, self._random, self._sign = clock, random, sign
        self._drafter = Drafter(vault.route_key)

    @property
    def root(self) -> bytes:
        """Root of the log as it stands."""
        return self.head.frontier.root()

    def open(self, start: dict[str, Any], follows: dict[str, Any] | None = None) -> None:
        """Take the log up where it stands and append the control entries of a start.

        `start` is the body of the start entry (software and configuration digests); `follows` names the log that a
        new one follows (origin, size, root).  Raises IntegrityError if the database does not reach its seal or its
        tables disagree.
        """
        with self._store.view() as view:
            self.head = load_head(view)
            log = Log(view, self.head.size)
            self._check_seal(log)
            self._caches.load(log)
        bodies = [{"control": "start", **start}]
        if self.head.size == 0:
            created_s = self._clock.now_us() // 1_000_000
            origin = {"control": "origin", "origin": self.origin, "format": 1, "created": created_s}
            bodies.insert(0, {**origin, "follows": follows} if follows else origin)
        self._append([ControlDraft(body) for body in bodies])

    def step(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Keep these submissions and return one answer each, in order.

        Raises Unavailable if nothing was kept (no space; try again), StorageFailed or IntegrityError if the
        archiver must stop.  What `step` has answered with a receipt is durable, signed and published.
        """
        work = _Batch(self._head_size(), submissions)
        try:
            self._load(work)
        except StorageFailed:
            self.failed = True  # the vault's disk: what it says about new subjects cannot be trusted either
            raise
        if work.drafts:
            self._append(work.drafts)
        return work.answers(self.head.size)

    def control(self, body: dict[str, Any]) -> int:
        """Append one control entry in a block of its own and return its index; raise what `step` raises."""
        index = self._head_size()
        self._append([ControlDraft(body)])
        return index

    def close(self) -> None:
        """Save the caches; the log itself needs no closing."""
        if not self.failed:
            self._caches.save(self.root, force=True)

    def _head_size(self) -> int:
        if self.failed:
            raise StorageFailed(
                "this archiver stopped after a failed write; restart it from a copy that verifies"
            )
        return self.head.size

    # --- load ------------------------------------------------------------------------------------

    def _load(self, work: _Batch) -> None:
        """Decide for each submission whether it is new, known or refused."""
        submissions = work.submissions
        names = {one.subject for one in submissions}
        names.update(name for one in submissions if one.also for name in one.also)
        subjects = self._vault.admit(names)
        hashes = id_hashes(self._vault.id_key, [(one.sender, one.id) for one in submissions])
        known = self._known([one for one in hashes if one != NO_ID])
        for one, identifier in zip(submissions, hashes, strict=True):
            if fault := fault_of(one):
                work.refuse("invalid", fault)
            elif identifier in known:
                work.repeat(one, *known[identifier])
            elif identifier in work.by_id:
                work.repeat_within(one, identifier)
            else:
                try:
                    work.add(self._draft(one, identifier, subjects, work.sequences))
                except (TypeError, ValueError, OverflowError, RecursionError) as error:
                    work.refuse("invalid", f"event whose header cannot be written: {error}")

    def _draft(
        self, one: Submission, identifier: bytes, subjects: dict[str, SubjectKeys], sequences: dict[int, int]
    ) -> Draft:
        keys = subjects[one.subject]
        number = keys.number
        sequence = 1 + (sequences.get(number) or self._caches.sequence(number))
        if one.also:
            numbers = (number, *(subjects[name].number for name in one.also))
            data_key = self._vault.data_key(numbers)
            draft = self._drafter.draft_of_several(one, identifier, keys, sequence, numbers, data_key)
        else:
            draft = self._drafter.draft(one, identifier, keys, sequence)
        sequences[number] = sequence  # last: a draft that fails leaves no gap
        return draft

    def _known(self, hashes: Sequence[bytes]) -> dict[bytes, tuple[Receipt, bytes]]:
        """Return receipt and digest of the payload of those ids that are in the log already."""
        candidates = self._caches.candidates(hashes)
        if not any(candidates):
            return {}
        known = {}
        with self._store.view() as view:
            log = Log(view, self.head.size)
            for identifier, indices in zip(hashes, candidates, strict=True):
                for index in indices:
                    row = parse_row(log.row(index))
                    if row.identifier == identifier:
                        opened = parse_opening(open_row(row, self._vault.data_key(row.subjects)))
                        # The digest and not the payload: a small request may name many large events.
                        content = sha256(opened.payload).digest()
                        known[identifier] = Receipt(index, log.covering(index)[0]), content
        return known

    # --- plan and commit -------------------------------------------------------------------------

    def _append(self, drafts: Sequence[Draft | ControlDraft]) -> None:
        now_s = self._clock.now_us() // 1_000_000
        random = self._random(RANDOM_SIZE * len(drafts))
        self._commit(plan(self.head, self.origin, drafts, now_s, random, self._sign), drafts)

    def _commit(self, planned: Planned, drafts: Sequence[Draft | ControlDraft]) -> None:
        block, kept = planned.block, False
        try:
            self._store.commit(planned.writes)
            kept = True
            self._seal.write(block.size, block.root, block.number)
        except BaseException as error:
            # That nothing was kept is the one failure of which memory knows all.  After any other, only a start,
            # which looks, may go on.
            self.failed = kept or not isinstance(error, Unavailable)
            raise
        self._published.set(block.size)
        self.head = planned.head
        private = [None if isinstance(one, ControlDraft) else one for one in drafts]
        self._caches.learn_block(block.first, private)
        self._caches.save(block.root)

    def _check_seal(self, log: Log) -> None:
        seal = self._seal.last
        if seal is None:
            if log.size:
                raise IntegrityError("the log has entries but no seal; see docs/recovery.md, lost seal")
            # A crash right after the first commit then leaves a log ahead of its seal, not one without.
            self._seal.write(0, log.root(), 0)
            return
        if log.size < seal.size:
            raise IntegrityError(
                f"the database has {log.size} entries, but {seal.size} were signed and sealed: "
                "it is an older copy. Bring back the newest one; never go on from this one under the same origin"
            )
        if log.root(seal.size) != seal.root:
            raise IntegrityError(
                f"the first {seal.size} entries are not those that were sealed; run verify-log"
            )
        if log.size:
            self._seal.write(log.size, log.root(), self.head.block - 1)
            self._published.set(log.size)


class _Batch:
    """The submissions of one step and what becomes of each."""

    def __init__(self, first: int, submissions: Sequence[Submission]) -> None:
        self.submissions = submissions
        self.drafts: list[Draft | ControlDraft] = []
        self.by_id: dict[bytes, int] = {}
        self.sequences: dict[int, int] = {}
        self._first = first
        self._answers: list[Answer | int] = []  # an int is the place of a draft

    def add(self, draft: Draft) -> None:
        if draft.identifier != NO_ID:
            self.by_id[draft.identifier] = len(self.drafts)
        self._answers.append(len(self.drafts))
        self.drafts.append(draft)

    def refuse(self, reason: str, detail: str) -> None:
        self._answers.append(Refusal(reason, detail))

    def repeat(self, one: Submission, receipt: Receipt, content: bytes) -> None:
        same = sha256(one.payload).digest() == content
        self._answers.append(receipt if same else _conflict(one, receipt.index))

    def repeat_within(self, one: Submission, identifier: bytes) -> None:
        place = self.by_id[identifier]
        draft = self.drafts[place]
        same = isinstance(draft, Draft) and draft.payload == one.payload
        self._answers.append(place if same else _conflict(one, self._first + place))

    def answers(self, size: int) -> list[Answer]:
        """Return the answers, once the drafts are kept in a log of this size."""
        first = self._first
        return [Receipt(first + one, size) if isinstance(one, int) else one for one in self._answers]


def _conflict(one: Submission, index: int) -> Refusal:
    return Refusal("conflict", f"id {one.id!r} was used for other content, entry {index}; send a new id")
