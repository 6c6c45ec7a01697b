"""How fast the log grows, from the sizes that were seen published.

Sizes come with every wake-up of the archiver, a thousand a second perhaps; a tenth of a second is as fine as
anybody looks, so no two that are kept are closer, and a hundred or so are kept.
"""

from __future__ import annotations

from collections import deque

WINDOW_US = 10_000_000
STEP_US = 100_000


class Rate:
    """Entries a second over the last ten seconds, from the sizes that were seen.

    >>> rate = Rate()
    >>> rate.seen(0, 100), rate.seen(2_000_000, 300)
    (0.0, 100.0)
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()

    def seen(self, now_us: int, size: int) -> float:
        """Take note of a size and return the rate."""
        if not self._seen or now_us - self._seen[-1][0] >= STEP_US:
            self._seen.append((now_us, size))
        while self._seen[0][0] < now_us - WINDOW_US and len(self._seen) > 2:
            self._seen.popleft()
        first_us, first = self._seen[0]
        return (size - first) * 1e6 / (now_us - first_us) if now_us > first_us else 0.0
