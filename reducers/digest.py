r"""One hash for all states: the RFC 6962 root over the states in the order of their keys.

Each state is a leaf that says which reducer (name, version), which key, which encoding, and whether and
where the key is quarantined.  The leaves are sorted by (name, version, key) before they are hashed, so the
root is that of a *set*: however many shards hold the states, the union has one digest.  And as it is a
Merkle tree, who holds the hashes of two replicas finds the states in which they differ.

>>> ann = StatePair("total", 1, ("ann",), b"7")
>>> bob = StatePair("total", 1, ("bob",), b"9", error_index=41)
>>> state_digest([bob, ann]) == state_digest([ann, bob])
True
>>> leaf_data(ann)
b'treering/state/v1\x00\x00\x00\x00\x05total\x00\x00\x00\x01\x00\x01\x00\x00\x00\x03ann\x007'

Byte by byte: docs/formats/state.md.  When digests are attested in the log is the business of `replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from merkle import leaf_hash, root_of
from reducers.base import Key, Reducer
from reducers.fold import Slot

S = TypeVar("S")
Identity = tuple[str, int, Key]

_DOMAIN = b"treering/state/v1\0"


@dataclass(frozen=True, slots=True)
class StatePair:
    """A state with all that its hash commits to; of a quarantined key, the last good state."""

    name: str
    version: int
    key: Key
    encoding: bytes
    error_index: int | None = None

    @property
    def identity(self) -> Identity:
        """By what pairs are told apart and sorted: (reducer name, version, key)."""
        return (self.name, self.version, self.key)


def pair_of(reducer: Reducer[S], key: Key, slot: Slot[S]) -> StatePair:
    """Return what `slot` contributes to the digest; raise StateError where its state has no encoding."""
    return StatePair(reducer.name, reducer.version, key, reducer.encode(slot.state), slot.error_index)


def leaf_data(pair: StatePair) -> bytes:
    """Return the canonical bytes of a pair (docs/formats/state.md, "Leaf data")."""
    parts = [_DOMAIN, _string(pair.name), pair.version.to_bytes(4, "big"), len(pair.key).to_bytes(2, "big")]
    parts += [_string(each) for each in pair.key]
    parts.append(b"\0" if pair.error_index is None else b"\1" + pair.error_index.to_bytes(8, "big"))
    parts.append(pair.encoding)
    return b"".join(parts)


def entry_digest(pair: StatePair) -> bytes:
    """Return the 32-byte leaf hash of one pair (RFC 6962, 2.1)."""
    return leaf_hash(leaf_data(pair))


def state_digest(pairs: Iterable[StatePair]) -> bytes:
    """Return the 32-byte digest of a set of states, in whatever order they come.

    Raises ValueError where two pairs have one identity: then two shards claim the same key.
    """
    digests: dict[Identity, bytes] = {}
    for pair in pairs:
        if pair.identity in digests:
            raise ValueError(f"two states for one key: {pair.identity}")
        digests[pair.identity] = entry_digest(pair)
    return digest_of_entries(digests)


def digest_of_entries(digests: Mapping[Identity, bytes]) -> bytes:
    """Return the state digest, given the entry digests: for who keeps those of unchanged states.

    Python compares strings by code points, which is the order of their UTF-8 bytes.
    """
    return root_of([digests[identity] for identity in sorted(digests)])


def _string(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(4, "big") + encoded
