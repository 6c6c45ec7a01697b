"""What a sender can swear to: each sending before it happens, each answer after it came.

A test that kills the server compares this with the log: acknowledged ⊆ survived ⊆ sent.  For that to hold
even if the sender itself is killed, each line is written at once, and "sent" before the bytes leave.

    {"file":"a.jsonl","line":3,"connection":0,"frame":2,"sent":true}
    {"file":"a.jsonl","line":3,"connection":0,"frame":2,"acked":true,"index":17,"size":20}
    {"file":"a.jsonl","line":4,"connection":0,"frame":3,"refused":true,"reason":"...","index":18,"size":20}

`connection` numbers the connections of one file and `frame` the frames of one connection, both from 0, `line`
the lines of the file from 1.  Over HTTP there is neither connection nor frame.

What must be sent again is decided by `tools.playback`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from tools.playback import Sent, Settled

REASONS_MAX = 5

Write = Callable[[bytes], object]


class Witness(Protocol):
    """Who is told what happens to one file."""

    def sent(self, sent: Sent) -> None:
        """Note a sending that is about to happen."""

    def settled(self, settled: Settled) -> None:
        """Note an answer."""

    def lost(self, reason: str) -> None:
        """Note that a connection or a request failed and will be tried again."""


@dataclass
class Tally:
    """Counts over all files.  Lines are counted once, however often they had to be sent."""

    events: int = 0
    """Lines to send in all."""
    sent: int = 0
    """Sendings, repeated ones included."""
    acknowledged: int = 0
    refused: int = 0
    reconnects: int = 0
    reasons: list[str] = field(default_factory=list)
    """Why events were refused: the first few."""
    failures: list[str] = field(default_factory=list)
    """Which files were given up, and why."""

    @property
    def unanswered(self) -> int:
        """Lines that were neither acknowledged nor refused."""
        return self.events - self.acknowledged - self.refused

    def result(self, seconds: float) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "events": self.events,
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unanswered": self.unanswered,
            "reconnects": self.reconnects,
            "seconds": round(seconds, 3),
            "events_per_s": round(self.acknowledged / max(seconds, 1e-9), 1),
            "reasons": self.reasons,
            "failures": self.failures,
        }


class FileWitness:
    """Counts and records what happens to one file."""

    def __init__(
        self,
        tally: Tally,
        file: str,
        *,
        write: Write | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self._tally, self._file, self._write, self._advance = tally, file, write, advance

    def sent(self, sent: Sent) -> None:
        """Count a sending, and record it."""
        self._tally.sent += 1
        if self._write is not None:
            self._write(sent_record(self._file, sent))

    def settled(self, settled: Settled) -> None:
        """Count the line if this is its first answer, and record the answer."""
        if self._write is not None:
            self._write(settled_record(self._file, settled))
        if settled.repeated:
            return
        if settled.reason is None:
            self._tally.acknowledged += 1
        else:
            self._tally.refused += 1
            if len(self._tally.reasons) < REASONS_MAX:
                self._tally.reasons.append(f"{self._file}, line {settled.sent.line.number}: {settled.reason}")
        if self._advance is not None:
            self._advance(1)

    def lost(self, reason: str) -> None:
        """Count a failed connection or request."""
        del reason
        self._tally.reconnects += 1


def sent_record(file: str, sent: Sent) -> bytes:
    """Return the ledger's line for a sending."""
    return _line({**_head(file, sent), "sent": True})


def settled_record(file: str, settled: Settled) -> bytes:
    """Return the ledger's line for an answer."""
    head, place = _head(file, settled.sent), {}
    if settled.index is not None:
        place = {"index": settled.index, "size": settled.size}
    if settled.reason is None:
        return _line({**head, "acked": True, **place})
    return _line({**head, "refused": True, "reason": settled.reason, **place})


def _head(file: str, sent: Sent) -> dict[str, Any]:
    head: dict[str, Any] = {"file": file, "line": sent.line.number}
    if sent.frame is not None:
        head |= {"connection": sent.connection, "frame": sent.frame}
    return head


def _line(record: dict[str, Any]) -> bytes:
    return msgspec.json.encode(record) + b"\n"
