"""Is a subject's folder all that the log holds, and whose is it?  `treering receipt check-complete`.

    verdict = check_folder(folder, read_manifest(folder), open_leaves("public"), [verifier])
    show(verdict, signed=True)

Three things are told apart.  That the list is complete is shown under a *tag key*: whoever has it computes all the tags
that entries under it can bear, and looks for them in every leaf.  Whose key that is, a leaf does not say; it commits to
an opening, in which the name stands.  So a name is vouched for by the openings that are in the folder and are what
their leaves commit to.  Where there are none the name is what the sender of the folder says, and this is said.  And
entries that bear the tag of another, and concern her *also*, are listed only: their receipts and openings are checked,
and that the header names her, as it must since headers say so (`archive.header_version`); that they are all no tag
shows.

Who has late said who she is left an entry that binds what was sent before.  Its opening names the provisional subject:
a folder that does not list it leaves something out.

All leaves are read, so all changes of the log's key are among them, and each checkpoint must be signed by the key
whose turn it was.

An opening that is not there may be of an entry that was erased or is rotten, or may have been kept back: nobody can
tell from the folder, so they are counted.

Files: `tools.subject_folder`; the command: `tools.receipt`; tags: `archive.subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archive import (
    PROMISED,
    ArchiveError,
    Claim,
    Finding,
    FormatError,
    IntegrityError,
    Opened,
    Unavailable,
    check_complete,
    check_opening,
    check_receipt,
    control_body,
    header_version,
    header_version_at,
    parse_leaf,
    rotations_of,
)
from merkle import Checkpoint, Ed25519Verifier, MerkleError, TlogProof, key_label
from tools.console import number, progress
from tools.leaves import (
    LeafSource,
    check_turn,
    open_signed,
    ring_of_leaves,
    signer_of,
    unsigned,
    verified_leaves,
)
from tools.process import one_line
from tools.subject_folder import Manifest, claims, opening_name, read_file, read_opening, receipt_name

SHOWN = 20


@dataclass
class Listed:
    """One subject of a folder: how many entries are listed, and how many of them are opened."""

    name: str
    entries: int
    opened: int = 0
    """Openings that are there, are what their leaf commits to, and say this name and the right number."""
    missing: int = 0
    """Openings that are not there."""
    also: int = 0
    """Entries that concern it also, whose first subject is another."""

    @property
    def named(self) -> bool:
        """Whether anything but the folder's word ties the name to the tag key."""
        return self.opened > 0


