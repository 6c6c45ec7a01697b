"""Making a failure small: the few events that a fault needs, out of all that were given.

Delta debugging in its plainest form: try to leave out pieces, first large, then small, and keep what still
fails.  It never makes a failure longer, ends after a bounded number of tries, and the last failing fault is
the one that is shown.

>>> def law(_: object, events: Sequence[int]) -> Fault | None:
...     return Fault(len(events), "both") if {3, 7} <= set(events) else None
>>> events, fault = shrink(law, None, list(range(10)), Fault(10, "both"))
>>> events, fault.text
([3, 7], 'both')

What the laws are: `reducers.laws`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reducers.errors import ReducerError
from reducers.laws import Fault

E = TypeVar("E")

TRIES_MAX = 400
EVENTS_MAX = 20_000
"""How many events all tries together may fold: a shrinking that takes longer than reading helps nobody."""


def shrink(
    law: Callable[[Any, Sequence[E]], Fault | None],
    reducer: Any,
    events: Sequence[E],
    fault: Fault,
    tries_max: int = TRIES_MAX,
) -> tuple[list[E], Fault]:
    """Return events, of those given and in their order, that still break `law`, and how they break it.

    Where nothing can be left out (any more, or within `tries_max`), that is what is left.
    """
    kept = list(events[: fault.prefix_size])
    size, tries, folded = len(kept), 0, 0
    while size > 1:
        size = -(-size // 2)
        position = 0
        while position < len(kept) > 1:
            shorter = kept[:position] + kept[position + size :]
            tries, folded = tries + 1, folded + len(shorter)
            if tries > tries_max or folded > EVENTS_MAX:
                return kept, fault
            found = _still(law, reducer, shorter)
            if found is None:
                position += size
            else:
                kept, fault = shorter[: found.prefix_size], found
    return kept, fault


def _still(
    law: Callable[[Any, Sequence[E]], Fault | None], reducer: Any, events: Sequence[E]
) -> Fault | None:
    try:
        return law(reducer, events)
    except ReducerError:  # without those events it breaks an earlier law, which is another failure
        return None
