"""Promise: a file that is written whole is whole, whoever else writes it, and whatever lies where it is gathered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive import write_whole
from archive.files import write_parts


def test_two_who_write_one_file_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has it as a whole when he is done; the last one to end has the last word."""
    path, own = tmp_path / "file", os.getpid()

    def parts() -> Iterator[bytes]:
        yield b"A" * 10
        monkeypatch.setattr(os, "getpid", lambda: own + 1)
        write_whole(path, b"B" * 5)
        monkeypatch.setattr(os, "getpid", lambda: own)
        assert path.read_bytes() == b"B" * 5
        yield b"A" * 10
        assert path.read_bytes() == b"B" * 5

    write_parts(path, parts(), lambda: path)
    assert path.read_bytes() == b"A" * 20
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """And nothing else: neither what a living process gathers, nor a file whose name is only like it."""
    for name in (
        "file.99999999.tmp",
        "file.1.tmp",
        "file.x.tmp",
        "other.99999999.tmp",
        f"file.{1 << 70}.tmp",
    ):
        (tmp_path / name).write_bytes(b"")
    write_whole(tmp_path / "file", b"new")
    assert {one.name for one in tmp_path.iterdir()} == {
        "file",
        "file.1.tmp",
        "file.x.tmp",
        "other.99999999.tmp",
    }


@pytest.mark.parametrize("kind", ["a link", "a file that others may read"])
def test_what_lies_in_the_way_is_not_written_through(tmp_path: Path, kind: str) -> None:
    """Neither goes the secret where a link leads, nor does it get the mode of what was there."""
    path, victim = tmp_path / "file", tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = tmp_path / f"file.{os.getpid()}.tmp"
    if kind == "a link":
        place.symlink_to(victim)
    else:
        place.write_bytes(b"left")
        place.chmod(0o644)
    write_whole(path, b"secret")
    assert (path.read_bytes(), victim.read_bytes()) == (b"secret", b"precious")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not path.is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "victim"]


def test_a_failure_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever step: the system names none where a write or a sync fails."""
    path = tmp_path / "file"
    write_whole(path, b"old")
    for name in ("write", "fsync", "rename"):
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise OSError(5, "Input/output error")

            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="Input/output error") as caught:
                write_whole(path, b"new")
        assert caught.value.filename == os.fspath(path)
        assert [one.name for one in tmp_path.iterdir()] == ["file"]
        assert path.read_bytes() == b"old"
