"""treering drill: tamper with a copy of a log in every way we know, and show what notices.

    $ treering drill
    A copy of 626 entries in 27 commits, untouched: verified
    ...
      ok   one bit of a public entry flips
          noticed by 'root', which checks that ...
    What cannot be noticed, because nobody has anything to compare with:
    ...
    44 of 44 came out as they must.

A checker that finds nothing may be a good log or a blind checker.  So each case alters a copy in one way, and the
same verify-log that auditors use is run over it.  Without `--data` a little log is made for it; with it the first
entries of a real one are copied, and nothing of the original is touched: checkpoints of the copy are signed with a key
that is thrown away.  What can *not* be found is listed, too, with what would be needed.

Exit codes: 0 everything came out as it must, 1 something did not, 2 no drill was possible.
Cases: `tools.drill_outsiders` and `tools.drill_insiders`.  What the results mean for an audit: docs/audit.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from archive import CHECKS, ArchiveError, DataFolder, NotFound, Resume, Vault, checks_of, size_of
from merkle import Checkpoint, Cosigner, Ed25519Signer, Note, Policy, open_checkpoint, sign_note
from tools.console import PARTITION_HELP, exit_codes, progress
from tools.drill_case import WHO, Case
from tools.drill_copy import Copy, copy_of, small_log
from tools.drill_insiders import INSIDERS
from tools.drill_outsiders import OUTSIDERS
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say
from tools.verify_folder import Outcome, Request, verify_folder

CASES = (*OUTSIDERS, *INSIDERS)


@dataclass(frozen=True)
class Result:
    """What verify-log made of one case."""

    case: Case
    checks: tuple[str, ...]
    """The checks that found something."""
    finding: str
    """The first finding, in words."""

    @property
    def as_expected(self) -> bool:
        """Whether an expected check found it or, where nothing can, nothing did."""
        return bool(set(self.checks) & set(self.case.expected)) or not (self.checks or self.case.expected)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering drill`."""
    parser = argparse.ArgumentParser(
        prog="treering drill",
        epilog=exit_codes("everything came out as it must", "something did not", "no drill was possible"),
        description="Tamper with a copy of a log; show what notices.",
    )
    parser.add_argument(
        "--data", type=Path, help="copy from this data folder; by default a little log is made"
    )
    parser.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    parser.add_argument("--entries", type=int, default=1_000, help="how many entries to copy, about (1,000)")
    parser.add_argument("--vault", action="store_true", help="with --data: also try what takes its vault")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="treering-drill-") as folder:
            bench = Bench.on(
                Path(folder), arguments.data, arguments.partition, arguments.entries, vault=arguments.vault
            )
            untouched = bench.verify(
                bench.copy(), Case("untouched", "rot", "", lambda _: None, vault=bench.vault)
            )
            results = [] if untouched.findings else list(_all(bench))
    except ArchiveError as error:
        say(f"treering drill: {error}")
        return EXIT_USAGE
    (print_json if arguments.json else show)(untouched, results)
    good = not untouched.findings and all(result.as_expected for result in results)
    return EXIT_GOOD if good else EXIT_FINDING


def _all(bench: Bench) -> Iterator[Result]:
    cases = [case for case in CASES if bench.vault or not case.needs_vault]
    with progress("tampering", len(cases)) as advance:
        for case in cases:
            with suppress(NotFound):  # this log has nothing that could be tampered with in this way
                yield bench.run(case)
            advance(1)


