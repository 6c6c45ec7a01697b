"""The runner: one fold, however it is cut, spread, stopped or started.

`seen` (tests.world) keeps every event that it is given, in order, so an equal digest means that nothing was
folded twice, left out, or in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

import pytest

from archive import Log, LogSource, MemoryStore, NotFound, Submission, Write, field_code
from reducers import Event, reducer
from replay import STATE_TABLES, Holding, Runner, feed, layout, shard_of
from tests.faults import Crash
from tests.replay.classroom import CLASSROOM, expected
from tests.world import (
    World,
    bare,
    connection,
    event,
    event_at,
    frames,
    plain_fold,
    raw_event,
    run,
    seen,
    slots_of,
    union,
)

SHARDS = (1, 2, 3, 5, 8)


def classroom() -> World:
    """Return a world with the events of the classroom, in commits of several sizes."""
    world = World()
    for start in range(0, len(CLASSROOM), 7):
        world.append(CLASSROOM[start : start + 7])
    return world


def states_of(world: World, name: str) -> dict[Any, Any]:
    """Return what a single runner holds for one reducer, by key."""
    one = bare(world)
    run(one, world.source)
    return {key: slot.state for key, slot in slots_of(one, name).items()}


# --- one fold ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", SHARDS)
def test_the_number_of_shards_does_not_show(shards: int) -> None:
    """The union of all shards is the plain fold of the log, and no key is in two of them."""
    world = classroom()
    assert world.digest(shards) == expected(world)


@pytest.mark.parametrize("shards", [1, 3])
def test_slices_do_not_show(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the log is cut into slices, by entries or by bytes, the states are those of the whole."""
    world = classroom()
    want = expected(world)
    for entries in range(1, 9):
        monkeypatch.setattr(feed, "SLICE_ENTRIES", entries)
        assert world.digest(shards) == want
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 4_096)
    monkeypatch.setattr(feed, "SLICE_BYTES_MAX", 1)
    assert world.digest(shards) == want


def test_a_slice_is_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`step` returns how many entries it took, never goes beyond `until`, and 0 when it has caught up."""
    world = classroom()
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 10)
    one = bare(world)
    assert [one.step(world.source, 13), one.step(world.source, 13), one.step(world.source, 13)] == [10, 3, 0]
    assert one.position == 13
    run(one, world.source)
    assert one.position == world.size


def test_every_split_equals_the_whole() -> None:
    """Folding up to any size and then on gives what one run gives."""
    world = classroom()
    want = expected(world)
    for cut in range(world.size + 1):
        one = bare(world)
        run(one, world.source, cut)
        assert one.position == cut
        run(one, world.source)
        assert union([one]) == want


def test_nothing_beyond_the_published_size_is_folded() -> None:
    """What is in the database but not published yet does not exist for a reducer."""
    world = classroom()
    published = world.size
    want = world.digest()
    world.append([event("ann", "later")])
    world.site.published.set(published)
    assert world.digest() == want


# --- what is reduced -----------------------------------------------------------------------------


def test_protocol_frames_and_refused_frames_are_not_reduced() -> None:
    """lock_fields, terminate and bad frames are in the log, and no reducer ever sees one."""
    world = World()
    lo = connection()
    world.append(
        frames(
            lo,
            {"event": "lock_fields", "fields": {"user_id": "ann"}},
            b"\xff",
            {"event": "hello"},
            {"noevent": 1},
            {"event": "terminate"},
        )
    )
    assert [one[1] for one in states_of(world, "seen")["testcase-ann",]] == ["hello"]
    assert set(states_of(world, "seen")) == {("testcase-ann",)}


def test_a_payload_that_is_no_json_is_passed_over() -> None:
    """An event that nobody can read changes no state, and stops nothing."""
    world = World()
    world.append(
        [raw_event(b"{torn", {"student": "ann"}), event("ann", "next"), raw_event(b"", {"student": "bob"})]
    )
    assert [one[1] for one in states_of(world, "seen")["ann",]] == ["next"]
    assert ("bob",) not in states_of(world, "seen")


def test_an_event_without_a_scope_field_is_passed_over() -> None:
    """A reducer sees only events that have all fields of its scope."""
    world = World()
    world.append([event("ann"), event(None, **{"class": "7b"}), event("ann", doc_id="d")])
    assert states_of(world, "pages") == {("d", "ann"): 1}
    assert states_of(world, "class_size") == {("7b",): ["?"]}


def colliding_field() -> str:
    """Return a field name that a row cannot tell from "student", and that sorts before it."""
    names = (f"a{number}" for number in count())
    return next(name for name in names if field_code(name) == field_code("student"))


@pytest.mark.parametrize("shards", SHARDS)
def test_a_field_name_that_looks_like_another_does_not_mislead(shards: int) -> None:
    """A row names fields by two bytes, and senders choose the names: still each key lives in its one
    shard.
    """
    world, twin = World(), colliding_field()
    sent = [
        event("ann"),
        *[event(f"student {number}", **{twin: f"v{number}"}) for number in range(8)],
        *[event("ann", **{twin: f"v{number}"}) for number in range(8)],
        event(None, **{twin: "x"}),
    ]
    receipts = world.append(sent)
    events = [event_at(receipt.index, one) for receipt, one in zip(receipts, sent, strict=True)]
    assert world.digest(shards) == plain_fold(world.reducers, events)


@pytest.mark.parametrize("shards", [2, 5])
def test_states_of_one_student_live_in_one_shard(shards: int) -> None:
    """Every state whose scope has the student is where the student's routing hash says."""
    world = classroom()
    for shard, one in enumerate(world.runners(shards)):
        run(one, world.source)
        for each in world.reducers:
            for key in slots_of(one, each.name):
                field = "student" if "student" in each.scope else each.scope[0]
                value = key[each.scope.index(field)]
                assert shard_of(route_of(world, field, value), shards) == shard


