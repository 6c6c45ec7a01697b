"""The door: what anybody is told, and in which order, while one thread prepares and another commits.

A commit stands still here at a step of its own until the test lets it go on; so nothing depends on who is quicker.
"""

from __future__ import annotations

import asyncio
from threading import Event
from typing import Any

import pytest

from archive import (
    Activate,
    Appended,
    Archiver,
    Attest,
    IntegrityError,
    LogSource,
    Published,
    Receipt,
    Refusal,
    Retry,
    Skip,
    StorageFailed,
    Unavailable,
    check_log,
    decode_frames,
    steering_body,
)
from archive.wire import BACK
from tests.archive.site import event
from tests.tools.doorway import Place, crowd, drive
from tools import door


def test_a_lone_request_is_answered_and_everybody_woken() -> None:
    """The answer names index and size; the wake-up comes after it, to all."""

    async def test(place: Place) -> None:
        place.one.ask(event(b"1"), event(b"2"))
        await place.until(lambda: len(place.told) == 3)

    place = drive(test)
    (_, answer), *wakes = place.told
    assert (answer.answers, answer.size, answer.root) == (
        [Receipt(2, 4), Receipt(3, 4)], 4, place.archiver.root,
    )  # fmt: skip
    assert {who for who, _ in wakes} == {place.one, place.other}
    assert [one for _, one in wakes] == [Published(4, place.door.process)] * 2


def test_a_few_who_come_during_a_commit_share_the_next() -> None:
    """Nothing is closed ahead for a few: they wait for each other, and one block has them all."""

    async def test(place: Place) -> None:
        place.gate.shut("log")
        place.one.ask(event(b"1"))
        await place.gate.wait()
        for number in (b"2", b"3", b"4"):
            place.one.ask(event(number))
            place.other.ask(event(number))
            await asyncio.sleep(0.002)
        place.gate.opened.set()
        await place.until(lambda: len(place.other.answers()) == 3)

    place = drive(test)
    assert place.one.answers() == [Receipt(2, 3), Receipt(3, 9), Receipt(5, 9), Receipt(7, 9)]
    assert place.other.answers() == [Receipt(4, 9), Receipt(6, 9), Receipt(8, 9)]


def test_a_crowd_is_prepared_while_the_commit_below_it_is_under_way() -> None:
    """Told apart and drafted before the disk has the block below; and told to nobody until it is its turn."""
    prepared = []

    class Watched(Archiver):
        def prepare(self, *arguments: Any) -> Any:
            found = super().prepare(*arguments)
            prepared.append(found)
            return found

    async def test(place: Place) -> None:
        place.gate.shut("log")
        place.one.ask(event(b"first"))
        await place.gate.wait()
        place.other.ask(*crowd(0))
        await place.until(lambda: len(prepared) == 2)
        place.one.ask(*crowd(1_000))
        place.other.ask(event(b"last"))
        await asyncio.sleep(0.01)
        assert len(prepared[1].drafts) == 256
        assert len(prepared) == 2, "one is ahead at most"
        assert place.told == []
        assert place.payloads() == []
        place.gate.opened.set()
        await place.until(lambda: len(place.other.answers()) == door.AHEAD_ENTRIES_MIN + 1)

    place = drive(test, Watched)
    assert [len(block.drafts) for block in prepared] == [1, 256, 257]
    assert len(place.payloads()) == 1 + 256 + 256 + 1
    in_turn(place)


def test_what_may_not_be_said_at_its_place_is_refused_and_nothing_else() -> None:
    """A retry or an attestation of what is yet to come would be a finding for ever; its neighbours do not notice."""
    late = [
        steering_body(Retry(reducer="r", index=99)),
        steering_body(Attest(99, "r", 1, "0" * 64, 1, "1" * 64)),
        steering_body(Activate("m", (), since=99)),
    ]

    async def test(place: Place) -> None:
        for at, body in enumerate(late):
            place.one.steer(body)
            place.other.ask(event(b"%d" % at))
        place.other.steer(steering_body(Skip("r", 99)))
        place.other.steer(steering_body(Activate("m", ())))
        await place.until(lambda: len(place.one.answers()) == 3 and len(place.other.answers()) == 5)

    place = drive(test)
    details = [answer.detail for answer in place.one.answers()]
    assert [detail.partition(":")[2] for detail in details] == [
        " it names entry 99, which is not before it",
        " it attests size 99, which is not before it",
        " it goes back to entry 99, which is not before it",
    ]
    assert place.other.answers() == [Receipt(index, index + 1) for index in range(2, 7)]
    assert place.payloads() == [b"0", b"1", b"2"]
    assert list(check_log(LogSource(place.site.log, place.site.published.get), 7)) == []


