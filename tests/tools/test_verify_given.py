"""verify-log and what an auditor brings along: keys, checkpoints, seals, policies, folders of two kinds.

What is wrong with these is no finding about the log, and what was not there is never said to be checked.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any, NamedTuple

import pytest

from archive import DataFolder, Log, Prover, load_size
from merkle import Checkpoint, Cosigner, Ed25519Signer, Ed25519Verifier, key_label, sign_checkpoint
from tests.api.front import Front
from tests.world import event
from tools import export, keys, receipt, verify_log

OTHER = "f" * 64


class Given(NamedTuple):
    """A log that changed its key once, as files."""

    data: Path
    public: Path
    first: str
    """Its first verifier key, as text."""
    vkey: str
    kept: Path
    """A checkpoint from before the change."""
    before: Path
    """A copy of the data folder from before the change."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Return a data folder with four events and a rotation, and its public part."""
    path = tmp_path_factory.mktemp("made")
    front = Front(path / "data")
    front.archiver.step([event("ann"), event("bob"), event("ann"), event("ann")])
    front.close()
    folder = DataFolder(path / "data")
    store, first = folder.open_log(), folder.signer(os.urandom).verifier.encode()
    with store.view() as view:
        (path / "kept").write_bytes(Log(view, load_size(view)).checkpoint()[1])
    store.close()
    copytree(folder.path, path / "before")
    assert keys.main(["rotate", "--data", str(folder.path)]) == 0
    assert export.main(["tiles", str(path / "public"), "--data", str(folder.path)]) == 0
    vkey = folder.signer(os.urandom).verifier.encode()
    return Given(folder.path, path / "public", first, vkey, path / "kept", path / "before")


@pytest.fixture
def given(made: Given, tmp_path: Path) -> Given:
    """Return the same, to be altered."""
    return made._replace(
        data=Path(copytree(made.data, tmp_path / "data")),
        public=Path(copytree(made.public, tmp_path / "public")),
    )


class Said(NamedTuple):
    """What the command answered; `report` is what it says to programs."""

    code: int
    out: str
    error: str
    report: Any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs verify-log for people and for programs."""

    def command(*arguments: object) -> Said:
        capsys.readouterr()
        code = verify_log.main([*map(str, arguments)])
        shown = capsys.readouterr()
        assert verify_log.main([*map(str, arguments), "--json"]) == code
        printed = capsys.readouterr().out
        return Said(code, shown.out, shown.err, json.loads(printed) if printed else None)

    return command


# --- what lies there ---------------------------------------------------------------------------------


def test_tiles_among_a_database_do_not_hide_it(given: Given, run: Any, tmp_path: Path) -> None:
    """A genuine log's tiles in the folder of another one's database: neither is checked in the other's name."""
    forged = tmp_path / "forged"
    front = Front(forged)
    front.archiver.step([event("eve")])
    front.close()
    copytree(given.public, forged, dirs_exist_ok=True)
    said = run(forged, "--vkey", given.vkey)
    assert (said.code, said.out) == (2, "")
    assert "move checkpoint and tile/ to a folder of their own, and check each" in said.error
    for name in ("log", "vault", "keys", "state", "run"):
        rmtree(forged / name)
    assert run(forged, "--vkey", given.vkey).code == 0


def test_the_public_part_is_called_so(given: Given, run: Any) -> None:
    """Blocks, private rows and the seal are not in public: "verified" alone would say that they were checked."""
    said = run(given.public, "--vkey", given.vkey)
    assert (said.code, said.report["public"]) == (0, True)
    assert said.out.startswith(f"verified: {said.report['entries']} entries, in public, and no more, root ")
    said = run(given.data, "--vkey", given.vkey)
    assert (said.code, said.report["public"]) == (0, False)
    assert "blocks, root" in said.out


# --- checkpoints and keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["data", "public"])
def test_a_checkpoint_from_before_a_change_of_key_is_taken(given: Given, where: str, run: Any) -> None:
    """Whichever of the log's keys the auditor knows: the log itself says who followed whom, and both signed that."""
    place = getattr(given, where)
    for vkey in (given.first, given.vkey):
        said = run(place, "--vkey", vkey, "--checkpoint", given.kept)
        assert (said.code, said.report and said.report["findings"]) == (0, []), said.error


