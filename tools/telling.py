"""Who tells a trace: a fold in a process of its own (`tools.tracing`), or a file that another machine wrote.

    with fold(job) as ours, fold(job, other=Path("essay-2.0")) as theirs:
        first_difference(ours.lines(), theirs.lines())

Both are read line by line, and no further than somebody asks.  A file that ends too early is noticed, as is a process
that does: the last line counts the others.

Who compares: `tools.bisecting`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from archive import FormatError, InvalidEvent, Unavailable
from replay import Line, decode_line
from tools.tracing import AtSize, End, Head, Job

ERROR_BYTES_MAX = 4_000
T = TypeVar("T")


class Teller:
    """A head, what states come to at some sizes, and a trace, from whoever tells it."""

    def __init__(self, name: str, lines: Iterator[bytes]) -> None:
        self._name, self._lines, self._read = name, lines, 0
        self.head = _decoded(self._next(), Head, name)

    def sizes(self) -> Iterator[AtSize]:
        """Yield what the states come to at each size that is told, before the trace."""
        while (line := self._next()).startswith(b'{"size"'):
            self._read += 1
            yield _decoded(line, AtSize, self._name)
        self._lines = chain([line], self._lines)

    def lines(self) -> Iterator[Line]:
        """Yield the trace; raise FormatError if it does not end as it says."""
        while (line := self._next()).startswith(b"["):
            self._read += 1
            yield decode_line(line)
        if _decoded(line, End, self._name).end != self._read:
            raise FormatError(f"{self._name}: lines are missing; make it again")

    def _next(self) -> bytes:
        line = next(self._lines, b"")
        if not line.endswith(b"\n"):
            raise FormatError(f"{self._name}: it breaks off; make it again")
        return line


def _decoded(line: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{name}: not a trace: {error}") from None


@contextmanager
def saved(path: Path) -> Iterator[Teller]:
    """Return what a file tells; raise InvalidEvent if it cannot be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidEvent(f"{path}: {error.strerror}") from None
    with file:
        yield Teller(str(path), iter(file))


@contextmanager
def fold(job: Job, other: Path | None = None) -> Iterator[Teller]:
    """Return what a fold in another process tells; with `other`, packages in that folder come before installed ones.

    Raises Unavailable, with what the process said, if it cannot be done.
    """
    environment = dict(os.environ)
    if other is not None:
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(other.resolve()), *([before] if before else [])])
    # -P: what lies where the command is started must not shadow ours.
    command = [sys.executable, "-P", "-m", "tools.tracing"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as asked:
                asked.write(msgspec.json.encode(job))
            name = "the fold here" if other is None else f"the fold with {other}"
            yield Teller(name, _told(process, process.stdout, errors, name))
        finally:
            process.kill()  # it only reads
            process.wait()
            process.stdout.close()


def _told(
    process: subprocess.Popen[bytes], lines: IO[bytes], errors: IO[bytes], name: str
) -> Iterator[bytes]:
    yield from lines
    if process.wait() != 0:
        errors.seek(max(errors.seek(0, os.SEEK_END) - ERROR_BYTES_MAX, 0))
        said = errors.read().decode(errors="replace").strip()
        raise Unavailable(f"{name}: {said or f'it ended with code {process.returncode}'}")
