"""Programs: what is composed of the other packages and started by people or by each other.

Each command has a module with `main(argv) -> int` (0 good, 1 finding, 2 usage).  The services (`archiver`, `worker`,
`front`) are loops around a `step()` that lives elsewhere; `serve` starts them and starts them again.
"""

from __future__ import annotations

__all__: list[str] = []
