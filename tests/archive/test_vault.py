"""A vault gives the same keys whether they are remembered, read again or just made, and none that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import IntegrityError, MemoryStore, NotFound, Vault, View, Write
from archive.vault import TABLES, SubjectKeys

KEY = bytes(range(32))
PEOPLE = [f"student:{number}" for number in range(40)]


class Counting(MemoryStore):
    """A store that counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__(TABLES)
        self.views = self.commits = 0

    @contextmanager
    def view(self) -> Iterator[View]:
        """Count a view."""
        self.views += 1
        with super().view() as view:
            yield view

    def commit(self, writes: Sequence[Write]) -> None:
        """Count a commit."""
        self.commits += 1
        super().commit(writes)

    def taken(self) -> tuple[int, int]:
        """Return views and commits since the last call."""
        taken, self.views, self.commits = (self.views, self.commits), 0, 0
        return taken


def made(store: MemoryStore, cached: int = 65_536) -> Vault:
    """Open a vault on a store, with chance of a known seed for what is new in it."""
    return Vault(store, KEY, Random(7).randbytes, cached=cached)


def spelled(keys: SubjectKeys) -> tuple[int, str, bytes, bytes]:
    """Return keys as a value that can be compared."""
    return keys.number, keys.name, keys.tag_key, keys.data_key.raw


def erase(store: MemoryStore, number: int) -> None:
    """Destroy a subject's secret, as an erasure will."""
    store.commit([Write("subjects", number.to_bytes(8), None)])


