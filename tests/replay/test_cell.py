"""A module in a cell comes to the same states as anywhere else, and what a cell answers is never just believed.

Here both sides stand in one process: what goes between them is encoded and decoded as over a pipe (`linked`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from archive import ROW_BINDING, Activate, ActiveReducer, Event, MemoryStore, Skip, Write
from reducers import Emit, Module, Reducer, entry_digest, reducer
from replay import (
    STATE_TABLES,
    Ask,
    CellDied,
    CellHolding,
    Done,
    Holding,
    Keyed,
    Piece,
    Question,
    Runner,
    Tenant,
    cell_wire,
    decode_back,
    decode_piece,
    encode_frame,
    info_of,
    remote,
    run_to,
    tenant,
)
from replay import cell as cell_of
from replay.cell_wire import Halt
from tests.replay.classroom import CLASSROOM
from tests.world import World, event, steered_reducers, tick_at


def linked(reducers: list[Reducer[Any]], word: list[int] | None = None) -> Ask:
    """Return what asks a tenant over what could be a pipe."""
    other = Tenant(reducers, [0] if word is None else word)

    def ask(message: Piece | Question) -> Done | Keyed:
        answer = decode_back(other.framed(decode_piece(encode_frame(message)[4:]))[4:])
        assert isinstance(answer, Done if isinstance(message, Piece) else Keyed)
        return answer

    return ask


def remotes(reducers: list[Reducer[Any]]) -> list[Reducer[Any]]:
    """Return what a worker has in place of these reducers."""
    return [remote(info_of(one), "module", viewed=one.viewer is not None) for one in reducers]


def ours() -> list[Reducer[Any]]:
    """Return reducers of every kind, as those of one module."""
    return list(Module("module", tuple(steered_reducers())).reducers)


def school() -> World:
    """Return a world with a class, ticks, and texts and numbers that are hard to carry."""
    made = World(reducers=ours())
    made.append(CLASSROOM)
    made.append([tick_at(1_700_000_040), event("ann", data=[1 << 80, -0.0, "\u0000é", {"a": None}])])
    made.append([event("bob", "mute"), event("bob", "fragile"), tick_at(1_700_000_100), event("bob")])
    return made


def folded(made: World, holding: Holding) -> Holding:
    """Fold the whole log into a holding."""
    run_to(Runner([holding], made.vault()), made.source, made.size)
    assert holding.stopped is None, holding.stopped
    return holding


def states(holding: Holding) -> dict[Any, bytes]:
    """Return the entry digest of each state."""
    return {one.identity: entry_digest(one) for one in holding.pairs()}


def test_a_cell_comes_to_the_same_states() -> None:
    """States, quarantines and messages, of students, classes, documents and everybody, with and without ticks."""
    made, reducers = school(), ours()
    plain = folded(made, Holding(reducers, module="module"))
    apart = folded(made, CellHolding(remotes(reducers), linked(reducers), module="module"))
    assert states(plain) == states(apart)
    assert plain.outbox == apart.outbox


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("dropped", [0, 2, 1_000])
def test_pieces_may_be_of_any_size(monkeypatch: pytest.MonkeyPatch, tasks: int, dropped: int) -> None:
    """However little is sent at a time, and however few states a cell holds, the states are the same."""
    monkeypatch.setattr(cell_of, "TASKS_MAX", tasks)
    monkeypatch.setattr(cell_of, "DROPPED_MAX", dropped)
    made, reducers = school(), ours()
    plain = folded(made, Holding(reducers))
    store = MemoryStore(STATE_TABLES)
    apart = CellHolding(remotes(reducers), linked(reducers), store, keys_max=2)
    runner = Runner([apart], made.vault())
    while runner.position < made.size:
        runner.step(made.source, runner.position + 5)
        apart.outbox.clear()
        runner.save(made.source)
    assert states(plain) == states(apart)


def test_what_waited_for_a_skipped_binding_is_not_given_to_a_cell() -> None:
    """A cell is asked what a plain holding folds, and no more."""
    made, reducers = school(), ours()
    whole = states(folded(made, Holding(reducers, module="module")))
    bindings = [index for index, one in enumerate(CLASSROOM, 2) if one.kind == ROW_BINDING]
    for index in bindings:
        for one in reducers:
            made.steer(Skip(one.name, index))
    plain = folded(made, Holding(reducers, module="module"))
    apart = folded(made, CellHolding(remotes(reducers), linked(reducers), module="module"))
    assert states(plain) == states(apart) != whole


def test_a_skip_is_folded_in_the_cell_beside_what_is_there() -> None:
    """The key that stands still is folded anew, in a space of its own, and then taken over."""
    made, reducers = school(), ours()
    apart = CellHolding(remotes(reducers), linked(reducers), module="module")
    runner = Runner([apart], made.vault())
    run_to(runner, made.source, made.size)
    touchy = next(one for one in apart.reducers if one.name == "touchy")
    stands = apart.get(touchy, ("ann",))
    assert stands is not None
    assert stands.error_index is not None
    made.steer(Skip("touchy", stands.error_index))
    made.append([event("ann")])
    run_to(runner, made.source, made.size)
    after = apart.get(touchy, ("ann",))
    assert after is not None
    assert after.error is None
    plain = Holding(reducers, module="module")
    assert states(folded(made, plain)) == states(apart)


def test_what_readers_are_shown_comes_from_the_cell() -> None:
    """The worker stores it without running the module's view."""

    @reducer(view=lambda state: {"shown": state})
    def veiled(state: int, event: Event) -> int:  # noqa: ARG001 - it counts whatever comes
        return state + 1

    made, store = World(reducers=[veiled]), MemoryStore(STATE_TABLES)
    made.append([event("ann")])
    apart = CellHolding(remotes([veiled]), linked([veiled]), store, module="module")
    runner = Runner([apart], made.vault())
    run_to(runner, made.source, made.size)
    runner.save(made.source)
    with store.view() as view:
        ((_, value),) = view.scan("states")
    assert b'{"shown":1}' in value


