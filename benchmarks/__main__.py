"""make bench: measure, print ratios, keep the figures in benchmarks/out/.

python -m benchmarks [--size 100000] [--only PART] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import growth, isolation, kernels, live, replaying, server, states, storage
from benchmarks.table import Row, machine, show
from tools.process import quiet_collector

OUT = Path(__file__).parent / "out"
PARTS = ("kernels", "storage", "replay", "states", "server", "live", "isolation", "growth", "replay-growth")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure; ratios within one run.")
    parser.add_argument("--size", type=int, default=100_000, help="largest log, entries (default: 100000)")
    parser.add_argument("--only", choices=PARTS, help="one part only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows: list[Row] = []
    quiet_collector()  # as the services do
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder)
        if arguments.only in {None, "kernels"}:
            rows += kernels.measure()
        if arguments.only in {None, "storage"}:
            rows += storage.measure(path, arguments.size)
        if arguments.only in {None, "replay"}:
            rows += replaying.measure(path, arguments.size)
        if arguments.only in {None, "states"}:
            rows += states.measure(path, arguments.size)
        if arguments.only in {None, "server"}:
            rows += server.measure(path)
        if arguments.only in {None, "live"}:
            rows += live.measure(path)
        if arguments.only == "isolation":  # a server for each case: only when asked for
            rows += isolation.measure(path)
        if arguments.only == "growth":  # minutes, and gigabytes: only when asked for
            rows += growth.measure(path, arguments.size)
        if arguments.only == "replay-growth":
            rows += growth.measure_replay(path, arguments.size)
    OUT.mkdir(exist_ok=True)
    record = {"machine": machine(), "size": arguments.size, "rows": [row.as_json() for row in rows]}
    (OUT / "latest.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record) if arguments.json else f"{machine()}\n\n{show(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
