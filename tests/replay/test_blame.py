"""Whatever a module raises, stores or calls itself, it is that module that stops, and nothing of an event is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from archive import IntegrityError, MemoryStore, StorageFailed, Unavailable, Write
from reducers import Event, StateError, reducer
from replay import Runner, Stopped, info_of, take_note
from replay.attempt import IDLE
from replay.folded import stopped_by
from replay.reasons import NAME_LENGTH_MAX, REASON_LENGTH_MAX, reason_of
from tests.replay.stored import judge_tables, tables
from tests.replay.test_stopping import Modules, Trouble, evil, raising
from tests.world import event, run, seen, tick_at, touchy


class Mute(BaseException):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise SystemExit("no text")


class Nameless(type):
    """A class that will not be named."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise KeyError("no name")


class Half(BaseException):
    """Says half a character."""

    def __str__(self) -> str:
        return "\ud800" * 1_000


class Slow(BaseException):
    """Is called what we call a fault of ours."""


ODD: dict[str, BaseException] = {
    "mute": Mute(),
    "unnamed": Nameless("Unnamed", (BaseException,), {})("ann"),  # in here, as pytest asks classes for names
    "half": Half(),
    "named after somebody": type("ann: was here", (BaseException,), {})(),
    "long": type("x" * 1_000, (BaseException,), {})("y" * 1_000),
    "one of ours": Slow("ann wrote something"),
}
each_odd = pytest.mark.parametrize("name", ODD)


@each_odd
def test_whatever_an_error_is_there_is_something_to_say_of_it(name: str) -> None:
    """Asking it for its text or its name may raise; what is said is a text that can be sent, of bounded length."""
    reason = reason_of(ODD[name])
    assert 0 < len(reason.encode()) <= REASON_LENGTH_MAX + NAME_LENGTH_MAX
    assert "ann:" not in reason


@each_odd
def test_an_error_is_told_by_its_name_alone_and_is_of_no_kind_of_ours(name: str) -> None:
    """Its text may hold something of an event; and a class called Slow is no sign that anybody was slow."""
    stopped = stopped_by("evil", 7, ODD[name])
    assert (stopped.kind, stopped.ours) == ("stopped", False)
    assert stopped.told in {"Mute", "Error", "Half", "x" * NAME_LENGTH_MAX, "Slow"}
    assert Stopped("", 7, "Slow: more than half", "slow", ours=True).told == "Slow: more than half"


def shard() -> Modules:
    """Return three modules that have all seen a few events; "evil" takes ticks."""
    made = Modules(first=[seen], evil=[evil], last=[touchy])
    made.kept.append(*[event(name) for name in ("ann", "bob", "eve")])
    made.save(made.runner())
    return made


def judge_neighbours(modules: Modules, runner: Runner) -> Stopped:
    """Assert that "evil" stopped alone, and return why."""
    assert list(runner.stopped) == ["evil"]
    for name in ("first", "last"):
        assert modules.holding(name).position == modules.world.size
        assert modules.digest(name) == modules.fold(name)
    return runner.stopped["evil"]


@each_odd
def test_no_error_is_too_odd_to_stop_its_module_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has an owner, at its event, and no word is left standing."""
    monkeypatch.setattr(Trouble, "act", staticmethod(raising(ODD[name])))
    modules = shard()
    (at,) = modules.kept.append(event("bob", "stop"))
    runner = modules.runner()
    words = [holding.attempt for holding in runner.holdings]
    modules.save(runner)
    stopped = judge_neighbours(modules, runner)
    assert (stopped.reducer, stopped.at) == ("evil", at)
    assert {word[0] for word in words} == {IDLE}


@dataclass
class Fussy:
    """A state that may refuse to be made."""

    count: int = 0

    def __post_init__(self) -> None:
        Refusal.act()


class Refusal:
    """What happens when a `Fussy` is made."""

    act: Callable[[], Any] = staticmethod(lambda: None)


@reducer(name="evil")
def fussy(state: Fussy, event: Event) -> Fussy:  # noqa: ARG001 - it counts whatever comes
    """Count events."""
    return Fussy(state.count + 1)


@pytest.mark.parametrize("error", [KeyError("ann"), Mute(), SystemExit(3), Unavailable("not now")])
def test_a_stored_state_whose_class_refuses_it_stops_its_module_alone(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises: its states are removed, and made anew by the next start."""
    modules = Modules(first=[seen], evil=[fussy], last=[touchy])
    modules.kept.append(event("ann"), event("bob"))
    modules.save(modules.runner())
    modules.kept.append(event("ann"))
    runner = modules.runner()
    monkeypatch.setattr(Refusal, "act", staticmethod(raising(error)))
    modules.save(runner)
    stopped = judge_neighbours(modules, runner)
    assert (stopped.told, "rebuilt from the log" in stopped.reason) == ("StateError", True)
    assert not any(tables(modules.stores["evil"]).values())
    monkeypatch.setattr(Refusal, "act", staticmethod(lambda: None))
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


# --- a store that is damaged -----------------------------------------------------------------------


def rot(modules: Modules) -> None:
    """Damage every stored state of "evil"."""
    store = modules.stores["evil"]
    rows = tables(store)["states"].items()
    store.commit([Write("states", key, value[:8] + b"\xc1 rot") for key, value in rows])


