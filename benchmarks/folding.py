"""One replay of a log, measured: in a process that measures more (`benchmarks.replaying`), or in one of its own.

    python -m benchmarks.folding data 1000000        events a second: by the clock, and of processor time

What is compared with it is in `benchmarks.replaying`; how it grows with a log, in `benchmarks.growth`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from archive import DataFolder
from reducers import Registry, shipped
from replay import replay_digests
from tools.offline import log_of
from tools.process import quiet_collector


def event_count() -> Registry:
    """Return the smallest reducer, alone."""
    one = Registry()
    one.register(shipped().get("event_count"))
    return one


class Rates(NamedTuple):
    """Events a second."""

    elapsed: float
    """By the clock on the wall."""
    processor: float
    """By the processor time that they took."""


def replay_per_s(folder: DataFolder, registry: Registry, count: int) -> Rates:
    """Return events a second that one process replays, digests of all states included."""
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        with source.open() as log:
            size = log.size
        started, begun = time.perf_counter(), time.process_time()
        digests = replay_digests(source, registry, vault, size=size)
        elapsed, worked = time.perf_counter() - started, time.process_time() - begun
    assert digests, "nothing was folded"
    return Rates(count / elapsed, count / worked)


def main(argv: Sequence[str] | None = None) -> int:
    """Replay one small reducer over all of a log, and say how many events a second that were."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.folding", description="Replay a log (for make bench)."
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("count", type=int, help="events that are in it")
    arguments = parser.parse_args(argv)
    quiet_collector()
    print(json.dumps(replay_per_s(DataFolder(arguments.path), event_count(), arguments.count)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
