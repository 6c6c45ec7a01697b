"""What every command says in the same way: progress, JSON, numbers, failures.

Results go to standard output, which programs read; progress and failures go to standard error, which people
read.  A progress bar is drawn on a terminal only, so logs and pipes stay clean.

    with progress("sending", 25_505) as advance:
        advance(500)

>>> number(25505), rate(25505, 4.2), duration(75.31)
('25,505', '6,073/s', '1 min 15 s')

The bar itself is `tools.bars`; exit codes and what services share are in `tools.process`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tools.process import EXIT_FINDING

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
    from tools.bars import drawn  # noqa: PLC0415 - dear to import, and hardly ever needed

    with drawn(description, total) as advance:
        yield advance


def _ignore(n: int) -> None:
    del n


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


def printable(text: str) -> str:
    r"""Return text of others so that a terminal only shows it: what would move, hide or colour comes as an escape.

    >>> printable("student:zoë\x1b[2J\u202e")
    'student:zoë\\x1b[2J\\u202e'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


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