@reducer(default=list)
def echoing(state: Any, event: Event, emit: Emit) -> Any:
    """Keep what an event holds, and say it to the class."""
    emit("echoing.heard", keys={"class": "7b"}, data={"was": event.data})
    return [*state, event.data]


def echoed(*data: Any) -> tuple[Holding, Holding]:
    """Return plain and in a cell what comes of events that hold these."""
    (ours,) = Module("module", (echoing,)).reducers
    made = World(reducers=[ours])
    made.steer(Activate("module", (ActiveReducer(ours.name, ours.version, ours.scope, ours.code_digest),)))
    made.append([event("ann", data=one) for one in data])
    plain = folded(made, Holding([ours], module="module"))
    return plain, folded(made, CellHolding(remotes([ours]), linked([ours]), module="module"))


@pytest.mark.parametrize("number", [(1 << 64) - 1, 1 << 64, -(1 << 63), -(1 << 63) - 1, 1 << 200])
def test_a_message_may_hold_any_whole_number(number: int) -> None:
    """What a neighbour in the same process could say, a module in a cell can say as well."""
    data = [1, number, {"a": [-number, "\u0000é", -0.0, 0.1, None, True]}]
    plain, apart = echoed(*data)
    assert states(plain) == states(apart)
    assert plain.outbox == apart.outbox
    assert [one.message.data["was"] for one in apart.outbox] == data


# --- where it cannot go on -----------------------------------------------------------------------


@reducer(default=list)
def odd(state: Any, event: Event) -> Any:
    """Make a state without an encoding at one event, and another one at the next."""
    if event.type == "exit":
        raise SystemExit
    return object() if event.type == "odd" else [type(state).__name__, event.index]


def stopping(*types: str) -> CellHolding:
    """Return a holding of `odd` after events of these types; the first of them has index 2."""
    made = World(reducers=[odd])
    made.append([event("ann", name) for name in types])
    apart = CellHolding(remotes([odd]), linked([odd]), module="module")
    Runner([apart], made.vault()).step(made.source)
    return apart


def test_the_event_that_makes_an_impossible_state_is_found() -> None:
    """Not the last one that changed it, where the lack of an encoding was noticed."""
    found = stopping("e", "odd", "e", "odd", "e", "odd").stopped
    assert found is not None
    assert (found.reducer, found.at, found.category) == ("odd", 3, "StateError")


def test_what_ends_a_process_elsewhere_stops_the_module_here() -> None:
    """SystemExit is told like any other reason, with its event."""
    found = stopping("e", "exit").stopped
    assert found is not None
    assert (found.reducer, found.at, found.category) == ("odd", 3, "SystemExit")


def test_a_death_is_laid_at_the_task_that_was_running() -> None:
    """Only the events before it were folded, and none of that is kept."""
    made = World(reducers=[odd])
    made.append([event("ann"), event("bob")])

    def die(_: Piece | Question) -> Done | Keyed:
        raise CellDied("Died: SIGSEGV", 1)

    apart = CellHolding(remotes([odd]), die, module="module")
    Runner([apart], made.vault()).step(made.source)
    assert apart.stopped is not None
    assert (apart.stopped.at, apart.stopped.reason) == (3, "Died: SIGSEGV")


