"""What is new since a position: every state once, where it was saved last, and never half a save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import MemoryStore, NotFound, Store
from reducers import Key, Slot
from replay import STATE_TABLES, Holding, StateReader, after, state_key
from tests.replay.stored import REDUCERS, judge_tables, save, tables, world
from tests.world import World, event, pages, seen

POSITIONS = 12
LOG = World(reducers=REDUCERS)
LOG.append([event("ann") for _ in range(POSITIONS)])


class Put(NamedTuple):
    """A state that a save writes: of one of two reducers, for a student, perhaps standing still, or none any more."""

    of_pages: bool
    student: str
    state: int | None
    fails: bool

    @property
    def name(self) -> str:
        """The reducer's name."""
        return "pages" if self.of_pages else "seen"

    @property
    def key(self) -> Key:
        """The key."""
        return ("d", self.student) if self.of_pages else (self.student,)

    def into(self, holding: Holding) -> None:
        """Put it in."""
        error = 7 if self.fails else None
        if self.state is None:
            holding.put(pages if self.of_pages else seen, self.key, None)
        elif self.of_pages:
            holding.put(pages, self.key, Slot(self.state, 1, None, error))
        else:
            holding.put(seen, self.key, Slot([[self.state]], 1, None, error))

    @property
    def encoding(self) -> bytes | None:
        """What readers find."""
        if self.state is None:
            return None
        return (f"{self.state}" if self.of_pages else f"[[{self.state}]]").encode()


puts = st.builds(Put, st.booleans(), st.sampled_from("abc"), st.none() | st.integers(0, 9), st.booleans())
saves = st.lists(st.lists(puts, max_size=4), min_size=1, max_size=POSITIONS)


@given(saves, st.integers(0, POSITIONS), st.sets(st.sampled_from(["seen", "pages", "other"])))
def test_changes_are_the_states_by_their_last_save(
    history: list[list[Put]], since: int, wanted: set[str]
) -> None:
    """Against a plain dictionary of what was saved when: since any position, of any reducers, up to any limit."""
    store = MemoryStore(STATE_TABLES)
    holding = Holding(REDUCERS, store, "all")
    last: dict[bytes, tuple[int, Put]] = {}
    with LOG.source.open() as log:
        for position, changed in enumerate(history, 1):
            for one in changed:
                one.into(holding)
            final = {state_key(one.name, one.key): one for one in changed}
            known = {key: one for key, one in final.items() if one.state is not None or key in last}
            last |= {key: (position, one) for key, one in known.items()}
            holding.save(position, log.root(position), {})
            judge_tables(tables(store))
    reader = StateReader(store)
    for name in wanted:
        want = sorted((at, key) for key, (at, one) in last.items() if one.name == name and at > since)
        changes = reader.following(name, after(since), 1_000)
        assert (changes.position, changes.more) == (len(history), False)
        assert [key for key, _ in changes.rows] == [key for _, key in want]
        for key, slot in changes.rows:
            assert (None if slot is None else slot.encoding) == last[key][1].encoding
        judge_pages(reader, name, since, changes.rows)


def judge_pages(reader: StateReader, name: str, since: int, whole: Sequence[object]) -> None:
    """Go through changes a few at a time: all come, once, and there the next look begins."""
    for limit in (1, 2, 3):
        start, more, got = after(since), True, list[object]()
        while more:
            _, rows, _, start, more = reader.following(name, start, limit)
            assert len(rows) <= limit
            got += rows
        assert got == list(whole)
        assert reader.following(name, start, limit).rows == []


def test_a_state_that_changes_again_is_listed_where_it_changed_last(store: Store) -> None:
    """Who was away for several saves is told of each state once, as it is now."""
    made = world()
    save(store, made, {("d", "ann"): Slot(1, 1), ("d", "bob"): Slot(1, 1)}, position=1)
    save(store, made, {("d", "ann"): Slot(2, 2)}, position=2)
    reader = StateReader(store)
    changes = reader.following("pages", after(0), 9)
    assert changes.position == 2
    assert [(slot.key[1], slot.encoding) for _, slot in changes.rows if slot] == [
        ("bob", b"1"),
        ("ann", b"2"),
    ]
    assert reader.following("pages", after(2), 9).rows == []


def test_without_states_there_are_no_changes(store: Store) -> None:
    """Following a rebuild is not following states: it has no answer, as any other question."""
    with pytest.raises(NotFound, match="rebuilt"):
        StateReader(store).following("pages", after(0), 9)


def test_keys_that_stand_still_are_listed_up_to_a_limit(store: Store) -> None:
    """Reducer and event of each, in order; none of states that are being made anew by others, or not there."""
    made = world()
    assert StateReader(store).quarantined(9) == []
    save(store, made, {("d", name): Slot(1, 1, "no", 2) for name in "abc"} | {("d", "x"): Slot(1, 1)})
    assert StateReader(store).quarantined(9) == [("pages", 2)] * 3
    assert StateReader(store).quarantined(2) == [("pages", 2)] * 2
    assert StateReader(store, [("other", 1, "00")]).quarantined(9) == []
    save(store, made, {("d", "a"): Slot(2, 1), ("d", "b"): Slot(1, 1, "no", 1), ("d", "c"): None})
    assert StateReader(store).quarantined(9) == [("pages", 1)]
    judge_tables(tables(store))
