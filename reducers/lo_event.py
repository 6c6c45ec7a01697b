"""An event as reducers of the Learning Observer expect it, and which key fields it has.

    {"client": the frame, locked fields and identity merged in,
     "server": {"time": when it was received, Unix seconds, ...},
     "metadata": {"source": ..., "auth": ...}}

It is made from our `Event` alone, so that a replay makes the same one.  What that server knows and we do not
log (its request's address and browser) is an empty text.

>>> from archive import Event
>>> event = Event(index=3, type="hello", source="org.mitros.writing-analytics", keys={"student": "testcase-ann"},
...               data={"event": "hello", "doc_id": "essay"}, received_ms=1_500, time_ms=0)
>>> made = Envelopes([]).of(event)
>>> made.source, made.copy()["client"]["auth"]["safe_user_id"], made.copy()["server"]["time"]
('org.mitros.writing_analytics', 'testcase-ann', 1.5)

Names with dashes that early clients used get underscores.  A module may have *migrators*, functions that change
every event before its reducers see it; one that fails is left out for that event.  Each reducer gets a copy of
its own.  Who calls this: `reducers.lo_reducer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from archive import Event
from reducers.base import VALUE_SIZE_MAX
from reducers.guard import entry, install, running
from reducers.lo_clock import EVENT_MS

NOT_FOLDED = frozenset({"lock_fields", "terminate", "save_blob", "fetch_blob"})
"""Events that are about the connection, and never reach a reducer."""

_RENAMED = {
    name: name.replace("-", "_")
    for name in (
        "event-type",
        "teacher-tag",
        "user-tag",
        "process-server",
        "unique-id",
        "generated-id",
        "local-storage",
        "wa-source",
        "background-page",
        "client-page",
        "stream-test-script",
        "character-count",
        "total-time-on-task",
        "summary-stats",
        "student-data",
        "da-guest",
    )
}
_ANY_DASHED = re.compile(b'"(?:' + "|".join(_RENAMED).encode() + b')":')

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Envelope:
    """One event in that form; `copy` gives it away, as often as wanted."""

    __slots__ = ("_encoding", "client", "event", "source")

    def __init__(self, event: Event, client: dict[str, Any], source: str) -> None:
        self.event, self.client, self.source = event, client, source
        server = {"time": event.received_ms / 1_000, **_SERVER}
        metadata = {"source": source, **({"auth": client["auth"]} if "auth" in client else {})}
        self._encoding = _encode({"client": client, "server": server, "metadata": metadata})

    def copy(self) -> dict[str, Any]:
        """Return the event, to do with as one likes."""
        made: dict[str, Any] = _decode(self._encoding)
        return made

    def text(self, name: str) -> str:
        """Return a field of the frame as text; "" where it is missing, or could be no part of a key."""
        return key_text(self.client.get(name))


_SERVER = {"origin": "", "agent": "", "ip": "", "executable": "treering"}


class Envelopes:
    """Makes envelopes by the migrators of one module; remembers the last, which several reducers ask for."""

    def __init__(self, migrators: Sequence[Callable[[Any], Any]]) -> None:
        self._migrators = migrators
        self._last: tuple[Event, Envelope | None] | None = None

    def of(self, event: Event) -> Envelope | None:
        """Return the envelope of an event; None where it is nothing that such a reducer could be given."""
        if self._last is None or self._last[0] is not event:
            self._last = event, self._make(event)
        return self._last[1]

    def _make(self, event: Event) -> Envelope | None:
        if not isinstance(event.data, dict) or not event.type or event.type in NOT_FOLDED:
            return None
        client = client_of(event)
        for migrate in self._migrators:
            client = _migrated(client, migrate, event.received_ms)
        return Envelope(event, client, canonical_source(event.source))


def client_of(event: Event) -> dict[str, Any]:
    """Return the frame: its fields, with canonical names, and who the student is.

    An event of our own form has type, source and keys beside its data; they are put in where the data has
    none.
    """
    encoding = _encode(event.data)
    client: dict[str, Any] = _decode(encoding)
    if _ANY_DASHED.search(encoding):
        _rename(client)
    for name, value in event.keys.items():
        if name != "student":
            client.setdefault(name, value)
    client.setdefault("event", event.type)
    client["source"] = canonical_source(client.get("source") or event.source)
    client.pop("auth", None)
    if (student := event.keys.get("student")) is not None:
        client["auth"] = {
            "sec": "unauthenticated",
            "user_id": student,
            "safe_user_id": student,
            "providence": student.partition("-")[0],
        }
    return client


def canonical_source(source: Any) -> str:
    """Return the name of a source as reducers are found by it: early clients wrote it with dashes."""
    return source.replace("-", "_") if isinstance(source, str) else ""


def key_text(value: Any) -> str:
    """Return a string, number or boolean as the ingest writes it into a key; "" for anything else.

    >>> key_text("essay"), key_text(7), key_text(True), key_text(None)
    ('essay', '7', 'true', '')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) if isinstance(value, str | int | float) else ""
    return text if len(text.encode()) <= VALUE_SIZE_MAX else ""


def _rename(value: Any) -> None:
    """Give the known dashed names of all objects in `value` underscores, in place."""
    if isinstance(value, list):
        for item in value:
            _rename(item)
    elif isinstance(value, dict):
        for name, item in list(value.items()):
            _rename(item)
            if name in _RENAMED:
                value[_RENAMED[name]] = value.pop(name)


class _Migrator(NamedTuple):
    """A migrator, as the guard wants to know what runs."""

    name: str
    function: Callable[[Any], Any]


@entry
def _guarded(migrate: Callable[[Any], Any], client: dict[str, Any]) -> Any:
    if not running.installed:
        install()
    before, running.reducer = running.reducer, _Migrator("migrator", migrate)
    try:
        return migrate(client)
    finally:
        running.reducer = before


def _migrated(client: dict[str, Any], migrate: Callable[[Any], Any], event_ms: int) -> dict[str, Any]:
    token = EVENT_MS.set(event_ms)
    try:
        changed = _decode(_encode(_guarded(migrate, _decode(_encode(client)))))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - a migrator is the module's code, and fails as a part of the fold
        return client
    finally:
        EVENT_MS.reset(token)
    return changed if isinstance(changed, dict) and isinstance(changed.get("event"), str) else client
