"""Which reducers there are: an explicit table, in one order, with one fingerprint."""

from __future__ import annotations

import hashlib
import json

import pytest

from archive import Event
from reducers import DefinitionError, Reducer, Registry, UnknownReducer, reducer, shipped
from reducers.event_count import event_count
from reducers.last_activity import last_activity


def _zero(state: int, _event: Event) -> int:
    return state


def test_reducers_come_in_the_order_of_their_names() -> None:
    """The order of registration does not show, neither in iteration nor in the fingerprint."""
    one, two = Registry(), Registry()
    for each in (event_count, last_activity):
        one.register(each)
    for each in (last_activity, event_count):
        two.register(each)
    assert [each.name for each in two] == ["event_count", "last_activity"]
    assert one.fingerprint() == two.fingerprint()
    assert one.get("event_count") is event_count
    assert "event_count" in one
    assert "other" not in one
    assert len(one) == 2


def test_a_name_is_given_once() -> None:
    """Two reducers never share a name, and what is no reducer is refused with the way out."""
    registry = shipped()
    with pytest.raises(DefinitionError, match="registered already"):
        registry.register(reducer(name="event_count")(_zero))
    with pytest.raises(DefinitionError, match="decorate it with @reducer"):
        registry.register(_zero)  # type: ignore[arg-type]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    """Whoever mistypes a name sees which there are."""
    with pytest.raises(
        UnknownReducer,
        match="class_progress, event_count, last_activity, reconstruct, student_progress, time_on_task",
    ) as caught:
        shipped().get("event_counts")
    assert caught.value.name == "event_counts"
    assert caught.value.known == tuple(each.name for each in shipped())


def test_each_call_gives_a_registry_of_its_own() -> None:
    """Registering in one table leaves every other as it was."""
    first = shipped()
    first.register(reducer(name="mine")(_zero))
    assert "mine" not in shipped()


@pytest.mark.parametrize(
    "other",
    [
        reducer(name="r", version=2)(_zero),
        reducer(name="r", scope=("class",))(_zero),
        reducer(name="r", scope=())(_zero),
        reducer(name="r", ticks=60)(_zero),
        event_count,
    ],
)
def test_the_fingerprint_covers_name_version_scope_code_and_ticks(other: Reducer[int]) -> None:
    """Whatever may change a state changes the fingerprint."""
    one, two = Registry(), Registry()
    one.register(reducer(name="r")(_zero))
    two.register(other)
    assert one.fingerprint() != two.fingerprint()


def test_the_fingerprint_is_as_specified() -> None:
    """Anyone can compute it from docs/formats/state.md with a JSON library and SHA-256."""
    rows = [[each.name, each.version, list(each.scope), each.code_digest] for each in shipped()]
    plain = json.dumps(rows, separators=(",", ":")).encode()
    assert shipped().fingerprint() == hashlib.sha256(b"treering/reducers/v1\0" + plain).hexdigest()
    registry, ticking = Registry(), reducer(name="r", ticks=60)(_zero)
    registry.register(ticking)
    plain = json.dumps([["r", 1, ["student"], ticking.code_digest, 60]], separators=(",", ":")).encode()
    assert registry.fingerprint() == hashlib.sha256(b"treering/reducers/v1\0" + plain).hexdigest()
