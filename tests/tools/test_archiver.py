"""The archiver as a process: what it refuses for good, so that no supervisor starts it again and again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archive import Archiver, DataFolder, InvalidEvent, StorageFailed, read_stopped
from tools import archiver
from tools.archiver import build, main
from tools.process import EXIT_AGAIN, EXIT_GOOD, EXIT_STOP

ORIGIN = "example.org/log"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """Return the folder of a log with a name; an archiver that would serve it ends at once, well."""

    async def serve(folder: DataFolder, opened: Archiver) -> None:
        del folder
        opened.close()

    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    monkeypatch.setattr(archiver, "serve", serve)
    # A lock lasts as long as its process, and all archivers of a test are in one.
    monkeypatch.setattr(DataFolder, "take_locks", lambda _: [])
    folder = DataFolder(tmp_path / "data")
    assert main(["--data", str(folder.path), "--origin", ORIGIN]) == EXIT_GOOD
    return folder


@pytest.mark.parametrize("flags", [[], ["--origin", ORIGIN]])
def test_a_log_goes_on_under_its_name(folder: DataFolder, flags: list[str]) -> None:
    """Whether it is given again or not."""
    assert main(["--data", str(folder.path), *flags]) == EXIT_GOOD


def test_another_name_for_a_log_is_refused(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """It must not seem to have been taken; the message says which name the log has, and what to do."""
    assert main(["--data", str(folder.path), "--origin", "example.org/other"]) == EXIT_STOP
    said = capsys.readouterr().err
    assert f"origin example.org/other: this log is {ORIGIN}" in said
    assert "leave origin out" in said


def test_a_key_made_for_another_name_is_refused(tmp_path: Path) -> None:
    """Also where the log is still empty: its key was made for a name already."""
    folder = DataFolder(tmp_path / "data")
    folder.create()
    folder.signer(bytes, ORIGIN)
    with pytest.raises(InvalidEvent, match=f"this log is {ORIGIN}"):
        build(folder, "example.org/other", None)


def _altered(folder: DataFolder) -> None:
    folder.log_key.write_bytes(b"\xff\xfe")


def _vault_altered(folder: DataFolder) -> None:
    folder.vault_key.write_bytes(b"\xff\xfe")


def _vault_key_gone(folder: DataFolder) -> None:
    folder.vault_key.unlink()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_altered, "log-0.key: not a key, or altered"),
        (_vault_altered, "vault.key: not a key, or altered"),
        (_vault_key_gone, "bring the key back"),
    ],
)
def test_keys_that_cannot_be_used_are_for_a_person_to_look_at(
    folder: DataFolder,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[DataFolder], None],
    complaint: str,
) -> None:
    """No restart mends them, and no traceback explains them."""
    damage(folder)
    assert main(["--data", str(folder.path)]) == EXIT_STOP
    assert complaint in capsys.readouterr().err


def test_a_name_that_no_log_can_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A note's own complaint ends the archiver for good, too."""
    assert main(["--data", str(tmp_path / "data"), "--origin", "class 7"]) == EXIT_STOP
    assert "not a key name" in capsys.readouterr().err


def test_what_it_stops_for_is_written_down_until_it_starts(folder: DataFolder) -> None:
    """With the section that helps, for those who do not see its standard error; the next start takes it away."""
    seal = (folder.log / "seal").read_bytes()
    (folder.log / "seal").unlink()
    assert main(["--data", str(folder.path)]) == EXIT_STOP
    words = read_stopped(folder.stopped)
    assert words is not None
    assert (words.reason, words.section) == (
        "the log has entries but no seal; see docs/recovery.md, lost seal",
        "Lost seal",
    )
    (folder.log / "seal").write_bytes(seal)
    assert main(["--data", str(folder.path)]) == EXIT_GOOD
    assert read_stopped(folder.stopped) is None


def failed(file: Path) -> Callable[..., Archiver]:
    """Return what fails as an archiver does whose disk fails it at a file."""

    def build_(*_: object, **__: object) -> Archiver:
        raise StorageFailed(f"{file}: Input/output error", file)

    return build_


@pytest.mark.parametrize("part", ["log/0/data.mdb", "vault/data.mdb", "log/0/seal"])
def test_the_file_that_failed_is_not_trusted_and_any_other_is(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whichever of the three it was, the same one is refused, and a copy in its place is taken."""
    file = folder.path / part
    with monkeypatch.context() as patch:
        patch.setattr(archiver, "build", failed(file))
        assert main(["--data", str(folder.path)]) == EXIT_STOP
    first = read_stopped(folder.stopped)
    assert main(["--data", str(folder.path)]) == EXIT_STOP
    assert read_stopped(folder.stopped) == first, "what happened first stays"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)
    assert main(["--data", str(folder.path)]) == EXIT_GOOD


def test_why_it_is_down_today_is_said_though_a_disk_failed_before(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note of yesterday's file is no reason for today; it comes back with that file."""
    database = folder.log / "data.mdb"
    with monkeypatch.context() as patch:
        patch.setattr(archiver, "build", failed(database))
        assert main(["--data", str(folder.path)]) == EXIT_STOP
    database.rename(folder.log / "away")
    shutil.copy(folder.log / "away", database)
    os.utime(database, ns=(1, 1))
    vault = folder.path / "vault"
    vault.rename(folder.path / "hidden")
    assert main(["--data", str(folder.path)]) == EXIT_STOP
    words = read_stopped(folder.stopped)
    assert words is not None
    assert words.section == "The vault is not this log's"
    shutil.rmtree(vault, ignore_errors=True)
    (folder.path / "hidden").rename(vault)
    (folder.log / "away").replace(database)
    assert main(["--data", str(folder.path)]) == EXIT_STOP, "the file that failed is back"


def test_a_key_that_cannot_be_marked_keeps_no_events_away(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, once a start, and events are taken."""
    folder.begun.unlink()

    def refuses(*_: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(archiver, "mark_begun", refuses)
    assert main(["--data", str(folder.path)]) == EXIT_GOOD
    assert (
        "Read-only file system: that this key has signed a log could not be noted" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, EXIT_STOP), (errno.ENOSPC, EXIT_AGAIN)])
def test_a_disk_that_fails_is_written_down_and_one_that_is_full_is_not(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """The first waits for a person, the second for room: it is tried again, and nobody is sent to the handbook."""

    def fails(*_: object, **__: object) -> Archiver:
        raise OSError(number, "no")

    monkeypatch.setattr(archiver, "build", fails)
    assert main(["--data", str(folder.path)]) == code
    words = read_stopped(folder.stopped)
    assert (words is not None) == (code == EXIT_STOP)
    assert words is None or words.section == "The disk failed"


@pytest.mark.parametrize("flags", [[], ["--partition", "1"]])
def test_an_archiver_waits_for_the_one_that_writes(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Be it of the same log or of another one with the same vault: it is tried again, and nothing is written."""
    folder = DataFolder(tmp_path / "data")
    folder.create()
    locks = folder.take_locks()
    assert main(["--data", str(folder.path), *flags]) == EXIT_AGAIN
    assert "stop it first" in capsys.readouterr().err
    assert not list(folder.path.rglob("data.mdb"))
    for lock in locks:
        os.close(lock)
