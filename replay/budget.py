"""A budget: how many messages may still come of an event, by what it says of itself and by nothing else.

An event from outside, and a tick, has `BUDGET`.  What one key says at an event takes one of its budget for each
message, and the messages share what is left equally; each carries its share in its header.  So a storm ends, however
modules answer each other, and nobody counts anything together: whoever folds the same event finds the same shares.

>>> shares(10_000, 30)[:2], shares(332, 1), shares(0, 2) == [TOO_MANY, TOO_MANY]
([332, 332], [331], True)
>>> shares(2, 3) == [0, 0, TOO_MANY]
True

**At most `b` messages come of an event with budget `b`**, where one key reacts to each event.  By induction over `b`:
of 0 nothing is sent.  Else `s` messages are sent, `s <= b`, and each has the budget `(b - s) // s`, which is less than
`b`, so that at most as many come of it: together `s + s * ((b - s) // s)`, which is not more than `s + (b - s) = b`.

Several keys or reducers that react to one event have its budget each: docs/adr/0050-messages.md.
"""

from __future__ import annotations

from typing import Final

BUDGET: Final = 10_000
"""Messages that may come of an event from outside, or of a tick."""
TOO_MANY: Final = -1
"""What a message has that is beyond the budget of its input: it is not sent."""


def shares(budget: int, count: int) -> list[int]:
    """Return what each of so many messages may lead to, said by one key at an event with this budget."""
    sent = min(budget, count)
    each = (budget - sent) // sent if sent else 0
    return [each] * sent + [TOO_MANY] * (count - sent)


def unwritten(hops: int) -> int:
    """Return the budget of a message whose header has none, as before there were budgets: as if each were the only one.

    It is more than any event could say then, so whatever stands in such a log is said again when it is folded again.

    >>> unwritten(1) == shares(BUDGET, 1)[0]
    True
    """
    return max(0, BUDGET - hops)
