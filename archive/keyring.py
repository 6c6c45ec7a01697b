"""The keys of a log, one after the other: which of them signs the checkpoint of a given size.  Pure.

A log changes its key by saying so in the log.  The entry is signed by both keys: the old one admits its successor,
and the new one shows that somebody holds it.

    {"control": "rotate", "old": vkey, "new": vkey, "old_signature": base64, "new_signature": base64}

If that entry has index i, checkpoints up to size i + 1 are signed by the old key, and all larger ones by the new one.
So whoever knows the first key only can follow: the checkpoint of size i + 1, which he can check, covers the entry that
names the next key.  That takes one such checkpoint, hence the entry ends its block.

>>> from merkle import Ed25519Signer
>>> old, new = (Ed25519Signer("example.org/log", bytes([n]) * 32) for n in (1, 2))
>>> ring = KeyRing(old.verifier)
>>> ring.learn(17, rotation_body(17, old, new))
>>> ring.at(18) == old.verifier, ring.at(19) == new.verifier
(True, True)

How a log is made to rotate: `archive.rotation`.  Layout: docs/formats/entry.md, control entries.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Final

from archive.entry import LEAF_CONTROL, control_body, parse_leaf
from archive.errors import IntegrityError
from archive.log import Log
from merkle import Checkpoint, Ed25519Signer, Ed25519Verifier, Note, NoteError, open_checkpoint

ROTATE: Final = "rotate"


def rotation_statement(index: int, old: Ed25519Verifier, new: Ed25519Verifier) -> bytes:
    """Return what both keys sign.  It is no checkpoint and no cosigned message: its third line is no root."""
    return f"treering/rotate/v1\n{old.name}\n{index}\n{old.encode()}\n{new.encode()}\n".encode()


def rotation_body(index: int, old: Ed25519Signer, new: Ed25519Signer) -> dict[str, str]:
    """Return the body of the entry at `index` by which a log changes its key."""
    statement = rotation_statement(index, old.verifier, new.verifier)
    return {
        "control": ROTATE,
        "old": old.verifier.encode(),
        "new": new.verifier.encode(),
        "old_signature": b64encode(old.sign(statement)).decode(),
        "new_signature": b64encode(new.sign(statement)).decode(),
    }


def read_rotation(index: int, body: dict[str, Any]) -> tuple[Ed25519Verifier, Ed25519Verifier]:
    """Return old and new key of the rotation at `index`; raise IntegrityError unless both have signed it."""
    try:
        old, new = (Ed25519Verifier.decode(str(body[name])) for name in ("old", "new"))
        by_old, by_new = (
            b64decode(str(body[name]), validate=True) for name in ("old_signature", "new_signature")
        )
    except (KeyError, ValueError, NoteError) as error:
        raise IntegrityError(f"entry {index}: not a rotation of keys: {error}") from None
    statement = rotation_statement(index, old, new)
    if old.name != new.name or not (old.verify(statement, by_old) and new.verify(statement, by_new)):
        raise IntegrityError(f"entry {index}: a rotation of keys that both keys did not sign")
    return old, new


class KeyRing:
    """The keys of a log as far as its entries were read: `learn` each control entry, in the order of the log."""

    def __init__(self, first: Ed25519Verifier) -> None:
        self.keys: list[tuple[int, Ed25519Verifier]] = [(0, first)]
        """(smallest size of a checkpoint that it signs, key), in order."""

    @property
    def current(self) -> Ed25519Verifier:
        """The last key."""
        return self.keys[-1][1]

    def at(self, size: int) -> Ed25519Verifier:
        """Return the key that must have signed the checkpoint of a size."""
        return self.keys[bisect_right(self.keys, size, key=lambda one: one[0]) - 1][1]

    def open(self, note: bytes) -> Checkpoint:
        """Return the checkpoint in a note; raise MerkleError unless the key of its size has signed it."""
        size = Checkpoint.decode(Note.decode(note).text).size
        return open_checkpoint(note, self.at(size))

    def check(self, index: int, body: dict[str, Any]) -> None:
        """Raise IntegrityError if a control entry is a rotation that is not sound, or that the ring does not have."""
        if body.get("control") == ROTATE and (self.at(index + 1), self.at(index + 2)) != read_rotation(
            index, body
        ):
            raise IntegrityError(f"entry {index}: a rotation of keys, which the checkpoints do not follow")

    def learn(self, index: int, body: dict[str, Any]) -> None:
        """Take in the body of a control entry; only rotations matter.

        Raises IntegrityError for a rotation that is not signed by both keys, does not begin at the current key,
        or brings back an earlier one.
        """
        if body.get("control") != ROTATE:
            return
        old, new = read_rotation(index, body)
        if old != self.current:
            raise IntegrityError(f"entry {index}: it rotates away from a key that is not the log's")
        if any(new == key for _, key in self.keys):
            raise IntegrityError(f"entry {index}: it rotates back to a key that the log has given up")
        self.keys.append((index + 2, new))


def ring_of(log: Log, known: Ed25519Verifier) -> KeyRing:
    """Return the keys of a log for somebody who knows one of them, the first or a later one.

    Where the known key is not the first, the ones before it are taken from the log that it has signed.  Unless the
    known key has signed the first and the last checkpoint (a key never comes back), all leaves are read.  Raises
    IntegrityError if a rotation is not sound, or none of the log's keys is the known one; `KeyRing.check` finds a
    rotation that the checkpoints do not follow.
    """
    if log.size and _signed_all(log, known):
        return KeyRing(known)
    rotations = list(rotations_of(log.leaves(0, log.size)))
    ring = KeyRing(read_rotation(*rotations[0])[0] if rotations else known)
    for index, body in rotations:
        ring.learn(index, body)
        if log.covering(index)[0] != index + 1:
            raise IntegrityError(f"entry {index}: a rotation of keys that does not end its block")
    if all(known != key for _, key in ring.keys):
        raise IntegrityError(f"the log was never signed by {known.encode()}")
    return ring


def _signed_all(log: Log, known: Ed25519Verifier) -> bool:
    """Tell whether first and last checkpoint name the known key."""
    ids = {_key_id(note) for _, note in (log.covering(0), log.checkpoint())}
    return ids == {known.key_id} and next_key_id(log) == known.key_id


def _key_id(note: bytes) -> bytes | None:
    """Return the id of the key by which a log signed its checkpoint: of the signature that has the log's name."""
    try:
        found = Note.decode(note)
        origin = found.text.partition("\n")[0]
        return next((one.key_id for one in found.signatures if one.name == origin), None)
    except NoteError:
        return None


def rotations_of(leaves: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index, body) of each rotation among the leaves."""
    for index, leaf in leaves:
        if leaf[1:2] == bytes((LEAF_CONTROL,)):
            body = control_body(parse_leaf(leaf))
            if body.get("control") == ROTATE:
                yield index, body


def next_key_id(log: Log) -> bytes | None:
    """Return the id of the key that must sign the next checkpoint, or None for an empty log.

    It is that of the last checkpoint, unless the last entry rotates.
    """
    if log.size == 0:
        return None
    for index, body in rotations_of([(log.size - 1, log.leaf(log.size - 1))]):
        return read_rotation(index, body)[1].key_id
    if (signer := _key_id(log.checkpoint()[1])) is None:
        raise IntegrityError(f"the checkpoint of size {log.size} is no signed note; run verify-log")
    return signer