def route_of(world: World, field: str, value: str) -> bytes:
    """Return a routing hash, from its definition (docs/formats/entry.md)."""
    from hashlib import blake2b

    return blake2b(f"{field}\0{value}".encode(), digest_size=8, key=world.vault().route_key).digest()


# --- late identity -------------------------------------------------------------------------------


def test_backlog_is_folded_at_the_binding_in_order() -> None:
    """Frames from before the identity come as the person's, in ascending index, before anything later."""
    world = World()
    lo, other = connection(1), connection(2)
    world.append(frames(lo, {"event": "a"}))
    world.append([event("testcase-ann", "direct")])
    world.append(frames(other, {"event": "x"}))
    world.append(frames(lo, {"event": "b"}))
    world.append(frames(lo, {"event": "c", "user_id": "ann"}, {"event": "d"}))
    names = [one[1] for one in states_of(world, "seen")["testcase-ann",]]
    assert names == ["direct", "a", "b", "c", "d"]
    indices = [one[0] for one in states_of(world, "seen")["testcase-ann",]]
    assert indices[1:4] == sorted(indices[1:4])


def test_backlog_waits_for_its_binding() -> None:
    """Before the binding entry, and without one for ever, provisional entries are nobody's and fold
    nowhere.
    """
    world = World()
    lo = connection()
    world.append(frames(lo, {"event": "a", "doc_id": "d"}, {"event": "b", "class": "7b"}))
    assert states_of(world, "seen") == states_of(world, "class_size") == states_of(world, "pages") == {}
    world.append(frames(lo, {"event": "c", "user_id": "ann", "doc_id": "e"}))
    assert states_of(world, "pages") == {("d", "testcase-ann"): 1, ("e", "testcase-ann"): 1}
    assert states_of(world, "class_size") == {("7b",): ["testcase-ann"]}


def test_a_lock_at_the_binding_fills_what_the_backlog_lacks() -> None:
    """Locked fields reach the backlog at the binding; what an entry had locked itself stays as it was."""
    world = World()
    lo = connection()
    world.append(
        frames(
            lo,
            {"event": "a"},
            {"event": "lock_fields", "fields": {"tool": "early"}},
            {"event": "b"},
            {"event": "lock_fields", "fields": {"tool": "late", "user_id": "ann"}},
            {"event": "c"},
        )
    )
    found = {one[1]: one[3].get("tool") for one in states_of(world, "seen")["testcase-ann",]}
    assert found == {"a": "late", "b": "early", "c": "late"}


def test_an_identity_in_the_first_frame_needs_no_binding() -> None:
    """Without backlog a frame that says who it is belongs to the person at once."""
    world = World()
    world.append(frames(connection(), {"event": "a", "user_id": "ann"}))
    assert [one[1] for one in states_of(world, "seen")["testcase-ann",]] == ["a"]


def long_backlog() -> World:
    """Return a world in which 21 entries wait for the binding, the last but one entry of all."""
    world, lo = World(), connection()
    world.append(frames(lo, *[{"event": f"e{number}", "class": "7b"} for number in range(20)]))
    world.append(frames(lo, {"event": "bound", "user_id": "ann"}, {"event": "last"}))
    return world


