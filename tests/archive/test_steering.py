"""Control entries that steer: the bytes of the page, both ways, and nothing else is taken for one."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    Activate,
    ActiveReducer,
    Attest,
    FormatError,
    Retry,
    Skip,
    Steering,
    control_body,
    parse_leaf,
    parse_steering,
    steering_body,
)
from archive.entry import encode_control
from tests.archive.site import Site

PATH = Path(__file__).parent.parent / "vectors" / "archive" / "steering.json"
VECTORS = json.loads(PATH.read_text())

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}", fullmatch=True)
indices = st.integers(0, 2**53 - 1)
versions = st.integers(1, 2**32 - 1)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
fields = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64)
active = st.builds(ActiveReducer, names, versions, st.lists(fields, max_size=3).map(tuple), digests)
several = st.lists(active, max_size=4, unique_by=lambda one: one.name).map(tuple)
steerings: st.SearchStrategy[Steering] = st.one_of(
    st.builds(Activate, names, several, st.booleans(), st.none() | indices),
    st.builds(Retry, names),
    st.builds(lambda reducer, index: Retry(reducer=reducer, index=index), names, indices),
    st.builds(Skip, names, indices),
    st.builds(Attest, indices, names, versions, digests, indices, digests),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@pytest.mark.parametrize("case", VECTORS["entries"], ids=lambda case: str(case["name"]))
def test_entries_are_those_of_the_page(case: dict[str, Any]) -> None:
    """A body gives the leaf of the vectors, and the leaf gives the body and what it steers."""
    steering = parse_steering(case["body"])
    assert steering is not None
    leaf = encode_control(VECTORS["time_s"], steering_body(steering))
    assert leaf.hex() == case["leaf"]
    assert leaf[10:].decode() == case["text"]
    assert sha256(b"\0" + leaf).hexdigest() == case["leaf_hash"]
    assert parse_steering(control_body(parse_leaf(leaf))) == steering


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: str(case["name"]))
def test_what_is_malformed_is_refused_by_the_name_of_its_field(case: dict[str, Any]) -> None:
    """A body of a known kind that breaks a rule is a FormatError that names the kind, and the field or the rule."""
    with pytest.raises(FormatError, match=f"control entry '{case['body']['control']}': .*{case['names']}"):
        parse_steering(case["body"])


@pytest.mark.parametrize("body", VECTORS["other"])
def test_other_kinds_steer_nothing(body: dict[str, Any]) -> None:
    """Other control entries, and what is no control entry at all, are nobody's steering, and no error."""
    assert parse_steering(body) is None


def test_what_no_entry_can_hold_is_refused() -> None:
    """A body that would be too long a leaf, or that is no text, fails here and not in the archiver's commit."""
    scope = [f"f{number:063}" for number in range(32)]
    many = [[f"r{number}", 1, scope, "0" * 64] for number in range(30)]
    with pytest.raises(FormatError, match="at most 65535"):
        parse_steering({"control": "activate", "module": "m", "reducers": many})
    short = [[f"r{number}", 1, [], "0" * 64] for number in range(201)]
    with pytest.raises(FormatError, match="reducers"):
        parse_steering({"control": "activate", "module": "m", "reducers": short})
    assert parse_steering({"control": "activate", "module": "m", "reducers": short[:200]}) is not None
    with pytest.raises(FormatError, match="surrogates"):
        parse_steering({"control": "activate", "module": "m", "reducers": [["r", 1, ["\ud800"], "0" * 64]]})
    for name, fits in (("r" * 128, True), ("r" * 129, False)):
        body = {"control": "retry", "module": name}
        if fits:
            assert parse_steering(body) == Retry(name)
        else:
            with pytest.raises(FormatError, match="module"):
                parse_steering(body)


@given(steerings)
def test_what_is_written_is_read(steering: Steering) -> None:
    """Whatever can be said comes back from its leaf as it was, and its body is the only one that says it."""
    leaf = encode_control(5, steering_body(steering))
    body = control_body(parse_leaf(leaf))
    found = parse_steering(body)
    assert found == steering
    assert found is not None
    assert encode_control(5, steering_body(found)) == leaf


@given(st.dictionaries(st.sampled_from(["module", "reducer", "reducers", "index", "undo", "size", "version",
       "code_digest", "states", "digest", "x"]), json_values), st.sampled_from(["activate", "retry", "skip",
       "attest"]) | json_values)  # fmt: skip
def test_anything_else_is_refused_or_nothing(body: dict[str, Any], kind: Any) -> None:
    """Any JSON object is steering, or another kind of entry, or the one documented error."""
    body = {**body, "control": kind}
    try:
        found = parse_steering(body)
    except FormatError:
        return
    if found is not None:
        assert encode_control(0, steering_body(found)) == encode_control(0, body)


@given(steerings, st.data())
def test_a_body_with_a_field_changed_is_another_or_refused(steering: Steering, data: st.DataObject) -> None:
    """Nothing in a body is passed over: whoever changes, adds or leaves out a value says something else, or nothing."""
    body = steering_body(steering)
    name = data.draw(st.sampled_from([*body, "extra"]))
    value = data.draw(json_values)
    changed = {key: one for key, one in body.items() if key != name or data.draw(st.booleans())}
    if changed == body:
        changed[name] = value
    if encode_control(0, changed) == encode_control(0, body):
        return
    with suppress(FormatError):
        assert parse_steering(changed) != steering


def test_what_steers_stands_in_the_log_like_any_entry() -> None:
    """A control entry that steers is a leaf of its own block, which a check of the whole log finds good."""
    site = Site()
    archiver = site.start()
    steering = Skip("inverse", 7)
    index = archiver.control(steering_body(steering))
    (entry,) = [one for one in site.check() if one.index == index]
    assert parse_steering(entry.body or {}) == steering
    assert archiver.head.size == index + 1
