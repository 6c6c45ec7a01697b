"""Do the parts of a data folder belong together?  Asked once, when an archiver starts.

Log, vault, keys and published size lie in folders of their own, and may lie on disks of their own: one can be missing
(not mounted), or come back older than the others.  Each part is sound by itself, and an archiver that went on would
spoil the log for good: sign sizes a second time, or give a subject the number, and the secrets, of another.

    what was published    must be in the log
    a key that has signed has a log to go on with
    subjects in the rows  have been admitted to this vault, and the newest row opens with its secrets

Nothing here writes but `mark_begun`.  That the log reaches its seal is `archive.archiver`'s to check.  What to do:
docs/recovery.md.  Why these checks: docs/adr/0068.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from archive.entry import Row, check_row, open_row, parse_row
from archive.errors import OLDER_COPY, VAULT, FormatError, IntegrityError, NotFound
from archive.files import write_whole
from archive.log import Log
from archive.vault import Vault

LOOK_BACK: Final = 1_000
"""Among so many entries at the end of the log a row is looked for that opens."""


def check_published(size: int, published: int) -> None:
    """Raise IntegrityError if more was published than the log has entries."""
    if published > size:
        raise IntegrityError(
            f"the database has {size:,} entries, but {published:,} were published: it is an older copy, or its disk is "
            "not mounted. Bring back the newest one; never go on from this one under the same origin",
            section=OLDER_COPY,
        )


def check_vault(log: Log, vault: Vault, subjects: int) -> None:
    """Raise IntegrityError if a vault is not the one, or older than the one, that a log was written with.

    `subjects` is one more than the greatest subject number that any entry has.
    """
    admitted = vault.admitted
    if subjects > admitted:
        raise IntegrityError(
            f"the log has entries of {subjects:,} subjects, the vault knows {admitted:,}: it is an older one, or new. "
            "Bring back the newest one (is its disk mounted?); with this one, others would get their numbers",
            section=VAULT,
        )
    for row in _newest_rows(log):
        try:
            open_row(row, vault.data_key(row.subjects))
        except NotFound:
            continue  # erased: he was admitted, and says nothing any more
        except IntegrityError:
            raise IntegrityError(
                "the newest row does not open with this vault: it is not the one that the log was written with",
                section=VAULT,
            ) from None
        return


def check_vault_there(database: Path, size: int) -> None:
    """Raise IntegrityError if a log with entries has no vault: nobody may make a new one in its place."""
    if size and not database.exists():
        raise IntegrityError(
            f"{database}: the vault is missing, and without it nobody can read the log's {size:,} entries. Bring the "
            "newest one back (is its disk mounted?)",
            section=VAULT,
        )


def check_log_there(size: int, admitted: int, logs: int) -> None:
    """Raise IntegrityError if an empty log is the only one of a vault that has admitted subjects.

    `logs` is how many logs there are beside the vault.  Whoever was admitted was so for an entry of one of them.
    """
    if size == 0 and admitted and logs <= 1:
        raise IntegrityError(
            f"the log is empty, but the vault knows {admitted:,} subjects of it: is the log's disk mounted?",
            section=OLDER_COPY,
        )


def _newest_rows(log: Log) -> Iterator[Row]:
    """Yield the sound private rows at the end of a log, the newest first: what is rotten says nothing of a vault."""
    for index in range(log.size - 1, max(0, log.size - LOOK_BACK) - 1, -1):
        try:
            if row := log.row(index):
                check_row(row)
                yield parse_row(row)
        except (IntegrityError, FormatError):
            continue


def check_begun(mark: Path, size: int) -> None:
    """Raise IntegrityError if the key of an empty log has signed a log before; `mark` says so."""
    if size == 0 and mark.exists():
        raise IntegrityError(
            f"there is no log, but its key has signed one before ({mark}): is the disk of the log mounted? Bring the "
            "log back, or restore a backup; a new log takes a new data folder, with keys of its own",
            section=OLDER_COPY,
        )


def mark_begun(mark: Path, origin: str) -> None:
    """Note beside the key that it has signed a log: from now on there must be one."""
    if not mark.exists():
        write_whole(mark, f"{origin}\n".encode())
