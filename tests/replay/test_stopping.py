"""Modules side by side: what stops one, or fails to be stored, is nothing to the others, and nothing is half saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from archive import MemoryStore, Skip, Store, Unavailable, Write
from reducers import Event, Reducer, reducer, state_digest
from replay import STATE_TABLES, Holding, Runner, StateReader, feed, layout
from replay.attempt import index_of
from tests.replay.classroom import ordered
from tests.replay.kept import Kept, world_of
from tests.replay.stored import judge_tables, tables
from tests.world import (
    World,
    connection,
    event,
    frames,
    pages,
    plain_fold,
    run,
    seen,
    slots_of,
    tick_at,
    touchy,
    union,
)


class Trouble:
    """What happens at the event that is called "stop"."""

    act: Callable[[], Any] = staticmethod(lambda: None)


@reducer(scope=("student",), version=1, ticks=60, default=0)
def evil(state: Any, event: Event) -> Any:
    """Count events; at "stop", do what the test says."""
    if event.type == "stop":
        return Trouble.act()
    return state + 1


def deep(_: int = 0) -> Any:
    """Call oneself for ever."""
    return deep()


def raising(error: BaseException) -> Callable[[], Any]:
    """Return a function that raises."""

    def act() -> Any:
        raise error

    return act


STOPS: list[Callable[[], Any]] = [
    raising(MemoryError()),
    deep,
    raising(SystemExit(3)),
    raising(KeyboardInterrupt()),
    raising(GeneratorExit()),
]
STOP_NAMES = ["MemoryError", "RecursionError", "SystemExit", "KeyboardInterrupt", "GeneratorExit"]
each_stop = pytest.mark.parametrize("act", STOPS, ids=STOP_NAMES)


class Modules:
    """Modules of one shard, each with a store of its own, over one world."""

    def __init__(self, **modules: list[Reducer[Any]]) -> None:
        self.kept = Kept(world_of([one for reducers in modules.values() for one in reducers]))
        self.modules = modules
        self.stores: dict[str, Any] = {name: MemoryStore(STATE_TABLES) for name in modules}

    @property
    def world(self) -> World:
        """Return the world."""
        return self.kept.world

    def holding(self, name: str) -> Holding:
        """Return a module as it goes on from what it saved."""
        holding = Holding(self.modules[name], self.stores[name], name, keys_max=2)
        with self.world.source.open() as log:
            holding.resume(log)
        return holding

    def runner(self, *names: str) -> Runner:
        """Return a runner of these modules, or of all."""
        return Runner([self.holding(name) for name in names or self.modules], self.world.vault())

    def fold(self, name: str) -> bytes:
        """Return the digest of the plain fold of one module."""
        return plain_fold(self.modules[name], ordered(self.kept.submissions), self.kept.skips)

    def digest(self, name: str) -> bytes:
        """Return the digest of what a module has saved."""
        return state_digest(self.holding(name).pairs())

    def save(self, runner: Runner) -> None:
        """Let a runner catch up and save."""
        run(runner, self.world.source)
        runner.save(self.world.source)
        for store in self.stores.values():
            judge_tables(tables(store))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    """Return three modules, one of them evil, that have all seen a few events, in slices of a few entries."""
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 3)
    made = Modules(first=[seen, pages], evil=[evil], last=[touchy])
    made.kept.append(*[event(name, doc_id="d") for name in ("ann", "bob", "eve")])
    made.save(made.runner())
    return made


# --- a module that cannot go on ------------------------------------------------------------------


@each_stop
def test_what_stops_a_module_stops_no_other(
    act: Callable[[], Any], modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on, to the states of the log; it stays where it was, and says at which event that is."""
    monkeypatch.setattr(Trouble, "act", staticmethod(act))
    before, position = tables(modules.stores["evil"]), modules.holding("evil").position
    indices = modules.kept.append(
        event("ann"), event("bob", "stop"), event("ann", doc_id="e"), event("eve", "bad")
    )
    runner = modules.runner()
    modules.save(runner)
    assert runner.position == modules.world.size
    assert [holding.module for holding in runner.holdings] == ["first", "last"]
    assert list(runner.stopped) == ["evil"]
    stopped = runner.stopped["evil"]
    assert (stopped.reducer, stopped.at) == ("evil", indices[1])
    assert type_of(act) in stopped.reason
    assert tables(modules.stores["evil"]) == before
    assert modules.holding("evil").position == position
    for name in ("first", "last"):
        assert modules.holding(name).position == modules.world.size
        assert modules.digest(name) == modules.fold(name)


