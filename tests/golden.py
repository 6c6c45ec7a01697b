"""The golden logs, one for each version of the headers: how they were made, and how they are opened.

The bytes under tests/vectors/golden-log-v1 and -v2 were written once by `make(folder)`, in the software of their time,
and are never made anew: a later version must still read them.  Everything that is random elsewhere is drawn here from a
counter, and time stands still, so that whoever doubts the newest may make it again and compare roots.  Both hold the
same events.

    python -m tests.golden FOLDER
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.ingest import Rules, refused, submission
from api.lo import Connection
from archive import (
    Archiver,
    Caches,
    DataFolder,
    LogSource,
    ManualClock,
    MemoryPublished,
    SealFile,
    Submission,
    load_size,
)
from merkle import sign_note
from reducers import Registry, digest_of_entries, shipped
from replay import replay_digests
from tools.classroom import classroom

VECTORS = Path(__file__).parent / "vectors"
GOLDEN = VECTORS / "golden-log-v1"
NEWEST = VECTORS / "golden-log-v2"
VAULT_KEY = hashlib.sha256(b"golden vault key").hexdigest()
ORIGIN = "example.org/golden-log"
START_US = 1_700_000_000_000_000


def reducers() -> Registry:
    """Return the reducers whose states the golden log vouches for: those that there were when it was written."""
    registry = Registry()
    for name in ("event_count", "last_activity", "reconstruct", "time_on_task"):
        registry.register(shipped().get(name))
    return registry


class Counted:
    """Random bytes for a test vector: SHA-256 of a counter."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        made = b""
        while len(made) < size:
            made += hashlib.sha256(b"golden %d" % next(self._numbers)).digest()
        return made[:size]


def submissions() -> Iterator[list[Submission]]:
    """Yield the batches of the golden log: a class that types, xAPI-like events with ids, late identity, bad frames."""
    for number, session in enumerate(classroom(seed=1, students=3, words=12)):
        connection = Connection(b"golden-%d" % number)
        for at in range(0, len(session.frames), 40):
            steps = [
                connection.frame(frame, True, START_US + number) for _, frame in session.frames[at : at + 40]
            ]
            yield [one for step in steps for one in step.submissions]
    late = Connection(b"golden-l")
    frames = [
        b'{"event":"early","doc_id":"d"}',
        b"\xff",
        b'{"event":"late","user_id":"ada"}',
        b'{"event":"on"}',
    ]
    yield [one for frame in frames for one in late.frame(frame, True, START_US).submissions]
    rules = Rules.parse([("student", "$.who"), ("id", "$.n")])
    yield [submission(b'{"n":%d,"who":"s%d"}' % (n, n % 5), rules, START_US) for n in range(100)]
    yield [refused(b'{"torn":', "malformed JSON", START_US)]


def make(path: Path) -> None:
    """Write the golden log into a new folder; TREERING_VAULT_KEY must hold VAULT_KEY."""
    folder, random, clock = DataFolder(path), Counted(), ManualClock(START_US)
    folder.create()
    signer = folder.signer(random, ORIGIN)
    store, vault = folder.open_log(read_only=False), folder.open_vault(random, read_only=False)
    archiver = Archiver(
        ORIGIN,
        store,
        vault,
        caches=Caches(),
        seal=SealFile(folder.log / "seal"),
        published=MemoryPublished(),
        clock=clock,
        random=random,
        sign=lambda text: sign_note(text, [signer]),
    )
    archiver.open({"software": "treering 0.1.0"})
    for batch in submissions():
        clock.time_us += 1_000_000
        archiver.step(batch)
    digests = replay_digests(
        LogSource(store, lambda: archiver.head.size), reducers(), vault, size=archiver.head.size
    )
    expected = {
        "vkey": signer.verifier.encode(),
        "size": archiver.head.size,
        "root": archiver.root.hex(),
        "states": len(digests),
        "state_digest": digest_of_entries(digests).hex(),
    }
    (path / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    store.close()
    vault.close()


@contextmanager
def golden_copy(path: Path, golden: Path = GOLDEN) -> Iterator[DataFolder]:
    """Copy a golden log to a new folder and give it its vault key, as an operator would restore it."""
    shutil.copytree(golden, path)
    (path / "keys").mkdir(mode=0o700)
    key = path / "keys" / "vault.key"
    key.touch(mode=0o600)
    key.write_text(VAULT_KEY)
    yield DataFolder(path)


def open_golden(folder: DataFolder) -> tuple[LogSource, int]:
    """Return the log of a copy, and its size."""
    store = folder.open_log()
    with store.view() as view:
        size = load_size(view)
    return LogSource(store, lambda: size), size


if __name__ == "__main__":
    os.environ["TREERING_VAULT_KEY"] = VAULT_KEY
    make(Path(sys.argv[1]))
