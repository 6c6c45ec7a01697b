"""Changing a log's key so that a crash at any moment leaves a log that works.

    1. the new key, in a file beside the old one, synced       (a crash: it was never used)
    2. the rotation entry, committed and sealed like any other (a crash: it is there or it is not)
    3. the new file takes the old one's name                   (a crash: the next start finishes it)

The log itself says which key it expects next, so `current_signer` can tell at any start which of the two files holds
it.  The commit of step 2 is still signed by the old key.  After step 3 the old key is gone.

What the entry says, and how others follow it: `archive.keyring`.  The command: `treering keys rotate`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from archive.belonging import check_begun
from archive.errors import KEYS, IntegrityError, NotFound
from archive.files import sync_folder, write_whole
from archive.folder import DataFolder
from archive.keyfile import encode_key, read_key
from archive.keyring import next_key_id, rotation_body
from archive.log import Log, load_size
from archive.ports import Random, Store
from merkle import ED25519, Ed25519Signer

if TYPE_CHECKING:  # whoever only looks for a key needs no archiver
    from archive.archiver import Archiver


def rotate(archiver: Archiver, folder: DataFolder, old: Ed25519Signer, random: Random) -> Ed25519Signer:
    """Change the key of a log and return the new one; `archiver`, which signs with the old key, is then of no more use.

    The caller holds the log's lock and has opened the archiver.  Raises what the archiver raises.
    """
    seed = random(32)
    new = Ed25519Signer(old.name, seed)
    write_whole(folder.next_log_key, encode_key(old.name, ED25519, seed).encode())
    archiver.control(rotation_body(archiver.head.size, old, new))
    take_up(folder)
    return new


def take_up(folder: DataFolder) -> None:
    """Let the new key's file take the old one's name, durably."""
    os.rename(folder.next_log_key, folder.log_key)
    sync_folder(folder.log_key.parent)


def current_signer(
    folder: DataFolder, store: Store, random: Random, origin: str | None = None
) -> Ed25519Signer:
    """Return the key that must sign the next checkpoint; finish a rotation that was interrupted.

    For an empty log it is made for `origin` if there is none.  Raises IntegrityError if it has signed another log,
    which is not there, or if no file holds the key that the log expects: one checkpoint signed by another key would
    spoil the log for all who know its own.
    """
    with store.view() as view:
        log = Log(view, load_size(view))
        check_begun(folder.begun, log.size)
        if log.size == 0:
            return folder.signer(random, origin)
        path, signer = find_signer(folder, log)
    if path == folder.next_log_key:
        take_up(folder)
    return signer


def find_signer(folder: DataFolder, log: Log) -> tuple[Path, Ed25519Signer]:
    """Return the key that must sign the next checkpoint of a log with entries, and the file that holds it.

    Changes nothing; raises as `current_signer`.
    """
    expected = next_key_id(log)
    assert expected is not None, "a log with entries has checkpoints"
    for path in (folder.log_key, folder.next_log_key):
        try:
            key = read_key(path)
        except NotFound:
            continue
        if key.verifier.key_id == expected and isinstance(key, Ed25519Signer):
            return path, key
    raise IntegrityError(
        f"{folder.log_key}: not the key {expected.hex()} that this log signs with; bring that one back",
        section=KEYS,
    )
