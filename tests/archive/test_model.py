"""The archive against its model, which is a list.

Hypothesis appends, repeats, contradicts, crashes, restarts and turns the clock, in any order; after each step
the log must hold the list, and everything that was ever signed must still be true.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from archive import Log, Receipt, Refusal, Submission, Unavailable, caches, parse_leaf
from merkle import prove_consistency, verify_consistency
from tests.archive import spec
from tests.archive.site import SIGNER, Site, event
from tests.checker import parts, table
from tests.faults import Crash, Outcome, Schedule


class Kept(NamedTuple):
    """An entry of the model."""

    payload: bytes
    id: str | None
    receipt: Receipt | None
    """None where a crash swallowed it."""


payloads = st.binary(max_size=4)
subjects = st.sampled_from(["student:ann", "student:bob", "source:x", "provisional:c1"])
batches = st.lists(st.tuples(payloads, subjects, st.booleans()), min_size=1, max_size=6)


class LogMachine(RuleBasedStateMachine):
    """A log and the list that it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(caches, "SAVE_ENTRIES", 4)
        self.patch.setattr(caches, "MERGE_RATIO", 1)
        self.site = Site(folder=self.folder / "caches")
        self.model: list[Kept] = []
        self.roots: dict[int, bytes] = {}
        self.ids = 0

    def teardown(self) -> None:
        """Judge the whole log once more, and clean up."""
        self.site.check()
        self.patch.undo()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        """Start for the first time."""
        self.schedule = Schedule()
        self.archiver = self.site.start(self.schedule)

    def fresh(self, batch: list[tuple[bytes, str, bool]]) -> list[Submission]:
        """Return submissions of a batch, each with an id of its own or none."""
        made = []
        for payload, subject, named in batch:
            self.ids += named
            made.append(event(payload, subject=subject, id=f"id {self.ids}" if named else None))
        return made

    def named(self, number: int) -> Kept | None:
        """Return some entry of the model that has an id."""
        with_id = [kept for kept in self.model if kept.id is not None]
        return with_id[number % len(with_id)] if with_id else None

    @rule(batch=batches)
    def append(self, batch: list[tuple[bytes, str, bool]]) -> None:
        """New entries get indices in a row and one covering size."""
        sent = self.fresh(batch)
        first = self.archiver.head.size
        answers = self.archiver.step(sent)
        assert answers == [Receipt(first + at, first + len(sent)) for at in range(len(sent))]
        for one, answer in zip(sent, answers, strict=True):
            assert isinstance(answer, Receipt)
            self.model.append(Kept(one.payload, one.id, answer))

    @rule(batch=batches, ahead=batches, space=st.booleans(), again=st.booleans())
    def append_two_stages(
        self,
        batch: list[tuple[bytes, str, bool]],
        ahead: list[tuple[bytes, str, bool]],
        space: bool,
        again: bool,
    ) -> None:
        """A batch prepared on top of another, and repeating it, follows it, or takes its place if it has no space."""
        below, first = self.fresh(batch), self.archiver.head.size
        repeated = [one for one in below if one.id is not None] if again else []
        sent = [*repeated, *self.fresh(ahead)]
        blocks = [self.archiver.prepare(below), self.archiver.prepare(sent)]
        told = []
        if space:
            receipts = [Receipt(first + at, first + len(below)) for at in range(len(below))]
            assert self.archiver.commit(blocks[0]) == receipts
            self.model += [
                Kept(one.payload, one.id, answer) for one, answer in zip(below, receipts, strict=True)
            ]
            told = [answer for one, answer in zip(below, receipts, strict=True) if one in repeated]
        else:
            self.schedule.at, self.schedule.outcome = len(self.schedule.steps) + 1, Outcome.LOST
            self.schedule.error = Unavailable
            with pytest.raises(Unavailable):
                self.archiver.commit(blocks[0])
            self.schedule.at, self.schedule.error = 0, Crash
        new, first = sent[len(told) :], self.archiver.head.size
        receipts = [Receipt(first + at, first + len(new)) for at in range(len(new))]
        assert self.archiver.commit(blocks[1]) == told + receipts
        self.model += [Kept(one.payload, one.id, answer) for one, answer in zip(new, receipts, strict=True)]

    @rule(number=st.integers(0, 99))
    def repeat(self, number: int) -> None:
        """A repetition gets the receipt it got before and appends nothing."""
        if (kept := self.named(number)) is not None:
            size = self.archiver.head.size
            (answer,) = self.archiver.step([event(kept.payload, id=kept.id)])
            assert isinstance(answer, Receipt)
            assert kept.receipt in (None, answer)
            assert self.archiver.head.size == size
            self.model[self.model.index(kept)] = kept._replace(receipt=answer)

    @rule(number=st.integers(0, 99))
    def contradict(self, number: int) -> None:
        """Other content under a known id is a conflict and appends nothing."""
        if (kept := self.named(number)) is not None:
            size = self.archiver.head.size
            (answer,) = self.archiver.step([event(kept.payload + b"!", id=kept.id)])
            assert isinstance(answer, Refusal)
            assert (answer.reason, self.archiver.head.size) == ("conflict", size)

    @rule(batch=batches, at=st.integers(1, 5), outcome=st.sampled_from(Outcome))
    def crash(self, batch: list[tuple[bytes, str, bool]], at: int, outcome: Outcome) -> None:
        """A batch under which the process dies is kept as a whole or not at all."""
        self.schedule.at, self.schedule.outcome = len(self.schedule.steps) + at, outcome
        sent = self.fresh(batch)
        try:
            self.archiver.step(sent)
        except Crash:
            died = self.schedule.steps[self.schedule.at - 1]
        else:
            died = "after the answer"
        survived = [entry.payload for entry in self.site.events()]
        kept = [Kept(one.payload, one.id, None) for one in sent]
        if died in ("seal", "publish", "after the answer") or (died == "log" and outcome is Outcome.KEPT):
            self.model += kept
        assert survived == [one.payload for one in self.model]
        self.begin()

    @rule(close=st.booleans())
    def restart(self, close: bool) -> None:
        """Another process takes the log up, whether the one before said good-bye or not."""
        if close:
            self.archiver.close()
        self.begin()

    @rule()
    def save_caches(self) -> None:
        """Caches are saved at any time."""
        self.archiver.close()

    @rule(seconds=st.integers(-(10**6), 10**6))
    def turn_the_clock(self, seconds: int) -> None:
        """The clock goes on, or is set back."""
        self.site.clock.time_us = max(0, self.site.clock.time_us + seconds * 1_000_000)

    @precondition(lambda self: self.model)
    @rule(start=st.integers(0, 60), count=st.integers(0, 60))
    def read_a_range(self, start: int, count: int) -> None:
        """A range read through the log is that range of the leaves, up to the published size."""
        leaves = parts(table(self.site.log, "leaves"), 2)
        size = self.site.published.get()
        with self.site.log.view() as view:
            found = list(Log(view, size).leaves(start, start + count))
        assert found == list(enumerate(leaves))[start : min(start + count, size)]

    @invariant()
    def entries_equal_the_model(self) -> None:
        """The log holds what the model holds, in its order; the judge finds nothing else to say."""
        entries = self.site.check()
        private = [entry for entry in entries if entry.body is None]
        assert [(entry.payload, entry.id) for entry in private] == [
            (kept.payload, kept.id) for kept in self.model
        ]
        for entry, kept in zip(private, self.model, strict=True):
            assert kept.receipt is None or kept.receipt.index == entry.index

    @invariant()
    def what_was_signed_stays_true(self) -> None:
        """The root equals the RFC's definition; every root ever seen is that of a prefix; nothing shrinks."""
        leaves = parts(table(self.site.log, "leaves"), 2)
        with self.site.log.view() as view:
            log = Log(view, self.site.published.get())
            size, note = log.checkpoint()
            assert size == log.size == len(leaves) == self.archiver.head.size
            root = log.root()
            assert root == spec.tree_root(leaves) == self.archiver.root
            assert f"\n{size}\n".encode() in note
            assert size >= max(self.roots, default=0)
            for old, old_root in self.roots.items():
                proof = prove_consistency(old, size, log.read_nodes)
                verify_consistency(old, old_root, size, root, proof)
        times = [parse_leaf(leaf).time_s for leaf in leaves]
        assert times == sorted(times)
        self.roots[size] = root


TestLog = LogMachine.TestCase
TestLog.settings = settings(stateful_step_count=20, max_examples=max(30, settings().max_examples // 2))


def test_the_key_of_this_file_signs() -> None:
    """The judge checks signatures under the key that the sites sign with."""
    assert SIGNER.name == "example.org/log"
