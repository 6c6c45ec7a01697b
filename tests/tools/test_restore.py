"""Restore, interrupted and misled: whatever stood in the folder is kept, and the same command ends what it began."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, InvalidEvent, Write, control_body, newest_seal, parse_leaf
from archive.lmdb_store import LmdbStore
from tests.tools.backed_up import ORIGIN, data, files, grow, leaves, run_backup, run_restore, saved, sound
from tools import keys, restoring_parts
from tools.archiver import build
from tools.process import EXIT_FINDING, EXIT_GOOD, EXIT_USAGE
from tools.restoring import path_of, read_mark
from tools.restoring_parts import keep_keys, move_away
from tools.verify_folder import Request, verify_folder

__all__ = ["data", "saved"]

ANEW = ("--new-origin", "example.org/log-2")
DEAD = 99
STEPS = ("rename", "unlink", "mkdir", "chmod")
"""What the names in a folder are changed with: a death is tried before each, and before what LMDB does."""


def lose_log(data: Path) -> None:
    """Let the log have gone on after the backup, and be gone."""
    grow(data, 5, 3)
    (data / "log/0/data.mdb").unlink()


def erase(data: Path, number: int) -> bytes:
    """Erase a subject from a vault and return the secret that was wrapped, which must not come back."""
    store, key = DataFolder(data).open_vault_store(read_only=False), number.to_bytes(8)
    with store.view() as view:
        secret = view.get("subjects", key)
        name = next(bytes(one) for one, value in view.scan("names") if bytes(value) == key)
    assert secret is not None
    store.commit([Write("subjects", key, None), Write("names", name, None)])
    store.close()
    return secret


def subjects(path: Path) -> list[int]:
    """Return the numbers of all who are in the vault of a folder."""
    store = DataFolder(path).open_vault_store()
    try:
        with store.view() as view:
            assert view.count("names") == view.count("subjects")
            return [int.from_bytes(key) for key, _ in view.scan("subjects")]
    finally:
        store.close()


def die_before(step: int, run: Callable[[], int]) -> int:
    """Run in a child that dies before its n-th change, a copied database torn in the middle; return its exit code."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = iter(range(1, step + 1))

    def dying(
        function: Callable[..., Any], last_words: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(steps, step) == step:
                if last_words is not None:
                    last_words(*arguments, **options)
                os._exit(DEAD)
            return function(*arguments, **options)

        return call

    copy: Callable[[LmdbStore, Path], None] = LmdbStore.copy

    def tear(store: LmdbStore, target: Path) -> None:
        copy(store, target)
        os.truncate(target / "data.mdb", (target / "data.mdb").stat().st_size // 2)

    code = 1
    try:
        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        LmdbStore.copy = dying(copy, tear)  # type: ignore[method-assign]
        LmdbStore.commit = dying(LmdbStore.commit)  # type: ignore[method-assign]
        code = run()
    finally:
        os._exit(code)


def deaths(start: Path, tmp_path: Path, run: Callable[[Path], int]) -> Iterator[Path]:
    """Yield, for a death before each change, a copy of a folder in which a restore died and has not ended."""
    for step in count(1):
        new = tmp_path / f"died-{step}"
        shutil.copytree(start, new)
        code = die_before(step, lambda new=new: run(new))  # type: ignore[misc]
        if code == EXIT_GOOD:
            assert step > 5, "nothing was tried"
            return
        assert code == DEAD, step
        if path_of(DataFolder(new)).exists():
            with pytest.raises(InvalidEvent, match="run the same `treering restore` command again"):
                build(DataFolder(new), None, None)
        else:
            assert without_mark(new) == without_mark(start), "nothing is written before the mark"
        yield new
        shutil.rmtree(new)


def interrupt(monkeypatch: pytest.MonkeyPatch, saved: Path, data: Path, *flags: str) -> None:
    """Begin a new log, and be interrupted when all that stood in the folder has been moved away."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring_parts, "build", die)
        with pytest.raises(KeyboardInterrupt):
            run_restore(saved, data, *flags)


def without_mark(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder but the mark that is being written."""
    return {name: content for name, content in files(folder).items() if not name.startswith("restoring-0")}


# --- a death on the way --------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["nothing", "a seal", "a seal and the vault"])
def test_a_restore_that_died_anywhere_is_ended_by_the_same_command(
    data: Path, saved: Path, tmp_path: Path, there: str
) -> None:
    """No archiver starts in between, a torn copy is never taken for a vault or a log, and the log goes on."""
    start, flags = tmp_path / "start", ("--at-least", "7") if there == "nothing" else ()
    start.mkdir()
    if there != "nothing":
        shutil.copytree(data, start, dirs_exist_ok=True)
        (start / "log/0/data.mdb").unlink()
    if there == "a seal":
        shutil.rmtree(start / "vault")
        shutil.rmtree(start / "keys")
    expected = leaves(data)
    for new in deaths(start, tmp_path, lambda new: run_restore(saved, new, *flags)):
        assert run_restore(saved, new, *flags) == EXIT_GOOD
        assert leaves(new) == expected
        assert subjects(new) == [0, 1, 2]
        assert not list(new.rglob("*restoring*"))
        assert grow(new, 5) == 13
        assert sound(new)


def test_a_new_log_whose_beginning_died_anywhere_is_begun_by_the_same_command(
    data: Path, saved: Path, tmp_path: Path
) -> None:
    """It names the old one, whose log, vault and keys are all there; what the folder had is kept."""
    old, verifier = leaves(data), DataFolder(data).signer(os.urandom).verifier
    lose_log(data)
    had = files(data)
    kept = {had[name] for name in ("vault/data.mdb", "keys/vault.key", "keys/log-0.key", "log/0/seal")}
    for new in deaths(data, tmp_path, lambda new: run_restore(saved, new, *ANEW)):
        assert run_restore(saved, new, *ANEW, "--dry-run") == EXIT_GOOD
        assert run_restore(saved, new, *ANEW) == EXIT_GOOD
        follows = control_body(parse_leaf(leaves(new)[0]))["follows"]
        assert (follows["origin"], follows["size"]) == (ORIGIN, 7)
        before = new / "before/1"
        assert leaves(before) == old
        outcome = verify_folder(Request(before, verifier, vault=True))
        assert (outcome.findings, outcome.tally.opened, outcome.tally.erased) == ([], 5, 0)
        assert kept <= set(files(before / "replaced").values())
        assert not list(new.rglob("*restoring*"))
        assert [path.name for path in (new / "before").iterdir() if path.is_dir()] == ["1"]
        assert grow(new, 0) == 2 + 6
        assert sound(new)


def test_another_restore_does_not_go_on_from_one_that_died(
    data: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says which one is to be run; a log that was put back meanwhile is not moved away by it."""
    grown = files(data)
    lose_log(data)
    interrupt(monkeypatch, saved, data, *ANEW)
    assert path_of(DataFolder(data)).exists()
    before = files(data)
    for flags in (("--new-origin", "example.org/log-3"), ("--at-least", "7")):
        assert run_restore(saved, data, *flags) == EXIT_USAGE
        assert "--new-origin example.org/log-2; run that one again" in capsys.readouterr().err
    (data / "log/0/data.mdb").write_bytes(grown["log/0/data.mdb"])
    assert run_restore(saved, data, *ANEW) == EXIT_USAGE
    assert "there is a log; move it away" in capsys.readouterr().err
    assert files(data) == before | {"log/0/data.mdb": grown["log/0/data.mdb"]}


def test_how_far_the_log_had_come_is_not_forgotten_by_a_death(
    data: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What seal and operator said stands in the mark: the same command needs neither seal nor a new answer."""
    lose_log(data)
    interrupt(monkeypatch, saved, data, *ANEW, "--at-least", "20")
    mark = read_mark(DataFolder(data))
    assert mark is not None
    assert (mark.size, mark.told, mark.before, mark.new_origin) == (7, 20, 1, ANEW[1])


# --- what is refused, before anything is written -------------------------------------------------


@pytest.mark.parametrize("name", ["bad name", "a+b", "", "a\nb", "a\udcffb", "x" * 70_000, ORIGIN])
def test_a_name_that_no_log_can_have_leaves_the_folder_as_it_is(data: Path, saved: Path, name: str) -> None:
    """It is refused before anything is moved, and in a dry run."""
    lose_log(data)
    before = files(data)
    for flags in (["--dry-run"], []):
        assert run_restore(saved, data, "--new-origin", name, *flags) == EXIT_USAGE
        assert files(data) == before


@pytest.mark.parametrize(
    "wrong", ["older", "older by an erasure", "another log's", "torn", "damaged", "another key"]
)
def test_a_vault_that_is_not_the_logs_is_noticed_before_anything_is_written(
    data: Path, tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A vault that is there is kept only if the log in the backup can go on with it; with or without keys at hand."""
    older, new = tmp_path / "older", tmp_path / "new"
    shutil.copytree(data / "vault", older)
    said = "it is older; move it away"
    if wrong == "older by an erasure":
        erase(data, 1)
    else:
        grow(data, 5, 3)
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD
    assert run_backup(tmp_path / "bare", data) == EXIT_GOOD
    shutil.copytree(data, new)
    (new / "log/0/data.mdb").unlink()
    path = new / "vault/data.mdb"
    if wrong in {"older", "older by an erasure"}:
        path.write_bytes((older / "data.mdb").read_bytes())
    elif wrong == "another log's":
        grow(tmp_path / "other", 0, 20)
        path.write_bytes((tmp_path / "other/vault/data.mdb").read_bytes())
        said = "not the vault of this log"
    elif wrong == "torn":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        said = "cut short"
    elif wrong == "damaged":
        content = path.read_bytes()
        path.write_bytes(content[:8_192] + bytes(len(content) - 8_192))
        said = "move it away"
    else:
        DataFolder(new).vault_key.write_text("00" * 32)
        said = "not the key of the vault"
    before = files(new)
    for name in ("saved",) if wrong == "another key" else ("saved", "bare"):
        if wrong != "another key":
            DataFolder(new).vault_key.unlink(missing_ok=True)
            before.pop("keys/vault.key", None)
        for flags in (["--dry-run"], []):
            assert run_restore(tmp_path / name, new, *flags) == EXIT_FINDING
            assert said in capsys.readouterr().err
            assert files(new) == before
    if wrong == "another key":
        return
    shutil.move(path, tmp_path / "moved")
    assert run_restore(tmp_path / "saved", new) == EXIT_GOOD
    assert grow(new, 8) == (13 if wrong == "older by an erasure" else 17)


def test_a_vault_that_cannot_say_who_was_erased_stops_a_new_log_too(
    data: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who was erased would come back with the backup's vault; so a person decides that, by moving it away."""
    lose_log(data)
    path = data / "vault/data.mdb"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = files(data)
    for flags in (["--dry-run"], []):
        assert run_restore(saved, data, *ANEW, *flags) == EXIT_FINDING
        assert "does not know who was erased since" in capsys.readouterr().err
        assert files(data) == before


# --- who was erased, and the keys ----------------------------------------------------------------


def test_who_was_erased_stays_erased_in_the_old_log_beside_a_new_one(data: Path, saved: Path) -> None:
    """The folder's vault knows it, the backup's does not: no byte of the secret is in what is kept of the backup."""
    verifier = DataFolder(data).signer(os.urandom).verifier
    lose_log(data)
    secret = erase(data, 1)
    assert secret in (saved / "vault/data.mdb").read_bytes()
    assert run_restore(saved, data, *ANEW) == EXIT_GOOD
    before = data / "before/1"
    assert subjects(before) == [0, 2]
    assert secret not in (before / "vault/data.mdb").read_bytes()
    outcome = verify_folder(Request(before, verifier, vault=True))
    assert (outcome.findings, outcome.tally.opened, outcome.tally.erased) == ([], 3, 2)


def test_who_was_erased_before_an_older_vault_came_back_is_not_in_the_old_log(
    data: Path, tmp_path: Path
) -> None:
    """Subjects whom the older vault in the folder never had are no erased ones."""
    older = (data / "vault/data.mdb").read_bytes()
    erase(data, 0)
    grow(data, 6, 3)
    assert run_backup(tmp_path / "saved", data, "--with-keys") == EXIT_GOOD
    (data / "log/0/data.mdb").unlink()
    (data / "vault/data.mdb").write_bytes(older)
    assert run_restore(tmp_path / "saved", data, *ANEW) == EXIT_GOOD
    assert subjects(data / "before/1") == [1, 2, 3, 4]


def test_the_old_log_has_the_keys_that_are_its_own(data: Path, saved: Path) -> None:
    """The folder's do not replace the backup's; a key that the backup lacks, or that is not its log's, they do."""
    right = files(saved / "keys")
    lose_log(data)
    for name in ("log-0.key", "vault.key"):
        (data / "keys" / name).write_bytes(b"of another log\n")
    assert run_restore(saved, data, *ANEW) == EXIT_GOOD
    assert {name: (data / "before/1/keys" / name).read_bytes() for name in right} == right


@pytest.mark.parametrize("wrong", [False, True])
def test_keys_that_a_backup_lacks_or_has_wrong_come_from_the_folder(
    data: Path, tmp_path: Path, wrong: bool
) -> None:
    """Without keys, or with others: the one of before a rotation, which its log has given up, and some vault's."""
    old = (data / "keys/log-0.key").read_bytes()
    assert keys.main(["rotate", "--data", str(data)]) == EXIT_GOOD
    for lock in ("log/0/lock", "vault/lock"):
        (data / lock).unlink()  # the one that has rotated, this process, still holds it
    saved, right = tmp_path / "saved", files(data / "keys")
    assert run_backup(saved, data, *(["--with-keys"] if wrong else [])) == EXIT_GOOD
    lose_log(data)
    if wrong:
        target = DataFolder(tmp_path / "target")
        for path, content in (("log-0.key", old), ("vault.key", b"00" * 32)):
            (saved / "keys" / path).write_bytes(content)
        keep_keys(DataFolder(saved), DataFolder(data), target)
        assert files(target.path / "keys") == right
        return
    assert run_restore(saved, data, *ANEW) == EXIT_GOOD
    assert right.items() <= files(data / "before/1/keys").items()


def test_a_file_is_moved_to_another_disk_whole_and_under_a_free_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal may lie on a disk of its own; what was moved away before is not overwritten."""
    disk, rename = tmp_path / "disk", Path.rename
    disk.mkdir()

    def within_a_disk(path: Path, target: Path) -> Path:
        if path.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", within_a_disk)
    for content in (b"first", b"second"):
        (disk / "seal").write_bytes(content)
        move_away(disk / "seal", tmp_path, "seal")
        assert not (disk / "seal").exists()
    move_away(disk / "seal", tmp_path, "seal")
    assert files(tmp_path) == {"seal": b"first", "seal-2": b"second"}


# --- a seal that lies elsewhere ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["--seal", "--config"])
def test_a_seal_that_lies_elsewhere_is_found_as_the_server_finds_it(
    data: Path, saved: Path, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its disk must be there; what it says counts, and it is sealed anew where it lies."""
    lose_log(data)
    disk = tmp_path / "disk"
    config = tmp_path / "treering.toml"
    config.write_text(f'seal = "{disk}/seal"\n')
    flags = (how, str(disk / "seal") if how == "--seal" else str(config))
    assert run_restore(saved, data, *flags, "--at-least", "7") == EXIT_USAGE
    assert "is its disk mounted?" in capsys.readouterr().err
    disk.mkdir()
    (data / "log/0/seal").rename(disk / "seal")
    shutil.rmtree(data / "run")
    assert run_restore(saved, data) == EXIT_USAGE
    assert "--config or --seal" in capsys.readouterr().err
    assert run_restore(saved, data, *flags, "--at-least", "7") == EXIT_FINDING
    assert run_restore(saved, data, *flags, *ANEW) == EXIT_GOOD
    sealed = newest_seal((disk / "seal").read_bytes())
    assert sealed is not None
    assert sealed.size == 2
    assert not (data / "log/0/seal").exists()
