"""What each entry of a commit becomes, whatever stands beside it, and under which keys it is kept."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from archive import (
    APPEND_TABLES,
    TABLES,
    ControlDraft,
    Draft,
    Head,
    IntegrityError,
    LmdbStore,
    Planned,
    Write,
    plan,
)
from archive.block import NO_BLOCK
from archive.entry import RANDOM_SIZE
from merkle import Frontier
from tests.archive import spec
from tests.archive.test_plan import ORIGIN, draft, planned, table
from tests.checker import Roots, parts

ENTRIES: list[Draft | ControlDraft] = [
    draft(b"first", 1),
    draft(b"second", 2),
    ControlDraft({"control": "one"}),
    ControlDraft({"control": "two"}),
]
SHARES = [bytes([number]) * RANDOM_SIZE for number in range(len(ENTRIES))]


def entries(made: Planned) -> list[tuple[bytes, bytes]]:
    """Return leaf and row of each entry of a plan."""
    leaves, rows = parts(table(made.writes, "leaves"), 2), parts(table(made.writes, "rows"), 4)
    return list(zip(leaves, rows, strict=True))


def test_an_empty_log_stands_at_nothing() -> None:
    """Size, time and block are 0, and there is no block before the first."""
    assert Head() == Head(Frontier(), time_s=0, block=0, previous=NO_BLOCK)
    made = planned(Head(), [draft()], now_s=0)
    assert (made.block.number, made.block.first, made.block.previous, made.head.time_s) == (0, 0, NO_BLOCK, 0)
    assert (made.head.block, made.head.size, made.head.previous) == (1, 1, made.block.hash())


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_an_entry_is_the_same_alone_and_among_others(order: tuple[int, ...]) -> None:
    """Private and control entries in any order: each has its own share of chance, its row or none, and its hash."""
    alone = [
        entries(plan(Head(), ORIGIN, [one], 5, share, str.encode))[0]
        for one, share in zip(ENTRIES, SHARES, strict=True)
    ]
    assert [bool(row) for _, row in alone] == [True, True, False, False]
    assert [leaf for leaf, _ in alone[2:]] == [
        spec.control_leaf(5, one.body) for one in ENTRIES if isinstance(one, ControlDraft)
    ]
    random = b"".join(SHARES[number] for number in order)
    together = plan(Head(), ORIGIN, [ENTRIES[number] for number in order], 5, random, str.encode)
    assert entries(together) == [alone[number] for number in order]
    assert together.block.root == Roots([leaf for leaf, _ in entries(together)]).between(0, len(order))


def test_control_entries_alone_have_no_rows() -> None:
    """The empty row of a control entry is empty, also where a commit holds nothing else."""
    made = planned(Head(), ENTRIES[2:])
    assert [row for _, row in entries(made)] == [b"", b""]


def test_blocks_and_checkpoints_are_kept_under_numbers_of_eight_bytes() -> None:
    """A block under its own number, a checkpoint under the size that it speaks of: in order, as far as 64 bits go."""
    head = planned(Head(), [draft()] * 3).head
    made = planned(head, [draft()] * 2)
    assert [key for key, _ in table(made.writes, "blocks")] == [spec.u64(1)]
    assert [key for key, _ in table(made.writes, "checkpoints")] == [spec.u64(5)]


def test_lengths_count_towards_the_mebibyte() -> None:
    """Rows that would fit but for the four bytes before each are cut one earlier."""
    row = len(entries(planned(Head(), [draft(b"")]))[0][1])
    rows = table(planned(Head(), [draft(bytes(8_192 - row))] * 200).writes, "rows")
    assert [int.from_bytes(key, "big") for key, _ in rows] == [0, 127]
    rows = table(planned(Head(), [draft(bytes(8_188 - row))] * 200).writes, "rows")
    assert [int.from_bytes(key, "big") for key, _ in rows] == [0, 128]


def test_the_tables_of_a_commit_only_grow(tmp_path: Path) -> None:
    """Of leaves, rows, blocks and checkpoints none can be put before the last one: LMDB itself would refuse."""
    store = LmdbStore(tmp_path, TABLES, append=APPEND_TABLES)
    for name in ("leaves", "rows", "blocks", "checkpoints"):
        store.commit([Write(name, spec.u64(7), b"later")])
        with pytest.raises(IntegrityError, match=f"{name}: .* not beyond the last one"):
            store.commit([Write(name, spec.u64(6), b"earlier")])
    store.commit([Write("nodes", spec.u64(7), b"later"), Write("nodes", spec.u64(6), b"earlier")])
    store.close()
