"""What counts as published to the outside: the newest checkpoint that enough witnesses have cosigned.

Inside, an event is acknowledged as soon as it is on disk under a signed checkpoint.  Outside, where a policy is
configured, the log is shown up to the last checkpoint that met it, and no further: whoever reads there can then be
sure that others see the same log.  So the outside lags behind by a round trip to the witnesses, and by as long as too
many of them are down; the inside does not wait.

    target = Target.newest(log)                 the checkpoint to be cosigned in this round
    target.request(log, old)                    what to send to a witness that remembers the size `old`
    target.add("north", signatures)             what it answered
    target.note(policy)                         the cosigned checkpoint, once the policy is met
    shown_outside(log, path, policy)            what the outside may see, whoever shows it: the server or an export

All witnesses of a round are asked about one checkpoint, or a busy log would collect one cosignature each on many.
Nothing here waits or sends: `tools.witnessing` does.  The policy: `merkle.policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from archive.errors import NotFound
from archive.files import write_whole
from archive.log import Log
from merkle import (
    AddCheckpoint,
    Checkpoint,
    MerkleError,
    Note,
    NoteError,
    Policy,
    Signature,
    UnknownKeyError,
    open_note,
    prove_consistency,
)


class Target:
    """A checkpoint of ours and the cosignatures that came in for it."""

    def __init__(self, note: bytes) -> None:
        self._note = Note.decode(note)
        self.checkpoint = Checkpoint.decode(self._note.text)
        self.signatures: dict[str, Sequence[Signature]] = {}
        """By the witness's name in the policy."""

    @staticmethod
    def newest(log: Log) -> Target:
        """Return the newest checkpoint of a log as a target; raise NotFound for an empty log."""
        return Target(log.checkpoint()[1])

    @property
    def size(self) -> int:
        """Size of the log at this checkpoint."""
        return self.checkpoint.size

    def request(self, log: Log, old: int) -> bytes:
        """Return the body of an add-checkpoint request to a witness that remembers `old` entries, at most `size`."""
        proof = prove_consistency(old, self.size, log.read_nodes)
        return AddCheckpoint(old, tuple(proof), self._note.encode()).encode()

    def add(self, witness: str, signatures: Sequence[Signature]) -> None:
        """Take in what a witness answered; its signatures have been verified over `checkpoint`."""
        self.signatures[witness] = signatures

    def note(self, policy: Policy) -> bytes | None:
        """Return the checkpoint with all cosignatures, or None while they do not meet the policy."""
        if not policy.met(self.signatures.keys()):
            return None
        cosignatures = [one for name in sorted(self.signatures) for one in self.signatures[name]]
        return Note(self._note.text, (*self._note.signatures, *cosignatures)).encode()


def read_cosigned(
    path: Path, origin: str | None = None, policy: Policy | None = None
) -> tuple[int, bytes] | None:
    """Return (size, note) of the last checkpoint of a log that met the policy, or None before the first.

    A restored log may have a new origin; what was cosigned of the old one says nothing about it.  Nor does what met
    another policy than the one that is in force now: give that one where somebody relies on it.
    """
    try:
        note = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        checkpoint = Target(note).checkpoint
    except MerkleError:
        # It is written whole.  What else it may be, it is not a checkpoint that met the policy.
        return None
    ours = origin in {None, checkpoint.origin} and (policy is None or _meets(note, policy))
    return (checkpoint.size, note) if ours else None


@lru_cache(maxsize=8)  # it is asked for at every look from outside, and changes a few times a second at most
def _meets(note: bytes, policy: Policy) -> bool:
    try:
        opened = open_note(note, [one.verifier for one in policy.witnesses])
    except UnknownKeyError:
        return policy.met(set())
    except NoteError:
        return False
    return policy.met({one.name for one in policy.cosigned(opened.verified)})


def shown_outside(log: Log, path: Path, policy: Policy | None) -> tuple[int, bytes]:
    """Return (size, note) of what the outside may see of a log: all of it or, with a policy, what last met that.

    `path` is where what met a policy is written.  Raises NotFound while there is nothing to be seen.
    """
    size, newest = log.checkpoint()
    if policy is None:
        return size, newest
    found = read_cosigned(path, Target(newest).checkpoint.origin, policy)
    if found is None:
        raise NotFound("no checkpoint was cosigned by enough witnesses yet; ask again later")
    return found


def write_cosigned(path: Path, target: Target, policy: Policy) -> bool:
    """Publish a target that meets the policy, durably, unless a larger one is; return whether it was written."""
    note, last = target.note(policy), read_cosigned(path, target.checkpoint.origin, policy)
    if note is None or (last is not None and last[0] > target.size):
        return False
    write_whole(path, note)
    return True
