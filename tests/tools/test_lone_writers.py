"""A lone writer's events are kept by the loop itself; a crowd's, and whoever comes meanwhile, by the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive import Receipt, Skip, StorageFailed, Submission, Unavailable, steering_body
from tests.archive.site import event
from tests.tools.doorway import Place, crowd, drive
from tools.door import LONE_BYTES_MAX, LONE_ENTRIES_MAX

LOOP = threading.main_thread().name


def threads(place: Place) -> list[str]:
    """Return a list that takes the name of the thread of each transaction of the log."""
    found: list[str] = []
    step = place.gate.step

    def noted(name: str, action: Callable[[], object]) -> None:
        if name == "log":
            found.append(threading.current_thread().name)
        step(name, action)

    place.gate.step = noted  # type: ignore[method-assign]
    return found


def kept_by(*submissions: Submission) -> str:
    """Return which thread keeps a request that comes when nothing is under way."""
    names: list[list[str]] = []

    async def test(place: Place) -> None:
        names.append(threads(place))
        place.one.ask(*submissions)
        await place.until(lambda: len(place.one.answers()) == len(submissions))

    place = drive(test, lone_max=LONE_ENTRIES_MAX)
    assert place.payloads() == [one.payload for one in submissions]
    ((name,),) = names
    return name


def test_a_lone_request_is_kept_by_the_loop() -> None:
    """No other thread is asked; what is many, or large, is kept by one, so that the loop can read on."""
    assert kept_by(event(b"1")) == LOOP
    assert kept_by(*crowd(0, LONE_ENTRIES_MAX)) == LOOP
    assert kept_by(*crowd(0, LONE_ENTRIES_MAX + 1)).startswith("commit")
    assert kept_by(event(b"x" * (LONE_BYTES_MAX + 1))).startswith("commit")


def test_requests_of_one_turn_share_a_block() -> None:
    """Two who come at once are one group, and each is answered, then both are woken."""

    async def test(place: Place) -> None:
        place.one.ask(event(b"1"))
        place.other.ask(event(b"2"))
        await place.until(lambda: len(place.told) == 4)

    place = drive(test, lone_max=LONE_ENTRIES_MAX)
    assert place.one.answers() == [Receipt(2, 4)]
    assert place.other.answers() == [Receipt(3, 4)]


def test_whoever_comes_during_a_crowd_is_no_lone_writer() -> None:
    """His event waits for the commit under way, and is answered after it."""
    names: list[list[str]] = []

    async def test(place: Place) -> None:
        names.append(threads(place))
        place.gate.shut("log")
        place.one.ask(*crowd(0))
        await place.gate.wait()
        place.other.ask(event(b"late"))
        place.gate.opened.set()
        await place.until(place.other.answers)

    place = drive(test, lone_max=LONE_ENTRIES_MAX)
    assert place.other.answers() == [Receipt(258, 259)]
    assert [name.partition("_")[0] for name in names[0]] == ["commit", "commit"]


def test_a_lone_control_entry_is_kept() -> None:
    """It is a request like any other."""

    async def test(place: Place) -> None:
        place.one.steer(steering_body(Skip("seen", 1)))
        await place.until(place.one.answers)
        place.one.ask(event(b"1"))
        await place.until(lambda: len(place.one.answers()) == 2)

    assert drive(test, lone_max=LONE_ENTRIES_MAX).one.answers() == [Receipt(2, 3), Receipt(3, 4)]


def test_without_space_a_lone_writer_is_refused_and_may_try_again() -> None:
    """Nothing was kept, and nothing is broken."""

    async def test(place: Place) -> None:
        place.gate.failures["log"] = [Unavailable("no space")]
        place.one.ask(event(b"1", id="a"))
        await place.until(place.one.answers)
        place.one.ask(event(b"1", id="a"))
        await place.until(lambda: len(place.one.answers()) == 2)

    place = drive(test, lone_max=LONE_ENTRIES_MAX)
    assert [type(one).__name__ for one in place.one.answers()] == ["Refusal", "Receipt"]
    assert place.payloads() == [b"1"]


@pytest.mark.parametrize(("step", "error"), [("log", StorageFailed), ("seal", Unavailable)])
def test_a_failed_write_ends_the_door(step: str, error: type[Exception]) -> None:
    """Nobody is answered: whether it was kept, only a new start can tell."""
    places = []

    async def test(place: Place) -> None:
        places.append(place)
        place.gate.failures[step] = [error("broken")]
        place.one.ask(event(b"1"))
        await place.until(lambda: place.archiver.failed)
        place.one.ask(event(b"2"))

    with pytest.raises(error, match="broken"):
        drive(test, lone_max=LONE_ENTRIES_MAX)
    assert places[0].told == []
    assert places[0].payloads() == ([b"1"] if step == "seal" else [])


def test_stopping_keeps_what_a_lone_writer_sent() -> None:
    """What was taken before the end is kept and answered."""

    async def test(place: Place) -> None:
        place.one.ask(event(b"1"))

    place = drive(test, lone_max=LONE_ENTRIES_MAX)
    assert place.one.answers() == [Receipt(2, 3)]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.booleans()), max_size=12))
def test_lone_or_not_every_event_is_kept_once_and_answered_in_order(
    asked: list[tuple[bool, int, bool]],
) -> None:
    """Two senders, small requests and less small ones, with and without a pause between them."""

    async def test(place: Place) -> None:
        for number, (first, count, pause) in enumerate(asked):
            sender = place.one if first else place.other
            sender.ask(*crowd(number * 10, count))
            if pause:
                await place.until(lambda: not place.door._queue and not place.door._under_way)

    place = drive(test, lone_max=2)
    given_ = [number * 10 + at for number, (_, count, _) in enumerate(asked) for at in range(count)]
    assert place.payloads() == [b"%d" % number for number in given_]
    answers = [*place.one.answers(), *place.other.answers()]
    assert sorted(one.index for one in answers) == list(range(2, 2 + len(given_)))
    assert all(one.size > one.index for one in answers)
