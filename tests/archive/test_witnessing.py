"""What counts as published outside: a checkpoint with enough cosignatures, and never a smaller one after it."""

from __future__ import annotations

from pathlib import Path

from archive import Log, Target, load_size, read_cosigned, write_cosigned
from merkle import (
    AddCheckpoint,
    Checkpoint,
    Cosigner,
    Ed25519Signer,
    Policy,
    Witness,
    check_policy,
    read_cosignatures,
    sign_checkpoint,
)
from tests.archive.site import ORIGIN, SIGNER, Site, event

COSIGNERS = {name: Cosigner(f"witness.example/{name}", name.encode() * 32) for name in "abc"}


def _lines(rest: str) -> bytes:
    witnesses = [f"witness {name} {one.verifier.encode()}\n" for name, one in COSIGNERS.items()]
    return "".join([f"log {SIGNER.verifier.encode()}\n", *witnesses, rest]).encode()


POLICY = Policy.parse(_lines("group two 2 a b c\nquorum two\n"))


class Grown:
    """A log that grows, and three witnesses that remember it."""

    def __init__(self) -> None:
        self.site = Site()
        self.archiver = self.site.start()
        self.memories: dict[str, bytes] = {}

    def target(self) -> Target:
        """Return the newest checkpoint as a target."""
        self.archiver.step([event(b"{}")])
        with self.site.log.view() as view:
            return Target.newest(Log(view, load_size(view)))

    def cosign(self, target: Target, name: str, old: int) -> None:
        """Let a witness that remembers `old` answer a target's request."""
        with self.site.log.view() as view:
            body = target.request(Log(view, target.size), old)
        assert AddCheckpoint.decode(body).old == old
        witness = Witness([SIGNER.verifier], [COSIGNERS[name]])
        answer = witness.decide(body, lambda _: self.memories.get(name), 100)
        assert answer.remember is not None, answer
        self.memories[name] = answer.remember
        target.add(name, read_cosignatures(answer.body, target.checkpoint, [COSIGNERS[name].verifier]))


def test_a_target_is_published_when_its_policy_is_met(tmp_path: Path) -> None:
    """Not with one cosignature, but with two, and with the third as well; what is written meets the policy."""
    grown, path, old = Grown(), tmp_path / "cosigned", 0
    for _ in range(3):
        target = grown.target()
        before = read_cosigned(path, ORIGIN)
        grown.cosign(target, "a", old)
        assert target.note(POLICY) is None
        assert not write_cosigned(path, target, POLICY)
        assert read_cosigned(path, ORIGIN) == before
        for name, count in (("b", 2), ("c", 3)):
            grown.cosign(target, name, old)
            assert write_cosigned(path, target, POLICY)
            found = read_cosigned(path, ORIGIN)
            assert found is not None
            assert found[0] == target.size
            check = check_policy(found[1], POLICY)
            assert (check.met, check.checkpoint, len(check.cosigned)) == (True, target.checkpoint, count)
        old = target.size


def test_what_is_published_never_shrinks(tmp_path: Path) -> None:
    """A witness that answers late cannot bring an older checkpoint back."""
    grown, path = Grown(), tmp_path / "cosigned"
    first = grown.target()
    second = grown.target()
    for name in "ab":
        grown.cosign(first, name, 0)
        grown.cosign(second, name, first.size)
    assert write_cosigned(path, second, POLICY)
    assert not write_cosigned(path, first, POLICY)
    found = read_cosigned(path, ORIGIN)
    assert found is not None
    assert found[0] == second.size


def test_what_met_one_policy_need_not_meet_another(tmp_path: Path) -> None:
    """A note counts by the signatures in it that are of witnesses of the policy in force; false ones are none."""
    grown, path = Grown(), tmp_path / "cosigned"
    target = grown.target()
    for name in "ab":
        grown.cosign(target, name, 0)
    assert write_cosigned(path, target, POLICY)
    three = Policy.parse(_lines("group all 3 a b c\nquorum all\n"))
    assert read_cosigned(path, ORIGIN, POLICY) is not None
    assert read_cosigned(path, ORIGIN, three) is None
    assert read_cosigned(path, ORIGIN, Policy.parse(_lines("quorum c\n"))) is None
    assert read_cosigned(path, ORIGIN, Policy.parse(_lines("quorum none\n"))) is not None
    path.write_bytes(path.read_bytes().replace(b" Z", b" z").replace(b"A", b"B"))
    assert read_cosigned(path, ORIGIN, POLICY) is None


def test_a_stricter_policy_begins_anew(tmp_path: Path) -> None:
    """What an older policy let through, however large, holds up nothing that meets the one in force."""
    grown, path = Grown(), tmp_path / "cosigned"
    first, second = grown.target(), grown.target()
    grown.cosign(first, "a", 0)
    grown.cosign(first, "b", 0)
    assert write_cosigned(path, second, Policy.parse(b"quorum none\n"))
    assert write_cosigned(path, first, POLICY)
    found = read_cosigned(path, ORIGIN, POLICY)
    assert found is not None
    assert found[0] == first.size


def test_a_policy_that_needs_nobody_publishes_what_the_log_signed(tmp_path: Path) -> None:
    """`quorum none` is a policy, too."""
    target, path = Grown().target(), tmp_path / "cosigned"
    policy = Policy.parse(f"log {SIGNER.verifier.encode()}\nquorum none\n".encode())
    assert write_cosigned(path, target, policy)
    found = read_cosigned(path, ORIGIN)
    assert found is not None
    assert check_policy(found[1], policy).met


def test_what_was_cosigned_of_another_log_counts_for_nothing(tmp_path: Path) -> None:
    """A log that was restored under a new origin begins outside with nothing, and grows from there."""
    path, target = tmp_path / "cosigned", Grown().target()
    other = Ed25519Signer("example.org/before", bytes(32))
    path.write_bytes(sign_checkpoint(Checkpoint(other.name, 1_000_000, bytes(32)), other))
    assert read_cosigned(path, ORIGIN) is None
    assert write_cosigned(path, target, Policy.parse(b"quorum none\n"))
    found = read_cosigned(path, ORIGIN)
    assert found is not None
    assert found[0] == target.size


def test_nothing_and_nonsense_count_as_nothing(tmp_path: Path) -> None:
    """Before the first checkpoint that met the policy, nothing is published."""
    assert read_cosigned(tmp_path / "cosigned", ORIGIN) is None
    (tmp_path / "cosigned").write_bytes(b"torn")
    assert read_cosigned(tmp_path / "cosigned", ORIGIN) is None
