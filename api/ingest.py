"""From a request body to submissions.  Pure: bytes and parameters in, submissions or errors out.

Three rules.  *Raw first*: what is submitted is the very bytes of each event.  *Nothing is lost beside the bad
one*: each event of a batch stands for itself, and what cannot be read is submitted too, as refused, with the
reason.  *Parse only as far as routing needs*: type, keys, id.

>>> rules = Rules.parse([("student", "$.actor.account.name"), ("id", "$.id")])
>>> raw = b'{"id": 5, "actor": {"account": {"name": "ann"}}}'
>>> one = submission(raw, rules, 1_000)
>>> one.subject, one.id, one.keys
('student:ann', '5', {'student': 'ann'})

Nobody outside can be a module of ours: its sender, its source, the types and key fields of the system are reserved, and
an event that uses one is refused (`check_reserved`; docs/formats/message.md).

What a Learning Observer connection does instead is `api.lo`; who calls this, `api.events`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jsonpath_rfc9535 as jsonpath
import msgspec
from jsonpath_rfc9535.selectors import IndexSelector

from api.problems import Problem
from archive import ROW_EVENT, ROW_REFUSED, VALUES_MAX, InvalidEvent, Submission, parse_json, type_of
from reducers import VALUE_SIZE_MAX
from replay import MODULE_SENDER

PARTITION_KEY = "student"
NAME_LENGTH_MAX = 200
FIELDS_MAX = 16
FIELD_SIZE_MAX = 64
EVENTS_MAX = 100_000
PART_EVENTS, PART_BYTES = 512, 1 << 20
PATH_LENGTH_MAX = 200
"""Of a JSON path: it is gone through for each event, and stands in the answer for each that lacks what it names."""
COMMAS_MAX = 2_500_000
"""In an array: what has more separators may be millions of tiny elements, which take memory and not bytes."""
ANONYMOUS = ""
"""The sender of an event that names no producer, or the word that is shown for it."""
SHOWN_ANONYMOUS = "anonymous"
NDJSON = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
RESERVED = "treering"
"""A source and a type, and with a dot behind it the beginning of sources, types and key fields, of the system's own."""
OTHERS = frozenset({"specversion", "@context"})
"""What CloudEvents and Caliper or other JSON-LD have, and we have not."""
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,31}")

Finder = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """Where an event's key fields and id stand, as a request says by JSON paths (RFC 9535)."""

    keys: dict[str, tuple[str, Finder]]
    id: tuple[str, Finder] | None = None

    @staticmethod
    def parse(parameters: Iterable[tuple[str, str]]) -> Rules:
        """Return the rules of a query string; raise Problem that names the parameter that is wrong."""
        keys: dict[str, tuple[str, Finder]] = {}
        identifier = None
        for name, path in parameters:
            if not _FIELD.fullmatch(name) or not path.startswith("$"):
                raise Problem(
                    400,
                    "Unknown parameter",
                    f"parameter {name!r}: expected FIELD=$.json.path, as student=$.actor.id",
                )
            finder = (path, _finder(name, path))
            if name == "id":
                identifier = finder
            else:
                keys[name] = finder
        if len(keys) > FIELDS_MAX:
            raise Problem(400, "Too many parameters", f"at most {FIELDS_MAX} key fields")
        return Rules(keys, identifier)


class Bad(NamedTuple):
    """What could not be read: why, and in which line (from 1), if the body has lines."""

    error: InvalidEvent
    line: int | None


class Item(NamedTuple):
    """One event of a body: what to submit, and what is wrong with it, if anything."""

    submission: Submission
    bad: Bad | None


def check_coding(header: str) -> None:
    """Raise Problem for a body that is packed: what is kept is what was sent, and packed bytes are no event.

    `header` is Content-Encoding (RFC 9110, 8.4); the answer says what is taken instead (15.5.16).

    >>> check_coding(""), check_coding("Identity")
    (None, None)
    """
    packed = [
        coding for part in header.split(",") if (coding := part.strip().lower()) not in {"", "identity"}
    ]
    if packed:
        raise Problem(
            415,
            "Unsupported content coding",
            f"Content-Encoding {packed[0][:40]!r} is not taken; send the events as they are, unpacked",
            {"Accept-Encoding": "identity"},
        )


