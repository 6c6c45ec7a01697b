"""treering replay: fold the log again from nothing; with --check, compare with what the workers hold.

    $ treering replay --data data --check --shards 5
    equal: 45 states of 4 reducers at size 25,537, state digest 1f0c…

The live states must have seen the whole log when they are compared; the command waits for a moment in which
they have. The digest is the same for every number of shards, which --shards shows.

Exit codes: 0 equal (or nothing to compare), 1 states differ, 2 it could not be done.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from api import SHARDS_FILE
from archive import ArchiveError, DataFolder, LmdbStore, LogSource, NotFound, PublishedSize, Unavailable
from reducers import Registry, digest_of_entries, shipped
from replay import (
    STATE_TABLES,
    Digests,
    StateReader,
    catalogues,
    compare,
    live_digests,
    module_folder,
    replay_digests,
    shard_folder,
)
from tools.console import progress
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, say

SHOWN = 20
WAIT_S = 30.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `treering replay`."""
    made = argparse.ArgumentParser(prog="treering replay", description="Fold the log again from nothing.")
    made.add_argument("--data", type=Path, default=Path("data"))
    made.add_argument("--partition", type=int, default=0)
    made.add_argument("--check", action="store_true", help="compare with the live states")
    made.add_argument("--shards", type=int, default=1, help="fold as so many shards (default: 1)")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run `treering replay`."""
    arguments = parser().parse_args(argv)
    if arguments.shards < 1:
        say("treering replay: --shards: at least 1")
        return EXIT_USAGE
    folder = DataFolder(arguments.data, arguments.partition)
    try:
        return _run(folder, arguments)
    except ArchiveError as error:
        say(f"treering replay: {error}")
        return EXIT_USAGE


def _run(folder: DataFolder, arguments: argparse.Namespace) -> int:
    registry = shipped()
    source = LogSource(folder.open_log(), PublishedSize(folder.published).get)
    live: Digests | None = None
    size = source.published()
    if arguments.check:
        size, live = settled(folder, source, registry)
    digests = fold(folder, source, registry, size, arguments.shards)
    differences = [] if live is None else compare(digests, live)
    answer = {
        "size": size,
        "shards": arguments.shards,
        "states": len(digests),
        "state_digest": digest_of_entries(digests).hex(),
        "equal": None if live is None else not differences,
        "differences": [one._asdict() for one in differences],
    }
    if arguments.json:
        print(json.dumps(answer))
    else:
        for one in differences[:SHOWN]:
            print(f"{one.name} {'/'.join(one.key)}: {one.what} in the live states")
        verdict = "replayed" if live is None else "DIFFERENT" if differences else "equal"
        print(f"{verdict}: {len(digests):,} states at size {size:,}, state digest {answer['state_digest']}")
    return EXIT_FINDING if differences else EXIT_GOOD


def fold(folder: DataFolder, source: LogSource, registry: Registry, size: int, shards: int) -> Digests:
    """Fold entries 0…size-1 as `shards` shards, one after the other, and return all digests."""
    vault = folder.open_vault(os.urandom)
    digests: Digests = {}
    with progress("replaying", size * shards) as advance:
        for shard in range(shards):
            digests |= replay_digests(
                source, registry, vault, size=size, shard=shard, shards=shards, progress=advance
            )
    return digests


def settled(folder: DataFolder, source: LogSource, registry: Registry) -> tuple[int, Digests]:
    """Return size and digests of the live states at a moment in which all shards have seen the same entries.

    Raises Unavailable if there is no such moment within half a minute: stop sending, or check a copy.
    """
    readers, names = list(live_readers(folder)), [reducer.name for reducer in registry]
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            positions, digests = live_digests(readers, names)
            if min(positions) == max(positions) == source.published():
                return positions[0], digests
        except NotFound:
            pass  # being rebuilt
        time.sleep(0.05)
    raise Unavailable("the shards never stood at the same size: the log grows too fast, or a worker is down")


def live_readers(folder: DataFolder) -> Iterator[StateReader]:
    """Yield a reader for each module and shard of the server that ran last; raise NotFound if none ever did."""
    try:
        shards = int((folder.state / SHARDS_FILE).read_text())
    except (OSError, ValueError):
        raise NotFound(f"{folder.state}: there are no live states; start the server once") from None
    for one in catalogues(folder.state, folder.partition):
        place = module_folder(folder.state, folder.partition, one.module)
        for shard in range(shards):
            store = LmdbStore(
                shard_folder(place, one.generation, shard, shards), STATE_TABLES, read_only=True
            )
            yield StateReader(store, one.identities)
