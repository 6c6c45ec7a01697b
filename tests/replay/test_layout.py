"""The layout: no two states share a place, a save of a long backlog is short, what is torn is not misread."""

from __future__ import annotations

from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import MemoryStore, Write
from replay import STATE_TABLES, Marker, StoredSlot, Waiting, layout, name_of, read_marker, state_key
from replay.layout import decode_stored, encode_marker, encode_stored, read_backlog
from tests.replay.stored import LONG

longest = st.sampled_from(["", "\0", LONG, LONG[:-1] + "e"])
values = st.text(st.characters(codec="utf-8"), max_size=200) | longest
keys = st.lists(values, max_size=3).map(tuple)
backlog_steps = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.booleans()), max_size=12)


@given(keys, keys)
def test_different_keys_have_different_places(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """No two keys share a database key, however long, and each fits into the store beside a position."""
    assert (state_key("pages", one) == state_key("pages", other)) == (one == other)
    assert len(bytes(8) + state_key("x" * 128, one)) <= 511


@given(keys)
def test_a_place_says_whose_it_is(key: tuple[str, ...]) -> None:
    """The name of the reducer can be read off a database key, whatever the key holds, zeros included."""
    assert name_of(state_key("time_on_task", key)) == "time_on_task"


def test_a_save_of_a_long_backlog_is_short() -> None:
    """Of a backlog that is stored, a save writes again no more than its last chunk."""
    waiting = Waiting(list(range(100_000)), kept=99_999, stored=99_999)
    ((number, packed),) = waiting.chunks()
    assert number == 99_999 // 1_024
    assert packed is not None
    assert len(packed) <= 8 * 1_024


@given(backlog_steps, st.integers(1, 4))
def test_backlogs_are_stored_in_chunks(steps: list[tuple[int, int, bool]], chunk: int) -> None:
    """Whatever is added to backlogs, and whenever one is bound and begins anew, what is loaded is what waits."""
    store = MemoryStore(STATE_TABLES)
    waits: dict[int, list[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK", chunk)
        for number, (subject, more, bound) in enumerate(steps):
            stored_now = len(waits.get(subject, []))
            kept = [] if bound else waits.get(subject, [])
            waits[subject] = [*kept, *range(number * 100, number * 100 + more)]
            change = Waiting(waits[subject], len(kept), stored_now)
            store.commit(
                [
                    Write("backlog", subject.to_bytes(8) + at.to_bytes(4), packed)
                    for at, packed in change.chunks()
                ]
            )
            with store.view() as view:
                assert read_backlog(view) == {one: indices for one, indices in waits.items() if indices}


@pytest.mark.parametrize(
    "rows",
    [
        {bytes(12): b"1234567"},
        {bytes(8): b"12345678"},
        {bytes(11) + b"\1": b"12345678"},
        {bytes(12): bytes(8 * 1_023), bytes(11) + b"\1": bytes(8)},
    ],
    ids=["torn", "without a number", "without its first chunk", "after a short chunk"],
)
def test_a_backlog_with_a_hole_is_none(rows: dict[bytes, bytes]) -> None:
    """A chunk that is missing, torn or cut short is found, and no backlog is taken for a shorter one."""
    store = MemoryStore(STATE_TABLES)
    store.commit([Write("backlog", key, value) for key, value in rows.items()])
    with store.view() as view, pytest.raises(ValueError, match=r"chunk|multiple of item size|not a multiple"):
        read_backlog(view)


@given(st.integers(0, 2**63), st.none() | st.builds(StoredSlot, st.integers(1, 9), keys, st.integers(0, 99),
       st.none(), st.none(), st.binary(max_size=20), st.none() | st.binary(max_size=9)))  # fmt: skip
def test_a_state_is_read_as_it_was_written(saved_at: int, slot: StoredSlot | None) -> None:
    """A value gives back its state, or that there is none any more; its first eight bytes are when it was saved."""
    value = encode_stored(saved_at, slot)
    assert (int.from_bytes(value[:8]), decode_stored(value)) == (saved_at, slot)
    assert decode_stored(None) is None


@given(st.binary(max_size=60) | st.integers(0, 99).map(lambda at: encode_stored(at, None)))
def test_a_torn_state_is_never_another_error(data: bytes) -> None:
    """Any bytes are no state any more, or the one documented error: none are a state by accident."""
    if len(data) == 12 and data[8:] == crc32(data[:8]).to_bytes(4):
        assert decode_stored(data) is None
        return
    with pytest.raises(msgspec.DecodeError):
        decode_stored(data)


@pytest.mark.parametrize("data", [None, b"", b"\xc1", b"\x90", b"\x80"])
def test_a_marker_that_cannot_be_read_is_none(data: bytes | None) -> None:
    """A torn or foreign marker counts as a missing one."""
    assert read_marker(data) is None


def test_a_marker_of_another_layout_is_none() -> None:
    """What an older or a newer version arranged otherwise is not recognised; what this one wrote is."""
    marker = Marker(layout.LAYOUT, 7, bytes(32), [("seen", 1, "00")], 9)
    assert read_marker(encode_marker(marker)) == marker
    for other in (layout.LAYOUT - 1, layout.LAYOUT + 1):
        assert read_marker(encode_marker(msgspec.structs.replace(marker, layout=other))) is None


def test_a_front_has_room_for_the_states_of_many_modules_in_many_shards() -> None:
    """It maps all of them at once, and a process has 2^47 addresses (x86-64; as many or more elsewhere)."""
    shards, modules = 64, 30
    assert shards * modules * layout.MAP_SIZE < 1 << 47