def split_body(content_type: str, body: bytes) -> tuple[list[bytes], bool]:
    """Return the raw bytes of each event and whether the body has lines.

    Raises Problem for another content type, InvalidEvent for a body that cannot be taken apart.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in NDJSON:
        if body.count(b"\n") > EVENTS_MAX:
            raise too_many(body.count(b"\n"))
        return [line.rstrip(b"\r") for line in body.split(b"\n")], True
    if media_type != "application/json":
        raise Problem(
            415,
            "Unsupported media type",
            "send application/json (one event or an array) or application/x-ndjson",
        )
    if body.lstrip()[:1] != b"[":
        return [body], False
    return _elements(body), False


def _elements(body: bytes) -> list[bytes]:
    """Return the bytes of each element of a JSON array, unread; raise InvalidEvent if it is none."""
    if body.count(b",") > COMMAS_MAX:
        raise Problem(
            413, "Too many values", f"more than {COMMAS_MAX} values in one request; send NDJSON, or less"
        )
    try:
        body.decode()  # msgspec does not check UTF-8 inside what it skips
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"invalid UTF-8 at byte {error.start}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidEvent(f"malformed JSON: {str(error).removeprefix('JSON is malformed: ')}") from None


def items(content_type: str, body: bytes, rules: Rules, received_us: int) -> list[Item]:
    """Return one item for each event of a body; empty lines are passed over.

    Raises as `split_body` does.
    """
    return [item for part in parts(split_events(content_type, body), rules, received_us) for item in part]


def split_events(content_type: str, body: bytes) -> list[tuple[int | None, bytes]]:
    """Return the bytes of each event of a body with its line (from 1), None where the body has no lines.

    Raises as `split_body` does, and Problem for more than EVENTS_MAX events.
    """
    raws, lines = split_body(content_type, body)
    found = [
        (number if lines else None, raw) for number, raw in enumerate(raws, 1) if not lines or raw.strip()
    ]
    if len(found) > EVENTS_MAX:
        raise too_many(len(found))
    return found


def parts(found: Sequence[tuple[int | None, bytes]], rules: Rules, received_us: int) -> Iterator[list[Item]]:
    """Yield the items of events in parts of at most PART_EVENTS and, if they are several, PART_BYTES.

    So others get a turn between them.
    """
    part: list[Item] = []
    size = 0
    for line, raw in found:
        size += len(raw)
        if part and (len(part) == PART_EVENTS or size > PART_BYTES):
            yield part
            part, size = [], len(raw)
        part.append(_item(raw, rules, received_us, line))
    if part:
        yield part


def too_many(number: int) -> Problem:
    """Return the problem of a request with too many events."""
    return Problem(413, "Too many events", f"{number} events; at most {EVENTS_MAX} in one request")


def _item(raw: bytes, rules: Rules, received_us: int, line: int | None) -> Item:
    try:
        return Item(submission(raw, rules, received_us), None)
    except InvalidEvent as error:
        return Item(refused(raw, str(error), received_us), Bad(error, line))


def submission(raw: bytes, rules: Rules, received_us: int) -> Submission:
    """Return the submission of one event; raise InvalidEvent that names the field that is wrong."""
    value = parse_json(raw, VALUES_MAX)
    check_reserved(value)
    ours = _is_ours(value, rules)
    keys = _own_keys(value.get("keys") or {}) if ours else {}
    for field, (path, find) in rules.keys.items():
        keys[field] = _key_value(field, path, find(value))
    source = value.get("source", "") if isinstance(value, dict) else ""
    source = source[:NAME_LENGTH_MAX] if isinstance(source, str) else ""
    person = keys.get(PARTITION_KEY)
    return Submission(
        kind=ROW_EVENT,
        subject=f"{PARTITION_KEY}:{person}"
        if person
        else f"source:{source or type_of(value)[:NAME_LENGTH_MAX]}",
        payload=raw,
        received_us=received_us,
        source=source,
        sender=_producer(value) if ours else ANONYMOUS,
        form="event" if ours else "json",
        keys=keys,
        id=_identifier(value, rules, ours),
    )


def _is_ours(value: Any, rules: Rules) -> bool:
    """Return whether an event has our own form: an object `keys`; or none, and a type and data.

    Others use some of our words for something else: a CloudEvent's `id` is its source's, a Caliper event has no `data`.
    Nor is it ours by its type and data where a request says by paths where fields stand.

    >>> _is_ours({"keys": {}}, Rules({})), _is_ours({"type": "opened", "data": 1}, Rules({}))
    (True, True)
    >>> _is_ours({"type": "opened", "page": 1}, Rules({}))
    False
    """
    if not isinstance(value, dict):
        return False
    if (keys := value.get("keys")) is not None:
        return isinstance(keys, dict)
    ours = isinstance(value.get("type"), str) and "data" in value and OTHERS.isdisjoint(value)
    return ours and not rules.keys and rules.id is None


def check_reserved(value: Any) -> None:
    """Raise InvalidEvent, which names the field, if an event claims to be the system's own.

    Every field is looked at from which a type may be taken, so that no lock of fields can uncover one later.

    >>> check_reserved({"source": "treering.module.progress"})
    Traceback (most recent call last):
    archive.errors.InvalidEvent: field source: 'treering.module.progress' is reserved for the system; use another name
    """
    if not isinstance(value, dict):
        return
    verb = value.get("verb")
    found = {"event": value.get("event"), "type": value.get("type"), "source": value.get("source")}
    found["verb.id"] = verb.get("id") if isinstance(verb, dict) else None
    for field, name in found.items():
        if isinstance(name, str) and (name == RESERVED or _is_reserved(name)):
            raise InvalidEvent(_reserved(f"field {field}", name))


def _is_reserved(name: str) -> bool:
    return name.startswith(f"{RESERVED}.")


def _reserved(what: str, name: str) -> str:
    return f"{what}: {name[:NAME_LENGTH_MAX]!r} is reserved for the system; use another name"


def refused(raw: bytes, reason: str, received_us: int, **extra: Any) -> Submission:
    """Return the submission that records bytes which could not be read, under the day's own subject."""
    day = datetime.fromtimestamp(received_us / 1e6, UTC).date().isoformat()
    return Submission(
        kind=ROW_REFUSED,
        subject=f"refused:{day}",
        payload=raw,
        received_us=received_us,
        source="",
        sender=ANONYMOUS,
        form="json",
        keys={},
        extra={"reason": reason[:500], **extra},
    )


