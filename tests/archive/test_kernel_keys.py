"""The table of data keys from which the native kernel reads events: whose key is found, forgotten, never another one's.

Its twin keeps none, so that what is tested here beside arguments is the native one's own.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import Share, twin
from archive.bundles import bundle
from archive.datakey import DataKey
from archive.entry import NO_ID, Header, encode_header, row_prefix
from archive.kernel import Kernel
from tests.archive import spec
from tests.archive.test_kernel import BEGIN, KERNELS, chance, draft, native, outcome


def row_of(*subjects: int) -> bytes:
    """Return the bundle of one row about these subjects, under a key that is their first one's number."""
    key = DataKey(spec.u64(subjects[0]) * 4)
    header = encode_header(Header(f"student:{subjects[0]}", 1, 5, "", "", "json", {"doc_id": "d"}, {}))
    made = draft(head=row_prefix(1, subjects, 0) + NO_ID, data_key=key, header=header, payload=b"7")
    return bundle(twin.seal_many(BEGIN, [made], chance(1))[1], 4)


def test_keys_are_found_by_the_subject_of_a_row() -> None:
    """Whoever is not known is asked for once; a row about several is nobody's, and is left to the reader."""
    keys, numbers = native.Keys(100), [0, 5, 2**64 - 1, 5]
    bundles = [*map(row_of, numbers), row_of(5, 6)]
    if native is not twin:
        assert keys.unknown(bundles, [4] * 5) == numbers
    keys.put(5, spec.u64(5) * 4)
    keys.put(0, bytes(32))
    how = (lambda **fields: fields, json.loads, max, 200)
    found, left = native.read_events([1, 2, 3, 4, 5], bundles, [4] * 5, keys, b"module:", how)
    if native is not twin:
        assert keys.unknown(bundles, [4] * 5) == [2**64 - 1]
        assert left == [2, 4]
        assert [one and (one["index"], one["data"], one["keys"]["student"]) for one in found] == [
            (1, 7, "0"), (2, 7, "5"), None, (4, 7, "5"), None,
        ]  # fmt: skip
        assert found[1]["keys"]["student"] is found[3]["keys"]["student"], "one string for all of a subject"
    keys.clear()
    assert (len(keys), native.read_events([1], bundles[:1], [4], keys, b"", how)) == (0, ([None], [0]))


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200), st.integers(-1, 12))
def test_a_table_of_keys_forgets_and_never_errs(steps: list[tuple[int, bool]], size: int) -> None:
    """However many subjects come by, no more keys than asked for are held, and none is ever another one's."""
    keys, how = native.Keys(size), (lambda **fields: fields, json.loads, max, 200)
    for number, put in steps:
        one = row_of(number)
        if put:
            keys.put(number, spec.u64(number) * 4)
        unknown = keys.unknown([one], [4])
        assert unknown in ([], [number])
        assert not (put and unknown)
        (event,), left = native.read_events([1], [one], [4], keys, b"module:", how)
        assert native is twin or bool(unknown) == bool(left)
        assert left or event["keys"] == {"doc_id": "d", "student": str(number)}
        assert len(keys) <= max(size, 2)


@pytest.mark.parametrize("kernel", KERNELS, ids=["twin", "native"])
def test_what_is_no_key_is_refused(kernel: Kernel) -> None:
    """A key of another length, or the number of nobody, is a mistake of the caller."""
    keys = kernel.Keys(9)
    assert outcome(lambda: keys.put(1, bytes(31))) is ValueError
    assert outcome(lambda: keys.put(-1, bytes(32))) is OverflowError
    assert outcome(lambda: keys.put(2**64, bytes(32))) is OverflowError
    assert len(keys) == 0


def test_reading_events_keeps_nothing_but_keys() -> None:
    """A thousand calls, most of them with rows that are refused, leave as many blocks of memory as before."""
    whole, other, damaged = row_of(1), row_of(2), row_of(3)[:-30] + bytes(30)
    how = (lambda **fields: fields, json.loads, max, 200)

    def use(keys: Any) -> None:
        for number in (1, 3, 4):
            keys.put(number, spec.u64(number) * 4)
        some = [whole, other, damaged, whole]
        keys.unknown(some, [4] * 4)
        native.read_events([1, 2, 3, 4], some, [4] * 4, keys, b"module:", how)
        native.read_events([1], [whole], [4], keys, b"", how)
        outcome(lambda: native.read_events([1], [whole], [4], keys, b"module:", (print, len, max, 200)))
        outcome(lambda: native.read_events([1], [whole], [], keys, b"module:", how))
        outcome(lambda: native.read_events([1], ["text"], [4], keys, b"module:", how))  # type: ignore[list-item]
        native.pick_rows(whole, 0, 0, 9, Share(), {b"": ["reducer"]})

    keys = native.Keys(4)
    use(keys)
    gc.collect()
    before, watched = sys.getallocatedblocks(), sys.getrefcount(whole)
    for _ in range(300):
        use(keys)
        use(native.Keys(2))
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
    assert sys.getrefcount(whole) == watched


def test_a_table_may_be_emptied_while_rows_are_opened() -> None:
    """One thread reads, another one forgets and learns: each row is its event, or is left to the reader."""
    keys, numbers, wrong, over = native.Keys(64), list(range(40)), [0], threading.Event()
    bundles, how = (
        [row_of(number) for number in numbers],
        (lambda **fields: fields, json.loads, max, 200),
    )

    def disturb() -> None:
        while not over.is_set():
            keys.clear()
            for number in numbers:
                keys.put(number, spec.u64(number) * 4)

    other = threading.Thread(target=disturb)
    other.start()
    for _ in range(300):
        found, _ = native.read_events(numbers, bundles, [4] * 40, keys, b"module:", how)
        wrong[0] += sum(one is not None and one["keys"]["student"] != str(at) for at, one in enumerate(found))
    over.set()
    other.join()
    assert wrong == [0]