@pytest.mark.parametrize("where", ["data", "public"])
def test_a_checkpoint_that_the_key_of_its_size_did_not_sign_is_refused(
    given: Given, where: str, run: Any, tmp_path: Path
) -> None:
    """A key signs nothing of the time before it; whoever has stolen the newest cannot make old checkpoints."""
    newest = DataFolder(given.data).signer(os.urandom)
    stranger = Ed25519Signer(newest.name, b"s" * 32)
    old = Checkpoint.decode(given.kept.read_text().partition("\n\n")[0] + "\n")
    for signer in (newest, stranger):
        (tmp_path / "forged").write_bytes(sign_checkpoint(old, signer))
        said = run(getattr(given, where), "--vkey", given.vkey, "--checkpoint", tmp_path / "forged")
        assert (said.code, said.out) == (2, "")
        assert "--checkpoint: " in said.error


def test_a_kept_checkpoint_of_a_longer_log_is_still_found(given: Given, run: Any, tmp_path: Path) -> None:
    """Signed by the key of its size, and not reached: that is the finding for which it was kept."""
    newest = DataFolder(given.data).signer(os.urandom)
    size = run(given.data).report["entries"] + 5
    (tmp_path / "other").write_bytes(sign_checkpoint(Checkpoint(newest.name, size, bytes(32)), newest))
    for place in (given.data, given.public):
        said = run(place, "--vkey", given.vkey, "--checkpoint", tmp_path / "other")
        assert said.code == 1
        assert {one["check"] for one in said.report["findings"]} == {"kept"}


def label(vkey: str) -> str:
    """Return name and key id of a verifier key."""
    return key_label(Ed25519Verifier.decode(vkey))


