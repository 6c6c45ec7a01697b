"""What is done for entries before they are sealed: both kernels give the same, and what they give is what is meant.

The writing half is in `test_kernel`; here are the search for ids in a run, and drafts.
"""

from __future__ import annotations

import gc
import random
import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import SubjectKeys, Submission, twin
from archive.datakey import DataKey
from archive.drafting import UNWRITABLE, Drafter, are_distinct
from archive.entry import NO_ID, decode_header
from tests.archive.site import Site, event
from tests.archive.test_kernel import KERNELS, native, outcome, same

KEYS = SubjectKeys(7, "student:ann", bytes(range(32)), DataKey(bytes(32)))
ID = bytes(range(16))

words = st.integers(0, 2**64 - 1)
runs = st.lists(words | st.integers(0, 9) | st.integers(2**64 - 9, 2**64 - 1), max_size=60).map(sorted)
texts = st.text(max_size=40) | st.sampled_from(["x" * 31, "x" * 32, "x" * 255, "x" * 256, "ü" * 40_000])
plain = st.dictionaries(
    st.text(max_size=4), st.none() | st.integers(0, 2**63) | st.text(max_size=4), max_size=3
)
odd = st.sampled_from([None, True, -1, 2**70, 0.5, "\ud800", b"bytes", object(), ["list"], {"a": [1]}])
submissions = st.builds(
    Submission,
    kind=st.integers(1, 4),
    subject=texts,
    payload=st.binary(max_size=9),
    received_us=st.sampled_from(
        [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1]
    ),
    source=texts,
    sender=texts,
    form=texts,
    keys=st.dictionaries(st.text(max_size=4), texts, max_size=3),
    extra=plain,
    id=st.none() | texts,
)


def numbers(ids: Sequence[bytes]) -> list[int]:
    """Return what a run sorts by: the first 8 bytes of each hash."""
    return [int.from_bytes(one[:8]) for one in ids]


@given(runs, st.lists(words | st.integers(0, 9), max_size=20))
def test_ids_are_found_wherever_they_stand(run: list[int], more: list[int]) -> None:
    """Each id is found at every place that has its number, and at no other; twice the same is no rarity here."""
    wanted = [number.to_bytes(8) + ID[:8] for number in [*more, *run[::3]]]
    found = same("find_ids", np.array(run, dtype=np.uint64), wanted)
    due = [(i, at) for i, one in enumerate(numbers(wanted)) for at, here in enumerate(run) if here == one]
    assert found == due
    assert same("find_ids", array("Q"), wanted) == [], "an empty buffer may lie anywhere"


@pytest.mark.parametrize("count", [1, 2, 3, 1_000, 5_000])
@pytest.mark.parametrize("shift", [0, 20, 40, 63])
def test_numbers_that_are_not_spread_evenly_are_found_too(count: int, shift: int) -> None:
    """Where a number stands is guessed from its size; a wrong guess costs time and finds the same."""
    chance = random.Random(count * 64 + shift)
    run = np.array(sorted(chance.getrandbits(64) >> shift for _ in range(count)), dtype=np.uint64)
    there = set(run[:1_000].tolist())
    near = dict.fromkeys(one + step for one in there for step in (-1, 0, 1) if 0 <= one + step < 2**64)
    wanted = [one.to_bytes(8) + ID[:8] for one in near]
    found = same("find_ids", run, wanted)
    assert {at for _, at in found} == {at for at, one in enumerate(run.tolist()) if one in near}
    assert all(run[at].tobytes()[::-1] == wanted[which][:8] for which, at in found)


@pytest.mark.parametrize(
    ("prefixes", "ids"),
    [(bytes(16), [b"short"]), (bytes(16), [ID, bytes(17)]), (bytes(15), [ID]), (None, [ID]), (bytes(8), 5)],
)
def test_what_is_no_id_or_no_run_is_refused_alike(prefixes: Any, ids: Any) -> None:
    """No memory beyond a run, or beyond an id, is ever looked at."""
    assert same("find_ids", prefixes, ids) in (ValueError, TypeError)


def drafted(kernel: Any, some: Sequence[Any], sequences: Sequence[int] | None = None) -> Any:
    """Return what a kernel makes of submissions of one subject, or its error; nothing is remembered before."""
    drafter = Drafter(bytes(32))
    count = len(some)
    numbers = range(1, count + 1) if sequences is None else sequences
    return outcome(
        lambda: kernel.draft_many(
            some, [ID] * count, [KEYS] * count, list(numbers), drafter._shared, drafter._learn
        )
    )


@given(st.lists(submissions, max_size=4), texts)
def test_drafts_are_the_same_bytes(some: list[Submission], subject: str) -> None:
    """Neither kernel nor what is remembered changes a header or a row, and a header says what was sent."""
    some = [msgspec.structs.replace(one, subject=subject) for one in some]
    first, second = (drafted(kernel, some) for kernel in KERNELS)
    assert first == second
    if isinstance(first, list):
        assert first == [drafted(twin, [one], [at])[0] for at, one in enumerate(some, 1)]
        for at, (one, made) in enumerate(zip(some, first, strict=True), 1):
            header = decode_header(made.header)
            given_id = {} if one.id is None else {"id": one.id}
            assert (header.subject, header.sequence, header.received_us) == (one.subject, at, one.received_us)
            assert header.extra == {**one.extra, **given_id}
            assert (made.subject, made.sequence, made.payload) == (7, at, one.payload)


