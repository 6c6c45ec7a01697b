"""Damaged states: whatever byte is another, nobody is told a wrong state, and all of them come back from the log.

What a reader cannot see is named, too: a database key that is another one than it was is missed by a look-up, and found
by every reader who goes through all states, and by `damage_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from archive import IntegrityError, LmdbStore, MemoryStore, NotFound, Store, Write
from reducers import Module, Slot, shipped
from replay import (
    STATE_TABLES,
    Damaged,
    Holding,
    StateReader,
    after,
    catalogue_of,
    complain,
    damage_of,
    drop_complaint,
    emptied,
    holding_of,
    identities_of,
    is_complained_of,
    read_live,
    state_key,
)
from tests.replay.stored import REDUCERS, save, tables, world
from tests.world import World, event, pages, run

MODULE = Module("all", tuple(REDUCERS))
Ask = Callable[[StateReader], object]
ASKED: dict[str, Ask] = {
    "one": lambda reader: reader.get("pages", ("d", "ann")),
    "a page": lambda reader: reader.scan("pages"),
    "all": lambda reader: reader.everything(["pages"]),
    "the first": lambda reader: reader.first("pages", 9, 1_000),
    "changes": lambda reader: reader.following("pages", after(0), 9),
}


def a_store() -> MemoryStore:
    """Return a store of three states, of which one stands still and one is shown otherwise."""
    store = MemoryStore(STATE_TABLES)
    slots = {
        ("d", "ann"): Slot(17, 2),
        ("d", "bob"): Slot(5, 1, "ValueError: no", 1),
        ("e", "eve"): Slot(3, 2),
    }
    save(store, world(), slots)
    return store


def flipped(data: bytes) -> Iterator[bytes]:
    """Yield `data` with one bit of each byte changed, each of the eight in turn."""
    for at, byte in enumerate(data):
        yield data[:at] + bytes([byte ^ (1 << at % 8)]) + data[at + 1 :]


def right(store: Store, ask: Ask) -> object:
    """Return what a store that is whole answers."""
    return ask(StateReader(store, identities_of(REDUCERS), "all"))


@pytest.mark.parametrize("asked", ASKED)
def test_no_byte_of_a_state_is_misread(asked: str) -> None:
    """Position, checksum, version, key, errors, the state itself: a changed bit of any of them is said, not shown."""
    want, met = right(a_store(), ASKED[asked]), list[Damaged]()
    key = state_key("pages", ("d", "ann"))
    for value in flipped(tables(a_store())["states"][key]):
        store = a_store()
        store.commit([Write("states", key, value)])
        reader = StateReader(store, identities_of(REDUCERS), "all", met.append)
        with pytest.raises(Damaged, match=r"^states of module all are damaged .* made anew from the log"):
            ASKED[asked](reader)
        assert met.pop().module == "all"
        assert reader.get("pages", ("e", "eve")) == right(
            a_store(), lambda one: one.get("pages", ("e", "eve"))
        )
        assert damage_of(store)
    assert right(a_store(), ASKED[asked]) == want


def test_no_byte_of_a_marker_is_misread() -> None:
    """Layout, position, root, reducers, how far it is rebuilt and steered: no answer stands on what is damaged."""
    for value in flipped(tables(a_store())["meta"][b"snapshot"]):
        store = a_store()
        store.commit([Write("meta", b"snapshot", value)])
        for ask in (*ASKED.values(), StateReader.position, StateReader.rebuilding):
            with pytest.raises(Damaged, match="marker"):
                ask(StateReader(store, identities_of(REDUCERS), "all"))
        assert "marker" in damage_of(store)


@pytest.mark.parametrize("table", ["states", "changes", "quarantined"])
def test_no_byte_of_a_database_key_is_misread(table: str) -> None:
    """A row that stands elsewhere is found by whoever looks at all; who goes through the states is told no such key."""
    whole = a_store()
    for key, data in tables(whole)[table].items():
        for other in flipped(key):
            store = a_store()
            store.commit([Write(table, key, None), Write(table, other, data)])
            assert damage_of(store), (table, key, other)
            for ask in ("a page", "all", "the first", "changes"):
                try:
                    found: Any = ASKED[ask](StateReader(store, identities_of(REDUCERS), "all"))
                except Damaged:
                    continue
                rows = getattr(found, "rows", None) or found[1 if isinstance(found[0], int) else 0]
                for place, slot in rows:
                    if isinstance(place, bytes) and slot is not None:
                        assert place == state_key("pages", slot.key)


def test_a_whole_store_has_no_damage() -> None:
    """Neither has an empty one, one of another layout, and one that real workers wrote."""
    assert damage_of(a_store()) == damage_of(MemoryStore(STATE_TABLES)) == ""
    made = World(reducers=list(shipped()))
    made.append([event(name, "typed", doc_id="essay") for name in ("ann", "bob", "eve")] * 3)
    for runner in made.runners(2):
        run(runner, made.source)
        runner.save(made.source)
    assert [damage_of(store) for store in made.states.values()] == ["", ""]


@pytest.mark.parametrize("error", [IntegrityError("a page is no page")])
def test_a_database_that_is_damaged_is_damage_to_its_module(error: Exception) -> None:
    """What the database says of its own pages is said as of a state that cannot be read: not as of the log."""

    class Torn(MemoryStore):
        def view(self) -> Any:
            raise error

    for ask in ASKED.values():
        with pytest.raises(Damaged, match=r"module all.*a page is no page"):
            ask(StateReader(Torn(STATE_TABLES), None, "all"))
    assert damage_of(Torn(STATE_TABLES)) == "a page is no page"


def test_an_auditor_is_told_as_well() -> None:
    """Live states with damage in them are compared with nothing, and nobody goes on from them."""
    store, key = a_store(), state_key("pages", ("d", "ann"))
    store.commit([Write("states", key, tables(store)["states"][key][:-1] + b"\x00")])
    with pytest.raises(Damaged, match="module all"):
        read_live(store, catalogue_of(MODULE), 0, 1)
    with (
        world().source.open() as log,
        pytest.raises(NotFound, match=r"module all cannot be read .*start from"),
    ):
        holding_of(store, MODULE, log)


# --- what comes of it ------------------------------------------------------------------------------


def on_disk(folder: Path, made: World) -> Holding:
    """Return a holding of the states in a folder."""
    holding = Holding(REDUCERS, LmdbStore(folder, STATE_TABLES), "all")
    with made.source.open() as log:
        holding.resume(log)
    return holding


def test_states_come_back_from_the_log(tmp_path: Path) -> None:
    """Complained of and damaged, a store is emptied before its worker goes on: what it folds then is what there was."""
    made = world()
    store = LmdbStore(tmp_path, STATE_TABLES)
    save(store, made, {("d", "ann"): Slot(1, 2)})
    key = state_key("pages", ("d", "ann"))
    store.commit([Write("states", key, b"rot")])
    store.close()
    assert not emptied(
        tmp_path
    )  # nobody complained: whoever starts is not kept waiting by a look at everything
    complain(tmp_path)
    assert is_complained_of(tmp_path)
    assert emptied(tmp_path)
    assert not is_complained_of(tmp_path)
    holding = on_disk(tmp_path, made)
    assert (holding.position, holding.rebuilt_to) == (0, made.size)
    assert holding.get(pages, ("d", "ann")) is None
    assert holding.store is not None
    holding.store.close()


def test_a_complaint_alone_changes_nothing(tmp_path: Path) -> None:
    """Whoever can write a file there makes a worker look; states that are whole stay."""
    made = world()
    store = LmdbStore(tmp_path, STATE_TABLES)
    save(store, made, {("d", "ann"): Slot(1, 2)})
    before = tables(store)
    store.close()
    complain(tmp_path)
    assert not emptied(tmp_path)
    assert not is_complained_of(tmp_path)
    store = LmdbStore(tmp_path, STATE_TABLES)
    assert tables(store) == before
    store.close()


def test_who_has_no_folder_can_leave_no_complaint(tmp_path: Path) -> None:
    """A reader on another machine makes no folder, and is not stopped by that."""
    complain(tmp_path / "nowhere")
    drop_complaint(tmp_path / "nowhere")
    assert not is_complained_of(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_what_an_older_layout_left_is_no_damage() -> None:
    """Without a checksum, and of a lower number, it is rebuilt; who reads is told so."""
    store = a_store()
    marker = tables(store)["meta"][b"snapshot"]
    older = msgspec.msgpack.encode({**msgspec.msgpack.decode(marker[:-4]), "layout": 3})
    store.commit([Write("meta", b"snapshot", older)])
    with pytest.raises(NotFound, match="rebuilt"):
        StateReader(store).position()
    assert damage_of(store) == ""
