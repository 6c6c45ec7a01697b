"""Vaults that meet in a restore: the one in the folder, and the one that a backup brings along.

A subject's row is written once, with a nonce of its own, and is never changed: it is there, byte for byte, or it was
erased.  So two vaults can be held against each other without any key, and each says what it knows better than the
other: the one that has admitted more subjects is newer, and whoever is gone from either has been erased.

    refuse_another_vault(backup, folder)     may the log in this backup go on with the vault that would be kept?
    copy_vault_without(...)                  the backup's, less those who were erased since

Who calls it: `tools.restore` before anything is written, `tools.restoring_parts` when the old log is put aside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from archive import (
    DataFolder,
    IntegrityError,
    LmdbStore,
    Log,
    Vault,
    View,
    Write,
    check_structure,
    missing_bytes,
    parse_row,
    read_secret,
    size_of,
    sync_folder,
)

BATCH = 10_000
"""Rows of a vault that are written in one commit."""


@contextmanager
def viewing(store: LmdbStore) -> Iterator[View]:
    """Yield a view of a store and close both."""
    try:
        with store.view() as view:
            yield view
    finally:
        store.close()


def has_database(place: Path) -> bool:
    """Return whether a database is there; one whose first open was killed is empty, and is none."""
    path = place / "data.mdb"
    return path.exists() and path.stat().st_size > 0


def copy_in(store: LmdbStore, place: Path) -> None:
    """Copy a database and close it; the copy gets its name when it is whole."""
    aside = place / "restoring"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        store.copy(aside)
    finally:
        store.close()
    (aside / "data.mdb").rename(place / "data.mdb")
    sync_folder(place)
    shutil.rmtree(aside, ignore_errors=True)


class Kinship(NamedTuple):
    """What the vault in a folder is to the one in a backup."""

    related: bool
    """Whether both were one vault once."""
    same: bool
    """Whether it still is that, at this or another time: nobody has the number of another."""
    admitted: int
    """How many subjects the folder's has ever admitted."""
    behind: bool
    """Whether that is fewer than the backup's."""
    erased: frozenset[bytes]
    """Who is in the backup's and was erased from the folder's."""
    returning: int
    """How many are in the folder's that had been erased when the backup was made."""


def compare_vaults(backup: DataFolder, folder: DataFolder) -> Kinship:
    """Return what the vault in a folder is to that of a backup; no key is needed, each row is written once and kept.

    Raises IntegrityError if the folder's is damaged: it cannot say who was erased.
    """
    refuse_damaged(folder)
    with viewing(backup.open_vault_store()) as old, viewing(folder.open_vault_store()) as new:
        known, admitted = _admitted(old), _admitted(new)
        same = related = old.get("meta", b"site") == new.get("meta", b"site")
        erased = set()
        for key, secret in old.scan("subjects"):
            found = new.get("subjects", bytes(key))
            if found is None and int.from_bytes(key) < admitted:
                erased.add(bytes(key))
            same = same and found in (None, bytes(secret))
        returning = sum(
            int.from_bytes(key) < known and old.get("subjects", bytes(key)) is None
            for key, _ in new.scan("subjects")
        )
    return Kinship(related, same, admitted, admitted < known, frozenset(erased), returning)


def _admitted(vault: View) -> int:
    return int.from_bytes(vault.get("meta", b"next") or b"")


def refuse_damaged(folder: DataFolder) -> None:
    """Raise IntegrityError if the vault in a folder was cut short or has damaged pages."""
    place = folder.path / "vault"
    lacking = missing_bytes(place)
    found = [] if lacking else check_structure(place)
    if lacking or found:
        what = f"cut short, {lacking:,} bytes shorter than it says itself" if lacking else found[0].detail
        raise IntegrityError(
            f"{place / 'data.mdb'}: {what}; move it away (and keep it): the backup's is taken then, and does not know "
            "who was erased since"
        )


def refuse_another_vault(backup: DataFolder, folder: DataFolder) -> None:
    """Raise IntegrityError unless the vault that the log would have is its own, not older, and opens with its key.

    That is the vault in the folder or, where there is none, the one in the backup; and so for its key.
    """
    kept = has_database(folder.path / "vault")
    if kept:
        path = folder.path / "vault" / "data.mdb"
        remedy = "move it away (and keep it): the backup's is taken then"
        kin = compare_vaults(backup, folder)
        if not kin.same:
            raise IntegrityError(f"{path}: it is not the vault of this log, which is in the backup; {remedy}")
        if kin.behind and (needed := _subjects_of(backup)) > kin.admitted:
            raise IntegrityError(
                f"{path}: it knows {kin.admitted:,} subjects, but the log in the backup has entries of {needed:,}: it "
                f"is older; {remedy}"
            )
        if kin.returning:
            raise IntegrityError(
                f"{path}: it still has {kin.returning:,} subjects who had been erased when the backup was made: it is "
                f"older; {remedy}"
            )
    holder = folder if folder.vault_key.exists() else backup
    if "TREERING_VAULT_KEY" in os.environ or holder.vault_key.exists():
        _open_vault(folder if kept else backup, holder)


def _subjects_of(folder: DataFolder) -> int:
    """Return one more than the greatest number of a subject that any entry of a log has."""
    with viewing(folder.open_log()) as view:
        log = Log(view, size_of(view))
        rows = (row for index in range(log.size) if (row := log.row(index)))
        return max((1 + max(parse_row(row).subjects) for row in rows), default=0)


def _open_vault(folder: DataFolder, keys: DataFolder) -> None:
    """Open a vault with the key in the environment or in another folder; raise IntegrityError if it is not its own."""
    text, where = os.environ.get("TREERING_VAULT_KEY"), "TREERING_VAULT_KEY"
    if text is None:
        text, where = read_secret(keys.vault_key), str(keys.vault_key)
    if not is_opened(folder, text):
        raise IntegrityError(f"{where}: not the key of the vault in {folder.path}; bring that one back")


def is_opened(folder: DataFolder, text: str) -> bool:
    """Return whether a vault opens with the key that a text spells."""
    store = folder.open_vault_store()
    try:
        Vault(store, bytes.fromhex(text.strip()), os.urandom)
    except (IntegrityError, ValueError):  # ValueError: no 64 hexadecimal digits
        return False
    finally:
        store.close()
    return True


def erased_since(backup: DataFolder, folder: DataFolder) -> frozenset[bytes]:
    """Return who is in the vault of a backup and was erased in the folder's; nobody if that is another one."""
    if not has_database(folder.path / "vault"):
        return frozenset()
    kin = compare_vaults(backup, folder)
    return kin.erased if kin.related else frozenset()


def copy_vault_without(backup: DataFolder, erased: frozenset[bytes], target: DataFolder) -> None:
    """Copy the vault of a backup without those who were erased since: not a byte of their secrets is in the copy."""
    if not erased:
        copy_in(backup.open_vault_store(), target.path / "vault")
        return
    # Deleting from a copy would leave the bytes in its pages, so the rows that stay are written anew.
    new = target.open_vault_store(read_only=False)
    try:
        with viewing(backup.open_vault_store()) as old:
            rows = _rows_without(old, erased)
            while some := list(islice(rows, BATCH)):
                new.commit(some)
    finally:
        new.close()


def _rows_without(vault: View, erased: frozenset[bytes]) -> Iterator[Write]:
    for table in ("meta", "subjects", "names"):
        for key, value in vault.scan(table):
            number = {"subjects": bytes(key), "names": bytes(value)}.get(table)
            if number not in erased:
                yield Write(table, bytes(key), bytes(value))
