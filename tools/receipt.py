"""treering receipt: check, offline, what somebody was given.

    $ treering receipt check 17.tlog-proof --vkey KEY --opening 17.opening.json --event event.json
    verified: entry 17 of treering.local/5f2a… at size 18
    by one key: whether the log has given it up is not known; --vkey again for each that `treering keys history` lists
    opening: the leaf commits to it: student:ann, number 3, 412 bytes
    event: just these bytes

    $ treering receipt check-complete ann --leaves https://mirror.example.org/log --vkey KEY
    complete: 214 entries under this tag key among the first 25,537, each once, and no other
      the key is that of student:ann: so say the openings of 214 of them
    listed only: 3 entries of other subjects that concern them also; that these are all is not shown

`check` needs nothing but its files and the log's verifier key.  `check-complete` (`tools.completeness`) takes a folder
of `treering export subject --tag-key` and any copy of the public leaves; it recomputes the root over all of them.
Without `--vkey` it shows only that the copy and the folder agree with themselves and each other.  What is shown of whom
is said to the letter: a name that no opening ties to the tag key is the sender's claim.

A log may have had several keys.  `check-complete` reads in the leaves which of them signs which sizes.  `check` has no
leaves: of a receipt under any but the last key that was given it says so, for whoever stole a key that the log has
given up can sign receipts with it for ever.  Of the only key that was given it says that it cannot know.

Exit codes: 0 as claimed, 1 not as claimed, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive import (
    ArchiveError,
    IntegrityError,
    Leaf,
    NotFound,
    Opened,
    Opening,
    Unavailable,
    check_opening,
    check_receipt,
)
from merkle import Checkpoint, Ed25519Verifier, MerkleError, TlogProof, UnknownKeyError, key_label
from tools.completeness import check_folder, report, show
from tools.console import exit_codes, fail, number, print_json, when
from tools.leaves import open_leaves, signer_of
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, one_line
from tools.subject_folder import read_manifest
from tools.vkey import read_vkey

ALL_KEYS = "--vkey again for each that `treering keys history` lists, the present one last"
ANOTHER_KEY = f"; the log may have had another key then: {ALL_KEYS}"
ONE_KEY = f"by one key: whether the log has given it up is not known; {ALL_KEYS}"
RETIRED = (
    "under a retired key, {}: whoever has that key can still sign with it; compare with check-complete, "
    "or ask for a receipt under the present key"
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering receipt`."""
    made = argparse.ArgumentParser(
        prog="treering receipt",
        epilog=exit_codes("as claimed", "not as claimed", "it could not be checked"),
        description="Check receipts, openings, completeness.",
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
            help="the log's verifier key, or a file that holds it; if it had several, again for each, the present last",
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
        return fail(f"receipt: {one_line(str(error))}", EXIT_USAGE)
    except (ArchiveError, MerkleError) as error:
        why = f"{error}{ANOTHER_KEY}" if isinstance(error, UnknownKeyError) else str(error)
        if arguments.json:
            print_json({"verified": False, "error": why})
        return fail(f"NOT VERIFIED: {one_line(why)}", EXIT_FINDING)


# --- one receipt ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """What a receipt was found to show."""

    index: int
    checkpoint: Checkpoint
    leaf: Leaf
    opened: Opened | None
    event: bool
    key: str
    """Of the key that has signed: name and id."""
    retired: bool | None
    """Whether it is another than the last that was given; None where no other was, so that it is not known."""

    @property
    def warnings(self) -> list[str]:
        """What to think of, though the receipt is as it claims."""
        return [RETIRED.format(self.key)] if self.retired else []


def _check(arguments: argparse.Namespace, verifiers: Sequence[Ed25519Verifier]) -> int:
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
    receipt: bytes, verifiers: Sequence[Ed25519Verifier], opening: bytes | None, event: bytes | None
) -> Checked:
    """Return what a receipt shows; raise an error of archive or merkle that says what does not hold."""
    proof = TlogProof.decode(receipt)
    signer = signer_of(proof.checkpoint, verifiers)
    checkpoint, leaf = check_receipt(proof, signer)
    opened = None if opening is None else check_opening(proof.extra, Opening.from_json(opening))
    if event is not None:
        assert opened is not None, "an event is compared with what an opening holds"
        _check_event(event, opened.payload)
    retired = signer != verifiers[-1] if len(set(verifiers)) > 1 else None
    return Checked(proof.index, checkpoint, leaf, opened, event is not None, key_label(signer), retired)


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
        "key": checked.key,
        "retired": checked.retired,
        "warnings": checked.warnings,
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
    origin, size = one_line(checked.checkpoint.origin), number(checked.checkpoint.size)
    print(f"verified: entry {checked.index} of {origin} at size {size}, archived {when(checked.leaf.time_s)}")
    for warning in checked.warnings:
        print(f"warning: {one_line(warning)}")
    if checked.retired is None:
        print(ONE_KEY)
    elif not checked.retired:
        print(f"signed by {one_line(checked.key)}, taken for the present key: it was given last")
    if checked.opened is None:
        print("what the entry is about is not shown: that takes its opening")
        return
    header, payload = checked.opened.header, checked.opened.payload
    subject, size = one_line(header.subject), number(len(payload))
    print(f"opening: the leaf commits to it: {subject}, number {header.sequence}, {size} bytes")
    if checked.event:
        print("event: just these bytes")


def _check_complete(arguments: argparse.Namespace, verifiers: Sequence[Ed25519Verifier]) -> int:
    manifest = read_manifest(arguments.folder)
    with closing(open_leaves(arguments.leaves)) as source:
        verdict = check_folder(arguments.folder, manifest, source, verifiers)
    if arguments.json:
        print_json(report(verdict, signed=bool(verifiers)))
    else:
        show(verdict, signed=bool(verifiers))
    return EXIT_FINDING if verdict.findings else EXIT_GOOD
