"""treering backup: a copy of a log that a server is writing, whole, checked, and of one moment.

    $ treering backup /mnt/backup/monday --data data --with-keys
    verified: 25,537 entries of treering.local/5f2a…/0, root 9c41…, in /mnt/backup/monday

The log is copied first and the vault after it: a subject's secret is durable before the subject's first entry, so every
entry of the copy can be read.  The seal is made anew, at the size that was copied.  The copy is a data folder like any
other (`verify-log` reads it), and it gets its name only when it is whole and has been checked.

Keys are left out unless asked for: whoever has log, vault and keys can read everything.  States are derived, and are
left out.  What a backup is, and how one is checked: `tools.backup_folder`.  How it is brought back: `tools.restore`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from archive import (
    ArchiveError,
    DataFolder,
    IntegrityError,
    InvalidEvent,
    LmdbStore,
    Log,
    NotFound,
    Unavailable,
    size_of,
    sync_folder,
    write_whole,
)
from merkle import Checkpoint, MerkleError, Note
from tools.backup_folder import (
    FORMAT,
    MANIFEST,
    Manifest,
    copy_files,
    damage_in,
    digest,
    encode,
    file_names,
    judge,
    outcome_of,
    seal_at_head,
)
from tools.console import PARTITION_HELP, exit_codes, in_words, number, print_json
from tools.data_flag import add_data
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say, version
from tools.verify_folder import Outcome


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering backup`."""
    made = argparse.ArgumentParser(
        prog="treering backup",
        epilog=exit_codes(
            "made and checked", "the log, or the copy, is not as it must be", "it could not be done"
        ),
        description="Copy a log, while its server runs.",
    )
    made.add_argument("backup", type=Path, metavar="DIR", help="where the backup is made; it must not exist")
    add_data(made)
    made.add_argument("--partition", type=int, default=0, help=PARTITION_HELP)
    made.add_argument("--with-keys", action="store_true", help="also copy the keys: guard such a backup")
    made.add_argument(
        "--accept-damage",
        action="store_true",
        help="make it though private rows are damaged: it names them (docs/recovery.md, Rotten bytes)",
    )
    made.add_argument("--dry-run", action="store_true", help="only say what would be copied")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering backup`."""
    arguments = parser().parse_args(argv)
    folder, target = DataFolder(arguments.data, arguments.partition), arguments.backup
    try:
        if arguments.dry_run:
            return _dry_run(folder, target, arguments.with_keys, as_json=arguments.json)
        manifest, outcome = back_up(
            folder, target, with_keys=arguments.with_keys, accept_damage=arguments.accept_damage
        )
    except IntegrityError as error:
        say(f"treering backup: {error}")
        return EXIT_FINDING
    except OSError as error:
        say(f"treering backup: {in_words(error)}; no backup was made")
        return EXIT_USAGE
    except ArchiveError as error:
        say(f"treering backup: {error}")
        return EXIT_USAGE
    report(
        manifest,
        target,
        opened=outcome.tally.opened,
        signed=manifest.vkey is not None,
        as_json=arguments.json,
    )
    return EXIT_GOOD


def back_up(
    folder: DataFolder, target: Path, *, with_keys: bool = False, accept_damage: bool = False
) -> tuple[Manifest, Outcome]:
    """Make a backup at `target` and return what it is and how it was checked.

    With `accept_damage` it is made though private rows are damaged, and says so: what all can check must be whole.
    Raises IntegrityError if the copy does not verify (then look at the log itself), InvalidEvent if there is
    something at `target`, Unavailable if it does not fit.
    """
    refuse_occupied(target)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy = DataFolder(partial, folder.partition)
    try:
        _copy_databases(folder, copy)
        if with_keys:
            copy_files(folder.path / "keys", partial / "keys")
        manifest = _described(folder, copy, with_keys=with_keys)
        outcome = outcome_of(copy, manifest, folder, None)
        if accept_damage:
            manifest = msgspec.structs.replace(manifest, damage=sorted(damage_in(outcome)))
        judge(copy, manifest, outcome)
        write_whole(partial / MANIFEST, encode(manifest))
        partial.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest, outcome


def _copy_databases(folder: DataFolder, copy: DataFolder) -> None:
    """Copy the log, then the vault, then seal what was copied."""
    log = folder.open_log()
    try:
        log.copy(copy.log)
    finally:
        log.close()
    copy_vault(folder, copy)
    seal_at_head(copy, copy.log / "seal")


def copy_vault(folder: DataFolder, copy: DataFolder) -> None:
    """Copy the vault, which needs no key; raise IntegrityError if a subject was lost on the way."""
    vault = folder.open_vault_store()
    try:
        before = _subjects(vault)
        vault.copy(copy.path / "vault")
    finally:
        vault.close()
    copied = copy.open_vault_store()
    try:
        if missing := before - _subjects(copied):
            raise IntegrityError(
                f"{len(missing)} subjects are not in the copy of the vault; is one being erased?"
            )
    finally:
        copied.close()


def _subjects(vault: LmdbStore) -> set[bytes]:
    with vault.view() as view:
        return {bytes(key) for key, _ in view.scan("subjects")}


def _described(folder: DataFolder, copy: DataFolder, *, with_keys: bool) -> Manifest:
    store = copy.open_log()
    try:
        with store.view() as view:
            log = Log(view, size_of(view))
            if log.size == 0:
                raise NotFound(f"{folder.log}: the log is empty; there is nothing to back up")
            checkpoint = Checkpoint.decode(Note.decode(log.checkpoint()[1]).text)
    except MerkleError as error:
        raise IntegrityError(f"{folder.log}: its last checkpoint: {error}; run verify-log") from None
    finally:
        store.close()
    files = {one: digest(copy.path / one) for one in file_names(copy.path)}
    return Manifest(
        FORMAT,
        checkpoint.origin,
        folder.partition,
        checkpoint.size,
        checkpoint.root.hex(),
        vkey_of(folder),
        int(time.time()),
        f"treering {version()}",
        with_keys,
        files,
    )


def vkey_of(folder: DataFolder) -> str | None:
    """Return the key that the log signs with now, or None where the signing key is not at hand."""
    try:
        return folder.signer(os.urandom).verifier.encode()
    except NotFound:
        return None


def refuse_occupied(target: Path) -> None:
    """Raise InvalidEvent if there is something already."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidEvent(f"{target}: there is something already; name a folder that does not exist")
    if target.is_mount() or target.is_symlink():
        raise InvalidEvent(f"{target}: a disk or a link; name a folder below it")


def report(manifest: Manifest, target: Path, *, opened: int, signed: bool, as_json: bool) -> None:
    """Print the result."""
    if as_json:
        facts = {"backup": str(target), "verified": True, "signatures": signed, "opened": opened}
        print_json({**facts, **msgspec.to_builtins(manifest)})
        return
    print(
        f"verified: {number(manifest.size)} entries of {manifest.origin}, root {manifest.root}, in {target}"
    )
    if manifest.damage:
        print(f"with damage that it names: {', '.join(manifest.damage)}")
    if not manifest.keys:
        print("without keys: keep keys/ elsewhere, or nobody can read or continue this log (--with-keys)")


def _dry_run(folder: DataFolder, target: Path, with_keys: bool, *, as_json: bool) -> int:
    refuse_occupied(target)
    log = folder.open_log()
    try:
        with log.view() as view:
            size = size_of(view)
    finally:
        log.close()
    places = [folder.log / "data.mdb", folder.path / "vault" / "data.mdb"]
    places += sorted((folder.path / "keys").iterdir()) if with_keys else []
    needed = sum(path.stat().st_size for path in places)
    free = shutil.disk_usage(_existing(target)).free
    if as_json:
        print_json({"backup": str(target), "dry_run": True, "size": size, "bytes": needed, "free": free})
    else:
        print(f"would copy {number(size)} entries, at most {number(needed)} bytes; {number(free)} are free")
    if needed > free:
        raise Unavailable(f"{target}: no space for {number(needed)} bytes; make room, or name another disk")
    return EXIT_GOOD


def _existing(path: Path) -> Path:
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
