"""What a backup is: a data folder with a manifest, `backup.json`, that says what is in it, byte for byte.

    manifest = read_manifest(DataFolder(path))            every file is there, and is as it was made
    checked(DataFolder(path), manifest, keys_of=None)     the log verifies, and is the one described

The manifest finds what was lost or exchanged on the way; what the log says is shown by the log itself, whose checkpoint
must be the one described.  Damage of private rows that a backup names was there when it was made, and passes; any other
is a finding.

Who makes one: `tools.backup`.  Who brings it back: `tools.restore`, with `tools.restoring_parts`; these copy and seal
the same way.  Layout: docs/formats/backup.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from archive import (
    DataFolder,
    Finding,
    FormatError,
    IntegrityError,
    InvalidEvent,
    Log,
    NotFound,
    SealFile,
    decode_block,
    make_folder,
    read_secret,
    size_of,
    write_whole,
)
from merkle import Ed25519Verifier
from tools.verify_folder import Outcome, Request, verify_folder

MANIFEST = "backup.json"
FORMAT = 1
PRIVATE = frozenset({"row", "opening", "header", "ids", "sequence"})
"""Checks of what only the log's owner can read; their names are those of docs/formats/findings.md."""
_HINT = "; if no older backup has it, --accept-damage makes one that says so (docs/recovery.md, Rotten bytes)"


# --- what it says of itself ----------------------------------------------------------------------


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a backup says about itself, in `backup.json`."""

    format: int
    origin: str
    partition: int
    size: int
    root: str
    """Root at that size, hexadecimal."""
    vkey: str | None
    """The log's key when it was made, or None where the signing key was not at hand."""
    created: int
    """Unix seconds."""
    software: str
    keys: bool
    """Whether the keys are in it."""
    files: dict[str, str]
    """SHA-256 of every file, hexadecimal, by path."""
    damage: list[str] = []
    """What was wrong with private rows when it was made, and accepted: "entry 7: row"."""


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of `backup.json`."""
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"


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


def file_names(path: Path) -> list[str]:
    """Return the files of a backup, without its manifest and LMDB's lock files, as relative paths."""
    names = (one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())
    return sorted(name for name in names if name != MANIFEST and not name.endswith("lock.mdb"))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- how it is checked ---------------------------------------------------------------------------


def checked(
    copy: DataFolder,
    manifest: Manifest,
    *,
    keys_of: DataFolder | None,
    verifier: Ed25519Verifier | None = None,
) -> Outcome:
    """Verify the log of a backup and return the outcome; raise IntegrityError with the first finding.

    Damage that the backup names was there when it was made.  `keys_of` is the folder that has the vault's key, or None
    to leave the private rows closed.
    """
    outcome = outcome_of(copy, manifest, keys_of, verifier)
    judge(copy, manifest, outcome)
    return outcome


def outcome_of(
    copy: DataFolder, manifest: Manifest, keys_of: DataFolder | None, verifier: Ed25519Verifier | None
) -> Outcome:
    """Verify the log of a backup; without a verifier, with the key that its manifest names, if it names one."""
    if verifier is None and manifest.vkey is not None:
        verifier = Ed25519Verifier.decode(manifest.vkey)
    with borrowed_key(copy, keys_of) as readable:
        return verify_folder(Request(copy.path, verifier, copy.partition, vault=readable))


def judge(copy: DataFolder, manifest: Manifest, outcome: Outcome) -> None:
    """Raise IntegrityError if a backup is not what its manifest says, or damaged beyond what that names."""
    findings = [one for one in outcome.findings if _label(one) not in manifest.damage]
    if findings:
        first = findings[0]
        remarks = "".join(f"; note: {one}" for one in outcome.tally.remarks)
        count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings, the first"
        hint = "" if any(one.check not in PRIVATE for one in findings) else _HINT
        raise IntegrityError(f"{copy.path}: {count}: {_label(first)}: {first.detail}{remarks}{hint}")
    tally = outcome.tally
    if (tally.entries, tally.root.hex(), tally.origin) != (manifest.size, manifest.root, manifest.origin):
        raise IntegrityError(f"{copy.path}: the log is not the one that {MANIFEST} describes")


def _label(finding: Finding) -> str:
    return f"{'log' if finding.index is None else f'entry {finding.index}'}: {finding.check}"


def damage_in(outcome: Outcome) -> set[str]:
    """Return what is wrong with private rows alone: the public part of a log is whole, or there is no backup of it."""
    return {_label(one) for one in outcome.findings if one.check in PRIVATE}


@contextmanager
def borrowed_key(copy: DataFolder, keys_of: DataFolder | None) -> Iterator[bool]:
    """Let a copy that has no vault key use that of another folder; yield whether there is one."""
    if keys_of is None or "TREERING_VAULT_KEY" in os.environ or copy.vault_key.exists():
        yield keys_of is not None
    elif not keys_of.vault_key.exists():
        yield False
    else:
        os.environ["TREERING_VAULT_KEY"] = read_secret(keys_of.vault_key).strip()
        try:
            yield True
        finally:
            del os.environ["TREERING_VAULT_KEY"]


# --- what is laid into a folder ------------------------------------------------------------------


def seal_at_head(folder: DataFolder, path: Path) -> None:
    """Seal the log of a folder at the size it has; the seal is a new file."""
    store = folder.open_log()
    try:
        with store.view() as view:
            log = Log(view, size_of(view))
            last = view.last("blocks")
            size, root, block = log.size, log.root(), decode_block(last[1]).number if last else 0
    finally:
        store.close()
    path.unlink(missing_ok=True)
    seal = SealFile(path)
    try:
        seal.write(size, root, block)
    finally:
        seal.close()


def copy_files(source: Path, target: Path, *, missing: bool = False) -> None:
    """Copy the files of a folder, or only those that are `missing` in the other; each whole and for its owner alone."""
    make_folder(target)
    for path in sorted(source.iterdir()):
        if (
            path.is_file()
            and not path.name.endswith(".tmp")
            and not (missing and (target / path.name).exists())
        ):
            write_whole(target / path.name, path.read_bytes())
