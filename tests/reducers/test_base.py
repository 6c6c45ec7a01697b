"""What a reducer is: its definition is checked at once, and its states have exactly one encoding."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import states
from archive import Event
from reducers import (
    DefinitionError,
    Reducer,
    Slot,
    StateError,
    fold,
    leaf_data,
    pair_of,
    reducer,
    shipped,
)
from reducers.definition import RESERVED_FIELDS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def event(**keys: str) -> Event:
    """An event with these key fields."""
    return Event(index=0, type="t", source="s", keys=keys, data={}, received_ms=0, time_ms=0)


class Tally(msgspec.Struct, frozen=True):
    """A state of a Struct."""

    n: int = 0


@dataclass(frozen=True)
class Names:
    """A state of a dataclass."""

    names: list[str] = field(default_factory=list)


@reducer(scope=("student", "doc_id"), version=3, name="tally.v", view=lambda state: {"shown": state.n})
def tally(state: Tally, event: Event) -> Tally:
    """Count the events of type "t"."""
    return Tally(state.n + 1) if event.type == "t" else state


@reducer(default=0)
def free(_state: Any, event: Event) -> Any:
    """Keep whatever came last: a reducer whose state is any JSON-like value."""
    return event.data


@reducer(default={})
def mapping(state: dict[str, Any], event: Event) -> dict[str, Any]:
    """Keep the last event's data, which may be what no JSON can say."""
    return {**state, "last": event.data}


def test_the_decorator_keeps_what_it_was_told() -> None:
    """A reducer carries name, version, scope and state type, and can still be called as a function."""
    assert (tally.name, tally.version, tally.scope, tally.state_type) == (
        "tally.v",
        3,
        ("student", "doc_id"),
        Tally,
    )
    assert tally(Tally(4), event()) == tally.apply(Tally(4), event()) == Tally(5)
    with pytest.raises(FrozenInstanceError):
        tally.name = "other"  # type: ignore[misc]


def test_the_key_is_in_the_order_of_the_scope() -> None:
    """Keys follow the scope, not the event, and an event that lacks a field has no key."""
    assert tally.key_of(event(doc_id="d", student="s", more="m")) == ("s", "d")
    assert tally.key_of(event(student="s")) is None


def test_a_global_reducer_has_one_key() -> None:
    """Without a scope, every event belongs to the one state, whatever fields it has."""

    @reducer(scope=())
    def everything(state: int, _event: Event) -> int:
        return state + 1

    assert (everything.scope, everything.key_of(event()), everything.key_of(event(student="s"))) == (
        (),
        (),
        (),
    )
    slots = fold(everything, [event(), event(student="s")])
    assert slots == {(): Slot(2, 0)}
    data = leaf_data(pair_of(everything, (), slots[()]))
    assert data == b"treering/state/v1\0\0\0\0\x0aeverything\0\0\0\1\0\0\0" + b"2"


def test_each_first_state_is_a_fresh_one() -> None:
    """No two keys share a mutable first state, whether it comes from the type, a value or a function."""

    def named(state: Names, _event: Event) -> Names:
        return state

    def listed(state: list[list[int]], _event: Event) -> list[list[int]]:
        return state

    assert reducer()(named).initial().names is not reducer()(named).initial().names
    by_value, by_call = reducer(default=[[1]])(listed), reducer(default=lambda: [[2]])(listed)
    for made, expected in ((by_value, [[1]]), (by_call, [[2]]), (reducer()(listed), [])):
        first = made.initial()
        first.append([9])
        assert made.initial() == expected


def test_a_state_type_inside_a_function_is_found() -> None:
    """A class defined beside its reducer, as tests and notebooks do, is resolved where the body uses it."""

    class Local(msgspec.Struct):
        n: int = 0

    @reducer()
    def local(state: Local, _event: Event) -> Local:
        return Local(state.n + 1)

    assert local.initial() == Local(0)


def _no_annotation(state, _event):  # type: ignore[no-untyped-def]
    return state


