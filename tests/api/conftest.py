"""What the tests of the application share: a front on a fresh data folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api import pages
from tests.api.front import Front


@pytest.fixture(autouse=True)
def fresh_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every view of the page be a new one: what a test has just changed must be on it."""
    monkeypatch.setattr(pages, "FRESH_S", 0.0)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """Return a front whose archiver has just started, and whose workers have seen nothing yet."""
    made = Front(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def http(front: Front) -> Iterator[TestClient]:
    """Return an HTTP client of the front."""
    with front.client() as client:
        yield client
