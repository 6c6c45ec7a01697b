"""Attesting: what the states come to is written into the log, so that whoever differs is found.

At certain sizes, 1,000, 2,000 … 9,000, 10,000, 20,000 and so on, each shard stops for a moment, notes the digest of
every state it holds, and goes on.  When all shards of a module have done so, one of them joins the digests to that
of each reducer (`reducers.digest`) and appends an attestation.  The sizes depend on nothing but the size, so that none
causes another, and replicas attest at the same places.

>>> [size for size in range(1, 25_000) if is_attested(size)]
[1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 20000]
>>> next_attested(9_500), next_attested(10_000)
(10000, 20000)

An attestation that is there already is compared instead: a difference is a finding about the reducer, which is not
deterministic, or about a machine.  States into which a later skip or retry has entered are attested no more.

Whoever has the payloads can judge every attestation of a log in one replay that stops at these sizes (`judged`).  The
rules stand in docs/formats/state.md.  Where the notes lie: table `attested` of `replay.layout`.  Who calls:
`tools.attester`, `tools.replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from archive import Attest, Store, Write
from reducers import Identity, Key, StatePair, digest_of_entries, entry_digest
from replay.catalogue import ReducerInfo
from replay.layout import SNAPSHOT, own, read_marker, state_key, stored_of
from replay.steering import Change, Gathered

FIRST = 1_000
"""The smallest size that is attested."""
STATES_MIN = 10
"""Fewer states are not attested: who knows a student could try, for one state or two, what hashes to the digest."""


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """What one shard holds of one reducer at a size."""

    steered: int
    """Skips and retries of entries 0…steered-1 are in it."""
    digests: list[tuple[tuple[str, ...], bytes]]
    """(key, entry digest) of each state."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Noted).decode


Verdict = Literal["equal", "superseded", "erased", "different"]


class Judged(NamedTuple):
    """An attestation, and what a replay says of it."""

    at: int
    """Index of the entry."""
    attested: Attest
    found: Attest
    """What a replay to that size came to."""
    verdict: Verdict
    """*superseded*: entry `by`, a skip or a retry, entered into what was attested, or takes back how it came about.
    *erased*: it counted entries of people who are not in the vault any more, so nobody can tell."""
    by: int | None = None


class Difference(NamedTuple):
    """An attestation in the log that these states contradict."""

    at: int
    """Index of the entry."""
    attested: Attest
    found: Attest


def is_attested(size: int) -> bool:
    """Return whether states are attested at this size: one digit and zeros, 1,000 or more."""
    return size >= FIRST and size % 10 ** (len(str(size)) - 1) == 0


def next_attested(size: int) -> int:
    """Return the first size after `size` at which states are attested."""
    if size < FIRST:
        return FIRST
    step: int = 10 ** (len(str(size)) - 1)
    return (size // step + 1) * step


def note_key(name: str, size: int) -> bytes:
    """Return the database key of a reducer's note at a size."""
    return name.encode() + b"\0" + size.to_bytes(8)


def take_note(store: Store, reducers: Iterable[ReducerInfo], size: int) -> bool:
    """Note the digest of every state in a store that stands at `size`; return whether it does.

    Raises StateError where a state or the store cannot be read: that is the module's trouble, not its worker's.
    """
    writes = []
    with own(store, ""), store.view() as view:
        marker = read_marker(view.get("meta", SNAPSHOT))
        if marker is None or marker.position != size:
            return False
        for info in reducers:
            noted: list[tuple[Key, bytes]] = []
            prefix = state_key(info.name, ())
            for data, value in view.scan("states", prefix):
                if not data.startswith(prefix):
                    break
                if (slot := stored_of(info.name, value)) is not None:
                    pair = StatePair(info.name, slot.version, slot.key, slot.encoding, slot.error_index)
                    noted.append((slot.key, entry_digest(pair)))
            data = _encode(Noted(marker.steered, noted))
            writes.append(Write("attested", note_key(info.name, size), data))
    with own(store, ""):
        store.commit(writes)
    return True


def notes(store: Store) -> list[int]:
    """Return the sizes of which a store holds notes, ascending; raise StateError if it cannot be read."""
    with own(store, "") as whole, whole.view() as view:
        return sorted({int.from_bytes(data[-8:]) for data, _ in view.scan("attested")})


def forget_note(store: Store, size: int) -> None:
    """Remove the notes of one size."""
    with store.view() as view:
        gone = [data for data, _ in view.scan("attested") if int.from_bytes(data[-8:]) == size]
    if gone:
        store.commit([Write("attested", data, None) for data in gone])


def passed_by(store: Store, size: int) -> bool:
    """Return whether a shard has gone beyond a size without a note of it, so that there will be none any more.

    It noted and forgot, or the note was lost; either way, nobody need wait for it.
    """
    with store.view() as view:
        marker = read_marker(view.get("meta", SNAPSHOT))
        noted = any(int.from_bytes(data[-8:]) == size for data, _ in view.scan("attested"))
    return marker is not None and marker.position > size and not noted


class Joined(NamedTuple):
    """What all shards hold of one reducer at a size."""

    attest: Attest
    steered: int
    """How far the shard that has read furthest has read what steers."""


def joined(stores: Sequence[Store], info: ReducerInfo, size: int) -> Joined | None:
    """Return what all shards' notes come to for one reducer, or None while one is missing."""
    digests: dict[Identity, bytes] = {}
    steered = size
    for store in stores:
        with store.view() as view:
            value = view.get("attested", note_key(info.name, size))
        if value is None:
            return None
        noted = _decode(value)
        digests |= {(info.name, info.version, key): digest for key, digest in noted.digests}
        steered = max(steered, noted.steered)
    digest = digest_of_entries(digests).hex()
    attest = Attest(size, info.name, info.version, info.code_digest, len(digests), digest)
    return Joined(attest, steered)


def compared(steering: Gathered, found: Attest) -> Attest | Difference | None:
    """Return what is to be done: append it, report a difference, or nothing.

    `steering` must have been read as far as any of the shards had read it (`Joined.steered`): of two that noted at one
    size, one may have a later skip in its states, and the other not.
    """
    if any(_enters(change, found) for change in steering.changes(found.size)):
        return None
    said = steering.attested(found)
    if said is None:
        return found if found.states >= STATES_MIN else None
    index, attested = said
    return None if attested == found else Difference(index, attested, found)


def judged(
    steering: Gathered, at: int, attested: Attest, digests: Mapping[Identity, bytes], *, erased: int
) -> Judged:
    """Hold an attestation at entry `at` against what a replay came to that read no further than its size.

    `digests` are the entry digests of the reducer's states, `steering` that of the whole log, `erased` how many entries
    could not be read.  An attestation that is equal needs no excuse; one that is not has three.
    """
    found = msgspec.structs.replace(attested, states=len(digests), digest=digest_of_entries(digests).hex())
    if found == attested:
        return Judged(at, attested, found, "equal")
    for change in steering.changes(attested.size):
        # A worker may have read a skip ahead; a retry says that the event was not to blame, hence that it may differ.
        if _enters(change, attested) and (change.at < at or not change.skip):
            return Judged(at, attested, found, "superseded", change.at)
    return Judged(at, attested, found, "erased" if erased else "different")


def _enters(change: Change, one: Attest) -> bool:
    """Return whether a skip or a retry is about the states that are attested."""
    return change.reducer == one.reducer and change.event < one.size
