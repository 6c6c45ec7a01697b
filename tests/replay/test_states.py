"""States on disk: what was saved is what is read, by the worker and by everybody else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import LmdbStore, MemoryStore, NotFound, Store, Unavailable, Write
from reducers import Key, Reducer, Slot, StateError, shipped
from replay import STATE_TABLES, StateReader, States, StoredSlot, Waiting, state_key
from replay.states import read_marker
from tests.world import World, event, pages, run, seen

ROOT = Path(__file__).parents[2]
LONG = "é" * 512  # 1,024 bytes, the longest value of a key field
REDUCERS: list[Reducer[Any]] = [seen, pages]


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Return an empty state store, in memory or on disk."""
    on_disk = request.param == "lmdb"
    made: Store = LmdbStore(tmp_path, STATE_TABLES) if on_disk else MemoryStore(STATE_TABLES)
    yield made
    made.close()


def world() -> World:
    """Return a world with three entries of its own to stand on."""
    made = World(reducers=REDUCERS)
    made.append([event("ann")])
    return made


def save(store: Store, made: World, slots: Mapping[Any, Slot[Any]], position: int = 3) -> None:
    """Save slots of `pages`."""
    with made.source.open() as log:
        root = log.root(position)
    changed = [(pages, key, slot) for key, slot in slots.items()]
    States(store).save(position, root, REDUCERS, changed, {})


# --- the worker's side ---------------------------------------------------------------------------


def test_what_was_saved_is_loaded(store: Store) -> None:
    """Slots, quarantines, backlog and position come back as they were; later saves replace and remove."""
    made = world()
    with made.source.open() as log:
        root = log.root(3)
        states = States(store)
        assert states.load(REDUCERS, log) is None
        slots: list[Any] = [
            (seen, ("ann",), Slot([[1, "é", {}, None]], 1)),
            (pages, ("d", "ann"), Slot(5, 2, "ValueError: no", 2)),
        ]
        states.save(2, log.root(2), REDUCERS, slots, {7: Waiting([1, 2**40], 0, 0), 8: Waiting([3], 0, 0)})
        later: list[Any] = [(pages, ("d", "ann"), Slot(6, 2)), (pages, ("d", "bob"), Slot(1, 2))]
        states.save(3, root, REDUCERS, later, {7: Waiting([], 0, 2), 8: Waiting([3, 4], 1, 1)})
        snapshot = states.load(REDUCERS, log)
    assert snapshot is not None
    assert snapshot.position == 3
    assert snapshot.slots == {
        "seen": {("ann",): Slot([[1, "é", {}, None]], 1)},
        "pages": {("d", "ann"): Slot(6, 2), ("d", "bob"): Slot(1, 2)},
    }
    assert snapshot.backlog == {8: [3, 4]}


backlog_steps = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.booleans()), max_size=12)


@given(backlog_steps, st.integers(1, 4))
def test_backlogs_are_stored_in_chunks(steps: list[tuple[int, int, bool]], chunk: int) -> None:
    """Whatever is added to backlogs, and whenever one is bound and begins anew, what is loaded is what waits."""
    made, store = world(), MemoryStore(STATE_TABLES)
    waits: dict[int, list[int]] = {}
    with pytest.MonkeyPatch.context() as patch, made.source.open() as log:
        patch.setattr("replay.states.CHUNK", chunk)
        for number, (subject, more, bound) in enumerate(steps):
            stored_now = len(waits.get(subject, []))
            kept = [] if bound else waits.get(subject, [])
            waits[subject] = [*kept, *range(number * 100, number * 100 + more)]
            change = Waiting(waits[subject], len(kept), stored_now)
            States(store).save(3, log.root(), REDUCERS, [], {subject: change})
            snapshot = States(store).load(REDUCERS, log)
            assert snapshot is not None
            assert snapshot.backlog == {one: indices for one, indices in waits.items() if indices}


def test_a_save_of_a_long_backlog_is_short() -> None:
    """Of a backlog that is stored, a save writes again no more than its last chunk."""
    waiting = Waiting(list(range(100_000)), kept=99_999, stored=99_999)
    ((number, packed),) = waiting.chunks()
    assert number == 99_999 // 1_024
    assert packed is not None
    assert len(packed) <= 8 * 1_024


def test_a_cleared_store_is_empty(store: Store) -> None:
    """After `clear` there is no snapshot, and nothing of it is left."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2)})
    States(store).clear()
    with made.source.open() as log, store.view() as view:
        assert States(store).load(REDUCERS, log) is None
        assert [list(view.scan(table)) for table in STATE_TABLES] == [[], [], []]
    States(store).clear()


def test_a_state_that_has_no_encoding_saves_nothing(store: Store) -> None:
    """One state that cannot be written stops the whole save: position and states stay together."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2)}, position=2)
    with pytest.raises(StateError):
        save(store, made, {("d", "ann"): Slot(2, 2), ("d", "bob"): Slot(float("nan"), 2)})
    assert StateReader(store).get("pages", ("d", "ann")) == (2, stored(1))


