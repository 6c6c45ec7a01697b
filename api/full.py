"""Whether there is room for what is sent, as the archiver's answers tell.

A full disk is no failure: the archiver runs on, answers that it has kept nothing, and goes on when there is room
(ADR 0036).  So nothing is down, and senders alone would know.  The front remembers such an answer for those who look
after the server: in /readyz, on the page, as a metric, and in one line of the server's log when it begins and when it
is over.

It is over with the next event that is kept.  Where whoever sends events goes by /readyz, there would never be one: so
what is older than half a minute does not count, and the next event tells.

>>> from archive import Receipt
>>> full = Full()
>>> full.heard(Refusal("unavailable", "log: no space left"), 7_000_000, size=12)
'events are not kept: log: no space left'
>>> full.heard(Refusal("unavailable", "log: no space left"), 8_000_000, size=12), full.now(9_000_000)
('', True)
>>> full.heard(Receipt(12, 13), 10_000_000, size=13), full.now(10_000_000)
('events are kept again', False)
"""

from __future__ import annotations

from typing import Final

from archive import Answer, Refusal

COUNTS_US: Final = 30_000_000
REMEDY: Final = 'docs/recovery.md, "No space left": make room; nothing has to be restarted'


class Full:
    """What is remembered of answers that nothing was kept; times are Unix microseconds."""

    def __init__(self) -> None:
        self.reason = ""
        """Of the last one, until something is kept; empty where there is none."""
        self.since_us = self._last_us = self._size = 0

    def now(self, now_us: int) -> bool:
        """Return whether it is as if there were no room just now."""
        return bool(self.reason) and now_us - self._last_us < COUNTS_US

    def heard(self, answer: Answer, now_us: int, size: int) -> str:
        """Take note of an answer, at a published size of the log; return what the operator should hear of it, if any.

        What was sent before and is in the log already is no sign of room: to find it, nothing is written.
        """
        if isinstance(answer, Refusal):
            return self._nothing_kept(answer, now_us, size) if answer.reason == "unavailable" else ""
        if not self.reason or answer.index < self._size:
            return ""
        self.reason = ""
        return "events are kept again"

    def _nothing_kept(self, refusal: Refusal, now_us: int, size: int) -> str:
        begins = not self.reason
        if begins:
            self.since_us = now_us
        self.reason, self._last_us, self._size = refusal.detail, now_us, size
        return f"events are not kept: {refusal.detail}" if begins else ""
