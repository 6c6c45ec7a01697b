"""What every command says in the same way: progress, JSON, numbers, failures.

Results go to standard output, which programs read; progress and failures go to standard error, which people
read.  A progress bar is drawn on a terminal only, so logs and pipes stay clean.

    with progress("sending", 25_505) as advance:
        advance(500)

>>> number(25505), rate(25505, 4.2), duration(75.31)
('25,505', '6,073/s', '1 min 15 s')

Exit codes and what services share are in `tools.process`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
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

from tools.process import EXIT_FINDING

DRAW_EVERY_S = 0.1

Advance = Callable[[int], None]


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """Yield `advance(n)`; draw a bar on standard error if that is a terminal, else nothing.

    Without a total, the bar shows only how many and how fast.  `advance` may be called for every single
    item: it draws at most ten times a second.
    """
    if not sys.stderr.isatty():
        yield _ignore
        return
    ending = [MofNCompleteColumn(), _Rate(), TimeElapsedColumn() if total is None else TimeRemainingColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *ending]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from _advances(bar, description, total)


def _advances(bar: Progress, description: str, total: int | None) -> Iterator[Advance]:
    task = bar.add_task(description, total=total)
    waiting, drawn = 0, time.monotonic()

    def advance(n: int) -> None:
        nonlocal waiting, drawn
        waiting += n
        now = time.monotonic()
        if now - drawn >= DRAW_EVERY_S:
            bar.advance(task, waiting)
            waiting, drawn = 0, now

    try:
        yield advance
    finally:
        bar.advance(task, waiting)


def _ignore(n: int) -> None:
    del n


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Show the present speed."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed")


def print_json(value: Any) -> None:
    """Print one JSON value on standard output, as one line."""
    print(msgspec.json.encode(value).decode(), flush=True)


def fail(message: str, code: int = EXIT_FINDING) -> int:
    """Say on standard error what is wrong and what to do; return the exit code, so that `main` can."""
    print(f"treering: {message}", file=sys.stderr, flush=True)
    return code


def number(n: int) -> str:
    """Return a number with its thousands parted."""
    return f"{n:,}"


def rate(n: int, seconds: float) -> str:
    """Return how many a second."""
    return f"{n / max(seconds, 1e-9):,.0f}/s"


def duration(seconds: float) -> str:
    """Return a duration as people say it.

    >>> duration(0.1234), duration(3.21), duration(7260)
    ('0.12 s', '3.2 s', '121 min 0 s')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
