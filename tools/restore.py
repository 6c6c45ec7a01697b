"""treering restore: bring a backup back, under the same name only where nothing that was told can be contradicted.

    $ treering restore /mnt/backup/monday --data data --at-least 25537

A log that goes on from an older copy would sign, a second time, sizes that were signed before.  So the operator says
up to which size the log was last seen (a receipt, a checkpoint that was kept, a witness), or the seal in the
folder says so.  A backup that reaches it goes on under its old name.  One that does not can only be read: with
`--new-origin` a new log begins, whose first entry names the old one (origin, size and root); the old log, its vault and
its keys lie in `before/`, a data folder of its own, as what they are.

What is written comes in an order in which a crash can be repeated: keys, vault, seal, and the database of the log last.
How a backup is made: `tools.backup`; what to do at 3 a.m.: docs/recovery.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
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
    Seal,
    find_signer,
    make_folder,
    newest_seal,
    size_of,
    sync_folder,
    take_lock,
    write_whole,
)
from merkle import Ed25519Verifier, MerkleError
from tools.archiver import begin, build
from tools.backup import (
    FORMAT,
    MANIFEST,
    Manifest,
    checked,
    copy_files,
    copy_vault,
    digest,
    file_names,
    seal_at_head,
)
from tools.console import number, print_json
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say, version
from tools.verify_log import read_vkey


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering restore`."""
    made = argparse.ArgumentParser(prog="treering restore", description="Bring a backup of a log back.")
    made.add_argument("backup", type=Path, metavar="BACKUP", help="what `treering backup` has made")
    made.add_argument("--data", type=Path, required=True, help="the data folder to restore into")
    made.add_argument("--partition", type=int, default=0)
    made.add_argument(
        "--at-least",
        type=int,
        metavar="SIZE",
        help="the greatest size of this log that anybody was told: a receipt's, a checkpoint's; 0 for none",
    )
    made.add_argument(
        "--new-origin", metavar="NAME", help="if the backup is older: begin a new log, of this name"
    )
    made.add_argument("--seal", type=Path, help="where the seal lies, if not beside the log")
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
        print("next: treering serve --data", arguments.data)
    return EXIT_GOOD


def _run(folder: DataFolder, arguments: argparse.Namespace) -> dict[str, Any]:
    backup = DataFolder(arguments.backup, folder.partition)
    manifest = read_manifest(backup)
    seal_path = arguments.seal or folder.log / "seal"
    verifier = None if arguments.vkey is None else read_vkey(arguments.vkey)
    checked(backup, manifest, keys_of=_keys_at_hand(backup, folder), verifier=verifier)
    seal = newest_seal(seal_path.read_bytes()) if seal_path.is_file() else None
    behind = how_far_behind(backup, manifest, seal, arguments.at_least, published_in(folder))
    answer = {
        "old_origin": manifest.origin,
        "origin": manifest.origin,
        "old_log": str(folder.path),
        "size": manifest.size,
        "root": manifest.root,
        "behind": behind,
        "dry_run": arguments.dry_run,
    }
    if arguments.new_origin is None and behind:
        raise IntegrityError(
            f"the backup has {manifest.size} entries, but {manifest.size + behind} were signed and told: going on "
            "from it would contradict them. Look for a newer backup; else --new-origin NAME begins a new log"
        )
    refuse_a_log(folder)
    if arguments.new_origin is not None:
        if arguments.new_origin == manifest.origin:
            raise InvalidEvent("--new-origin: that is the old one; a new log needs a name of its own")
        answer |= {"origin": arguments.new_origin, "old_log": str(_before(folder))}
    else:
        refuse_another_key(backup, folder)
    if arguments.dry_run:
        return answer
    folder.create()
    lock = take_lock(folder.log / "lock")
    try:
        if arguments.new_origin is None:
            restore_same(backup, manifest, folder, seal_path, verifier)
        else:
            restore_before(
                backup, manifest, DataFolder(answer["old_log"], folder.partition), folder, verifier
            )
            begin_anew(folder, arguments.new_origin, manifest, seal_path, Path(answer["old_log"]))
    finally:
        os.close(lock)
    return answer


def read_manifest(backup: DataFolder) -> Manifest:
    """Return what a backup says about itself; raise IntegrityError if a file is missing, changed or too many."""
    path = backup.path / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NotFound(f"{path}: not there; name a folder that `treering backup` has finished") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}") from None
    if manifest.format != FORMAT or manifest.partition != backup.partition:
        raise InvalidEvent(f"{path}: a backup of partition {manifest.partition} in format {manifest.format}")
    found = {one: digest(backup.path / one) for one in file_names(backup.path)}
    if wrong := sorted(dict(found.items() ^ manifest.files.items())):
        raise IntegrityError(f"{backup.path}: not as it was made: {', '.join(wrong)}")
    return manifest


def published_in(folder: DataFolder) -> int:
    """Return the size that was published last from a data folder, 0 if nobody knows."""
    try:
        return PublishedSize(folder.published).get()
    except NotFound:
        return 0


