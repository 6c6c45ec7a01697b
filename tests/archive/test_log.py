"""The log as readers see it: what was committed, up to the size they were given, and nothing beyond."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    TABLES,
    Archiver,
    FormatError,
    IntegrityError,
    Log,
    MemoryStore,
    NotFound,
    PublishedLog,
    Unavailable,
    Write,
    decode_block,
    load_head,
)
from archive.bundles import bundle
from archive.entry import LEAF_CONTROL, LEAF_PRIVATE, LEAF_PRIVATE_SIZE, encode_control
from archive.errors import OLDER_COPY
from merkle import leaf_hash, prove_inclusion, verify_inclusion
from tests.archive import spec
from tests.archive.site import Site, event
from tests.checker import parts, table

BATCHES = (1, 40, 300, 3, 1, 200, 256)


def grown() -> tuple[Site, Archiver]:
    """Return a log that grew by batches of several sizes, in bundles and singly."""
    site = Site()
    archiver = site.start()
    for number, count in enumerate(BATCHES):
        archiver.step([event(b"%d %d" % (number, one)) for one in range(count)])
    return site, archiver


SITE, ARCHIVER = grown()
LEAVES, ROWS = parts(table(SITE.log, "leaves"), 2), parts(table(SITE.log, "rows"), 4)
SIZES = [int.from_bytes(key, "big") for key, _ in table(SITE.log, "checkpoints")]
SIZE = SIZES[-1]


@given(st.integers(0, SIZE + 5), st.integers(0, SIZE + 5), st.sampled_from(SIZES))
def test_a_range_is_a_slice(start: int, stop: int, size: int) -> None:
    """Any range of leaves and rows, wherever values begin and end, is that slice, cut to the size."""
    with SITE.log.view() as view:
        log = Log(view, size)
        expected = range(start, min(stop, size))
        assert list(log.leaves(start, stop)) == [(index, LEAVES[index]) for index in expected]
        assert list(log.rows(start, stop)) == [(index, ROWS[index]) for index in expected]


def test_every_entry_by_its_index() -> None:
    """One leaf and one row at a time give what all at once do."""
    with SITE.log.view() as view:
        log = Log(view, SIZE)
        assert [log.leaf(index) for index in range(SIZE)] == LEAVES
        assert [log.row(index) for index in range(SIZE)] == ROWS


@pytest.mark.parametrize("size", SIZES)
def test_nothing_beyond_the_size_is_seen(size: int) -> None:
    """A log of an older size shows that size's entries, checkpoints, blocks and root, and no newer ones."""
    with SITE.log.view() as view:
        log = Log(view, size)
        for index in (-1, size, size + 1, SIZE):
            for read in (log.leaf, log.row):
                with pytest.raises(NotFound, match=f"the log has {size} entries"):
                    read(index)
        assert [one for one, _ in log.checkpoints()] == [one for one in SIZES if one <= size]
        assert log.checkpoint()[0] == size
        assert [block.size for block in log.blocks()] == [one for one in SIZES if one <= size]
        assert log.root() == spec.tree_root(LEAVES[:size])
        with pytest.raises(NotFound, match="no checkpoint covers"):
            log.covering(size)


def test_each_entry_is_covered_by_the_first_checkpoint_beyond_it() -> None:
    """The covering checkpoint of an entry is that of its own commit."""
    with SITE.log.view() as view:
        log = Log(view, SIZE)
        found = [log.covering(index)[0] for index in range(SIZE)]
    assert found == [min(size for size in SIZES if size > index) for index in range(SIZE)]


@given(st.integers(0, SIZE))
def test_roots_of_every_size(size: int) -> None:
    """Roots recomputed from stored nodes and leaves are those of the RFC's definition."""
    with SITE.log.view() as view:
        assert Log(view, SIZE).root(size) == spec.tree_root(LEAVES[:size])


@given(st.integers(0, SIZE - 1))
def test_every_entry_can_be_proved(index: int) -> None:
    """Stored nodes and leaves give an inclusion proof that verifies."""
    with SITE.log.view() as view:
        log = Log(view, SIZE)
        proof = prove_inclusion(index, SIZE, log.read_nodes)
        verify_inclusion(leaf_hash(LEAVES[index]), index, SIZE, log.root(), proof)


