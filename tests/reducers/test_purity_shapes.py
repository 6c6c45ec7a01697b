"""Promise: a clock is found in whatever ordinary shape the author's own file has it, and the pure twin is let be."""

# ruff: noqa: ARG005, D102, D103, PLW0108 - each shape is a reducer's body, and is said by its name

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from archive import Event
from reducers import DefinitionError, Reducer, reducer
from reducers.purity import MEMBERS_MAX, faults


def impure(_state: str, _event: Event) -> str:
    return datetime.now(UTC).isoformat()


def pure(_state: str, event: Event) -> str:
    return datetime.fromtimestamp(event.time_ms / 1_000, UTC).isoformat()


@functools.lru_cache
def cached(_number: int) -> str:
    return datetime.now(UTC).isoformat()


@functools.lru_cache
def cached_pure(number: int) -> str:
    return str(number)


def passing_on(function: Callable[..., str]) -> Any:
    """Return a decorator's object, which keeps what it stands for as functools does."""
    return functools.update_wrapper(Wrapper(), function)


class Wrapper:
    """Calls what is below it in a way that no source shows."""

    def __call__(self, *arguments: Any) -> str:
        return str(vars(self)["__wrapped__"](*arguments))


@passing_on
def wrapped(_number: int) -> str:
    return datetime.now(UTC).isoformat()


@passing_on
def wrapped_pure(number: int) -> str:
    return str(number)


class Clock:
    """Has methods of all kinds, with a clock and without."""

    __slots__ = ("table",)

    def __init__(self, **table: Callable[..., str]) -> None:
        self.table = table

    @staticmethod
    def static() -> str:
        return datetime.now(UTC).isoformat()

    @staticmethod
    def static_pure() -> str:
        return "now"

    @classmethod
    def of_class(cls) -> str:
        return datetime.now(UTC).isoformat()

    @classmethod
    def by_way(cls) -> str:
        return cls.static()

    @classmethod
    def by_way_pure(cls) -> str:
        return cls.static_pure()

    def of_object(self) -> str:
        return datetime.now(UTC).isoformat()

    def by_table(self, event: Event) -> str:
        return self.table[event.type]()

    def by_object(self) -> str:
        return self.of_object()

    def by_object_pure(self) -> str:
        return self.static_pure() + str(self)

    @property
    def asked(self) -> str:
        return datetime.now(UTC).isoformat()

    @property
    def asked_pure(self) -> str:
        return "now"


class Later(Clock):
    """Has all of it from its base."""

    __slots__ = ()


class Called:
    """Is called like a function."""

    def __call__(self, event: Event) -> str:
        return f"{datetime.now(UTC)} {event.index}"


class CalledPure:
    """Is called like a function, and is one."""

    def __call__(self, event: Event) -> str:
        return str(event.index)


CLOCK, LATER, CALLED, CALLED_PURE = Clock(), Later(), Called(), CalledPure()
FULL = Clock(draft=lambda: str(datetime.now(UTC)))
FULL_PURE = Clock(draft=lambda: "draft")
BOUND, BOUND_PURE = CLOCK.of_object, CLOCK.by_object_pure
PARTIAL, PARTIAL_PURE = functools.partial(impure, ""), functools.partial(pure, "")
HANDLERS = {"draft": pure, "page": impure}
HANDLERS_PURE = {"draft": pure, "page": pure}
NESTED: dict[str, Any] = {"deep": [({"page": impure},)]}
NESTED["deep"].append(NESTED)
NESTED_PURE: dict[str, Any] = {"deep": [({"page": pure},)]}
NESTED_PURE["deep"].append(NESTED_PURE)
STEPS, STEPS_PURE = [pure, impure], (pure, pure)
FIXED = MappingProxyType(HANDLERS)


@functools.singledispatch
def spelled(value: Any) -> str:
    return str(value)


@spelled.register
def _(_value: int) -> str:
    return datetime.now(UTC).isoformat()


@reducer()
def other(state: str, event: Event) -> str:
    return late(state, event)


late = impure  # after the definition of who names it

