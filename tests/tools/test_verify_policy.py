"""verify-log with a policy: whose log it must be, with which key it is checked, and up to where it was cosigned."""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import pytest

from archive import DataFolder, Log, load_size
from merkle import Cosigner, Ed25519Signer, Ed25519Verifier, Note, sign_note
from tests.api.front import Front
from tests.world import event
from tools import export, keys, verify_log

WITNESS = Cosigner("witness.example.org/w", b"w" * 32)
ASKED = f"witness w {WITNESS.verifier.encode()}\nquorum w\n"


class Kept(NamedTuple):
    """A log that changed its key once, of which a witness has cosigned a beginning."""

    data: Path
    public: Path
    first: str
    """Its first verifier key."""
    vkey: str
    """Its verifier key now."""
    size: int
    cosigned: int
    """Up to which size the witness has cosigned."""

    @property
    def places(self) -> tuple[Path, Path]:
        """The data folder, and the exported tiles."""
        return self.data, self.public


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Return such a log; what is exported ends where the witness stands."""
    path = tmp_path_factory.mktemp("kept")
    front = Front(path / "data")
    front.archiver.step([event("ann"), event("bob")])
    front.close()
    folder = DataFolder(path / "data")
    first = folder.signer(os.urandom).verifier.encode()
    note, cosigned = newest(folder)
    folder.cosigned.write_bytes(with_witness(note))
    folder.policy.write_text(ASKED)
    assert export.main(["tiles", str(path / "public"), "--data", str(folder.path)]) == 0
    assert keys.main(["rotate", "--data", str(folder.path)]) == 0
    vkey = folder.signer(os.urandom).verifier.encode()
    return Kept(folder.path, path / "public", first, vkey, newest(folder)[1], cosigned)


def newest(folder: DataFolder) -> tuple[bytes, int]:
    """Return the last checkpoint of a log, signed, and its size."""
    store = folder.open_log()
    with store.view() as view:
        size = load_size(view)
        note = Log(view, size).checkpoint()[1]
    store.close()
    return note, size


def with_witness(note: bytes) -> bytes:
    """Return a signed checkpoint with the witness's signature behind the log's."""
    alone = sign_note(Note.decode(note).text, [WITNESS.at(1_700_000_000)])
    return note + alone.partition(b"\n\n")[2]


def stranger(kept: Kept) -> str:
    """Return a key under the log's name that was never the log's."""
    return Ed25519Signer(Ed25519Verifier.decode(kept.vkey).name, b"s" * 32).verifier.encode()


class Said(NamedTuple):
    """What the command answered, to people and to programs."""

    code: int
    out: str
    report: Any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Return a function that runs verify-log over a place with the text of a policy."""

    def command(place: Path, policy: str, *more: object) -> Said:
        (tmp_path / "policy").write_text(policy)
        arguments = [*map(str, (place, "--policy", tmp_path / "policy", *more))]
        code = verify_log.main(arguments)
        shown = capsys.readouterr().out
        assert verify_log.main([*arguments, "--json"]) == code
        return Said(code, shown, json.loads(capsys.readouterr().out))

    return command


def test_a_policy_of_another_log_does_not_let_this_one_pass(kept: Kept, run: Any) -> None:
    """Its witnesses are enough and its own key fits, and still it is not the log that the policy names."""
    other = Ed25519Signer("example.org/other", b"o" * 32).verifier.encode()
    for line in (other, stranger(kept)):
        for place in kept.places:
            for more in ((), ("--vkey", kept.vkey if place == kept.data else kept.first)):
                said = run(place, f"log {line}\n{ASKED}", *more)
                assert (said.code, said.report["verified"]) == (1, False)
                assert "NOT VERIFIED: " in said.out
                found = {one["check"]: one["detail"] for one in said.report["findings"]}
                if more or line == other:
                    assert "the policy names no key of this log" in found["quorum"]
                    assert "+".join(line.split("+")[:2]) in found["quorum"]


