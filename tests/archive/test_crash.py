"""The archiver dies at every step of every commit, with both outcomes, and is held to what it has promised.

    acknowledged ⊆ survived ⊆ sent, in order

Nothing here knows which steps there are: the schedules walk on until a run ends untouched.  A step that were
moved, such as publishing before sealing or answering before committing, fails here first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from archive import Answer, Archiver, Log, Receipt, Submission, Write, caches
from archive.files import write_parts
from merkle import prove_consistency, verify_consistency
from tests.archive.site import Site, event
from tests.faults import Crash, Outcome, Schedule, every_crash

BATCHES = [
    [event(b"1", id="1"), event(b"2", id="2")],
    [
        event(b"3", id="3", subject="student:bob"),
        event(b"1", id="1"),
        event(b"4", id="4", also=["student:eve"]),
    ],
    [event(b"5", id="5")],
    [event(b"6", id="6", subject="student:bob"), event(b"7", id="7", subject="student:kim")],
]
SENT = [one.payload for batch in BATCHES for one in batch if one.payload != b"1"]
SENT.insert(0, b"1")


@dataclass
class Ledger:
    """What senders and readers were told, which no crash may make untrue."""

    receipts: dict[bytes, Receipt] = field(default_factory=dict)
    published: list[tuple[int, bytes]] = field(default_factory=list)

    def note(self, batch: list[Submission], answers: Sequence[Answer], size: int, root: bytes) -> None:
        """Write down the answers of one step and the checkpoint that came with them."""
        for one, answer in zip(batch, answers, strict=True):
            assert isinstance(answer, Receipt)
            assert self.receipts.setdefault(one.payload, answer) == answer
        self.published.append((size, root))


def live(site: Site, schedule: Schedule, ledger: Ledger) -> None:
    """Lead one life: start, take in every batch, answer, close; or die on the way."""
    archiver = site.start(schedule)
    for batch in BATCHES:
        answers = archiver.step(batch)
        schedule.step("answer", note(ledger, batch, answers, archiver))
    archiver.close()


def live_ahead(site: Site, schedule: Schedule, ledger: Ledger) -> None:
    """Lead one life in which each batch is prepared before the one below it is committed."""
    archiver = site.start(schedule)
    under_way = archiver.prepare(BATCHES[0])
    for batch, following in zip(BATCHES, [*BATCHES[1:], []], strict=True):
        ahead = archiver.prepare(following)
        answers = archiver.commit(under_way)
        schedule.step("answer", note(ledger, batch, answers, archiver))
        under_way = ahead
    archiver.close()


LIVES = {"one by one": live, "one ahead": live_ahead}


def note(
    ledger: Ledger, batch: list[Submission], answers: Sequence[Answer], archiver: Archiver
) -> Callable[[], None]:
    """Return the step that tells the sender."""
    return lambda: ledger.note(batch, answers, archiver.head.size, archiver.root)


def judge(site: Site, ledger: Ledger) -> None:
    """Hold the stores, as they are found, against the ledger."""
    size = site.published.get()
    entries = site.check()
    survived = [entry.payload for entry in entries if entry.body is None]
    assert survived == SENT[: len(survived)], "survived ⊆ sent, in order, nothing invented, nothing twice"
    for payload, receipt in ledger.receipts.items():
        assert entries[receipt.index].payload == payload, "acknowledged ⊆ survived, at its index"
        assert receipt.index < receipt.size <= size, "acknowledged ⊆ published"
    with site.log.view() as view:
        log = Log(view, len(entries))
        assert size <= log.size, "published ⊆ survived"
        for old, root in ledger.published:
            proof = prove_consistency(old, log.size, log.read_nodes)
            verify_consistency(old, root, log.size, log.root(), proof)


def recover(site: Site, ledger: Ledger) -> None:
    """Start on the bare stores, send everything again, and then something new."""
    archiver = site.start()
    judge(site, ledger)
    for batch in BATCHES:
        ledger.note(batch, archiver.step(batch), archiver.head.size, archiver.root)
    (receipt,) = archiver.step([event(b"after the crash")])
    assert isinstance(receipt, Receipt)
    survived = [entry.payload for entry in site.events()]
    assert survived == [*SENT, b"after the crash"]


@pytest.fixture(params=["without caches", "with caches"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world with or without cache files; they are saved at each commit."""
    monkeypatch.setattr(caches, "SAVE_ENTRIES", 1)
    monkeypatch.setattr(caches, "MERGE_RATIO", 1)
    return World(tmp_path if request.param == "with caches" else None, monkeypatch)