def in_turn(place: Place) -> None:
    """All answers of a commit come before its wake-up, and that before any answer of the next one."""
    published = 0
    for _, one in place.told:
        if isinstance(one, Published):
            assert one.size >= published
            published = one.size
        else:
            assert one.size > published or all(isinstance(answer, Refusal) for answer in one.answers)
            assert all(published <= answer.index < one.size for answer in one.answers)
    assert published == place.site.published.get()


def test_a_wake_up_stands_between_the_answers_of_two_commits() -> None:
    """A front takes a published size as the word that everything below it is answered; many commits keep it."""

    async def test(place: Place) -> None:
        for at in range(0, 3_000, 300):
            place.one.ask(*crowd(at, 300))
            place.other.ask(event(b"%d" % at))
            await asyncio.sleep(0)
        await place.until(lambda: len(place.one.answers()) == 3_000 and len(place.other.answers()) == 10)

    place = drive(test)
    in_turn(place)
    sizes = {one.size for _, one in place.told}
    assert len(sizes) > 1
    assert place.payloads().count(b"0") == 2
    assert [answer.index for answer in place.one.answers()] == sorted(
        answer.index for answer in place.one.answers()
    )


def test_who_connects_is_told_no_more_than_what_was_answered() -> None:
    """At every step of a commit the greeting names a size that is published, and whose answers are sent."""
    seen = []

    async def test(place: Place) -> None:
        place.gate.shut("publish")
        place.one.ask(event(b"1"))
        await place.gate.wait()
        place.other.ask(*crowd(0))
        seen.append((place.door.greeting(), place.site.published.get()))
        place.gate.opened.set()
        await place.until(lambda: len(place.other.answers()) == 256)
        seen.append((place.door.greeting(), place.site.published.get()))

    drive(test)
    told = [(decode_frames(bytearray(frame), BACK)[0][0].size, size) for frame, size in seen]
    assert told == [(2, 2), (259, 259)]


def test_what_is_kept_but_not_yet_answered_is_told_to_nobody() -> None:
    """The commit thread may be at the next block before the loop has answered: until then the log stands as before."""
    seen = []

    async def test(place: Place) -> None:
        place.gate.shut("log")
        place.one.ask(event(b"1"))
        await place.gate.wait()
        first = place.gate.opened
        place.other.ask(*crowd(0))
        await place.until(lambda: len(place.archiver._under_way) == 2)
        place.gate.shut("log")
        first.set()
        assert place.gate.reached.wait(20)  # the loop stands still, on purpose
        seen.append((place.archiver.head.size, place.door.greeting()))
        place.one.steer({"control": "start"})
        place.gate.opened.set()
        await place.until(lambda: len(place.other.answers()) == 256)

    place = drive(test)
    ((size, greeting),) = seen
    assert size == 3
    assert decode_frames(bytearray(greeting), BACK)[0] == [Published(2, place.door.process)]
    refusal = next(one for _, one in place.told if isinstance(one, Appended))
    assert (refusal.ticket, refusal.size) == (2, 2)


