"""What can go wrong with the archive, sorted by what the caller should do now.

Each class answers one question, *what next?*, and knows nothing of HTTP or exit codes: `api.problems`
and the commands own those tables.  Facts travel as attributes, so that nobody parses a message: where a person must
act, `section` names the part of docs/recovery.md that says how.

>>> raise Conflict("id 'a7' was used for other content; send a new id", index=17)
Traceback (most recent call last):
archive.errors.Conflict: id 'a7' was used for other content; send a new id
"""

from __future__ import annotations

from pathlib import Path

LOST_SEAL = "Lost seal"
OLDER_COPY = "The database is older than its seal"
DISK_FAILED = "The disk failed"
ROTTEN = "Rotten bytes"
KEYS = "Keys"
VAULT = "The vault is not this log's"


class ArchiveError(Exception):
    """Root of all archive errors."""

    section = ""
    """The section of docs/recovery.md that helps; empty where none does."""

    def __init__(self, message: str = "", *, section: str = "") -> None:
        super().__init__(message)
        if section:
            self.section = section


class InvalidEvent(ArchiveError):
    """What was sent cannot be taken as it is: correct it and send it again."""


class FormatError(ArchiveError):
    """Stored or received bytes are not of the format they claim to be: see `docs/formats`."""


class Conflict(ArchiveError):
    """The same id was used for other content: send it under a new id."""

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class NotFound(ArchiveError):
    """There is no such thing at this size of the log: ask for another one."""


class Unavailable(ArchiveError):
    """The archive cannot answer just now and has kept nothing of this request: try again later."""


class Unknown(Unavailable):
    """The archiver went away before it answered: what was sent may be kept or not; ask, or send it with an id."""


class StorageFailed(ArchiveError):
    """The disk failed a write it had to keep: stop, and start again only from a copy that verifies.

    `file` is the one that was written, where that is known.
    """

    section = DISK_FAILED

    def __init__(self, message: str = "", file: Path | None = None) -> None:
        super().__init__(message)
        self.file = file


class Locked(Unavailable):
    """Another process writes this log: stop it first, one log has one archiver."""


class IntegrityError(ArchiveError):
    """Stored bytes disagree with what was signed: stop, look, restore; never retry, never repair silently."""

    section = ROTTEN
