"""What goes over the archiver's socket: length-prefixed MessagePack, a few small messages.

    front → archiver   Append(ticket, submissions)   Steer(ticket, body)   Subscribe()
    archiver → front   Appended(ticket, answers, size, root)   Published(size, process)

A ticket is the front's own number for a request; answers stand in the order of the submissions.  `Published` is a
wake-up: it may be merged or lost, so whoever gets one reads to the end of the log.

>>> decode_frames(bytearray(encode_frame(Subscribe())), FRONT)
([Subscribe()], 0)

Who listens: `tools.archiver`; who calls: `archive.client`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from archive.errors import FormatError

FRAME_SIZE_MAX: Final = 256 << 20
PAYLOAD_SIZE_MAX: Final = 32 << 20


class Submission(msgspec.Struct, frozen=True, array_like=True):
    """An entry that somebody wants kept; the archiver adds sequence, tag, routes and encryption."""

    kind: int
    """A ROW_ constant of `archive.entry`."""
    subject: str
    """The primary subject, kind:label."""
    payload: bytes
    received_us: int
    source: str
    sender: str
    form: str
    keys: dict[str, str]
    extra: dict[str, Any] = {}
    id: str | None = None
    """Idempotency key under `sender`, or None."""
    also: list[str] = []
    """Further subjects whose secrets are needed to read the entry."""


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The entry is kept at `index`; `size` is that of the first signed checkpoint covering it."""

    index: int
    size: int


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The entry is not kept: `reason` is conflict, invalid or unavailable, `detail` says more."""

    reason: str
    detail: str


Answer = Receipt | Refusal


class Append(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Please keep these."""

    ticket: int
    submissions: list[Submission]


class Subscribe(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Please send Published now, and from now on; whoever has asked already may ask again, to see that it answers."""


class Steer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Please append this control entry: `archive.steering` says which there are; one answer."""

    ticket: int
    body: dict[str, Any]


class Appended(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """What became of a request, and the checkpoint the log stands at."""

    ticket: int
    answers: list[Answer]
    size: int
    root: bytes


class Published(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The log was published up to this size, by the archiver process of this random name."""

    size: int
    process: bytes = b""


Request = Append | Steer | Subscribe
Reply = Appended | Published

_encoder = msgspec.msgpack.Encoder()
FRONT: Final = msgspec.msgpack.Decoder(Request)
BACK: Final = msgspec.msgpack.Decoder(Reply)


def encode_frame(message: Request | Reply) -> bytes:
    """Return a message as one frame: 4-byte big-endian length, then MessagePack."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4) + body


def decode_frames(buffer: bytearray, decoder: msgspec.msgpack.Decoder[Any]) -> tuple[list[Any], int]:
    """Return the messages at the front of `buffer` and the bytes left over; what was read is removed.

    Raises FormatError at the first frame that is malformed or too long: the connection is of no more use.
    """
    messages, at, end = [], 0, len(buffer)
    with memoryview(buffer) as view:
        while end - at >= 4:
            size = int.from_bytes(view[at : at + 4])
            if size > FRAME_SIZE_MAX:
                raise FormatError(f"frame of {size} bytes; at most {FRAME_SIZE_MAX}")
            if end - at - 4 < size:
                break
            try:
                messages.append(decoder.decode(view[at + 4 : at + 4 + size]))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise FormatError(f"frame of {size} bytes: {error}") from None
            at += 4 + size
    del buffer[:at]
    return messages, len(buffer)
