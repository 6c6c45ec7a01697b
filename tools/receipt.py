"""treering receipt: check, offline, what somebody was given.

    $ treering receipt check 17.tlog-proof --vkey KEY --opening 17.opening.json --event event.json
    verified: entry 17 of treering.local/5f2a… at size 18
    opening: the leaf commits to it: student:ann, number 3, 412 bytes
    event: just these bytes

    $ treering receipt check-complete ann --leaves https://mirror.example.org/log --vkey KEY
    complete: 214 entries of student:ann among the first 25,537, each once, and no other

`check` needs nothing but its files and the log's verifier key.  `check-complete` takes a folder of `treering export
subject --tag-key` and any copy of the public leaves; it recomputes the root over all of them.  Without `--vkey` it
shows only that the copy and the folder agree with themselves and each other.

Exit codes: 0 as claimed, 1 not as claimed, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from archive import (
    ArchiveError,
    Claim,
    Finding,
    FormatError,
    IntegrityError,
    Leaf,
    NotFound,
    Opened,
    Opening,
    Unavailable,
    check_complete,
    check_opening,
    check_receipt,
)
from merkle import Checkpoint, MerkleError, SignatureError, TlogProof, Verifier
from tools.console import fail, number, print_json, progress
from tools.leaves import LeafSource, open_leaves, open_signed, verified_leaves
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE
from tools.subject_folder import (
    Manifest,
    claims,
    opening_name,
    read_file,
    read_manifest,
    read_opening,
    receipt_name,
)
from tools.verify_log import read_vkey

SHOWN = 20


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering receipt`."""
    made = argparse.ArgumentParser(
        prog="treering receipt", description="Check receipts, openings, completeness."
    )
    commands = made.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check one receipt, and what it is a receipt for")
    check.add_argument("file", type=Path, metavar="FILE", help="a .tlog-proof")
    check.add_argument("--opening", type=Path, metavar="FILE", help="what the leaf should commit to")
    check.add_argument("--event", type=Path, metavar="FILE", help="the bytes of the event; needs --opening")
    complete = commands.add_parser("check-complete", help="show that a subject's entries are all there are")
    complete.add_argument("folder", type=Path, metavar="DIR", help="from treering export subject --tag-key")
    complete.add_argument(
        "--leaves", required=True, metavar="DIR|URL", help="a copy of the log: exported tiles, or a server"
    )
    for one in (check, complete):
        one.add_argument(
            "--vkey",
            action="append",
            default=[],
            required=one is check,
            help="the log's verifier key, or a file that holds it; again for older keys, if it had several",
        )
        one.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering receipt`."""
    arguments = parser().parse_args(argv)
    try:
        verifiers = [read_vkey(text) for text in arguments.vkey]
    except MerkleError as error:
        return fail(f"receipt: {error}", EXIT_USAGE)
    try:
        run = _check if arguments.command == "check" else _check_complete
        return run(arguments, verifiers)
    except (NotFound, Unavailable, OSError) as error:
        return fail(f"receipt: {error}", EXIT_USAGE)
    except (ArchiveError, MerkleError) as error:
        if arguments.json:
            print_json({"verified": False, "error": str(error)})
        return fail(f"NOT VERIFIED: {error}", EXIT_FINDING)


# --- one receipt ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """What a receipt was found to show."""

    index: int
    checkpoint: Checkpoint
    leaf: Leaf
    opened: Opened | None
    event: bool


def _check(arguments: argparse.Namespace, verifiers: Sequence[Verifier]) -> int:
    if arguments.event is not None and arguments.opening is None:
        return fail(
            "receipt: --event needs --opening: the leaf commits to the event with a salt that only the opening holds",
            EXIT_USAGE,
        )
    opening = None if arguments.opening is None else arguments.opening.read_bytes()
    event = None if arguments.event is None else arguments.event.read_bytes()
    checked = check_files(arguments.file.read_bytes(), verifiers, opening, event)
    if arguments.json:
        print_json(_report(checked))
    else:
        _show(checked)
    return EXIT_GOOD


def check_files(
    receipt: bytes, verifiers: Sequence[Verifier], opening: bytes | None, event: bytes | None
) -> Checked:
    """Return what a receipt shows; raise an error of archive or merkle that says what does not hold."""
    proof = TlogProof.decode(receipt)
    checkpoint, leaf = _check_receipt(proof, verifiers)
    opened = None if opening is None else check_opening(proof.extra, Opening.from_json(opening))
    if event is not None:
        assert opened is not None, "an event is compared with what an opening holds"
        _check_event(event, opened.payload)
    return Checked(proof.index, checkpoint, leaf, opened, event is not None)


def _check_receipt(proof: TlogProof, verifiers: Sequence[Verifier]) -> tuple[Checkpoint, Leaf]:
    """Check a receipt with that one of a log's keys which has signed it."""
    for verifier in verifiers[:-1]:
        with suppress(SignatureError):
            return check_receipt(proof, verifier)
    return check_receipt(proof, verifiers[-1])


def _check_event(event: bytes, payload: bytes) -> None:
    if event == payload:
        return
    if event.rstrip(b"\r\n") == payload.rstrip(b"\r\n"):
        raise IntegrityError(
            "the event differs from what was logged in line ends only; compare the exact bytes"
        )
    same = next((at for at, (a, b) in enumerate(zip(event, payload, strict=False)) if a != b), None)
    at = min(len(event), len(payload)) if same is None else same
    raise IntegrityError(
        f"the event is not what was logged: {len(event)} bytes and {len(payload)} bytes, the first difference at {at}"
    )


def _report(checked: Checked) -> dict[str, Any]:
    checkpoint, opened = checked.checkpoint, checked.opened
    answer: dict[str, Any] = {
        "verified": True,
        "index": checked.index,
        "archived_s": checked.leaf.time_s,
        "checkpoint": {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()},
        "opening": None,
        "event": checked.event,
    }
    if opened is not None:
        header = opened.header
        answer["opening"] = {
            "subject": header.subject,
            "sequence": header.sequence,
            "received_us": header.received_us,
            "payload_bytes": len(opened.payload),
        }
    return answer


def _show(checked: Checked) -> None:
    when = datetime.fromtimestamp(checked.leaf.time_s, UTC).isoformat()
    print(f"verified: entry {checked.index} of {checked.checkpoint.origin} at size {number(checked.checkpoint.size)}, "
          f"archived {when}")  # fmt: skip
    if checked.opened is None:
        print("what the entry is about is not shown: that takes its opening")
        return
    header, payload = checked.opened.header, checked.opened.payload
    print(
        f"opening: the leaf commits to it: {header.subject}, number {header.sequence}, {number(len(payload))} bytes"
    )
    if checked.event:
        print("event: just these bytes")


# --- completeness --------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What was found about a subject's folder."""

    findings: list[Finding]
    size: int
    """Of the copy of the log."""


def _check_complete(arguments: argparse.Namespace, verifiers: Sequence[Verifier]) -> int:
    manifest = read_manifest(arguments.folder)
    verdict = check_folder(arguments.folder, manifest, open_leaves(arguments.leaves), verifiers)
    entries = {one.name: len(one.indices) for one in manifest.subjects}
    if arguments.json:
        print_json(
            {
                "complete": not verdict.findings,
                "signatures": bool(verifiers),
                "size": manifest.size,
                "leaves": verdict.size,
                "entries": entries,
                "findings": [_finding(one) for one in verdict.findings],
            }
        )
    else:
        _show_verdict(verdict, manifest, entries, bool(verifiers))
    return EXIT_FINDING if verdict.findings else EXIT_GOOD


def check_folder(
    folder: Path, manifest: Manifest, source: LeafSource, verifiers: Sequence[Verifier]
) -> Verdict:
    """Return what is wrong with a subject's folder, given a copy of the log.

    Raises IntegrityError if the copy is not what was signed, Unavailable if it ends before the folder's size, and
    merkle's errors for a malformed or unsigned checkpoint.
    """
    note = read_file(folder, "checkpoint")
    own = open_signed(note, verifiers)
    copy = open_signed(source.read("checkpoint"), verifiers)
    if (own.origin, own.size) != (manifest.origin, manifest.size):
        raise FormatError("subject.json and checkpoint speak of different logs or sizes")
    if copy.origin != own.origin:
        raise IntegrityError(f"the copy is of the log {copy.origin}, the folder of {own.origin}")
    if copy.size < own.size:
        raise Unavailable(
            f"the copy has {copy.size} entries, the folder speaks of {own.size}; take a newer copy"
        )
    if copy.size == own.size and copy.root != own.root:
        raise IntegrityError(f"two roots at size {own.size}: the log has forked; keep both checkpoints")
    roots = {copy.size: copy.root, own.size: own.root}
    claimed = claims(manifest)
    kept: dict[int, bytes] = dict.fromkeys((index for one in claimed for index in one.indices), b"")
    with progress("checking", copy.size) as advance:
        leaves = _keeping(verified_leaves(source, copy.size, roots), kept, advance)
        findings = list(check_complete(claimed, own.size, leaves))
    for claim in claimed:
        findings += _check_entries(folder, claim, own, kept, verifiers)
    return Verdict(findings, copy.size)


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
    folder: Path, claim: Claim, own: Checkpoint, leaves: dict[int, bytes], verifiers: Sequence[Verifier]
) -> Iterator[Finding]:
    """Yield which receipts and openings of a subject do not belong to the leaves."""
    for sequence, index in enumerate(claim.indices, 1):
        try:
            _check_entry(folder, claim.name, sequence, index, own, leaves[index], verifiers)
        except (ArchiveError, MerkleError) as error:
            yield Finding("entry", index, str(error))


def _check_entry(
    folder: Path,
    name: str,
    sequence: int,
    index: int,
    own: Checkpoint,
    leaf: bytes,
    verifiers: Sequence[Verifier],
) -> None:
    proof = TlogProof.decode(read_file(folder, receipt_name(index)))
    if (proof.index, proof.extra) != (index, leaf):
        raise IntegrityError(f"{receipt_name(index)} is of another entry, or of another log")
    if verifiers and _check_receipt(proof, verifiers)[0] != own:
        raise IntegrityError(f"{receipt_name(index)} is under another checkpoint than the folder's")
    if not (folder / opening_name(index)).exists():
        return  # its key was destroyed: there is nothing to open
    header = check_opening(leaf, read_opening(folder, index)).header
    if (header.subject, header.sequence) != (name, sequence):
        raise IntegrityError(f"{opening_name(index)} is number {header.sequence} of {header.subject}")


def _finding(one: Finding) -> dict[str, Any]:
    return {"check": one.check, "index": one.index, "detail": one.detail}


def _show_verdict(verdict: Verdict, manifest: Manifest, entries: dict[str, int], signed: bool) -> None:
    for finding in verdict.findings[:SHOWN]:
        print(f"entry {finding.index}: {finding.detail}")
    if len(verdict.findings) > SHOWN:
        print(f"… and {len(verdict.findings) - SHOWN} more; --json lists all")
    if verdict.findings:
        print(f"NOT COMPLETE: {len(verdict.findings)} findings")
        return
    word = "complete" if signed else "complete, as far as this copy goes (no --vkey given)"
    listed = ", ".join(f"{number(count)} entries of {name}" for name, count in entries.items())
    print(f"{word}: {listed} among the first {number(manifest.size)}, each once, and no other")
    if verdict.size > manifest.size:
        print(f"the copy goes on to {number(verdict.size)}; what came after the export was not looked at")
