"""An event: what an entry of the log means to a reducer.

An entry keeps bytes; an event is those bytes read.  Reading is a pure function of the private header and
the payload, so that a replay ten years later reads exactly what the live worker read: nothing here
looks at a clock, a configuration or a connection.

Three forms are read.  *event* is our own shape, an object with an object "keys".  *json* is anybody's JSON,
taken as it is.  *lo* is a frame of the Learning Observer's clients, into which the fields that the connection
had locked are merged (the lock wins, as the clients expect).

>>> e = read_event(3, "lo", "", {"student": "ann"}, 1_000, b'{"event":"keystroke","timestamp":990}')
>>> e.type, e.time_ms, e.keys
('keystroke', 990, {'student': 'ann'})

How the bytes are kept is the business of `archive.entry`; what an event does to a state, of `reducers`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

import msgspec

from archive.errors import InvalidEvent
from archive.kernel import kernel

DEPTH_MAX = 200
VALUES_MAX = 1 << 18
"""Values in an event that is taken in: of the smallest, two bytes each in JSON, a request has room for 15 million, and
they take a gigabyte when they are read.  It bounds the halves of surrogate pairs, too."""
# A browser that cuts an emoji in two sends half of it, as the escape of a lone surrogate.  No text can hold that;
# it is read as U+FFFD, one UTF-16 unit like the half it stands for, so that positions stay right.
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
TIME_MS_MAX = 253_402_300_800_000  # the year 10000: beyond it a number is no time


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event of the log, as reducers see it."""

    index: int
    """0-based position of the entry in the log."""
    type: str
    """What happened, e.g. "google_docs_save"."""
    source: str
    """Name of the tool that sent it, e.g. "org.mitros.writing_analytics"."""
    keys: dict[str, str]
    """Key fields: {"student": "...", "doc_id": "..."}."""
    data: Any
    """The JSON value as received (LO: locked fields merged in)."""
    received_ms: int
    """Unix milliseconds at which the server received it."""
    time_ms: int
    """Unix milliseconds by the client's clock, else `received_ms`."""


def parse_json(payload: bytes, values_max: int | None = None) -> Any:
    """Return the JSON value of `payload`; raise InvalidEvent that says what is wrong and where.

    More than `values_max` values are refused by whoever takes events in; what is kept is read, however large.

    >>> parse_json(b'{"a":1')
    Traceback (most recent call last):
    archive.errors.InvalidEvent: malformed JSON: Input data was truncated
    """
    try:
        payload.decode()
        _check_excess(payload, len(payload) if values_max is None else values_max)
        return _decode(payload)
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"invalid UTF-8 at byte {error.start}") from None
    except (msgspec.DecodeError, ValueError) as error:  # or a number with more digits than Python will read
        raise InvalidEvent(f"malformed JSON: {str(error).removeprefix('JSON is malformed: ')}") from None


_decoder = msgspec.json.Decoder()


def _decode(payload: bytes) -> Any:
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        whole = _made_whole(payload)
        if whole == payload:
            raise
        return _decoder.decode(whole)


def _made_whole(payload: bytes) -> bytes:
    r"""Return JSON without halves of surrogate pairs.

    An escaped backslash is put aside first, by a byte that JSON cannot hold: what is left begins an escape, each.

    >>> _made_whole(rb'"\ud83c \ud83c\udf33 \\ud83c"')
    b'"\\ufffd \\ud83c\\udf33 \\\\ud83c"'
    """
    if b"\0" in payload:
        return payload
    return _HALF.sub(rb"\\ufffd", payload.replace(rb"\\", b"\0")).replace(b"\0", rb"\\")


def _check_excess(payload: bytes, values_max: int) -> None:
    """Raise InvalidEvent for more than `values_max` values, or arrays and objects nested more than DEPTH_MAX deep.

    Counted, and not left to the recursion limit, which depends on how deep the caller stands: what one worker can
    read, every worker must be able to read, or states are no function of the log.
    """
    if len(payload) <= values_max and kernel.brackets(payload) <= DEPTH_MAX:  # as nearly always
        return
    if payload.count(rb"\ud") + payload.count(rb"\uD") > values_max:
        raise InvalidEvent(
            f"more than {values_max:,} halves of surrogate pairs in one event; send text as UTF-8"
        )
    match kernel.excess(payload, values_max, DEPTH_MAX):
        case 1:
            raise InvalidEvent(f"more than {values_max:,} values in one event; send it in several")
        case 2:
            raise InvalidEvent(f"malformed JSON: nested more than {DEPTH_MAX} deep")


def read_event(
    index: int,
    form: str,
    source: str,
    keys: dict[str, str],
    received_ms: int,
    payload: bytes,
    lock: dict[str, Any] | None = None,
) -> Event:
    """Return the event of an entry; raise InvalidEvent where the payload is not JSON.

    `form` is "event", "json" or "lo"; `lock` holds the locked fields of an LO connection.
    """
    value = parse_json(payload)
    data = value
    if isinstance(value, dict):
        if form == "event":
            data = value.get("data")
        elif form == "lo":
            # Nobody says of himself that he is authenticated: that field is the server's.
            value = data = {**{name: one for name, one in value.items() if name != "auth"}, **(lock or {})}
    return Event(
        index=index,
        type=type_of(value),
        source=source,
        keys=keys,
        data=data,
        received_ms=received_ms,
        time_ms=client_time_ms(value, received_ms),
    )


def type_of(value: Any) -> str:
    """Return the event's type: its "event" (LO), "type" (ours, GitHub) or "verb.id" (xAPI), else ""."""
    if not isinstance(value, dict):
        return ""
    if isinstance(found := value.get("event"), str) or isinstance(found := value.get("type"), str):
        return found
    verb = value.get("verb")
    found = verb.get("id") if isinstance(verb, dict) else None
    return found if isinstance(found, str) else ""


def client_time_ms(value: Any, default_ms: int) -> int:
    """Return the client's time in Unix ms: `timestamp`, else `metadata.ts`, else `time`, else `default_ms`.

    Numbers are milliseconds; strings are RFC 3339.  What is neither is passed over.

    >>> client_time_ms({"time": "1970-01-01T00:00:01Z"}, 5), client_time_ms({"time": "noon"}, 5)
    (1000, 5)
    """
    if not isinstance(value, dict):
        return default_ms
    timestamp = value.get("timestamp")
    if type(timestamp) is int and 0 <= timestamp < TIME_MS_MAX:
        return timestamp  # as nearly always
    metadata = value.get("metadata")
    in_metadata = metadata.get("ts") if isinstance(metadata, dict) else None
    for candidate in (timestamp, in_metadata, value.get("time")):
        if candidate is not None and (time_ms := _time_ms(candidate)) is not None:
            return time_ms
    return default_ms


def _time_ms(value: Any) -> int | None:
    if isinstance(value, str):
        return _rfc3339_ms(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < TIME_MS_MAX else None


def _rfc3339_ms(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        # Whole arithmetic: a float of seconds would round the last millisecond by platform.
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        return None
    time_ms = since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
    return time_ms if time_ms >= 0 else None


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

HOW: Final = (Event, _decoder.decode, client_time_ms, DEPTH_MAX)
"""What `archive.kernel` needs to know of events to read the usual ones."""