def _unresolved(state: Missing, _event: Event) -> Any:  # type: ignore[name-defined]  # noqa: F821 - as above
    return state


def _optional(state: int | None, _event: Event) -> int | None:
    return state


def _number(state: int, _event: Event) -> int:
    return state


def _real(state: float, _event: Event) -> float:
    return state


def _complex(state: complex, _event: Event) -> complex:
    return state


@pytest.mark.parametrize(
    ("options", "function", "says"),
    [
        ({"scope": None}, _number, "scope must be a tuple"),
        ({"scope": "student"}, _number, "scope must be a tuple"),
        ({"scope": ("a", "")}, _number, "scope must be a tuple"),
        ({"scope": ("a", 1)}, _number, "scope must be a tuple"),
        ({"scope": ("a", "a")}, _number, "names a field twice"),
        ({"scope": ("student", "limit")}, _number, "scope field 'limit' is a parameter"),
        ({"scope": ("after",)}, _number, "scope field 'after' is a parameter"),
        ({"scope": ("student", "f" * 65)}, _number, "at most 64 characters"),
        ({"scope": tuple(f"f{n}" for n in range(33))}, _number, "at most 32 fields"),
        ({"scope": _number}, _number, "scope must be a tuple"),
        ({"version": 0}, _number, "version must be"),
        ({"version": True}, _number, "version must be"),
        ({"version": "1"}, _number, "version must be"),
        ({"version": 2**32}, _number, "version must be"),
        ({"name": "a/b"}, _number, "reducer name 'a/b'"),
        ({"name": ""}, _number, "reducer name ''"),
        ({"name": "a\n"}, _number, "reducer name"),
        ({"default": "seven"}, _number, "no first state"),
        ({"default": 1}, _real, "is not of its state type"),
        ({"default": lambda: None}, _optional, "its first state is None, which is no state"),
        ({"default": None}, _optional, "its first state is None, which is no state"),
        ({"default": {1: 2}}, free.function, "no first state"),
        ({}, _no_annotation, "annotate its first parameter"),
        ({}, _unresolved, "cannot be resolved"),
        ({}, _optional, "pass default"),
        ({}, _complex, "no first state"),
        ({}, 7, "decorates a function"),
    ],
)
def test_a_definition_that_does_not_fit_is_refused_at_once(
    options: dict[str, Any], function: Any, says: str
) -> None:
    """Mistakes show when the module is imported, not at the first event, and the message says what to do."""
    with pytest.raises(DefinitionError, match=says):
        reducer(**options)(function)


def test_reserved_are_the_parameters_of_questions_about_states() -> None:
    """Neither more nor fewer: a name that only one side knows would be unreadable, or refused for nothing."""
    assert states.RESERVED == RESERVED_FIELDS


def test_returning_none_is_an_error_that_says_what_to_return() -> None:
    """A forgotten return is found, and is not taken for a state."""

    @reducer()
    def forgetful(state: int, _event: Event) -> int:
        state += 1
        return None  # type: ignore[return-value]

    with pytest.raises(TypeError, match="'forgetful' returned None; return the new state"):
        forgetful.apply(0, event())


@given(JSON)
def test_an_encoding_comes_back_as_the_same_state(value: Any) -> None:
    """decode(encode(s)) is s, and encoding it again gives the same bytes, for any JSON value."""
    encoding = free.encode(value)
    assert free.decode(encoding) == value
    assert free.encode(free.decode(encoding)) == encoding


@given(st.dictionaries(st.text(), st.integers()), st.randoms(use_true_random=False))
def test_the_order_of_insertion_does_not_show(value: dict[str, int], shuffler: random.Random) -> None:
    """Equal dicts have equal bytes, however they were built."""
    items = list(value.items())
    shuffler.shuffle(items)
    assert mapping.encode(dict(items)) == mapping.encode(value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, {1: 2}, {None: 1}, "\ud800", {1j}])
