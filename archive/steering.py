"""Steering: the control entries that say how the log is to be folded.

Everything that steers a fold is itself an entry, so that states stay a function of the log: which reducers are active
from here on, which event a reducer passes over, which key is to be folded again, and what the states came to at some
size.  A key is named by the index of the event at which it stands still, never by its value: control entries are public
and hold nothing about a person.

>>> parse_steering({"control": "skip", "reducer": "inverse", "index": 7})
Skip(reducer='inverse', index=7)
>>> parse_steering({"control": "start", "software": "treering 1"}) is None
True

Byte by byte: docs/formats/control.md.  What each of them does to a state is the business of `replay.steering`; who may
ask for one, of `tools`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from archive.entry import encode_control
from archive.errors import FormatError

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*\Z")]
Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Version = Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)]
Field = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ActiveReducer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One reducer as it is active: [name, version, [scope field, …], code digest]."""

    name: Name
    version: Version
    scope: tuple[Field, ...]
    code_digest: Digest


class Activate(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="control",
    tag="activate",
    omit_defaults=True,
):
    """From this entry on a module runs these reducers; `undo` admits versions lower than those before."""

    module: Name
    reducers: Annotated[tuple[ActiveReducer, ...], msgspec.Meta(max_length=200)]
    undo: bool = False
    since: Index | None = None
    """From which event on they speak, if those before them have not spoken of all that came before this entry."""


class Retry(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="control",
    tag="retry",
    omit_defaults=True,
):
    """Fold again: a reducer's key that stands still at event `index`, or a module that was parked."""

    module: Name | None = None
    reducer: Name | None = None
    index: Index | None = None


class Skip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="control", tag="skip"):
    """From this entry on a reducer's states are those that it would have without event `index`."""

    reducer: Name
    index: Index


class Attest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="control", tag="attest"):
    """What all states of one reducer came to once it had seen `size` entries (docs/formats/state.md)."""

    size: Index
    reducer: Name
    version: Version
    code_digest: Digest
    states: Index
    digest: Digest


Steering = Activate | Retry | Skip | Attest
KINDS = frozenset({"activate", "retry", "skip", "attest"})


def parse_steering(body: dict[str, Any]) -> Steering | None:
    """Return what a control entry's body steers, or None if it is of another kind.

    Raises FormatError, which names the field, if it is of such a kind and malformed.
    """
    kind = body.get("control")
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    try:
        steering: Steering = msgspec.convert(body, Steering)
    except msgspec.ValidationError as error:
        raise FormatError(f"control entry {kind!r}: {error}") from None
    if fault := _fault(steering):
        raise FormatError(f"control entry {kind!r}: {fault}")
    try:  # also refused, by `encode_control`: what is longer than an entry may be, or no text
        canonical = encode_control(0, body) == encode_control(0, steering_body(steering))
    except UnicodeEncodeError as error:
        raise FormatError(f"control entry {kind!r}: {error}") from None
    if not canonical:
        raise FormatError(f"control entry {kind!r}: leave out what is null or false")
    return steering


def _fault(steering: Steering) -> str:
    if isinstance(steering, Retry):
        given = (steering.module is not None, steering.reducer is not None, steering.index is not None)
        if given not in {(True, False, False), (False, True, True)}:
            return "give a module, or a reducer and an index"
    elif isinstance(steering, Activate):
        names = [one.name for one in steering.reducers]
        if len(set(names)) < len(names):
            return "a reducer is named twice"
    return ""


def fault_at(steering: Steering, index: int) -> str | None:
    """Return what is wrong with saying this at entry `index`, or None: an entry speaks of what stands before it.

    A skip alone may speak of an entry that is yet to come.  The archiver keeps what this finds fault with out of the
    log, and a check of the log finds it there.

    >>> fault_at(Retry(reducer="inverse", index=7), 7), fault_at(Skip("inverse", 7), 7)
    ('it names entry 7, which is not before it', None)
    """
    if isinstance(steering, Attest) and steering.size > index:
        return f"it attests size {steering.size}, which is not before it"
    if isinstance(steering, Retry) and steering.index is not None and steering.index >= index:
        return f"it names entry {steering.index}, which is not before it"
    if isinstance(steering, Activate) and steering.since is not None and steering.since > index:
        return f"it goes back to entry {steering.since}, which is not before it"
    return None


def refused_at(body: dict[str, Any], index: int) -> str | None:
    """Return why a control entry of this body must not be entry `index`, or None.

    Other kinds, and what cannot be read here (`tools.door` lets nobody bring it in), steer nothing.
    """
    try:
        steering = parse_steering(body)
    except FormatError:
        return None
    fault = None if steering is None else fault_at(steering, index)
    return None if fault is None else f"control entry {body['control']!r}, as entry {index}: {fault}"


def steering_body(steering: Steering) -> dict[str, Any]:
    """Return the body of the control entry that says this.

    >>> steering_body(Retry(module="writing"))
    {'control': 'retry', 'module': 'writing'}
    """
    body: dict[str, Any] = msgspec.to_builtins(steering)
    return body
