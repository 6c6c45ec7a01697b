"""One fold of one reducer, told line by line: one of the two that `treering bisect` compares.

    $ echo '{"data":"data","partition":0,"reducer":"event_count","start":0,"stop":25537,"states":true,"stops":[]}' |
          python -P -m tools.tracing
    {"reducer":"event_count","version":1,"code_digest":"…","size":25537,"root":"…",…}
    [2,2,["ann"],"…",null,{"events":1}]
    …
    {"end":1304}

With `stops`, lines say what all states come to at these sizes, and there is no trace.  A process of its own, so that it
can be given another version of a module by PYTHONPATH; the job comes on standard input.  What a module prints goes to
standard error; it can neither signal nor trace others from here, but reads what whoever asks can (docs/modules.md).
What the lines mean: `replay.trace`.

Exit codes: 0 told, 2 it could not be (the reason is on standard error).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec

from archive import ArchiveError, DataFolder, LogSource, Unavailable, Vault
from reducers import Identity, Reducer, ReducerError, StatePair, available, digest_of_entries
from replay import Holding, Runner, Sweep, Traced, comparable, encode_line, traced
from tools.loading import gathered
from tools.offline import log_of
from tools.process import EXIT_GOOD, EXIT_USAGE, quiet_collector, say
from tools.replay_hands import hold_back
from tools.verify_state import installed

JOB_BYTES_MAX = 1 << 20


class Job(msgspec.Struct, frozen=True):
    """What to tell."""

    data: str
    partition: int
    reducer: str
    start: int
    stop: int
    states: bool = False
    stops: tuple[int, ...] = ()
    """Sizes, ascending, the last of which is `stop`: tell what states come to there, instead of a trace."""


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a trace is of."""

    reducer: str
    version: int
    code_digest: str
    scope: tuple[str, ...]
    start: int
    size: int
    root: str
    """Of the log at `size`."""
    files: tuple[str, ...] = ()
    """Where its module was imported from; not in a trace that is saved."""


class AtSize(msgspec.Struct, frozen=True):
    """What the states came to at a size."""

    size: int
    states: int
    comparable: str
    """Digest for comparing versions: over entry digests with version 0."""
    digest: str
    """The state digest, which is attested."""


class End(msgspec.Struct, frozen=True):
    """How many lines there were between head and end."""

    end: int


def tell(job: Job) -> Iterator[bytes]:
    """Yield the lines of a job, without their ends."""
    folder = DataFolder(job.data, job.partition)
    count = 0
    with log_of(folder) as source, closing(folder.open_vault(os.urandom)) as vault:
        reducer, module = installed(job.reducer, folder, gathered(source))
        with source.open(job.stop) as log:
            root = log.root().hex()
        scope = tuple(reducer.scope)
        yield _encode(
            Head(
                reducer.name,
                reducer.version,
                reducer.code_digest,
                scope,
                job.start,
                job.stop,
                root,
                files_of(module),
            )
        )
        for line in (_stops if job.stops else _trace)(job, reducer, module, source, vault):
            count += 1
            yield line
    yield _encode(End(count))


def files_of(module: str) -> tuple[str, ...]:
    """Return the files to which the entry point of a loaded module leads."""
    places = [
        place.partition("[")[0].partition(":")[0].strip() for place in available()[module].value.split()
    ]
    found = [getattr(sys.modules.get(place), "__file__", None) for place in places if place]
    return tuple(dict.fromkeys(file for file in found if file is not None))


_encode = msgspec.json.Encoder().encode


def _trace(job: Job, reducer: Reducer[Any], module: str, source: LogSource, vault: Vault) -> Iterator[bytes]:
    holding = Traced([reducer], module)
    lines = traced(holding, vault, source, job.start, job.stop, states=job.states)
    yield from map(encode_line, lines)


def _stops(job: Job, reducer: Reducer[Any], module: str, source: LogSource, vault: Vault) -> Iterator[bytes]:
    sweep = Sweep([Runner([Holding([reducer], module=module)], vault)], encodings=True)
    own: dict[Identity, bytes] = {}
    any_version: dict[Identity, bytes] = {}
    for size in job.stops:
        stop = sweep.to(source, size)
        for why in stop.stopped.values():
            raise Unavailable(f"reducer {why.reducer} stopped at entry {why.at}: {why.reason}")
        for identity, entry in stop.delta.items():
            if entry is None or entry.encoding is None:
                del own[identity], any_version[identity]
                continue
            own[identity] = entry.digest
            name, version, key = identity
            pair = StatePair(name, version, key, entry.encoding, entry.error_index)
            any_version[identity] = comparable(pair)
        digests = (digest_of_entries(any_version).hex(), digest_of_entries(own).hex())
        yield _encode(AtSize(size, len(own), *digests))


def main() -> int:
    """Tell what standard input asks for."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a module that prints must not speak in between
    hold_back()
    quiet_collector()
    try:
        job = msgspec.json.decode(sys.stdin.buffer.read(JOB_BYTES_MAX), type=Job)
        for line in tell(job):
            out.write(line + b"\n")
        out.flush()
    except BrokenPipeError:
        return EXIT_GOOD  # who asked has heard enough
    except (ArchiveError, ReducerError, msgspec.DecodeError) as error:
        say(f"{error}")
        return EXIT_USAGE
    return EXIT_GOOD


if __name__ == "__main__":
    sys.exit(main())
