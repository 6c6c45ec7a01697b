"""A log to measure: an archiver with everything on, in a new folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archive import Archiver, Caches, DataFolder, PublishedSize, SealFile, SteadyClock
from merkle import sign_note


@contextmanager
def archiver(path: Path) -> Iterator[tuple[Archiver, DataFolder]]:
    """Open an archiver with everything on, in a new folder."""
    folder = DataFolder(path)
    folder.create()
    signer = folder.signer(os.urandom, "example.org/benchmark")
    store, vault = folder.open_log(read_only=False), folder.open_vault(os.urandom, read_only=False)
    made = Archiver(
        signer.name,
        store,
        vault,
        caches=Caches(folder.log / "caches"),
        seal=SealFile(folder.log / "seal"),
        published=PublishedSize(folder.published, writable=True),
        clock=SteadyClock(),
        random=os.urandom,
        sign=lambda text: sign_note(text, [signer]),
    )
    made.open({"software": "benchmark"})
    yield made, folder
    made.close()
    vault.close()
    store.close()