def type_of(act: Callable[[], Any]) -> str:
    """Return the name of what a function raises."""
    return STOP_NAMES[STOPS.index(act)]


@each_stop
def test_a_module_that_stopped_goes_on_when_its_trouble_is_gone(
    act: Callable[[], Any], modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops at the same event at every start, and after the last one nothing is missing, and nothing twice."""
    monkeypatch.setattr(Trouble, "act", staticmethod(act))
    modules.kept.append(event("ann"), event("bob", "stop"), event("bob"))
    for _ in range(2):
        modules.save(modules.runner("first", "last"))
        alone = modules.runner("evil")
        modules.save(alone)
        assert list(alone.stopped) == ["evil"]
        assert alone.step(modules.world.source) == 0
    monkeypatch.setattr(Trouble, "act", staticmethod(lambda: 70))
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


@each_stop
def test_a_skip_of_what_stops_a_module_lets_it_go_on(
    act: Callable[[], Any], modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The skipped event is never run again, though it stands before the skip; the states are those without it."""
    monkeypatch.setattr(Trouble, "act", staticmethod(act))
    at = modules.kept.append(event("ann"), event("bob", "stop"), event("bob"), event("ann"))[1]
    modules.save(modules.runner())
    modules.kept.skip("evil", at)
    modules.save(modules.runner("evil"))
    assert modules.holding("evil").position == modules.world.size
    assert modules.digest("evil") == modules.fold("evil")


def test_modules_that_all_stopped_leave_nothing_to_do(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner without a module takes no entries, and saves nothing."""
    monkeypatch.setattr(Trouble, "act", staticmethod(raising(MemoryError())))
    modules.kept.append(event("ann", "stop"))
    runner = modules.runner("evil")
    assert runner.step(modules.world.source) == 0
    assert runner.holdings == []
    assert runner.step(modules.world.source) == 0
    runner.save(modules.world.source)


def test_a_key_that_is_folded_again_may_stop_its_module(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the replay of a key cannot go on, its module stops with its states as they were, and no other does."""
    monkeypatch.setattr(Trouble, "act", staticmethod(raising(ValueError("no"))))
    first, second = modules.kept.append(event("ann", "stop"), event("ann", "stop"))
    runner = modules.runner()
    modules.save(runner)
    before = tables(modules.stores["evil"])
    monkeypatch.setattr(Trouble, "act", staticmethod(raising(MemoryError())))
    modules.kept.skip("evil", first)
    modules.save(runner)
    assert runner.stopped["evil"].at == second
    assert tables(modules.stores["evil"]) == before
    assert modules.digest("first") == modules.fold("first")
    modules.kept.skip("evil", second)
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


def test_who_is_to_blame_is_known_before_it_runs(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process dies in a reducer, the word that outlives it names the event, also while a key is folded again."""
    noted: list[int | None] = []
    runner = modules.runner()
    (holding,) = [one for one in runner.holdings if one.module == "evil"]

    def act() -> int:
        noted.append(index_of(holding.attempt[0]))
        return 0

    monkeypatch.setattr(Trouble, "act", staticmethod(act))
    indices = modules.kept.append(event("ann", "stop"), event("bob", "stop"), event("ann", "stop"))
    run(runner, modules.world.source)
    assert noted == indices
    modules.kept.skip("evil", indices[0])
    run(runner, modules.world.source)
    assert noted == [*indices, indices[2]]


# --- a state that cannot be saved ----------------------------------------------------------------


def nested() -> Any:
    """Return a list nested so deep that no encoder goes to the end of it."""
    state: Any = []
    for _ in range(100_000):
        state = [state]
    return state


@pytest.mark.parametrize(
    "state",
    [float("nan"), "\ud800", object(), {1: 2}, nested()],
    ids=["nan", "half", "object", "keys", "deep"],
)
def test_a_state_that_cannot_be_encoded_stops_its_module_alone(
    state: Any, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the save it is found: nothing of its module is written, everything of the others is."""
    monkeypatch.setattr(Trouble, "act", staticmethod(lambda: state))
    before = tables(modules.stores["evil"])
    (at, _) = modules.kept.append(event("ann", "stop"), event("bob"))
    runner = modules.runner()
    modules.save(runner)
    assert (runner.stopped["evil"].reducer, runner.stopped["evil"].at) == ("evil", at)
    assert tables(modules.stores["evil"]) == before
    assert [holding.module for holding in runner.holdings] == ["first", "last"]
    assert not runner.unsaved
    for name in ("first", "last"):
        assert modules.holding(name).position == modules.world.size
        assert modules.digest(name) == modules.fold(name)
    modules.kept.skip("evil", at)
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


class Viewed:
    """What becomes of somebody who looks at a state."""

    act: Callable[[], Any] = staticmethod(lambda: None)


def look(state: int) -> Any:
    """Show the state, unless the test has other plans."""
    return Viewed.act() or {"shown": state}


def test_a_view_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a view raises or returns, the state is saved, and readers are told that its view failed."""
    viewed = reducer(scope=("student",), version=1, name="viewed", view=look)(count_all)
    modules = Modules(one=[viewed], other=[seen])
    tries = [*STOPS, raising(ValueError("no")), object, nested, lambda: float("nan")]
    for number, act in enumerate(tries, 1):
        monkeypatch.setattr(Viewed, "act", staticmethod(act))
        modules.kept.append(event("ann"))
        runner = modules.runner()
        modules.save(runner)
        assert not runner.stopped
        _, slot = StateReader(modules.stores["one"]).get("viewed", ("ann",))
        assert slot is not None
        assert slot.encoding == str(number).encode()
        assert slot.shown is not None
        if act is not tries[-1]:
            assert b"view_failed" in slot.shown
    monkeypatch.setattr(Viewed, "act", staticmethod(lambda: None))
    modules.kept.append(event("ann"))
    modules.save(modules.runner())
    _, slot = StateReader(modules.stores["one"]).get("viewed", ("ann",))
    assert slot is not None
    assert slot.shown == b'{"shown":%d}' % (len(tries) + 1)
    _, slot = StateReader(modules.stores["other"]).get("seen", ("ann",))
    assert slot is not None
    assert slot.shown is None, "a state without a view is shown as it is, and kept once"


def count_all(state: int, event: Event) -> int:  # noqa: ARG001 - it counts whatever comes
    """Count whatever comes."""
    return state + 1


# --- a store that fails --------------------------------------------------------------------------


class Refusing:
    """A store that can be told to refuse commits, as a full disk does."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner, self.refuses = inner, False
        self.view, self.close = inner.view, inner.close

    def commit(self, writes: Any) -> None:
        """Refuse, or commit."""
        if self.refuses:
            raise Unavailable("no space")
        self.inner.commit(writes)


def test_a_backlog_that_one_module_saved_and_another_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of two saves fails, the next brings both stores to the same backlog, whatever happened between."""
    monkeypatch.setattr(layout, "CHUNK", 2)
    modules = Modules(one=[seen], other=[touchy])
    modules.stores["other"] = refusing = Refusing(modules.stores["other"])
    runner = modules.runner()
    modules.save(runner)
    modules.kept.append(*frames(connection(), *[{"event": f"e{number}"} for number in range(7)]))
    run(runner, modules.world.source)
    refusing.refuses = True
    with pytest.raises(Unavailable):
        runner.save(modules.world.source)
    refusing.refuses = False
    assert len(tables(modules.stores["one"])["backlog"]) == 4
    lo = connection()
    modules.kept.append(*frames(lo, {"event": "x"}, {"event": "bound", "user_id": "ann"}))
    modules.kept.append(*frames(connection(), {"event": "y"}))
    modules.save(runner)
    for name in ("one", "other"):
        assert modules.holding(name).position == modules.world.size
        assert modules.holding(name).backlog == runner.backlog
        assert modules.digest(name) == modules.fold(name)


def test_states_that_cannot_be_read_nor_removed_stop_their_module_alone(
    modules: Modules,
) -> None:
    """On a full disk a torn state is found again at the next start; with room, everything of it is made anew."""
    store = modules.stores["evil"]
    store.commit([Write("states", b"evil\0\0\3ann", b"\xc1")])
    modules.stores["evil"] = refusing = Refusing(store)
    refusing.refuses = True
    modules.kept.append(event("ann"))
    runner = modules.runner()
    run(runner, modules.world.source)
    runner.save(modules.world.source)
    assert "rebuilt from the log" in runner.stopped["evil"].reason
    assert modules.digest("first") == modules.fold("first")
    refusing.refuses = False
    run(modules.runner("evil"), modules.world.source)
    assert modules.holding("evil").position == 0
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


# --- modules that meet ---------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [4, 8, 10])
def test_modules_that_meet_go_on_together(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runners at one position are joined, with backlogs, cold keys and skips, and hold what the log gives each."""
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 3)
    modules = Modules(one=[seen, pages], other=[touchy])
    lo = connection()
    modules.kept.append(*[event(name, doc_id="d") for name in ("ann", "bob", "eve")])
    modules.kept.append(*frames(lo, {"event": "a"}, {"event": "b"}))
    (bad, *_) = modules.kept.append(event("ann", "bad"), event("ann"), *frames(lo, {"event": "c"}))
    first, second = modules.runner("one"), modules.runner("other")
    run(first, modules.world.source, ahead)
    first.save(modules.world.source)
    modules.kept.skip("touchy", bad)
    run(second, modules.world.source, ahead)
    second.save(modules.world.source)
    first.join(second)
    assert [holding.module for holding in first.holdings] == ["one", "other"]
    modules.kept.append(*frames(lo, {"event": "d", "user_id": "kim"}), event("ann"), event("bob", "bad"))
    modules.save(first)
    assert union([first]) == modules.kept.fold()
    for name in ("one", "other"):
        assert modules.digest(name) == modules.fold(name)
        assert modules.holding(name).position == modules.world.size


@pytest.mark.parametrize("order", [("one", "other"), ("other", "one")])
def test_what_one_of_two_has_read_ahead_holds_for_both(
    order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steering is read ahead: who has read less when they meet is not left behind, and the other not set back."""
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 3)
    modules = Modules(one=[touchy], other=[reducer(scope=("student",), version=1, name="two")(fail_at_bad)])
    source = modules.world.source
    (at,) = modules.kept.append(event("ann", "bad"))
    early, late = modules.runner(order[0]), modules.runner(order[1])
    early.step(source)
    early.save(source)
    later = modules.kept.append(event("ann"), event("bob", "bad"), event("bob"), event("ann"))[1]
    for name in ("touchy", "two"):
        modules.kept.skip(name, at)
        modules.kept.skip(name, later)
    late.step(source)
    late.save(source)
    assert early.position == late.position == 3
    early.join(late)
    early.step(source, 5)
    modules.save(early)
    assert union([early]) == modules.kept.fold()


def fail_at_bad(state: int, event: Event) -> int:
    """Count events, and fail at each that is called "bad"."""
    if event.type == "bad":
        raise ValueError("bad")
    return state + 1


def test_only_those_that_stand_together_are_joined(modules: Modules) -> None:
    """Joining at different positions, or before a save, would fold something twice, or never."""
    behind, ahead = modules.runner("first"), modules.runner("last")
    modules.kept.append(event("ann"))
    run(ahead, modules.world.source)
    with pytest.raises(AssertionError, match="different positions"):
        behind.join(ahead)
    run(behind, modules.world.source)
    with pytest.raises(AssertionError, match="save first"):
        behind.join(ahead)
    behind.save(modules.world.source)
    with pytest.raises(AssertionError, match="save first"):
        behind.join(ahead)
    ahead.save(modules.world.source)
    behind.join(ahead)
    with pytest.raises(AssertionError, match="different positions"):
        Runner([Holding([seen]), modules.holding("last")], modules.world.vault())


def test_a_module_with_a_store_of_any_kind_is_the_same(store: Store) -> None:
    """Stops, skips, ticks and cold keys on a disk leave what they leave in memory."""
    modules = Modules(one=[touchy, evil])
    modules.stores["one"] = store
    at = modules.kept.append(event("ann"), event("bob", "bad"), event("bob"), event("eve", "bad"))[1]
    modules.save(modules.runner())
    modules.kept.append(tick_at(60), event("ann"))
    modules.kept.skip("touchy", at)
    modules.save(modules.runner())
    modules.world.steer(Skip("evil", at))
    modules.kept.skips["evil"] = {at}
    modules.save(runner := modules.runner())
    assert union([runner]) == modules.digest("one") == modules.fold("one")
    assert len(slots_of(runner, "touchy")) == 3


def deeper(levels: int, action: Callable[[], Any]) -> Any:
    """Call `action` so many calls deeper."""
    return deeper(levels - 1, action) if levels else action()


def test_a_stored_state_too_deep_to_read_stops_its_module_alone(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether nested lists can be read depends on how deep the caller stands: it is no reason to begin anew."""
    state: Any = []
    for _ in range(700):
        state = [state]
    monkeypatch.setattr(Trouble, "act", staticmethod(lambda: state))
    modules.kept.append(event("ann", "stop"))
    modules.save(modules.runner())
    before = tables(modules.stores["evil"])
    assert modules.holding("evil").position == modules.world.size
    modules.kept.append(event("ann"))
    runner = modules.runner()
    deeper(500, lambda: run(runner, modules.world.source))
    runner.save(modules.world.source)
    assert "RecursionError" in runner.stopped["evil"].reason
    assert runner.stopped["evil"].reducer == "evil"
    assert tables(modules.stores["evil"]) == before
    assert modules.digest("first") == modules.fold("first")
