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

**Two stages.**  `commit` is the list above.  What comes before it, `prepare`, tells submissions apart into new, known
and refused, admits subjects and drafts entries; for one more block it can be done while the last one is committed:

    commit    | plan, write, seal 7 | plan, write, seal 8 |
    prepare        | load 8 |            | load 9 |

What is prepared is a proposal, and is planned and signed only on top of the head that it was prepared for: where the
block below was not kept, for lack of space, it is prepared anew from its submissions.  An id that repeats one of the
block under way gets that one's receipt or, if that block was not kept, becomes the entry itself.  `prepare` alone
touches caches and vault, `commit` alone seal, published size and head; between them passes nothing but `Prepared`.

The archiver knows no sockets and has no loop: `tools.door` gives it whatever arrived during the last commit, which is
group commit without a timer.  What is written is decided by `archive.plan`.  Why two stages: docs/adr/0057.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from threading import Lock
from typing import Any, Protocol

from archive.belonging import check_published, check_vault
from archive.caches import Caches
from archive.drafting import UNWRITABLE, Drafter, are_distinct, are_plain, fault_of, id_hashes
from archive.entry import NO_ID, RANDOM_SIZE, Draft, check_row, open_row, parse_opening, parse_row
from archive.errors import (
    LOST_SEAL,
    OLDER_COPY,
    FormatError,
    IntegrityError,
    InvalidEvent,
    NotFound,
    StorageFailed,
    Unavailable,
)
from archive.filing import HEADER_VERSION
from archive.log import Log, load_head
from archive.plan import ControlDraft, Head, Planned, plan
from archive.ports import Clock, Random, Store
from archive.prepared import Place, Prepared
from archive.seal import Seal
from archive.vault import SubjectKeys, Vault
from archive.wire import Answer, Receipt, Refusal, Submission

_UNREAD = (
    "whose content is erased or cannot be read: if this is the same event, it is kept; else send a new id"
)


class Sealing(Protocol):
    """Where the last signed size and root are kept apart from the database."""

    last: Seal | None

    def write(self, size: int, root: bytes, block: int) -> None:
        """Seal a size, durably."""


class Publishing(Protocol):
    """Where readers look for the published size."""

    def get(self) -> int:
        """Return what was published last, 0 if nobody knows."""

    def set(self, size: int) -> None:
        """Publish a size."""