@pytest.mark.parametrize("which", ["first", "vkey"])
def test_the_key_on_the_policy_s_line_is_what_the_log_is_checked_with(
    kept: Kept, which: str, run: Any
) -> None:
    """No --vkey is needed beside it; whichever of its keys the policy names, the log itself leads to the others."""
    said = run(kept.data, f"log {getattr(kept, which)}\n{ASKED}")
    assert (said.code, said.report["signatures"]) == (0, True)
    assert "\nverified: " in f"\n{said.out}"
    said = run(kept.public, f"log {kept.first}\n{ASKED}")
    assert (said.code, said.report["signatures"]) == (0, True)


def test_of_several_keys_that_a_policy_names_the_one_that_signed_is_taken(kept: Kept, run: Any) -> None:
    """A policy that outlives a change of key has a line for each; a copy may be from before the change."""
    for lines in (f"log {kept.first}\nlog {kept.vkey}\n", f"log {kept.vkey}\nlog {kept.first}\n"):
        for place in kept.places:
            said = run(place, lines + ASKED)
            assert (said.code, said.report["signatures"]) == (0, True), said.out


def test_an_altered_signature_is_found_with_the_policy_s_key(kept: Kept, run: Any, tmp_path: Path) -> None:
    """The policy's key is used, not only compared: a checkpoint that it did not sign is no checkpoint."""
    public = Path(copytree(kept.public, tmp_path / "public"))
    note = (public / "checkpoint").read_bytes()
    forged = Ed25519Signer(Ed25519Verifier.decode(kept.first).name, b"f" * 32)
    (public / "checkpoint").write_bytes(with_witness(sign_note(Note.decode(note).text, [forged])))
    said = run(public, f"log {kept.first}\n{ASKED}")
    assert (said.code, said.report["findings"][0]["kind"]) == (1, "signature")


def test_a_policy_that_names_no_log_needs_the_key(kept: Kept, run: Any) -> None:
    """Nobody has vouched for the log then: it is said what to bring, and with it all is well."""
    said = run(kept.data, ASKED)
    assert said.code == 1
    assert "bring the log's key with --vkey" in said.report["findings"][0]["detail"]
    assert run(kept.data, ASKED, "--vkey", kept.vkey).code == 0


def test_the_verdict_says_up_to_where_the_log_is_cosigned(kept: Kept, run: Any) -> None:
    """Entries that no witness has seen are signed by the log alone, which could still sign others in their place."""
    said = run(kept.data, f"log {kept.vkey}\n{ASKED}")
    assert kept.cosigned < kept.size
    assert f"verified: {kept.size} entries (cosigned up to {kept.cosigned} only), " in said.out
    assert (said.report["cosigned"], said.report["entries"]) == (kept.cosigned, kept.size)
    said = run(kept.public, f"log {kept.first}\n{ASKED}")
    assert said.out.startswith(f"verified: {kept.cosigned} entries (all cosigned), in public, and no more, ")
    assert said.report["cosigned"] == said.report["entries"] == kept.cosigned


def test_nothing_is_called_cosigned_where_nobody_is_asked(kept: Kept, run: Any) -> None:
    """`quorum none` is met by no witness at all; that is no cosigned log."""
    for place in kept.places:
        said = run(place, f"log {kept.first}\nquorum none\n")
        assert (said.code, said.report["cosigned"]) == (0, None)
        assert "cosigned" not in said.out


def test_too_few_witnesses_are_a_finding(kept: Kept, run: Any) -> None:
    """The one who signed is named, and no size is called cosigned."""
    other = Cosigner("witness.example.org/v", b"v" * 32).verifier.encode()
    policy = f"log {kept.vkey}\nwitness v {other}\nwitness w {WITNESS.verifier.encode()}\n"
    said = run(kept.data, f"{policy}group both all v w\nquorum both\n")
    assert (said.code, said.report["cosigned"]) == (1, None)
    (finding,) = said.report["findings"]
    assert (
        finding["detail"]
        == f"size {kept.cosigned}: the witnesses that signed (w) are not enough for the policy"
    )
