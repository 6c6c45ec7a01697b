"""Reading public leaves in bulk: a whole stretch of the log at once, at the speed of the hash function.

A private leaf has 58 bytes, always.  So a bundle of private leaves is a table with rows of 60 bytes, two of them the
length; whether it is one shows in four columns, and what it says is read off in columns, too.  Only bundles that hold
something else are taken apart leaf by leaf.

>>> from archive.bundles import bundle
>>> leaf = bytes([1, 1]) + (5).to_bytes(8) + bytes(48)
>>> scanned = scan_leaves([(bytes(8), bundle([leaf, leaf], 2))], 0, 2, Findings())
>>> scanned.hashes[0] == leaf_hash(leaf), scanned.first_s, scanned.last_s
(True, 5, 5)

Hashes of a stretch kept one by one would be most of what a check holds in memory; so whoever can do with them bundle
by bundle gives a `take`, and none is kept.

Private rows are read by `archive.rowscan`; both are used by `archive.fsck` and by the check over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from archive.bundles import unbundle
from archive.cutting import BUNDLE_ENTRIES
from archive.entry import LEAF_CONTROL, LEAF_PRIVATE_SIZE, control_body, parse_leaf
from archive.errors import FormatError
from archive.findings import Findings, span
from archive.kernel import kernel
from merkle import leaf_hash

Take = Callable[[list[bytes]], None]

_RECORD = LEAF_PRIVATE_SIZE + 2
_COLUMNS = ((0, 0), (1, LEAF_PRIVATE_SIZE), (2, 1), (3, 1))
"""Bytes that every private leaf has in its bundle: length (two), version, kind."""
_TABLE = np.dtype([("head", "V4"), ("time", ">u8"), ("rest", "V48")])


@dataclass
class Leaves:
    """What a stretch of leaves says."""

    start: int
    count: int = 0
    """How many leaves were read."""
    hashes: list[bytes] = field(default_factory=list)
    """Leaf hashes, one an entry, unless somebody else took them."""
    bundles: list[tuple[int, bytes]] = field(default_factory=list)
    """First index and bytes, if they were asked for."""
    controls: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Bodies of control entries by index."""
    malformed: set[int] = field(default_factory=set)
    first_s: int | None = None
    last_s: int | None = None
    whole: bool = True
    """Whether every entry of the stretch was there."""

    @property
    def stop(self) -> int:
        """Index after the last leaf read."""
        return self.start + self.count


def scan_leaves(
    pairs: Iterable[tuple[bytes, bytes]],
    start: int,
    stop: int,
    found: Findings,
    *,
    keep: bool = False,
    take: Take | None = None,
) -> Leaves:
    """Return what (key, bundle) pairs say about the entries start <= index < stop.

    Findings go to `found`: "leaves", "entry", "time".  With `keep`, the bundles are handed back as well.  With `take`,
    it is called with the hashes of each bundle, in order, and they are not handed back.
    """
    leaves, times = Leaves(start), np.zeros(stop - start, dtype=np.uint64)
    take = leaves.hashes.extend if take is None else take
    for key, value in pairs:
        if not _in_order(key, leaves, stop, found):
            break
        first = leaves.stop
        hashes = _bundle(value, leaves, times, found)
        if not hashes:
            break
        take(hashes)
        if keep:
            leaves.bundles.append((first, value))
    if leaves.stop < stop:
        leaves.whole = False
        found.add(
            "leaves", leaves.stop, f"{span(leaves.stop, stop - 1)}: not there, or not to be read", "missing"
        )
    _order(leaves, times[: leaves.count], found)
    return leaves


def _in_order(key: bytes, leaves: Leaves, stop: int, found: Findings) -> bool:
    index = int.from_bytes(key)
    if len(key) == 8 and index == leaves.stop and index < stop:
        return True
    if len(key) == 8 and index > leaves.stop:
        return False  # what is missing is reported once, by the caller
    found.add(
        "leaves",
        leaves.stop,
        f"a bundle of leaves stands under key {key.hex()}, where none may begin",
        "order",
    )
    return False


def _bundle(value: bytes, leaves: Leaves, times: npt.NDArray[np.uint64], found: Findings) -> list[bytes]:
    """Return the hashes of a bundle's leaves, none of them beyond the stretch."""
    at = leaves.count
    if _is_table(value):
        hashes = kernel.bundle_hashes(value)
        seconds = np.frombuffer(value, dtype=_TABLE)["time"]
    else:
        hashes, seconds = _one_by_one(value, leaves, found)
    excess = at + len(hashes) - len(times)
    if (
        excess > 0
        or leaves.stop // BUNDLE_ENTRIES != (leaves.stop + max(len(hashes), 1) - 1) // BUNDLE_ENTRIES
    ):
        found.add("leaves", leaves.stop, f"its bundle holds {len(hashes)} leaves, which is too many", "stray")
    hashes = hashes[: len(times) - at]
    times[at : at + len(hashes)] = seconds[: len(hashes)]
    leaves.count += len(hashes)
    return hashes


def _is_table(value: bytes) -> bool:
    rows, rest = divmod(len(value), _RECORD)
    return not rest and all(value[at::_RECORD].count(byte) == rows for at, byte in _COLUMNS)


def _one_by_one(value: bytes, leaves: Leaves, found: Findings) -> tuple[list[bytes], npt.NDArray[np.uint64]]:
    hashes: list[bytes] = []
    seconds: list[int] = []
    try:
        for index, leaf in enumerate(unbundle(value, 2), leaves.stop):
            seconds.append(_time_of(index, leaf, leaves, found, seconds))
            hashes.append(leaf_hash(leaf))
    except FormatError as error:
        found.add("leaves", leaves.stop, str(error), "unreadable")
    return hashes, np.array(seconds, dtype=np.uint64)


def _time_of(index: int, leaf: bytes, leaves: Leaves, found: Findings, before: list[int]) -> int:
    try:
        parsed = parse_leaf(leaf)
        if parsed.kind == LEAF_CONTROL:
            leaves.controls[index] = control_body(parsed)
    except FormatError as error:
        leaves.malformed.add(index)
        found.add("entry", index, str(error), "unreadable")
        return before[-1] if before else int.from_bytes(leaf[2:10])
    return parsed.time_s


def _order(leaves: Leaves, times: npt.NDArray[np.uint64], found: Findings) -> None:
    if not len(times):
        return
    leaves.first_s, leaves.last_s = int(times[0]), int(times[-1])
    for at in np.flatnonzero(times[1:] < times[:-1]):
        detail = f"its archive time {int(times[at + 1])} is before that of the entry before, {int(times[at])}"
        found.add("time", leaves.start + int(at) + 1, detail, "order")
