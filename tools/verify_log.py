"""verify-log DIR: check a whole log, offline, without its server and without trusting it.

    $ verify-log data --vkey treering.local/5f2a…/0+4d1c8a7b+AYk…
    verified: 25,537 entries, 1,204 blocks, root 9c4e…

Every leaf, node, root, block and checkpoint is recomputed from the leaves and compared.  Without `--vkey`
the log is shown to agree with itself only: whoever rewrote all of it would agree with himself, too.  With
`--vault` the private rows are opened and held against what the leaves commit to.

Exit codes: 0 nothing found, 1 findings, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from archive import (
    ArchiveError,
    DataFolder,
    Finding,
    LogSource,
    NotFound,
    Seal,
    Tally,
    check_log,
    load_size,
    newest_seal,
)
from merkle import Ed25519Verifier, NoteError
from tools.console import progress
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say

SHOWN = 20


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of verify-log, which is a command of its own and one of treering's."""
    made = argparse.ArgumentParser(prog=prog, description="Check a whole log, offline.")
    made.add_argument("data", type=Path, metavar="DIR", help="the data folder of a server, or a copy of it")
    made.add_argument("--vkey", help="the log's verifier key (treering keys vkey), or a file that holds it")
    made.add_argument(
        "--vault", action="store_true", help="also open the private rows (needs vault and its key)"
    )
    made.add_argument("--partition", type=int, default=0)
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def command(argv: Sequence[str]) -> int:
    """Run `treering verify-log`."""
    return main(argv, prog="treering verify-log")


def main(argv: Sequence[str] | None = None, prog: str = "verify-log") -> int:
    """Run verify-log."""
    arguments = parser(prog).parse_args(argv)
    try:
        verifier = None if arguments.vkey is None else read_vkey(arguments.vkey)
        findings, tally, seconds = verify(arguments, verifier)
    except (ArchiveError, NoteError) as error:
        say(f"verify-log: {error}")
        return EXIT_USAGE
    signed = verifier is not None
    if arguments.json:
        print(json.dumps(report(findings, tally, seconds, signed)))
    else:
        show(findings, tally, seconds, signed)
    return EXIT_FINDING if findings else EXIT_GOOD


def verify(
    arguments: argparse.Namespace, verifier: Ed25519Verifier | None
) -> tuple[list[Finding], Tally, float]:
    """Check the log and return what was found, what was seen, and how long it took in seconds."""
    folder = DataFolder(arguments.data, arguments.partition)
    if not folder.log.is_dir():
        raise NotFound(f"{folder.log}: there is no log; name a data folder")
    store, started = folder.open_log(), time.monotonic()
    with store.view() as view:
        size = load_size(view)
    seal = read_seal(folder.log / "seal")
    vault = folder.open_vault(os.urandom) if arguments.vault else None
    tally = Tally()
    with progress("verifying", size) as advance:
        source = LogSource(store, lambda: size)
        findings = list(
            check_log(source, size, verifier=verifier, vault=vault, seal=seal, tally=tally, progress=advance)
        )
    store.close()
    return findings, tally, time.monotonic() - started


def read_vkey(text: str) -> Ed25519Verifier:
    """Return the verifier key that is given, or that stands in the file that is given."""
    path = Path(text)
    if "+" not in text or path.is_file():
        try:
            text = path.read_text()
        except OSError as error:
            raise NoteError(
                f"{path}: {error.strerror}; give a verifier key or a file that holds one"
            ) from None
    return Ed25519Verifier.decode(text.strip())


def read_seal(path: Path) -> Seal | None:
    """Return the newest seal beside the log, or None where it lies elsewhere."""
    return newest_seal(path.read_bytes()) if path.is_file() else None


def report(findings: Sequence[Finding], tally: Tally, seconds: float, signed: bool) -> dict[str, object]:
    """Return the result as a JSON object."""
    seen = {**asdict(tally), "root": tally.root.hex()}
    return {
        "verified": not findings,
        "signatures": signed,
        **seen,
        "seconds": round(seconds, 3),
        "findings": [asdict(finding) for finding in findings],
    }


def show(findings: Sequence[Finding], tally: Tally, seconds: float, signed: bool) -> None:
    """Print the result for people."""
    for finding in findings[:SHOWN]:
        place = "log" if finding.index is None else f"entry {finding.index}"
        print(f"{place}: {finding.check}: {finding.detail}")
    if len(findings) > SHOWN:
        print(f"… and {len(findings) - SHOWN} more; --json lists all")
    verdict = (
        "NOT VERIFIED" if findings else "verified" if signed else "self-consistent only (no --vkey given)"
    )
    rate = tally.entries / seconds if seconds else 0
    print(f"{verdict}: {tally.entries:,} entries, {tally.blocks:,} blocks, root {tally.root.hex()}")
    if tally.opened or tally.erased:
        print(
            f"opened {tally.opened:,} private rows, {tally.erased:,} erased, {tally.control:,} control entries"
        )
    print(f"{seconds:.1f} s, {rate:,.0f} entries/s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
