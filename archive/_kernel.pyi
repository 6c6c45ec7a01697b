"""Types of the native kernel; what its functions do is said by `archive.twin`, which does the same."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

_Row = TypeVar("_Row")
_Answer = TypeVar("_Answer")
_Event = TypeVar("_Event")

def leaf_hashes(entries: Iterable[bytes], /) -> list[bytes]: ...
def pair_up(level: Sequence[bytes], /) -> list[bytes]: ...
def unbundle(value: bytes, width: int, /) -> list[bytes] | None: ...
def bundle_hashes(value: bytes, /) -> list[bytes] | None: ...
def seal_many(
    begin: bytes, drafts: Iterable[Any], random: bytes, /
) -> tuple[list[bytes], list[bytes], list[bytes]]: ...
def parse_rows(row: type[_Row], rows: Iterable[bytes], /) -> list[_Row | None] | None: ...
def plain_rows(value: bytes, at: int, /) -> tuple[int, int, list[bytes], list[int]]: ...
def pick_rows(
    value: bytes,
    first: int,
    start: int,
    stop: int,
    shard: int,
    shards: int,
    wanted: bytes | None,
    known: dict[bytes, _Answer],
    /,
) -> tuple[int, int, list[int], list[int], list[tuple[int, ...]], list[_Answer | None]] | None: ...
def open_rows(rows: Iterable[bytes], keys: Iterable[bytes], /) -> list[tuple[bytes, bytes, bytes] | None]: ...
def read_events(
    indices: list[int],
    bundles: Iterable[bytes],
    places: list[int],
    keys: Iterable[bytes],
    special: bytes,
    event: type[_Event],
    decode: Callable[[bytes], Any],
    client_time: Callable[[Any, int], int],
    depth_max: int,
    /,
) -> list[_Event | None]: ...
def brackets(payload: bytes, /) -> int: ...
