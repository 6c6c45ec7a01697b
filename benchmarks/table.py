"""A measurement and how it is shown: a rate, what it is compared with, and the ratio, which is what counts."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measurement: `value` in `unit`; `ratio` to the row named `to`, in the same run."""

    what: str
    value: float
    unit: str
    ratio: float | None = None
    to: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the row as JSON."""
        return asdict(self)


def machine() -> str:
    """Return what this was measured on."""
    model = platform.processor() or "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def show(rows: list[Row]) -> str:
    """Return the rows as a table for people."""
    width = max(len(row.what) for row in rows)
    lines = []
    for row in rows:
        value = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:,.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f} × {row.to}"
        lines.append(f"{row.what:<{width}}  {value:>12} {row.unit:<10}{ratio}".rstrip())
    return "\n".join(lines)