def test_without_space_one_block_is_refused_and_the_one_ahead_is_kept() -> None:
    """What was ready on top of it is made again: same senders, same order, nothing of the refused one."""

    async def test(place: Place) -> None:
        place.gate.failures["log"] = [Unavailable("no space")]
        place.gate.shut("log")
        place.one.ask(event(b"refused", id="0"))
        await place.gate.wait()
        place.one.ask(*crowd(0))
        place.other.ask(event(b"with it"))
        await place.until(lambda: len(place.archiver._under_way) == 2)
        place.gate.opened.set()
        await place.until(lambda: len(place.other.answers()) == 1)

    place = drive(test)
    refused, first, *rest = place.one.answers()
    assert refused == Refusal("unavailable", "no space")
    assert first == Receipt(2, 259), "its id was free again"
    assert len(rest) == 255
    assert place.payloads() == [b"%d" % number for number in range(256)] + [b"with it"]


def test_no_space_in_the_vault_is_said_in_turn() -> None:
    """A refusal of what could not be prepared waits for the answer of the block below it."""

    async def test(place: Place) -> None:
        place.one.ask(event(b"0"))
        await place.until(place.one.answers)
        place.gate.failures["vault"] = [Unavailable("no space")]
        place.gate.shut("log")
        place.one.ask(event(b"1"))
        await place.gate.wait()
        place.one.ask(*[event(b"new", subject=f"student:{number}") for number in range(256)])
        await place.until(lambda: "vault" in place.gate.steps[-1:])
        place.gate.opened.set()
        await place.until(lambda: len(place.one.answers()) == 258)

    place = drive(test)
    assert place.one.answers()[:3] == [Receipt(2, 3), Receipt(3, 4), Refusal("unavailable", "no space")]
    assert place.payloads() == [b"0", b"1"]


@pytest.mark.parametrize(
    ("step", "error"), [("log", StorageFailed), ("seal", StorageFailed), ("seal", Unavailable)]
)
def test_a_failed_write_ends_the_door_and_nothing_ahead_is_kept(step: str, error: type[Exception]) -> None:
    """Nobody is answered any more, and what was ready to be written is not written; no seal is no refusal, either."""
    places = []

    async def test(place: Place) -> None:
        places.append(place)
        place.gate.failures[step] = [error("broken")]
        place.gate.shut(step)
        place.one.ask(event(b"1"))
        await place.gate.wait()
        place.other.ask(*crowd(0))
        await place.until(lambda: len(place.archiver._under_way) == 2)
        place.gate.opened.set()
        await place.until(lambda: place.archiver.failed)

    with pytest.raises(error, match="broken"):
        drive(test)
    (place,) = places
    assert place.told == []
    assert place.payloads() == ([b"1"] if step == "seal" else [])


def test_what_is_ahead_of_a_block_that_cannot_be_prepared_is_not_kept() -> None:
    """Damage that is found while preparing stops everything, also what could be kept by itself."""
    places, reached, going = [], Event(), Event()

    class Finds(Archiver):
        def prepare(self, submissions: Any, *arguments: Any) -> Any:
            if len(submissions) == 1:
                reached.set()
                assert going.wait(20)
                raise IntegrityError("damage")
            return super().prepare(submissions, *arguments)

    async def test(place: Place) -> None:
        places.append(place)
        place.one.ask(event(b"1"))
        await asyncio.to_thread(reached.wait, 20)
        place.other.ask(*crowd(0))
        await place.until(lambda: len(place.door._under_way) == 2)
        going.set()
        await place.until(lambda: place.door._broken)

    with pytest.raises(IntegrityError, match="damage"):
        drive(test, Finds)
    (place,) = places
    assert place.told == []
    assert place.payloads() == []


def test_a_vault_that_fails_ends_the_door_after_the_block_under_way_is_answered() -> None:
    """That one is durable: its sender hears so, although the next one, which is ahead, cannot be prepared."""
    places = []

    async def test(place: Place) -> None:
        places.append(place)
        place.one.ask(event(b"0"))
        await place.until(place.one.answers)
        place.gate.failures["vault"] = [StorageFailed("broken vault")]
        place.gate.shut("seal")
        place.one.ask(event(b"1"))
        await place.gate.wait()
        place.other.ask(*[event(b"new", subject=f"student:{number}") for number in range(256)])
        await place.until(lambda: place.archiver.failed)
        place.gate.opened.set()
        await place.until(lambda: len(place.one.answers()) == 2)

    with pytest.raises(StorageFailed, match="broken vault"):
        drive(test)
    (place,) = places
    assert place.one.answers() == [Receipt(2, 3), Receipt(3, 4)]
    assert place.other.answers() == []
    assert place.payloads() == [b"0", b"1"]