def stored(state: int, changed_at: int = 2, key: Key = ("d", "ann")) -> StoredSlot:
    """Return a slot of `pages` as it is kept."""
    return StoredSlot(1, key, changed_at, None, None, str(state).encode())


# --- keys ----------------------------------------------------------------------------------------

longest = st.sampled_from(["", "\0", LONG, LONG[:-1] + "e"])
values = st.text(st.characters(codec="utf-8"), max_size=200) | longest
keys = st.lists(values, min_size=1, max_size=3).map(tuple)


@given(keys, keys)
def test_different_keys_have_different_places(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """No two keys share a database key, however long, and each fits into the store."""
    assert (state_key("pages", one) == state_key("pages", other)) == (one == other)
    assert len(state_key("x" * 128, one)) <= 511


def test_long_keys_are_kept_apart(store: Store) -> None:
    """Keys of 1,024 bytes that differ in their last letter are two states, each found again."""
    made = world()
    slots = {(LONG, "ann"): Slot(1, 2), (LONG, "bob"): Slot(2, 2), (LONG[:-1] + "e", "ann"): Slot(3, 2)}
    save(store, made, slots)
    reader = StateReader(store)
    for key, slot in slots.items():
        assert reader.get("pages", key) == (3, stored(slot.state, key=key))
    with made.source.open() as log:
        snapshot = States(store).load(REDUCERS, log)
    assert snapshot is not None
    assert snapshot.slots["pages"] == slots


# --- the readers' side ---------------------------------------------------------------------------


def many(made: World, store: Store) -> list[Key]:
    """Save many states, short and long, and return their keys."""
    first = ["a", "ab", "b", "", LONG, LONG[:-1] + "e", "x" * 480, "x" * 470]
    found: list[Key] = [(one, two) for one in first for two in ("", "ann", "bob", LONG)]
    save(store, made, {key: Slot(number, 2) for number, key in enumerate(found)})
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_give_every_state_once(store: Store, limit: int) -> None:
    """Going on `after` the last one seen, one comes by every state exactly once, in one order."""
    found = many(world(), store)
    reader = StateReader(store)
    after, seen_keys, places = b"", [], []
    while page := reader.scan("pages", after=after, limit=limit)[1]:
        assert len(page) <= limit
        seen_keys += [slot.key for _, slot in page]
        places += [place for place, _ in page]
        after = page[-1][0]
    assert sorted(seen_keys) == sorted(found)
    assert places == sorted(places)


def test_a_prefix_finds_all_that_begin_with_it(store: Store) -> None:
    """By its first field a state is found whether its key is short or ends in a hash; "a" is not "ab"."""
    found = many(world(), store)
    reader = StateReader(store)
    for first in {key[0] for key in found}:
        want = sorted(key for key in found if key[0] == first)
        assert sorted(slot.key for _, slot in reader.scan("pages", (first,))[1]) == want
        paged = [reader.scan("pages", (first,), limit=1)[1][0]]
        while more := reader.scan("pages", (first,), paged[-1][0], 1)[1]:
            paged += more
        assert sorted(slot.key for _, slot in paged) == want
    assert reader.scan("pages", ("nobody",)) == (3, [])


def test_reducers_do_not_mix(store: Store) -> None:
    """A scan of one reducer never shows another's states, though one name begins like the other."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2)})
    reader = StateReader(store)
    assert reader.scan("page")[1] == reader.scan("pages2")[1] == []
    assert reader.everything(["page", "pages", "seen"]) == (3, [("pages", stored(1))])


def test_without_a_snapshot_there_is_no_answer(store: Store) -> None:
    """While states are rebuilt every question is NotFound, never "no data"."""
    reader = StateReader(store)
    for ask in (
        reader.position,
        lambda: reader.get("pages", ("d", "ann")),
        lambda: reader.scan("pages"),
        lambda: reader.everything(["pages"]),
    ):
        with pytest.raises(NotFound, match="rebuilt"):
            ask()


def test_states_of_other_reducers_are_no_answer(store: Store) -> None:
    """A reader that knows its reducers takes what older code left behind for a rebuild, not for a state."""
    save(store, world(), {("d", "ann"): Slot(1, 2)})
    assert StateReader(store, REDUCERS).position() == 3
    with pytest.raises(NotFound, match="rebuilt"):
        StateReader(store, shipped()).get("pages", ("d", "ann"))


def test_states_that_are_half_rebuilt_are_no_answer(store: Store) -> None:
    """Until they have seen what the log held when they were begun, states answer nothing but how far they are."""
    made, reader = world(), StateReader(store)
    changed: list[Any] = [(pages, ("d", "ann"), Slot(1, 1))]
    with made.source.open() as log:
        States(store).save(2, log.root(2), REDUCERS, changed, {}, 3)
        for ask in (
            reader.position,
            lambda: reader.get("pages", ("d", "ann")),
            lambda: reader.scan("pages"),
            lambda: reader.first("pages", 1, 1, 1),
            lambda: reader.everything(["pages"]),
        ):
            with pytest.raises(NotFound, match="rebuilt"):
                ask()
        assert reader.rebuilding() == (2, 3)
        snapshot = States(store).load(REDUCERS, log)
        assert snapshot is not None
        assert (snapshot.position, snapshot.rebuilt_to) == (2, 3)
        States(store).save(3, log.root(3), REDUCERS, [], {}, 3)
    assert (reader.position(), reader.rebuilding()) == (3, None)
    assert StateReader(store, shipped()).rebuilding() is None


def test_a_log_that_was_set_back_is_rebuilt_to_its_own_size(store: Store) -> None:
    """States that were begun on a longer copy of the log do not wait for entries that are gone."""
    made = world()
    with made.source.open() as log:
        States(store).save(2, log.root(2), REDUCERS, [], {}, 1_000)
        snapshot = States(store).load(REDUCERS, log)
    assert snapshot is not None
    assert snapshot.rebuilt_to == 3


def test_states_of_another_layout_are_not_recognised(store: Store) -> None:
    """Tables that an older or a newer version arranged otherwise are rebuilt, not misread."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2)})
    with store.view() as view:
        marker = msgspec.msgpack.decode(view.get("meta", b"snapshot") or b"")
    older = {name: value for name, value in marker.items() if name not in ("layout", "rebuilt_to")}
    for other in (older, marker | {"layout": 1}, marker | {"layout": 3}):
        store.commit([Write("meta", b"snapshot", msgspec.msgpack.encode(other))])
        with made.source.open() as log:
            assert States(store).load(REDUCERS, log) is None
        with pytest.raises(NotFound, match="rebuilt"):
            StateReader(store).position()


def test_the_first_states_say_whether_they_are_all(store: Store) -> None:
    """A look that is bounded, by count or by bytes, says that it was cut short; `least` are given in any case."""
    made = world()
    save(store, made, {("d", name): Slot(1, 2) for name in "abcde"})
    reader = StateReader(store)
    for count, size, least, want in (
        (5, 9_999, 0, 5),
        (4, 9_999, 0, 4),
        (9, 1, 0, 1),
        (9, 1, 3, 3),
        (2, 1, 9, 2),
    ):
        found, whole = reader.first("pages", count, size, least)
        assert [slot.key[1] for _, slot in found] == list("abcde")[:want]
        assert whole == (want == 5)
    assert reader.first("page", 5, 1, 1) == ([], True)


def test_an_answer_is_of_one_moment(store: Store) -> None:
    """Position and state come from the same commit: whoever reads sees both move together."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 1)}, position=2)
    reader = StateReader(store)
    assert reader.get("pages", ("d", "ann")) == (2, stored(1, 1))
    save(store, made, {("d", "ann"): Slot(2, 2)})
    assert reader.get("pages", ("d", "ann")) == (3, stored(2))
    assert reader.get("pages", ("d", "bob")) == (3, None)


@pytest.mark.parametrize("data", [None, b"", b"\xc1", b"\x90", b"\x80"])
def test_a_marker_that_cannot_be_read_is_none(data: bytes | None) -> None:
    """A torn or foreign marker counts as a missing one."""
    assert read_marker(data) is None


READ = """
import json, sys
from archive import LmdbStore
from replay import STATE_TABLES, StateReader
reader = StateReader(LmdbStore(sys.argv[1], STATE_TABLES, read_only=True))
for line in sys.stdin:
    position, found = reader.everything(["seen", "pages"])
    states = [[name, slot.key, slot.encoding.decode()] for name, slot in found]
    print(json.dumps([position, states]), flush=True)
"""


@pytest.mark.process
def test_another_process_reads_what_was_saved(tmp_path: Path) -> None:
    """A front that maps the states of a running worker sees each save, whole, as soon as it is made."""
    made = world()
    store = LmdbStore(tmp_path, STATE_TABLES)
    worker = made.runner()
    worker._states = States(store)
    run(worker, made.source)
    worker.save(made.source)
    with subprocess.Popen(
        [sys.executable, "-c", READ, str(tmp_path)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for count in (1, 2):
            reader.stdin.write("read\n")
            reader.stdin.flush()
            position, found = json.loads(reader.stdout.readline())
            assert (position, len(json.loads(found[0][2]))) == (2 + count, count)
            made.append([event("ann")])
            run(worker, made.source)
            worker.save(made.source)
        reader.stdin.close()
        assert reader.wait(20) == 0
    store.close()


def test_a_folder_that_no_worker_has_made_is_not_there(tmp_path: Path) -> None:
    """A front that starts before its workers is told so, and makes nothing itself."""
    with pytest.raises((NotFound, Unavailable)):
        LmdbStore(tmp_path / "0", STATE_TABLES, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_states_outlive_the_process_that_saved_them(tmp_path: Path) -> None:
    """Closed and opened again, a store on disk gives the same snapshot."""
    made = world()
    store = LmdbStore(tmp_path, STATE_TABLES)
    save(store, made, {(LONG, "ann"): Slot(1, 2)})
    store.close()
    again = LmdbStore(tmp_path, STATE_TABLES, read_only=True)
    assert StateReader(again).get("pages", (LONG, "ann")) == (3, stored(1, key=(LONG, "ann")))
    again.close()
