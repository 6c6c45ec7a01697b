"""Workers attest: once, together, whatever dies, lags or is lost on the way, and never what is not so."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from archive import (
    Attest,
    DataFolder,
    InvalidEvent,
    MemoryStore,
    NotFound,
    Receipt,
    Skip,
    Steering,
    Store,
    Unavailable,
    Write,
)
from reducers import Reducer
from replay import (
    STATE_TABLES,
    Crew,
    Gathered,
    Holding,
    forget_note,
    generation_of,
    info_of,
    module_folder,
    notes,
    shard_folder,
)
from tests.replay.kept import activation
from tests.world import World, event, seen, touchy
from tools.attester import LOOK_EVERY_S, Attester
from tools.wakeups import Wakeups
from tools.worker import Duties, tail

REDUCERS: list[Reducer[Any]] = [seen, touchy]


@pytest.fixture(autouse=True)
def _attested_however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of states be enough; that it is not is a test of its own."""
    monkeypatch.setattr("replay.attesting.STATES_MIN", 1)


@dataclass
class Site:
    """A log, and the workers of two shards of one module, each of which can be started anew."""

    path: Path
    reducers: list[Reducer[Any]] = field(default_factory=lambda: list(REDUCERS))
    shards: int = 2
    away: bool = False
    """Whether the archiver takes nothing."""
    refuses: bool = False
    now: float = 0.0
    stores: dict[Path, Store] = field(default_factory=dict)
    said: list[Attest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(reducers=self.reducers)
        self.world.steer(activation(*self.reducers))
        self.start()

    def start(self) -> None:
        """Start all workers anew, from what was saved."""
        self.crews = [self.crew(shard) for shard in range(self.shards)]
        self.attesters = [self.attester(shard) for shard in range(self.shards)]

    def store(self, shard: int) -> Store:
        """Return the store of a shard."""
        return self.stores[self.place(shard)]

    def place(self, shard: int) -> Path:
        """Return where the states of a shard lie."""
        generation = generation_of([info_of(one) for one in self.reducers])
        return shard_folder(
            module_folder(DataFolder(self.path).state, 0, "all"), generation, shard, self.shards
        )

    def crew(self, shard: int) -> Crew:
        """Return the crew of a shard, gone on from what it has saved."""
        store = self.stores.setdefault(self.place(shard), MemoryStore(STATE_TABLES))
        holding = Holding(self.reducers, store, "all")
        with self.world.source.open() as log:
            holding.resume(log)
        return Crew([holding], self.world.vault(), shard=shard, shards=self.shards)

    def attester(self, shard: int) -> Attester:
        """Return the attester of a shard."""
        folder = DataFolder(self.path)
        return Attester(folder, shard, self.shards, client=self, opened=self.opened, clock=lambda: self.now)

    def opened(self, place: Path) -> Store:
        """Return the states of another shard, or raise NotFound."""
        if place not in self.stores:
            raise NotFound(f"{place}: nothing there")
        return self.stores[place]

    def steer(self, steering: Steering) -> Receipt:
        """Take what is attested, as the archiver does."""
        assert isinstance(steering, Attest)
        if self.away:
            raise Unavailable("the archiver is away")
        if self.refuses:
            raise InvalidEvent("not of my kind")
        self.said.append(steering)
        index = self.world.steer(steering)
        return Receipt(index, index + 1)

    def fill(self, size: int) -> None:
        """Append events until the log has so many entries."""
        names = ["ann", "bob", "eve", "kim", "zoe"]
        count = size - self.world.size
        self.world.append([event(names[n % 5], "bad" if n == 700 else "e", n) for n in range(count)])

    def work(self, *shards: int, until: int | None = None, notes: bool = True) -> None:
        """Let shards (all, if none is named) fold, save at each size to attest, and do their part in attesting."""
        for shard in shards or range(self.shards):
            crew, attester = self.crews[shard], self.attesters[shard]
            attester.note(crew)
            while until is None or crew.holdings[0].position < until:
                taken = crew.step(self.world.source)
                if crew.to_attest or not taken:
                    crew.save(self.world.source)
                    self.now += LOOK_EVERY_S
                    if notes:
                        attester.step(crew)
                if not taken:
                    break

    def look(self, *shards: int) -> None:
        """Let some time pass, and every worker look after its notes, as it does when nothing happens."""
        for shard in shards or range(self.shards):
            self.now += LOOK_EVERY_S
            self.crews[shard].step(self.world.source)
            self.crews[shard].save(self.world.source)
            self.attesters[shard].look(self.crews[shard])

    def noted(self) -> list[list[int]]:
        """Return the sizes that each shard has notes of."""
        return [notes(self.store(shard)) for shard in range(self.shards)]

    def judge(self, *sizes: int) -> None:
        """Assert that exactly these sizes are attested, once each, and that each is what a replay gives."""
        assert [(one.size, one.reducer) for one in self.said] == [
            (size, one.name) for size in sizes for one in self.reducers
        ]
        for one in self.said:
            reducers = [each for each in self.reducers if each.name == one.reducer]
            world = World(self.world.site, reducers)
            found = world.digests(size=one.size)
            assert (one.digest, one.states) == (world.digest(size=one.size).hex(), len(found))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site of two shards."""
    return Site(tmp_path)


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_each_size_is_attested_once_and_truly(tmp_path: Path, shards: int) -> None:
    """Shards that pass the sizes one after the other attest what a replay gives, and keep no note."""
    site = Site(tmp_path, shards=shards)
    site.fill(3_500)
    site.work()
    site.look()
    site.look()
    site.judge(1_000, 2_000, 3_000)
    assert site.noted() == [[]] * shards


def test_nothing_is_attested_before_its_size(site: Site) -> None:
    """A log of 999 entries has nothing to attest; the thousandth entry is what makes it."""
    site.fill(999)
    site.work()
    site.look()
    site.judge()
    site.fill(1_000)
    site.work()
    site.look()
    site.judge(1_000)


def test_a_shard_that_is_behind_is_waited_for(site: Site) -> None:
    """Shard 0 goes on, and attests when the other one has come to the same sizes."""
    site.fill(2_500)
    site.work(0)
    site.look(0)
    site.judge()
    assert site.noted() == [[1_000, 2_000], []]
    site.work(1, until=1_000)
    site.look(0)
    site.judge(1_000)
    site.work(1)
    site.look()
    site.judge(1_000, 2_000)
    site.look()
    assert site.noted() == [[], []]


def test_shard_0_may_be_the_one_that_is_behind(site: Site) -> None:
    """The other one keeps its notes until shard 0 has been there."""
    site.fill(1_500)
    site.work(1)
    site.look(1)
    assert site.noted() == [[], [1_000]]
    site.work(0)
    site.judge(1_000)
    site.look(1)
    assert site.noted() == [[], []]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_note_that_was_lost_costs_one_attestation(site: Site, lost: int) -> None:
    """Nobody waits for it for ever, and the next size is attested as usual."""
    site.fill(2_500)
    for shard in range(2):
        site.work(shard, until=1_000)
        if shard == lost:
            forget_note(site.store(shard), 1_000)
            site.attesters[shard] = site.attester(shard)
            crew = site.crews[shard]
            while crew.holdings[0].position < 1_500:
                crew.step(site.world.source)
                crew.save(site.world.source)
                break
    site.work()
    site.look()
    site.look()
    site.judge(2_000)
    assert site.noted() == [[], []]


def test_a_worker_that_died_between_save_and_note_notes_at_its_start(site: Site) -> None:
    """The position is saved, the note is not: the next worker stands at the size, and makes up for it."""
    site.fill(1_500)
    site.work(until=1_000, notes=False)
    assert site.noted() == [[], []]
    site.start()
    site.work()
    site.look()
    site.judge(1_000)


def test_a_worker_that_died_between_note_and_join_joins_later(site: Site) -> None:
    """Notes are stored: a new worker finds them, and attests."""
    site.fill(1_500)
    site.work(1)
    site.work(0, until=1_000, notes=False)
    site.attesters[0].note(site.crews[0])
    assert site.noted() == [[1_000], [1_000]]
    site.start()
    site.look(0)
    site.judge(1_000)


def test_a_worker_that_died_after_half_of_its_attestations_makes_the_other_half(site: Site) -> None:
    """Two reducers, killed in between: what stands in the log already is not said again."""
    site.fill(1_500)
    site.work(1)
    original, site.refuses = site.steer, False

    def once(steering: Steering) -> Receipt:
        if site.said:
            raise KeyboardInterrupt
        return original(steering)

    site.attesters[0]._client = type("Once", (), {"steer": staticmethod(once)})()
    with pytest.raises(KeyboardInterrupt):
        site.work(0)
    assert len(site.said) == 1
    site.start()
    site.look(0)
    site.look(0)
    site.judge(1_000)


def test_while_the_archiver_is_away_notes_are_kept(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Folding goes on, it is said once, and attested when the archiver is back."""
    site.fill(1_500)
    site.away = True
    site.work()
    site.look()
    site.look()
    assert site.noted() == [[1_000], [1_000]]
    assert capsys.readouterr().err.count("could not be attested, and will be") == 1
    site.away = False
    site.look()
    site.look()
    site.judge(1_000)
    assert site.noted() == [[], []]


def test_an_archiver_that_refuses_is_not_asked_for_ever(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older archiver does not know attestations: that is said, and no worker dies of it."""
    site.fill(1_500)
    site.refuses = True
    site.work()
    site.look()
    site.look()
    assert site.noted() == [[], []]
    assert "is not attested: not of my kind" in capsys.readouterr().err


def test_states_that_are_built_again_are_compared(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever loses his states passes the sizes again: nothing new is said, and nothing is wrong."""
    site.fill(2_500)
    site.work()
    site.look()
    site.judge(1_000, 2_000)
    site.stores.clear()
    site.start()
    site.work()
    site.look()
    site.look()
    site.judge(1_000, 2_000)
    assert site.noted() == [[], []]
    assert site.attesters[0].differences == []
    assert capsys.readouterr().err == ""


def test_what_contradicts_an_attestation_is_said(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Another digest stands in the log for these very states: the entry is named, once, and nothing is overwritten."""
    site.fill(1_000)
    false = Attest(1_000, "touchy", 1, touchy.code_digest, 5, "a" * 64)
    at = site.world.steer(false)
    site.work()
    site.look()
    site.look()
    (found,) = site.attesters[0].differences
    assert (found.at, found.attested) == (at, false)
    assert capsys.readouterr().err.count(f"not those that entry {at} attests") == 1
    assert [one.reducer for one in site.said] == ["seen"]


def test_what_a_later_skip_may_have_entered_is_not_attested(site: Site) -> None:
    """A skip that stands behind the size, read ahead by one shard only, would make a mixture that never was."""
    site.fill(1_500)
    site.work(0, until=1_000)
    site.world.steer(Skip("touchy", 702 + 3))
    site.work(1)
    site.now += LOOK_EVERY_S
    site.attesters[0].look(site.crews[0])  # it has not read the skip yet, the other one has
    assert site.said == []
    site.look()
    site.look()
    assert [(one.size, one.reducer) for one in site.said] == [(1_000, "seen")]
    assert site.noted() == [[], []]
    steering = Gathered()
    with site.world.source.open() as log:
        steering.extend(log)
    assert all(one.digest == World(site.world.site, [seen]).digest(size=1_000).hex() for one in site.said)


def test_a_module_that_is_not_active_says_nothing(tmp_path: Path) -> None:
    """Until its activation has been read, a module does not speak; its notes wait."""
    site = Site(tmp_path)
    site.world = World(reducers=site.reducers)
    site.start()
    site.fill(1_200)
    site.work()
    site.look()
    site.judge()
    assert site.noted()[0] == [1_000]
    site.world.steer(activation(*site.reducers))
    site.look()
    site.judge(1_000)


class Quiet(Wakeups):
    """Waits that take no time, and end after a while: nothing comes in any more."""

    def __init__(self, site: Site) -> None:
        self.stopped, self._site, self._left = False, site, 20

    def wait(self, seconds: float) -> None:
        """Let a second pass."""
        del seconds
        self._site.now += 1.0
        self._left -= 1
        self.stopped = self._left == 0


def test_a_log_that_falls_silent_is_attested_all_the_same(site: Site) -> None:
    """The loop of a worker saves at each size to attest, however far behind it is, and looks while nothing comes in."""
    site.fill(2_300)
    for shard in (0, 1, 0, 1):
        attester = site.attesters[shard]
        duties = Duties(after_save=[attester.step], idle=attester.look)
        tail(site.crews[shard], site.world.source, Quiet(site), duties)
    site.judge(1_000, 2_000)
    assert site.noted() == [[], []]


def test_a_module_whose_states_cannot_be_read_stops_alone_where_they_are_noted(tmp_path: Path) -> None:
    """The worker goes on, says nothing of what it cannot know, and removes what cannot be read."""
    site = Site(tmp_path)
    site.fill(1_000)
    site.work(notes=False)
    store = site.store(0)
    with store.view() as view:
        rows = dict(view.scan("states"))
    assert rows
    store.commit([Write("states", key, value[:8] + b"\xc1") for key, value in rows.items()])
    site.start()
    (crew, _), (attester, _) = site.crews, site.attesters
    attester.step(crew)
    crew.step(site.world.source)
    assert list(crew.stopped) == ["all"]
    assert crew.holdings == []
    assert notes(store) == []
    assert site.said == []
    site.start()
    site.work()
    site.look()
    site.judge(1_000)


def test_a_note_of_another_shard_that_cannot_be_read_stops_nobody_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, nothing is attested, and this shard's states are left alone."""
    site = Site(tmp_path)
    site.fill(1_000)
    site.work(1)
    with site.store(1).view() as view:
        rows = dict(view.scan("attested"))
    site.store(1).commit([Write("attested", key, b"\xc1") for key in rows])
    site.work(0)
    site.look(0)
    assert site.crews[0].stopped == {}
    assert site.said == []
    assert capsys.readouterr().err.count("could not be attested") == 1