def test_a_control_entry_takes_its_turn_between_crowds() -> None:
    """It has a block of its own, where it was sent, though blocks before and after it are prepared ahead."""

    async def test(place: Place) -> None:
        place.gate.shut("log")
        place.one.ask(event(b"first"))
        await place.gate.wait()
        place.one.ask(*crowd(0))
        place.one.steer(steering_body(Skip("reducer", 3)))
        place.one.ask(*crowd(256))
        place.one.steer({"control": "start"})
        place.gate.opened.set()
        await place.until(lambda: len(place.told) >= 2 * 4 + 5)

    place = drive(test)
    told = [one for who, one in place.told if who is place.one and isinstance(one, Appended)]
    refused = next(one for one in told if one.ticket == 5)
    assert isinstance(refused.answers[0], Refusal), "the archiver's own kinds are refused, at once"
    told.remove(refused)
    assert [(one.ticket, len(one.answers), one.size) for one in told] == [
        (1, 1, 3), (2, 256, 259), (3, 1, 260), (4, 256, 516),
    ]  # fmt: skip
    assert [entry.index for entry in place.site.check() if (entry.body or {}).get("control") == "skip"] == [
        259
    ]


def test_stopping_keeps_what_was_taken() -> None:
    """Whatever is queued, prepared or under way when it is told to stop is kept and answered."""

    async def test(place: Place) -> None:
        place.gate.shut("log")
        place.one.ask(event(b"first"))
        await place.gate.wait()
        place.one.ask(*crowd(0))
        await asyncio.sleep(0)
        place.other.ask(*crowd(256, 10))
        place.door.stop()

    place = drive(test)
    assert len(place.payloads()) == 1 + 256 + 10
    assert len(place.one.answers()) == 257
    assert len(place.other.answers()) == 10


def test_a_full_queue_pauses_everybody_until_it_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is sent while the disk stands still, memory is bounded, and nothing is lost."""
    monkeypatch.setattr(door, "QUEUE_BYTES_MAX", 100)

    async def test(place: Place) -> None:
        place.gate.shut("log")
        place.one.ask(event(b"first"))
        await place.gate.wait()
        place.one.ask(event(b"x" * 101))
        assert place.one.paused
        assert place.other.paused
        place.gate.opened.set()
        await place.until(lambda: len(place.one.answers()) == 2)
        assert not place.one.paused
        assert not place.other.paused

    drive(test)


def test_an_error_of_our_own_ends_the_door() -> None:
    """A mistake in answering must not leave an archiver that takes requests and never answers."""

    async def test(place: Place) -> None:
        def broken(frame: bytes) -> None:
            raise ZeroDivisionError(len(frame))

        place.one.send = broken  # type: ignore[method-assign]
        place.one.ask(event(b"1"))
        await place.until(lambda: place.door._broken)

    with pytest.raises(ZeroDivisionError):
        drive(test)


def test_two_threads_and_a_crowd_of_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders who repeat each other all the time: each id is there once, each repetition has its receipt."""
    monkeypatch.setattr(door, "AHEAD_ENTRIES_MIN", 3)

    async def test(place: Place) -> None:
        place.door._entries_max = 8
        for at in range(0, 400, 2):
            place.one.ask(*crowd(at, 4))
            place.other.ask(*crowd(at - at % 5, 3))
            if at % 7 == 0:
                await asyncio.sleep(0)
        await place.until(lambda: len(place.one.answers()) == 800 and len(place.other.answers()) == 600)

    place = drive(test)
    assert sorted(place.payloads(), key=int) == [b"%d" % number for number in range(402)]
    where = {entry.payload: entry.index for entry in place.site.events()}
    sent = [one.payload for at in range(0, 400, 2) for one in crowd(at, 4)]
    assert [answer.index for answer in place.one.answers()] == [where[payload] for payload in sent]
