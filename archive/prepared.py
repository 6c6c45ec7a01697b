"""A block to be: what becomes of each submission, and where in the log all of it stands.

A prepared block is a proposal.  Its indices, its sequence numbers, and which of its submissions are repetitions, hold
at one place of one history only, its `base`.  So it can be prepared while the block below it is still being committed,
and must not be written if that one was not kept.  Until that one is in the caches, what it holds is looked up in it:

    caches (blocks that are kept)  +  the block under way  =  all that stands below the next one

>>> block = Prepared(Place(0), [], [{"control": "origin"}])
>>> block.answers(), block.kept
([Receipt(index=0, size=1)], None)

Who prepares and commits: `archive.archiver`.  How a block becomes bytes: `archive.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from archive.entry import NO_ID, Draft
from archive.plan import ControlDraft
from archive.steering import refused_at
from archive.wire import Answer, Receipt, Refusal, Submission


class Place:
    """A size in the history of one log.  Only the same object is the same place: another history may have its size."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Prepared:
    """What one commit is asked to keep, and what becomes of each part of it.

    Control entries come first; they are kept unless they steer, and may not say so at their place.
    """

    def __init__(
        self, base: Place, submissions: Sequence[Submission], controls: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.base, self.submissions, self.controls = base, submissions, controls
        self.top = base
        """The place after it, once all submissions are answered."""
        self.kept: bool | None = None
        """Whether it was kept; None while nobody knows."""
        self.root = b""
        """Root of the log after it, once it is kept."""
        self.drafts: list[Draft | ControlDraft] = []
        self.sequences: dict[int, int] = {}
        """The newest sequence number of each subject in it."""
        self._by_id: dict[bytes, int] = {}
        self._answers: list[Answer | int] = []  # an int is the place of a draft
        for body in controls:
            self._add_control(body)

    def _add_control(self, body: dict[str, Any]) -> None:
        """Answer a control entry: it is kept, or would be a finding at its place for ever, and is refused."""
        if (fault := refused_at(body, self.base.size + len(self.drafts))) is not None:
            self.refuse("invalid", fault)
            return
        self._answers.append(len(self.drafts))
        self.drafts.append(ControlDraft(body))

    def add(self, draft: Draft) -> None:
        """Answer the next submission: it becomes an entry."""
        if draft.identifier != NO_ID:
            self._by_id[draft.identifier] = len(self.drafts)
        self._answers.append(len(self.drafts))
        self.drafts.append(draft)

    def add_all(self, drafts: Sequence[Draft], identifiers: Sequence[bytes]) -> None:
        """Answer as many submissions: each becomes an entry.  They are the first ones, and no id is there twice."""
        first = len(self.drafts)
        places = range(first, first + len(drafts))
        self._by_id.update(zip(identifiers, places, strict=True))
        self._by_id.pop(NO_ID, None)
        self._answers += places
        self.drafts += drafts

    def holds_any(self, identifiers: Iterable[bytes]) -> bool:
        """Return whether one of these ids is in it."""
        return not self._by_id.keys().isdisjoint(identifiers)

    def refuse(self, reason: str, detail: str) -> None:
        """Answer the next control entry or submission: it is not kept."""
        self._answers.append(Refusal(reason, detail))

    def repeat(self, one: Submission, receipt: Receipt, content: bytes) -> None:
        """Answer the next submission: its id was given to the entry of `receipt`, whose payload has this SHA-256."""
        same = sha256(one.payload).digest() == content
        self._answers.append(receipt if same else _conflict(one, receipt.index))

    def repeats(self, one: Submission, identifier: bytes, below: Prepared | None) -> bool:
        """Answer the next submission and return True if its id is in this block, or in the one `below`."""
        if (place := self._by_id.get(identifier)) is not None:
            self._answers.append(place if self._is(one, place) else _conflict(one, self.base.size + place))
            return True
        if below is None or (place := below._by_id.get(identifier)) is None:
            return False
        index = below.base.size + place
        receipt = Receipt(index, below.top.size)
        self._answers.append(receipt if below._is(one, place) else _conflict(one, index))
        return True

    def close(self) -> None:
        """Say that all submissions are answered."""
        if self.drafts:
            self.top = Place(self.base.size + len(self.drafts))

    def answers(self) -> list[Answer]:
        """Return the answers, controls first; true once the block is kept."""
        first, size = self.base.size, self.base.size + len(self.drafts)
        return [Receipt(first + one, size) if isinstance(one, int) else one for one in self._answers]

    def _is(self, one: Submission, place: int) -> bool:
        draft = self.drafts[place]
        return isinstance(draft, Draft) and draft.payload == one.payload


def _conflict(one: Submission, index: int) -> Refusal:
    return Refusal("conflict", f"id {one.id!r} was used for other content, entry {index}; send a new id")
