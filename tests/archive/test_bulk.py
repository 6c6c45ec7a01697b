"""Reading in bulk must say what reading one by one says, about any bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    Findings,
    FormatError,
    IntegrityError,
    check_row,
    duplicates,
    parse_leaf,
    parse_row,
    scan_leaves,
)
from archive.bundles import bundle, unbundle
from archive.duplicates import IdRuns
from archive.entry import encode_control
from archive.rowscan import EachRows, id_table, scan_rows
from merkle import leaf_hash
from tests.archive.test_formats import LEAF, ROWS

LEAVES = st.one_of(
    st.integers(0, 3).map(lambda time_s: LEAF[:2] + time_s.to_bytes(8) + LEAF[10:]),
    st.integers(0, 3).map(lambda time_s: encode_control(time_s, {"control": "start"})),
    st.binary(max_size=70),
)


def pairs(bundles: list[list[bytes]], width: int) -> list[tuple[bytes, bytes]]:
    """Return bundles as they are stored, one behind the other."""
    starts = accumulate(map(len, bundles), initial=0)
    return [(first.to_bytes(8), bundle(parts, width)) for first, parts in zip(starts, bundles, strict=False)]


def good_leaf(data: bytes) -> bool:
    """Tell whether bytes are a leaf."""
    try:
        return bool(parse_leaf(data))
    except FormatError:
        return False


@given(st.lists(st.lists(LEAVES, min_size=1, max_size=8), min_size=1, max_size=8))
def test_leaves_in_bulk(bundles: list[list[bytes]]) -> None:
    """Hashes, malformed leaves and steps back in time are those of each leaf by itself."""
    found, leaves = Findings(), [one for parts in bundles for one in parts]
    scanned = scan_leaves(pairs(bundles, 2), 0, len(leaves), found)
    assert scanned.hashes == [leaf_hash(one) for one in leaves]
    taken = list[list[bytes]]()
    assert scan_leaves(pairs(bundles, 2), 0, len(leaves), Findings(), take=taken.append).hashes == []
    assert taken == [[leaf_hash(one) for one in parts] for parts in bundles]
    assert scanned.whole
    assert (
        scanned.malformed
        == {at for at, one in enumerate(leaves) if not good_leaf(one)}
        == {one.index for one in found if one.check == "entry"}
    )
    if not scanned.malformed:
        times = [parse_leaf(one).time_s for one in leaves]
        back = [at for at in range(1, len(times)) if times[at] < times[at - 1]]
        assert [one.index for one in found if one.check == "time"] == back


@given(st.binary(max_size=200), st.integers(1, 4))
def test_any_bytes_as_leaves(data: bytes, stop: int) -> None:
    """Whatever stands where leaves should: it is read, or found; never raised, never taken for more than is there."""
    found = Findings()
    scanned = scan_leaves([(bytes(8), data)], 0, stop, found)
    assert len(scanned.hashes) <= stop
    assert scanned.whole == (len(scanned.hashes) == stop)
    assert scanned.whole or list(found)


def noted(seen: dict[int, bytes]) -> EachRows:
    """Return what takes note of rows by index."""
    return lambda first, rows: seen.update(enumerate(rows, first))


def good_row(data: bytes) -> bool:
    """Tell whether bytes are a row, with the right checksum."""
    try:
        check_row(data)
        return bool(parse_row(data))
    except (FormatError, IntegrityError):
        return False


ANY_ROW = st.one_of(
    st.sampled_from([*ROWS, b""]), st.binary(max_size=150), st.sampled_from(ROWS).map(lambda r: r[:-1])
)


@given(st.lists(st.lists(ANY_ROW, min_size=1, max_size=6), min_size=1, max_size=6))
def test_rows_in_bulk(bundles: list[list[bytes]]) -> None:
    """Rows that are empty, damaged or good, and the ids of the good ones, are those of each row by itself."""
    found, rows, seen = Findings(), [one for parts in bundles for one in parts], dict[int, bytes]()
    scanned = scan_rows(pairs(bundles, 4), 0, len(rows), found, noted(seen))
    assert scanned.empty == {at for at, one in enumerate(rows) if not one}
    assert seen == {at: one for at, one in enumerate(rows) if good_row(one)}
    assert scanned.unread == {at for at, one in enumerate(rows) if one and not good_row(one)}
    ids = {at: parse_row(one).identifier for at, one in seen.items()}
    read = [bytes(scanned.identifiers[at : at + 16]) for at in range(0, len(scanned.identifiers), 16)]
    assert dict(zip(scanned.indices, read, strict=True)) == {
        at: one for at, one in ids.items() if one != bytes(16)
    }


@given(st.binary(max_size=300), st.integers(1, 4))
def test_any_bytes_as_rows(data: bytes, stop: int) -> None:
    """Whatever stands where rows should, every entry is accounted for: empty, damaged, or taken as a row."""
    found, seen = Findings(), dict[int, bytes]()
    scanned = scan_rows([(bytes(8), data)], 0, stop, found, noted(seen))
    assert set(range(stop)) <= scanned.empty | scanned.unread | seen.keys()


@pytest.mark.parametrize("width", [2, 4])
def test_a_bundle_begins_where_the_last_one_ended(width: int) -> None:
    """Gaps, overlaps and foreign keys are named."""
    part = LEAF if width == 2 else ROWS[0]
    one = bundle([part], width)
    scan: Any = scan_leaves if width == 2 else scan_rows
    for keys in ([bytes(8), (2).to_bytes(8)], [bytes(8), bytes(8)], [bytes(7), bytes(8)], [b"\xff" * 8]):
        found = Findings()
        scan([(key, one) for key in keys], 0, 3, found)
        assert {finding.check for finding in found} == {"leaves" if width == 2 else "rows"}


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0", b"\0\0\0\1", b"\xff\xff\xff"])
def test_a_bundle_ends_with_its_last_part(width: int, rest: bytes) -> None:
    """Bytes behind the last leaf or row are found even where every entry is there."""
    one = bundle([LEAF if width == 2 else ROWS[0]], width)
    scan: Any = scan_leaves if width == 2 else scan_rows
    for behind in ([], [((1).to_bytes(8), one)]):
        found = Findings()
        scan([(bytes(8), one + rest), *behind], 0, 1 + len(behind), found)
        assert ("leaves" if width == 2 else "rows") in {finding.check for finding in found}


@pytest.mark.parametrize("width", [2, 4])
def test_a_bundle_within_another_is_found(width: int) -> None:
    """An entry that stands twice is found even where every entry is there."""
    part = LEAF if width == 2 else ROWS[0]
    scan: Any = scan_leaves if width == 2 else scan_rows
    found = Findings()
    pairs = [(bytes(8), bundle([part] * 3, width)), ((2).to_bytes(8), bundle([part], width))]
    scan(pairs, 0, 3, found)
    assert [(finding.index, finding.kind) for finding in found] == [(3, "order")]


@pytest.mark.parametrize("width", [2, 4])
def test_a_bundle_does_not_cross_a_multiple_of_256(width: int) -> None:
    """The values of a C2SP bundle, joined, must be that bundle."""
    part = LEAF if width == 2 else ROWS[0]
    scan: Any = scan_leaves if width == 2 else scan_rows
    for first, wrong in ((250, True), (256, False)):
        found = Findings()
        scan([(first.to_bytes(8), bundle([part] * 10, width))], first, first + 10, found)
        assert bool(list(found)) is wrong


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=9), max_size=6),
    st.integers(1, 8),
)
def test_every_repeated_id_is_found(runs: list[list[tuple[int, int]]], piece_ids: int) -> None:
    """However ids are spread over runs and pieces, and however many are the same or begin alike, equal ones meet."""
    hashes = [(one << 59).to_bytes(8) + (rest << 62).to_bytes(8) for run in runs for one, rest in run]
    at = 0
    with IdRuns(piece_ids) as ids:
        for run in runs:
            table = np.array([[one << 59 for one, _ in run], range(at, at + len(run))], dtype=np.uint64)
            ids.add(table[:, np.argsort(table[0], kind="stable")])
            at += len(run)
        found = list(ids.repeated(hashes.__getitem__))
    last: dict[bytes, int] = {}
    expected = []
    for index, one in enumerate(hashes):
        if one in last:
            expected.append((last[one], index))
        last[one] = index
    assert sorted(found) == sorted(expected)


def test_one_that_begins_alike_does_not_hide_two_that_are_equal() -> None:
    """Of A, B, A with eight bytes in common it is the third that repeats the first."""
    hashes = [b"8 bytes." + rest for rest in (b"A" * 8, b"B" * 8, b"A" * 8)]
    table = np.array([[int.from_bytes(hashes[0][:8])] * 3, range(3)], dtype=np.uint64)
    for piece_ids in (1, 2, 3, 9):
        with IdRuns(piece_ids) as ids:
            ids.add(table)
            assert list(ids.repeated(hashes.__getitem__)) == [(0, 2)]


@given(st.lists(st.lists(st.integers(0, 6), max_size=20), max_size=6), st.integers(1, 8))
def test_no_more_ids_are_compared_at_once_than_said(runs: list[list[int]], piece_ids: int) -> None:
    """Even where somebody gave every entry the same id: what is compared fits into memory, whatever the hashes are."""
    sizes = list[int]()

    def within(parts: list[duplicates.Words]) -> Iterator[Iterator[int]]:
        sizes.append(sum(part.shape[1] for part in parts))
        return iter(())

    def equal(alike: list[int], _: Callable[[int], bytes]) -> Iterator[tuple[int, int]]:
        sizes.append(len(alike))
        return iter(())

    with pytest.MonkeyPatch.context() as patch, IdRuns(piece_ids) as ids:
        patch.setattr(duplicates, "_within", within)
        patch.setattr(duplicates, "_equal", equal)
        for run in runs:
            ids.add(np.array([sorted(run), range(len(run))], dtype=np.uint64))
        list(ids.repeated(lambda _: bytes(16)))
    assert max(sizes, default=0) <= piece_ids


def test_ids_are_sorted_by_their_first_eight_bytes() -> None:
    """A run is what `IdRuns` takes."""
    scanned = scan_rows([], 0, 0, Findings())
    scanned.identifiers += b"\x02" * 16 + b"\x01" * 16
    scanned.indices.extend([4, 9])
    assert id_table(scanned).tolist() == [[0x0101010101010101, 0x0202020202020202], [9, 4]]
    assert list(unbundle(b"", 2)) == []