# --- what is too large ----------------------------------------------------------------------------


@reducer(default=str)
def swelling(state: Any, event: Event, emit: Emit) -> Any:
    """Grow by what an event says, and repeat it; at "odd", make what is no state."""
    if event.type == "odd":
        return object()
    emit("said", keys=event.keys, data="y" * event.data)
    return state + "x" * event.data


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a message have 4,000 bytes at most, and a state no limit of its own; return that."""
    for module in (cell_wire, tenant):
        monkeypatch.setattr(module, "FRAME_BYTES_MAX", 4_000)
    return 4_000


def swelled(*sizes: int, store: MemoryStore | None = None) -> tuple[Holding, Holding]:
    """Return plain and in a cell what comes of events that make ten states grow by these sizes, one after another."""
    (ours,) = Module("module", (swelling,)).reducers
    made = World(reducers=[ours])
    made.steer(Activate("module", (ActiveReducer(ours.name, ours.version, ours.scope, ours.code_digest),)))
    for size in sizes:
        made.append([event(f"student-{n}", data=size) for n in range(10)])
    plain = Holding([ours], module="module")
    apart = CellHolding(remotes([ours]), linked([ours]), store, module="module", keys_max=3)
    for holding in (plain, apart):
        run_to(Runner([holding], made.vault()), made.source, made.size)
    return plain, apart


def test_what_is_too_large_for_one_message_goes_in_several(narrow: int) -> None:
    """States and messages of many keys are asked for in halves, from what was before them: nothing twice."""
    assert 10 * 3 * 100 < narrow < 10 * 3 * 200, "too large for one answer, not for one event"
    plain, apart = swelled(100, 200, 300)
    assert apart.stopped is None, apart.stopped
    assert states(plain) == states(apart)
    assert plain.outbox == apart.outbox
    assert len(plain.outbox) == 30


def test_one_event_that_makes_too_much_stops_its_module(narrow: int) -> None:
    """It is that event that is named, and not the first of its piece, nor is the worker to blame."""
    plain, apart = swelled(100, narrow)
    assert plain.stopped is None
    assert apart.stopped is not None
    assert (apart.stopped.reducer, apart.stopped.category, apart.stopped.ours) == (
        "swelling",
        "TooLarge",
        True,
    )
    first = min(one.at for one in plain.outbox if len(one.message.data) == narrow)
    assert apart.stopped.at == first


def test_the_event_that_makes_a_state_too_large_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the last one that changed it; what can be shown of a state is no reason to stop."""
    monkeypatch.setattr(tenant, "STATE_BYTES_MAX", 250)
    plain, apart = swelled(100, 100, 100, 100)
    assert apart.stopped is not None
    third = [one.at for one in plain.outbox if one.key == ("student-0",)][2]
    assert (apart.stopped.at, apart.stopped.told, apart.stopped.kind) == (third, "TooLarge", "stopped")


