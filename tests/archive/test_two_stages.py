"""Two stages: a block is prepared while the one below it is being committed, and nobody can tell the difference.

How an archiver dies between any two steps of this is asked in `test_crash` and in the simulation; how two threads drive
it, in `tests/tools/test_door.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread

import pytest

from archive import (
    Archiver,
    IntegrityError,
    InvalidEvent,
    Log,
    Prepared,
    Receipt,
    Refusal,
    StorageFailed,
    SubjectKeys,
    Submission,
    Unavailable,
    caches,
)
from tests.archive.site import Site, event
from tests.faults import Outcome, Schedule

FIRST = [event(b"1", id="1"), event(b"2", id="2", subject="student:bob")]
SECOND = [event(b"1", id="1"), event(b"3", id="3"), event(b"x", id="2"), event(b"4", subject="student:kim")]


class Meanwhile(Schedule):
    """Does something in the middle of a commit: just before the first step of a name, from now on."""

    def __init__(self, name: str, **fault: object) -> None:
        super().__init__(**fault)  # type: ignore[arg-type]
        self.name = name
        self.do: Callable[[], object] | None = None

    def step(self, name: str, action: Callable[[], object]) -> None:
        """Do that, then the step."""
        if name == self.name and self.do is not None:
            do, self.do = self.do, None
            do()
        super().step(name, action)


@pytest.mark.parametrize("when", ["before", "log", "seal", "publish"])
def test_a_block_that_is_prepared_ahead_is_the_one_that_would_have_been(when: str) -> None:
    """Whenever it is prepared, before or in the middle of the commit below: same indices, receipts and sequences."""
    schedule, ahead = Meanwhile(when), list[Prepared]()
    site = Site()
    archiver = site.start(schedule)
    first = archiver.prepare(FIRST)
    schedule.do = lambda: ahead.append(archiver.prepare(SECOND))
    if when == "before":
        ahead.append(archiver.prepare(SECOND))
    assert archiver.commit(first) == [Receipt(2, 4), Receipt(3, 4)]
    same, new, conflict, last = archiver.commit(ahead[0])
    assert (same, new, last) == (Receipt(2, 4), Receipt(4, 6), Receipt(5, 6))
    assert isinstance(conflict, Refusal)
    assert (conflict.reason, "entry 3" in conflict.detail) == ("conflict", True)
    entries = site.events()
    assert [entry.payload for entry in entries] == [b"1", b"2", b"3", b"4"]
    assert [entry.sequence for entry in entries] == [1, 1, 2, 1]
    assert archiver.step(SECOND)[:2] == [same, new], "and the caches know both"


def test_many_blocks_each_prepared_under_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that never runs dry keeps every id and every sequence number, also those of its middle."""
    monkeypatch.setattr(caches, "SAVE_ENTRIES", 3)
    site = Site(folder=tmp_path / "caches")
    archiver = site.start()
    batches = [
        [event(b"%d" % n, id=str(n), subject=f"student:{n % 3}") for n in (at, at + 1)] for at in range(20)
    ]
    under_way = archiver.prepare(batches[0])
    answers = []
    for batch in batches[1:]:
        ahead = archiver.prepare(batch)
        answers.append(archiver.commit(under_way))
        under_way = ahead
    answers.append(archiver.commit(under_way))
    assert [one[1] for one in answers[:-1]] == [one[0] for one in answers[1:]], (
        "what came twice is there once"
    )
    assert [entry.payload for entry in site.events()] == [b"%d" % n for n in range(21)]
    archiver.close()
    again = site.start()
    assert [again.step(batch) for batch in batches] == answers


def test_what_is_repeated_is_kept_if_the_block_below_is_not() -> None:
    """A repetition of what found no space is no repetition: it is the entry, and its subject's first one."""
    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    first, second = archiver.prepare(FIRST), archiver.prepare(SECOND)
    schedule.at = len(schedule.steps) + 1
    with pytest.raises(Unavailable):
        archiver.commit(first)
    assert schedule.steps[-1] == "log"
    assert archiver.commit(second) == [Receipt(at, 6) for at in (2, 3, 4, 5)]
    entries = site.events()
    assert [(entry.payload, entry.sequence) for entry in entries] == [
        (b"1", 1),
        (b"3", 2),
        (b"x", 3),
        (b"4", 1),
    ]
    assert archiver.commit(first)[0] == Receipt(2, 6), (
        "the block that was not kept may be tried again, as it is now"
    )
    assert len(site.events()) == 4


