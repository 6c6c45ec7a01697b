"""The shared grammar: one spelling for each value, at the very limits too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle.text import MAX_SIZE, decode_base64, encode_base64, is_line, is_note_text, parse_decimal


@given(st.integers(0, MAX_SIZE - 1))
def test_every_size_is_read_as_python_writes_it(number: int) -> None:
    """Decimals up to the limit are read, and nothing beside their one spelling."""
    assert parse_decimal(str(number), limit=MAX_SIZE) == number
    assert parse_decimal(str(number), limit=number + 1) == number
    assert parse_decimal(str(number), limit=number) is None
    assert parse_decimal(f"0{number}", limit=MAX_SIZE) is None


@pytest.mark.parametrize("number", [*range(11), 99, 100, 10**19 - 1, 10**19, 2**63, 2**64 - 1])
def test_sizes_of_every_length_are_read_up_to_64_bits(number: int) -> None:
    """From one digit to twenty; the next number after the last is the limit itself."""
    assert parse_decimal(str(number), limit=MAX_SIZE) == number
    assert MAX_SIZE == 18_446_744_073_709_551_616


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "1_0", "0x1", "1.", "١", "²", str(MAX_SIZE), "9" * 5000]
)
def test_other_numbers_are_refused(text: str) -> None:
    """What Python's `int` would take, or choke on, is refused quietly."""
    assert parse_decimal(text, limit=MAX_SIZE) is None


@given(st.binary(max_size=40))
def test_base64_has_one_spelling(data: bytes) -> None:
    """What was encoded is decoded, and no byte may be added."""
    text = encode_base64(data)
    assert decode_base64(text) == data
    assert decode_base64(text + "\n") is None
    assert decode_base64(text + "=") is None


@pytest.mark.parametrize(
    "text", ["A", "AA", "AA=", "AB==", "AAB=", "AA==AA==", "A A=", "_-8=", "ÄÄ==", "\ud800"]
)
def test_other_base64_is_refused(text: str) -> None:
    """Missing padding, loose bits, the URL alphabet and foreign characters are refused quietly."""
    assert decode_base64(text) is None


@pytest.mark.parametrize("code", [0x00, 0x09, 0x0D, 0x1F, 0xD800, 0xDBFF, 0xDFFF])
def test_control_characters_and_lone_surrogates_are_in_no_text(code: int) -> None:
    """From the first to the last of each kind."""
    assert not is_line(f"a{chr(code)}b")
    assert not is_note_text(f"a{chr(code)}b\n")


@pytest.mark.parametrize("code", [0x20, 0x7F, 0x85, 0x2028, 0xD7FF, 0xE000, 0x10FFFF])
def test_their_neighbours_are(code: int) -> None:
    """The specification forbids no more than that."""
    assert is_line(f"a{chr(code)}b")
    assert is_note_text(f"a{chr(code)}b\n\n")


def test_a_line_is_not_empty_and_a_text_ends_in_a_newline() -> None:
    """A newline belongs to a text and never to a line."""
    assert (is_line(""), is_line("a\n"), is_line("\n")) == (False, False, False)
    assert (is_note_text(""), is_note_text("a"), is_note_text("\n")) == (False, False, True)
