"""Why the archiver is down for good: kept where others look, with the part of the handbook that helps."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from archive import (
    REMEDIES,
    IntegrityError,
    NotFound,
    Stopped,
    StorageFailed,
    check_disk,
    disk_of,
    forget_stopped,
    read_stopped,
    remedy_of,
    write_stopped,
)
from archive.errors import LOST_SEAL
from archive.stopped import REASON_MAX

RECOVERY = Path(__file__).parents[2] / "docs" / "recovery.md"


def test_last_words_are_kept_until_the_next_start(tmp_path: Path) -> None:
    """What was said, where it is explained, and since when; nothing once they are taken away, twice is allowed."""
    path = tmp_path / "archiver-0.stopped"
    assert read_stopped(path) is None
    write_stopped(path, IntegrityError("no seal", section=LOST_SEAL), 7.0)
    assert read_stopped(path) == Stopped("no seal", LOST_SEAL, 7.0)
    forget_stopped(path)
    forget_stopped(path)
    assert read_stopped(path) is None


def test_only_the_disk_that_failed_is_not_trusted(tmp_path: Path) -> None:
    """The same file, and the same start of the machine; a copy, and any other reason to stop, may be tried again."""
    path, database, other = tmp_path / "stopped", tmp_path / "data.mdb", tmp_path / "copy.mdb"
    database.write_bytes(b"log")
    other.write_bytes(b"log")
    check_disk(path, [other, database])
    write_stopped(path, StorageFailed("EACCES"), 7.0)
    check_disk(path, [other, database])
    write_stopped(path, StorageFailed("EIO"), 7.0, disk=disk_of(database))
    with pytest.raises(StorageFailed, match=r"^EIO: that was before, and this is the same file"):
        check_disk(path, [other, database])
    check_disk(path, [other])
    check_disk(path, [tmp_path / "missing"])
    os.utime(other, ns=(1, 1))
    other.replace(database)  # as if it were given the inode of the file before
    check_disk(path, [database])
    earlier = disk_of(database).replace(disk_of(database)[:8], "00000000")
    write_stopped(path, StorageFailed("EIO"), 7.0, disk=earlier)
    check_disk(path, [database])


@pytest.mark.parametrize("data", [b"", b"{", b'{"reason": 1}', bytes(9)])
def test_words_that_cannot_be_read_are_none(tmp_path: Path, data: bytes) -> None:
    """A torn file makes no front fail."""
    path = tmp_path / "archiver-0.stopped"
    path.write_bytes(data)
    assert read_stopped(path) is None


def test_where_nothing_can_be_written_the_exit_is_not_held_up(tmp_path: Path) -> None:
    """The folder may be what failed: it was said on standard error all the same."""
    write_stopped(tmp_path / "nowhere" / "archiver-0.stopped", StorageFailed("EIO"), 7.0)
    write_stopped(tmp_path / "long", StorageFailed("x" * 10_000), 7.0)
    words = read_stopped(tmp_path / "long")
    assert words is not None
    assert len(words.reason) == REASON_MAX


def test_every_section_that_is_named_is_in_the_handbook() -> None:
    """Whoever is sent to docs/recovery.md finds the heading there."""
    headings = set(re.findall(r"^## (.+)$", RECOVERY.read_text("utf-8"), re.MULTILINE))
    assert REMEDIES.keys() <= headings
    assert {StorageFailed.section, IntegrityError.section} <= REMEDIES.keys()


@pytest.mark.parametrize("section", REMEDIES)
def test_a_remedy_can_be_pasted(section: str) -> None:
    """Its commands name the data folder, as a shell takes it; left to be filled in is only what nobody here knows."""
    remedy = remedy_of(section, "class 7")
    assert "{" not in remedy
    assert ("'class 7'" in remedy) == ("{data}" in REMEDIES[section])
    assert Stopped("why", section, 0.0).remedy("class 7") == remedy


def test_what_has_no_section_says_it_itself() -> None:
    """An error of another kind names nothing, and its remedy is no empty line."""
    assert NotFound("gone").section == remedy_of("", "data") == ""
    assert "mend what it says" in Stopped("origin x: a log keeps its name", "", 0.0).remedy("data")