def test_an_empty_log() -> None:
    """Before the first commit there is the empty root and nothing else."""
    with Site().log.view() as view:
        log = Log(view, 0)
        assert log.root() == spec.tree_root([])
        assert [*log.leaves(0, 9), *log.rows(0, 9), *log.blocks(), *log.checkpoints()] == []
        with pytest.raises(NotFound):
            log.checkpoint()
        assert load_head(view).size == 0


def test_the_head_is_where_the_archiver_stands() -> None:
    """What a start loads is what the last commit left."""
    with SITE.log.view() as view:
        assert load_head(view) == ARCHIVER.head


@pytest.mark.parametrize("name", ["leaves", "rows"])
def test_a_missing_value_is_an_integrity_error(name: str) -> None:
    """A hole is never skipped: the reader learns which entry is missing."""
    for at in (0, 1, 2, -1):
        site, archiver = grown()
        pairs = table(site.log, name)
        key = pairs[at][0]
        first = int.from_bytes(key, "big")
        site.log.commit([Write(name, key, None)])
        with site.log.view() as view:
            log = Log(view, archiver.head.size)
            read = log.leaves if name == "leaves" else log.rows
            with pytest.raises(IntegrityError, match=f"entry {first} is missing"):
                list(read(0, log.size))
            with pytest.raises(IntegrityError, match=f"entry {first} is missing"):
                list(read(first, first + 1))


def no_node(site: Site) -> None:
    """Remove the first node."""
    site.log.commit([Write("nodes", table(site.log, "nodes")[0][0], None)])


def other_node(site: Site) -> None:
    """Change the last node."""
    key, _ = table(site.log, "nodes")[-1]
    site.log.commit([Write("nodes", key, bytes(32))])


def other_leaf(site: Site) -> None:
    """Change the last byte of the last leaf."""
    key, value = table(site.log, "leaves")[-1]
    site.log.commit([Write("leaves", key, value[:-1] + bytes((value[-1] ^ 1,)))])


def other_root(site: Site) -> None:
    """Change the root in the last block."""
    key, value = table(site.log, "blocks")[-1]
    site.log.commit([Write("blocks", key, value[:-1] + bytes((value[-1] ^ 1,)))])


def further_block(site: Site) -> None:
    """Let the last block claim one entry more."""
    key, value = table(site.log, "blocks")[-1]
    block = decode_block(value)
    site.log.commit([Write("blocks", key, value[:17] + spec.u32(block.count + 1) + value[21:])])


@pytest.mark.parametrize("harm", [no_node, other_node, other_leaf, other_root, further_block])
def test_a_start_refuses_tables_that_disagree(harm: Callable[[Site], None]) -> None:
    """Leaves, nodes and blocks are held against each other before anything is appended."""
    site, _ = grown()
    harm(site)
    with pytest.raises(IntegrityError):
        site.start()


def test_a_start_refuses_a_block_that_is_none() -> None:
    """Bytes that are no block stop the start."""
    site, _ = grown()
    site.log.commit([Write("blocks", spec.u64(99), b"?")])
    with pytest.raises(FormatError, match="not of version 1"):
        site.start()


# --- control entries -----------------------------------------------------------------------------

PRIVATE = bytes((1, LEAF_PRIVATE)) + bytes(LEAF_PRIVATE_SIZE - 2)
SIMILAR = bytes((1, LEAF_PRIVATE)) + b"\1" * (LEAF_PRIVATE_SIZE - 2)
SHORT = encode_control(0, {"control": "retry", "module": "a"})
ALIKE = encode_control(0, {"control": "x" * 34})
TWICE = encode_control(0, {"control": "y" * 94})
runs = st.lists(
    st.tuples(st.sampled_from([PRIVATE, SIMILAR, SHORT, ALIKE, TWICE]), st.integers(1, 150)), max_size=8
)


