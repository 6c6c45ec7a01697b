"""A disk that is full for one process: its files cannot grow beyond a size, and the rest of the machine is left alone.

    with files_at_most(4_096):
        store.copy(folder)        fails as on a full disk, with EFBIG instead of ENOSPC

It takes no rights, and files that are longer already can be read and written up to the limit.  A real disk that can be
filled is `tests.process.small_disk`.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: a write across it is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
