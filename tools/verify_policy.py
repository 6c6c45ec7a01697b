"""What a policy says to a log that is checked: whose log it must be, and who must have cosigned what is shown.

A policy may name logs.  Then the log must be one of them: it is checked with the key on that line, as if it had been
given with `--vkey`, and a copy of any other log is refused, however well its own key and the witnesses have signed it.
A log that changed its key is followed from whichever key the policy names.  A policy without `log` lines says nothing
about logs; then the auditor must bring the key.

    known = key_of(policy, note)              None: the policy names no key of this log
    checked = quorum(note, policy, keys)      a checkpoint, or the finding

How a policy is read and counted: `merkle.policy`.  Who asks: `tools.verify_folder`, `tools.verify_public`.
"""

from __future__ import annotations

from archive import Finding, KeyRing, Keys, OneKey
from merkle import (
    Checkpoint,
    Ed25519Verifier,
    MerkleError,
    Note,
    Policy,
    PolicyCheck,
    SignatureError,
    Verifier,
    check_policy,
    key_label,
)


def key_of(policy: Policy | None, note: bytes) -> Ed25519Verifier | None:
    """Return the key of a checkpoint's log that a policy names: if it names several, rather one that has signed this.

    None if there is none of Ed25519, with which logs sign; nothing is checked here yet.
    """
    try:
        opened = Note.decode(note)
        origin = Checkpoint.decode(opened.text).origin
    except MerkleError:  # a finding of those who look at checkpoints
        return None
    named = [] if policy is None else [one.verifier for one in policy.logs if one.verifier.name == origin]
    keys = [key for key in named if isinstance(key, Ed25519Verifier)]
    signed = {one.key_id for one in opened.signatures}
    return next((key for key in keys if key.key_id in signed), keys[0] if keys else None)


def quorum(note: bytes, policy: Policy, keys: Keys) -> Checkpoint | Finding:
    """Return the checkpoint in a note if a log of the policy and enough witnesses have signed it, else the finding."""
    try:
        checkpoint = keys.open(note)
        signed = _checked(note, policy, _ours(policy, keys, checkpoint.size), checkpoint.origin)
    except MerkleError as error:
        return Finding("quorum", None, str(error), "signature")
    if signed.met:
        return checkpoint
    names = ", ".join(one.name for one in signed.cosigned) or "none"
    detail = f"size {checkpoint.size}: the witnesses that signed ({names}) are not enough for the policy"
    return Finding("quorum", None, detail, "missing")


def cosigned_size(policy: Policy, checkpoint: Checkpoint) -> int | None:
    """Return up to which size a checkpoint that met the policy is cosigned; None if the policy asks for nobody."""
    return None if policy.asks_nobody else checkpoint.size


def _checked(note: bytes, policy: Policy, ours: list[Verifier], origin: str) -> PolicyCheck:
    """Return what a policy says to a note; raise a SignatureError that says whose log it is, if it is a stranger's."""
    try:
        return check_policy(note, policy, ours)
    except SignatureError:
        if ours:
            raise
        named = ", ".join(key_label(one.verifier) for one in policy.logs)
        why = f"it names {named}" if named else "it names no log at all: bring the log's key with --vkey"
        raise SignatureError(f"the policy names no key of this log, {origin!r}; {why}") from None


def _ours(policy: Policy, keys: Keys, size: int) -> list[Verifier]:
    """Return the log's key that signs a size, unless the policy names logs and none of the log's keys is among them."""
    ring = _ring(keys)
    named = {(one.verifier.name, one.verifier.public_key) for one in policy.logs}
    if named and not any((key.name, key.public_key) in named for key in ring):
        return []
    return [keys.at(size)] if isinstance(keys, KeyRing) else [*ring]


def _ring(keys: Keys) -> list[Ed25519Verifier]:
    """Return all keys of the log that are known."""
    if isinstance(keys, KeyRing):
        return [key for _, key in keys.keys]
    known = keys.verifier if isinstance(keys, OneKey) else None
    return [] if known is None else [known]
