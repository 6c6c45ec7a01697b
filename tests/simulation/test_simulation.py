"""Whole deployments by seed: whatever dies, fills up or jumps, no promise is broken.

pytest tests/simulation --seed 17         repeats one world; the failing seed stands in the message
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from archive import Answer, ArchiveError, Archiver, Caches, MemoryStore, Prepared, Write
from merkle import MerkleError
from replay import Holding, Waiting, feed
from tests.faults import CrashingSeal, CrashingStore, Schedule
from tests.simulation.world import Doubles, World


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers take so few entries at once that every boundary is met."""
    monkeypatch.setattr(feed, "SLICE_ENTRIES", 5)


def live(seed: int, doubles: Doubles | None = None) -> World:
    """Live one world; an error says which."""
    try:
        world = World(seed, doubles)
        world.run()
    except Exception as error:
        error.add_note(f"repeat it with: pytest tests/simulation --seed {seed}")
        raise
    return world


def test_no_world_breaks_a_promise(seeds: range) -> None:
    """The log, the states and every promise hold in each of some dozens of worlds."""
    for seed in seeds:
        live(seed)


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_no_world_of_thousands_breaks_a_promise(seeds: range) -> None:
    """The same, for as many worlds as a night has room for."""
    for seed in seeds:
        live(seed)


def test_a_world_can_be_lived_again() -> None:
    """The same seed gives the same log, to the last root, and another seed another one."""
    worlds = [live(seed) for seed in (3, 3, 4)]
    roots = [world.archiver.root for world in worlds if world.archiver is not None]
    assert roots[0] == roots[1] != roots[2]


def test_worlds_are_eventful() -> None:
    """Between them, a few worlds have all that can happen: deaths, full disks, refusals, resends, many shards."""
    worlds = [live(seed) for seed in range(6)]
    starts = sum(
        1 for world in worlds for entry in world.site.check() if (entry.body or {}).get("control") == "start"
    )
    assert starts > 2 * len(worlds)
    assert len({len(world.runners) for world in worlds}) > 1
    assert sum(len(world.told.receipts) for world in worlds) > 300
    assert any(len(world.told.sent) > len(world.kept()) for world in worlds)
    assert sum(len(world.looks) for world in worlds) > 100


# --- it bites ------------------------------------------------------------------------------------


class PublishesBeforeTheSeal(Doubles):
    """Readers see a commit as soon as it is in the database."""

    def log(self, world: World, schedule: Schedule) -> Any:
        """Publish at the commit."""

        class Eager(CrashingStore):
            def commit(self, writes: Sequence[Write]) -> None:
                super().commit(writes)
                size = max(int.from_bytes(one.key) for one in writes if one.table == "checkpoints")
                world.site.published.set(size)

        return Eager(world.site.log, schedule, "log")


class AcknowledgesBeforeTheSync(Doubles):
    """What is answered is on the disk one commit later: a start finds everything as it was before the last one."""

    def __init__(self) -> None:
        self._before: tuple[Any, Any, int] | None = None

    def log(self, world: World, schedule: Schedule) -> Any:
        """Set everything back by a commit, as a power cut does under a disk that lies about syncs."""
        site, note = world.site, self._note
        if self._before is not None:
            assert isinstance(site.log, MemoryStore)
            (site.log._tables, site.seal.last, size), site.log._view = self._before, None
            site.published.set(size)

        class Late(CrashingStore):
            def commit(self, writes: Sequence[Write]) -> None:
                note(world)
                super().commit(writes)

        return Late(site.log, schedule, "log")

    def _note(self, world: World) -> None:
        assert isinstance(world.site.log, MemoryStore)
        self._before = world.site.log._tables, world.site.seal.last, world.site.published.get()


class ForgetsTheSeal(Doubles):
    """The seal is written at the start only."""

    def seal(self, world: World, schedule: Schedule) -> Any:
        """Seal once."""

        class Once(CrashingSeal):
            def write(self, size: int, root: bytes, block: int) -> None:
                if not self._schedule.steps.count("seal"):
                    super().write(size, root, block)

        return Once(world.site.seal, schedule)


class ForgetsIds(Doubles):
    """The archiver does not know what it has."""

    def caches(self) -> Caches:
        """Know no id."""

        class Forgetful(Caches):
            def candidates(self, identifiers: Sequence[bytes]) -> list[list[int]]:
                return [[] for _ in identifiers]

        return Forgetful()


class ForgetsWhatIsUnderWay(Doubles):
    """The archiver prepares as if the block below were not there."""

    def archiver(self) -> type[Archiver]:
        """Look below no block."""

        class Forgetful(Archiver):
            def _load(self, work: Prepared, below: Prepared | None) -> None:
                del below
                super()._load(work, None)

        return Forgetful


class WritesWhatIsStale(Doubles):
    """The archiver writes what was prepared on top of a block that was not kept."""

    def archiver(self) -> type[Archiver]:
        """Take every base for the head."""

        class Hasty(Archiver):
            def commit(self, prepared: Prepared) -> list[Answer]:
                prepared.base, prepared.kept = self._top, None
                return super().commit(prepared)

        return Hasty


class SavesThePositionFirst(Doubles):
    """A worker writes its position in one commit, and the states in another."""

    def holding(self, world: World, store: Any) -> Holding:
        """Save in two commits."""

        class Hasty:
            view = store.view

            @staticmethod
            def commit(writes: Sequence[Write]) -> None:
                store.commit([one for one in writes if one.table == "meta"])
                store.commit([one for one in writes if one.table != "meta"])

        return super().holding(world, Hasty())


class ForgetsTheBacklog(Doubles):
    """A worker does not save which entries wait for a name."""

    def holding(self, world: World, store: Any) -> Holding:
        """Save without the backlog."""

        class Careless(Holding):
            def save(self, position: int, root: bytes, backlog: Any) -> None:
                super().save(position, root, dict.fromkeys(backlog, Waiting([], 0, 0)))

        return Careless(world.reducers, store, "all")


BROKEN: list[tuple[Callable[[], Doubles], str]] = [
    (PublishesBeforeTheSeal, "visible that is not sealed"),
    (AcknowledgesBeforeTheSync, "not what was acknowledged|two events were given one index|inconsistent"),
    (ForgetsTheSeal, "visible that is not sealed"),
    (ForgetsIds, "an id is there twice|another receipt for the same event|two events under one id"),
    (
        ForgetsWhatIsUnderWay,
        "an id is there twice|another receipt for the same event|two events under one id|sequence",
    ),
    (
        WritesWhatIsStale,
        "a sequence number is off|acknowledged before it was published|not what was acknowledged",
    ),
    (SavesThePositionFirst, "states are not the fold of the log|what was told of"),
    (ForgetsTheBacklog, "states are not the fold of the log|what was told of"),
]


@pytest.mark.parametrize(("broken", "promise"), BROKEN)
def test_a_broken_part_is_found(broken: Callable[[], Doubles], promise: str) -> None:
    """Put an order wrong, or let a part forget: within a few dozen worlds the judge of that promise says so."""
    with pytest.raises((AssertionError, ArchiveError, MerkleError), match=promise):
        live_through(range(40), broken)


def live_through(seeds: range, doubles: Callable[[], Doubles]) -> None:
    """Live many worlds, one after the other."""
    for seed in seeds:
        World(seed, doubles()).run()
