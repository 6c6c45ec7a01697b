"""A file about people: for its owner only, and there when it is whole, or not at all.

    with private_file(Path("states.jsonl")) as file:
        file.write(b"...")                 # takes its name at the end; on any error it goes

For a few bytes that are in memory, and must survive a power cut: `archive.write_whole`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from archive import InvalidEvent, sync_folder


@contextmanager
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """Return a new file, mode 0600, that replaces what is at `path`; raise InvalidEvent if it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.absolute().parent)
    except OSError as error:
        raise InvalidEvent(f"{path}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
