"""Two traces part where two folds part, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import FormatError, Unavailable
from reducers import Event, Reducer, entry_digest, reducer
from replay import (
    START,
    Line,
    Parted,
    Runner,
    Traced,
    comparable,
    decode_line,
    encode_line,
    first_difference,
    traced,
)
from tests.replay.kept import quarrel
from tests.replay.test_sweep import careless, unspeakable
from tests.world import World, beats, connection, event, frames, seen, touchy

State = dict[str, Any]


@reducer(scope=("student",), version=1, name="points")
def points(state: State, event: Event) -> State:
    """Count events by type, two levels deep."""
    by = {**state.get("by", {})}
    by[event.type] = by.get(event.type, 0) + 1
    return {"by": by}


@reducer(scope=("student",), version=2, name="points")
def points_again(state: State, event: Event) -> State:
    """Do the same, but for events called "c": from the second one of a student on, it counts them double."""
    after = points(state, event)
    if event.type == "c" and after["by"]["c"] > 1:
        after["by"]["c"] += 1
    return after


def trace(
    world: World, one: Reducer[Any], start: int = 0, stop: int | None = None, *, states: bool = True
) -> Iterator[Line]:
    """Return the trace of a reducer in a world."""
    stop = world.size if stop is None else stop
    return traced(Traced([one]), world.vault(), world.source, start, stop, states=states)


def parted(world: World, one: Reducer[Any], other: Reducer[Any], *span: int) -> Parted | None:
    """Return where two reducers part."""
    return first_difference(trace(world, one, *span), trace(world, other, *span))


def test_the_first_event_key_and_field_are_named() -> None:
    """Version 2 parts at Bob's second "c", in one nested field, though versions differ from the first event on."""
    world = World(reducers=[points])
    kinds = [("ann", "a"), ("bob", "c"), ("ann", "c"), ("ann", "a"), ("bob", "a"), ("bob", "c"), ("ann", "c")]
    world.append([event(name, kind) for name, kind in kinds])
    found = parted(world, points, points_again)
    assert found is not None
    assert (found.at, found.due, found.key) == (7, 7, ("bob",))
    assert [str(place) for place in found.places] == ["$['by']['c']: 2 here, 3 there"]


def test_a_stretch_gives_what_the_whole_gives() -> None:
    """Traced from any size before the first difference, it is found as well; traced from behind it, that is said."""
    world = World(reducers=[points])
    world.append([event("ann", kind) for kind in "aacbcacb"])
    whole = parted(world, points, points_again)
    assert whole is not None
    for start in range(whole.at + 1):
        assert parted(world, points, points_again, start) == whole
    late = parted(world, points, points_again, whole.at + 1)
    assert late is not None
    assert (late.at, late.key) == (START, ("ann",))
    assert parted(world, points, points_again, 0, whole.at) is None


def test_the_trace_ends_in_the_states_of_a_replay() -> None:
    """The last line of each key is its state after the stretch, whatever was skipped, ticked or bound in it."""
    kept, bad = quarrel()
    for index in bad[:2]:
        kept.skip("touchy", index)
        kept.skip("beats", index)
        kept.append(event("ann"))
    for one in (seen, touchy, beats):
        kept.world.reducers = [dataclasses.replace(one, version=1)]
        for size in (4, kept.world.size):
            last = {line.key: line for line in trace(kept.world, one, 0, size)}
            digests = {(one.name, 1, key): line for key, line in last.items()}
            assert digests.keys() == kept.world.digests(size=size).keys()
            runner = Runner([holding := Traced([one])], kept.world.vault())
            while runner.position < size:
                runner.step(kept.world.source, size)
            assert {pair.key: comparable(pair).hex() for pair in holding.pairs()} == {
                key: line.digest for key, line in last.items()
            }


def test_lines_come_in_the_order_of_the_fold() -> None:
    """What waited for its identity is folded at the binding, a tick in the order of keys: so is it told."""
    world = quarrel()[0].world
    for one in (seen, beats):
        orders = [line.order for line in trace(world, one)]
        assert orders == sorted(orders)
        assert any(due != at for due, at, _ in orders)


def test_a_change_that_only_one_made_is_found_on_either_side() -> None:
    """One version leaves a state as it is, which the other changes: the event is named, with what the other holds."""

    @reducer(scope=("student",), version=1, name="points")
    def deaf(state: State, event: Event) -> State:
        """Hear nothing of "b"."""
        return state if event.type == "b" and state else points(state, event)

    world = World(reducers=[points])
    world.append([event(name, kind) for kind in "aab" for name in ("ann", "bob")])
    for one, other, sides in ((points, deaf, (1, None)), (deaf, points, (None, 1))):
        found = parted(world, one, other)
        assert found is not None
        assert (found.at, found.key) == (6, ("ann",))
        (place,) = found.places
        assert place.path == "$['by']['b']"
        assert [side if side == 1 else None for side in (place.ours, place.theirs)] == list(sides)


