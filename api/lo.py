"""One connection of the Learning Observer's clients, as a state machine.  No socket, no clock: frames in,
submissions out.

Such a client sends one JSON object a frame, with an "event".  It may lock fields that belong to all later
frames, in any order and late; it may say who it is late, too; it gets no answer but {"status": "auth"}.  With
acknowledgements asked for, each frame is answered by its number (0-based in its connection).

    frame → Step(submissions, replies, close)

**Identity.**  Until the connection has said who it is, its frames belong to a provisional subject of its
own.  The frame that says it still belongs there, if others do, and a binding entry follows that gives them
all to the person.  Another person on the same connection (a shared computer) begins a new epoch.

**Bad frames** are kept as refused and answered; they never end the connection.

>>> lo = Connection(b"conn-id!")
>>> step = lo.frame(b'{"event":"hello","user_id":"ann"}', True, 1_000)
>>> step.submissions[0].subject, step.replies
('student:testcase-ann', [{'status': 'auth', 'user_id': 'testcase-ann'}])

The WebSocket around it is `api.lo_socket`; how backlog is folded, `replay.runner`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from api.ingest import ANONYMOUS, PARTITION_KEY, check_reserved, refused, scalar_text
from archive import ROW_BINDING, ROW_EVENT, ROW_FRAME, VALUES_MAX, InvalidEvent, Submission, parse_json
from reducers import VALUE_SIZE_MAX

KEY_FIELDS = ("class", "doc_id", "resource", "teacher")
LOCK_BYTES_MAX = 2_048
"""Each later event of the connection keeps what is locked: so it may not be much more than an event."""
PROTOCOL_EVENTS = frozenset({"lock_fields", "terminate"})

_encode = msgspec.json.Encoder(order="deterministic").encode


class Step(NamedTuple):
    """What a frame asks for: entries to keep (the first is the frame's own), then replies, then perhaps to
    close.
    """

    submissions: list[Submission]
    replies: list[dict[str, Any]]
    refused: str | None = None
    close: bool = False


class Connection:
    """The state of one connection; `connection_id` is 8 random bytes."""

    def __init__(self, connection_id: bytes) -> None:
        self.id = connection_id
        self.frames = 0
        self._lock: dict[str, Any] = {}
        self._lock_bytes = b""
        self._person: str | None = None
        self._epoch = 0
        self._backlog = False

    def frame(self, data: bytes, text: bool, received_us: int) -> Step:
        """Take in one frame, received at `received_us` (Unix µs); `text` is False for a binary one."""
        number = self.frames
        self.frames += 1
        try:
            event = _event_of(data, text)
            return self._ordinary(event, data, number, received_us)
        except InvalidEvent as error:
            bad = refused(data, str(error), received_us, conn=self.id, frame=number)
            return Step([bad], [], refused=str(error))

    def _ordinary(self, event: dict[str, Any], data: bytes, number: int, received_us: int) -> Step:
        name = event["event"]
        if name == "lock_fields":
            self._lock_fields(event)
        merged = {**event, **self._lock}
        person = _person_of(merged)
        replies: list[dict[str, Any]] = []
        binds = None
        if person is not None and person != self._person:
            replies.append({"status": "auth", "user_id": person})
            if self._person is None and self._backlog:
                binds = person
            else:
                self._become(person)
        kind = ROW_FRAME if name in PROTOCOL_EVENTS else ROW_EVENT
        submissions = [self._submission(kind, merged, data, number, received_us)]
        if binds is not None:
            submissions.append(self._binding(binds, number, received_us))
            self._become(binds)
        return Step(submissions, replies, close=name == "terminate")

    def _become(self, person: str) -> None:
        self._person = person
        self._epoch += 1
        self._backlog = False

    def _lock_fields(self, event: dict[str, Any]) -> None:
        fields = event.get("fields")
        if not isinstance(fields, dict):
            raise InvalidEvent("lock_fields: fields must be an object")
        check_reserved(fields)
        # Nobody says of himself that he is authenticated: that field is the server's.
        lock = {**self._lock, **{name: value for name, value in fields.items() if name != "auth"}}
        encoded = _encode(lock)
        if len(encoded) > LOCK_BYTES_MAX:
            raise InvalidEvent(f"lock_fields: more than {LOCK_BYTES_MAX} bytes are locked")
        self._lock, self._lock_bytes = lock, encoded

    def _submission(
        self, kind: int, merged: dict[str, Any], data: bytes, number: int, received_us: int
    ) -> Submission:
        keys = {} if self._person is None else {PARTITION_KEY: self._person}
        for field in KEY_FIELDS:
            value = scalar_text(merged.get(field, merged.get(field.replace("_", "-"))))
            if value and len(value.encode()) <= VALUE_SIZE_MAX:
                keys[field] = value
        self._backlog = self._backlog or self._person is None
        extra: dict[str, Any] = {"conn": self.id, "frame": number}
        if self._lock and kind == ROW_EVENT:
            extra["lock"] = self._lock_bytes
        source = merged.get("source")
        return Submission(
            kind=kind,
            subject=self._subject(),
            payload=data,
            received_us=received_us,
            source=source[:VALUE_SIZE_MAX] if isinstance(source, str) else "",
            sender=ANONYMOUS,
            form="lo",
            keys=keys,
            extra=extra,
        )

    def _binding(self, person: str, number: int, received_us: int) -> Submission:
        provisional = self._subject()
        extra: dict[str, Any] = {"bind": provisional, "conn": self.id, "frame": number}
        if self._lock:
            extra["lock"] = self._lock_bytes
        return Submission(
            kind=ROW_BINDING,
            subject=f"{PARTITION_KEY}:{person}",
            payload=b"",
            received_us=received_us,
            source="",
            sender=ANONYMOUS,
            form="lo",
            keys={PARTITION_KEY: person},
            extra=extra,
            also=[provisional],
        )

    def _subject(self) -> str:
        if self._person is not None:
            return f"{PARTITION_KEY}:{self._person}"
        return f"provisional:{self.id.hex()}-{self._epoch}"


def _event_of(data: bytes, text: bool) -> dict[str, Any]:
    if not text:
        raise InvalidEvent("binary frame; send one JSON object as text")
    value = parse_json(data, VALUES_MAX)
    if not isinstance(value, dict):
        raise InvalidEvent("a frame must be a JSON object")
    if not isinstance(value.get("event"), str):
        raise InvalidEvent("field event is missing; expected a string")
    check_reserved(value)
    return value


def _person_of(merged: dict[str, Any]) -> str | None:
    """Return LO's safe form of the user id, or None; an id that is too long names nobody."""
    user_id = scalar_text(merged.get("user_id"))
    if not user_id or len(user_id.encode()) > VALUE_SIZE_MAX - 16:
        return None
    return f"testcase-{user_id}"