def test_a_receipt_under_an_older_key_is_told_from_a_forged_one(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both keys have the log's name: their ids are said, and where the older one is to be had; with it, all is well."""
    store, file = DataFolder(given.data).open_log(), tmp_path / "1.tlog-proof"
    with store.view() as view:
        file.write_bytes(Prover(Log(view, load_size(view))).receipt(1).encode())
    store.close()
    assert receipt.main(["check", str(file), "--vkey", given.vkey]) == 1
    said = capsys.readouterr().err
    assert f"(signed by: {label(given.first)}; known: {label(given.vkey)})" in said
    assert (
        "the log may have had another key then: --vkey again for each that `treering keys history` lists"
        in said
    )
    for more in ([], ["--json"]):
        assert receipt.main(["check", str(file), "--vkey", given.vkey, "--vkey", given.first, *more]) == 0
    stranger = Ed25519Signer(Ed25519Verifier.decode(given.vkey).name, b"s" * 32).verifier.encode()
    capsys.readouterr()
    assert receipt.main(["check", str(file), "--vkey", given.vkey, "--vkey", stranger]) == 1
    tried = ", ".join(sorted(map(label, (given.vkey, stranger))))
    assert f"known: {tried})" in capsys.readouterr().err, "all keys that were tried are named"


def test_a_copy_from_before_a_change_of_key_says_which_key_to_bring(
    given: Given, run: Any, tmp_path: Path
) -> None:
    """The newest key has signed nothing in it, and nothing in it leads there: no reason to suspect the copy."""
    public = tmp_path / "before"
    assert export.main(["tiles", str(public), "--data", str(given.before)]) == 0
    for place in (given.before, public):
        said = run(place, "--vkey", given.vkey)
        assert said.code == 1
        (remark,) = said.report["remarks"]
        assert f"(signed by: {label(given.first)}; known: {label(given.vkey)})" in remark
        assert (
            "of a time when the log had another key: bring that key (treering keys history lists all)"
            in remark
        )
        assert f"note: {remark}" in said.out
        said = run(place, "--vkey", given.first)
        assert (said.code, said.report["remarks"]) == (0, [])


LONG = "a+" * 200


@pytest.mark.parametrize("text", [LONG, LONG.replace("+", "-"), "{binary}"])
def test_what_is_no_key_is_said_to_be_none(
    given: Given, text: str, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of other bytes, a text longer than any file's name: a sentence and exit code 2, in every command."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    vkey = text.format(binary=tmp_path / "binary")
    said = run(given.data, "--vkey", vkey)
    assert (said.code, said.out) == (2, "")
    assert "key" in said.error
    for arguments in (
        ["check", str(given.kept)],
        ["check-complete", str(tmp_path), "--leaves", str(tmp_path)],
    ):
        assert receipt.main([*arguments, "--vkey", vkey]) == 2
        assert "key" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://[::1", "http://", "https://a b:c", "http://a..b/"])
def test_what_is_no_address_is_said_to_be_none(address: str, run: Any) -> None:
    """A slip in an address is no traceback, and not a finding about anybody's log."""
    said = run(address)
    assert (said.code, said.out) == (2, "")
    assert "not an address" in said.error


# --- the seal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [b"", bytes(4_608)])
def test_a_seal_that_holds_nothing_is_no_seal(given: Given, blank: bytes, run: Any, tmp_path: Path) -> None:
    """Beside the log it is said that nothing was held against it; one that the auditor names must hold something."""
    (tmp_path / "blank").write_bytes(blank)
    for path in (tmp_path / "blank", tmp_path / "nowhere"):
        said = run(given.data, "--vkey", given.vkey, "--seal", path)
        assert (said.code, said.out) == (2, "")
        assert "name the log's seal, or leave --seal out" in said.error
    (given.data / "log/0/seal").write_bytes(blank)
    said = run(given.data, "--vkey", given.vkey)
    assert said.code == 0
    (remark,) = said.report["remarks"]
    assert remark.startswith("nothing is sealed in ")


# --- witnesses -----------------------------------------------------------------------------------------


def test_a_policy_that_asks_for_nobody_is_met_by_any_copy(given: Given, run: Any, tmp_path: Path) -> None:
    """A backup holds no cosigned checkpoint: with `quorum none` its own will do, with a witness it does not."""
    (tmp_path / "none").write_text("quorum none\n")
    for place in (given.data, given.public):
        assert run(place, "--vkey", given.vkey, "--policy", tmp_path / "none").code == 0
    witness = Cosigner("witness.example.org", b"w" * 32)
    (tmp_path / "one").write_text(f"witness w {witness.verifier.encode()}\nquorum w\n")
    said = run(given.data, "--vkey", given.vkey, "--policy", tmp_path / "one")
    assert said.code == 1
    assert [one["detail"] for one in said.report["findings"]] == ["no checkpoint was cosigned yet"]


# --- the vault -----------------------------------------------------------------------------------------


def test_another_vault_s_key_is_no_finding(given: Given, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The auditor's own mistake says nothing about the log: exit code 2, and what to bring."""
    assert run(given.data, "--vkey", given.vkey, "--vault").code == 0
    monkeypatch.setenv("TREERING_VAULT_KEY", OTHER)
    said = run(given.data, "--vkey", given.vkey, "--vault")
    assert (said.code, said.out) == (2, "")
    assert "not the vault key it was made with" in said.error
    assert "bring its key, or leave --vault out" in said.error


def test_a_vault_that_was_cut_short_is_a_finding(given: Given, run: Any) -> None:
    """Its file lacks pages that are in use: what is not there is named, and the log is checked all the same."""
    file = given.data / "vault/data.mdb"
    os.truncate(file, file.stat().st_size - 8_192)
    said = run(given.data, "--vkey", given.vkey, "--vault")
    assert (said.code, said.report["blocks"] > 0, said.report["opened"]) == (1, True, 0)
    (finding,) = said.report["findings"]
    assert finding["check"] == "storage"
    assert finding["detail"].startswith("private rows were not opened: ")
    assert "vault/data.mdb: cut short, " in finding["detail"]
    assert "restore the newest backup" in finding["detail"]
    assert run(given.data, "--vkey", given.vkey).code == 0
