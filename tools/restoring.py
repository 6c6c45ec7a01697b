"""The mark of a restore that is under way: nobody else writes a log in this folder until it is done.

A restore writes in several places, and a machine can die between two of them.  What is half there must not be served,
and must not be taken for a folder in which nothing ever was.  So the first thing that is written is `DIR/restoring-0`,
which says what is restored, and the last thing that is done is to take it away.  An archiver that finds it does not
start; the same command, given again, reads in it what the folder can no longer say, and ends what was begun.

Who writes what: `tools.restoring_parts`; who decides: `tools.restore`.  Layout: docs/formats/backup.md.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from archive import DataFolder, FormatError, InvalidEvent, sync_folder, write_whole

FORMAT = 1


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a restore that is under way has decided, in `restoring-<partition>`."""

    format: int
    origin: str
    """Name of the log that is in the backup."""
    size: int
    root: str
    """Root at that size, hexadecimal."""
    new_origin: str | None
    """Name of the log that is begun, or None where the old one goes on."""
    before: int
    """Where the old log goes then: `before/<number>`."""
    told: int
    """The greatest size that anybody was told, as far as it was known when the restore began."""


def path_of(folder: DataFolder) -> Path:
    """Return where the mark lies: apart from log, vault and keys, each of which may be missing or replaced."""
    return folder.path / f"restoring-{folder.partition}"


def read_mark(folder: DataFolder) -> Mark | None:
    """Return what a restore that did not end has decided, or None if there is none; FormatError if nobody can say."""
    try:
        mark = msgspec.json.decode(path_of(folder).read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path_of(folder)}: {error}") from None
    if mark.format != FORMAT:
        raise FormatError(f"{path_of(folder)}: of format {mark.format}, not {FORMAT}")
    return mark


def write_mark(folder: DataFolder, mark: Mark) -> None:
    """Say durably what is about to be done."""
    write_whole(path_of(folder), msgspec.json.format(msgspec.json.encode(mark)) + b"\n")


def take_away(folder: DataFolder) -> None:
    """Say durably that the restore is done."""
    path_of(folder).unlink()
    sync_folder(folder.path)


def check_restored(folder: DataFolder) -> None:
    """Raise InvalidEvent if a restore into this folder has not ended: nobody may go on from what is half there."""
    if (path := path_of(folder)).exists():
        raise InvalidEvent(
            f"{path}: a restore into this folder did not end; run the same `treering restore` command again, it goes "
            "on from there"
        )