def how_far_behind(
    backup: DataFolder, manifest: Manifest, seal: Seal | None, at_least: int | None, published: int
) -> int:
    """Return how many entries that were told are not in the backup.

    What was published here counts, and is not enough: nobody syncs it.  Raises InvalidEvent if nobody knows how many
    were told, IntegrityError if the seal is of another history.
    """
    if seal is None and at_least is None:
        raise InvalidEvent(
            "there is no seal here that says how far the log had come; look for the greatest size that anybody "
            "was told (a receipt, a checkpoint, a witness) and say it with --at-least"
        )
    if seal is not None and seal.size <= manifest.size:
        store = backup.open_log()
        try:
            with store.view() as view:
                if Log(view, size_of(view)).root(seal.size) != seal.root:
                    raise IntegrityError("the seal in this folder is of another log, or of another history")
        finally:
            store.close()
    known = max(0 if seal is None else seal.size, at_least or 0, published)
    return max(0, known - manifest.size)


def refuse_a_log(folder: DataFolder) -> None:
    """Raise InvalidEvent if there is a database: nothing is overwritten."""
    path = folder.log / "data.mdb"
    if path.exists() and path.stat().st_size:
        raise InvalidEvent(f"{path}: there is a log; move it away (and keep it), nothing is overwritten here")


def refuse_another_key(backup: DataFolder, folder: DataFolder) -> None:
    """Raise IntegrityError unless the key that will sign is the one that the log of a backup goes on with.

    That is the key in the folder or, where there is none, the one in the backup; NotFound if neither has one.
    """
    holder = folder if folder.log_key.exists() else backup
    if not holder.log_key.exists():
        raise NotFound(f"{folder.log_key}: bring the keys of this log back first; they are not in the backup")
    store = backup.open_log()
    try:
        with store.view() as view:
            find_signer(holder, Log(view, size_of(view)))
    finally:
        store.close()


def _keys_at_hand(backup: DataFolder, folder: DataFolder) -> DataFolder | None:
    """Return where the vault's key is, if anywhere."""
    for one in (backup, folder):
        if one.vault_key.exists():
            return one
    return folder if "TREERING_VAULT_KEY" in os.environ else None


def restore_same(
    backup: DataFolder,
    manifest: Manifest,
    folder: DataFolder,
    seal_path: Path,
    verifier: Ed25519Verifier | None,
) -> None:
    """Bring a log back where it was; a crash on the way leaves a folder into which it can be done again."""
    if (backup.path / "keys").is_dir() and not (folder.log_key.exists() and folder.vault_key.exists()):
        copy_files(backup.path / "keys", folder.path / "keys", missing=True)
    if not (folder.path / "vault" / "data.mdb").exists():
        # A vault that is there is newer, and knows who has been erased since.
        copy_vault(backup, folder)
    seal_at_head(backup, seal_path)
    _copy_log(backup, folder)
    checked(folder, manifest, keys_of=_keys_at_hand(folder, folder), verifier=verifier)


def _copy_log(backup: DataFolder, folder: DataFolder) -> None:
    """Copy the database; it gets its name when it is whole."""
    store, place = backup.open_log(), folder.log / "restoring"
    try:
        store.copy(place)
    finally:
        store.close()
    (place / "data.mdb").rename(folder.log / "data.mdb")
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    sync_folder(folder.log)


def _before(folder: DataFolder) -> Path:
    """Return where the old log goes: before/1, or the first number that is free."""
    return next(path for at in count(1) if not (path := folder.path / "before" / str(at)).exists())


def restore_before(
    backup: DataFolder,
    manifest: Manifest,
    before: DataFolder,
    folder: DataFolder,
    verifier: Ed25519Verifier | None,
) -> None:
    """Keep an old log, its vault and its keys beside the new one, to be read and never to be written."""
    for source in (backup.path, folder.path):
        if (source / "keys").is_dir():
            copy_files(source / "keys", before.path / "keys")
    copy_vault(backup, before)
    seal_at_head(backup, _made(before.log) / "seal")
    _copy_log(backup, before)
    checked(before, manifest, keys_of=_keys_at_hand(before, folder), verifier=verifier)
    for path in (before.log / "data.mdb", before.log / "seal", before.path / "vault" / "data.mdb"):
        path.chmod(0o400)


def _made(path: Path) -> Path:
    make_folder(path)
    return path


def begin_anew(folder: DataFolder, origin: str, manifest: Manifest, seal_path: Path, before: Path) -> None:
    """Begin a log of another name, under keys and with a vault of its own; its entry 0 names the old one.

    Nothing of the old vault is used: the same subject's tags would otherwise be the same in both logs.  What stood
    in the folder is moved, never deleted.
    """
    replaced = _made(before / "replaced")
    vault = folder.path / "vault"
    for path in (
        vault / "data.mdb",
        vault / "lock.mdb",
        folder.vault_key,
        folder.next_log_key,
        folder.log_key,
        folder.begun,
        folder.published,
    ):
        if path.exists():
            shutil.move(path, replaced / f"{path.parent.name}-{path.name}")
    if seal_path.exists():
        shutil.move(seal_path, replaced / "seal")
    archiver = build(folder, origin, seal_path)
    follows = {"origin": manifest.origin, "size": manifest.size, "root": manifest.root}
    start = {"software": f"treering {version()}", "python": platform.python_version()}
    begin(archiver, folder, start, follows)
    archiver.close()
    write_whole(before.parent / "README", _NOTE.encode())


_NOTE = """Old logs that were restored from a backup older than what had been told.  Each folder is a data folder of
its own: verify-log and treering replay read it.  Nothing may ever be appended to it.  See docs/recovery.md.
"""
