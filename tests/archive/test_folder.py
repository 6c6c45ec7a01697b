"""The data folder: what is made, with which modes, and which keys are not believed."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from archive import DataFolder, IntegrityError, InvalidEvent, Locked, NotFound, read_secret
from archive.files import write_whole
from tests.archive.site import ORIGIN, Site, event, sign

seeds = itertools.count(1)


def random(size: int) -> bytes:
    """Return bytes that were not returned before."""
    return next(seeds).to_bytes(size, "big")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """Return a data folder that was created, with no vault key in the environment."""
    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    folder = DataFolder(tmp_path / "data")
    folder.create()
    return folder


def test_folders_are_for_their_owner_alone(folder: DataFolder) -> None:
    """Nobody else may look into any folder; creating them again changes nothing."""
    folder.create()
    found = {path for path in folder.path.rglob("*") if path.is_dir()} | {folder.path}
    assert {path.relative_to(folder.path).as_posix() for path in found} == {
        ".",
        "keys",
        "log",
        "log/0",
        "run",
        "state",
        "vault",
    }
    private = found - {folder.log.parent}
    assert {path.stat().st_mode & 0o777 for path in private} == {0o700}


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    """The limit of the system is met when the folder is made, not when the first client connects."""
    long = tmp_path / ("x" * 107)
    with pytest.raises(InvalidEvent, match="choose a shorter data folder"):
        DataFolder(long).create()
    assert not long.exists()


def test_readers_create_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever only reads finds nothing, and leaves nothing."""
    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    folder = DataFolder(tmp_path / "data")
    for read in (folder.open_log, lambda: folder.open_vault(random), lambda: folder.signer(random)):
        with pytest.raises(NotFound):
            read()
    assert not folder.path.exists()


def test_a_signing_key_is_made_once(folder: DataFolder) -> None:
    """The key made at the first start is the key of every later one."""
    made = folder.signer(random, ORIGIN)
    assert folder.log_key.stat().st_mode & 0o777 == 0o600
    for again in (folder.signer(random, ORIGIN), folder.signer(random)):
        assert (again.name, again.key_id, again.sign(b"x")) == (ORIGIN, made.key_id, made.sign(b"x"))


def test_a_key_line_is_that_of_sumdb_note(folder: DataFolder) -> None:
    """The file is PRIVATE+KEY+name+id+base64(01 seed), which other tools read."""
    signer = folder.signer(lambda size: bytes(range(size)), ORIGIN)
    body = base64.b64encode(b"\x01" + bytes(range(32))).decode()
    assert folder.log_key.read_text() == f"PRIVATE+KEY+{ORIGIN}+{signer.key_id.hex()}+{body}\n"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_read_is_refused(folder: DataFolder, mode: int) -> None:
    """A key with any right for others may have been copied; the message says what to do."""
    folder.signer(random, ORIGIN)
    folder.open_vault(random, read_only=False)
    for path in (folder.log_key, folder.vault_key):
        path.chmod(mode)
    for read in (lambda: folder.signer(random), lambda: folder.open_vault(random)):
        with pytest.raises(IntegrityError, match="chmod 600"):
            read()
    folder.log_key.chmod(0o600)
    assert folder.signer(random).name == ORIGIN


@pytest.mark.parametrize(
    "line",
    [
        "",
        "PRIVATE+KEY",
        "{prefix}+x+{id}+{body}",
        "{prefix}+{name}+00000000+{body}",
        "{prefix}+{name}+{id}+AAAA",
        "{prefix}+{name}+{id}+!",
        "PUBLIC+KEY+{name}+{id}+{body}",
        "{prefix}+{name}+{id}+Ag{tail}",
    ],
)
def test_an_altered_key_line_is_refused(folder: DataFolder, line: str) -> None:
    """A key whose name, id or seed was changed signs nothing."""
    folder.signer(random, ORIGIN)
    prefix, key, name, key_id, body = folder.log_key.read_text().strip().split("+", 4)
    fields = {"prefix": f"{prefix}+{key}", "name": name, "id": key_id, "body": body, "tail": body[2:]}
    folder.log_key.write_text(line.format(**fields))
    with pytest.raises(IntegrityError, match="signing key"):
        folder.signer(random)


def test_the_vault_key_from_its_file(folder: DataFolder) -> None:
    """A key file of 64 hexadecimal digits is made once and opens the vault again."""
    folder.open_vault(random, read_only=False).admit(["student:ann"])
    assert folder.vault_key.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(folder.vault_key.read_text())) == 32