def test_what_json_cannot_say_is_refused_by_name(bad: Any) -> None:
    """No state is silently stored as another; the error names the reducer, however deep the value."""
    with pytest.raises(StateError, match="reducer 'mapping': its state cannot be encoded") as caught:
        mapping.encode({"deep": [None, {"x": bad}]})
    assert caught.value.reducer == "mapping"


def test_a_key_that_is_no_string_is_named() -> None:
    """The author sees which key it was, and what to write instead."""
    with pytest.raises(StateError, match=r"dict key 7 is not a string; use str\(7\)"):
        mapping.encode({"deep": [{7: 1}]})


def test_a_null_beside_a_number_is_no_nan() -> None:
    """The check for NaN refuses nothing else: null, the word and finite floats pass."""
    assert mapping.encode({"a": None, "b": "null", "c": 1.5}) == b'{"a":null,"b":"null","c":1.5}'


@pytest.mark.parametrize("stored", [b"", b"{", b'"x"', b'{"n":"x"}', b"\xff"])
def test_stored_bytes_of_another_shape_are_refused_by_name(stored: bytes) -> None:
    """A state of an older version, or a damaged one, is never taken for a state."""
    with pytest.raises(StateError, match=r"reducer 'tally\.v': stored bytes are not a state of version 3"):
        tally.decode(stored)


def test_readers_are_shown_builtins() -> None:
    """A view is JSON-like whatever the state is: by default all of it, else what `view` returns."""
    assert tally.view(Tally(2)) == {"shown": 2}
    words = {"rowan", "alder", "maple", "beech", "cedar", "elder", "larch"}
    made_of_sets: Reducer[Any] = reducer(default=0, view=lambda state: {"seen": state})(_number)
    assert made_of_sets.view(words) == {"seen": sorted(words)}, "in the order of the hash seed"
    assert reducer(default=0)(_number).view(words) == sorted(words)  # type: ignore[arg-type]
    made: Reducer[Names] = reducer(default=Names)(_names)
    assert made.view(Names(["a"])) == {"names": ["a"]}
    assert reducer(view=lambda state: {state: [state]})(_number).view(7) == {"7": [7]}


def _names(state: Names, _event: Event) -> Names:
    return state


def test_each_shipped_reducer_has_code_of_its_own() -> None:
    """The digests of those that we ship differ; what they cover is told in `tests.reducers.test_sources`."""
    assert tally.code_digest == mapping.code_digest
    assert len({each.code_digest for each in shipped()}) == len(shipped())


def test_the_code_digest_looks_through_wrappers() -> None:
    """A decorator from elsewhere does not hide the author's own file."""
    scope: dict[str, Any] = {}
    exec("def wrapper(state, event): return 1", scope)
    wrapped = functools.wraps(_number)(scope["wrapper"])
    assert reducer()(wrapped).code_digest == tally.code_digest


def test_code_without_a_file_still_has_a_digest() -> None:
    """Reducers typed at a prompt work, and other code has another digest."""
    digests = []
    for body in ("state + 1", "state - 1"):
        scope: dict[str, Any] = {"Event": Event}
        exec(f"def typed(state: int, event: Event) -> int: return {body}", scope)
        digests.append(reducer()(scope["typed"]).code_digest)
    assert len(set(digests)) == len(digests) == 2


def test_a_reducer_may_name_what_is_assigned_later() -> None:
    """A reducer made inside a function may call itself, or a helper below it: neither is there at its decoration."""

    @reducer()
    def nested(state: int, event: Event) -> int:
        return helper(state) if event.type == "t" else nested.function(state, event)

    def helper(state: int) -> int:
        return state + 1

    assert nested.function(1, event()) == 2


def test_what_was_returned_is_not_called_stored() -> None:
    """Promise: an author whose function returns another type is told so, and of no bytes that nobody stored."""

    @reducer(scope=("student",), version=1)
    def counted(state: int, event: Event) -> int:
        del state, event
        return "one"  # type: ignore[return-value]

    with pytest.raises(StateError, match="it returned what is no int") as raised:
        counted.normal("one")  # type: ignore[arg-type]
    assert "stored" not in str(raised.value)
