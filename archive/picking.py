r"""Picking: which rows of a log a reader wants, by what they say openly.

A row names its key fields by routes, each two bytes of a field's hash and eight of a value's (docs/formats/entry.md).
A reader has a *share* of the values: those whose routing hash falls to one shard of several, or the one that it looks
for.  All else that it asks of a row is which fields are there.  So an *outline* says all: for each route the field's
code, and whether its value is of the share.  There are only as many outlines as there are kinds of event, however many
people send them; what a reader has decided about one holds for every row that has it.

>>> route = b"SC" + bytes(7) + b"\5"
>>> outline(route, Share(1, 4)), outline(route, Share(0, 4)), outline(route, Share(wanted=route[2:]))
(b'SC\x01', b'SC\x00', b'SC\x01')

Who decides: `replay.routing`.  The loop over a bundle is the kernel's, `archive.twin.pick_rows`.
"""

from __future__ import annotations

from typing import NamedTuple

from archive.entry import ROUTE_SIZE


class Share(NamedTuple):
    """Routing hashes that are a reader's: those of shard `shard` (from 0) of `shards`, or the one `wanted` alone."""

    shard: int = 0
    shards: int = 1
    wanted: bytes | None = None

    def holds(self, route: bytes) -> bool:
        """Return whether a routing hash (8 bytes) is of this share."""
        if self.wanted is not None:
            return route == self.wanted
        return int.from_bytes(route) % self.shards == self.shard


def outline(routes: bytes, share: Share) -> bytes:
    """Return three bytes for each of a row's routes: the field's code, and 1 if the value is of the share, else 0."""
    cuts = range(0, len(routes), ROUTE_SIZE)
    return b"".join(
        [routes[at : at + 2] + _HOLDS[share.holds(routes[at + 2 : at + ROUTE_SIZE])] for at in cuts]
    )


def row_at(bundle: bytes, place: int) -> bytes:
    """Return the row that begins at a byte of a bundle, behind its length (docs/formats/entry.md)."""
    return bundle[place : place + int.from_bytes(bundle[place - 4 : place])]


def subjects_at(bundle: bytes, place: int) -> tuple[int, ...]:
    """Return whom the row that begins at a byte of a bundle is about; it must be a row."""
    end = place + 4 + 8 * bundle[place + 2]
    return tuple([int.from_bytes(bundle[at : at + 8]) for at in range(place + 4, end, 8)])


_HOLDS = (b"\0", b"\1")
