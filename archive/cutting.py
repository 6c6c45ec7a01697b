"""Where the values of a commit are cut.  Pure.

LMDB keeps a value of more than about 2,000 bytes on pages of its own, and the last of them is on average half empty.
So rows and leaves are bundled, and a bundle ends where it fills its pages; what then remains of its stretch is put in
small values, which share pages.  Never does a value cross a multiple of 256, so that the bundle of leaves that C2SP
wants is some values, joined, and one entry by itself is found without reading more than 256.

>>> [stop - start for start, stop in cuts(0, [600] * 256, 32)]
[252, 1, 1, 1, 1]

What a value holds: `archive.bundles`.  What else a commit writes: `archive.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

BUNDLE_ENTRIES: Final = 256
BUNDLE_BYTES_MAX: Final = 1 << 20
PAGE: Final = 4_096
INLINE_MAX: Final = 2_022
"""The longest value that shares a page: half a page without its header, less node header and key."""
_PAGE_HEADER: Final = 16
_SMALL: Final = 662
"""Small values are joined up to this length: six to a page, as larger ones leave more of it empty."""
_NODE: Final = 18
"""Bytes that a small value takes beside itself: header, key and pointer."""
_SLACK: Final = 1.1
"""What small values take on pages that they seldom fill; measured 1.04 for leaves, 1.1 for rows of 600 bytes."""


def cuts(first: int, sizes: Sequence[int], bundle_min: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each value for parts of these sizes, their lengths included, from index `first` on.

    Stretches of fewer than `bundle_min` parts are put one by one: a lone writer's entries are read one by one, too.
    """
    for start, stop in _stretches(first, sizes):
        if stop - start < bundle_min:
            yield from ((at, at + 1) for at in range(start, stop))
            continue
        full = stop - _apart(sizes[start:stop])
        if start < full:
            yield start, full
        yield from _small(full, stop, sizes)


def _stretches(first: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut at multiples of 256 and at 1 MiB."""
    start, end = 0, len(sizes)
    while start < end:
        stop = min(start + BUNDLE_ENTRIES - (first + start) % BUNDLE_ENTRIES, end)
        if sum(sizes[start:stop]) <= BUNDLE_BYTES_MAX:
            yield start, stop
        else:
            yield from _within(start, stop, sizes)
        start = stop


def _within(start: int, stop: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut at 1 MiB; a part that is longer stands by itself."""
    total = 0
    for at in range(start, stop):
        if at > start and total + sizes[at] > BUNDLE_BYTES_MAX:
            yield start, at
            start, total = at, 0
        total += sizes[at]
    yield start, stop


def _apart(sizes: Sequence[int]) -> int:
    """Return how many parts at the end of a stretch are better kept in small values: the rest fills its pages."""
    total = rest = sum(sizes)
    if total <= INLINE_MAX:
        return 0
    count, full = 0, (total + _PAGE_HEADER) // PAGE * PAGE - _PAGE_HEADER
    for size in reversed(sizes):
        if rest <= full:
            break
        if size > INLINE_MAX:
            return 0
        rest, count = rest - size, count + 1
    apart = total - rest
    cost = _SLACK * (apart + _NODE * (1 + apart // _SMALL))
    return count if cost < _pages(total) - _pages(rest) else 0


def _pages(size: int) -> int:
    """Return the bytes on disk of a value with pages of its own."""
    return -(-(size + _PAGE_HEADER) // PAGE) * PAGE if size else 0


def _small(start: int, stop: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut so that each value shares a page."""
    total = 0
    for at in range(start, stop):
        if total and total + sizes[at] > _SMALL:
            yield start, at
            start, total = at, 0
        total += sizes[at]
    if start < stop:
        yield start, stop
