"""Backup and restore: what is copied is whole, and what comes back contradicts nobody."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from archive import (
    DataFolder,
    IntegrityError,
    PublishedSize,
    Receipt,
    SealFile,
    Unavailable,
    control_body,
    newest_seal,
    parse_leaf,
    write_whole,
)
from archive.entry import encode_control
from archive.lmdb_store import LmdbStore
from tests.archive.site import event
from tests.quota import files_at_most
from tests.tools.backed_up import ORIGIN, data, files, grow, leaves, run_backup, run_restore, saved, sound
from tools import backup, backup_folder, keys
from tools.archiver import build
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE
from tools.software import software
from tools.verify_folder import Request, verify_folder

__all__ = ["data", "saved"]


# --- backup --------------------------------------------------------------------------------------


def test_a_backup_verifies_by_itself(data: Path, saved: Path) -> None:
    """It is a data folder with the same entries, every one of which can be read, and a seal at its size."""
    assert leaves(saved) == leaves(data)
    assert sound(saved)
    last = newest_seal((saved / "log/0/seal").read_bytes())
    assert last is not None
    assert last.size == 7
    assert {path.stat().st_mode & 0o077 for path in saved.rglob("*")} == {0}


def test_keys_are_copied_only_if_asked_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup without keys is noise to a thief, and the command says that the keys must be kept elsewhere."""
    assert run_backup(tmp_path / "bare", data) == EXIT_GOOD
    assert "without keys" in capsys.readouterr().out
    assert not (tmp_path / "bare" / "keys").exists()
    content = b"".join(files(tmp_path / "bare").values())
    for secret in (data / "keys").iterdir():
        assert secret.read_bytes().strip() not in content


def test_a_backup_while_the_log_grows_is_of_one_moment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subjects that come in between the two copies are in the vault alone: every entry of the copy can be read."""
    copy: Callable[[LmdbStore, Path], None] = LmdbStore.copy
    folder = DataFolder(data)
    archiver = build(folder, None, None)
    archiver.open({"software": "test"})
    numbers = iter(range(100, 200))

    def copy_and_grow(store: LmdbStore, target: Path) -> None:
        copy(store, target)
        archiver.step([event(b"late", subject=f"student:{next(numbers)}")])

    monkeypatch.setattr(LmdbStore, "copy", copy_and_grow)
    # One process must not open an environment twice, so the backup gets those that are open.
    stores = {folder.log: archiver._store, folder.path / "vault": archiver._vault._store}
    opened = LmdbStore.__init__

    def open_or_take(store: LmdbStore, path: Any, *arguments: Any, **flags: Any) -> None:
        if Path(path) in stores:
            store.__dict__ |= stores[Path(path)].__dict__  # the same environment
        else:
            opened(store, path, *arguments, **flags)

    monkeypatch.setattr(LmdbStore, "__init__", open_or_take)
    monkeypatch.setattr(
        LmdbStore, "close", lambda store: None if store._path in stores else store._env.close()
    )
    manifest, outcome = backup.back_up(folder, tmp_path / "saved", with_keys=True)
    assert (manifest.size, outcome.tally.opened) == (8, 5)
    assert archiver.head.size == 10


def test_a_backup_never_overwrites_and_leaves_nothing_half(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What exists is refused; what fails on the way leaves no folder that looks like a backup."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("mine")
    assert run_backup(tmp_path / "taken", data) == EXIT_USAGE
    assert files(tmp_path / "taken") == {"x": b"mine"}

    def full(*_: object) -> None:
        raise Unavailable("no space left")

    monkeypatch.setattr(backup, "copy_vault", full)
    assert run_backup(tmp_path / "half", data) == EXIT_USAGE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "taken"]


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_backup_that_does_not_fit_names_its_own_disk(
    data: Path, tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the log lies there may be room enough; nothing half is left behind."""
    with files_at_most(size):
        assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith(f"treering backup: {tmp_path / 'saved.partial'}")
    assert "no space left for the copy; make room there" in said
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD


