"""treering export: give away a log, or what it holds about one subject, as files.

    $ treering export tiles public --data data
    exported: 25,537 entries (1,204 new) as 14 files, 164,320 bytes
    $ treering export subject student:ann --data data --out ann --tag-key
    exported: 214 entries of student:ann, and 3 that also concern them, with receipts and openings

`tiles` writes the public log in the layout of C2SP tlog-tiles, for any web server or bucket.  Run it again and again:
it adds what is new, and at every moment what is there can be verified (`archive.static`).  Where witnesses must
cosign what the outside sees, it exports what the server shows at /log, and no more: the newest checkpoint that met the
policy in force, which it knows without being told (`tools.outside`).

`subject` writes the subject's entries with openings and receipts, for the person or whoever may read them; with
`--tag-key`, also the key by which the list can be shown to be complete (`treering receipt check-complete`).  Entries
whose first subject is another, and which also concern them, are in a list of their own, of which nobody can show that.

Bytes that changed on disk keep nobody from her own: an entry of hers that is rotten has its receipt only, one that
cannot be read and may be hers is named, and the exit code says that not all is there.

Both may run beside a server.  Exit codes: 0 done, 1 the log or the folder is not as it must be, 2 it could not be done.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from archive import (
    NO_SPACE,
    ArchiveError,
    DataFolder,
    FolderDisk,
    FormatError,
    IntegrityError,
    InvalidEvent,
    LogSource,
    NotFound,
    Prover,
    PublishedSize,
    SubjectEntries,
    Unavailable,
    Vault,
    entries_of_subject,
    export_tiles,
    exported_size,
    files_between,
    load_size,
    open_entry_of,
    shown_outside,
)
from merkle import MerkleError
from tools.console import PARTITION_HELP, exit_codes, fail, number, print_json, progress, refused
from tools.data_flag import add_data
from tools.leaves import unsigned
from tools.outside import policy_in_force
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE
from tools.subject_folder import (
    FORMAT,
    Listed,
    Manifest,
    opening_name,
    receipt_name,
    write_file,
    write_manifest,
)

CHECKPOINT = "checkpoint"
ENTRIES_AT_ONCE = 256


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering export`."""
    made = argparse.ArgumentParser(
        prog="treering export",
        epilog=exit_codes("done", "the log or the folder is not as it must be", "it could not be done"),
        description="Write a log, or one subject's part, as files.",
    )
    commands = made.add_subparsers(dest="command", required=True)
    tiles = commands.add_parser("tiles", help="the public log, for any web server (C2SP tlog-tiles)")
    tiles.add_argument("out", type=Path, metavar="DIR", help="the folder to bring up to date")
    which = tiles.add_mutually_exclusive_group()
    which.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="which witnesses must have cosigned what is exported (default: as the server that started last)",
    )
    which.add_argument(
        "--all", action="store_true", help="what is signed, also where witnesses have not cosigned it yet"
    )
    tiles.add_argument(
        "--config", type=Path, help="the server's TOML file, which may say where the policy lies"
    )
    tiles.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    subject = commands.add_parser("subject", help="one subject's entries, with receipts and openings")
    subject.add_argument("name", metavar="NAME", help="the subject, as kind:label: student:ann")
    subject.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    subject.add_argument("--tag-key", action="store_true", help="also write the keys that show completeness")
    subject.add_argument(
        "--dry-run", action="store_true", help="say what would be written, and write nothing"
    )
    for one in (tiles, subject):
        add_data(one)
        one.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
        one.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering export`."""
    arguments = parser().parse_args(argv)
    run: Callable[[argparse.Namespace, DataFolder, LogSource, int], int]
    run = _tiles if arguments.command == "tiles" else _subject
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        with closing(folder.open_log()) as store:
            size = readable_size(folder, store)
            return run(arguments, folder, LogSource(store, lambda: size), size)
    except (IntegrityError, MerkleError) as error:
        return fail(f"export: {error}", EXIT_FINDING)
    except OSError as error:
        return fail(f"export: {refused(error, _helps(error, folder.path))}", EXIT_USAGE)
    except ArchiveError as error:
        return fail(f"export: {error}", EXIT_USAGE)


def _helps(error: OSError, data: Path) -> str:
    """Return what helps where the system refused something; what may not be written is not in the data folder."""
    if error.errno in NO_SPACE:
        return "make room, or name another folder"
    ours = error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(data)
    return "" if ours else "name another folder"


def readable_size(folder: DataFolder, store: Any) -> int:
    """Return how much of a log may be shown: what is published, or all of it where no archiver has run."""
    with store.view() as view:
        size = load_size(view)
    try:
        published = PublishedSize(folder.published).get()
    except NotFound:
        return size
    return published if 0 < published <= size else size  # after a power cut the word may be lost


def _tiles(arguments: argparse.Namespace, folder: DataFolder, source: LogSource, size: int) -> int:
    policy = None if arguments.all else policy_in_force(folder, arguments.policy, arguments.config)
    there = arguments.out / CHECKPOINT
    with source.open(size) as log:
        shown, note = shown_outside(log, folder.cosigned, policy)
        old = exported_size(log, there.read_bytes() if there.is_file() else None)
    _refuse_less(arguments.out, old, shown, size)
    if arguments.dry_run:
        return _dry_tiles(arguments, old, shown)
    with closing(FolderDisk(arguments.out)) as disk, progress("exporting", shown - old) as advance:
        done = export_tiles(source, shown, disk, note=note if policy else None, progress=advance)
    if arguments.json:
        print_json(asdict(done))
    else:
        new = done.size - done.before
        print(f"exported: {number(done.size)} entries ({number(new)} new) as {number(done.files)} files, "
              f"{number(done.bytes)} bytes")  # fmt: skip
    return EXIT_GOOD


def _refuse_less(out: Path, old: int, shown: int, size: int) -> None:
    """Raise IntegrityError or Unavailable rather than go back: who has read a folder must find what was there."""
    if shown > size:
        raise IntegrityError(
            f"witnesses have cosigned {number(shown)} entries, but the log has {number(size)}: it was set back; "
            "run verify-log"
        )
    if old > shown:
        raise Unavailable(
            f"{out} holds {number(old)} entries already, and enough witnesses have cosigned {number(shown)}: "
            "what was published stays as it is; export again when they have cosigned more"
        )


def _dry_tiles(arguments: argparse.Namespace, old: int, size: int) -> int:
    files = sum(1 for _ in files_between(old, size))
    if arguments.json:
        print_json({"dry_run": True, "before": old, "size": size, "files": files})
    else:
        print(f"would export {number(size - old)} new entries as {number(files)} files")
    return EXIT_GOOD


@dataclass(slots=True)
class Unopened:
    """Entries of a folder that have no opening."""

    closed: list[int] = field(default_factory=list)
    """Their keys are gone."""
    rotten: list[int] = field(default_factory=list)
    """Their bytes changed on disk."""


def _subject(arguments: argparse.Namespace, folder: DataFolder, source: LogSource, size: int) -> int:
    vault = folder.open_vault(os.urandom)
    with progress("looking", size) as advance:
        found, unread = entries_of_subject(source, vault, arguments.name, size, advance)
    unopened = Unopened()
    if not arguments.dry_run:
        unopened = write_subject(arguments.out, source, vault, found, size, arguments.tag_key)
    vault.close()
    if arguments.json:
        print_json(_report(found, size, unopened, unread, arguments.dry_run))
    else:
        verb = "would export" if arguments.dry_run else "exported:"
        for line in told(arguments.name, verb, found, unopened):
            print(line)
        for index in unread:
            print(f"entry {index} cannot be read: it may be theirs, or concern them also (docs/recovery.md)")
    return EXIT_FINDING if unopened.rotten or unread else EXIT_GOOD


def _report(
    found: Sequence[SubjectEntries], size: int, unopened: Unopened, unread: Sequence[int], dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "size": size,
        "entries": sum(len(one.indices) for one in found),
        "subjects": {one.name: len(one.indices) for one in found},
        "also": indices_also(found),
        **asdict(unopened),
        "unread": unread,
    }


def told(name: str, verb: str, found: Sequence[SubjectEntries], unopened: Unopened) -> Iterator[str]:
    r"""Yield what was exported.

    >>> ann = SubjectEntries("student:ann", bytes(32), (3, 4, 7), also=(5,))
    >>> print(*told("student:ann", "exported:", [ann], Unopened([5], [7])), sep="\n")
    exported: 3 entries of student:ann, and 1 that also concern them, with receipts and openings
    1 of them cannot be opened any more, and have receipts only
    entry 7 is rotten, and has its receipt only (docs/recovery.md)
    """
    others = len(indices_also(found))
    also = f", and {number(others)} that also concern them," if others else ","
    entries = sum(len(one.indices) for one in found)
    yield f"{verb} {number(entries)} entries of {name}{also} with receipts and openings"
    if unopened.closed:
        yield f"{number(len(unopened.closed))} of them cannot be opened any more, and have receipts only"
    for index in unopened.rotten:
        yield f"entry {index} is rotten, and has its receipt only (docs/recovery.md)"


def indices_also(found: Sequence[SubjectEntries]) -> list[int]:
    """Return the entries that also concern one of these subjects, each once."""
    return sorted({index for one in found for index in one.also})


def write_subject(
    out: Path, source: LogSource, vault: Vault, found: Sequence[SubjectEntries], size: int, tag_keys: bool
) -> Unopened:
    """Write a subject's folder, the manifest last; return the entries that have no opening.

    Raises InvalidEvent if the folder is not empty.  Where it cannot be finished, nothing of it stays: half a list
    would have to be told from a whole one, and the next try would be refused.
    """
    was_there = out.exists()
    make_private(out)
    try:
        return _write_all(out, source, vault, found, size, tag_keys)
    except BaseException:
        for path in out.iterdir() if was_there else (out,):
            with suppress(NotADirectoryError):
                shutil.rmtree(path)
                continue
            path.unlink()
        raise


def _write_all(
    out: Path, source: LogSource, vault: Vault, found: Sequence[SubjectEntries], size: int, tag_keys: bool
) -> Unopened:
    with source.open(size) as log:
        _, note = log.checkpoint()
    write_file(out, CHECKPOINT, note)
    indices = sorted([*(index for one in found for index in one.indices), *indices_also(found)])
    unopened = Unopened()
    with progress("writing", len(indices)) as advance:
        for at in range(0, len(indices), ENTRIES_AT_ONCE):
            part = indices[at : at + ENTRIES_AT_ONCE]
            _write_entries(out, source, vault, part, size, unopened)
            advance(len(part))
    keys = [one.tag_key.hex() if tag_keys else None for one in found]
    listed = [
        Listed(one.name, list(one.indices), key, list(one.also)) for one, key in zip(found, keys, strict=True)
    ]
    write_manifest(out, Manifest(FORMAT, unsigned(note).origin, size, listed))
    return unopened


def make_private(out: Path) -> None:
    """Make the folder of a subject; raise InvalidEvent if there is something in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidEvent(
            f"{out}: not an empty folder; one subject's export is not mixed with anything else"
        )
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    out.chmod(0o700)
    (out / "entries").mkdir(mode=0o700)


def _write_entries(
    out: Path, source: LogSource, vault: Vault, indices: Sequence[int], size: int, unopened: Unopened
) -> None:
    """Write receipts and openings of some entries, and put those without an opening into `unopened`."""
    with source.open(size) as log:
        prover = Prover(log)
        for index in indices:
            write_file(out, receipt_name(index), prover.receipt(index, size).encode())
            try:
                opening = open_entry_of(log, vault, index)
            except NotFound:
                unopened.closed.append(index)
            except (FormatError, IntegrityError):
                unopened.rotten.append(index)
            else:
                text = msgspec.json.encode({"index": index, **opening.to_json()})
                write_file(out, opening_name(index), text + b"\n")