@pytest.mark.parametrize(
    "field", ["kind", "subject", "received_us", "source", "sender", "form", "keys", "extra", "id"]
)
@given(value=odd)
def test_what_is_of_an_unusual_type_is_written_alike(field: str, value: Any) -> None:
    """A field that a caller got wrong is the same bytes in either, or one of the errors by which it is refused."""
    one = event(b"{}", **{field: value})
    first, second = (drafted(kernel, [event(b"{}"), one]) for kernel in KERNELS)
    if isinstance(first, type) and isinstance(second, type):
        assert issubclass(first, UNWRITABLE)
        assert issubclass(second, UNWRITABLE)
    else:
        assert first == second


@pytest.mark.parametrize("lacking", [0, 1, 2, 3])
def test_a_submission_without_its_id_keys_or_number_is_an_error(lacking: int) -> None:
    """Lists of different lengths are refused, so that no entry gets what belongs to another."""
    lists: list[list[Any]] = [[event(b"{}")] * 2, [ID] * 2, [KEYS] * 2, [1, 2]]
    lists[lacking].pop()
    assert same("draft_many", *lists, {}, Drafter(bytes(32))._learn) is ValueError


@pytest.mark.parametrize("kernel", KERNELS, ids=["twin", "native"])
def test_what_entries_share_is_worked_out_once(kernel: Any) -> None:
    """A class sends the same keys again and again: who is known is looked up, and no other takes his place."""
    learned: list[tuple[int, dict[str, str]]] = []
    drafter = Drafter(bytes(32))

    def learn(name: bytes | None, one: Submission, number: int) -> Any:
        learned.append((number, one.keys))
        return drafter._learn(name, one, number)

    others = [SubjectKeys(n, f"student:{n}", bytes(32), DataKey(bytes(32))) for n in (7, 8)]
    kinds = [event(b"{}"), event(b"{}", keys={"student": "ann", "doc_id": "d"}), event(b"{}", kind=2)]
    some = [one for one in kinds for _ in others]
    for _ in range(3):
        kernel.draft_many(some, [NO_ID] * 6, others * 3, [1] * 6, drafter._shared, learn)
    assert len(learned) == 6
    heads = kernel.draft_many(some, [NO_ID] * 6, others * 3, [1] * 6, drafter._shared, learn)
    assert len({one.head for one in heads}) == 6


def test_what_is_remembered_must_be_bytes() -> None:
    """The native kernel never takes another object for bytes, whoever filled the dictionary."""
    for bad in (None, (), (b"", b""), ("a", b"", b"", 0), [b"", b"", b"", 0]):
        with pytest.raises(TypeError):
            native.draft_many([event(b"{}")], [ID], [KEYS], [1], {}, lambda *_, bad=bad: bad)
    with pytest.raises(TypeError):
        native.draft_many([event(b"{}")], ["x" * 16], [KEYS], [1], {}, Drafter(bytes(32))._learn)  # type: ignore[list-item]


def test_nothing_is_lost_or_kept_by_mistake() -> None:
    """Hundreds of calls, half of them refused, leave as many references as before."""
    some = [event(b"%d" % n, id=str(n), extra={"n": n} if n % 2 else {}) for n in range(4)]
    bad = [*some, event(b"{}", extra={"o": object()})]
    run = np.arange(64, dtype=np.uint64)
    watched: list[Any] = [KEYS.tag_key, KEYS.data_key, ID, run, *[one.payload for one in some], *some]

    def use() -> None:
        assert len(drafted(native, some)) == 4
        assert drafted(native, bad) is TypeError
        native.find_ids(run, [bytes(16), ID])
        outcome(lambda: native.find_ids(run, [bytes(16), b""]))

    use()
    gc.collect()
    before = [sys.getrefcount(one) for one in watched]
    for _ in range(300):
        use()
    gc.collect()
    assert [sys.getrefcount(one) for one in watched] == before


@given(st.lists(st.binary(min_size=1, max_size=1) | st.just(NO_ID), max_size=8))
def test_distinct_means_no_id_twice(ids: list[bytes]) -> None:
    """Entries without an id are never repetitions of one another."""
    named = sorted(one for one in ids if one != NO_ID)
    assert are_distinct(ids) == all(one != other for one, other in pairwise(named))


def kept(some: Sequence[Submission], *, each: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, bytes]:
    """Return the answers to two blocks and the root; `each`: drafted one by one, whatever they are."""
    with monkeypatch.context() as patch:
        if each:
            patch.setattr("archive.archiver.are_plain", lambda _: False)
        archiver = Site().start()
        answers = [archiver.step(some[: len(some) // 2]), archiver.step(some[len(some) // 2 :])]
        return answers, archiver.root


@given(
    st.lists(
        st.builds(
            lambda name, payload, key, odd: event(
                payload, subject=f"student:{name}", keys={"student": name}, id=key, kind=1 + 8 * odd
            ),
            st.sampled_from("abc"),
            st.sampled_from([b"{}", b"[]"]),
            st.none() | st.sampled_from("123456789"),
            st.sampled_from([False] * 19 + [True]),
        ),
        max_size=12,
    )
)
def test_blocks_drafted_at_once_are_those_drafted_one_by_one(some: list[Submission]) -> None:
    """The quick way is taken only where it comes to the same: repetitions, conflicts and faults are answered alike."""
    with pytest.MonkeyPatch.context() as patch:
        assert kept(some, each=False, monkeypatch=patch) == kept(some, each=True, monkeypatch=patch)


def test_one_header_that_cannot_be_written_refuses_only_itself() -> None:
    """In a block of plain events one that cannot be written leaves no gap in its subject's numbers."""
    archiver = Site().start()
    answers = archiver.step([event(b"1"), event(b"2", extra={"far": 2**70}), event(b"3")])
    assert [type(one).__name__ for one in answers] == ["Receipt", "Refusal", "Receipt"]
    assert archiver._caches.sequence(0) == 0  # not learned before the next block is prepared
    archiver.step([event(b"4")])
    assert archiver._caches.sequence(0) == 2
