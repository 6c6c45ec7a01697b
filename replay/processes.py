"""run/workers.json: which process is which worker, and which ones stand by, for who looks at a machine from outside.

    {"running": {"worker 0": 4711, "worker 1": 4712}, "spares": [4713], "spares_wanted": 1}

A spare that took over is called in `ps` what it was called before, so the supervisor writes down who is who whenever
that changes.  Nobody needs the file to run.  After a supervisor was killed it is out of date: only processes that are
there and are workers count (`alive_workers`).

Who writes it: `tools.serve`.  Who shows it: `treering doctor`, /metrics.  What a spare is: `tools.standby`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from archive import write_whole

WORKERS_FILE = "workers.json"
WORKER_NAME, SPARE_NAME = "worker", "worker-spare"
"""What the name of a worker's process begins with, and that of one that stands by (`ps -o comm`)."""


class Workers(msgspec.Struct, frozen=True):
    """The workers of a server, by process id."""

    running: dict[str, int] = {}
    """By name: "worker 0" has all modules that share shard 0, "worker 0 essay" that one alone."""
    spares: list[int] = []
    """Those that stand by."""
    spares_wanted: int = 0


def alive_workers(workers: Workers, proc: Path = Path("/proc")) -> Workers:
    """Return those whose process is there and is a worker (Linux; elsewhere none is known to be)."""
    running = {
        name: pid for name, pid in workers.running.items() if _named(proc, pid).startswith(WORKER_NAME)
    }
    spares = [pid for pid in workers.spares if _named(proc, pid) == SPARE_NAME]
    return Workers(running, spares, workers.spares_wanted)


def _named(proc: Path, pid: int) -> str:
    """Return the name of a process; of one that has ended, and that nobody has waited for yet, none."""
    try:
        name, _, rest = (proc / str(pid) / "stat").read_text().partition("(")[2].rpartition(")")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if rest.split()[0] == "Z" else name


def read_workers(run: Path) -> Workers | None:
    """Return what the supervisor wrote down in its folder of what runs; None if there is nothing to read."""
    try:
        return msgspec.json.decode((run / WORKERS_FILE).read_bytes(), type=Workers)
    except (OSError, msgspec.DecodeError):
        return None


def write_workers(run: Path, workers: Workers) -> None:
    """Write the file, whole or not at all; raise OSError."""
    write_whole(run / WORKERS_FILE, msgspec.json.encode(workers) + b"\n")


def forget_workers(run: Path) -> None:
    """Remove the file: no worker runs any more."""
    (run / WORKERS_FILE).unlink(missing_ok=True)
