"""treering restore: bring a backup back, under the same name only where nothing that was told can be contradicted.

    $ treering restore /mnt/backup/monday --data data --at-least 25537

A log that goes on from an older copy would sign, a second time, sizes that were signed before.  So the operator says
up to which size the log was last seen (a receipt, a checkpoint that was kept, a witness), or the seal in the
folder says so.  A backup that reaches it goes on under its old name.  One that does not can only be read: with
`--new-origin` a new log begins, whose first entry names the old one (origin, size and root); the old log, its vault and
its keys lie in `before/`, a data folder of its own, as what they are.

All that can be refused is refused before anything is written, in a dry run as well.  Then a mark is written
(`tools.restoring`), with which no archiver starts, and it is taken away at the end: after a death anywhere between the
two the same command goes on.  What is written, and in which order: `tools.restoring_parts`.

How a backup is made: `tools.backup`; what one is: `tools.backup_folder`; what to do at 3 a.m.: docs/recovery.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from archive import (
    ArchiveError,
    DataFolder,
    FormatError,
    IntegrityError,
    InvalidEvent,
    Log,
    NotFound,
    PublishedSize,
    encode_control,
    find_signer,
    newest_seal,
    size_of,
)
from merkle import Ed25519Signer, MerkleError
from tools import restoring
from tools.backup_folder import Manifest, checked, read_manifest
from tools.console import PARTITION_HELP, exit_codes, number, print_json
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say
from tools.restoring import Mark
from tools.restoring_parts import (
    begin_anew,
    is_begun,
    keys_at_hand,
    restore_before,
    restore_same,
)
from tools.restoring_vault import compare_vaults, has_database, refuse_another_vault, viewing
from tools.settings import load
from tools.vkey import read_vkey


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering restore`."""
    made = argparse.ArgumentParser(
        prog="treering restore",
        epilog=exit_codes(
            "brought back, or could be", "the backup is not as it must be", "it could not be done"
        ),
        description="Bring a backup of a log back.",
    )
    made.add_argument("backup", type=Path, metavar="BACKUP", help="what `treering backup` has made")
    made.add_argument("--data", type=Path, required=True, help="the data folder to restore into")
    made.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    made.add_argument(
        "--at-least",
        type=int,
        metavar="SIZE",
        help="the greatest size of this log that anybody was told: a receipt's, a checkpoint's; 0 for none",
    )
    made.add_argument(
        "--new-origin", metavar="NAME", help="if the backup is older: begin a new log, of this name"
    )
    made.add_argument("--seal", help="where the seal lies, if not beside the log")
    made.add_argument("--config", type=Path, help="the server's TOML file, which may say where the seal lies")
    made.add_argument(
        "--vkey", help="the log's key, or a file that holds it (default: the one in the backup)"
    )
    made.add_argument("--dry-run", action="store_true", help="check everything, and say what would be done")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering restore`."""
    arguments = parser().parse_args(argv)
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        answer = _run(folder, arguments)
    except IntegrityError as error:
        say(f"treering restore: {error}")
        return EXIT_FINDING
    except (ArchiveError, MerkleError, OSError) as error:
        say(f"treering restore: {error}")
        return EXIT_USAGE
    if arguments.json:
        print_json(answer)
    else:
        verb = "would be restored" if arguments.dry_run else "restored and verified"
        print(f"{verb}: {number(answer['size'])} entries of {answer['old_origin']}, in {answer['old_log']}")
        if answer["origin"] != answer["old_origin"]:
            print(f"a new log: {answer['origin']}; its first entry names the old one")
        config = "" if arguments.config is None else f" --config {arguments.config}"
        print(f"next: treering serve --data {arguments.data}{config}")
    return EXIT_GOOD


def _run(folder: DataFolder, arguments: argparse.Namespace) -> dict[str, Any]:
    backup = DataFolder(arguments.backup, folder.partition)
    seal_path = find_seal(folder, arguments)
    verifier = None if arguments.vkey is None else read_vkey(arguments.vkey)
    manifest = read_manifest(backup)
    mark = decide(backup, manifest, folder, seal_path, arguments)
    before = DataFolder(folder.path / "before" / str(mark.before), folder.partition)
    # Where an interrupted run has moved the folder's keys away, they were put there before.
    keys = keys_at_hand(backup, before, folder)
    checked(backup, manifest, keys_of=keys, verifier=verifier)
    if not before.path.exists():
        refuse_what_does_not_fit(backup, folder, mark)
    if not arguments.dry_run:
        folder.create()
        locks = folder.take_locks()
        try:
            restoring.write_mark(folder, mark)
            if mark.new_origin is None:
                restore_same(backup, manifest, folder, seal_path, verifier)
            else:
                restore_before(backup, manifest, before, folder, verifier)
                begin_anew(folder, mark.new_origin, manifest, seal_path, before.path)
            restoring.take_away(folder)
        finally:
            for lock in locks:
                os.close(lock)
    return {
        "old_origin": mark.origin,
        "origin": mark.new_origin or mark.origin,
        "old_log": str(folder.path if mark.new_origin is None else before.path),
        "size": mark.size,
        "root": mark.root,
        "behind": max(0, mark.told - mark.size),
        "dry_run": arguments.dry_run,
    }


def find_seal(folder: DataFolder, arguments: argparse.Namespace) -> Path:
    """Return where the seal lies: a flag, a variable or the server's file says so; else it is beside the log.

    Raises InvalidEvent if its folder is not there: a disk that is not mounted must not pass for a log without a seal.
    """
    flags = {"data": str(arguments.data), "seal": arguments.seal}
    path = load(flags, os.environ, arguments.config).seal
    if path is None:
        return folder.log / "seal"
    if path.parent.absolute() != folder.log.absolute() and not path.parent.is_dir():
        raise InvalidEvent(f"{path}: the seal's folder is not there; is its disk mounted?")
    return path


def decide(
    backup: DataFolder,
    manifest: Manifest,
    folder: DataFolder,
    seal_path: Path,
    arguments: argparse.Namespace,
) -> Mark:
    """Return what is to be done, as an interrupted run has decided or, where there was none, from what is there.

    Raises InvalidEvent if the new name is none; the rest is refused by `told_here` with `decided_now`, or by
    `decided_before`.
    """
    name, at_least = arguments.new_origin, arguments.at_least
    if name is not None:
        check_new_origin(name, manifest)
    begun = restoring.read_mark(folder)
    if begun is not None:
        return decided_before(begun, manifest, folder, name, at_least or 0)
    return decided_now(manifest, folder, name, told_here(backup, manifest, folder, seal_path, at_least))


def decided_now(manifest: Manifest, folder: DataFolder, new_origin: str | None, told: int) -> Mark:
    """Return what a restore that begins now is to do, of a log of which so many entries were told.

    Raises IntegrityError if the backup is older than that and no new log is asked for, InvalidEvent if a log is there.
    """
    before = _free_number(folder)
    mark = Mark(restoring.FORMAT, manifest.origin, manifest.size, manifest.root, new_origin, before, told)
    refuse_contradiction(mark)
    refuse_a_log(folder)
    return mark


def decided_before(
    begun: Mark, manifest: Manifest, folder: DataFolder, new_origin: str | None, at_least: int
) -> Mark:
    """Return what a restore that did not end is still to do, if this is the same one; more may have been told since.

    What lies in the folder is its own work, half or whole.  Raises InvalidEvent if another one was begun, or another
    log stands where the new one was to begin, IntegrityError if the backup is now known to be older than what was told.
    """
    if (begun.origin, begun.root, begun.new_origin) != (manifest.origin, manifest.root, new_origin):
        flag = "" if begun.new_origin is None else f" --new-origin {begun.new_origin}"
        raise InvalidEvent(
            f"{restoring.path_of(folder)}: another restore into this folder did not end, of {begun.size:,} entries "
            f"of {begun.origin}{flag}; run that one again"
        )
    mark = msgspec.structs.replace(begun, told=max(begun.told, at_least))
    refuse_contradiction(mark)
    if new_origin is not None and not is_begun(folder, new_origin):
        refuse_a_log(folder)
    return mark


def refuse_contradiction(mark: Mark) -> None:
    """Raise IntegrityError if a log would go on under its name from fewer entries than were told."""
    if mark.new_origin is None and mark.told > mark.size:
        raise IntegrityError(
            f"the backup has {mark.size} entries, but {mark.told} were signed and told: going on "
            "from it would contradict them. Look for a newer backup; else --new-origin NAME begins a new log"
        )


def check_new_origin(name: str, manifest: Manifest) -> None:
    """Raise InvalidEvent or MerkleError for a name that no log can have, or that the old one has."""
    if name == manifest.origin:
        raise InvalidEvent("--new-origin: that is the old one; a new log needs a name of its own")
    try:
        Ed25519Signer(name, bytes(32))
        encode_control(
            0, {"control": "origin", "origin": name, "follows": manifest.origin, "root": manifest.root}
        )
    except (MerkleError, FormatError, UnicodeError) as error:
        raise InvalidEvent(f"--new-origin: {error}") from None


def refuse_what_does_not_fit(backup: DataFolder, folder: DataFolder, mark: Mark) -> None:
    """Raise IntegrityError or NotFound if what would be kept in the folder is not this log's, or is damaged."""
    if mark.new_origin is None:
        refuse_another_key(backup, folder)
        refuse_another_vault(backup, folder)
    elif has_database(folder.path / "vault"):
        compare_vaults(backup, folder)  # it must be able to say who was erased


def published_in(folder: DataFolder) -> int:
    """Return the size that was published last from a data folder, 0 if nobody knows."""
    try:
        return PublishedSize(folder.published).get()
    except NotFound:
        return 0


def told_here(
    backup: DataFolder, manifest: Manifest, folder: DataFolder, seal_path: Path, at_least: int | None
) -> int:
    """Return the greatest size that was told: by the seal in the folder, the operator, or what was published here.

    What was published here counts, and is not enough: nobody syncs it.  Raises InvalidEvent if nobody knows how many
    were told, IntegrityError if the seal is of another history.
    """
    seal = newest_seal(seal_path.read_bytes()) if seal_path.is_file() else None
    if seal is None and at_least is None:
        raise InvalidEvent(
            "there is no seal here that says how far the log had come (if it lies elsewhere: --config or --seal); "
            "look for the greatest size that anybody was told (a receipt, a checkpoint, a witness) and say it with "
            "--at-least"
        )
    if seal is not None and seal.size <= manifest.size:
        with viewing(backup.open_log()) as view:
            if Log(view, size_of(view)).root(seal.size) != seal.root:
                raise IntegrityError("the seal in this folder is of another log, or of another history")
    return max(0 if seal is None else seal.size, at_least or 0, published_in(folder))


def refuse_a_log(folder: DataFolder) -> None:
    """Raise InvalidEvent if there is a database: nothing is overwritten."""
    if has_database(folder.log):
        path = folder.log / "data.mdb"
        raise InvalidEvent(f"{path}: there is a log; move it away (and keep it), nothing is overwritten here")


def refuse_another_key(backup: DataFolder, folder: DataFolder) -> None:
    """Raise IntegrityError unless the key that will sign is the one that the log of a backup goes on with.

    That is the key in the folder or, where there is none, the one in the backup; NotFound if neither has one.
    """
    holder = folder if folder.log_key.exists() else backup
    if not holder.log_key.exists():
        raise NotFound(f"{folder.log_key}: bring the keys of this log back first; they are not in the backup")
    with viewing(backup.open_log()) as view:
        find_signer(holder, Log(view, size_of(view)))


def _free_number(folder: DataFolder) -> int:
    """Return where the old log goes: before/1, or the first number that is free."""
    return next(at for at in count(1) if not (folder.path / "before" / str(at)).exists())