def test_what_ends_in_a_quarantine_in_one_only_is_found() -> None:
    """Equal last good states, and yet not the same: one of them stands still."""

    @reducer(scope=("student",), version=1, name="touchy")
    def stoic(state: int, event: Event) -> int:
        """Bear what is bad."""
        return state if event.type == "bad" else state + 1

    world = World(reducers=[touchy])
    world.append([event("ann"), event("ann", "bad"), event("ann")])
    found = parted(world, touchy, stoic)
    assert found is not None
    assert (found.at, [place.path for place in found.places]) == (3, ["quarantined"])


def test_an_equal_state_is_no_change() -> None:
    """A reducer that returns a new object which is equal, and one that returns the old one, have the same trace."""

    @reducer(scope=("student",), version=1, name="first")
    def lazy(state: list[str], event: Event) -> list[str]:
        """Keep the first event only."""
        return state or [event.type]

    @reducer(scope=("student",), version=1, name="first")
    def eager(state: list[str], event: Event) -> list[str]:
        """Keep the first event only, in a new list each time."""
        return list(state) or [event.type]

    world = World(reducers=[lazy])
    world.append([event("ann", "a"), event("ann", "b"), event("bob", "a")])
    assert parted(world, lazy, eager) is None
    assert len(list(trace(world, eager))) == 2


def test_digests_alone_tell_event_and_key() -> None:
    """A trace without states, as it is saved for another machine, names everything but the field."""
    world = World(reducers=[points])
    world.append(frames(connection(), {"event": "c"}, {"event": "c", "user_id": "kim"}))
    found = first_difference(trace(world, points), trace(world, points_again, states=False))
    assert found is not None
    assert (found.at, found.due, found.key, found.places) == (3, 4, ("testcase-kim",), [])


def test_neither_trace_is_read_further_than_needed() -> None:
    """A difference at the beginning costs no more than the beginning."""
    world = World(reducers=[points])
    world.append([event("ann", kind) for kind in "ccab"])
    ours, theirs = trace(world, points), trace(world, points_again)
    assert first_difference(ours, theirs) is not None
    assert next(ours).at == 4


@given(st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from("abc")), max_size=12))
def test_two_versions_part_exactly_where_a_plain_fold_parts(kinds: list[tuple[str, str]]) -> None:
    """Whatever came, the event that is named is the first after which a plain fold differs."""
    world, seconds = World(reducers=[points]), dict[str, int]()
    expected = None
    for index, (name, kind) in enumerate(kinds, 2):
        world.append([event(name, kind)])
        seconds[name] = seconds.get(name, 0) + (kind == "c")
        if expected is None and kind == "c" and seconds[name] == 2:
            expected = (index, (name,))
    found = parted(world, points, points_again)
    assert (None if found is None else (found.at, found.key)) == expected


def test_lines_are_read_as_they_were_written() -> None:
    """Bytes of a state included; what is no line is an error that says so."""
    world = World(reducers=[points])
    world.append([event("ann", "a"), event("söre\u0301n", "b")])
    for line in trace(world, points):
        again = decode_line(encode_line(line))
        assert (again.says, bytes(again.state)) == (line.says, bytes(line.state))
    for bad in (b"", b"{}", b"[1,2]", b'[1,2,["a"],3,null,{}]', b"\xff"):
        with pytest.raises(FormatError, match="not a line of a trace"):
            decode_line(bad)


def test_versions_do_not_show_in_what_is_compared() -> None:
    """The same state of two versions is the same line; its entry digest is not."""
    world = World(reducers=[points])
    world.append([event("ann", "a")])
    one, other = next(trace(world, points)), next(trace(world, points_again))
    assert one.says == other.says
    holding = Traced([points])
    runner = Runner([holding], world.vault())
    runner.step(world.source)
    (pair,) = holding.pairs()
    assert one.digest == comparable(pair).hex() != entry_digest(pair).hex()


def test_a_reducer_that_cannot_go_on_ends_its_trace() -> None:
    """The event at which it stopped is named, and the lines before it were told."""

    @reducer(scope=("student",), version=1)
    def hungry(state: int, event: Event) -> int:
        """Run out of memory at "bad"."""
        if event.type == "bad":
            raise MemoryError
        return state + 1

    world = World(reducers=[hungry])
    world.append([event("ann"), event("ann", "bad"), event("ann")])
    lines = trace(world, hungry)
    assert next(lines).at == 2
    with pytest.raises(Unavailable, match="hungry stopped at entry 3: MemoryError"):
        next(lines)


def test_a_state_without_an_encoding_is_an_error() -> None:
    """It has no digest, so there is nothing that could be compared."""
    world = World(reducers=[unspeakable, careless])
    world.append([event("ann", "nan")])
    with pytest.raises(Exception, match="nan is not a JSON number"):
        list(trace(world, unspeakable))
