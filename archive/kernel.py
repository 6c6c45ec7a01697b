"""Which kernel runs: the native one where it was built, else its twin in Python.

    kernel.seal_many(begin, drafts, random) -> leaves, rows, leaf hashes         one pass over a commit
    kernel.parse_rows(data) -> rows             kernel.open_rows(rows, keys) -> openings

Both give the same bytes and raise the same errors (tests/archive/test_kernel.py); one is quicker (`make bench
ARGS="--only kernels"`).  `TREERING_KERNEL=python` forces the twin, `TREERING_KERNEL=native` refuses to go on without
the other; unset, the native one is taken if it can be.  Why there are two: docs/adr/0041-native-kernel.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from archive import twin
from archive.datakey import DataKey
from archive.entry import Draft, Opened, Row
from archive.picking import Share
from archive.twin import Learn, Picked, Shared
from archive.vault import KeyTable, SubjectKeys
from archive.wire import Submission

VARIABLE: Final = "TREERING_KERNEL"
_Answer = TypeVar("_Answer")


class Kernel(Protocol):
    """What is done for every entry, for many at once; each function is described in `archive.twin`."""

    def leaf_hashes(self, entries: Iterable[bytes], /) -> list[bytes]:
        """Return the leaf hash of each entry."""

    def pair_up(self, level: Sequence[bytes], /) -> list[bytes]:
        """Return the level above an even number of hashes."""

    def unbundle(self, value: bytes, width: int, /) -> list[bytes]:
        """Return the parts of a bundle."""

    def bundle_hashes(self, value: bytes, /) -> list[bytes]:
        """Return the leaf hash of each part of a bundle of leaves."""

    def find_ids(self, prefixes: Any, identifiers: Sequence[bytes], /) -> list[tuple[int, int]]:
        """Return which of these id hashes may stand in a run, and where."""

    def draft_many(
        self,
        submissions: Sequence[Submission],
        identifiers: Sequence[bytes],
        keys: Sequence[SubjectKeys],
        sequences: Sequence[int],
        remembered: dict[bytes, Shared],
        learn: Learn,
        /,
    ) -> list[Draft]:
        """Return the draft of each submission."""

    def seal_many(
        self, begin: bytes, drafts: Sequence[Draft], random: bytes, /
    ) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Return leaves, rows and leaf hashes of these drafts."""

    def parse_rows(self, rows: Iterable[bytes], /) -> list[Row | None]:
        """Return each row taken apart, None for an empty one."""

    def pick_rows(
        self, value: bytes, first: int, start: int, stop: int, share: Share, known: dict[bytes, _Answer], /
    ) -> Picked[_Answer]:
        """Return which rows of a bundle are wanted."""

    def plain_rows(self, value: bytes, at: int, /) -> tuple[int, int, list[bytes], list[int]]:
        """Return where the plain rows from byte `at` on end, how many they are, their id hashes and places."""

    def open_rows(self, rows: Sequence[Row], keys: Sequence[DataKey], /) -> list[Opened]:
        """Return what these rows committed to."""

    def read_events(
        self,
        indices: list[int],
        bundles: Sequence[bytes],
        places: list[int],
        keys: Any,
        special: bytes,
        how: Any,
        /,
    ) -> tuple[list[Any], list[int]]:
        """Return the event of each row that is usual, None for the others, and where those are."""

    @property
    def Keys(self) -> Callable[[int], KeyTable]:  # noqa: N802 - a class
        """Return the table of keys that `read_events` takes."""

    def brackets(self, payload: bytes, /) -> int:
        """Return how many `[` and `{` there are."""

    def excess(self, payload: bytes, values_max: int, depth_max: int, /) -> int:
        """Return 1 for JSON with too many values, 2 where it is nested too deep, else 0."""


def choose(environment: Mapping[str, str]) -> Kernel:
    """Return the kernel that the environment asks for; raise ImportError or ValueError if there is no such one."""
    wanted = environment.get(VARIABLE, "auto")
    if wanted not in {"auto", "native", "python"}:
        raise ValueError(f"{VARIABLE} is {wanted!r}; it may be auto, native or python")
    if wanted != "python":
        try:
            from archive import native  # noqa: PLC0415 - not even loaded where the twin is wanted
        except ImportError as error:
            if wanted == "native":
                raise ImportError(f"{VARIABLE}=native, but it was not built: {error}") from None
        else:
            return native
    return twin


kernel: Final = choose(os.environ)
"""The kernel of this process."""


def kernel_files() -> dict[str, Path]:
    """Return the compiled files that the kernel of this process was loaded from, by name: none where the twin runs."""
    if kernel is twin:
        return {}
    return {
        name: Path(str(sys.modules[f"archive.{name}"].__file__)) for name in ("_kernel", "_kernel_prepare")
    }
