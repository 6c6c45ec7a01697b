"""Why the archiver is down for good: kept where others look, with the part of the handbook that helps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archive import (
    REMEDIES,
    IntegrityError,
    NotFound,
    Stopped,
    StorageFailed,
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
