"""What every command says in the same way: progress, JSON, numbers, failures.

Results go to standard output, which programs read; progress and failures go to standard error, which people
read.  A progress bar is drawn on a terminal only, so logs and pipes stay clean.

    with progress("sending", 25_505) as advance:
        advance(500)

>>> number(25505), rate(25505, 4.2), duration(75.31)
('25,505', '6,073/s', '1 min 15 s')

`as_program` runs a command whose reader may stop reading, as `| head` does: then it ends there, in good order.

The bar itself is `tools.bars`; exit codes and what services share are in `tools.process`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE, one_line

Advance = Callable[[int], None]
EXIT_INTERRUPTED = 130
"""Somebody pressed Ctrl-C: a shell says the same of what SIGINT has ended (128 + 2)."""
EXIT_UNREAD = 141
"""Nobody reads on: neither good nor bad.  A shell says the same of what SIGPIPE has ended (128 + 13)."""


def as_program(run: Callable[[Sequence[str]], int]) -> int:
    """Run a command with the arguments of this process, and return its exit code.

    If the reader of standard output goes away, SystemExit is raised where the command prints: not an error of files,
    which commands catch and report, and what they have begun is put away on the way out.  The same, with a word, if a
    full disk takes no more of it.  Who writes to `sys.stdout.buffer` gets OSError, as ever.  Ctrl-C is one word, too.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout = _Printed.instead_of(sys.stdout)
    try:
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    finally:
        if sys.stdout is not None:  # what was closed by the shell is None
            sys.stdout.flush()


class _Printed(io.TextIOWrapper):
    """Standard output that ends the process when it cannot be written."""

    @classmethod
    def instead_of(cls, stream: io.TextIOWrapper) -> _Printed:
        """Return one that writes where another did, in the same way."""
        stream.flush()
        return cls(
            io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False)),
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str, /) -> int:
        """Write as a file does."""
        try:
            return super().write(text)
        except OSError as error:
            self._end(error)

    def flush(self) -> None:
        """Flush as a file does."""
        try:
            super().flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> NoReturn:
        # What is buffered would be written, and fail, once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), self.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(EXIT_UNREAD) from None
        raise SystemExit(fail(f"what was to be printed: {in_words(error)}; make room", EXIT_USAGE)) from None


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
    print(one_line(f"treering: {message}"), file=sys.stderr, flush=True)
    return code


def number(n: int) -> str:
    """Return a number with its thousands parted."""
    return f"{n:,}"


def in_words(error: OSError) -> str:
    """Return what the system refused, and of which file, without its number.

    >>> in_words(FileNotFoundError(2, "No such file or directory", "data/x"))
    'data/x: No such file or directory'
    """
    what = error.strerror or str(error)
    return what if error.filename is None else f"{os.fsdecode(error.filename)}: {what}"


def refused(error: OSError, helps: str = "") -> str:
    """Return what the system refused and what helps, which is `helps` where the caller knows better.

    >>> refused(PermissionError(13, "Permission denied", "data/log/0"))
    'data/log/0: Permission denied; run it as the user that serves'
    >>> refused(OSError(28, "No space left on device"), "name another folder")
    'No space left on device; name another folder'
    """
    from archive import NO_SPACE  # noqa: PLC0415 - to load all of it would hold up every command, and few fail

    if not helps and isinstance(error, PermissionError):
        helps = "run it as the user that serves"
    if not helps and error.errno in NO_SPACE:
        helps = "make room"
    return f"{in_words(error)}; {helps}" if helps else in_words(error)


def when(time_s: int) -> str:
    """Return a time (Unix seconds) as people write it; a leaf may hold one that no calendar has.

    >>> when(1_764_090_000), when(1 << 63)
    ('2025-11-25T17:00:00+00:00', '9223372036854775808 s after 1970')
    """
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{time_s} s after 1970"


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


PARTITION_HELP = "which log of the folder; this version serves 0 only (default: 0)"


def exit_codes(good: str, finding: str, other: str) -> str:
    """Return what stands below the help of a command: what its exit codes mean; it may have no findings.

    >>> exit_codes("all is good", "there are findings", "it cannot look")
    'Exit codes: 0 all is good, 1 there are findings, 2 it cannot look.'
    """
    codes = {EXIT_GOOD: good, EXIT_FINDING: finding, EXIT_USAGE: other}
    return "Exit codes: " + ", ".join(f"{code} {text}" for code, text in codes.items() if text) + "."