def test_whatever_stands_on_a_block_that_was_not_kept_is_prepared_anew() -> None:
    """Also what is prepared on top of it after the failure, before it is its turn."""
    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    first, second = archiver.prepare(FIRST), archiver.prepare([event(b"2nd", id="1")])
    schedule.at = len(schedule.steps) + 1
    with pytest.raises(Unavailable):
        archiver.commit(first)
    third = archiver.prepare([event(b"3rd"), event(b"2nd", id="1")])
    (kept,) = archiver.commit(second)
    fourth = archiver.prepare([event(b"4th")])
    assert kept == Receipt(2, 3)
    assert archiver.commit(third) == [Receipt(3, 4), kept]
    assert archiver.commit(fourth) == [Receipt(4, 5)]
    assert archiver.step([event(b"5th"), event(b"2nd", id="1")]) == [Receipt(5, 6), kept]
    assert [entry.payload for entry in site.events()] == [b"2nd", b"3rd", b"4th", b"5th"]
    assert [entry.sequence for entry in site.events()] == [1, 2, 3, 4]


def test_a_block_without_space_twice_over() -> None:
    """Where there is no space for what is prepared anew, either, all may be tried again, or given up."""
    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    first, second = archiver.prepare(FIRST), archiver.prepare(SECOND)
    for block in (first, second):
        schedule.at = len(schedule.steps) + 1
        with pytest.raises(Unavailable):
            archiver.commit(block)
        archiver.prepare([event(b"given up")])
    assert len(site.check()) == 2
    assert archiver.step(FIRST) == [Receipt(2, 4), Receipt(3, 4)]
    assert len(site.events()) == 2


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("error", [StorageFailed, IntegrityError])
def test_after_a_failure_nothing_that_was_prepared_is_written(
    at: int, outcome: Outcome, error: type[Exception]
) -> None:
    """What is ready to be written must not be written by an archiver that knows no more what its disk holds."""
    site, schedule = Site(), Schedule(outcome=outcome, error=error)
    archiver = site.start(schedule)
    first, second = archiver.prepare(FIRST), archiver.prepare(SECOND)
    schedule.at = len(schedule.steps) + at
    with pytest.raises(error):
        archiver.commit(first)
    done, published = len(schedule.steps), site.published.get()
    for attempt in (
        lambda: archiver.commit(second),
        lambda: archiver.prepare(FIRST),
        lambda: archiver.control({}),
    ):
        with pytest.raises(StorageFailed, match="stopped"):
            attempt()
    archiver.close()
    assert (len(schedule.steps), site.published.get()) == (done, published)
    site.start()
    assert [entry.payload for entry in site.events()] in ([], [b"1", b"2"])


def test_a_vault_that_fails_while_a_block_is_under_way_takes_nothing_back() -> None:
    """The block under way is durable and is answered; what needed the vault is not, and nothing comes after it."""
    schedule = Meanwhile("seal", error=StorageFailed)
    site = Site()
    archiver = site.start(schedule)
    archiver.step([event(b"0")])
    first = archiver.prepare([event(b"1")])

    def meanwhile() -> None:
        schedule.at = len(schedule.steps) + 1
        with pytest.raises(StorageFailed):
            archiver.prepare([event(b"2", subject="student:new")])
        assert schedule.steps[-1] == "vault"

    schedule.do = meanwhile
    assert archiver.commit(first) == [Receipt(3, 4)]
    with pytest.raises(StorageFailed, match="stopped"):
        archiver.step([event(b"3")])
    assert [entry.payload for entry in site.events()] == [b"0", b"1"]
    assert site.published.get() == 4


