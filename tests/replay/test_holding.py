"""A holding: what was saved is what is there again, however little of it is in memory."""

from __future__ import annotations

from typing import Any

import pytest

from archive import Store
from reducers import Slot, StateError
from replay import STATE_TABLES, StateReader, Waiting, after, info_of, take_note
from tests.replay.stored import LONG, REDUCERS, judge_tables, loaded, save, stored, tables, world
from tests.world import pages, seen


def slots(holding: Any) -> dict[str, dict[Any, Any]]:
    """Return all states of a holding, by reducer and key."""
    return {one.name: {key: holding.get(one, key) for key in holding.keys(one)} for one in REDUCERS}


def test_what_was_saved_is_loaded(store: Store) -> None:
    """Slots, quarantines, backlog and position come back as they were; later saves replace and remove."""
    made = world()
    first = loaded(store, made)
    assert (first.position, first.backlog, slots(first)) == (0, {}, {"seen": {}, "pages": {}})
    with made.source.open() as log:
        first.put(seen, ("ann",), Slot([[1, "é", {}, None]], 1))
        first.put(pages, ("d", "ann"), Slot(5, 2, "ValueError: no", 2))
        first.save(2, log.root(2), {7: Waiting([1, 2**40], 0, 0), 8: Waiting([3], 0, 0)})
        first.put(pages, ("d", "ann"), Slot(6, 2))
        first.put(pages, ("d", "bob"), Slot(1, 2))
        first.save(3, log.root(3), {7: Waiting([], 0, 2), 8: Waiting([3, 4], 1, 1)})
    second = loaded(store, made)
    assert second.position == 3
    assert second.backlog == {8: [3, 4]}
    assert slots(second) == {
        "seen": {("ann",): Slot([[1, "é", {}, None]], 1)},
        "pages": {("d", "ann"): Slot(6, 2), ("d", "bob"): Slot(1, 2)},
    }
    judge_tables(tables(store))


def test_a_restart_loads_nothing(store: Store) -> None:
    """States are read when they are asked for, once; so a worker of a million keys starts at once."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2), ("d", "bob"): Slot(2, 2)})
    again = loaded(store, made)
    assert again.slots == {"seen": {}, "pages": {}}
    assert again.get(pages, ("d", "ann")) == Slot(1, 2)
    assert again.get(pages, ("d", "zoe")) is None
    assert again.get(pages, ("d", "ann")) is again.get(pages, ("d", "ann"))
    assert set(again.slots["pages"]) == {("d", "ann")}


def test_a_cleared_store_is_empty(store: Store) -> None:
    """After `clear` there is no snapshot, and nothing of it is left."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2, "no", 2)}, backlog={7: Waiting([1], 0, 0)})
    take_note(store, [info_of(pages)], 3)
    assert all(tables(store).values())
    loaded(store, made).clear()
    assert tables(store) == {table: {} for table in STATE_TABLES}
    again = loaded(store, made)
    assert (again.position, again.backlog) == (0, {})
    again.clear()


def test_a_state_that_has_no_encoding_saves_nothing(store: Store) -> None:
    """One state that cannot be written stops the whole save: position and states stay together."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2)}, position=2)
    before = tables(store)
    with pytest.raises(StateError):
        save(store, made, {("d", "ann"): Slot(2, 2), ("d", "bob"): Slot(float("nan"), 2)})
    assert tables(store) == before
    assert StateReader(store).get("pages", ("d", "ann")) == (2, stored(1))


def test_long_keys_are_kept_apart(store: Store) -> None:
    """Keys of 1,024 bytes that differ in their last letter are two states, each found again."""
    made = world()
    given = {(LONG, "ann"): Slot(1, 2), (LONG, "bob"): Slot(2, 2), (LONG[:-1] + "e", "ann"): Slot(3, 2)}
    save(store, made, given)
    reader, again = StateReader(store), loaded(store, made)
    for key, slot in given.items():
        assert reader.get("pages", key) == (3, stored(slot.state, key=key))
        assert again.get(pages, key) == slot
    assert slots(loaded(store, made))["pages"] == given


def test_a_log_that_was_set_back_is_rebuilt_to_its_own_size(store: Store) -> None:
    """States that were begun on a longer copy of the log do not wait for entries that are gone."""
    made = world()
    save(store, made, {}, position=2, rebuilt_to=1_000)
    assert loaded(store, made).rebuilt_to == 3


def test_a_state_that_is_gone_stays_gone(store: Store) -> None:
    """A key that has no state any more is a row that says so, for those who follow changes, and no answer else."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2), ("d", "bob"): Slot(1, 2, "no", 1)}, position=2)
    save(store, made, {("d", "ann"): None, ("d", "bob"): None, ("d", "zoe"): None})
    judge_tables(tables(store))
    assert tables(store)["quarantined"] == {}
    assert len(tables(store)["states"]) == 2, "a key that never had a state needs no row"
    reader, again = StateReader(store), loaded(store, made)
    assert reader.get("pages", ("d", "ann")) == (3, None)
    assert reader.scan("pages") == (3, [])
    assert reader.everything(["pages"]) == (3, [])
    assert reader.first("pages", 9, 9) == ([], True)
    assert [slot for _, slot in reader.following("pages", after(2), 9).rows] == [None, None]
    assert (again.keys(pages), again.get(pages, ("d", "ann")), list(again.pairs())) == ([], None, [])
    save(store, made, {("d", "ann"): Slot(5, 2)})
    judge_tables(tables(store))
    assert loaded(store, made).get(pages, ("d", "ann")) == Slot(5, 2)
