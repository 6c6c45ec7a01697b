"""Is a subject's folder all that the log holds, and whose is it?  `treering receipt check-complete`.

    verdict = check_folder(folder, read_manifest(folder), open_leaves("public"), [verifier])
    show(verdict, signed=True)

Two things are told apart.  That the list is complete is shown under a *tag key*: whoever has it computes all the tags
that entries under it can bear, and looks for them in every leaf.  Whose key that is, a leaf does not say; it commits to
an opening, in which the name stands.  So a name is vouched for by the openings that are in the folder and are what
their leaves commit to.  Where there are none the name is what the sender of the folder says, and this is said.

An opening that is not there may be of an entry that was erased, or may have been kept back: nobody can tell from the
folder, so they are counted.  Files: `tools.subject_folder`; the command: `tools.receipt`; tags: `archive.subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archive import (
    ArchiveError,
    Claim,
    Finding,
    FormatError,
    IntegrityError,
    Unavailable,
    check_complete,
    check_opening,
)
from merkle import Checkpoint, MerkleError, TlogProof, Verifier
from tools.console import number, printable, progress
from tools.leaves import LeafSource, check_signed, open_signed, verified_leaves
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


def check_folder(
    folder: Path, manifest: Manifest, source: LeafSource, verifiers: Sequence[Verifier]
) -> Verdict:
    """Return what is wrong with a subject's folder, given a copy of the log.

    Raises IntegrityError if the copy is not what was signed, Unavailable if it ends before the folder's size, and
    merkle's errors for a malformed or unsigned checkpoint.
    """
    claimed = claims(manifest)
    own = open_signed(read_file(folder, "checkpoint"), verifiers)
    if (own.origin, own.size) != (manifest.origin, manifest.size):
        raise FormatError("subject.json and checkpoint speak of different logs or sizes")
    copy = open_signed(source.read("checkpoint"), verifiers)
    _check_copy(copy, own)
    verdict = Verdict(own.size, copy.size)
    kept: dict[int, bytes] = dict.fromkeys((index for one in claimed for index in one.indices), b"")
    with progress("checking", copy.size) as advance:
        roots = {copy.size: copy.root, own.size: own.root}
        leaves = _keeping(verified_leaves(source, copy.size, roots), kept, advance)
        verdict.findings += check_complete(claimed, own.size, leaves)
    for claim in claimed:
        listed = Listed(claim.name, len(claim.indices))
        verdict.findings += _check_entries(folder, claim, own, kept, verifiers, listed)
        verdict.subjects.append(listed)
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


def _keeping(
    leaves: Iterable[bytes], kept: dict[int, bytes], advance: Callable[[int], None]
) -> Iterator[bytes]:
    """Pass leaves on, and keep those that the folder speaks of."""
    for index, leaf in enumerate(leaves):
        if index in kept:
            kept[index] = leaf
        if index & 0xFF == 0xFF:
            advance(256)
        yield leaf


def _check_entries(
    folder: Path,
    claim: Claim,
    own: Checkpoint,
    leaves: dict[int, bytes],
    verifiers: Sequence[Verifier],
    listed: Listed,
) -> Iterator[Finding]:
    """Yield which receipts and openings of a subject do not belong to the leaves; count openings in `listed`."""
    for sequence, index in enumerate(claim.indices, 1):
        try:
            _check_receipt(folder, index, own, leaves[index], verifiers)
            if _is_opened(folder, claim.name, sequence, index, leaves[index]):
                listed.opened += 1
            else:
                listed.missing += 1
        except (ArchiveError, MerkleError) as error:
            yield Finding("entry", index, str(error))


def _check_receipt(
    folder: Path, index: int, own: Checkpoint, leaf: bytes, verifiers: Sequence[Verifier]
) -> None:
    proof = TlogProof.decode(read_file(folder, receipt_name(index)))
    if (proof.index, proof.extra) != (index, leaf):
        raise IntegrityError(f"{receipt_name(index)} is of another entry, or of another log")
    if verifiers and check_signed(proof, verifiers)[0] != own:
        raise IntegrityError(f"{receipt_name(index)} is under another checkpoint than the folder's")


def _is_opened(folder: Path, name: str, sequence: int, index: int, leaf: bytes) -> bool:
    """Return whether an opening is there that ties the name to the leaf; raise if it is another's."""
    opening = read_opening(folder, index)
    if opening is None:
        return False
    header = check_opening(leaf, opening).header
    if (header.subject, header.sequence) != (name, sequence):
        raise IntegrityError(f"{opening_name(index)} is number {header.sequence} of {header.subject}")
    return True


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
            }
            for one in verdict.subjects
        ],
        "findings": [
            {"check": one.check, "index": one.index, "detail": one.detail} for one in verdict.findings
        ],
    }


def show(verdict: Verdict, *, signed: bool) -> None:
    """Print the result for people: no more than was shown."""
    for finding in verdict.findings[:SHOWN]:
        print(printable(f"entry {finding.index}: {finding.detail}"))
    if len(verdict.findings) > SHOWN:
        print(f"… and {len(verdict.findings) - SHOWN} more; --json lists all")
    if verdict.findings:
        print(f"NOT COMPLETE: {len(verdict.findings)} findings")
        return
    word = "complete" if signed else "complete, as far as this copy goes (no --vkey given)"
    for one in verdict.subjects:
        for line in told(one, word, verdict.size):
            print(line)
    if len(verdict.subjects) > 1:
        print("that these are one person is the sender's claim")
    if verdict.leaves > verdict.size:
        print(f"the copy goes on to {number(verdict.leaves)}; what came after the export was not looked at")


def told(one: Listed, word: str, size: int) -> Iterator[str]:
    r"""Yield what was shown of one subject.

    >>> print(*told(Listed("student:ann", 9, opened=7, missing=2), "complete", 3022), sep="\n")
    complete: 9 entries under this tag key among the first 3,022, each once, and no other
      the key is that of student:ann: so say the openings of 7 of them
      2 openings are not there (erased, or kept back): what is in these entries is not shown
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
        yield f"  the key is that of {printable(one.name)}: so say the openings of {number(one.opened)} of them"
    else:
        yield f"  that the key is that of {printable(one.name)} is the sender's claim: no opening shows it"
    if one.missing:
        verb = "opening is" if one.missing == 1 else "openings are"
        where = "this entry" if one.missing == 1 else "these entries"
        yield f"  {number(one.missing)} {verb} not there (erased, or kept back): what is in {where} is not shown"