def test_some_control_entries_are_as_long_as_private_ones() -> None:
    """What the next test is about: a bundle cannot be told to be private by its length alone."""
    assert len(ALIKE) == LEAF_PRIVATE_SIZE
    assert len(TWICE) + 2 == 2 * (LEAF_PRIVATE_SIZE + 2)


@given(runs, st.data())
def test_control_entries_are_found_without_reading_the_others(
    lengths: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """In whatever bundles they lie, the control entries of a range are those that a reading of all leaves finds."""
    leaves = [leaf for leaf, count in lengths for _ in range(count)]
    store, at = MemoryStore(TABLES), 0
    while at < len(leaves):  # a bundle never crosses a multiple of 256
        end = min(at + data.draw(st.sampled_from([1, 2, 30, 256])), at // 256 * 256 + 256, len(leaves))
        store.commit([Write("leaves", at.to_bytes(8), bundle(leaves[at:end], 2))])
        at = end
    with store.view() as view:
        for _ in range(9):
            start, stop, size = (data.draw(st.integers(0, len(leaves))) for _ in range(3))
            log = Log(view, size)
            want = [one for one in log.leaves(start, stop) if one[1][1] == LEAF_CONTROL]
            assert list(log.controls(start, stop)) == want
        log = Log(view, len(leaves))
        assert [index for index, _ in log.controls(0, log.size + 9)] == [
            index for index, leaf in enumerate(leaves) if leaf[1] == LEAF_CONTROL
        ]


def test_control_entries_of_a_log_are_those_of_its_archiver() -> None:
    """What an archiver writes of itself and what it is asked to write are found, among the events of many commits."""
    site, archiver = grown()
    indices = [0, 1]
    for count in (1, 70, 300):
        indices.append(archiver.control({"control": "retry", "module": "a"}))
        archiver.step([event(b"%d" % one) for one in range(count)])
    with site.log.view() as view:
        log = Log(view, archiver.head.size)
        assert [index for index, _ in log.controls(0, log.size)] == indices
        assert all(leaf == log.leaf(index) for index, leaf in log.controls(0, log.size))


@pytest.mark.parametrize("which", ["first", "middle", "last", "short", "twice"])
def test_a_missing_bundle_is_no_absence_of_control_entries(which: str) -> None:
    """A skip or a retry that is lost would change states without a sign: whoever looks for them is told."""
    leaves = [SHORT if index % 100 == 7 else PRIVATE for index in range(700)]
    starts = {"first": 0, "middle": 256, "last": 512, "short": 256, "twice": 256}
    store, at = MemoryStore(TABLES), starts[which]
    rows = {start: leaves[start : start + 256] for start in range(0, 700, 256)}
    rows[at] = {"short": rows[at][:-1], "twice": rows[at] + rows[at][:1]}.get(which, [])
    store.commit(
        [Write("leaves", start.to_bytes(8), bundle(each, 2)) for start, each in rows.items() if each]
    )
    with store.view() as view:
        log = Log(view, 700)
        with pytest.raises(IntegrityError, match="table leaves: entry"):
            list(log.controls(0, 700))
        inside = {"last": (0, 512)}.get(which, (520, 700))
        assert [index for index, _ in log.controls(*inside)] == [
            index for index in range(*inside) if index % 100 == 7
        ]


def test_a_database_that_ends_before_what_was_published_shows_nothing() -> None:
    """An older copy that was brought back: what people saw may be gone from it, so every reader is told why, and where
    the handbook says what to do.
    """
    published = [SIZE]
    source = PublishedLog(SITE.log, lambda: published[0])
    with source.open() as log, source.open(SIZES[0]) as smaller:
        assert (log.size, smaller.size) == (SIZE, SIZES[0])
    published[0] = SIZE + 1
    for size in (None, SIZES[0]):
        with (
            pytest.raises(Unavailable, match=f"holds {SIZE} of the {SIZE + 1} entries") as caught,
            source.open(size),
        ):
            pass
        assert caught.value.section == OLDER_COPY
    with pytest.raises(Unavailable), PublishedLog(MemoryStore(TABLES), lambda: 1).open():
        pass
