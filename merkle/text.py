r"""The small grammar that all C2SP texts share: lines, decimal numbers, standard base64.

Each value has one spelling only, so that a text that was read can be written again byte for byte.  Python's
own converters are more generous (`int` takes "+1", "1_0" and Arabic digits; `b64decode` takes loose trailing
bits) and must not be used on texts from outside.

>>> parse_decimal("1234", limit=2**64), decode_base64("AAE=")
(1234, b'\x00\x01')
>>> parse_decimal("01", limit=2**64) is None and decode_base64("AAF=") is None
True

Everything answers None for what it refuses: only the caller knows what to call the thing that was wrong.
"""

from __future__ import annotations

import base64
import binascii
import re

MAX_SIZE = 2**64
"""Sizes and indices are below this: tlog-cosignature writes them as 64 bits."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_CONTROL = re.compile(r"[\x00-\x1f]")


def encode_base64(data: bytes) -> str:
    """Return standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes | None:
    """Return the bytes whose one canonical base64 is `text`, or None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None
    return data if encode_base64(data) == text else None


def parse_decimal(text: str, *, limit: int) -> int | None:
    """Return the number below `limit` that ASCII digits without leading zeros spell, or None."""
    number = int(text) if _DECIMAL.fullmatch(text) else limit
    return number if number < limit else None


def is_line(text: str) -> bool:
    """Tell whether `text` is one line that is not empty and can be written as UTF-8, without its newline."""
    return bool(text) and not _CONTROL.search(text) and _is_unicode(text)


def is_note_text(text: str) -> bool:
    """Tell whether `text` is whole lines without other control characters (C2SP signed-note)."""
    return text.endswith("\n") and not _CONTROL.search(text.replace("\n", "")) and _is_unicode(text)


def _is_unicode(text: str) -> bool:
    """Tell lone surrogates, which no UTF-8 can hold, from characters."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
