"""Programs: what is composed of the other packages and started by people or by each other.

Each command has a module with `main(argv) -> int` (0 good, 1 finding, 2 usage).  The services (`archiver`, `worker`,
`front`) are loops around a `step()` that lives elsewhere; `serve` starts them and starts them again.

Read `serve` first, then `settings` (what can be set), `children` (a process that is started again), `archiver`,
`worker` and `front` (the services), `placing` (which module runs where, and what becomes of one that does harm) and
`spare`.  Of the commands begin with `cli`, then `verify_log` and `verify_folder`, `replay` and `replay_check`,
`doctor`, `backup` and `restore`.  What they share is in `process`, `console` and `data_flag`.
"""

from __future__ import annotations

__all__: list[str] = []
