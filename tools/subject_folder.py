"""What `treering export subject` writes and `treering receipt check-complete` reads: one subject's entries as files.

    DIR/subject.json                  which log, which size, whose entries, and the tag keys for those entitled
    DIR/checkpoint                    the signed checkpoint of that size
    DIR/entries/<index>.tlog-proof    receipts, all under that checkpoint
    DIR/entries/<index>.opening.json  openings

The folder is about a person: it is made with mode 0700, its files with 0600.  `subject.json` is written last, so a
folder without one is an export that did not end.  The specification is docs/formats/receipt.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from archive import Claim, FormatError, NotFound, Opening, write_whole

FORMAT: Final = "treering/subject/v1"
MANIFEST: Final = "subject.json"
TAG_KEY_SIZE: Final = 32


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One subject: its name and the indices of its entries number 1, 2, …; `tag_key` in hex.

    `also` are entries that concern it as well, whose first subject is another.
    """

    name: str
    indices: list[int]
    tag_key: str | None = None
    also: list[int] = []


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of subject.json; the subject that was asked for comes first."""

    format: str
    origin: str
    size: int
    subjects: list[Listed]


def write_file(folder: Path, name: str, data: bytes) -> None:
    """Write one file, which only its owner may read; whole or not at all."""
    write_whole(folder / name, data)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write subject.json, which ends the export."""
    write_file(folder, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Return subject.json; raise NotFound if there is none, FormatError if it is no manifest."""
    text = read_file(folder, MANIFEST)
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
        if manifest.format != FORMAT:
            raise FormatError(f"{folder / MANIFEST}: its format is {manifest.format!r}, not {FORMAT!r}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{folder / MANIFEST}: {error}") from None
    return manifest


def claims(manifest: Manifest) -> list[Claim]:
    """Return what the manifest says; raise NotFound if a tag key is not there, FormatError if it says nothing."""
    if not manifest.subjects:
        raise FormatError(f"{MANIFEST} names no subject: nothing can be shown by it")
    found: dict[str, Claim] = {}
    for one in manifest.subjects:
        if one.name in found:
            raise FormatError(f"{MANIFEST} names {one.name} twice, so that nobody knows which list is meant")
        if one.tag_key is None:
            raise NotFound("the folder holds no tag key; ask for an export made with --tag-key")
        try:
            tag_key = bytes.fromhex(one.tag_key)
        except ValueError:
            tag_key = b""
        if len(tag_key) != TAG_KEY_SIZE:
            raise FormatError(f"the tag key of {one.name} is not {2 * TAG_KEY_SIZE} hexadecimal digits")
        found[one.name] = Claim(one.name, tag_key, tuple(one.indices), tuple(one.also))
    return list(found.values())


def receipt_name(index: int) -> str:
    """Return where the receipt of an entry is."""
    return f"entries/{index}.tlog-proof"


def opening_name(index: int) -> str:
    """Return where the opening of an entry is."""
    return f"entries/{index}.opening.json"


def read_opening(folder: Path, index: int) -> Opening | None:
    """Return the opening of an entry, None if none was put there; raise NotFound or FormatError for what is unreadable.

    A link that leads nowhere is unreadable.
    """
    if not os.path.lexists(folder / opening_name(index)):
        return None
    return Opening.from_json(read_file(folder, opening_name(index)))


def read_file(folder: Path, name: str) -> bytes:
    """Return a file's bytes; raise NotFound that says which one is missing."""
    path = folder / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from None