class Archiver:
    """Appends to one log.  `open` it once, then `step` for ever, or `prepare` and `commit`.

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
        self._preparing = Lock()
        self._top = self._learned = Place(0)
        """Where the head stands, and what the caches know."""
        self._under_way: list[Prepared] = []
        """What was prepared since, in order, each on top of the one before."""

    @property
    def root(self) -> bytes:
        """Root of the log as it stands."""
        return self.head.frontier.root()

    def open(self, start: dict[str, Any], follows: dict[str, Any] | None = None) -> None:
        """Take the log up where it stands and append the control entries of a start.

        `start` is what the start entry says of software and settings (docs/formats/entry.md); `follows` names the log
        that a new one follows (origin, size, root).  Raises IntegrityError if the database does not reach its seal or
        what was published, if its tables disagree, or if the vault is not its own.
        """
        with self._store.view() as view:
            self.head = load_head(view)
            self._top = self._learned = Place(self.head.size)
            log = Log(view, self.head.size)
            self._check_seal(log)
            self._caches.load(log, self._vault.whose)
            check_vault(log, self._vault, self._caches.subjects)
        bodies = [{**start, "control": "start", "header": HEADER_VERSION}]
        if self.head.size == 0:
            created_s = self._clock.now_us() // 1_000_000
            origin = {"control": "origin", "origin": self.origin, "format": 1, "created": created_s}
            bodies.insert(0, {**origin, "follows": follows} if follows else origin)
        self.commit(self.prepare((), bodies))

    def step(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Keep these submissions and return one answer each, in order.

        Raises Unavailable if nothing was kept (no space; try again), StorageFailed or IntegrityError if the
        archiver must stop.  What `step` has answered with a receipt is durable, signed and published.
        """
        return self.commit(self.prepare(submissions))

    def control(self, body: dict[str, Any]) -> int:
        """Append a control entry in its own block and return its index; raise what `step` does, and InvalidEvent."""
        (answer,) = self.commit(self.prepare((), [body]))
        if isinstance(answer, Refusal):
            raise InvalidEvent(answer.detail)
        return answer.index

    def prepare(self, submissions: Sequence[Submission], controls: Sequence[dict[str, Any]] = ()) -> Prepared:
        """Return what keeps these control entries and submissions; nothing is kept yet but new subjects.

        It stands on what was prepared before it, of which at most one block may still be uncommitted.  Raises what
        `step` does: Unavailable if there is no space for new subjects.
        """
        with self._preparing:
            self._check()
            self._learn()
            assert len(self._under_way) < 2, "commit what is prepared before preparing more"
            return self._prepare(submissions, controls)

    def commit(self, prepared: Prepared) -> list[Answer]:
        """Keep what was prepared, in the order of preparing, and return its answers: controls first.

        Raises what `step` raises.
        """
        self._check()
        assert not prepared.kept, "this block is committed already"
        if prepared.kept is False or prepared.base is not self._top:
            prepared = self._prepare_anew(prepared)
        if prepared.drafts:
            self._keep(prepared)
        return prepared.answers()

    def close(self) -> None:
        """Save the caches; the log itself needs no closing."""
        with self._preparing:
            if not self.failed:
                self._learn()
                self._caches.save(self.root, force=True)

    def _check(self) -> None:
        if self.failed:
            raise StorageFailed(
                "this archiver stopped after a failed write; restart it from a copy that verifies"
            )

    # --- prepare ---------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Take into the caches what was kept meanwhile, and forget what was not, with all that stands on it."""
        while self._under_way and self._under_way[0].kept is not None:
            done = self._under_way.pop(0)
            if not done.kept:
                self._forget()
                return
            private = [None if isinstance(one, ControlDraft) else one for one in done.drafts]
            self._caches.learn_block(done.base.size, private)
            self._learned = done.top
            self._caches.save(done.root)

    def _forget(self) -> None:
        """Give up what was prepared on top of something that was not kept: it must never be written."""
        for one in self._under_way:
            one.kept = False
        self._under_way.clear()

    def _prepare_anew(self, stale: Prepared) -> Prepared:
        """Prepare again, on top of the head, what stands on a block that was not kept."""
        with self._preparing:
            self._learn()
            self._forget()
            return self._prepare(stale.submissions, stale.controls)

    def _prepare(self, submissions: Sequence[Submission], controls: Sequence[dict[str, Any]]) -> Prepared:
        below = self._under_way[-1] if self._under_way else None
        work = Prepared(self._learned if below is None else below.top, submissions, controls)
        try:
            self._load(work, below)
        except StorageFailed:
            self.failed = True  # the vault's disk: what it says about new subjects cannot be trusted either
            raise
        work.close()
        if work.drafts:
            self._under_way.append(work)
        return work

    def _load(self, work: Prepared, below: Prepared | None) -> None:
        """Decide for each submission whether it is new, known or refused."""
        hashes = id_hashes(self._vault.id_key, [(one.sender, one.id) for one in work.submissions])
        known = self._known(hashes)
        if known or not self._load_all(work, below, hashes):
            self._load_each(work, below, hashes, known)

    def _load_all(self, work: Prepared, below: Prepared | None, hashes: Sequence[bytes]) -> bool:
        """Draft all submissions at once if each is new and about one subject, as nearly all are; else do nothing."""
        submissions = work.submissions
        if not are_plain(submissions) or not are_distinct(hashes) or (below and below.holds_any(hashes)):
            return False
        keys = self._vault.admit_each([one.subject for one in submissions])
        sequences = self._numbered(keys, work.sequences, below)
        try:
            drafts = self._drafter.draft_many(submissions, hashes, keys, sequences)
        except UNWRITABLE:  # one of them: it alone is refused, and leaves no gap
            work.sequences.clear()
            return False
        work.add_all(drafts, hashes)
        return True

    def _numbered(
        self, keys: Sequence[SubjectKeys], newest: dict[int, int], below: Prepared | None
    ) -> list[int]:
        """Return the number of each next entry among those of its subject: in this block, the one below, and the log.

        `newest` says what this block has come to, and is kept so.
        """
        older, kept = below.sequences if below is not None else dict[int, int](), self._caches.sequence
        numbers = []
        for one in keys:
            number = one.number
            newest[number] = 1 + (newest.get(number) or older.get(number) or kept(number))
            numbers.append(newest[number])
        return numbers

    def _load_each(
        self,
        work: Prepared,
        below: Prepared | None,
        hashes: Sequence[bytes],
        known: Mapping[bytes, tuple[Receipt, bytes] | Refusal],
    ) -> None:
        names = {one.subject for one in work.submissions}
        names.update(name for one in work.submissions for name in one.also)
        subjects = self._vault.admit(names)
        for one, identifier in zip(work.submissions, hashes, strict=True):
            if fault := fault_of(one):
                work.refuse("invalid", fault)
            elif (before := known.get(identifier)) is not None:
                if isinstance(before, Refusal):
                    work.refuse(before.reason, before.detail)
                else:
                    work.repeat(one, *before)
            elif identifier == NO_ID or not work.repeats(one, identifier, below):
                keys = subjects[one.subject]
                (sequence,) = self._numbered([keys], work.sequences, below)
                try:
                    if one.also:
                        work.add(self._of_several(one, identifier, subjects, sequence))
                    else:
                        work.add(self._drafter.draft(one, identifier, keys, sequence))
                except UNWRITABLE as error:
                    work.sequences[keys.number] = sequence - 1  # it leaves no gap
                    work.refuse("invalid", f"event whose header cannot be written: {error}")

    def _of_several(
        self, one: Submission, identifier: bytes, subjects: Mapping[str, SubjectKeys], sequence: int
    ) -> Draft:
        keys = subjects[one.subject]
        numbers = (keys.number, *(subjects[name].number for name in one.also))
        data_key = self._vault.data_key(numbers)
        return self._drafter.draft_of_several(one, identifier, keys, sequence, numbers, data_key)

    def _known(self, hashes: Sequence[bytes]) -> dict[bytes, tuple[Receipt, bytes] | Refusal]:
        """Return receipt and digest of the payload of those ids that the caches find in the log.

        Where an entry cannot be read, or its person was erased, nobody can tell whether this is the same: a refusal.
        """
        hashes = [one for one in hashes if one != NO_ID]
        candidates = self._caches.candidates(hashes)
        if not any(candidates):
            return {}
        known: dict[bytes, tuple[Receipt, bytes] | Refusal] = {}
        with self._store.view() as view:
            log = Log(view, self._learned.size)
            for identifier, indices in zip(hashes, candidates, strict=True):
                for index in indices:
                    try:
                        data = log.row(index)
                        check_row(data)  # else a row whose id changed on the disk would have it kept twice
                        row = parse_row(data)
                        if row.identifier == identifier:
                            opened = parse_opening(open_row(row, self._vault.data_key(row.subjects)))
                            # The digest and not the payload: a small request may name many large events.
                            content = sha256(opened.payload).digest()
                            known[identifier] = Receipt(index, log.covering(index)[0]), content
                    except (FormatError, IntegrityError, NotFound):  # one entry: no reason to take no others
                        known[identifier] = Refusal(
                            "conflict", f"this id was used by entry {index}, {_UNREAD}"
                        )
        return known

    # --- commit ----------------------------------------------------------------------------------

    def _keep(self, prepared: Prepared) -> None:
        assert prepared.base is self._top, "what was prepared for another place must not be written"
        wrote = in_log = False
        try:
            planned = self._plan(prepared.drafts)
            block, wrote = planned.block, True
            self._store.commit(planned.writes)
            in_log = True
            self._seal.write(block.size, block.root, block.number)
        except BaseException as error:
            # That nothing was kept is the one failure of which memory knows all.  After any other, only a start,
            # which looks, may go on.
            self.failed = in_log or (wrote and not isinstance(error, Unavailable))
            prepared.kept = False
            raise
        self._published.set(block.size)
        self.head, self._top = planned.head, prepared.top
        prepared.root, prepared.kept = block.root, True

    def _plan(self, drafts: Sequence[Draft | ControlDraft]) -> Planned:
        now_s = self._clock.now_us() // 1_000_000
        return plan(
            self.head, self.origin, drafts, now_s, self._random(RANDOM_SIZE * len(drafts)), self._sign
        )

    def _check_seal(self, log: Log) -> None:
        seal = self._seal.last
        if seal is None:
            if log.size:
                raise IntegrityError(
                    "the log has entries but no seal; see docs/recovery.md, lost seal", section=LOST_SEAL
                )
            check_published(0, self._published.get())
            # A crash right after the first commit then leaves a log ahead of its seal, not one without.
            self._seal.write(0, log.root(), 0)
            return
        if log.size < seal.size:
            raise IntegrityError(
                f"the database has {log.size} entries, but {seal.size} were signed and sealed: "
                "it is an older copy. Bring back the newest one; never go on from this one under the same origin",
                section=OLDER_COPY,
            )
        if log.root(seal.size) != seal.root:
            raise IntegrityError(
                f"the first {seal.size} entries are not those that were sealed; run verify-log",
                section=OLDER_COPY,
            )
        check_published(log.size, self._published.get())
        if log.size:
            self._seal.write(log.size, log.root(), self.head.block - 1)
            self._published.set(log.size)
