"""A commit, planned in memory: every byte follows from the arguments, and is cut where C2SP wants it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    APPEND_TABLES,
    TABLES,
    ControlDraft,
    Draft,
    Head,
    LmdbStore,
    Log,
    MemoryStore,
    Planned,
    Write,
    load_head,
    plan,
)
from archive.bundles import bundle
from archive.cutting import INLINE_MAX, PAGE, cuts
from archive.datakey import DataKey
from archive.entry import RANDOM_SIZE, Header, encode_header, row_prefix
from tests.archive import spec
from tests.checker import Roots, parts

ORIGIN = "example.org/log"
KEY = DataKey(bytes(32))
HEADER = encode_header(Header("student:ann", 1, 2, "", "", "json", {}, {}))


def draft(payload: bytes = b"{}", sequence: int = 1) -> Draft:
    """Return a draft of one event."""
    return Draft(0, bytes(16), row_prefix(1, (0,), 0) + bytes(16), bytes(32), KEY, sequence, HEADER, payload)


def planned(head: Head, drafts: Sequence[Draft | ControlDraft], now_s: int = 5, seed: int = 0) -> Planned:
    """Return a plan with the randomness of a seed; the note is the text itself."""
    random = bytes([seed]) * (RANDOM_SIZE * len(drafts))
    return plan(head, ORIGIN, drafts, now_s, random, str.encode)


def table(writes: Sequence[Write], name: str) -> list[tuple[bytes, bytes]]:
    """Return what is written to one table, in the order of its keys."""
    return sorted((key, value) for one, key, value in writes if one == name and value is not None)


drafts = st.lists(
    st.one_of(
        st.builds(draft, st.binary(max_size=50), st.integers(1, 9)),
        st.builds(ControlDraft, st.dictionaries(st.text("ab", max_size=3), st.integers(), max_size=2)),
    ),
    min_size=1,
    max_size=40,
)


@given(drafts, st.integers(0, 2**40), st.integers(0, 255))
def test_the_same_arguments_give_the_same_bytes(
    drafts: list[Draft | ControlDraft], now_s: int, seed: int
) -> None:
    """A plan looks at nothing but its arguments, and changes none of them."""
    head = planned(Head(), [draft()]).head
    before = (head, list(drafts))
    first = planned(head, drafts, now_s, seed)
    assert planned(head, drafts, now_s, seed) == first
    assert (head, drafts) == before


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.data())
def test_a_growing_log_is_what_the_pages_say(batches: list[int], data: st.DataObject) -> None:
    """Nodes, blocks, roots and checkpoints of several commits equal those computed from the leaves."""
    store, head, sizes = MemoryStore(TABLES), Head(), []
    for count in batches:
        made = planned(
            head, [draft(b"%d" % number) for number in range(count)], data.draw(st.integers(0, 99))
        )
        store.commit(made.writes)
        head = made.head
        sizes.append(head.size)
    with store.view() as view:
        content = {name: list(view.scan(name)) for name in TABLES}
        assert load_head(view) == head
    leaves, rows = parts(content["leaves"], 2), parts(content["rows"], 4)
    roots = Roots(leaves)
    assert len(leaves) == len(rows) == sum(batches)
    assert content["nodes"] == [
        (b"\x01" + spec.u64(index), roots.between(256 * index, 256)) for index in range(len(leaves) // 256)
    ]
    assert [value[53:] for _, value in content["blocks"]] == [roots.between(0, size) for size in sizes]
    assert [key for key, _ in content["checkpoints"]] == [spec.u64(size) for size in sizes]
    times = [leaf[2:10] for leaf in leaves]
    assert times == sorted(times)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_joined_values_are_c2sp_bundles(batches: list[int]) -> None:
    """The values between two multiples of 256, joined, are the bundle that `/log/tile/entries` serves."""
    store, head = MemoryStore(TABLES), Head()
    for count in batches:
        made = planned(head, [draft()] * count)
        store.commit(made.writes)
        head = made.head
    with store.view() as view:
        leaves = [leaf for _, leaf in Log(view, head.size).leaves(0, head.size)]
        for start in range(0, head.size, 256):
            values = view.scan("leaves", spec.u64(start), spec.u64(start + 256))
            joined = b"".join(value for _, value in values)
            assert joined == bundle(leaves[start : start + 256], 2)
            assert joined == b"".join(spec.u16(len(leaf)) + leaf for leaf in leaves[start : start + 256])


@given(
    st.integers(0, 600), st.lists(st.integers(60, 3_000), min_size=1, max_size=600), st.sampled_from([1, 32])
)
def test_cuts_cover_everything_once(first: int, sizes: list[int], least: int) -> None:
    """Wherever a commit begins, each entry stands in one value, in order, and no value crosses a multiple of 256."""
    pieces = list(cuts(first, sizes, least))
    assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])]
    assert pieces[-1][1] == len(sizes)
    assert all((first + start) // 256 == (first + stop - 1) // 256 for start, stop in pieces)
    assert all(stop - start == 1 or sum(sizes[start:stop]) <= 1 << 20 for start, stop in pieces)


@pytest.mark.parametrize(("size", "least"), [(60, 1), (300, 32), (620, 32)])
@pytest.mark.parametrize("count", [100, 256, 1_000])
def test_values_fill_their_pages(size: int, least: int, count: int) -> None:
    """A long value ends shortly before a page does: what would begin another page is put in small values."""
    pieces = [(stop - start) * size for start, stop in cuts(2, [size] * count, least)]
    long = [piece for piece in pieces if piece > INLINE_MAX]
    empty = sum(-(piece + 16) % PAGE for piece in long)
    assert empty < 0.3 * PAGE * len(long) or len(long) * PAGE < 3 * count


def test_bundles_are_cut_at_256() -> None:
    """In the database, too, values end at the multiples of 256, those of leaves and those of rows."""
    head = planned(Head(), [draft()] * 200).head
    writes = planned(head, [draft()] * 400).writes
    for name in ("leaves", "rows"):
        assert {200, 256, 512} <= {int.from_bytes(key, "big") for key, _ in table(writes, name)}


def test_bundles_are_cut_at_a_mebibyte() -> None:
    """A value holds as many rows as a mebibyte does, and no more; a row that is larger stands alone."""
    rows = table(planned(Head(), [draft(bytes(8 << 10))] * 250).writes, "rows")
    (size,) = {len(row) for row in parts(rows, 4)}
    fit = (1 << 20) // (size + 4)
    assert [int.from_bytes(key, "big") for key, _ in rows[:2]] == [0, fit]
    assert [len(value) for _, value in rows] == [fit * (size + 4), (250 - fit) * (size + 4)]
    mixed = [draft()] * 40 + [draft(bytes(2 << 20))] + [draft()] * 40
    keys = {int.from_bytes(key, "big") for key, _ in table(planned(Head(), mixed).writes, "rows")}
    assert {0, 40, 41} <= keys


def test_short_stretches_of_rows_go_singly() -> None:
    """Fewer than 32 rows are put one by one: whoever sends one by one reads one by one; leaves never are."""
    for count, singly in ((1, True), (31, True), (32, False), (256, False)):
        writes = planned(Head(), [draft()] * count).writes
        assert (len(table(writes, "rows")) == count) == singly
        assert len(table(writes, "leaves")) < max(2, count)


def test_nodes_of_a_second_tile_level() -> None:
    """At 65,536 entries the first node of tile level 2 is written, over 256 of level 1."""
    made = planned(Head(), [ControlDraft({})] * 65_536)
    nodes = dict(table(made.writes, "nodes"))
    leaf = spec.sha256(b"\0" + spec.control_leaf(5, {}))
    level = leaf
    for _ in range(8):
        level = spec.sha256(b"\x01" + level + level)
    assert nodes[b"\x01" + spec.u64(255)] == level
    for _ in range(8):
        level = spec.sha256(b"\x01" + level + level)
    assert nodes[b"\x02" + spec.u64(0)] == level == made.block.root
    assert len(nodes) == 257


def test_time_never_decreases() -> None:
    """A clock that was set back is lifted to the time of the entry before."""
    first = planned(Head(), [draft()], now_s=100)
    back = planned(first.head, [draft()], now_s=40)
    onward = planned(back.head, [draft()], now_s=101)
    assert [made.head.time_s for made in (first, back, onward)] == [100, 100, 101]
    times = [
        int.from_bytes(table(made.writes, "leaves")[0][1][4:12], "big") for made in (first, back, onward)
    ]
    assert times == [100, 100, 101]


def test_each_entry_has_randomness_of_its_own() -> None:
    """Salt and nonce of an entry are its own share of the random bytes: no two entries share any."""
    random = bytes(range(2 * RANDOM_SIZE))
    made = plan(Head(), ORIGIN, [draft(), draft()], 5, random, str.encode)
    rows = parts(table(made.writes, "rows"), 4)
    for at, row in enumerate(rows):
        own = random[at * RANDOM_SIZE : (at + 1) * RANDOM_SIZE]
        assert row[28:40] == own[32:]
        assert KEY.decrypt(row[28:40], row[40:-4], row[:28])[:32] == own[:32]


def test_a_plan_fits_tables_that_only_grow(tmp_path: Path) -> None:
    """The writes of a commit are in an order that LMDB's append tables take, commit after commit."""
    store = LmdbStore(tmp_path, TABLES, append=APPEND_TABLES)
    head = Head()
    for count in (1, 300, 40, 256):
        made = planned(head, [draft()] * count)
        store.commit(made.writes)
        head = made.head
    with store.view() as view:
        assert load_head(view) == head
    store.close()
