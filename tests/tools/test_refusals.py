"""Promise: what the system refuses a command is one line and exit code 2, never a traceback that reads as a finding."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder
from tools import cli, doctor, export, standing
from tools.process import EXIT_USAGE

HELPS = "Permission denied; run it as the user that serves"


@pytest.fixture
def closed(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """Return a data folder that belongs to somebody else: mode 0700 keeps the whole of it from who runs this.

    Tests may run as root, from whom no mode keeps anything.
    """

    def kept(call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(path, str | Path) and Path(path).is_relative_to(folder.path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *arguments, **named)

        return asked

    for module, name in ((os, "stat"), (io, "open")):
        monkeypatch.setattr(module, name, kept(getattr(module, name)))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        "replay --check",
        "upgrade",
        "bisect --reducer event_count --save-trace trace",
        "skip event_count 2",
        "skip --all 2",
        "retry activity",
        "retry event_count 2",
        "export tiles out",
    ],
)
def test_who_may_not_read_the_folder_is_told_whom_to_be(
    closed: DataFolder, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A nightly `replay --check` as the wrong user has compared nothing: 1 would say that states differ."""
    name = command.partition(" ")[0]
    assert cli.main([*command.split(), "--data", str(closed.path)]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("treering")
    assert f"{name}: {closed.path}/" in err
    assert err.endswith(f": {HELPS}\n")


def test_states_that_may_not_be_seen_are_not_called_none(closed: DataFolder) -> None:
    """To start the server once, as is said where there are none yet, would not help."""
    with pytest.raises(PermissionError):
        standing.shelf_of(closed)


def test_what_no_command_expected_of_a_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the system says is said, with the command and the file."""

    def fails(_: list[str]) -> int:
        raise OSError(errno.EIO, "Input/output error", "data/log/0")

    monkeypatch.setattr(doctor, "main", fails)
    assert cli.main(["doctor"]) == EXIT_USAGE
    assert capsys.readouterr().err == "treering doctor: data/log/0: Input/output error\n"


@pytest.mark.parametrize(
    ("number", "path", "helps"),
    [
        (errno.ENOSPC, "out/tile", "make room, or name another folder"),
        (errno.EDQUOT, None, "make room, or name another folder"),
        (errno.EFBIG, "out/tile", "make room, or name another folder"),
        (errno.EACCES, "data/log/0/data.mdb", "run it as the user that serves"),
        (errno.EACCES, "out/tile", "name another folder"),
        (errno.EROFS, "out/tile", "name another folder"),
    ],
)
def test_an_export_names_the_remedy_of_what_was_refused(
    folder: DataFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    path: str | None,
    helps: str,
) -> None:
    """Room helps where there was none; a right to read the log is had by whoever serves."""
    file = None if path is None else str(folder.path.parent / path)

    def refuses(_: DataFolder) -> None:
        raise OSError(number, os.strerror(number), file)

    monkeypatch.setattr(DataFolder, "open_log", refuses)
    out = str(folder.path.parent / "out")
    assert export.main(["tiles", out, "--data", str(folder.path)]) == EXIT_USAGE
    assert capsys.readouterr().err.endswith(f"{os.strerror(number)}; {helps}\n")
