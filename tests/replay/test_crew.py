"""A crew: modules of one worker at positions of their own, who is behind catching up, and all together from then on."""

from __future__ import annotations

from typing import Any

import pytest

from archive import MemoryStore
from reducers import Reducer, state_digest
from replay import STATE_TABLES, Crew, Holding, feed
from tests.replay.classroom import CLASSROOM, ordered
from tests.replay.kept import Kept, world_of
from tests.world import event, pages, plain_fold, seen, touchy

MODULES: dict[str, list[Reducer[Any]]] = {"first": [seen], "second": [touchy], "third": [pages]}


class Ship:
    """A world, and the stores of three modules."""

    def __init__(self) -> None:
        self.kept = Kept(world_of([one for reducers in MODULES.values() for one in reducers]))
        self.kept.append(*CLASSROOM)
        self.stores = {name: MemoryStore(STATE_TABLES) for name in MODULES}

    def crew(self, *names: str) -> Crew:
        """Return the worker of these modules, gone on from what they saved."""
        world, holdings = self.kept.world, []
        for name in names:
            holding = Holding(MODULES[name], self.stores[name], name, keys_max=3)
            with world.source.open() as log:
                holding.resume(log)
            holdings.append(holding)
        return Crew(holdings, world.vault())

    def round(self, crew: Crew) -> int:
        """Let a crew take one step and save; return how many entries that were."""
        taken = crew.step(self.kept.world.source)
        crew.save(self.kept.world.source)
        return taken

    def digest(self, name: str) -> bytes:
        """Return what a module has saved."""
        (runner,) = self.crew(name).runners
        return state_digest(runner.pairs())

    def fold(self, name: str) -> bytes:
        """Return the plain fold."""
        return plain_fold(MODULES[name], ordered(self.kept.submissions), self.kept.skips)


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch) -> Ship:
    """Return a ship whose slices are short, and whose modules have come to three places."""
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 8)
    made = Ship()
    for name, rounds in (("first", 1), ("second", 3)):
        crew = made.crew(name)
        for _ in range(rounds):
            made.round(crew)
    return made


def test_modules_at_several_places_come_together(ship: Ship) -> None:
    """Whoever was added, upgraded or away catches up to the next one, is joined there, and ends with the others."""
    crew = ship.crew(*MODULES)
    assert [runner.position for runner in crew.runners] == [0, 8, 24]
    while ship.round(crew):
        pass
    (runner,) = crew.runners
    assert runner.position == ship.kept.world.size
    assert sorted(holding.module for holding in crew.holdings) == sorted(MODULES)
    assert not crew.unsaved
    for name in MODULES:
        assert ship.digest(name) == ship.fold(name)


def test_a_crew_comes_together_though_events_never_stop(ship: Ship) -> None:
    """Who is within a slice of the next one meets it in the same step, or under load they would never meet."""
    crew = ship.crew(*MODULES)
    for _ in range(20):
        ship.kept.append(event("ann"))
        ship.round(crew)
    assert len(crew.runners) == 1
    for name in MODULES:
        assert ship.digest(name) == ship.fold(name)


def test_nobody_waits_for_who_is_behind(ship: Ship) -> None:
    """While a module that begins from nothing catches up, the one that is ahead takes each new entry at once."""
    crew = ship.crew("second")
    while ship.round(crew):
        pass
    crew = ship.crew("second", "third")
    ship.kept.append(event("ann"))
    ship.round(crew)
    assert [runner.position for runner in crew.runners] == [8, ship.kept.world.size]


def test_a_skip_is_known_to_all_of_a_crew(ship: Ship) -> None:
    """Who is behind knows of what is skipped ahead of it, and who is ahead folds again; together they hold the list."""
    bad = next(index for index, one in ship.kept.submissions if b'"bad"' in one.payload)
    crew = ship.crew(*MODULES)
    for name in ("touchy", "seen", "pages"):
        ship.kept.skip(name, bad)
    while ship.round(crew):
        pass
    for name in MODULES:
        assert ship.digest(name) == ship.fold(name)


def test_a_crew_of_nobody_has_nothing_to_do(ship: Ship) -> None:
    """Without a module, no step takes anything and no save fails."""
    crew = ship.crew()
    assert ship.round(crew) == 0
    assert (crew.holdings, crew.outbox, crew.unsaved, crew.steering) == ([], [], False, None)