class Watched:
    """A log source that knows how many rows each of its views gave, and whether one is open."""

    def __init__(self, source: LogSource) -> None:
        self._source, self.reads, self.is_open = source, list[int](), False

    @contextmanager
    def open(self) -> Iterator[Log]:
        """Return the log, counting."""
        with self._source.open() as log:
            self.reads.append(0)
            self.is_open, row = True, log.row

            def counted(index: int) -> bytes:
                self.reads[-1] += 1
                return row(index)

            log.row = counted  # type: ignore[method-assign]
            yield log
            self.is_open = False


@pytest.mark.parametrize(("name", "limit", "most"), [("SLICE_ENTRIES", 6, 6), ("PIECE_BYTES", 0, 1)])
def test_a_binding_is_folded_in_pieces(
    name: str, limit: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a backlog is, a view gives a slice of it at most, and none is open while reducers work."""
    world = long_backlog()
    want = world.digest()
    monkeypatch.setattr(feed, name, limit)
    one, source = bare(world), Watched(world.source)
    (holding,) = one.holdings
    plain = holding.fold

    def fold(items: Any, routing: Any) -> None:
        assert not source.is_open
        plain(items, routing)

    monkeypatch.setattr(holding, "fold", fold)
    run(one, source)  # type: ignore[arg-type]
    assert union([one]) == want
    assert max(source.reads) == most
    assert sum(source.reads) == 21
    names = [each[1] for each in slots_of(one, "seen")["testcase-ann",].state]
    assert names == [f"e{number}" for number in range(20)] + ["bound", "last"]


def test_a_worker_that_dies_within_a_binding_folds_it_again_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The position stays before a binding until all of its backlog is folded: nothing is left out or twice."""
    world = long_backlog()
    want = world.digest()
    left: Iterator[int] = count()

    def mortal(state: Any, event: Event) -> Any:
        if next(left, None) is None:
            raise Crash
        return seen.function(state, event)

    world.reducers = [replace(one, function=mortal) if one.name == "seen" else one for one in world.reducers]
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 3)
    for folded in range(21):
        left = iter(range(folded))
        world.states.clear()
        one = world.runner()
        while one.position + 6 <= world.size:
            one.step(world.source)
            one.save(world.source)
        before, (holding,) = one.position, one.holdings
        whole = holding.fold

        def fold(*most: Any, whole: Any = whole, of: Any = holding) -> None:
            whole(*most)
            if of.stopped is not None:  # what a reducer raises stops its module; a death stops all
                raise Crash

        monkeypatch.setattr(holding, "fold", fold)
        with pytest.raises(Crash):
            run(one, world.source)
        assert (one.position, one.unsaved) == (before, False)
        left = count()
        again = world.runner()
        assert again.position == before
        run(again, world.source)
        assert union([again]) == want


# --- quarantine ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", SHARDS)
def test_a_quarantine_is_part_of_the_fold(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key stands still at the event that its reducer failed at, live as replayed; other keys go on."""
    world = World()
    sent = [event(name, kind) for kind in ("good", "bad", "good") for name in ("ann", "bob")]
    sent[3] = event("bob", "good")
    receipts = world.append(sent)
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 1)
    live = world.runners(shards)
    for one in live:
        while one.step(world.source):
            one.save(world.source)
    slots = {key: slot for one in live for key, slot in slots_of(one, "touchy").items()}
    assert (slots["ann",].state, slots["ann",].error_index) == (1, receipts[2].index)
    assert (slots["bob",].state, slots["bob",].error_index) == (3, None)
    assert union(live) == union(world.runners(shards)) == world.digest()


# --- erasure -------------------------------------------------------------------------------------


def erase(world: World, name: str) -> None:
    """Destroy the secret of a subject, as an erasure will."""
    number = world.vault().admit([name])[name].number
    world.site.vault.commit([Write("subjects", number.to_bytes(8), None)])


@pytest.mark.parametrize("shards", SHARDS)
def test_an_erased_person_is_passed_over(shards: int) -> None:
    """What cannot be read any more is in no state; all others are as they were."""
    world = classroom()
    erase(world, "student:ann")
    want = expected(world, without={"ann"})
    assert world.digest(shards) == want
    one = bare(world)
    run(one, world.source)
    assert one.erased > 0


def test_erasing_a_person_covers_the_backlog() -> None:
    """The frames from before the identity are as unreadable as the rest of the person's, at the binding."""
    world = World()
    world.append(frames(connection(), {"event": "a"}, {"event": "b", "user_id": "ann"}, {"event": "c"}))
    erase(world, "student:testcase-ann")
    assert states_of(world, "seen") == {}


# --- stop and start ------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_a_restart_after_any_save_changes_nothing(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies anywhere between two saves goes on from the last one, to the same states."""
    world = classroom()
    want = expected(world)
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 3)
    for lost in range(4):  # slices folded and not saved when the worker dies
        world.states.clear()
        for shard in range(shards):
            while (one := world.runner(shard, shards)).position < world.size:
                one.step(world.source)
                one.save(world.source)
                for _ in range(lost):
                    one.step(world.source)
        again = world.runners(shards)
        assert [one.position for one in again] == [world.size] * shards
        assert union(again) == want


