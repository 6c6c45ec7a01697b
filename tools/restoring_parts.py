"""What a restore writes: the old log where it was, or beside a new one.  Each part is whole or not there.

A database is copied into a folder `restoring/` beside its place and then takes its name; what an interrupted run left
in there is cleared first.  Nothing that stood in the folder is deleted: what a new log replaces is moved to
`before/<n>/replaced`.  All of this happens under the mark (`tools.restoring`), so that every function here may find
its own work done already, half or whole.

Who has been erased stays erased: the old log is kept with a vault that has nobody whom the folder's, or the backup's,
no longer had (`tools.restoring_vault`).
"""

from __future__ import annotations

import errno
import os
import shutil
from itertools import count
from pathlib import Path

from archive import (
    ArchiveError,
    DataFolder,
    IntegrityError,
    Log,
    NotFound,
    find_signer,
    make_folder,
    read_secret,
    size_of,
    sync_folder,
    write_whole,
)
from merkle import Ed25519Verifier, MerkleError
from tools.archiver import begin, build
from tools.backup_folder import Manifest, checked, copy_files, seal_at_head
from tools.restoring_vault import (
    copy_in,
    copy_vault_without,
    erased_since,
    has_database,
    is_opened,
    viewing,
)

# --- a log that goes on --------------------------------------------------------------------------


def restore_same(
    backup: DataFolder,
    manifest: Manifest,
    folder: DataFolder,
    seal_path: Path,
    verifier: Ed25519Verifier | None,
) -> None:
    """Bring a log back where it was; a crash on the way leaves a folder into which it can be done again."""
    for place in (folder.path / "vault", folder.log):
        shutil.rmtree(place / "restoring", ignore_errors=True)
    if (backup.path / "keys").is_dir() and not (folder.log_key.exists() and folder.vault_key.exists()):
        copy_files(backup.path / "keys", folder.path / "keys", missing=True)
    if not has_database(folder.path / "vault"):
        # A vault that is there is newer, and knows who has been erased since.
        copy_in(backup.open_vault_store(), folder.path / "vault")
    seal_at_head(backup, seal_path)
    if not has_database(folder.log):
        copy_in(backup.open_log(), folder.log)
    checked(folder, manifest, keys_of=keys_at_hand(folder), verifier=verifier)


def keys_at_hand(*folders: DataFolder) -> DataFolder | None:
    """Return where the vault's key is: the first of these folders that has one, any if the environment has it."""
    for one in folders:
        if one.vault_key.exists():
            return one
    return folders[-1] if "TREERING_VAULT_KEY" in os.environ else None


# --- a new log beside the old one ----------------------------------------------------------------


def restore_before(
    backup: DataFolder,
    manifest: Manifest,
    before: DataFolder,
    folder: DataFolder,
    verifier: Ed25519Verifier | None,
) -> None:
    """Keep an old log, its vault and its keys beside the new one, to be read and never to be written.

    It gets its name, `before/<n>`, when it is whole and has been checked; nothing else is changed until then.
    """
    if before.path.exists():
        return
    aside = DataFolder(before.path.with_name("restoring"), before.partition)
    shutil.rmtree(aside.path, ignore_errors=True)
    for path in (aside.log, aside.path / "vault", aside.path / "keys"):
        make_folder(path)
    keep_keys(backup, folder, aside)
    copy_vault_without(backup, erased_since(backup, folder), aside)
    seal_at_head(backup, aside.log / "seal")
    copy_in(backup.open_log(), aside.log)
    checked(aside, manifest, keys_of=keys_at_hand(aside, folder), verifier=verifier)
    for path in (aside.log / "data.mdb", aside.log / "seal", aside.path / "vault" / "data.mdb"):
        path.chmod(0o400)
    aside.path.rename(before.path)
    sync_folder(before.path.parent)


def keep_keys(backup: DataFolder, folder: DataFolder, target: DataFolder) -> None:
    """Copy the keys of a backup, and the folder's where the backup has none, or one that is not its log's."""
    for one in (backup, folder):
        if (one.path / "keys").is_dir():
            copy_files(one.path / "keys", target.path / "keys", missing=True)
    if _signs(folder, backup) and not _signs(backup, backup):
        for mine, there in ((folder.log_key, target.log_key), (folder.next_log_key, target.next_log_key)):
            if mine.exists():
                write_whole(there, mine.read_bytes())
    if _unwraps(folder, backup) and not _unwraps(backup, backup):
        write_whole(target.vault_key, folder.vault_key.read_bytes())


def _signs(keys: DataFolder, backup: DataFolder) -> bool:
    """Return whether a folder has the key that the log of a backup goes on with."""
    try:
        with viewing(backup.open_log()) as view:
            find_signer(keys, Log(view, size_of(view)))
    except (ArchiveError, MerkleError):
        return False
    return True


def _unwraps(keys: DataFolder, backup: DataFolder) -> bool:
    """Return whether a folder has the key of a backup's vault."""
    try:
        return is_opened(backup, read_secret(keys.vault_key))
    except ArchiveError:
        return False


def begin_anew(folder: DataFolder, origin: str, manifest: Manifest, seal_path: Path, before: Path) -> None:
    """Begin a log of another name, under keys and with a vault of its own; its entry 0 names the old one.

    Nothing of the old vault is used: the same subject's tags would otherwise be the same in both logs.  What stood
    in the folder is moved, never deleted; so is what an interrupted run has begun, which nobody was told of.
    """
    replaced, vault = before / "replaced", folder.path / "vault"
    make_folder(replaced)
    for path in (
        folder.log / "data.mdb",
        folder.log / "lock.mdb",
        vault / "data.mdb",
        vault / "lock.mdb",
        folder.vault_key,
        folder.next_log_key,
        folder.log_key,
        folder.begun,
        folder.published,
    ):
        move_away(path, replaced, f"{path.parent.name}-{path.name}")
    move_away(seal_path, replaced, "seal")
    archiver = build(folder, origin, seal_path, restoring=True)
    follows = {"origin": manifest.origin, "size": manifest.size, "root": manifest.root}
    begin(archiver, folder, {"purpose": "restore"}, follows)
    archiver.close()
    write_whole(before.parent / "README", _NOTE.encode())


def move_away(path: Path, into: Path, name: str) -> None:
    """Move a file, if it is there, under a name that is free: name, name-2, …; between disks, too, it is never torn."""
    if not path.exists():
        return
    target = next(
        one for at in count(1) if not (one := into / (name if at == 1 else f"{name}-{at}")).exists()
    )
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(path, partial := target.with_name(target.name + ".tmp"))
        partial.chmod(0o600)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
        path.unlink()
    sync_folder(into)
    sync_folder(path.parent)


def is_begun(folder: DataFolder, origin: str) -> bool:
    """Return whether the log in a folder is what an interrupted run has begun under a name, or nothing yet."""
    try:
        with viewing(folder.open_log()) as view:
            log = Log(view, size_of(view))
            return not log.size or log.checkpoint()[1].startswith(f"{origin}\n".encode())
    except (NotFound, IntegrityError):  # its first commit was cut off
        return True


_NOTE = """Old logs that were restored from a backup older than what had been told.  Each folder is a data folder of
its own: verify-log and treering replay read it.  Nothing may ever be appended to it.  See docs/recovery.md.
"""
