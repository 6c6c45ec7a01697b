"""Typed access to an event's data: one type, one error, the same for every replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import msgspec
import pytest

from archive import Event
from reducers import DataError, ReducerError, fold_one, read, reducer


def event(data: Any) -> Event:
    """An event with this data."""
    return Event(
        index=7, type="keystroke", source="s", keys={"student": "ann"}, data=data, received_ms=0, time_ms=0
    )


class Stroke(msgspec.Struct):
    """What a keystroke is expected to be."""

    key: str
    held_ms: int = 0


@dataclass
class Cursor:
    """A part of a larger one."""

    line: int
    column: int = 1


@dataclass
class Edit:
    """Nested, with defaults."""

    cursor: Cursor
    words: list[str] = field(default_factory=list)


class Bare(TypedDict):
    """A plain dict that is checked."""

    key: str


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        ({"key": "a"}, Stroke, Stroke("a", 0)),
        ({"key": "a", "held_ms": 3, "more": [1]}, Stroke, Stroke("a", 3)),
        ({"cursor": {"line": 4}}, Edit, Edit(Cursor(4, 1), [])),
        ({"cursor": {"line": 4, "column": 2}, "words": ["x"]}, Edit, Edit(Cursor(4, 2), ["x"])),
        ({"key": "a"}, Bare, {"key": "a"}),
        ([1, 2], list[int], [1, 2]),
        (None, type(None), None),
    ],
)
def test_data_is_read_as_a_type(data: Any, kind: Any, expected: Any) -> None:
    """Structs, dataclasses within dataclasses, plain dicts and lists; what the type does not name is ignored."""
    assert read(event(data), kind) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            {"key": 7},
            r"event 7 \('keystroke'\): its data is no Stroke: Expected `str`, got `int` - at `\$.key`",
        ),
        ({}, "its data is no Stroke: Object missing required field `key`"),
        (None, "its data is no Stroke: Expected `object`, got `null`"),
        ({"key": "a", "held_ms": "3"}, r"Expected `int`, got `str` - at `\$.held_ms`"),
    ],
)
def test_data_of_another_form_is_one_clear_error(data: Any, says: str) -> None:
    """It names the event, the type and the field; nothing is converted in silence."""
    with pytest.raises(DataError, match=says):
        read(event(data), Stroke)
    assert issubclass(DataError, ReducerError)


@pytest.mark.parametrize("default", [None, 0, Stroke("none")])
def test_with_a_default_nothing_is_raised(default: Any) -> None:
    """What does not fit gives the default, also where that is None."""
    assert read(event({"key": 7}), Stroke, default=default) is default
    assert read(event({"key": "a"}), Stroke, default=default) == Stroke("a")


def test_a_client_that_sends_nonsense_quarantines_at_the_same_event() -> None:
    """Without a default, the error is the reducer's result there, in every fold."""

    @reducer()
    def held(state: int, event: Event) -> int:
        return state + read(event, Stroke).held_ms

    one, two = (fold_one(held, None, event({"key": None})) for _ in range(2))
    assert one == two
    assert one.error == (
        "DataError: event 7 ('keystroke'): its data is no Stroke: Expected `str`, got `null` - at `$.key`"
    )