def test_what_a_cell_holds_counts_as_if_it_were_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the event is looked for that made an impossible state, all states of the piece are sent once more."""
    monkeypatch.setattr(cell_of, "PIECE_BYTES_MAX", 2_000)
    (ours,) = Module("module", (swelling,)).reducers
    made, sizes = World(reducers=[ours]), list[tuple[bool, int]]()
    made.append([event(f"student-{n}", data=1_000) for n in range(10)])
    made.append([event(f"student-{n}", "e" if n < 9 else "odd", data=1) for n in range(10)])
    ask = linked([ours])

    def asked(piece: Piece | Question) -> Done | Keyed:
        assert isinstance(piece, Piece)
        sizes.append((piece.careful, len(encode_frame(piece))))
        return ask(piece)

    apart = CellHolding(remotes([ours]), asked, module="module")
    runner = Runner([apart], made.vault())
    run_to(runner, made.source, made.size)
    assert apart.stopped is not None
    assert apart.stopped.category == "StateError"
    assert sizes[-1][0], "the last question was a careful one"
    assert max(size for _, size in sizes) < 4_000


def test_a_cells_own_words_are_never_ours() -> None:
    """It may call its end what we call ours: what is told of it is one name, and it counts as what it is."""
    made = World(reducers=[odd])
    made.append([event("ann")])

    def say(_: Piece | Question) -> Done | Keyed:
        return Done([], [], Halt(0, "Slow: ann wrote something"))

    apart = CellHolding(remotes([odd]), say, module="module")
    Runner([apart], made.vault()).step(made.source)
    assert apart.stopped is not None
    assert (apart.stopped.told, apart.stopped.kind) == ("Slow", "stopped")


def test_a_damaged_state_stops_a_module_in_a_cell_alone() -> None:
    """Its worker reads the store, and finds no state there: it is stopped like any other, and begins anew."""
    store = MemoryStore(STATE_TABLES)
    made, reducers = school(), ours()
    runner = Runner([CellHolding(remotes(reducers), linked(reducers), store, module="module")], made.vault())
    run_to(runner, made.source, made.size)
    runner.save(made.source)
    with store.view() as view:
        rows = dict(view.scan("states"))
    store.commit([Write("states", key, value[:8] + b"\xc1") for key, value in rows.items()])
    made.append([event("ann")])
    apart = CellHolding(remotes(reducers), linked(reducers), store, module="module")
    with made.source.open() as log:
        apart.resume(log)
    Runner([apart], made.vault()).step(made.source)
    assert apart.stopped is not None
    assert "rebuilt from the log" in apart.stopped.reason
    with store.view() as view:
        assert not list(view.scan("states"))


# --- what is not believed ------------------------------------------------------------------------


def lie(change: Callable[[Done], Done]) -> Holding:
    """Return a holding after two events whose cell answers something else than the truth."""
    reducers = [one for one in ours() if one.name in {"touchy", "pages"}]
    made = World(reducers=reducers)
    made.append([event("ann"), event("bob")])
    ask = linked(reducers)

    def lying(message: Piece | Question) -> Done | Keyed:
        told = ask(message)
        assert isinstance(told, Done)
        return change(told)

    apart = CellHolding(remotes(reducers), lying, module="module")
    Runner([apart], made.vault()).step(made.source)
    return apart


def repr_short(value: object) -> str:
    """Return the name of a case."""
    return repr(value)[:12]


def changed(**fields: Any) -> Callable[[Done], Done]:
    """Return what changes the first state of an answer."""

    def change(done: Done) -> Done:
        first, *others = done.changed
        return replace(done, changed=[replace(first, slot=replace(first.slot, **fields)), *others])

    return change


LIES: dict[str, Callable[[Done], Done]] = {
    "the key of somebody who was not asked for": changed(key=("eve",)),
    "a key of another shape": changed(key=("ann", "ann")),
    "an event that was not asked for": changed(changed_at=7),
    "a quarantine without an error": changed(error_index=2),
    "an error without a quarantine": changed(error="no"),
    "another version": changed(version=2),
    "a state that is no JSON": changed(encoding=b"{"),
    "a state that is too large": changed(encoding=b'"' + b"x" * (17 << 20) + b'"'),
    "a state that is nested without end": changed(encoding=b"[" * 60_000 + b"]" * 60_000),
    "something shown that is no JSON": changed(shown=b"<script>"),
    "an error of a million letters": changed(error="x" * 10**6, error_index=2),
    "a reducer that there is not": lambda done: replace(
        done, changed=[replace(done.changed[0], reducer=9), *done.changed[1:]]
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_a_breach(name: str) -> None:
    """It stops the module, whatever the rest of the answer is."""
    apart = lie(LIES[name])
    assert apart.stopped is not None
    assert apart.stopped.category == "Breach"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"1e999", b"[" * 60_000, b'"' + b"x" * (1 << 16) + b'"'], ids=repr_short
)
def test_a_message_whose_data_is_none_is_a_breach(data: bytes) -> None:
    """It stops the module, and not the worker that reads it."""
    (ours,) = Module("module", (echoing,)).reducers
    made = World(reducers=[ours])
    made.steer(Activate("module", (ActiveReducer(ours.name, ours.version, ours.scope, ours.code_digest),)))
    made.append([event("ann")])
    ask = linked([ours])

    def lying(message: Piece | Question) -> Done | Keyed:
        told = ask(message)
        assert isinstance(told, Done)
        return replace(told, said=[replace(one, data=data) for one in told.said])

    apart = CellHolding(remotes([ours]), lying, module="module")
    Runner([apart], made.vault()).step(made.source)
    assert apart.outbox == []
    assert apart.stopped is not None
    assert apart.stopped.category == "Breach"


def test_the_truth_is_none() -> None:
    """The same cell, left alone, goes on."""
    assert lie(lambda done: done).stopped is None