class World:
    """Makes sites, and lets the cache files of each life be steps of its schedule."""

    def __init__(self, folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self._write, self._made = write_parts, 0

    def site(self) -> Site:
        """Return a new site."""
        self._made += 1
        return Site(folder=None if self._folder is None else self._folder / str(self._made))

    def life(self, schedule: Schedule) -> Schedule:
        """Begin a life under this schedule."""

        def written(*parts: Any) -> Path:
            made: list[Path] = []
            schedule.step("cache", lambda: made.append(self._write(*parts)))
            return made[0]

        self._patch.setattr(caches, "write_parts", written)
        return schedule


@pytest.mark.parametrize("life", LIVES)
def test_every_crash_keeps_every_promise(world: World, life: str) -> None:
    """Whatever step the archiver dies at, lost or kept: what it said stays true, and it goes on."""
    died: set[str] = set()
    untouched = 0
    for schedule in every_crash():
        site, ledger = world.site(), Ledger()
        try:
            LIVES[life](site, world.life(schedule), ledger)
            untouched += 1
        except Crash:
            died.add(schedule.steps[schedule.at - 1])
        world.life(Schedule())
        recover(site, ledger)
    assert died - {"cache"} == {"vault", "log", "seal", "publish", "answer"}
    assert ("cache" in died) == (world.site().folder is not None)
    assert untouched == len(Outcome)


@pytest.mark.parametrize("life", LIVES)
def test_every_crash_of_a_recovery_keeps_every_promise(life: str) -> None:
    """Dying again while starting, at each step after each first death, changes nothing."""
    pairs = 0
    for first in every_crash():
        for second in every_crash():
            site, ledger, schedule = Site(), Ledger(), replace(first, steps=[])
            with suppress(Crash):
                LIVES[life](site, schedule, ledger)
            try:
                site.start(second)
            except Crash:
                pairs += 1
            recover(site, ledger)
            first.steps[:] = schedule.steps
    assert pairs > 400


def test_a_crash_after_the_very_first_commit_is_no_restored_backup() -> None:
    """The first seal is written before the first commit, so a log without a seal is always suspicious."""
    site, schedule = Site(), Schedule()
    site.start(schedule)
    schedule = Schedule(at=schedule.steps.index("log") + 1, outcome=Outcome.KEPT)
    site = Site()
    with pytest.raises(Crash):
        site.start(schedule)
    assert (len(site.check()), site.published.get()) == (2, 0)
    site.start()
    assert len(site.check()) == 3


@pytest.mark.parametrize("table", ["leaves", "rows", "blocks", "checkpoints", "nodes"])
def test_the_judge_bites(table: str) -> None:
    """The judge of this file finds a changed, a missing and an invented value in each table."""
    site = Site()
    site.start().step([event(b"%d" % number) for number in range(300)])
    with site.log.view() as view:
        stored = list(view.scan(table))
    key, value = stored[-1]
    flipped = value[:-30] + bytes((value[-30] ^ 1,)) + value[-29:]
    beyond = key[:-1] + bytes((key[-1] + 1,))
    for wrong in (Write(table, key, flipped), Write(table, key, None), Write(table, beyond, value)):
        site.check()
        site.log.commit([wrong])
        with pytest.raises(Exception, match=r".*"):
            site.check()
        site.log.commit([Write(table, wrong.key, value if wrong.key == key else None)])
