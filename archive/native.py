"""The kernel in C, with the signatures of `archive.twin`.

The C side judges nothing.  What it finds unsound it hands back as such, and the twin, asked for that one, says what
is wrong: so errors are the same because they are the same.  Importing this raises ImportError where the extension was
not built, or finds no libcrypto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from archive import _kernel, _kernel_prepare, twin
from archive._kernel import Keys, brackets, excess, leaf_hashes, pair_up, plain_rows, seal_many
from archive._kernel_prepare import find_ids
from archive.datakey import DataKey
from archive.entry import Draft, Opened, Row, decode_header, encode_header
from archive.picking import Share
from archive.twin import How, Learn, Picked, Shared
from archive.vault import SubjectKeys
from archive.wire import Submission

_Answer = TypeVar("_Answer")
_Event = TypeVar("_Event")

__all__ = [
    "Keys",
    "brackets",
    "bundle_hashes",
    "draft_many",
    "excess",
    "find_ids",
    "leaf_hashes",
    "open_rows",
    "pair_up",
    "parse_rows",
    "pick_rows",
    "plain_rows",
    "read_events",
    "seal_many",
    "unbundle",
]


def unbundle(value: bytes, width: int) -> list[bytes]:
    """Do what `twin.unbundle` does."""
    parts = _kernel.unbundle(value, width)
    return twin.unbundle(value, width) if parts is None else parts


def bundle_hashes(value: bytes) -> list[bytes]:
    """Do what `twin.bundle_hashes` does."""
    hashes = _kernel.bundle_hashes(value)
    return twin.bundle_hashes(value) if hashes is None else hashes


def draft_many(
    submissions: Sequence[Submission],
    identifiers: Sequence[bytes],
    keys: Sequence[SubjectKeys],
    sequences: Sequence[int],
    remembered: dict[bytes, Shared],
    learn: Learn,
) -> list[Draft]:
    """Do what `twin.draft_many` does."""
    return _kernel_prepare.draft_many(
        Draft, submissions, identifiers, keys, sequences, remembered, learn, encode_header
    )


def parse_rows(rows: Iterable[bytes]) -> list[Row | None]:
    """Do what `twin.parse_rows` does."""
    rows = list(rows)
    parsed = _kernel.parse_rows(Row, rows)
    return twin.parse_rows(rows) if parsed is None else parsed


def pick_rows(
    value: bytes, first: int, start: int, stop: int, share: Share, known: dict[bytes, _Answer]
) -> Picked[_Answer]:
    """Do what `twin.pick_rows` does."""
    picked = _kernel.pick_rows(value, first, start, stop, *share, known)
    return twin.pick_rows(value, first, start, stop, share, known) if picked is None else picked


def open_rows(rows: Sequence[Row], keys: Sequence[DataKey]) -> list[Opened]:
    """Do what `twin.open_rows` does."""
    found = _kernel.open_rows([row.data for row in rows], [key.raw for key in keys])
    sound = [one for one in found if one is not None]
    if len(sound) < len(rows):
        return twin.open_rows(rows, keys)
    return [Opened(salt, decode_header(header), payload) for salt, header, payload in sound]


def read_events(
    indices: list[int],
    bundles: Sequence[bytes],
    places: list[int],
    keys: Keys,
    special: bytes,
    how: How[_Event],
) -> tuple[list[_Event | None], list[int]]:
    """Do what `twin.read_events` may do, for the usual ones."""
    return _kernel.read_events(indices, bundles, places, keys, special, *how)
