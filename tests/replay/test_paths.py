"""Where two JSON values differ: every place, by a path that finds it again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpath_rfc9535 import find

from replay import ABSENT, differing, differing_encodings

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=3)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def shown(value: Any) -> str:
    """Return a value as JSON, with which two values are compared independently."""
    return json.dumps(value, sort_keys=True)


@given(values, values)
def test_a_path_leads_to_what_differs(ours: Any, theirs: Any) -> None:
    """Nothing is found exactly where the values are equal; each path finds, in either value, what is said of it."""
    found = differing(ours, theirs, limit=1_000)
    assert (found == []) == (shown(ours) == shown(theirs))
    for one in found:
        for value, side in ((ours, one.ours), (theirs, one.theirs)):
            there = [node.value for node in find(one.path, value)] if one.path != "$" else [value]
            assert [shown(each) for each in there] == ([] if side is ABSENT else [shown(side)])
        assert one.ours is ABSENT or one.theirs is ABSENT or shown(one.ours) != shown(one.theirs)


@given(values, values)
def test_bytes_that_differ_differ_somewhere(ours: Any, theirs: Any) -> None:
    """Two encodings that are not the same bytes have a place that says why, though it be the order of members."""
    one, other = (json.dumps(value, separators=(",", ":")).encode() for value in (ours, theirs))
    assert (differing_encodings(one, other) == []) == (one == other)


@pytest.mark.parametrize(
    ("ours", "theirs", "path"),
    [
        (b"1", b"1.0", "$"),
        (b"1", b"true", "$"),
        (b"0.0", b"-0.0", "$"),
        (b'{"a":[{"b":1,"c":2}]}', b'{"a":[{"c":2,"b":1}]}', "$['a'][0]"),
        (b"123456789012345678901234567890", b"123456789012345678901234567891", "$"),
        (b'{"it\'s":1}', b'{"it\'s":2}', "$['it\\'s']"),
        (b"[1,[2,3]]", b"[1,[2]]", "$[1][1]"),
    ],
)
def test_what_a_digest_tells_apart_is_named(ours: bytes, theirs: bytes, path: str) -> None:
    """Types, signs of zero, whole numbers of any size and the order of fields differ, and it is said where."""
    (found,) = differing_encodings(ours, theirs)
    assert found.path == path


def test_a_report_leaves_out_what_is_not_there() -> None:
    """A side that has nothing at a place has no member in the report, and people read "nothing"."""
    (found,) = differing({}, {"a": "x" * 1_000})
    assert found.as_json() == {"path": "$['a']", "theirs": "x" * 1_000}
    assert str(found).startswith("$['a']: nothing here, \"xxx")
    assert len(str(found)) < 300
