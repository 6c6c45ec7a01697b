"""These files are imported through `reducers.load` only: what they import exists there and nowhere else."""

from __future__ import annotations

collect_ignore_glob = ["*.py"]
