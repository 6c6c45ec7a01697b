"""What others reach with the same events in the same run: SQLite, PostgreSQL's COPY, and pymerkle.

None of them does what the archiver does (encryption, tags, signatures, exact ids under a tree); each is the best known
way to keep rows, or a tree, durably with what it is.  PostgreSQL is measured where its server is installed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pymerkle import SqliteTree

from archive import Submission


def sqlite_per_s(path: Path, batch: Sequence[Submission], commits: int) -> float:
    """Return events a second put into SQLite with a unique id: WAL, synchronous=FULL, one transaction a commit."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE event (n INTEGER PRIMARY KEY, id TEXT, body BLOB)")
    database.execute("CREATE UNIQUE INDEX event_id ON event (id)")
    started = time.perf_counter()
    for commit in range(commits):
        rows = [(f"{commit}-{one.id}", one.payload) for one in batch]
        database.execute("BEGIN")
        database.executemany("INSERT INTO event (id, body) VALUES (?, ?)", rows)
        database.execute("COMMIT")
    rate = commits * len(batch) / (time.perf_counter() - started)
    database.close()
    return rate


def pymerkle_per_s(path: Path, batch: Sequence[Submission], commits: int) -> float:
    """Return entries a second appended to pymerkle's tree on SQLite, at its own durability settings."""
    entries = [one.payload for one in batch]
    with SqliteTree(str(path)) as tree:
        started = time.perf_counter()
        for _ in range(commits):
            tree.append_entries(entries)
        return commits * len(batch) / (time.perf_counter() - started)


def postgres_per_s(batch: Sequence[Submission], commits: int) -> float | None:
    """Return events a second through COPY, one transaction a commit, a unique id; None without a server."""
    binaries = postgres_binaries()
    if binaries is None:
        return None
    with cluster(binaries) as socket:
        psql = [*_as_postgres(), "psql", "-q", "-h", socket, "-d", "postgres"]
        table = "CREATE TABLE event (n bigserial PRIMARY KEY, id text UNIQUE, body text)"
        subprocess.run([*psql, "-c", table], check=True, capture_output=True)
        script = b"".join(
            b"COPY event (id, body) FROM STDIN;\n"
            + b"".join(b"%d-%s\t%s\n" % (commit, str(one.id).encode(), one.payload) for one in batch)
            + b"\\.\n"
            for commit in range(commits)
        )
        started = time.perf_counter()
        subprocess.run(psql, input=script, check=True, capture_output=True)
        return commits * len(batch) / (time.perf_counter() - started)


def postgres_binaries() -> Path | None:
    """Return the folder of PostgreSQL's server programs, or None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def cluster(binaries: Path) -> Iterator[str]:
    """Run a new PostgreSQL with its default (durable) settings on a socket of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as folder:
        data = Path(folder) / "data"
        if os.geteuid() == 0:  # its server refuses to run as root
            shutil.chown(folder, "postgres")
        run = _as_postgres()
        subprocess.run(
            [*run, str(binaries / "initdb"), "-D", str(data), "-A", "trust"], check=True, capture_output=True
        )
        options = f"-k {folder} -c listen_addresses=''"
        control = [*run, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", f"{folder}/log"]
        subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True)
        try:
            yield folder
        finally:
            subprocess.run([*control, "-m", "fast", "stop"], check=True, capture_output=True)


def _as_postgres() -> list[str]:
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