def test_control_entries_take_their_turn() -> None:
    """A control entry has a block of its own between two others, wherever it is prepared, and anew if need be."""
    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    first = archiver.prepare(FIRST)
    note = archiver.prepare((), [{"control": "note"}])
    assert len(archiver.commit(first)) == 2
    third = archiver.prepare(SECOND[1:2])
    assert archiver.commit(note) == [Receipt(4, 5)]
    schedule.at = len(schedule.steps) + 1
    with pytest.raises(Unavailable):
        archiver.commit(third)
    note = archiver.prepare((), [{"control": "again"}])
    assert archiver.commit(note) == [Receipt(5, 6)]
    assert archiver.control({"control": "last"}) == 6
    bodies = [entry.body["control"] for entry in site.check() if entry.body]
    assert bodies == ["origin", "start", "note", "again", "last"]


def test_what_steers_is_judged_where_it_will_stand() -> None:
    """A retry that was good above the block under way is refused if that one is not kept, and nothing comes of it."""
    for kept in (True, False):
        site, schedule = Site(), Schedule(error=Unavailable)
        archiver = site.start(schedule)
        first = archiver.prepare(FIRST)
        retry = archiver.prepare((), [{"control": "retry", "reducer": "r", "index": 3}])
        schedule.at = 0 if kept else len(schedule.steps) + 1
        with nullcontext() if kept else pytest.raises(Unavailable):
            archiver.commit(first)
        (answer,) = archiver.commit(retry)
        if kept:
            assert answer == Receipt(4, 5)
        else:
            assert answer == Refusal(
                "invalid", "control entry 'retry', as entry 2: it names entry 3, which is not before it"
            )
            assert archiver.step(FIRST) == [Receipt(2, 4), Receipt(3, 4)]
        assert len(site.events()) == 2


def test_a_refused_control_entry_takes_no_place() -> None:
    """Those beside it are kept, each at the index that it is told; whoever appends one by itself is told why."""
    site = Site()
    archiver = site.start()
    early, late = ({"control": "retry", "reducer": "r", "index": index} for index in (1, 2))
    refused, kept, again, receipt = archiver.commit(archiver.prepare(FIRST[:1], [late, early, late]))
    assert isinstance(refused, Refusal)
    assert (kept, again, receipt) == (Receipt(2, 5), Receipt(3, 5), Receipt(4, 5))
    assert [entry.body for entry in site.check() if entry.body][2:] == [early, late]
    with pytest.raises(InvalidEvent, match="as entry 5: it attests size 6"):
        archiver.control({"control": "attest", "size": 6, "reducer": "r", "version": 1, "code_digest": "0" * 64,
                          "states": 0, "digest": "0" * 64})  # fmt: skip
    assert len(site.check()) == 5


def test_repetitions_alone_append_nothing_but_wait_for_their_entry() -> None:
    """Their receipts are true only if the block under way is kept; if it is not, they are what is kept."""
    for kept in (True, False):
        site, schedule = Site(), Schedule(error=Unavailable)
        archiver = site.start(schedule)
        first, again = archiver.prepare(FIRST), archiver.prepare(FIRST)
        if kept:
            assert archiver.commit(first) == archiver.commit(again)
        else:
            schedule.at = len(schedule.steps) + 1
            with pytest.raises(Unavailable):
                archiver.commit(first)
            assert archiver.commit(again) == [Receipt(2, 4), Receipt(3, 4)]
        assert len(site.events()) == 2


def test_a_place_in_another_history_is_another_place() -> None:
    """A repetition of what was not kept is no receipt for what came instead, though the log is as long."""
    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    first, again = archiver.prepare(FIRST), archiver.prepare(FIRST)
    schedule.at = len(schedule.steps) + 1
    with pytest.raises(Unavailable):
        archiver.commit(first)
    archiver.commit(archiver.prepare([event(b"other"), event(b"another")]))
    assert archiver.commit(again) == [Receipt(4, 6), Receipt(5, 6)]
    assert [entry.payload for entry in site.events()] == [b"other", b"another", b"1", b"2"]


def test_what_was_given_up_is_prepared_anew_even_where_it_would_fit() -> None:
    """A block that was forgotten with those below it would be written and never learned: its ids would be free."""
    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    (known,) = archiver.step([event(b"0", id="0")])
    first, again = archiver.prepare(FIRST), archiver.prepare([event(b"0", id="0")])
    schedule.at = len(schedule.steps) + 1
    with pytest.raises(Unavailable):
        archiver.commit(first)
    third = archiver.prepare([event(b"3", id="3")])
    assert archiver.commit(again) == [known]
    receipts = archiver.commit(third)
    assert archiver.step([event(b"3", id="3")]) == receipts == [Receipt(3, 4)]
    assert [entry.payload for entry in site.events()] == [b"0", b"3"]