def changed(store: MemoryStore, table: str, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Alter a value in the store."""
    with store.view() as view:
        value = view.get(table, key)
    assert value is not None
    store.commit([Write(table, key, change(value))])


people = st.lists(st.sampled_from(PEOPLE), max_size=12)
numbers = st.lists(st.integers(0, len(PEOPLE) - 1), min_size=1, max_size=3)


@given(st.integers(2, 12), st.lists(people | numbers.map(tuple), max_size=30), st.data())
def test_what_is_forgotten_is_read_again_as_it_was(
    cached: int, steps: list[list[str] | tuple[int, ...]], data: st.DataObject
) -> None:
    """However few keys are remembered: all calls agree with one another, and with a vault that remembers nothing."""
    store = Counting()
    vault, known = made(store, cached), dict[str, tuple[int, str, bytes, bytes]]()
    for step in steps:
        if isinstance(step, tuple):
            rows = [step, *data.draw(st.lists(numbers.map(tuple), max_size=8))]
            rows = [row for row in rows if max(row) < len(known)]
            keys = vault.data_keys(rows)
            assert [key and key.raw for key in keys] == [vault.data_key(row).raw for row in rows]
            assert [key and key.raw for key in keys] == [made(store).data_key(row).raw for row in rows]
            continue
        for name, found in vault.admit(step).items():
            assert known.setdefault(name, spelled(found)) == spelled(found)
        assert known.keys() >= set(step)
    for name, due in known.items():
        by_name = vault.find(name)
        assert by_name is not None
        assert due == spelled(by_name) == spelled(vault.keys(due[0]))
        assert due[3] == vault.data_key([due[0]]).raw
    assert sorted(one[0] for one in known.values()) == list(range(len(known)))


def test_a_batch_is_read_in_one_view() -> None:
    """However many are missing; those that are new take one view and one commit more, those remembered none."""
    store = Counting()
    vault = made(store)
    store.taken()
    vault.admit(PEOPLE)
    assert store.taken() == (2, 1)
    vault.admit(PEOPLE)
    assert store.taken() == (0, 0)
    again = made(store)
    store.taken()
    again.admit(PEOPLE)
    assert store.taken() == (1, 0)
    rows = [(number,) for number in range(40)] + [(1, 2), (2, 1), (1, 2)]
    again.data_keys(rows)
    assert store.taken() == (1, 0)
    again.data_keys(rows)
    assert again.data_key([2, 1]) is again.data_keys(rows)[-2]
    assert store.taken() == (0, 0)


def test_keys_that_are_read_ahead_are_at_hand() -> None:
    """In one view; who is erased or altered is passed over, and told when asked for."""
    store = Counting()
    made(store).admit(PEOPLE)
    erase(store, 7)
    changed(store, "subjects", (8).to_bytes(8), lambda value: value[:-1] + bytes([value[-1] ^ 1]))
    vault = made(store)
    store.taken()
    vault.read_ahead(range(40))
    assert store.taken() == (1, 0)
    assert [vault.keys(number).number for number in range(40) if number not in {7, 8}] == [
        *range(7),
        *range(9, 40),
    ]
    assert store.taken() == (0, 0)
    with pytest.raises(NotFound):
        vault.keys(7)
    with pytest.raises(IntegrityError):
        vault.keys(8)
    vault.read_ahead(range(7))
    assert store.taken() == (2, 0)


def test_the_order_of_subjects_counts() -> None:
    """A row about two people has another key than one about the same two in the other order, and than either alone."""
    vault = made(Counting())
    vault.admit(PEOPLE[:2])
    keys = vault.data_keys([(0, 1), (1, 0), (0,), (1,)])
    assert len({key.raw for key in keys if key is not None}) == 4


def test_no_more_keys_are_held_than_said() -> None:
    """A vault of any size takes the memory of those that are remembered."""
    vault = made(Counting(), cached=8)
    for start in range(0, 400, 5):
        vault.admit([f"student:{number}" for number in range(start, start + 5)])
    for number in range(400):
        vault.keys(number)
        vault.data_keys([(number,), (number, 399 - number)])
    held = [len(cache) for cache in (vault._by_name, vault._by_number, vault._data_keys)]
    assert [0 < one <= 8 for one in held] == [True] * 3


# --- who is not there ----------------------------------------------------------------------------


def test_an_erased_subject_is_nobody() -> None:
    """Alone it is NotFound, in a batch None; so is every row that it shares, and those of others are read as before."""
    store = Counting()
    keys = made(store).admit(PEOPLE)
    erase(store, keys["student:7"].number)
    number, other = keys["student:7"].number, keys["student:8"].number
    vault = made(store)
    assert [key is None for key in vault.data_keys([(other,), (number,), (other, number)])] == [
        False,
        True,
        True,
    ]
    for call in (
        lambda: vault.keys(number),
        lambda: vault.name(number),
        lambda: vault.data_key([number]),
        lambda: vault.data_key([other, number]),
    ):
        with pytest.raises(
            NotFound, match=f"subject {number} is not in the vault: erased, or never admitted"
        ):
            call()


def test_who_was_never_admitted_is_nobody() -> None:
    """A name gives None, a number NotFound; asking admits nobody."""
    store = Counting()
    vault = made(store)
    assert (vault.find("student:7"), vault.data_keys([(0,)])) == (None, [None])
    with pytest.raises(NotFound, match="never admitted"):
        vault.keys(0)
    assert vault.admit(["student:8"])["student:8"].number == 0


def test_what_is_forgotten_on_demand_is_asked_for_again() -> None:
    """Remembered keys outlive an erasure until they are forgotten; then nothing of the subject is left."""
    store = Counting()
    vault = made(store)
    number = vault.admit(PEOPLE)["student:7"].number
    vault.keys(number)
    vault.data_key([number])
    erase(store, number)
    assert vault.data_keys([(number,)]) != [None]
    vault.forget()
    assert vault.data_keys([(number,)]) == [None]
    with pytest.raises(NotFound):
        vault.keys(number)
    assert vault.find("student:7") is None


# --- what is not as it was -----------------------------------------------------------------------


def test_another_vault_key_is_refused_at_once() -> None:
    """Nothing is admitted under a key that does not open what is there."""
    store = Counting()
    made(store)
    with pytest.raises(IntegrityError, match="not the vault key it was made with, or it was altered"):
        Vault(store, bytes(32), Random(1).randbytes)


CALLS: dict[str, Callable[[Vault], Any]] = {
    "find": lambda vault: vault.find("student:7"),
    "keys": lambda vault: vault.keys(7),
    "data_key": lambda vault: vault.data_key([7]),
    "data_keys": lambda vault: vault.data_keys([(6,), (7,)]),
    "data_keys of several": lambda vault: vault.data_keys([(6, 7)]),
    "admit": lambda vault: vault.admit(["student:6", "student:7"]),
    "admit_each": lambda vault: vault.admit_each(["student:7", "student:6"]),
}


def test_people_are_admitted_in_the_order_in_which_they_are_named() -> None:
    """Known or new, once or often: each gets the keys that `admit` gives her."""
    vault = made(Counting())
    vault.admit(["student:1"])
    names = ["student:2", "student:1", "student:3", "student:2"]
    keys = vault.admit_each(names)
    assert [one.name for one in keys] == names
    assert keys == [vault.admit(names)[name] for name in names]
    assert (vault.admitted, vault.admit_each([])) == (3, [])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_altered_secret_is_never_taken_for_an_erasure(call: Callable[[Vault], Any]) -> None:
    """One bit anywhere, or the secret of somebody else in its place, stops whoever reads it, alone or in a batch."""
    store = Counting()
    made(store).admit([f"student:{number}" for number in range(9)])
    with store.view() as view:
        good, other = view.get("subjects", (7).to_bytes(8)), view.get("subjects", (6).to_bytes(8))
    assert good is not None
    assert other is not None
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    for bad in [*flipped, other, b"", good[:20]]:
        changed(store, "subjects", (7).to_bytes(8), lambda _, bad=bad: bad)  # type: ignore[misc]
        with pytest.raises(IntegrityError, match="it was altered"):
            call(made(store))


@pytest.mark.parametrize("call", ["find", "admit"])
def test_a_name_that_leads_to_somebody_else_is_found(call: str) -> None:
    """Whoever turns one name's number into another's would have events written under the wrong person's key."""
    store = Counting()
    made(store).admit([f"student:{number}" for number in range(9)])
    with store.view() as view:
        (key,) = [key for key, value in view.scan("names") if value == (7).to_bytes(8)]
    changed(store, "names", key, lambda _: (6).to_bytes(8))
    with pytest.raises(IntegrityError, match="subject 6"):
        CALLS[call](made(store))


def test_a_name_that_leads_to_an_erased_subject_begins_a_new_one() -> None:
    """Whoever comes again shares nothing with what was erased, and nobody of the same group is kept waiting for it."""
    store = MemoryStore(TABLES)
    before = made(store).admit(["student:ann", "student:bob"])
    erase(store, before["student:ann"].number)
    vault = made(store)
    assert vault.find("student:ann") is None
    found = vault.admit(["student:bob", "student:ann", "student:cy"])
    assert spelled(found["student:bob"]) == spelled(before["student:bob"])
    assert sorted(keys.number for keys in found.values()) == [before["student:bob"].number, 2, 3]
    assert found["student:ann"].tag_key != before["student:ann"].tag_key
    assert spelled(made(store).admit(["student:ann"])["student:ann"]) == spelled(found["student:ann"])
    with pytest.raises(NotFound):
        vault.keys(before["student:ann"].number)
