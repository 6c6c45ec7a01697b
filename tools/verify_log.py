"""verify-log DIR or URL: check a whole log, without trusting its server.

    $ verify-log data --vkey treering.local/5f2a…/0+4d1c8a7b+AYk…
    verified: 25,537 entries, 1,204 blocks, root 9c4e…
    newest entry: 2026-01-15T09:00:00+00:00

Every leaf, node, root, block and checkpoint is recomputed from the leaves and compared.  With neither `--vkey` nor a
policy that names the log's key, the log is shown to agree with itself only: whoever rewrote all of it would agree with
himself, too.  With `--vault` the private rows are opened and held against what the leaves commit to.  A URL, or a
folder of tiles, is checked as the public sees it: leaves, tiles and the checkpoint; the verdict says "in public, and no
more".  With `--policy` it says up to where witnesses have cosigned: what is beyond, the log alone has signed.

What one remembers is the strongest check: `--save FILE` writes where the log stood, `--since FILE` goes on from there,
and `--checkpoint FILE` takes any checkpoint that was kept elsewhere.  A log that was rewritten does not continue them.

Exit codes: 0 nothing found, 1 findings, 2 it could not be checked.  Findings: docs/formats/findings.md.  What a result
means: docs/audit.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from archive import ArchiveError, OneKey, Resume, write_whole
from merkle import Ed25519Verifier, MerkleError, NoteError, Policy
from tools.console import PARTITION_HELP, as_program, duration, exit_codes, in_words, rate, when
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, one_line, say
from tools.verify_folder import Outcome, Request, open_kept, verify_folder
from tools.verify_public import is_public, verify_public
from tools.vkey import read_vkey

SHOWN = 20


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of verify-log, which is a command of its own and one of treering's."""
    made = argparse.ArgumentParser(
        prog=prog,
        epilog=exit_codes("nothing found", "findings", "it could not be checked"),
        description="Check a whole log.",
    )
    made.add_argument(
        "data",
        metavar="DIR|URL",
        help="a server's data folder or a copy of it; a server's address; exported tiles",
    )
    made.add_argument("--vkey", help="the log's verifier key (treering keys vkey), or a file that holds it")
    made.add_argument(
        "--vault", action="store_true", help="also open the private rows (needs vault and its key)"
    )
    made.add_argument("--seal", type=Path, help="the seal, where it is not kept beside the log")
    made.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a checkpoint that you kept",
    )
    made.add_argument("--since", type=Path, metavar="FILE", help="go on from where --save left off")
    made.add_argument(
        "--save", type=Path, metavar="FILE", help="if all is well, write where the next check may go on"
    )
    made.add_argument(
        "--anyway", action="store_true", help="read on although the file's pages are damaged (it may crash)"
    )
    made.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="whose log it must be, and whose signatures the outside asks for (C2SP tlog-policy)",
    )
    made.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    made.add_argument("--processes", type=int, default=0, help="how many at once; by default one a processor")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def command(argv: Sequence[str]) -> int:
    """Run `treering verify-log`."""
    return main(argv, prog="treering verify-log")


def main(argv: Sequence[str] | None = None, prog: str = "verify-log") -> int:
    """Run verify-log."""
    if argv is None:
        return as_program(main)
    arguments = parser(prog).parse_args(argv)
    try:
        verifier = None if arguments.vkey is None else read_vkey(arguments.vkey)
        outcome = verify(arguments, verifier)
    except (ArchiveError, MerkleError, OSError) as error:
        say(f"verify-log: {one_line(str(error))}")
        return EXIT_USAGE
    if arguments.json:
        print(json.dumps(report(outcome)), flush=True)
    else:
        show(outcome)
    saved = arguments.save is None or save(arguments.save, outcome)
    if outcome.findings:
        return EXIT_FINDING
    return EXIT_GOOD if saved else EXIT_USAGE


