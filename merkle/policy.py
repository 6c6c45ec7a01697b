r"""Whom to believe: which logs, which witnesses, and how many of them (C2SP tlog-policy).

    log example.com/log+4d1c8a7b+AYk...
    witness north witness.example/n+9e07b2c1+BOv... https://witness.example/n
    witness south witness.example/s+5893dc2c+BtM...
    witness east  witness.example/e+11ab02d3+BJ3...
    group two-of-three 2 north south east
    quorum two-of-three

A group counts as having witnessed a checkpoint if k of its members have; a member is a witness or a group above
it, so that evaluating the lines from top to bottom needs no recursion and there can be no circle.  No name is a
member twice: nobody counts for more than one.

>>> policy = Policy.parse(b"quorum none\n")
>>> policy.met(set())
True

Names are octets to the specification; here they are text that keeps octets which are not UTF-8 as lone
surrogates.  What is refused is refused with its line.  What a cosignature says is `merkle.cosignature`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from merkle.checkpoint import Checkpoint
from merkle.cosignature import CosignatureVerifier, cosigned_at
from merkle.errors import FormatError, NoteError, SignatureError
from merkle.note import Signature, Verifier, open_note
from merkle.text import parse_decimal
from merkle.vkey import LOG_TYPES, WITNESS_TYPES, AnyVerifier, decode_vkey

NONE = "none"
"""The quorum that needs nobody; no witness and no group may be called so."""

_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_SPACES = re.compile("[ \t]+")


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log whose checkpoints are believed; its key is named after its origin."""

    verifier: AnyVerifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A witness under the name that this policy gives it; `url` is its submission prefix."""

    name: str
    verifier: CosignatureVerifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """At least `threshold` of the members: witnesses, or groups defined before."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Logs, witnesses, groups in the order of their definition, and the name that must have witnessed."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str

    @staticmethod
    def parse(data: bytes) -> Policy:
        """Return the policy in a file; FormatError that names the line for anything that it should not hold."""
        reading = _Reading()
        for number, line in _lines(data):
            try:
                reading.line(line)
            except (FormatError, NoteError) as error:
                raise FormatError(f"line {number}: {error}") from None
        if reading.quorum is None:
            raise FormatError("there is no quorum line; without witnesses it is: quorum none")
        return Policy(tuple(reading.logs), tuple(reading.witnesses), tuple(reading.groups), reading.quorum)

    @property
    def asks_nobody(self) -> bool:
        """Whether a checkpoint counts without any witness."""
        return self.quorum == NONE

    def cosigned(self, verified: Sequence[Signature]) -> tuple[Cosigned, ...]:
        """Return which witnesses made these verified signatures, and when; one that states no time counts as none.

        Whose time is 0 has not said that it checked anything (C2SP tlog-cosignature): `merkle.witness` refuses it, too.
        """
        names = {(one.verifier.name, one.verifier.key_id): one.name for one in self.witnesses}
        return tuple(
            Cosigned(names[key], time_s)
            for one in verified
            if (key := (one.name, one.key_id)) in names and (time_s := cosigned_at(one))
        )

    def met(self, cosigned: AbstractSet[str]) -> bool:
        """Tell whether witnesses of these names (and no others) make up the quorum."""
        good = {NONE, *cosigned}
        for group in self.groups:
            if len(good.intersection(group.members)) >= group.threshold:
                good.add(group.name)
        return self.quorum in good


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness that signed: its name in the policy, and when it says it did (seconds since 1970)."""

    name: str
    time_s: int


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """A checkpoint that one of the policy's logs signed; who cosigned it; whether that is enough."""

    checkpoint: Checkpoint
    log: Verifier
    cosigned: tuple[Cosigned, ...]
    met: bool


