"""Ticks: time passes for those who asked for it, for each key they hold, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from archive import Event
from reducers import TICK, DefinitionError, Slot, due, fold, is_tick, reducer, tick


def at(index: int, student: str = "ann", kind: str = "t") -> Event:
    """An event of a student."""
    return Event(
        index=index, type=kind, source="s", keys={"student": student}, data={}, received_ms=0, time_ms=0
    )


@reducer(ticks=60)
def seen(state: list[str], event: Event) -> list[str]:
    """Keep what was seen, and for which student."""
    return [*state, f"{event.type} {event.time_ms // 1_000} {event.keys.get('student')}"]


@reducer()
def timeless(state: int, _event: Event) -> int:
    """Count events, and ask for no ticks."""
    return state + 1


@reducer(scope=(), ticks=60)
def everywhere(state: int, event: Event) -> int:
    """Count the ticks of the whole server."""
    return state + is_tick(event)


def test_a_tick_reaches_each_key_that_is_held() -> None:
    """Every student's state sees time pass, as of its own key; a key that is not there yet is not made."""
    slots = fold(seen, [tick(0, 60_000), at(1, "bob"), at(2, "ann"), tick(3, 120_000), at(4, "eve")])
    assert {key[0]: slot.state for key, slot in slots.items()} == {
        "ann": ["t 0 ann", "treering.tick 120 ann"],
        "bob": ["t 0 bob", "treering.tick 120 bob"],
        "eve": ["t 0 eve"],
    }


def test_a_tick_that_is_not_due_passes_by() -> None:
    """A period of a minute is met by whole minutes, however often ticks are logged."""
    assert [due(seen, tick(0, 1_000 * second)) for second in (0, 30, 60, 61, 120)] == [
        True, False, True, False, True,
    ]  # fmt: skip
    assert fold(seen, [at(0), tick(1, 61_000)])[("ann",)].changed_at == 0


def test_who_did_not_ask_for_ticks_never_sees_one() -> None:
    """A reducer that counts events counts those that somebody sent."""
    assert fold(timeless, [at(0), tick(1, 60_000)]) == {("ann",): Slot(1, 0)}
    assert not due(timeless, tick(0, 60_000))


def test_a_global_state_is_there_for_the_first_tick() -> None:
    """Its one key need not be made by an event."""
    assert fold(everywhere, [tick(0, 60_000), tick(1, 90_000), tick(2, 120_000)]) == {(): Slot(2, 2)}


def test_a_client_cannot_make_time_pass() -> None:
    """An event that only has the type of a tick is an event of its student."""
    assert not is_tick(at(0, kind=TICK))
    assert list(fold(everywhere, [at(0, kind=TICK)]).values()) == [Slot(0, 0)]


@pytest.mark.parametrize("ticks", [0, -1, True, 1.5, "60", 2**32])
def test_a_period_that_makes_no_sense_is_refused(ticks: Any) -> None:
    """It is whole seconds, and shows at the definition."""
    with pytest.raises(DefinitionError, match="ticks must be a period of whole seconds"):
        reducer(ticks=ticks)(timeless.function)
