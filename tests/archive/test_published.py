"""The published size: one word that readers in other processes see."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive import MemoryPublished, NotFound, PublishedSize


def test_a_reader_sees_what_is_published(tmp_path: Path) -> None:
    """A mapped reader sees each new size without opening anything again."""
    writer = PublishedSize(tmp_path / "published", writable=True)
    writer.set(3)
    reader = PublishedSize(tmp_path / "published")
    for size in (1, 255, 256, 2**32, 2**63):
        writer.set(size)
        assert (reader.get(), writer.get()) == (size, size)


def test_a_file_is_8_bytes_for_its_owner(tmp_path: Path) -> None:
    """The file is one word, readable by its owner only; opening it again keeps its content."""
    path = tmp_path / "published"
    PublishedSize(path, writable=True).set(7)
    assert PublishedSize(path, writable=True).get() == 7
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (8, 0o600)


@pytest.mark.parametrize("content", [None, b"", b"1234567"])
def test_before_the_first_archiver_there_is_nothing(tmp_path: Path, content: bytes | None) -> None:
    """A missing or an unfinished file means that no archiver ever ran; a reader makes none."""
    path = tmp_path / "published"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotFound, match="no archiver has run here yet"):
        PublishedSize(path)
    assert path.exists() == (content is not None)


def test_a_new_file_is_not_a_log_without_entries(tmp_path: Path) -> None:
    """Between the archiver's start and its first word there is nothing to read: a reader must ask again."""
    writer = PublishedSize(tmp_path / "published", writable=True)
    with pytest.raises(NotFound, match="published nothing yet"):
        PublishedSize(tmp_path / "published")
    writer.set(2)
    assert PublishedSize(tmp_path / "published").get() == 2


def test_a_reader_cannot_publish(tmp_path: Path) -> None:
    """The readers' mapping is read-only."""
    PublishedSize(tmp_path / "published", writable=True).set(3)
    reader = PublishedSize(tmp_path / "published")
    with pytest.raises(TypeError, match="read-only"):
        reader.set(4)
    assert reader.get() == 3


def test_the_double_does_the_same() -> None:
    """The one in memory begins at 0 and holds what was set."""
    published = MemoryPublished()
    assert published.get() == 0
    published.set(5)
    assert published.get() == 5