class Bench:
    """The place where copies are altered and checked."""

    def __init__(
        self, folder: Path, source: DataFolder, signer: Ed25519Signer, honest: Copy, vault: bool
    ) -> None:
        self._folder, self._source, self._signer, self._honest = folder, source, signer, honest
        self.vault = vault
        """Whether cases can be run that take the vault."""
        self._number = 0
        self._witness = Cosigner("witness.example.org/drill", os.urandom(32))
        honest.cosigned = self._cosigned(honest)
        early = honest.copy()
        blocks = len(early.blocks)
        early.keep(max(1, blocks * 3 // 4))
        early.reseal()
        kept = early.tables["checkpoints"][early.blocks[-1].size.to_bytes(8)]
        self._kept: Checkpoint = open_checkpoint(kept, signer.verifier)
        self._resume: Resume | None = self.verify(early, Case("early", "rot", "", lambda _: None)).resume

    @staticmethod
    def on(
        folder: Path, data: Path | None, partition: int = 0, entries: int = 1_000, *, vault: bool = False
    ) -> Bench:
        """Make the copy that all cases begin with: of the log in `data`, or of a little one."""
        source = DataFolder(data or folder / "source", partition)
        if data is None:
            signer, vault = small_log(source), True
        else:
            signer = Ed25519Signer(_origin(source), os.urandom(32))
        store = source.open_log()
        try:
            with store.view() as view:
                honest = copy_of(view, entries, signer, None)
        finally:
            store.close()
        return Bench(folder, source, signer, honest, vault)

    def _cosigned(self, copy: Copy) -> bytes:
        """Return the newest checkpoint with the signature of a witness, who is as short-lived as the log's key."""
        text = Note.decode(copy.tables["checkpoints"][max(copy.tables["checkpoints"])]).text
        return sign_note(text, [self._signer, self._witness.at(1)])

    @property
    def _policy(self) -> Policy:
        return Policy.parse(f"witness w {self._witness.verifier.encode()}\nquorum w\n".encode())

    def copy(self) -> Copy:
        """Return an honest copy."""
        return self._honest.copy()

    def run(self, case: Case) -> Result:
        """Tamper as a case says, and check."""
        copy = self.copy()
        with self._opened() as copy.vault:
            case.tamper(copy)
        outcome = self.verify(copy, case)
        findings = outcome.findings
        return Result(case, tuple(checks_of(findings)), str(findings[0]) if findings else "")

    def verify(self, copy: Copy, case: Case) -> Outcome:
        """Run verify-log over a copy with what the auditor of a case has."""
        self._number += 1
        folder = DataFolder(self._folder / f"case-{self._number}")
        copy.write(folder)
        if case.vault:
            self._bring_vault(copy, folder)
        request = Request(
            folder.path,
            self._signer.verifier,
            vault=case.vault,
            kept=(self._kept,) if case.kept else (),
            resume=self._resume if case.since else None,
            policy=self._policy if case.policy else None,
            processes=1,
        )
        return verify_folder(request)

    def _bring_vault(self, copy: Copy, folder: DataFolder) -> None:
        """Let a folder have the vault and its key; where a case harms the vault, a copy of it."""
        (folder.path / "keys").symlink_to((self._source.path / "keys").absolute())
        if copy.vault_harm is None:
            (folder.path / "vault").symlink_to((self._source.path / "vault").absolute())
            return
        with closing(self._source.open_vault_store()) as source:
            source.copy(folder.path / "vault")
        with closing(folder.open_vault_store(read_only=False)) as store:
            with store.view() as view:
                writes = copy.vault_harm(view)
            store.commit(writes)

    @contextmanager
    def _opened(self) -> Iterator[Vault | None]:
        if not self.vault:
            yield None
            return
        vault = self._source.open_vault(os.urandom)
        try:
            yield vault
        finally:
            vault.close()


def _origin(folder: DataFolder) -> str:
    """Return the name of a log, by its newest checkpoint."""
    if not folder.log.is_dir():
        raise NotFound(f"{folder.log}: there is no log; name a data folder")
    store = folder.open_log()
    try:
        with store.view() as view:
            last = view.last("checkpoints") if size_of(view) else None
    finally:
        store.close()
    if last is None:
        raise NotFound(f"{folder.log}: the log is empty; leave --data out")
    return last[1].decode(errors="replace").partition("\n")[0]


def print_json(untouched: Outcome, results: Sequence[Result]) -> None:
    """Print everything as one JSON object."""
    made = [
        {
            "case": result.case.name,
            "who": result.case.who,
            "story": result.case.story,
            "vault": result.case.vault,
            "kept": result.case.kept or result.case.since,
            "expected": result.case.expected,
            "found_by": result.checks,
            "finding": result.finding,
            "as_expected": result.as_expected,
        }
        for result in results
    ]
    findings = [str(finding) for finding in untouched.findings]
    print(json.dumps({"entries": untouched.tally.entries, "untouched": findings, "cases": made}))


def show(untouched: Outcome, results: Sequence[Result]) -> None:
    """Print a table that needs no programmer to be read."""
    tally = untouched.tally
    print(
        f"A copy of {tally.entries:,} entries in {tally.blocks:,} commits, untouched: {_verdict(untouched)}\n"
    )
    seen = [result for result in results if result.case.expected]
    for who, words in WHO.items():
        print(f"{words}:")
        for result in (one for one in seen if one.case.who == who):
            print(f"  {_mark(result)} {result.case.story}")
            print(f"      {_noticed(result)}")
    print("\nWhat cannot be noticed, because nobody has anything to compare with:")
    for result in (one for one in results if not one.case.expected):
        print(
            f"  {_mark(result)} {result.case.story}"
            + (f"\n      {_noticed(result)}" if result.checks else "")
        )
    print(
        "  Against these, keep checkpoints elsewhere, have witnesses sign them, and check with the vault.\n"
    )
    right = sum(result.as_expected for result in results)
    print(f"{right} of {len(results)} came out as they must.")


def _verdict(untouched: Outcome) -> str:
    return "verified" if not untouched.findings else f"NOT VERIFIED: {untouched.findings[0]}"


def _mark(result: Result) -> str:
    return "ok  " if result.as_expected else "FAIL"


def _noticed(result: Result) -> str:
    """Say what noticed it, in words."""
    if not result.checks:
        return "not noticed"
    name = next((name for name in result.checks if name in result.case.expected), result.checks[0])
    means = [word for word, used in _means(result.case) if used]
    help_of = f" (with the auditor's {' and '.join(means)})" if means else ""
    return (
        f"noticed by {name!r}{help_of}, which checks that {CHECKS.get(name, name).removesuffix(' (vault)')}"
    )


def _means(case: Case) -> list[tuple[str, bool]]:
    """Return what an auditor of a case has, beside the copy and the log's key."""
    return [("vault", case.vault), ("memory", case.kept or case.since), ("witness", case.policy)]