def _own_keys(found: dict[str, Any]) -> dict[str, str]:
    if len(found) > FIELDS_MAX:
        raise InvalidEvent(f"keys: {len(found)} fields; at most {FIELDS_MAX}")
    if any(len(field.encode("utf-8", "surrogatepass")) > FIELD_SIZE_MAX for field in found):
        raise InvalidEvent(f"keys: the name of a field is longer than {FIELD_SIZE_MAX} bytes")
    if reserved := next(filter(_is_reserved, found), None):
        raise InvalidEvent(_reserved("key field", reserved))
    return {field: _key_value(f"keys.{field}", None, value) for field, value in found.items()}


def _key_value(field: str, path: str | None, value: Any) -> str:
    """Return a key field's value as text; raise InvalidEvent if there is none."""
    where = f"{field} ({path})" if path else field
    text = scalar_text(value)
    if not text:
        what = _WHAT.get(type(value), "missing")
        raise InvalidEvent(f"key field {where} is {what}; expected a string or a number")
    if len(text.encode()) > VALUE_SIZE_MAX:
        raise InvalidEvent(f"key field {where} is longer than {VALUE_SIZE_MAX} bytes")
    return text


_WHAT: dict[type, str] = {dict: "an object", list: "an array", str: "empty"}


def scalar_text(value: Any) -> str:
    """Return a string, number or boolean as text, "" for anything else.

    >>> scalar_text(17), scalar_text(True), scalar_text([1])
    ('17', 'true', '')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def _producer(value: dict[str, Any]) -> str:
    """Return who an event says has sent it; raise InvalidEvent if that is a module of ours."""
    producer = scalar_text(value.get("producer"))[:VALUE_SIZE_MAX]
    if producer.startswith(MODULE_SENDER):
        raise InvalidEvent(_reserved("field producer", producer))
    return ANONYMOUS if producer == SHOWN_ANONYMOUS else producer


def _identifier(value: Any, rules: Rules, ours: bool) -> str | None:
    if rules.id is not None:
        path, find = rules.id
        return _key_value("id", path, find(value))
    if ours and value.get("id") is not None:
        return _key_value("id", None, value["id"])
    return None


def _finder(name: str, path: str) -> Finder:
    """Return a function that finds the one value at a path, or None; raise Problem if it is no path to one
    value.

    Filters and wildcards are refused with it: a request must not be able to make the server search.
    """
    if len(path) > PATH_LENGTH_MAX:
        raise Problem(400, "Malformed JSON path", f"parameter {name!r}: at most {PATH_LENGTH_MAX} characters")
    try:
        query = jsonpath.compile(path)
    except (jsonpath.JSONPathError, RecursionError) as error:
        raise Problem(400, "Malformed JSON path", f"parameter {name!r}: {error}") from None
    if not query.singular_query():
        raise Problem(400, "Ambiguous JSON path", f"parameter {name!r}: {path} may name more than one value")
    steps = [_step(segment.selectors[0]) for segment in query.segments]

    def find(value: Any) -> Any:
        for step in steps:
            if value is None:
                return None
            if isinstance(step, str):
                value = value.get(step) if isinstance(value, dict) else None
            else:
                value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        return value

    return find


def _step(selector: Any) -> str | int:
    return selector.index if isinstance(selector, IndexSelector) else str(selector.name)
