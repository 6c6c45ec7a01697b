"""Promise: sets are shown alike in every process, whatever is in them, and all else keeps its order."""

from __future__ import annotations

import enum
import itertools
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from reducers import Event, Reducer, reducer
from reducers.shown import built


class Kind(enum.Enum):
    """Does not compare."""

    PAGE = "page"
    DRAFT = "draft"


class Point(msgspec.Struct, frozen=True, rename={"x": "across"}):
    """Does not compare, and is shown under another name."""

    x: int
    seen: frozenset[Any] = frozenset()


class Row(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Is shown as a list that begins with its tag."""

    seen: frozenset[Any]
    n: int = 0


@dataclass(frozen=True)
class Desk:
    """Holds a set."""

    name: str
    seen: frozenset[Any] = field(default_factory=frozenset)


SETS: dict[str, tuple[Any, Any]] = {
    "enums": ({Kind.PAGE, Kind.DRAFT}, ["draft", "page"]),
    "None and texts": ({"b", None, "a"}, ["a", "b", None]),
    "numbers": ({10, 2, 1.5}, [1.5, 2, 10]),
    "all kinds": ({None, True, 7, "7", Kind.PAGE}, [7, "7", "page", None, True]),
    "Structs": ({Point(2), Point(1)}, [{"across": 1, "seen": []}, {"across": 2, "seen": []}]),
    "sets": ({frozenset({2, 1}), frozenset({10})}, [[1, 2], [10]]),
    "in a Struct": (Point(1, frozenset({Kind.PAGE, None})), {"across": 1, "seen": ["page", None]}),
    "in a Struct that is a list": (Row(frozenset({Kind.PAGE, None}), 3), ["Row", ["page", None], 3]),
    "in a dataclass": (Desk("a", frozenset({Kind.PAGE, None})), {"name": "a", "seen": ["page", None]}),
    "in lists": ([[{Kind.PAGE, None}]], [[["page", None]]]),
    "in a tuple": (({Kind.PAGE, None},), (["page", None],)),
    "under keys that are no texts": (
        {1: {None, 2}, Kind.PAGE: {None, "a"}},
        {"1": [2, None], "page": ["a", None]},
    ),
    "under keys that look alike": ({1: {None, 2}, "1": {"b", "a"}}, {"1": ["a", "b"]}),
}


@pytest.mark.parametrize("name", SETS)
def test_sets_are_shown_in_order(name: str) -> None:
    """Also where their members do not compare, and wherever they stand."""
    value, shown = SETS[name]
    assert built(value) == shown


def test_a_view_may_show_what_does_not_compare() -> None:
    """Its readers get it as soon as there are two."""

    def count(state: int, _event: Event) -> int:
        return state

    made: Reducer[int] = reducer(view=lambda _: {"kinds": {Kind.PAGE, Kind.DRAFT, None}})(count)
    assert made.view(0) == {"kinds": ["draft", "page", None]}


@pytest.mark.parametrize("seen", [set(), {2, 1}])
def test_dicts_keep_their_order(seen: set[int]) -> None:
    """With a set in them as without."""
    assert list(built({"z": seen, "a": {"y": 1, "b": 2}})) == ["z", "a"]
    assert list(built({"z": seen, "a": {"y": 1, "b": 2}})["a"]) == ["y", "b"]


def test_the_order_does_not_hang_on_the_process() -> None:
    """Sets of sets compare, as one being in the other, which is no order."""
    code = "from reducers.shown import built; print(built({frozenset(p) for p in ('ab', 'cd', 'ef', 'gh')}))"
    said = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(filter(None, sys.path))},
        ).stdout
        for seed in (1, 2, 3)
    }
    assert said == {"[['a', 'b'], ['c', 'd'], ['e', 'f'], ['g', 'h']]\n"}


def test_what_has_no_sets_is_shown_as_it_is() -> None:
    """Lists stay as they are, whatever is in them."""
    values: list[Any] = [None, "b", 2, 1, Point(1), Desk("a"), {"b": (2, 1)}]
    for some in itertools.permutations(values, 3):
        assert built(list(some)) == msgspec.to_builtins(list(some), str_keys=True)
