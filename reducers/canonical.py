"""One value, one encoding: the canonical JSON in which states are kept, compared and digested.

Two machines agree on a state by comparing bytes, so equal states must have equal bytes, in every process
and under every hash seed.  JSON from msgspec in its "deterministic" order gives that (keys sorted by UTF-8,
struct fields in the order of their definition, no white space, sets sorted, shortest floats), with one hole
that is closed here: it writes NaN and infinity as `null`, so that a state would come back as another one.

>>> encode({"b": 1, "a": [1.5, "é"]}).decode()
'{"a":[1.5,"é"],"b":1}'
>>> encode([float("nan")])
Traceback (most recent call last):
ValueError: nan is not a JSON number; use None, or leave the value out

Why this encoding and no other: docs/adr/0006-canonical-state.md.  What is hashed around it:
`reducers.digest`.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="deterministic")


def encode(value: Any) -> bytes:
    """Return the canonical JSON of `value`.

    Raises ValueError for NaN, infinity and lone surrogates, TypeError for keys that are not strings and for
    types that have no JSON form.
    """
    try:
        encoding = _ENCODER.encode(value)
    except TypeError:
        _refuse(msgspec.to_builtins(value))  # says which key it was, where it was a key
        raise
    if b"null" in encoding:  # nothing else can hide a NaN, and most states have no null
        _refuse(msgspec.to_builtins(value))
    return encoding


def _refuse(value: Any) -> None:
    """Raise for the first NaN, infinity or key that is not a string in these builtins."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number; use None, or leave the value out")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"dict key {key!r} is not a string; use str({key!r})")
            _refuse(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse(item)