def a_tick(modules: Modules, _: int) -> None:
    """Let every key be looked for."""
    modules.kept.append(tick_at(60))


def an_event(modules: Modules, _: int) -> None:
    """Let one key be looked for."""
    modules.kept.append(event("ann"))


def a_skip(modules: Modules, at: int) -> None:
    """Let those be looked for that stand still."""
    modules.kept.skip("evil", at)


@pytest.mark.parametrize("met", [a_tick, an_event, a_skip])
def test_a_damaged_state_stops_its_module_alone_wherever_it_is_met(
    met: Callable[[Modules, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding, looking for keys, folding again: its states are removed, and made anew by the next start."""
    monkeypatch.setattr(Trouble, "act", staticmethod(raising(ValueError("stands still"))))
    modules = shard()
    (at,) = modules.kept.append(event("bob", "stop"))
    modules.save(modules.runner())
    rot(modules)
    runner = modules.runner()
    met(modules, at)
    run(runner, modules.world.source)
    runner.save(modules.world.source)
    assert "rebuilt from the log" in judge_neighbours(modules, runner).reason
    assert not any(tables(modules.stores["evil"]).values())
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


def test_a_state_that_is_found_damaged_when_it_is_saved_stops_its_module_alone() -> None:
    """The state before is read, to know which rows go; the one in memory is not to be written beside it."""
    modules = shard()
    runner = modules.runner()
    modules.kept.append(event("ann"))
    run(runner, modules.world.source)
    rot(modules)
    runner.save(modules.world.source)
    assert "rebuilt from the log" in judge_neighbours(modules, runner).reason
    modules.save(modules.runner("evil"))
    assert modules.digest("evil") == modules.fold("evil")


class Rotten:
    """A store that fails in a way when it is read or written."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner, self.close = inner, inner.close
        self.reading: Exception | None = None
        self.writing: Exception | None = None

    def view(self) -> Any:
        """Read, or fail."""
        if self.reading is not None:
            raise self.reading
        return self.inner.view()

    def commit(self, writes: Any) -> None:
        """Write, or fail."""
        if self.writing is not None:
            raise self.writing
        self.inner.commit(writes)


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("error", [IntegrityError("no page"), StorageFailed("the disk failed")])
def test_a_store_that_fails_stops_its_module_alone(error: Exception, reading: bool) -> None:
    """A page that is none any more is its own; what is there is left, and a person is told what to do."""
    modules = shard()
    modules.stores["evil"] = rotten = Rotten(modules.stores["evil"])
    before, runner = tables(rotten), modules.runner()
    modules.kept.append(event("ann"))
    if reading:
        rotten.reading = error
    else:
        rotten.writing = error
    run(runner, modules.world.source)
    runner.save(modules.world.source)
    rotten.reading = rotten.writing = None
    assert "move its states away" in judge_neighbours(modules, runner).reason
    assert tables(rotten) == before
    judge_tables(before)


def test_a_store_that_cannot_be_read_just_now_is_nobodys_fault() -> None:
    """The worker tries again; no module is blamed, and no word is left standing."""
    modules = shard()
    modules.stores["evil"] = rotten = Rotten(modules.stores["evil"])
    runner = modules.runner()
    (word,) = [one.attempt for one in runner.holdings if one.module == "evil"]
    modules.kept.append(event("ann"))
    rotten.reading = Unavailable("too many readers")
    with pytest.raises(Unavailable):
        run(runner, modules.world.source)
    assert word[0] == IDLE
    assert all(holding.stopped is None for holding in runner.holdings)


def test_a_damaged_state_that_is_met_when_states_are_noted_is_its_modules_trouble() -> None:
    """Noting reads every state; whoever does it is told whose it is, and nothing is noted."""
    modules = shard()
    rot(modules)
    holding = modules.holding("evil")
    with pytest.raises(StateError, match="evil"):
        take_note(modules.stores["evil"], [info_of(evil)], holding.position)
    modules.stores["evil"] = rotten = Rotten(modules.stores["evil"])
    rotten.reading = IntegrityError("no page")
    with pytest.raises(StateError, match="damaged"):
        take_note(rotten, [info_of(evil)], holding.position)
    rotten.reading = None
    assert not tables(rotten)["attested"]


class Ending:
    """Looks after a process, and notes what is said of a module when it has folded."""

    def __init__(self) -> None:
        self.words = list[int]()

    def before(self, holding: Any) -> None:
        """Do nothing."""

    def after(self, holding: Any) -> None:
        """Note the word that would be left if the process ended here."""
        self.words.append(holding.attempt[0])


def test_who_looks_after_a_process_may_end_it_to_the_blame_of_who_folded() -> None:
    """Its word stands until then: a module that closed other people's files must not be nobody."""
    modules = shard()
    runner = modules.runner()
    (holding,) = [one for one in runner.holdings if one.module == "evil"]
    holding.watch = ending = Ending()
    (at,) = modules.kept.append(event("ann"))
    run(runner, modules.world.source)
    assert ending.words[0] == at + 1
    assert holding.attempt[0] == IDLE
