"""run/unsent/: messages that modules said and that are not in the log, counted where operators look.

A message that cannot be sent is no reason to stop (`tools.post`): the fold goes on, and whoever waits for the message
waits in vain.  So it must not be known by a line on standard error alone.  Each worker keeps a small file for each of
its modules that ever said such a thing, written whole or not at all, once a second at most:

    run/unsent/essay-0.json    {"words": {"conflict": {"version": 2, "count": 3, "first": 7, "last": 40,
                                                       "detail": "…"}}}

Shown is what the version that runs now has said: a new version begins at nothing, which is how a finding ends.  What is
folded again after a restart is said again, and counted once: events come in order, so only what lies beyond the last
one counts.  A file says nothing of any event but its index; it may be deleted at any time.

    unsent = Unsent(folder.run, shard=0)
    unsent.add("essay", "words", 2, "conflict", at=7, detail="at this event it said something else before")
    unsent.save(now)
    read_unsent(folder.run, 2, shelf.modules())          # of all shards together, by (module, reducer, kind)

What the kinds mean: `tools.post`.  Who shows them: /metrics, `treering doctor`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from replay.catalogue import Catalogue

UNSENT_FOLDER: Final = "unsent"
DETAIL_LENGTH_MAX: Final = 200
SAVE_EVERY_S: Final = 1.0


class Count(msgspec.Struct, frozen=True):
    """At how many events one reducer said something that could not be sent, for one kind of reason."""

    version: int
    """Of the reducer."""
    count: int
    first: int
    """Index of the event at which it was said first; `last` likewise."""
    last: int
    detail: str
    """Of the first, where somebody should look; it names no key."""

    def joined(self, other: Count) -> Count:
        """Return what two shards counted of one version."""
        earlier = min(self, other, key=lambda one: one.first)
        last = max(self.last, other.last)
        return replace(earlier, count=self.count + other.count, last=last)


Reducers = dict[str, dict[str, Count]]
"""By reducer and kind: what a file holds."""


class Unsent:
    """What the modules of one worker could not say; `run` is the folder of what runs."""

    def __init__(self, run: Path, shard: int) -> None:
        self._folder, self._shard = run / UNSENT_FOLDER, shard
        self._known: dict[str, Reducers] = {}
        self._fresh: set[str] = set()
        """Modules of which something is not in their file yet."""
        self._saved_s = float("-inf")

    def add(self, module: str, reducer: str, version: int, kind: str, *, at: int, detail: str = "") -> None:
        """Count an event `at` which a reducer said what cannot be sent, unless it was counted before."""
        known = self._known.setdefault(module, _read(self._path(module)))
        kinds = known.setdefault(reducer, {})
        old = kinds.get(kind)
        if old is None or old.version != version:
            kinds[kind] = Count(version, 1, at, at, detail[:DETAIL_LENGTH_MAX])
        elif at > old.last:
            kinds[kind] = replace(old, count=old.count + 1, last=at)
        else:
            return
        self._fresh.add(module)

    def save(self, now_s: float) -> None:
        """Write what is new, if the last time was a second ago; `now_s` is of any clock that only goes forward."""
        if not self._fresh or now_s - self._saved_s < SAVE_EVERY_S:
            return
        self._saved_s = now_s
        with suppress(OSError):  # no room: the next time writes it, too; nobody stops for a count
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for module in sorted(self._fresh):
                path = self._path(module)
                new = path.with_suffix(f".{os.getpid()}")
                new.write_bytes(msgspec.json.encode(self._known[module]) + b"\n")
                new.replace(path)
            self._fresh.clear()

    def _path(self, module: str) -> Path:
        return self._folder / f"{module}-{self._shard}.json"


def read_unsent(run: Path, shards: int, running: Iterable[Catalogue]) -> dict[tuple[str, str, str], Count]:
    """Return what could not be sent, by (module, reducer, kind), of so many shards and what runs in them now."""
    versions = {(one.module, info.name): info.version for one in running for info in one.reducers}
    found: dict[tuple[str, str, str], Count] = {}
    folder = run / UNSENT_FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        module, _, shard = path.stem.rpartition("-")
        if not shard.isdecimal() or int(shard) >= shards:
            continue  # of a server that had more
        for place, count in _counts(module, _read(path)):
            if versions.get(place[:2]) == count.version:
                found[place] = count if place not in found else found[place].joined(count)
    return found


def _counts(module: str, reducers: Reducers) -> Iterator[tuple[tuple[str, str, str], Count]]:
    for name, kinds in reducers.items():
        for kind, count in kinds.items():
            yield (module, name, kind), count


def _read(path: Path) -> Reducers:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reducers)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