def verify(arguments: argparse.Namespace, verifier: Ed25519Verifier | None) -> Outcome:
    """Check what the arguments name."""
    kept = tuple(path.read_bytes() for path in arguments.checkpoint)
    resume = None if arguments.since is None else Resume.decode(arguments.since.read_bytes())
    if resume and any(one.size < resume.size for one in open_kept(kept, OneKey())):
        raise NoteError("a --checkpoint lies before --since, which is not read again; leave one of them out")
    policy = None if arguments.policy is None else Policy.parse(arguments.policy.read_bytes())
    if is_public(arguments.data):
        refuse_mixed(Path(arguments.data))
        if arguments.vault or arguments.seal or arguments.anyway:
            raise NoteError("in public there is neither vault nor seal nor database; leave these options out")
        return verify_public(arguments.data, verifier, kept, resume, policy)
    request = Request(
        Path(arguments.data),
        verifier,
        arguments.partition,
        arguments.vault,
        arguments.seal,
        notes=kept,
        resume=resume,
        anyway=arguments.anyway,
        policy=policy,
        processes=arguments.processes,
    )
    return verify_folder(request)


def refuse_mixed(folder: Path) -> None:
    """Raise NoteError if exported tiles lie among a database, which they would keep from being checked."""
    if (folder / "log").exists():
        raise NoteError(
            f"{folder} holds exported tiles (checkpoint) and a database (log/): they may be of two logs, and one check "
            "takes one of them; move checkpoint and tile/ to a folder of their own, and check each"
        )


def save(path: Path, outcome: Outcome) -> bool:
    """Write where the next check may go on, unless something was found; return whether it is written."""
    if outcome.resume is None:
        say(f"verify-log: {path}: not written, since not all is well")
        return False
    try:
        write_whole(path, outcome.resume.encode())
    except (ArchiveError, OSError) as error:
        why = in_words(error) if isinstance(error, OSError) else str(error)
        say(f"verify-log: {why}; the log was checked, and the check was not saved: --save to another disk")
        return False
    return True


def report(outcome: Outcome) -> dict[str, object]:
    """Return the result as a JSON object (docs/formats/findings.md)."""
    seen = {**asdict(outcome.tally), "root": outcome.tally.root.hex()}
    return {
        "verified": not outcome.findings,
        "signatures": outcome.signed,
        "public": outcome.public,
        "cosigned": outcome.cosigned,
        "newest_s": outcome.newest_s,
        **seen,
        "seconds": round(outcome.seconds, 3),
        "findings": [asdict(finding) for finding in outcome.findings],
    }


def show(outcome: Outcome) -> None:
    """Print the result for people."""
    findings, tally = outcome.findings, outcome.tally
    for finding in findings[:SHOWN]:
        print(one_line(str(finding)))
    if len(findings) > SHOWN:
        print(f"… and {len(findings) - SHOWN} more; --json lists all")
    for remark in tally.remarks:
        print(f"note: {one_line(remark)}")
    good = "verified" if outcome.signed else "self-consistent only (no --vkey given)"
    verdict = "NOT VERIFIED" if findings else good
    seen = "in public, and no more" if outcome.public else f"{tally.blocks:,} blocks"
    print(f"{verdict}: {tally.entries:,} entries{_witnessed(outcome)}, {seen}, root {tally.root.hex()}")
    if outcome.newest_s is not None:
        print(f"newest entry: {when(outcome.newest_s)}")
    if tally.opened or tally.erased:
        print(
            f"opened {tally.opened:,} private rows, {tally.erased:,} erased, {tally.control:,} control entries"
        )
    print(f"{duration(outcome.seconds)}, {rate(outcome.read, outcome.seconds)}", file=sys.stderr)


def _witnessed(outcome: Outcome) -> str:
    """Return how many of the entries the witnesses have cosigned, if a policy asks for any."""
    if outcome.cosigned is None:
        return ""
    some = f"cosigned up to {outcome.cosigned:,} only"
    return f" ({some if outcome.cosigned < outcome.tally.entries else 'all cosigned'})"


if __name__ == "__main__":
    sys.exit(main())
