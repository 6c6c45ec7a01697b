"""What a module said, as an entry to append: the same bytes whoever sends it, so that it stands in the log once.

A fold hands out what reducers emitted (`Outgoing`); here it becomes a submission, which is an event like any other.
Its id is a hash of what it came of (log, module, reducer, key, input, ordinal) and of nothing else, and the archiver
keeps one entry for an id: that, and a position that is saved after its messages only, is what makes messages exactly
once.  Whatever kills a worker, the next one folds the same entries again and says the same again.

>>> from reducers import Message
>>> said = Outgoing(
...     module="progress", reducer="steps", key=("ann",), at=7, ordinal=0,
...     message=Message("progress.step", {"class": "7b"}, {"n": 1}),
...     subjects=(0,), hops=1, time_ms=1_000, received_ms=2_000, person="ann")
>>> one = submission_of("example.org/log", said, ["student:ann"])
>>> one.subject, one.also, one.sender, one.payload.decode()[:36]
('source:treering.module.progress', ['student:ann'], 'module:progress', '{"data":{"n":1},"keys":{"class":"7b"')

Byte by byte: docs/formats/message.md; why so, and why loops and storms of modules end: docs/adr/0050-messages.md.
Who sends it: `tools.post`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec

from archive import ROW_EVENT, Submission
from reducers import TICK, TICK_SOURCE, source_of
from replay.budget import TOO_MANY
from replay.feed import MODULE_SENDER, TICK_SENDER
from replay.folded import Outgoing
from replay.routing import PARTITION_KEY, TICK_FIELD

HOPS_MAX = 8
"""How many messages may lead from one to the next: modules that answer each other end here."""
_DOMAIN = b"treering/message/v1\0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder(order="deterministic").encode


def too_far(outgoing: Outgoing) -> bool:
    """Return whether a message is one too many, in a chain or in a storm; by what its input says of itself alone."""
    return outgoing.hops > HOPS_MAX or outgoing.budget == TOO_MANY


def message_id(origin: str, outgoing: Outgoing) -> str:
    """Return the id of a message in the log of this origin: lower-case hex of 32 bytes."""
    texts = [origin, outgoing.module, outgoing.reducer]
    hashed = sha256(_DOMAIN + b"".join(map(_text, texts)) + len(outgoing.key).to_bytes(2))
    hashed.update(b"".join(map(_text, outgoing.key)))
    hashed.update(outgoing.at.to_bytes(8) + outgoing.ordinal.to_bytes(4))
    return hashed.hexdigest()


def submission_of(origin: str, outgoing: Outgoing, subjects: Sequence[str]) -> Submission:
    """Return the entry of a message; `subjects` are the names of those whom its input is about, in its order."""
    message, source = outgoing.message, source_of(outgoing.module)
    primary = _subject(message.keys.get(PARTITION_KEY), source)
    about = [*subjects, *([_subject(outgoing.person, source)] if outgoing.person else [])]
    return Submission(
        kind=ROW_EVENT,
        subject=primary,
        payload=_payload(message.type, source, message.keys, message.data, outgoing.time_ms),
        received_us=outgoing.received_ms * 1_000,
        source=source,
        sender=MODULE_SENDER + outgoing.module,
        form="event",
        keys=message.keys,
        extra={
            "hops": outgoing.hops,
            "cause": outgoing.at,
            "reducer": outgoing.reducer,
            "ordinal": outgoing.ordinal,
            "budget": outgoing.budget,
        },
        id=message_id(origin, outgoing),
        also=_others(primary, about),
    )


def tick_submission(second: int) -> Submission:
    """Return the entry that says that this Unix second has begun.

    >>> tick_submission(60).payload.decode()[-57:]
    '"time":"1970-01-01T00:01:00.000Z","type":"treering.tick"}'
    """
    keys = {TICK_FIELD: str(second)}
    return Submission(
        kind=ROW_EVENT,
        subject=_subject(None, TICK_SOURCE),
        payload=_payload(TICK, TICK_SOURCE, keys, None, second * 1_000),
        received_us=second * 1_000_000,
        source=TICK_SOURCE,
        sender=TICK_SENDER,
        form="event",
        keys=keys,
        id=f"tick/{second}",
    )


def _payload(type_: str, source: str, keys: dict[str, str], data: object, time_ms: int) -> bytes:
    moment = (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds")
    time = moment.replace("+00:00", "Z")
    return _encode({"data": data, "keys": keys, "source": source, "time": time, "type": type_})


def _subject(person: str | None, source: str) -> str:
    """Return whom an event is about, as the front door decides (`api.ingest`)."""
    return f"{PARTITION_KEY}:{person}" if person else f"source:{source}"


def _others(primary: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name != primary]


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4) + data
