"""What others read is what the worker saved: every state once, of one moment, or an answer that there is none yet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from archive import LmdbStore, NotFound, Store, Unavailable, Write
from reducers import Key, Slot, shipped
from replay import (
    STATE_TABLES,
    Holding,
    Marker,
    Runner,
    StateReader,
    StoredSlot,
    after,
    identities_of,
)
from replay.layout import LAYOUT, encode_marker
from tests.replay.stored import LONG, REDUCERS, loaded, save, stored, world
from tests.world import World, event, run

ROOT = Path(__file__).parents[2]


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
    assert StateReader(store, identities_of(REDUCERS)).position() == 3
    with pytest.raises(NotFound, match="rebuilt"):
        StateReader(store, identities_of(shipped())).get("pages", ("d", "ann"))


def test_states_that_are_half_rebuilt_are_no_answer(store: Store) -> None:
    """Until they have seen what the log held when they were begun, states answer nothing but how far they are."""
    made, reader = world(), StateReader(store)
    save(store, made, {("d", "ann"): Slot(1, 1, "ValueError: no", 1)}, position=2, rebuilt_to=3)
    for ask in (
        reader.position,
        lambda: reader.get("pages", ("d", "ann")),
        lambda: reader.scan("pages"),
        lambda: reader.first("pages", 1, 1),
        lambda: reader.everything(["pages"]),
        lambda: reader.following("pages", after(0), 9),
    ):
        with pytest.raises(NotFound, match="rebuilt"):
            ask()
    assert reader.rebuilding() == (2, 3)
    again = loaded(store, made)
    assert (again.position, again.rebuilt_to) == (2, 3)
    save(store, made, {}, rebuilt_to=3)
    assert (reader.position(), reader.rebuilding()) == (3, None)
    assert StateReader(store, identities_of(shipped())).rebuilding() is None


def test_states_of_another_layout_are_no_answer(store: Store) -> None:
    """Tables that an older or a newer version arranged otherwise are rebuilt, not misread."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 2)})
    with store.view() as view:
        marker = msgspec.msgpack.decode((view.get("meta", b"snapshot") or b"")[:-4])
    older = {name: value for name, value in marker.items() if name not in ("layout", "rebuilt_to")}
    newer = encode_marker(msgspec.convert(marker | {"layout": LAYOUT + 1}, Marker))
    for other in (
        *map(msgspec.msgpack.encode, (older, marker | {"layout": 2}, marker | {"layout": 3})),
        newer,
    ):
        store.commit([Write("meta", b"snapshot", other)])
        with pytest.raises(NotFound, match="rebuilt"):
            StateReader(store).position()
    assert loaded(store, made).position == 0


def test_the_first_states_say_whether_they_are_all(store: Store) -> None:
    """A look that is bounded, by count or by bytes, says that it was cut short; one is given in any case."""
    made = world()
    save(store, made, {("d", name): Slot(1, 2) for name in "abcde"})
    reader = StateReader(store)
    for count, size, want in ((5, 9_999, 5), (4, 9_999, 4), (9, 1, 1), (9, 2, 2), (2, 3, 2)):
        found, whole = reader.first("pages", count, size)
        assert [slot.key[1] for _, slot in found] == list("abcde")[:want]
        assert whole == (want == 5)
    assert reader.first("page", 5, 1) == ([], True)


def test_a_page_ends_with_the_state_that_fills_it(store: Store) -> None:
    """A thousand documents are no answer to hold in memory; but one is given, however large it is."""
    save(store, world(), {("d", name): Slot(10 ** (count % 3), 2) for count, name in enumerate("abcdefg")})
    reader = StateReader(store)  # of 1, 2, 3, 1, 2, 3, 1 bytes
    for size, want in ((1, "a"), (2, "ab"), (3, "ab"), (4, "abc"), (10, "abcdef"), (99, "abcdefg")):
        assert [slot.key[1] for _, slot in reader.scan("pages", size=size)[1]] == list(want)
    _, rows = reader.scan("pages", after=reader.scan("pages", size=2)[1][-1][0], size=4)
    assert [slot.key[1] for _, slot in rows] == ["c", "d"]
    start, found = after(0), list[tuple[bytes, StoredSlot | None]]()
    while (changes := reader.following("pages", start, 9, 3)).more:
        assert sum(slot.size for _, slot in changes.rows if slot is not None) <= 5
        start, found = changes.next, found + changes.rows
    assert len(found + changes.rows) == 7


def test_an_answer_is_of_one_moment(store: Store) -> None:
    """Position and state come from the same commit: whoever reads sees both move together."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 1)}, position=2)
    reader = StateReader(store)
    assert reader.get("pages", ("d", "ann")) == (2, stored(1, 1))
    save(store, made, {("d", "ann"): Slot(2, 2)})
    assert reader.get("pages", ("d", "ann")) == (3, stored(2))
    assert reader.get("pages", ("d", "bob")) == (3, None)


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
    worker = Runner([Holding(REDUCERS, store, "all")], made.vault())
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