def check_policy(note: bytes, policy: Policy, logs: Sequence[Verifier] = ()) -> PolicyCheck:
    """Return what a policy says to a signed checkpoint: who signed it, and whether the quorum is met.

    `logs` are further log keys, known from elsewhere; signatures of keys that nobody named are passed over.
    Raises NoteError if the note is malformed, SignatureError if no known log has signed it, a known key's
    signature does not fit, or the key that signed is another log's; FormatError if it is no checkpoint.
    """
    origins = {(log.name, log.key_id): log for log in (*(log.verifier for log in policy.logs), *logs)}
    opened = open_note(note, [*(one.verifier for one in policy.witnesses), *origins.values()])
    checkpoint = Checkpoint.decode(opened.text)
    keys = [(signature.name, signature.key_id) for signature in opened.verified]
    signed = [origins[key] for key in keys if key in origins and key[0] == checkpoint.origin]
    if not signed:
        raise SignatureError(f"no log of the policy has signed this checkpoint of {checkpoint.origin!r}")
    cosigned = policy.cosigned(opened.verified)
    return PolicyCheck(checkpoint, signed[0], cosigned, policy.met({one.name for one in cosigned}))


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, having refused what no line may hold."""
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if found := _FORBIDDEN.search(line):
            raise FormatError(f"line {number}: control character {found[0].hex()}; only tabs are allowed")
        yield number, line.decode(errors="surrogateescape").strip(" \t")
    if rest:
        raise FormatError(f"line {len(lines) + 1}: it does not end in a newline; the file may be cut off")


class _Reading:
    """A policy as far as it was read."""

    def __init__(self) -> None:
        self.logs: list[PolicyLog] = []
        self.witnesses: list[PolicyWitness] = []
        self.groups: list[PolicyGroup] = []
        self.quorum: str | None = None
        self._members: set[str] = set()

    def line(self, line: str) -> None:
        """Take in one line."""
        if not line or line.startswith("#"):
            return
        word, *items = _SPACES.split(line)
        kinds: dict[str, tuple[str, int, int, Callable[..., None]]] = {
            "log": ("log <vkey> [<url>]", 1, 2, self._log),
            "witness": ("witness <name> <vkey> [<url>]", 2, 3, self._witness),
            "group": ("group <name> <k, all or any> <member>...", 3, len(items), self._group),
            "quorum": ("quorum <name>", 1, 1, self._quorum),
        }
        if word not in kinds:
            raise FormatError(f"{word[:40]!r} starts no line; {', '.join(kinds)} do")
        form, least, most, read = kinds[word]
        if not least <= len(items) <= most:
            raise FormatError(f"expected: {form}")
        read(*items)

    def _log(self, vkey: str, url: str | None = None) -> None:
        verifier = decode_vkey(vkey, LOG_TYPES)
        _refuse_twice(verifier, [log.verifier for log in self.logs])
        self.logs.append(PolicyLog(verifier, url))

    def _witness(self, name: str, vkey: str, url: str | None = None) -> None:
        self._refuse_known(name)
        verifier = decode_vkey(vkey, WITNESS_TYPES)
        assert isinstance(verifier, CosignatureVerifier), "a witness's types are cosignatures"
        _refuse_twice(verifier, [witness.verifier for witness in self.witnesses])
        self.witnesses.append(PolicyWitness(name, verifier, url))

    def _group(self, name: str, threshold: str, *members: str) -> None:
        self._refuse_known(name)
        for member in members:
            if member not in self._names():
                raise FormatError(f"{member!r} is no witness or group of a line above")
            if member in self._members:
                raise FormatError(f"{member!r} is a member already; nobody counts twice")
            self._members.add(member)
        words = {"any": 1, "all": len(members)}
        k = words[threshold] if threshold in words else parse_decimal(threshold, limit=len(members) + 1)
        if not k:
            raise FormatError(f"a group of {len(members)} needs all, any or 1 to {len(members)} of them")
        self.groups.append(PolicyGroup(name, k, members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise FormatError("there is a quorum line above; a policy has one")
        if name != NONE and name not in self._names():
            raise FormatError(f"{name!r} is no witness or group of a line above")
        self.quorum = name

    def _names(self) -> set[str]:
        return {one.name for one in self.witnesses} | {one.name for one in self.groups}

    def _refuse_known(self, name: str) -> None:
        if name == NONE or name in self._names():
            raise FormatError(f"{name!r} is taken; witnesses and groups need names of their own")


def _refuse_twice(verifier: AnyVerifier, others: Sequence[AnyVerifier]) -> None:
    """Refuse a key that is there already, be it under another name: one key is one witness, or one log."""
    for other in others:
        if other.public_key == verifier.public_key:
            raise FormatError(f"the key of {verifier.name!r} is that of {other.name!r}")
