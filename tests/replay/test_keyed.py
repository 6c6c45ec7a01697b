"""Reducers that find keys by code of their own: whether a state is at hand, stored or in a cell does not show.

Those of a Learning Observer module ask each event for its source, for fields, and for what a migrator makes of it.  The
judge is a plain fold over the list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from archive import MemoryStore, Skip
from reducers import Reducer, digest_of_entries, entry_digest, fold
from replay import STATE_TABLES, CellDied, CellHolding, Done, Holding, Keyed, Piece, Question, Runner, run_to
from replay import cell as cell_of
from replay.cell_wire import Halt
from tests.reducers.lo_world import WRITING, lookalike, typed
from tests.replay.classroom import ordered
from tests.replay.kept import Kept, world_of
from tests.replay.test_cell import linked, remotes
from tests.world import connection, event, frames, plain_fold, run, seen, union

PAGE = {"object": {"url": "https://docs.google.com/document/d/essay/edit"}}
"""A document that only a migrator knows."""

sources = st.sampled_from([WRITING, "org.mitros.dynamic-assessment", "org.example.unrelated"])
fields = st.sampled_from(
    [
        {},
        PAGE,
        {"doc_id": "essay"},
        {"doc_id": "poem", "tab_id": "t.0"},
        {**PAGE, "tab_id": "t.1"},
        typed("x"),
    ]
)
sent = st.lists(st.tuples(st.integers(0, 2), sources, fields, st.booleans()), min_size=1, max_size=14)


def ours() -> list[Reducer[Any]]:
    """Return the reducers of a module that was written for the Learning Observer."""
    return [*lookalike().reducers]


def classroom(events: list[tuple[int, str, dict[str, Any], bool]], reducers: list[Reducer[Any]]) -> Kept:
    """Return a world with what three people send; who names himself does so at any frame, or never."""
    kept = Kept(world_of(reducers))
    sockets = [connection(number) for number in range(3)]
    for number, (at, source, more, named) in enumerate(events):
        who = {"user_id": f"student-{at}"} if named else {}
        kept.append(*frames(sockets[at], {"event": f"e{number}", "source": source, **more, **who}))
    return kept


def judged(kept: Kept) -> bytes:
    """Return the digest of the plain fold."""
    return plain_fold(kept.world.reducers, ordered(kept.submissions))


@settings(max_examples=60)
@given(sent, st.integers(1, 3), st.integers(0, 3), st.integers(1, 5))
def test_where_a_state_is_does_not_show(
    events: list[tuple[int, str, dict[str, Any], bool]], shards: int, keys_max: int, slice_: int
) -> None:
    """Workers that are started again after every few entries, with little memory, hold the fold of the list."""
    kept = classroom(events, ours())
    world, once = kept.world, [kept.world.runner(shard, shards) for shard in range(shards)]
    for one in once:
        run(one, world.source)
    assert union(once) == judged(kept)
    world.keys_max = keys_max
    for until in range(slice_, world.size + slice_, slice_):
        again = world.runners(shards)
        for one in again:
            run(one, world.source, until)
            one.save(world.source)
    assert union(world.runners(shards)) == judged(kept)


def in_cell(kept: Kept, keys_max: int = 100) -> CellHolding:
    """Return a holding of all of a world's reducers in a cell, with the whole log folded."""
    reducers = kept.world.reducers
    apart = CellHolding(
        remotes(reducers), linked(reducers), MemoryStore(STATE_TABLES), module="all", keys_max=keys_max
    )
    runner = Runner([apart], kept.world.vault())
    while runner.position < kept.world.size:
        runner.step(kept.world.source, runner.position + 5)
        apart.outbox.clear()
        runner.save(kept.world.source)
    assert apart.stopped is None
    return apart


@settings(max_examples=40)
@given(sent, st.integers(0, 3), st.sampled_from([1, 2, 1_024]))
def test_a_cell_says_whose_states_events_go_into(
    events: list[tuple[int, str, dict[str, Any], bool]], keys_max: int, tasks: int
) -> None:
    """A module that is moved to a cell means what it meant before."""
    kept = classroom(events, ours())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_of, "TASKS_MAX", tasks)
        apart = in_cell(kept, keys_max)
    assert digest_of_entries({one.identity: entry_digest(one) for one in apart.pairs()}) == judged(kept)