@dataclass
class Verdict:
    """What was found about a subject's folder."""

    size: int
    """At which the folder was made."""
    leaves: int
    """In the copy of the log."""
    findings: list[Finding] = field(default_factory=list)
    subjects: list[Listed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What to think of, though it is as claimed."""


def check_folder(
    folder: Path, manifest: Manifest, source: LeafSource, verifiers: Sequence[Ed25519Verifier]
) -> Verdict:
    """Return what is wrong with a subject's folder, given a copy of the log.

    Raises IntegrityError if the copy is not what was signed, Unavailable if it ends before the folder's size, and
    merkle's errors for a malformed or unsigned checkpoint.
    """
    claimed = claims(manifest)
    notes = read_file(folder, "checkpoint"), source.read("checkpoint")
    own, copy = (open_signed(note, verifiers) for note in notes)
    if (own.origin, own.size) != (manifest.origin, manifest.size):
        raise FormatError("subject.json and checkpoint speak of different logs or sizes")
    _check_copy(copy, own)
    verdict = Verdict(own.size, copy.size)
    listed = (index for one in claimed for index in (*one.indices, *one.also))
    kept = _Kept(dict.fromkeys(listed, b""))
    with progress("checking", copy.size) as advance:
        roots = {copy.size: copy.root, own.size: own.root}
        leaves = kept.passed_on(verified_leaves(source, copy.size, roots), advance)
        verdict.findings += check_complete(claimed, own.size, leaves)
    if verifiers:
        verdict.warnings += _check_keys(notes, kept, verifiers)
    check = _Entries(folder, own, kept, signer_of(notes[0], verifiers) if verifiers else None)
    for claim in claimed:
        one = Listed(claim.name, len(claim.indices), also=len(claim.also))
        verdict.findings += [*check.own(claim, one), *check.also(claim)]
        verdict.subjects.append(one)
    verdict.findings += check.unlisted({claim.name for claim in claimed})
    return verdict


def _check_copy(copy: Checkpoint, own: Checkpoint) -> None:
    if copy.origin != own.origin:
        raise IntegrityError(f"the copy is of the log {copy.origin}, the folder of {own.origin}")
    if copy.size < own.size:
        raise Unavailable(
            f"the copy has {copy.size} entries, the folder speaks of {own.size}; take a newer copy"
        )
    if copy.size == own.size and copy.root != own.root:
        raise IntegrityError(f"two roots at size {own.size}: the log has forked; keep both checkpoints")


def _check_keys(notes: Sequence[bytes], kept: _Kept, verifiers: Sequence[Ed25519Verifier]) -> Iterator[str]:
    """Raise IntegrityError unless each checkpoint, the copy's last, is signed by the key whose turn it was.

    Yields a warning if the copy ends at a rotation: no key of later vouches for what is in it.
    """
    signer = signer_of(notes[-1], verifiers)
    ring = ring_of_leaves(list(rotations_of(kept.controls)), verifiers, signer)
    for note in notes:
        check_turn(note, ring)
    if ring.at(unsigned(notes[-1]).size) != ring.current:
        yield (
            "the copy ends where the log changed its key, and only the earlier key has signed it, "
            f"{key_label(signer)}: whoever has that could have made it; compare with a newer copy"
        )


class _Kept:
    """What is kept of all the leaves: those that the folder speaks of, and those by which the log changed its key.

    Of those by which it was taken up, index and version of the headers that follow.
    """

    def __init__(self, leaves: dict[int, bytes]) -> None:
        self.leaves = leaves
        self.controls: list[tuple[int, bytes]] = []
        self.versions: list[tuple[int, int]] = []

    def passed_on(self, leaves: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
        """Pass leaves on, and keep some."""
        for index, leaf in enumerate(leaves):
            if index in self.leaves:
                self.leaves[index] = leaf
            # A sieve, since a log may have many control entries: theirs is canonical JSON, and always says it so.
            if b'"control":"rotate"' in leaf:
                self.controls.append((index, leaf))
            elif b'"control":"start"' in leaf:
                self.versions.append((index, header_version(control_body(parse_leaf(leaf))) or 1))
            if index & 0xFF == 0xFF:
                advance(256)
            yield leaf


class _Entries:
    """A check of the receipts and openings in a folder against the leaves."""

    def __init__(self, folder: Path, own: Checkpoint, kept: _Kept, signer: Ed25519Verifier | None) -> None:
        self._folder, self._own, self._signer = folder, own, signer
        self._leaves, self._versions = kept.leaves, kept.versions
        self._bound: list[tuple[int, str]] = []

    def own(self, claim: Claim, listed: Listed) -> Iterator[Finding]:
        """Yield what does not belong to a subject's own entries; count openings in `listed`."""
        for sequence, index in enumerate(claim.indices, 1):
            try:
                opened = self._open(index)
                if opened is None:
                    listed.missing += 1
                    continue
                self._check_owner(opened, claim.name, sequence, index)
                listed.opened += 1
            except (ArchiveError, MerkleError) as error:
                yield Finding("entry", index, str(error))

    def also(self, claim: Claim) -> Iterator[Finding]:
        """Yield what does not belong to the entries that concern a subject also."""
        for at, index in enumerate(claim.also):
            try:
                opened = self._open(index)
            except (ArchiveError, MerkleError) as error:
                yield Finding("entry", index, str(error))
                continue
            if index in claim.indices or index in claim.also[:at]:
                yield Finding("entry", index, f"it is listed twice for {claim.name}")
            elif opened is not None and opened.header.subject == claim.name:
                detail = f"{claim.name} is its first subject, and it is listed as one that concerns them also"
                yield Finding("entry", index, detail)
            elif opened is not None and not self._may_concern(claim.name, opened, index):
                yield Finding(
                    "entry", index, f"its opening does not name {claim.name}, whom it is to concern also"
                )

    def unlisted(self, names: set[str]) -> Iterator[Finding]:
        """Yield which entries, of those that were opened, bind a provisional subject that is not listed."""
        for index, name in self._bound:
            if name not in names:
                yield Finding("complete", index, f"it binds {name}, which is not listed: it was left out")

    def _open(self, index: int) -> Opened | None:
        """Return what is in an entry, None if its opening is not there, after checking its receipt and opening."""
        leaf = self._leaves[index]
        proof = TlogProof.decode(read_file(self._folder, receipt_name(index)))
        if (proof.index, proof.extra) != (index, leaf):
            raise IntegrityError(f"{receipt_name(index)} is of another entry, or of another log")
        if self._signer and check_receipt(proof, self._signer)[0] != self._own:
            raise IntegrityError(f"{receipt_name(index)} is under another checkpoint than the folder's")
        opening = read_opening(self._folder, index)
        return None if opening is None else check_opening(leaf, opening)

    def _may_concern(self, name: str, opened: Opened, index: int) -> bool:
        """Return whether an opening names somebody besides its first subject, or is too old to name anybody."""
        also = opened.header.extra.get("also")
        if also is None:
            return (header_version_at(self._versions, index) or 1) < PROMISED
        return isinstance(also, list) and name in also

    def _check_owner(self, opened: Opened, name: str, sequence: int, index: int) -> None:
        """Raise IntegrityError if an opening ties another name to the leaf; note whom it binds."""
        header = opened.header
        if (header.subject, header.sequence) != (name, sequence):
            raise IntegrityError(f"{opening_name(index)} is number {header.sequence} of {header.subject}")
        if "bind" in header.extra:
            self._bound.append((index, str(header.extra["bind"])))


# --- what is said ---------------------------------------------------------------------------------


def report(verdict: Verdict, *, signed: bool) -> dict[str, Any]:
    """Return the result as JSON; `signed` tells whether signatures were checked."""
    return {
        "complete": not verdict.findings,
        "signatures": signed,
        "size": verdict.size,
        "leaves": verdict.leaves,
        "entries": {one.name: one.entries for one in verdict.subjects},
        "subjects": [
            {
                "name": one.name,
                "named": one.named,
                "entries": one.entries,
                "opened": one.opened,
                "missing": one.missing,
                "also": one.also,
            }
            for one in verdict.subjects
        ],
        "findings": [
            {"check": one.check, "index": one.index, "detail": one.detail} for one in verdict.findings
        ],
        "warnings": verdict.warnings,
    }


def show(verdict: Verdict, *, signed: bool) -> None:
    """Print the result for people: no more than was shown."""
    for warning in verdict.warnings:
        print(f"warning: {one_line(warning)}")
    for finding in verdict.findings[:SHOWN]:
        print(one_line(f"entry {finding.index}: {finding.detail}"))
    if len(verdict.findings) > SHOWN:
        print(f"… and {len(verdict.findings) - SHOWN} more; --json lists all")
    if verdict.findings:
        print(f"NOT COMPLETE: {len(verdict.findings)} findings")
        return
    word = "complete" if signed else "complete, as far as this copy goes (no --vkey given)"
    for one in verdict.subjects:
        for line in told(one, word, verdict.size):
            print(line)
    print(told_also(sum(one.also for one in verdict.subjects)))
    if len(verdict.subjects) > 1:
        print("that these are one person is the sender's claim")
    if verdict.leaves > verdict.size:
        print(f"the copy goes on to {number(verdict.leaves)}; what came after the export was not looked at")


def told(one: Listed, word: str, size: int) -> Iterator[str]:
    r"""Yield what was shown of one subject.

    >>> print(*told(Listed("student:ann", 9, opened=7, missing=2), "complete", 3022), sep="\n")
    complete: 9 entries under this tag key among the first 3,022, each once, and no other
      the key is that of student:ann: so say the openings of 7 of them
      2 openings are not there (erased, rotten, or kept back): what is in these entries is not shown
    >>> print(*told(Listed("student:bob", 0), "complete", 3022), sep="\n")
    complete: no entry under this tag key among the first 3,022
      that the key is that of student:bob is the sender's claim: no opening shows it
    """
    among = f"under this tag key among the first {number(size)}"
    if one.entries:
        noun = "entry" if one.entries == 1 else "entries"
        yield f"{word}: {number(one.entries)} {noun} {among}, each once, and no other"
    else:
        yield f"{word}: no entry {among}"
    if one.named:
        yield f"  the key is that of {one_line(one.name)}: so say the openings of {number(one.opened)} of them"
    else:
        yield f"  that the key is that of {one_line(one.name)} is the sender's claim: no opening shows it"
    if one.missing:
        verb = "opening is" if one.missing == 1 else "openings are"
        where = "this entry" if one.missing == 1 else "these entries"
        why = "(erased, rotten, or kept back)"
        yield f"  {number(one.missing)} {verb} not there {why}: what is in {where} is not shown"


def told_also(also: int) -> str:
    """Return what was shown of the entries whose first subject is another.

    >>> print(told_also(0))
    whether entries of other subjects concern them also is not shown: none is listed
    >>> print(told_also(2))
    listed only: 2 entries of other subjects that concern them also; that these are all is not shown
    """
    if not also:
        return "whether entries of other subjects concern them also is not shown: none is listed"
    noun, that = ("entry", "this is") if also == 1 else ("entries", "these are")
    verb = "concerns" if also == 1 else "concern"
    return (
        f"listed only: {number(also)} {noun} of other subjects that {verb} them also; "
        f"that {that} all is not shown"
    )