IMPURE: dict[str, Callable[[str, Event], Any]] = {
    "lru_cache": lambda state, event: cached(event.index),
    "a decorator's object": lambda state, event: wrapped(event.index),
    "a static method": lambda state, event: Clock.static(),
    "a class method": lambda state, event: Clock.of_class(),
    "a static method of a base": lambda state, event: Later.static(),
    "a method that calls another": lambda state, event: Clock.by_way(),
    "an object's method": lambda state, event: CLOCK.of_object(),
    "an object's method of a base": lambda state, event: LATER.by_object(),
    "a method through a table in the object": lambda state, event: FULL.by_table(event),
    "a property": lambda state, event: CLOCK.asked,
    "an object that is called": lambda state, event: CALLED(event),
    "a bound method": lambda state, event: BOUND(),
    "a partial": lambda state, event: PARTIAL(event),
    "a dict of functions": lambda state, event: HANDLERS[event.type](state, event),
    "a dict that is asked": lambda state, event: HANDLERS.get(event.type, pure)(state, event),
    "a dict that is gone through": lambda state, event: [each(state, event) for each in HANDLERS.values()],
    "one of a dict": lambda state, event: HANDLERS["page"](state, event),
    "a dict that cannot be changed": lambda state, event: FIXED[event.type](state, event),
    "a list of functions": lambda state, event: [each(state, event) for each in STEPS],
    "one of a list": lambda state, event: STEPS[1](state, event),
    "tables in tables": lambda state, event: NESTED["deep"][event.index][0](state, event),
    "a function for each type": lambda state, event: spelled(event.index),
    "another reducer": lambda state, event: other(state, event),
}
PURE: dict[str, Callable[[str, Event], Any]] = {
    "lru_cache": lambda state, event: cached_pure(event.index),
    "a decorator's object": lambda state, event: wrapped_pure(event.index),
    "a static method": lambda state, event: Clock.static_pure(),
    "a static method of a base": lambda state, event: Later.static_pure(),
    "a method that calls another": lambda state, event: Clock.by_way_pure(),
    "an object's method": lambda state, event: CLOCK.by_object_pure(),
    "an object's method of a base": lambda state, event: LATER.by_object_pure(),
    "a method through a table in the object": lambda state, event: FULL_PURE.by_table(event),
    "a property": lambda state, event: CLOCK.asked_pure,
    "an object that is called": lambda state, event: CALLED_PURE(event),
    "an object that is passed on": lambda state, event: str(sorted([CLOCK], key=str)),
    "a bound method": lambda state, event: BOUND_PURE(),
    "a partial": lambda state, event: PARTIAL_PURE(event),
    "a dict of functions": lambda state, event: HANDLERS_PURE[event.type](state, event),
    "a dict that is asked": lambda state, event: HANDLERS_PURE.get(event.type, pure)(state, event),
    "one of a dict": lambda state, event: HANDLERS["draft"](state, event),
    "names in a dict": lambda state, event: state if event.type in HANDLERS else ",".join(HANDLERS.keys()),
    "the names of a dict": lambda state, event: [each for each in HANDLERS],  # noqa: C416
    "the size of a dict": lambda state, event: len(HANDLERS),
    "a tuple of functions": lambda state, event: [each(state, event) for each in STEPS_PURE],
    "one of a list": lambda state, event: STEPS[0](state, event),
    "tables in tables": lambda state, event: NESTED_PURE["deep"][event.index][0](state, event),
}


@pytest.mark.parametrize("shape", IMPURE)
def test_the_clock_is_found_in_every_shape(shape: str) -> None:
    """The message names the clock, and the line of the author's file that asks it."""
    found = faults(IMPURE[shape])
    assert {fault.what for fault in found} == {"datetime.datetime.now"}, found
    assert all(fault.place.startswith("reducers/test_purity_shapes.py:") for fault in found)


@pytest.mark.parametrize("shape", PURE)
def test_the_pure_twin_is_let_be(shape: str) -> None:
    """What stands beside a clock, and is not used, is no fault."""
    assert faults(PURE[shape]) == []


def test_such_a_reducer_is_refused_where_it_is_defined() -> None:
    """It does not load, and no live state ever holds the clock."""

    def stamped(_state: str, _event: Event) -> str:
        return Clock.static()

    with pytest.raises(DefinitionError, match="reducer 'stamped' reaches for the clock"):
        reducer()(stamped)


def fixed(package: str) -> SimpleNamespace:
    """Return an object of a library."""
    return SimpleNamespace(now=lambda: datetime.now(UTC), package=package)


LIBRARY = fixed("somebody's")


def test_objects_of_libraries_are_left_to_the_guard() -> None:
    """What is in them is not the author's source."""
    assert faults(lambda state, event: LIBRARY.now()) == []


class Loop:
    """An object that holds itself, and whose method calls itself."""

    def __init__(self) -> None:
        self.me = self
        self.many: Any = defaultdict(list, {"all": [self, calling_loop, self.turn]})

    def turn(self) -> str:
        return str(self.me.turn()) + calling_loop() + str(LOOP.many["all"])


def calling_loop() -> str:
    return calling_loop() + str(LOOP.turn())


LOOP = Loop()


def test_what_goes_in_circles_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects, tables and functions may lead to each other."""
    monkeypatch.setattr(calling_loop, "__wrapped__", calling_loop, raising=False)
    assert faults(lambda state, event: LOOP.turn() + str(LOOP)) == []


ROWS: list[Any] = [(number, [number]) for number in range(3 * MEMBERS_MAX)]
ROWS_AND_LAST: dict[str, Any] = {
    "rows": ROWS,
    "words": dict.fromkeys(map(str, range(9_000)), 1),
    "last": impure,
}


def test_tables_of_data_do_not_hide_what_stands_behind_them() -> None:
    """Of each, some are looked at and no more: it takes no time, and a function beside them is found."""
    assert faults(lambda state, event: ROWS[event.index]) == []
    assert [fault.what for fault in faults(lambda state, event: ROWS_AND_LAST[event.type])] == [
        "datetime.datetime.now"
    ]


def test_a_reducer_that_is_called_by_another_is_read_as_its_function() -> None:
    """A reducer is no object of a class that an author wrote."""
    made: Reducer[str] = reducer()(pure)
    assert faults(lambda state, event: made(state, event)) == []
