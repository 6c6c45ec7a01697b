"""Who waits for a person: what is asked for in the log is found, however little of it is read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from archive import Activate, Attest, Log, Retry, Skip, Steering
from tests.world import World, event
from tools.wakeups import Wakeups
from tools.warden import Watch, pause

OWNERS = {"words": "essay", "seen": "activity"}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the indices of the control entries that are read from now on."""
    seen: list[int] = []
    whole = Log.controls

    def controls(log: Log, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        for index, leaf in whole(log, start, stop):
            seen.append(index)
            yield index, leaf

    monkeypatch.setattr(Log, "controls", controls)
    return seen


def steered(world: World, *entries: Steering) -> list[int]:
    """Append control entries and return their indices."""
    return [world.steer(one) for one in entries]


def test_each_control_entry_is_read_once_however_often_somebody_looks(read: list[int]) -> None:
    """A log in which much is attested costs no more, the longer a module is parked."""
    world, watch = World(), Watch()
    start = world.size
    at = steered(world, *(Attest(1, "seen", 1, "0" * 64, 0, f"{n:064x}") for n in range(3)))
    for _ in range(5):
        assert watch.asked(world.source, {"essay": start}, OWNERS) == {}
    world.append([event("ann")])
    at += steered(world, Skip("words", 1))
    for _ in range(5):
        assert watch.asked(world.source, {"essay": start}, OWNERS) == {"essay": at[-1]}
    assert read == at


def test_one_who_parks_later_is_told_of_what_was_read_for_others() -> None:
    """What was asked for between its last position and now counts, and nothing from before that."""
    world, watch = World(), Watch()
    start = world.size
    first, second, undo = steered(
        world, Retry(module="activity"), Retry(reducer="seen", index=1), Activate("essay", (), undo=True)
    )
    assert watch.asked(world.source, {"essay": start}, OWNERS) == {"essay": undo}
    assert watch.asked(world.source, {"essay": undo + 1, "activity": second}, OWNERS) == {"activity": second}
    assert watch.asked(world.source, {"activity": second + 1}, OWNERS) == {}
    assert watch.asked(world.source, {"activity": start}, OWNERS) == {"activity": second}
    assert first < second


def test_one_who_waits_from_further_back_has_it_read_again(read: list[int]) -> None:
    """Whoever parks with an older position than all before is found, too."""
    world, watch = World(), Watch()
    start = world.size
    (early,) = steered(world, Retry(module="activity"))
    assert watch.asked(world.source, {"essay": world.size}, OWNERS) == {}
    assert read == []
    assert watch.asked(world.source, {"essay": world.size, "activity": start}, OWNERS) == {"activity": early}


def test_wake_ups_do_not_make_it_look_more_often() -> None:
    """Woken after each tenth of a second, it still lets the whole second pass; told to stop, it does not."""
    clock = [0.0]

    class Woken:
        stopped = False
        waits = 0

        def wait(self, seconds: float) -> None:
            clock[0] += min(seconds, 0.1)
            self.waits += 1
            self.stopped = stop_at is not None and self.waits >= stop_at

    stop_at: int | None = None
    pause(cast(Wakeups, Woken()), 1.0, lambda: clock[0])
    assert 1.0 <= clock[0] < 1.1
    stop_at = 3
    pause(cast(Wakeups, Woken()), 1.0, lambda: clock[0])
    assert clock[0] < 1.5
