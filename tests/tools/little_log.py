"""A little log that is in order, to be tampered with.  Import `honest` where a test wants it as a fixture."""

from __future__ import annotations

import pytest

from archive import DataFolder
from merkle import Ed25519Signer
from tools.drill_copy import Copy, copy_of, small_log

KEY = Ed25519Signer("example.org/drill", b"k" * 32)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a little log, signed by KEY."""
    source = DataFolder(tmp_path_factory.mktemp("source"))
    small_log(source)
    store = source.open_log()
    with store.view() as view:
        made = copy_of(view, 1_000, KEY, None)
    store.close()
    return made
