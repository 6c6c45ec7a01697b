"""What commands open that look into a data folder, whether its server runs or not: the log, its states, a size.

    source = log_of(folder)                        # what is published; of a copy, all that is there
    size = size_at(source, "2026-01-15T09:00:00Z") # how many entries the archive had taken in by then
    shelf = state_folder(folder) ...

Nothing is written.  Who opens these while serving: `tools.worker`, `tools.front`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from archive import (
    DataFolder,
    InvalidEvent,
    LmdbStore,
    Log,
    LogSource,
    NotFound,
    PublishedLog,
    PublishedSize,
    Store,
    parse_leaf,
    size_of,
)
from replay import (
    SHARDS_FILE,
    STATE_MAP_SIZE,
    STATE_TABLES,
    Catalogue,
    catalogues,
    module_folder,
    shard_folder,
)

DIGITS_MAX = 18
_PART = re.compile("[.,]0*[1-9]")


@contextmanager
def log_of(folder: DataFolder) -> Iterator[LogSource]:
    """Return the log of a folder: what is published or, in a copy in which nothing ever ran, all that is there.

    Raises NotFound if there is no log; entering it, Unavailable if more was published than is there.
    """
    store = folder.open_log()
    try:
        try:
            source: LogSource = PublishedLog(store, PublishedSize(folder.published).get)
        except NotFound:
            with store.view() as view:
                size = size_of(view)
            source = LogSource(store, lambda: size)
        yield source
    finally:
        store.close()  # an environment can be opened once in a process


def size_at(source: LogSource, until: str) -> int:
    """Return the size that a text means: a number of entries, or a time with its offset (RFC 3339).

    Of a time, that is how many entries the archive took in no later than in that second.  Raises InvalidEvent if it is
    neither, NotFound if the log is shorter.
    """
    with source.open() as log:
        if not (until.isascii() and until.isdecimal()):
            return size_by(log, seconds_of(until))
        digits = until.lstrip("0") or "0"
        if len(digits) > DIGITS_MAX:
            raise InvalidEvent(f"{until[:DIGITS_MAX]}… ({len(until):,} digits): no log has so many entries")
        if int(digits) > log.size:
            raise NotFound(f"the log has only {log.size} entries, not {digits}")
        return int(digits)


def seconds_of(text: str) -> float:
    """Return a time in seconds (Unix); raise InvalidEvent if it is none that everybody understands alike.

    Nor has it a part of a second: entries tell whole seconds, so that nobody knows in which part one was taken in.

    >>> seconds_of("2026-01-15T09:00:00Z") == seconds_of("2026-01-15T10:00:00+01:00") == 1768467600.0
    True
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidEvent(
            f"{text!r}: neither a size nor a time such as 2026-01-15T09:00:00Z, with its offset"
        )
    if _PART.search(text):
        raise InvalidEvent(
            f"{text!r}: entries tell the time in whole seconds; leave the part of a second out"
        )
    return found.timestamp()


def size_by(log: Log, seconds: float) -> int:
    """Return how many entries have an archive time no later than `seconds`; archive time never runs backwards."""
    low, high = 0, log.size
    while low < high:
        middle = (low + high) // 2
        if parse_leaf(log.leaf(middle)).time_s > seconds:
            high = middle
        else:
            low = middle + 1
    return low


def shards_of(state: Path) -> int:
    """Return the number of shards of the server that ran last; raise NotFound if none ever did."""
    try:
        return int((state / SHARDS_FILE).read_text())
    except (OSError, ValueError):
        raise NotFound(f"{state}: there are no live states; start the server once") from None


def catalogues_of(folder: DataFolder, state: Path) -> dict[str, Catalogue]:
    """Return what states there are, by module."""
    return {one.module: one for one in catalogues(state, folder.partition)}


@contextmanager
def states_of(
    folder: DataFolder, state: Path, catalogue: Catalogue, shard: int, shards: int
) -> Iterator[Store]:
    """Return the store of one module in one shard, read only; raise NotFound while there is none."""
    place = module_folder(state, folder.partition, catalogue.module)
    here = shard_folder(place, catalogue.generation, shard, shards)
    store = LmdbStore(here, STATE_TABLES, read_only=True, map_size=STATE_MAP_SIZE)
    try:
        yield store
    finally:
        store.close()
