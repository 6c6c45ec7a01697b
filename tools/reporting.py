"""What a worker tells its supervisor: a line of JSON each, beside words such as "ready".

    {"size": 120, "hired": {"essay": 100}}               started, with the position of each module
    {"failed": {"odd": "importing 'odd' failed with …"}}   what could not be loaded
    {"stopped": {"essay": {"reducer": "words", "at": 117, "reason": "MemoryError",
                          "kind": "memory"}}}
    {"at": {"essay": 120}}                                  how far the saved states are

A module may print what it likes: standard output belongs to it from the start, and leads where errors do.  The lines
go to a descriptor of their own.  A supervisor takes a line for what it is only if it fits, and only about modules that
this worker has (`tools.placing`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from archive import FormatError
from replay import Kind, Stopped

READY, STANDING_BY, TAKEN, ALIVE = b"ready", b"standing by", b"taken", b"alive"
"""Lines that are no report: a service has begun; a spare waits for its orders, or has taken them; a worker goes on."""
LINE_BYTES_MAX = 60_000
"""asyncio reads lines of at most 64 KiB."""


class StopInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a module does not go on: the name of an error, never its text, which may hold something of an event."""

    reducer: str
    at: int | None
    """Index of the event; None: it was being imported."""
    reason: str
    kind: Kind = "stopped"
    """Said by who stopped it, never read out of the reason: any class may be called Slow."""


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line."""

    size: int | None = None
    """How much of the log was known when modules were hired: which steering they have seen."""
    hired: dict[str, int] = {}
    generations: dict[str, str] = {}
    """What the code of each module that was hired makes: shards of one module must make the same."""
    failed: dict[str, str] = {}
    went_back: list[str] = []
    """Those that failed because an older version is installed than the last one that ran."""
    stopped: dict[str, StopInfo] = {}
    at: dict[str, int] = {}
    confined: dict[str, list[str]] = {}
    """What the cell of a module is kept from."""
    retry: dict[str, int] = {}
    """Modules that somebody wants to be tried again, by the index of the entry that says so."""


_decode = msgspec.json.Decoder(Report).decode


def info_of_stop(stopped: Stopped, *, imported: bool = True) -> StopInfo:
    """Return what everybody may be told of a stop; at no event, unless it was imported.

    >>> info_of_stop(Stopped("words", 7, "Slow: so says ann"))
    StopInfo(reducer='words', at=7, reason='Slow', kind='stopped')
    """
    return StopInfo(stopped.reducer, stopped.at if imported else None, stopped.told, stopped.kind)


def parse_report(line: bytes) -> Report:
    """Return the report in a line; raise FormatError if it is none."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"no report: {error}") from None


class Reporter:
    """Writes reports to what was standard output when the process began."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._positions: dict[str, int] = {}

    @classmethod
    def taking_stdout(cls) -> Reporter:
        """Return a reporter on standard output, having let everybody else's words go to standard error."""
        sys.stdout.flush()
        descriptor = os.dup(1)
        os.dup2(2, 1)
        return cls(descriptor)

    def ready(self) -> None:
        """Say that the worker has begun."""
        self._line(READY)

    def standing_by(self) -> None:
        """Say that a spare waits for its orders."""
        self._line(STANDING_BY)

    def alive(self) -> None:
        """Say that the worker goes on: whoever says nothing at all for long has been stopped, or hangs."""
        self._line(ALIVE)

    def taken(self) -> None:
        """Say that a spare has its orders: from here on it is a worker."""
        self._line(TAKEN)

    def give_back_stdout(self) -> None:
        """Let standard output be what it was before `taking_stdout`, for a program that begins anew."""
        os.dup2(self._descriptor, 1)

    def tell(self, report: Report) -> None:
        """Say something."""
        data = msgspec.json.encode(report)
        if len(data) <= LINE_BYTES_MAX:
            self._line(data)

    def stopped(self, found: Mapping[str, Stopped]) -> None:
        """Say which modules do not go on."""
        if found:
            self.tell(Report(stopped={name: info_of_stop(one) for name, one in found.items()}))

    def positions(self, positions: Mapping[str, int]) -> None:
        """Say how far the saved states are, if that is news."""
        news = {name: at for name, at in positions.items() if self._positions.get(name) != at}
        if news:
            self._positions |= news
            self.tell(Report(at=news))

    def _line(self, data: bytes) -> None:
        with suppress(OSError):  # the supervisor is gone, which the wake-ups notice
            os.write(self._descriptor, data + b"\n")
