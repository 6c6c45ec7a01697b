"""Where states are kept in tests: in memory and on disk, and whoever asks for a `store` is run on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive import LmdbStore, MemoryStore, Store
from replay import STATE_TABLES


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Return an empty state store, in memory or on disk."""
    on_disk = request.param == "lmdb"
    made: Store = LmdbStore(tmp_path, STATE_TABLES) if on_disk else MemoryStore(STATE_TABLES)
    yield made
    made.close()
