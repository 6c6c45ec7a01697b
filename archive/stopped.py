"""run/archiver-0.stopped: why the archiver is down for good, for the front, the doctor and the page.

An archiver that no restart can mend ends with exit code 3, and its last words go to the standard error of a server
that nobody may be looking at.  So it writes them down here as well, with the section of docs/recovery.md that says what
to do, and the next one that starts takes them away.  They name files, sizes and keys, and never what is in an entry.

>>> stopped = Stopped("the log has entries but no seal", LOST_SEAL, 1_764_090_000.0)
>>> stopped.remedy("data").partition(";")[0]
'docs/recovery.md, "Lost seal": was --seal left out, or its disk not mounted'

Who writes it: `tools.archiver`.  How modules are: `replay.status`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from archive.errors import DISK_FAILED, KEYS, LOST_SEAL, OLDER_COPY, ROTTEN, VAULT, StorageFailed
from archive.files import write_whole

REASON_MAX: Final = 500

REMEDIES: Final[dict[str, str]] = {
    LOST_SEAL: "was --seal left out, or its disk not mounted; else treering backup NEW --data {data} --with-keys, "
    "then treering restore NEW --data OTHER --at-least SIZE",
    OLDER_COPY: "stop the server, move data.mdb of the log away and leave its seal; bring the newest copy back, "
    "or treering restore BACKUP --data {data}",
    DISK_FAILED: "look at dmesg; copy the folder after a restart of the machine, and serve a copy that verifies",
    ROTTEN: "verify-log {data} --vkey KEY says where; treering restore BACKUP --data {data}",
    KEYS: "bring back the keys/ folder that this log was written with",
    VAULT: "stop the server and bring the newest {data}/vault back (is its disk mounted?), else that of a backup",
}
"""What helps first, by section of docs/recovery.md."""


def remedy_of(section: str, data: str | Path) -> str:
    """Return what helps first according to a section of docs/recovery.md, for a data folder; nothing without one.

    >>> remedy_of("Keys", "data")
    'docs/recovery.md, "Keys": bring back the keys/ folder that this log was written with'
    """
    if section not in REMEDIES:
        return ""
    return f'docs/recovery.md, "{section}": {REMEDIES[section].format(data=shlex.quote(str(data)))}'


class Stopped(msgspec.Struct, frozen=True):
    """Why an archiver is down until a person looks."""

    reason: str
    section: str
    """Of docs/recovery.md; empty where the reason says everything."""
    since_s: float
    """Unix seconds."""
    disk: str = ""
    """Where a write or a sync failed (`disk_of`); empty if that is not why."""

    @property
    def refuses_log(self) -> bool:
        """Whether the archiver found the database to be another one than was sealed: then nobody may read it either."""
        return self.section == OLDER_COPY

    def remedy(self, data: str | Path) -> str:
        """Return what helps first; where no section is named, the reason says it."""
        return remedy_of(self.section, data) or "mend what it says, then start the server again"


def read_stopped(path: Path) -> Stopped | None:
    """Return why the archiver is down for good, or None if it is not, or nobody can tell."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Stopped)
    except (OSError, msgspec.DecodeError):
        return None


def write_stopped(path: Path, error: Exception, now_s: float, *, disk: str = "") -> None:
    """Write down why the archiver stops; where that is not possible (a full disk), it was said all the same.

    `disk` says where a write or a sync has failed, if one has.
    """
    stopped = Stopped(str(error)[:REASON_MAX], getattr(error, "section", ""), now_s, disk)
    with suppress(OSError):
        write_whole(path, msgspec.json.encode(stopped) + b"\n")


def forget_stopped(path: Path) -> None:
    """Take the last words of the archiver before away."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def disk_of(path: Path) -> str:
    """Return what names a file until the machine starts again: what is read of it since may come from memory.

    Empty where that cannot be told.  When it was last written is part of it, since a copy in its place may be given
    the very inode that the file had.
    """
    try:
        found = path.stat()
        return f"{_BOOT.read_text().strip()} {found.st_dev}:{found.st_ino}:{found.st_mtime_ns}"
    except OSError:
        return ""


_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def is_distrusted(stopped: Stopped | None, files: Iterable[Path]) -> bool:
    """Return whether one of these files is the one that failed the last archiver, with nothing changed since."""
    return stopped is not None and stopped.disk != "" and stopped.disk in map(disk_of, files)


def check_disk(path: Path, files: Iterable[Path]) -> None:
    """Raise StorageFailed if the last archiver stopped because one of `files` failed it, and nothing has changed since.

    A copy is another file; after a start of the machine all is read from the disk.  `path` is where it was written.
    """
    stopped = read_stopped(path)
    if stopped is not None and is_distrusted(stopped, files):
        raise StorageFailed(
            f"{stopped.reason}: that was before, and this is the same file, on a machine that has not been started "
            "again since: what it shows may be only in memory. Copy the folder after a start, and serve what verifies"
        )