def test_one_block_is_ahead_at_most_and_none_is_written_twice() -> None:
    """Both would be mistakes of whoever drives the archiver, and are said to be."""
    site = Site()
    archiver = site.start()
    first, second = archiver.prepare(FIRST), archiver.prepare(SECOND)
    with pytest.raises(AssertionError, match="before preparing more"):
        archiver.prepare(FIRST)
    archiver.commit(first)
    with pytest.raises(AssertionError, match="committed already"):
        archiver.commit(first)
    archiver.commit(second)
    assert len(site.events()) == 4


def test_out_of_turn_nothing_is_written_where_it_does_not_belong() -> None:
    """Even then: what is written is planned for the head that it is written on."""
    site = Site()
    archiver = site.start()
    first, second = archiver.prepare(FIRST), archiver.prepare([event(b"2nd", id="1")])
    assert archiver.commit(second) == [Receipt(2, 3)]
    refused, kept = archiver.commit(first)
    assert isinstance(refused, Refusal)
    assert kept == Receipt(3, 4)
    assert [entry.payload for entry in site.events()] == [b"2nd", b"2"]


def test_nobody_is_told_of_what_is_only_prepared() -> None:
    """The head, the published size and every view of a reader stay behind the seal while a block is ahead."""
    site, seen = Site(), []

    class Watched(Schedule):
        def step(self, name: str, action: Callable[[], object]) -> None:
            super().step(name, action)
            sealed = site.seal.last.size if site.seal.last else 0
            seen.append((started[0].head.size if started else 0, site.published.get(), sealed))

    started: list[Archiver] = []
    started.append(site.start(Watched()))
    batches: list[list[Submission]] = [[event(b"%d" % number)] for number in range(5)]
    under_way = started[0].prepare(batches[0])
    for batch in batches[1:]:
        ahead = started[0].prepare(batch)
        started[0].commit(under_way)
        under_way = ahead
    assert all(head <= published <= sealed for head, published, sealed in seen)
    with site.log.view() as view:
        assert Log(view, site.published.get()).root() == started[0].root
    assert len(site.check()) == 6, "the last one is only prepared"


@pytest.mark.parametrize("forgotten", ["the block under way", "the base"])
def test_these_tests_bite(forgotten: str) -> None:
    """An archiver that forgets what is under way, or writes a stale proposal, does not pass the judge."""

    class Forgetful(Archiver):
        def _load(self, work: Prepared, below: Prepared | None) -> None:
            super()._load(work, below if forgotten == "the base" else None)

        def commit(self, prepared: Prepared) -> list[Receipt | Refusal]:
            if forgotten == "the base":
                prepared.base, prepared.kept = self._top, None
            return super().commit(prepared)

    site, schedule = Site(), Schedule(error=Unavailable)
    archiver = site.start(schedule)
    archiver.__class__ = Forgetful
    first, second = archiver.prepare(FIRST), archiver.prepare(SECOND[:1])
    if forgotten == "the base":
        schedule.at = len(schedule.steps) + 1
        with pytest.raises(Unavailable):
            archiver.commit(first)
    else:
        archiver.commit(first)
    archiver.commit(second)
    with pytest.raises(AssertionError):
        assert len(site.events()) == (1 if forgotten == "the base" else 2)


def test_a_block_that_is_made_anew_never_crosses_one_that_is_being_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads prepare: the one ahead, and the committing one where a block has to be made anew; one at a time."""
    archiver, first, other = Site().start(), Event(), Event()
    admit, inside, most = archiver._vault.admit, 0, 0

    def slowly(names: Iterable[str]) -> dict[str, SubjectKeys]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        first.set()
        other.wait(0.3)  # nobody sets it: as long as the other thread may take to come in
        inside -= 1
        return admit(names)

    monkeypatch.setattr(archiver._vault, "admit", slowly)
    thread = Thread(target=archiver.prepare, args=([event(b"a")],))
    thread.start()
    assert first.wait(20)
    archiver.prepare([event(b"b")])
    thread.join(20)
    assert most == 1
