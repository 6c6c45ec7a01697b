"""Progress bars on a terminal.

`rich` takes 4 MiB and a tenth of a second to import.  Services, pipes and the processes that a command starts draw
nothing; so this module is imported where a bar is drawn, by `tools.console.progress`, and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

DRAW_EVERY_S = 0.1


@contextmanager
def drawn(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`, which draws on standard error, ten times a second at most."""
    ending = [MofNCompleteColumn(), _Rate(), TimeElapsedColumn() if total is None else TimeRemainingColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *ending]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from _advances(bar, description, total)


def _advances(bar: Progress, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    task = bar.add_task(description, total=total)
    waiting, last = 0, time.monotonic()

    def advance(n: int) -> None:
        nonlocal waiting, last
        waiting += n
        now = time.monotonic()
        if now - last >= DRAW_EVERY_S:
            bar.advance(task, waiting)
            waiting, last = 0, now

    try:
        yield advance
    finally:
        bar.advance(task, waiting)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Show the present speed."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed")