def test_a_restart_keeps_the_backlog() -> None:
    """Entries that wait for an identity still wait after a restart, and are gone from disk once bound."""
    world = World()
    lo = connection()
    world.append(frames(lo, {"event": "a"}, {"event": "b"}))
    one = world.runner()
    run(one, world.source)
    one.save(world.source)
    world.append(frames(lo, {"event": "c", "user_id": "ann"}))
    two = world.runner()
    assert two.backlog == one.backlog != {}
    run(two, world.source)
    two.save(world.source)
    assert [one[1] for one in slots_of(two, "seen")["testcase-ann",].state] == ["a", "b", "c"]
    with world.states[0, 1].view() as view:
        assert list(view.scan("backlog")) == []
    assert world.runner().backlog == {}


def test_a_backlog_that_begins_anew_is_stored_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound and waiting again between two saves, a subject has on disk what waits now and nothing of before."""
    monkeypatch.setattr(layout, "CHUNK", 2)
    world = World()
    one = world.runner()
    world.append(frames(connection(1), {"event": "a"}, {"event": "b"}, {"event": "c"}))
    run(one, world.source)
    one.save(world.source)
    lo = connection(1)
    world.append(frames(lo, {"event": "d"}, {"event": "e", "user_id": "ann"}))
    world.append(frames(connection(1), {"event": "f"}, {"event": "g"}, {"event": "h"}, {"event": "i"}))
    run(one, world.source)
    one.save(world.source)
    (waits,) = one.backlog.values()
    assert len(waits) == 4
    assert world.runner().backlog == one.backlog


def test_a_rebuild_is_no_answer_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun from nothing, states answer once they have seen what the log held then; a restart on the way and
    new entries change neither.
    """
    world = classroom()
    size = world.size
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 5)
    one = world.runner()
    reader = world.reader()
    while one.position < size:
        one.step(world.source)
        one.save(world.source)
        if one.position < size:
            assert reader.rebuilding() == (one.position, size)
            with pytest.raises(NotFound, match="rebuilt"):
                reader.position()
        world.append([event("ann")])
        one = world.runner()
    assert reader.position() == one.position < world.size
    assert reader.rebuilding() is None


def test_a_fresh_log_is_no_rebuild() -> None:
    """The worker of a log that has just begun answers from its first save on."""
    world = World()
    one = world.runner()
    run(one, world.source)
    one.save(world.source)
    assert world.reader().position() == world.size


def test_saving_twice_writes_once() -> None:
    """A save without news is none; a save with news holds only these."""
    world = classroom()
    one = world.runner()
    run(one, world.source)
    assert one.unsaved
    one.save(world.source)
    assert not one.unsaved
    stamp = world.states[0, 1]._tables
    one.save(world.source)
    assert world.states[0, 1]._tables is stamp


def test_a_replay_keeps_nothing() -> None:
    """Without a store a runner saves nothing."""
    world = classroom()
    one = bare(world)
    run(one, world.source)
    one.save(world.source)
    assert one.position == world.size


def saved(world: World) -> MemoryStore:
    """Let a single worker fold and save everything, and return its store."""
    one = world.runner()
    run(one, world.source)
    one.save(world.source)
    return world.states[0, 1]


def test_states_of_another_log_are_not_taken_up() -> None:
    """A snapshot whose root is not in this log's history is thrown away, and the log folded from nothing."""
    one, other = World(), World()
    one.append([event("ann")])
    other.append([event("ann", "otherwise"), event("bob")])
    other.states[0, 1] = saved(one)
    again = other.runner()
    assert (again.position, slots_of(again, "seen")) == (0, {})
    with other.states[0, 1].view() as view:
        assert [list(view.scan(table)) for table in STATE_TABLES] == [[]] * len(STATE_TABLES)
    run(again, other.source)
    assert union([again]) == other.digest()