@pytest.mark.parametrize("read_only", [True, False])
def test_a_lost_vault_key_is_not_replaced(folder: DataFolder, read_only: bool) -> None:
    """Beside a vault that was made with a key, no other is made: the message asks for the old one, which then works."""
    vault = folder.open_vault(random, read_only=False)
    number = vault.admit(["student:ann"])["student:ann"].number
    vault.close()
    away = folder.vault_key.rename(folder.path / "away")
    with pytest.raises(NotFound, match="bring the key back"):
        folder.open_vault(random, read_only=read_only)
    assert not folder.vault_key.exists()
    away.rename(folder.vault_key)
    assert folder.open_vault(random, read_only=read_only).name(number) == "student:ann"


def test_a_vault_that_was_never_used_gets_a_key(folder: DataFolder) -> None:
    """A first start that was killed between the database and the key is simply made again, and keeps its key."""
    folder.open_vault_store(read_only=False).close()
    folder.open_vault(random, read_only=False).close()
    made = folder.vault_key.read_text()
    folder.open_vault(random, read_only=False).close()
    assert folder.vault_key.read_text() == made


def test_a_vault_key_that_is_no_text_is_refused(folder: DataFolder) -> None:
    """Bytes that are no text are no key; nothing is written over them."""
    folder.open_vault(random, read_only=False).close()
    folder.vault_key.write_bytes(b"\xff" * 64)
    with pytest.raises(IntegrityError, match="not a key, or altered"):
        folder.open_vault(random, read_only=False)
    assert folder.vault_key.read_bytes() == b"\xff" * 64


def test_the_vault_key_from_the_environment(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key in the environment no file is read or made, and another key does not open the vault."""
    monkeypatch.setenv("TREERING_VAULT_KEY", f" {bytes(range(32)).hex()}\n")
    vault = folder.open_vault(random, read_only=False)
    keys = vault.admit(["student:ann"])["student:ann"]
    assert not folder.vault_key.exists()
    vault._store.close()
    again = folder.open_vault(random)
    assert again.name(keys.number) == "student:ann"
    again._store.close()
    monkeypatch.setenv("TREERING_VAULT_KEY", bytes(32).hex())
    with pytest.raises(IntegrityError, match="not the vault key") as refused:
        folder.open_vault(random)
    monkeypatch.setenv("TREERING_VAULT_KEY", bytes(range(32)).hex())
    assert folder.open_vault(random).name(keys.number) == "student:ann", f"after {refused.value}"


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32])
def test_a_vault_key_is_64_digits(folder: DataFolder, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A key that is cut, padded or no key at all is refused, wherever it comes from."""
    monkeypatch.setenv("TREERING_VAULT_KEY", text)
    with pytest.raises(IntegrityError, match=r"^TREERING_VAULT_KEY: a vault key is 64 hexadecimal digits"):
        folder.open_vault(random, read_only=False)
    monkeypatch.delenv("TREERING_VAULT_KEY")
    write_whole(folder.vault_key, text.encode())
    with pytest.raises(IntegrityError, match=f"^{folder.vault_key}: a vault key is 64 hexadecimal digits"):
        folder.open_vault(random, read_only=False)


def test_a_secret_file(tmp_path: Path) -> None:
    """A secret is read as it stands; a missing one is not found."""
    with pytest.raises(NotFound, match="no such key"):
        read_secret(tmp_path / "key")
    write_whole(tmp_path / "key", b"secret\n")
    assert read_secret(tmp_path / "key") == "secret\n"


def test_a_log_in_a_folder(folder: DataFolder) -> None:
    """What the folder opens is what an archiver needs; a reader sees it."""
    site = Site()
    log = folder.open_log(read_only=False)
    site.log = log
    site.start().step([event(b"1")])
    log.close()
    site.log = folder.open_log()
    assert [entry.payload for entry in site.events()] == [b"1"]
    site.log.close()
    assert sign("example.org/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")


# --- files ---------------------------------------------------------------------------------------


def test_writing_whole_is_write_sync_rename_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before it gets its name, and the name is synced after."""
    calls: list[str] = []

    def noted(call: Callable[..., None]) -> Callable[..., None]:
        def note(*arguments: object) -> None:
            calls.append(call.__name__)
            call(*arguments)

        return note

    for call in (os.fsync, os.rename):
        monkeypatch.setattr(os, call.__name__, noted(call))
    write_whole(tmp_path / "a", b"1")
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """If anything fails, the old bytes stand and nothing lies about."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a", b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_vault_has_one_writer_whichever_log_it_writes(folder: DataFolder) -> None:
    """Two archivers that admitted people at once would give two of them one number, and one of them no secret."""
    other = DataFolder(folder.path, 1)
    other.create()
    first = folder.take_locks()
    with pytest.raises(Locked, match=r"vault/lock: another archiver, of another log, writes this vault"):
        other.take_locks()
    with pytest.raises(Locked, match="another archiver writes this log"):
        folder.take_locks()
    for lock in first:
        os.close(lock)
    for lock in other.take_locks():  # whoever was refused holds nothing
        os.close(lock)
