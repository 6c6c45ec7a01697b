"""What a payload means: the same to every reader, however deep his stack."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import InvalidEvent, parse_json, read_event
from archive.event import DEPTH_MAX, VALUES_MAX


def nested(depth: int) -> bytes:
    """Return JSON of arrays and objects nested so deep."""
    return b'{"a":[' * (depth // 2) + b"[" * (depth % 2) + b"]" * (depth % 2) + b"]}" * (depth // 2)


def at_stack_depth(depth: int, payload: bytes) -> str:
    """Parse at a given depth of the caller's stack and say how it ended."""
    if depth:
        return at_stack_depth(depth - 1, payload)
    try:
        parse_json(payload)
    except InvalidEvent as error:
        return str(error)
    return "read"


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1, 975, 50_000])
def test_nesting_is_counted_and_not_left_to_the_stack(depth: int) -> None:
    """What is too deep is too deep for every reader, wherever he stands on the stack."""
    results = {at_stack_depth(frames, nested(depth)) for frames in (0, 100, 400)}
    assert len(results) == 1
    assert (results == {"read"}) == (depth <= DEPTH_MAX)


def test_brackets_inside_strings_do_not_nest() -> None:
    """A text full of brackets, quotes and backslashes is flat."""
    text = '{"s":"' + "[" * 1_000 + '\\"{\\\\' + '"}'
    assert parse_json(text.encode())["s"].count("[") == 1_000


@pytest.mark.parametrize("value", [b"[]", b"1", b'{"a":1}'])
def test_the_number_of_values_is_bounded(value: bytes) -> None:
    """So is what an event takes when it is read; a long text is one value.  What was kept is read all the same."""
    count = VALUES_MAX // (1 + value.count(b"[") + value.count(b"{"))
    assert len(parse_json(b"[" + b",".join([value] * count) + b"]", VALUES_MAX)) == count
    with pytest.raises(InvalidEvent, match="more than 262,144 values in one event; send it in several"):
        parse_json(b"[" + b",".join([value] * (count + 2)) + b"]", VALUES_MAX)
    assert len(parse_json(b"[" + b",".join([value] * (count + 2)) + b"]")) == count + 2
    halves = b'"' + rb"\ud83c" * (VALUES_MAX + 1) + b'"'
    with pytest.raises(InvalidEvent, match="halves of surrogate pairs in one event; send text as UTF-8"):
        parse_json(halves, VALUES_MAX)
    assert parse_json(halves) == "\ufffd" * (VALUES_MAX + 1)
    assert parse_json(b'"' + b"[,{" * VALUES_MAX + b'"', VALUES_MAX).startswith("[,{")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (rb'"\ud83c\udf33"', "🌳"),
        (rb'"\ud83c"', "\ufffd"),
        (rb'"a\udf33b\ud83c"', "a\ufffdb\ufffd"),
        (rb'"\ud83c\ud83c\udf33"', "\ufffd🌳"),
        (rb'"\\ud83c"', r"\ud83c"),
        (rb'"\\\ud83c"', "\\\ufffd"),
        (rb'"\\\\ud83c\n\udf33\ud83c\udf33"', "\\\\ud83c\n\ufffd🌳"),
        (rb'"\ud83c\\\udf33"', "\ufffd\\\ufffd"),
    ],
)
def test_half_an_emoji_is_one_replacement_character(sent: bytes, read: str) -> None:
    """A lone surrogate escape, as browsers send it, costs one character and not the whole event."""
    assert parse_json(sent) == read


@pytest.mark.parametrize("sent", [b'{"a":x}', b"{} {}", b'{"a":1,}'])
def test_what_is_wrong_is_said_once(sent: bytes) -> None:
    """The reader's own "JSON is malformed" is not put behind ours; where it is wrong is told."""
    with pytest.raises(InvalidEvent, match=r"^malformed JSON: .*\(byte \d+\)$") as caught:
        parse_json(sent)
    assert str(caught.value).lower().count("malformed") == 1


def test_a_huge_number_is_refused_with_a_reason() -> None:
    """A number that Python would refuse to read is the sender's mistake, not a crash."""
    with pytest.raises(InvalidEvent, match="malformed JSON"):
        parse_json(b'{"n":' + b"9" * (sys.get_int_max_str_digits() + 1) + b"}")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    """Whatever comes in, reading gives a value or InvalidEvent, and nothing else."""
    with suppress(InvalidEvent):
        read_event(0, "lo", "", {}, 5, payload, {"user_id": "ann"})