def test_states_ahead_of_the_log_are_not_taken_up() -> None:
    """A snapshot that has seen more than there is belongs to another history (a restored log)."""
    world = World()
    before = world.size
    world.append([event("ann")])
    saved(world)
    world.site.published.set(before)
    assert world.runner().position == 0


def changed(name: str, version: int, label: str) -> Any:
    """Return a reducer of that name and version whose code digest depends on `label`."""
    import dataclasses

    made = reducer(scope=("student",), version=version, name=name)(count_all)
    return dataclasses.replace(made, code_digest=sha256(label.encode()).hexdigest())


def count_all(state: int, event: Event) -> int:  # noqa: ARG001 - it counts whatever comes
    """Count whatever comes."""
    return state + 1


@pytest.mark.parametrize(
    "after",
    [
        [changed("one", 2, "code")],
        [changed("one", 1, "other code")],
        [changed("two", 1, "code")],
        [changed("one", 1, "code"), changed("two", 1, "code")],
        [],
    ],
    ids=["version", "code", "name", "one more", "one less"],
)
def test_states_of_other_reducers_are_not_taken_up(after: list[Any]) -> None:
    """A snapshot is used only by exactly the reducers that made it: name, version and code."""
    world = World(reducers=[changed("one", 1, "code")])
    world.append([event("ann"), event("bob")])
    saved(world)
    assert world.runner().position == world.size
    world.reducers = after
    assert world.runner().position == 0
    run(one := world.runner(), world.source)
    assert union([one]) == world.digest()


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("backlog", bytes(12), b"1234567"),
        ("backlog", bytes(8), b"12345678"),
        ("backlog", bytes(11) + b"\1", b"12345678"),
        ("meta", b"snapshot", b"\xc1"),
        ("meta", b"snapshot", b""),
    ],
)
def test_a_snapshot_that_cannot_be_read_is_not_taken_up(table: str, key: bytes, value: bytes) -> None:
    """Whatever is wrong with a snapshot, it is rebuilt; a worker never stops for it."""
    world = World(reducers=[seen])
    world.append([event("ann")])
    store = saved(world)
    store.commit([Write(table, key, value)])
    one = world.runner()
    assert one.position == 0
    run(one, world.source)
    assert union([one]) == world.digest()


@pytest.mark.parametrize(
    "value", [b"\xc1", bytes(8) + b"\xc1", bytes(8) + b"\x96\x01\x91\xa3ann\x00\xc0\xc0\xc4\x01x"]
)
def test_a_stored_state_that_cannot_be_read_begins_everything_anew(value: bytes) -> None:
    """A torn state is found when it is needed: the module stops there, and its next start folds from nothing."""
    world = World(reducers=[seen])
    world.append([event("ann"), event("bob")])
    saved(world).commit([Write("states", b"seen\0\0\3ann", value)])
    world.append([event("bob"), event("ann")])
    one = world.runner()
    run(one, world.source)
    assert "rebuilt from the log" in one.stopped["all"].reason
    again = world.runner()
    assert again.position == 0
    run(again, world.source)
    assert union([again]) == world.digest()


def test_a_save_that_is_lost_is_made_up_for() -> None:
    """If the store refuses a save, what it would have written is in the next one."""
    world = World()
    world.append([event("ann")])
    store = MemoryStore(STATE_TABLES)
    refusing = Refusing(store)
    one = Runner([Holding(world.reducers, refusing, "all")], world.vault())
    run(one, world.source)
    with pytest.raises(OSError, match="no space"):
        one.save(world.source)
    assert one.unsaved
    refusing.refuses = False
    one.save(world.source)
    world.states[0, 1] = store
    assert union([world.runner()]) == world.digest()


class Refusing:
    """A store that refuses commits."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner, self.refuses = inner, True
        self.view, self.close = inner.view, inner.close

    def commit(self, writes: Any) -> None:
        """Refuse, or commit."""
        if self.refuses:
            raise OSError("no space")
        self._inner.commit(writes)


def test_a_submission_of_many_subjects_is_read_with_all_their_keys() -> None:
    """An event about several subjects is folded as long as every one of them exists, and then no more."""
    world = World()
    fields = {"kind": 1, "also": ["student:bob"]}
    both: Submission = raw_event(b'{"event":"note"}', {"student": "ann"}, **fields)
    world.append([both])
    assert [one[1] for one in states_of(world, "seen")["ann",]] == ["note"]
    erase(world, "student:bob")
    assert states_of(world, "seen") == {}
