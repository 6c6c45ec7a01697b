"""Fuzzing of what goes over the archiver's socket: whatever is read has one meaning, whatever is not is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import FRONT, Append, FormatError, decode_frames, encode_frame
from archive.wire import BACK
from tests.archive.site import event
from tests.archive.test_formats import FRAMES, near

DECODERS = st.sampled_from([FRONT, BACK])


def read(data: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> list[Any] | None:
    """Return the messages in some bytes, or None where they are refused in the one documented way."""
    try:
        return decode_frames(bytearray(data), decoder)[0]
    except FormatError:
        return None


@given(near(FRAMES), DECODERS)
def test_what_is_read_is_written_with_one_meaning(data: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> None:
    """A message that was read is sent on as bytes that are read as the same message, and written as the same bytes."""
    for message in read(data, decoder) or []:
        frame = encode_frame(message)
        again = read(frame, decoder)
        assert again is not None
        assert list(map(encode_frame, again)) == [frame]


@given(
    st.sampled_from(FRAMES) | st.binary(max_size=64).map(lambda body: len(body).to_bytes(4) + body),
    st.sampled_from([b"", *FRAMES]) | st.binary(max_size=64),
    DECODERS,
)
def test_a_frame_is_read_before_what_follows_and_as_if_that_were_not_there(
    frame: bytes, after: bytes, decoder: msgspec.msgpack.Decoder[Any]
) -> None:
    """Messages stand in the order of their frames; a frame that is refused refuses the whole, and nothing else does.

    Any bytes end as messages, as a rest that may still become one, or as FormatError; never otherwise.
    """
    first, then = read(frame, decoder), read(after, decoder)
    both = read(frame + after, decoder)
    if first is None or then is None:
        assert both is None
    else:
        assert both is not None
        assert list(map(encode_frame, both)) == list(map(encode_frame, first + then))


@pytest.mark.parametrize("depth", [10, 1_000, 100_000])
def test_however_deep_a_message_is_nested(depth: int) -> None:
    """A header that nobody could encode is refused like any malformed frame, and does not end the archiver."""
    frame = encode_frame(Append(1, [event(b"{}", extra={"x": 0})]))
    at = frame.index(b"\xa1x\x00") + 2
    body = frame[4:at] + b"\x91" * depth + frame[at:]
    messages = read(len(body).to_bytes(4) + body, FRONT)
    assert (messages is not None) == (depth == 10) or depth == 1_000
