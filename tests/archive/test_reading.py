"""Reading many entries at once gives what reading each by itself gives: events, openings, erasures, errors.

The yardstick is the plain way, written out here: open the row, take its header, read the event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    Event,
    FormatError,
    IntegrityError,
    InvalidEvent,
    MemoryStore,
    Opened,
    Row,
    Vault,
    Write,
    keys_of,
    open_row,
    parse_opening,
    parse_row,
    read_event,
    reading,
)
from archive.bundles import bundle
from archive.datakey import DataKey
from archive.entry import NO_ID, Draft, encode_header, leaf_prefix, row_prefix
from archive.kernel import Kernel
from archive.vault import TABLES, KeyTable
from tests.archive.test_kernel import KERNELS, chance, outcome

SPECIAL = "module:"
KEY = DataKey(bytes(32))

names = st.sampled_from(["student", "doc_id", "a:b", "", "é", "source", "x" * 70])
texts = st.text(max_size=12) | st.sampled_from(["", "ann", "\U0001f600" * 9, "x" * 300])
subjects = st.builds("{}:{}".format, names, texts) | texts | st.just("provisional:1")
senders = texts | st.sampled_from(["module:", "module:m", "modul", "anonymous"])
extras = st.fixed_dictionaries(
    {},
    optional={
        "id": texts,
        "conn": st.binary(max_size=9),
        "frame": st.integers(0, 2**64 - 1),
        "lock": st.just(b'{"source":"s"}'),
        "hops": st.integers(0, 9),
    },
)
headers = st.tuples(
    subjects,
    st.integers(0, 2**63),
    st.integers(0, 2**63) | st.just(-1),
    texts,
    senders,
    st.sampled_from(["json", "event", "lo", "", "other"]),
    st.dictionaries(names, texts, max_size=17),
    extras,
)
numbers = st.integers(-5, 2**53) | st.floats(allow_nan=False) | st.booleans() | st.none()
values: st.SearchStrategy[Any] = st.recursive(
    texts | numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "event": texts | numbers,
        "type": texts | numbers,
        "verb": st.dictionaries(st.just("id"), texts | numbers) | texts,
        "timestamp": numbers | st.sampled_from([10**15, 2**70, "1970-01-01T00:00:01Z"]),
        "metadata": st.dictionaries(st.just("ts"), numbers) | texts,
        "time": texts | st.just("1970-01-01T00:00:01Z"),
        "data": values,
        "auth": values,
        "keys": values,
    },
)
payloads = (
    (objects | values).map(lambda value: json.dumps(value).encode())
    | objects.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.binary(max_size=20)
    | st.sampled_from(
        [b"[" * 200 + b"]" * 200, b"[" * 201 + b"]" * 201, b'{"a":"\\ud83d"}', b'{"a":1}{', b""]
    )
)


def sealed(header: bytes, payload: bytes, key: DataKey = KEY, number: int = 0) -> Row:
    """Return the row of an entry with this header, sound or not."""
    head = row_prefix(1, (number,), 0) + NO_ID
    draft = Draft(number, NO_ID, head, bytes(32), key, 1, header, payload)
    (row,) = KERNELS[0].seal_many(leaf_prefix(0), [draft], chance(1))[1]
    return parse_row(row)


def plainly(index: int, row: Row, key: DataKey) -> Event | Opened:
    """Read an entry the plain way."""
    opened = parse_opening(open_row(row, key))
    header = opened.header
    if header.sender.startswith(SPECIAL) or set(header.extra) - {"id", "conn", "frame"}:
        return opened
    try:
        received_ms = header.received_us // 1_000
        return read_event(index, header.form, header.source, keys_of(header), received_ms, opened.payload)
    except InvalidEvent:
        return opened


def all_plainly(rows: Sequence[Row]) -> list[Event | Opened]:
    """Read entries the plain way; the first has index 5."""
    return [plainly(index, row, KEY) for index, row in enumerate(rows, 5)]


def read(by: Kernel, rows: Sequence[Row], key: DataKey = KEY) -> Any:
    """Read rows by one kernel; the first has index 5."""
    indices, columns, vault = list(range(5, 5 + len(rows))), bundled(rows), OneKey(key)
    return outcome(lambda: reading._read(by, indices, *columns, vault, SPECIAL).read)


class OneKey(Vault):
    """A vault in which all have the same key."""

    def __init__(self, key: DataKey) -> None:
        self.at_hand, self.cached, self._key = None, 64, key

    def data_keys(self, rows: Sequence[tuple[int, ...]]) -> list[DataKey | None]:
        """Return the key for each."""
        return [self._key] * len(rows)

    def lay_out(self, numbers: Iterable[int], table: KeyTable) -> None:
        """Put the key for each."""
        for number in numbers:
            table.put(number, self._key.raw)


def bundled(rows: Sequence[Row]) -> tuple[list[bytes], list[int]]:
    """Return for each row the bundle that it is in, two rows to a bundle, and its place there."""
    bundles, places = list[bytes](), list[int]()
    for start in range(0, len(rows), 2):
        pair = [row.data for row in rows[start : start + 2]]
        bundles += [bundle(pair, 4)] * len(pair)
        places += [4, 8 + len(pair[0])][: len(pair)]
    return bundles, places


def spelled(value: Any) -> bytes:
    """Return a value with its types, since 1 == 1.0 == True in Python; not where an object lies in memory."""
    return re.sub(r" object at 0x[0-9a-f]+", "", repr(value)).encode("utf-8", "surrogatepass")


@given(st.lists(st.tuples(headers, payloads), max_size=4))
def test_many_are_read_like_each(some: list[tuple[Any, bytes]]) -> None:
    """Subjects, forms, times, senders and payloads of every kind mean the same, whoever reads them."""
    rows = [sealed(encode_header(header), payload) for header, payload in some]
    due = outcome(partial(all_plainly, rows))
    for by in KERNELS:
        assert spelled(read(by, rows)) == spelled(due)


@given(headers, st.data())
def test_any_header_is_read_like_the_plain_way(header: Any, data: st.DataObject) -> None:
    """A header that is cut, longer, altered or spelled otherwise is what the plain way says, or its error."""
    good = encode_header(header)
    at = data.draw(st.integers(0, len(good) - 1))
    swapped = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    longer = msgspec.msgpack.encode([*header, 1])
    for one in (good[:at], good + b"\x00", swapped, longer, data.draw(st.binary(max_size=30))):
        row = sealed(one, b'{"event":"e","timestamp":7}')
        due = outcome(partial(all_plainly, [row]))
        for by in KERNELS:
            assert spelled(read(by, [row])) == spelled(due)


@pytest.mark.parametrize("by", KERNELS, ids=["twin", "native"])
def test_an_altered_row_stops_the_reading(by: Kernel) -> None:
    """One row under another key, or one that was altered, is an error and not an event less."""
    good = sealed(encode_header(("student:ann", 1, 5, "", "", "json", {}, {})), b"{}")
    bad = parse_row(good.data[:-20] + bytes([good.data[-20] ^ 1]) + good.data[-19:])
    assert read(by, [good, bad])[0] is IntegrityError
    assert read(by, [good], DataKey(bytes([1]) * 32))[0] is IntegrityError
    assert read(by, [sealed(b"\x90", b"{}")])[0] is FormatError


def test_the_erased_leave_a_gap_and_nothing_else() -> None:
    """Among hundreds of rows, those of erased subjects are None, each other one is in its place."""
    store = MemoryStore(TABLES)
    vault = Vault(store, bytes(32), lambda size: bytes([7]) * size)
    people = [f"student:{n}" for n in range(5)]
    keys = vault.admit(people)
    store.commit([Write("subjects", keys["student:2"].number.to_bytes(8), None)])
    rows = []
    for n in range(300):
        person = keys[people[n % 5]]
        header = encode_header((person.name, 1, n * 1_000, "", "", "json", {}, {"id": str(n)}))
        rows.append(sealed(header, b"[%d]" % n, person.data_key, person.number))
    pieces = list(reading.read_many(list(range(1_000, 1_300)), *bundled(rows), vault))
    found = list(chain.from_iterable(piece.read for piece in pieces))
    assert not any(piece.plain for piece in pieces)
    assert [at for at, one in enumerate(found) if one is None] == list(range(2, 300, 5))
    for at, one in enumerate(found):
        if isinstance(one, Event):
            assert (one.index, one.data, one.keys) == (1_000 + at, [at], {"student": str(at % 5)})
    assert list(reading.read_many([], [], [], vault)) == []


def test_whoever_is_erased_is_not_read_once_the_vault_has_forgotten() -> None:
    """A key at hand outlives an erasure only until `forget`, as every other remembered key does."""
    store = MemoryStore(TABLES)
    vault = Vault(store, bytes(32), lambda size: bytes([7]) * size)
    ann = vault.admit(["student:ann"])["student:ann"]
    row = sealed(encode_header((ann.name, 1, 0, "", "", "json", {}, {})), b"1", ann.data_key, ann.number)
    (before,) = reading.read_many([1], *bundled([row]), vault)
    store.commit([Write("subjects", ann.number.to_bytes(8), None)])
    vault.forget()
    (after,) = reading.read_many([1], *bundled([row]), vault)
    assert (before.plain, after) == (True, reading.Piece([None], plain=False))


def test_a_message_about_several_is_read_among_others() -> None:
    """A row about two people has a key of both, and comes in its place; so does a subject never seen before."""
    store = MemoryStore(TABLES)
    vault = Vault(store, bytes(32), lambda size: bytes([7]) * size)
    ann, bob = (vault.admit([name])[name] for name in ("student:ann", "student:bob"))
    header = encode_header((ann.name, 1, 0, "", "", "json", {}, {}))
    head = row_prefix(1, (ann.number, bob.number), 0) + NO_ID
    both = vault.data_key((ann.number, bob.number))
    draft = Draft(0, NO_ID, head, bytes(32), both, 1, header, b"2")
    (together,) = KERNELS[0].seal_many(leaf_prefix(0), [draft], chance(1))[1]
    alone = sealed(header, b"1", ann.data_key, ann.number)
    rows = [alone, parse_row(together), alone]
    (piece,) = reading.read_many([1, 2, 3], *bundled(rows), vault)
    assert piece.plain
    assert [one.data for one in piece.read if isinstance(one, Event)] == [1, 2, 1]


def test_large_rows_are_read_few_at_once() -> None:
    """What is read together has a bound in bytes, too, and a row above it is read alone; each keeps its place."""
    store = MemoryStore(TABLES)
    vault = Vault(store, bytes(32), lambda size: bytes([7]) * size)
    ann = vault.admit(["student:ann"])["student:ann"]
    header = encode_header((ann.name, 1, 0, "", "", "json", {}, {}))
    sizes = [
        10,
        reading.PIECE_BYTES // 2,
        reading.PIECE_BYTES // 3,
        reading.PIECE_BYTES // 3,
        5_000_000,
        10,
        10,
    ]
    rows = [sealed(header, b'"' + b"x" * size + b'"', ann.data_key, ann.number) for size in sizes]
    pieces = list(reading.read_many(list(range(7)), *bundled(rows), vault))
    assert [len(piece.read) for piece in pieces] == [3, 1, 1, 2]
    found = [one for piece in pieces for one in piece.read]
    assert [len(one.data) for one in found if isinstance(one, Event)] == sizes