def test_a_log_that_does_not_verify_is_no_backup(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rot is found when the backup is made, not when it is needed."""
    path = data / "log/0/data.mdb"
    wanted = leaves(data)[-1]
    path.write_bytes(path.read_bytes().replace(wanted[-30:], bytes(30)))
    assert run_backup(tmp_path / "saved", data) == EXIT_FINDING
    assert "entry 6" in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()


def test_a_dry_run_of_a_backup_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how much would be copied."""
    assert run_backup(tmp_path / "saved", data, "--dry-run", "--json") == EXIT_GOOD
    answer = json.loads(capsys.readouterr().out)
    assert (answer["size"], answer["dry_run"], answer["bytes"] > 8_000) == (7, True, True)
    assert not (tmp_path / "saved").exists()
    (tmp_path / "saved").mkdir()
    assert run_backup(tmp_path / "saved", data, "--dry-run") == EXIT_GOOD
    assert (tmp_path / "saved").is_dir(), "a folder that is there and empty stays"
    assert run_backup(tmp_path / "saved", data) == EXIT_GOOD


def test_what_a_backup_says_about_itself_has_one_form(data: Path, saved: Path) -> None:
    """The golden vector decodes and encodes to the same bytes, and a real backup has the same members."""
    vectors = json.loads((Path(__file__).parents[1] / "vectors/archive/backup.json").read_text())
    damaged, golden = (vectors[name].encode() for name in ("manifest_with_damage", "manifest"))
    for one in (damaged, golden):
        assert backup_folder.encode(msgspec.json.decode(one, type=backup_folder.Manifest)) == one
    assert json.loads(damaged) == {**json.loads(golden), "damage": ["entry 3: row", "entry 5: opening"]}
    found = json.loads((saved / "backup.json").read_text())
    assert found.keys() == json.loads(golden).keys()
    assert found["files"].keys() == files(saved).keys() - {"backup.json"}
    assert found["vkey"] == DataFolder(data).signer(os.urandom).verifier.encode()
    follows = vectors["follows"]
    assert encode_control(follows["time_s"], follows["body"]).hex() == follows["leaf"]


# --- restore -------------------------------------------------------------------------------------


def test_a_restored_log_goes_on_under_its_name(data: Path, saved: Path, tmp_path: Path) -> None:
    """With all that was told in the backup, the restored log continues the old one."""
    before = leaves(data)
    assert run_restore(saved, tmp_path / "new", "--at-least", "7") == EXIT_GOOD
    assert leaves(tmp_path / "new") == before
    assert grow(tmp_path / "new", 5) == 13
    assert leaves(tmp_path / "new")[:7] == before
    assert sound(tmp_path / "new")


def test_an_event_that_is_sent_again_after_a_restore_is_known(saved: Path, tmp_path: Path) -> None:
    """Ids are part of the rows, so a restored log still keeps every event once."""
    assert run_restore(saved, tmp_path / "new", "--at-least", "0") == EXIT_GOOD
    folder = DataFolder(tmp_path / "new")
    archiver = build(folder, None, None)
    archiver.open({"software": "test"})
    again = event(b"3", id="3", subject="student:1", keys={"student": "x"})
    assert archiver.step([again]) == [Receipt(5, 6)]


def test_nobody_goes_on_without_knowing_how_far_the_log_had_come(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a seal and without --at-least the command refuses, and says where to look."""
    assert run_restore(saved, tmp_path / "new") == EXIT_USAGE
    assert "--at-least" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_backup_below_what_was_told_is_refused(
    data: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the operator says it or the seal does: an older copy never goes on under the same name."""
    assert run_restore(saved, tmp_path / "new", "--at-least", "8") == EXIT_FINDING
    assert "would contradict them" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    grow(data, 5, 1)
    (data / "log/0/data.mdb").unlink()
    before = files(data)
    assert run_restore(saved, data) == EXIT_FINDING
    assert run_restore(saved, data, "--at-least", "0") == EXIT_FINDING, "what is sealed is not argued with"
    assert files(data) == before


def test_what_was_published_here_counts_as_told(
    data: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody may say less with --at-least; a log of a new name is not held against what the old one had published."""
    grow(data, 5, 1)
    for name in ("log/0/data.mdb", "log/0/seal"):
        (data / name).unlink()
    before = files(data)
    assert run_restore(saved, data, "--at-least", "7") == EXIT_FINDING
    assert "has 7 entries, but 9 were signed and told" in capsys.readouterr().err
    assert files(data) == before
    assert run_restore(saved, data, "--new-origin", "example.org/second", "--at-least", "9") == EXIT_GOOD
    assert PublishedSize(DataFolder(data).published).get() == 2
    assert DataFolder(data).begun.read_text() == "example.org/second\n"
    assert grow(data, 9, 1) == 4


@pytest.mark.parametrize("whose", ["another log", "nobody"])
def test_a_log_is_not_restored_beside_a_key_that_is_not_its_own(
    data: Path, tmp_path: Path, whose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could not go on, and a server would refuse it at night: said before anything is written, also in a dry run."""
    assert run_backup(tmp_path / "bare", data) == EXIT_GOOD
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD
    new, code = tmp_path / "new", EXIT_USAGE
    if whose == "another log":
        grow(tmp_path / "other", 0)
        shutil.copytree(data / "keys", new / "keys")
        shutil.copy(DataFolder(tmp_path / "other").log_key, DataFolder(new).log_key)
        code = EXIT_FINDING
    before = files(new)
    for name in ("bare", "saved") if whose == "another log" else ("bare",):
        for flags in ([], ["--dry-run"]):
            assert run_restore(tmp_path / name, new, "--at-least", "0", *flags) == code
            said = capsys.readouterr().err
            assert f"{DataFolder(new).log_key}: " in said
            assert "not the key" in said or "bring the keys of this log back first" in said
            assert files(new) == before
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(data / "keys", new / "keys")
    assert run_restore(tmp_path / "bare", new, "--at-least", "0") == EXIT_GOOD
    assert grow(new, 5) == 13


def test_a_log_whose_key_was_changed_is_restored_with_the_new_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The backup of a log that has just rotated goes on with the key that its last entry names."""
    old = DataFolder(data).log_key.read_bytes()
    assert keys.main(["rotate", "--data", str(data)]) == 0
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD
    new = tmp_path / "new"
    (new / "keys").mkdir(parents=True)
    DataFolder(new).log_key.write_bytes(old)
    DataFolder(new).log_key.chmod(0o600)
    assert run_restore(tmp_path / "saved", new, "--at-least", "0") == EXIT_FINDING
    assert "not the key" in capsys.readouterr().err
    DataFolder(new).log_key.unlink()
    assert run_restore(tmp_path / "saved", new, "--at-least", "0") == EXIT_GOOD
    assert sound(new)


def test_a_log_that_is_gone_is_missed_by_its_vault(data: Path) -> None:
    """Where neither key nor published size remember it, the vault does; beside another log it may be that one's."""
    folder = DataFolder(data)
    shutil.rmtree(data / "log")
    shutil.rmtree(data / "run")
    folder.create()
    with pytest.raises(IntegrityError, match="the log is empty, but the vault knows 3 subjects"):
        build(folder, None, None)


def test_a_seal_that_the_backup_reaches_allows_the_same_name(data: Path, tmp_path: Path) -> None:
    """The seal in the folder says how far the log had come; the vault that is there is kept."""
    assert run_backup(tmp_path / "bare", data) == EXIT_GOOD
    (data / "log/0/data.mdb").unlink()
    vault = (data / "vault/data.mdb").read_bytes()
    assert run_restore(tmp_path / "bare", data) == EXIT_GOOD
    assert (data / "vault/data.mdb").read_bytes() == vault
    assert grow(data, 5) == 13
    assert sound(data)


def test_a_lost_seal_is_made_again_by_backup_and_restore(data: Path, tmp_path: Path) -> None:
    """The way out that the archiver's message names works."""
    (data / "log/0/seal").unlink()
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD
    assert run_restore(tmp_path / "saved", tmp_path / "new", "--at-least", "7") == EXIT_GOOD
    assert grow(tmp_path / "new", 5) == 13


def test_a_seal_of_another_history_is_refused(
    saved: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup of another log, or of a forked one, does not pass because its size is right."""
    seal = SealFile(data / "log/0/seal")
    seal.write(7, b"x" * 32, 1)
    seal.close()
    (data / "log/0/data.mdb").unlink()
    assert run_restore(saved, data) == EXIT_FINDING
    assert "another log, or of another history" in capsys.readouterr().err


def test_an_older_backup_begins_a_new_log_that_names_the_old_one(data: Path, saved: Path) -> None:
    """Entry 0 says origin, size and root; the old log lies beside it, readable, with its vault and keys."""
    old, verifier = leaves(data), DataFolder(data).signer(os.urandom).verifier
    grow(data, 5, 3)
    sealed = (data / "log/0/seal").read_bytes()
    (data / "log/0/data.mdb").unlink()
    assert run_restore(saved, data, "--new-origin", "example.org/log-2") == EXIT_GOOD
    new = leaves(data)
    body, start = (control_body(parse_leaf(leaf)) for leaf in new[:2])
    assert {**software(), "control": "start", "purpose": "restore"}.items() <= start.items()
    manifest = msgspec.json.decode((saved / "backup.json").read_bytes())
    assert (body["origin"], body["follows"]) == (
        "example.org/log-2",
        {"origin": ORIGIN, "size": 7, "root": manifest["root"]},
    )
    before = data / "before" / "1"
    assert leaves(before) == old
    outcome = verify_folder(Request(before, verifier, vault=True))
    assert (outcome.findings, outcome.tally.opened) == ([], 5)
    assert (before / "replaced" / "seal").read_bytes() == sealed
    assert grow(data, 0) == len(new) + 6
    assert sound(data)
    tags = {parse_leaf(leaf).tag for leaf in leaves(data)} & {parse_leaf(leaf).tag for leaf in old}
    assert tags == {b""}, "a student's leaves in the two logs do not look related"


def test_a_log_that_is_there_is_never_overwritten(
    data: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Restoring over a log is refused, whatever else is right."""
    before = files(data)
    for flags in ([], ["--new-origin", "example.org/log-2"]):
        assert run_restore(saved, data, *flags) == EXIT_USAGE
        assert "move it away" in capsys.readouterr().err
    assert files(data) == before


@pytest.mark.parametrize("name", ["log/0/data.mdb", "vault/data.mdb", "log/0/seal", "keys/vault.key"])
def test_a_changed_backup_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    """Each file is held against its digest, a missing one and one too many are found, before anything is written."""
    content = (saved / name).read_bytes()
    for wrong in (content[:-1] + bytes((content[-1] ^ 1,)), None):
        (saved / name).unlink()
        if wrong is not None:
            (saved / name).write_bytes(wrong)
        assert run_restore(saved, tmp_path / "new", "--at-least", "0") == EXIT_FINDING
    (saved / name).write_bytes(content)
    (saved / "log/0/more").write_bytes(b"")
    assert run_restore(saved, tmp_path / "new", "--at-least", "0") == EXIT_FINDING
    assert not (tmp_path / "new").exists()


def test_a_backup_that_is_not_finished_is_none(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data folder that was copied by hand says nothing about itself, and is not taken for a backup."""
    shutil.copytree(data, tmp_path / "copy")
    assert run_restore(tmp_path / "copy", tmp_path / "new", "--at-least", "0") == EXIT_USAGE
    assert "has finished" in capsys.readouterr().err


def test_a_restore_that_died_between_two_keys_brings_the_other_one_too(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the log would be there, and verified, and nobody could read it."""
    new = tmp_path / "new"

    def once(path: Path, data: bytes) -> None:
        write_whole(path, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup_folder, "write_whole", once)
        with pytest.raises(KeyboardInterrupt):
            run_restore(saved, new, "--at-least", "7")
    assert len(list((new / "keys").iterdir())) == 1
    assert run_restore(saved, new, "--at-least", "7") == EXIT_GOOD
    assert files(new / "keys") == files(saved / "keys")
    assert grow(new, 5) == 13
    assert sound(new)


def test_a_dry_run_of_a_restore_writes_nothing(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It checks the backup, and says what would be done."""
    assert run_restore(saved, tmp_path / "new", "--at-least", "7", "--dry-run", "--json") == EXIT_GOOD
    answer = json.loads(capsys.readouterr().out)
    assert (answer["size"], answer["behind"], answer["dry_run"]) == (7, 0, True)
    assert run_restore(saved, tmp_path / "new", "--at-least", "9", "--dry-run") == EXIT_FINDING
    assert not (tmp_path / "new").exists()