@pytest.mark.parametrize("confined", [False, True])
def test_a_skip_finds_the_state_that_only_the_module_knows(*, confined: bool) -> None:
    """It is folded again without the event, in a cell as elsewhere."""
    reducers = [one for one in ours() if one.name.endswith("time_on_task") and one.scope[-1] == "doc_id"]
    kept = classroom([(0, WRITING, PAGE, True)] * 4, reducers)
    (name,) = [one.name for one in reducers]
    at = kept.submissions[-2][0]
    apart = in_cell(kept) if confined else Holding(reducers)
    runner = Runner([apart], kept.world.vault())
    run_to(runner, kept.world.source, kept.world.size)
    kept.skip(name, at)
    run_to(runner, kept.world.source, kept.world.size)
    digests = {one.identity: entry_digest(one) for one in apart.pairs()}
    assert len(digests) == 1
    assert digest_of_entries(digests) == kept.fold()
    assert apart.steered >= at, Skip(name, at)


# --- what is not believed ------------------------------------------------------------------------


def told(change: Callable[[Keyed], Keyed]) -> CellHolding:
    """Return a holding of one event, by Ann, whose cell answers something else than the truth."""
    reducers = [one for one in ours() if one.scope == ("student", "doc_id")]
    kept = classroom([(0, WRITING, PAGE, True)], reducers)
    ask = linked(reducers)

    def lying(message: Piece | Question) -> Done | Keyed:
        answer = ask(message)
        return change(answer) if isinstance(answer, Keyed) else answer

    apart = CellHolding(remotes(reducers), lying, module="all")
    Runner([apart], kept.world.vault()).step(kept.world.source)
    return apart


def of(*keys: tuple[str, ...] | None) -> Callable[[Keyed], Keyed]:
    """Return what answers the first keys so."""
    return lambda answer: replace(answer, keys=[*keys, *answer.keys[len(keys) :]])


LIES = {
    "somebody else's": of(("bob", "essay")),
    "a key that is too short": of(("student-0",)),
    "a key that is too long": of(("testcase-student-0", "essay", "x")),
    "a part that is too long": of(("testcase-student-0", "x" * 2_000)),
    "a part that is nothing": of(("testcase-student-0", "")),
    "fewer keys": lambda answer: replace(answer, keys=answer.keys[1:]),
    "more keys": lambda answer: replace(answer, keys=[*answer.keys, None]),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_key_is_a_breach(name: str) -> None:
    """A cell chooses among its own documents at most: who it is about, it does not say."""
    apart = told(LIES[name])
    assert apart.stopped is not None
    assert apart.stopped.category == "Breach"


def test_the_truth_is_none() -> None:
    """The same cell, left alone, goes on; and it may say that an event is none of its own."""
    assert told(lambda answer: answer).stopped is None
    nothing = told(lambda answer: replace(answer, keys=[None] * len(answer.keys)))
    assert (nothing.stopped, list(nothing.pairs())) == (None, [])


@pytest.mark.parametrize(
    ("answer", "kind"), [(Halt(0, "Broken: x"), "stopped"), (Halt(0, "Memory: x", memory=True), "memory")]
)
def test_code_that_fails_at_a_key_stops_the_module(answer: Halt, kind: str) -> None:
    """It is said at which event, as where a fold fails."""
    apart = told(lambda _: Keyed([], answer))
    assert apart.stopped is not None
    assert (apart.stopped.at, apart.stopped.kind) == (2, kind)


def test_a_cell_that_dies_over_a_key_is_known_by_its_event() -> None:
    """The task that ran is a question's, too."""
    reducers = [one for one in ours() if one.scope == ("student", "doc_id")]
    kept = classroom([(0, WRITING, PAGE, True), (0, WRITING, PAGE, True)], reducers)

    def die(_: Piece | Question) -> Done | Keyed:
        raise CellDied("Died: SIGSEGV", len(reducers))

    apart = CellHolding(remotes(reducers), die, module="all")
    Runner([apart], kept.world.vault()).step(kept.world.source)
    assert apart.stopped is not None
    assert (apart.stopped.at, apart.stopped.reason) == (kept.submissions[-1][0], "Died: SIGSEGV")


def test_only_what_has_code_of_its_own_is_asked_about() -> None:
    """A cell of ordinary reducers is never asked a question."""
    kept = Kept(world_of([seen]))
    kept.append(event("ann"), event("bob"))
    ask = linked([seen])

    def asked(message: Piece | Question) -> Done | Keyed:
        assert isinstance(message, Piece)
        return ask(message)

    apart = CellHolding(remotes([seen]), asked, module="all")
    Runner([apart], kept.world.vault()).step(kept.world.source)
    assert {one.key for one in apart.pairs()} == set(fold(seen, ordered(kept.submissions)))
    assert not seen.keyed
    assert all(one.keyed for one in ours())
