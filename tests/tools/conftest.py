"""What several tests of commands begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive import DataFolder, PublishedSize
from tests.process.writing import write


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Return a folder with a log of a few entries; nobody serves it."""
    assert write(tmp_path / "data", 0).code == 0
    found = DataFolder(tmp_path / "data")
    if not found.published.exists():
        PublishedSize(found.published, writable=True).set(2)
    return found
