"""What a server leaves behind: a data folder with a log, a vault and the states of two shards, nothing running.

    left = Left(tmp_path / "data")
    left.append(event("ann"), event("bob", "bad"))
    left.close()                               # states are saved where they stand, and every environment is closed
    replay.main(["--data", str(left.data), "--check"])

`package` installs a module of an author, for this process and for those that it starts.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from archive import Attest, Steering, Submission, steering_body, write_whole
from reducers import Reducer, digest_of_entries
from replay import SHARDS_FILE, module_folder, replay_digests
from tests.api.front import Front

SHARDS = 2
STRANGER = "touchy"
"""A module whose states a front of tests makes, and that is not installed."""


class Left:
    """A data folder in the making, and what was left of it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.front = Front(data, SHARDS)
        write_whole(self.front.folder.state / SHARDS_FILE, f"{SHARDS}\n".encode())

    def append(self, *submissions: Submission) -> list[int]:
        """Append in one commit, and return the indices."""
        first = self.front.archiver.head.size
        self.front.archiver.step(submissions)
        return list(range(first, self.front.archiver.head.size))

    def steer(self, steering: Steering) -> int:
        """Append a control entry and return its index."""
        return self.front.archiver.control(steering_body(steering))

    def attest(self, name: str, size: int, digest: str | None = None) -> int:
        """Append an attestation of the states of a reducer at a size, a true one unless another digest is given."""
        one: Reducer[object] = self.front.reducers[name]
        found = replay_digests(self.front.source, [one], self.front.vault, size=size)
        true = digest_of_entries(found).hex()
        return self.steer(Attest(size, name, one.version, one.code_digest, len(found), digest or true))

    def close(self, *, reduce: bool = True) -> None:
        """Let workers catch up and save, and close everything."""
        if reduce:
            self.front.reduce()
        self.front.close()


class Installed(Left):
    """The same of modules that are installed only: a front of tests also has one that raises, which is nowhere."""

    def close(self, *, reduce: bool = True) -> None:
        """Let workers catch up and save, and close everything; the module that raises leaves no states."""
        super().close(reduce=reduce)
        shutil.rmtree(module_folder(self.data / "state", 0, STRANGER))


@contextmanager
def package(
    folder: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch, *, version: str = "1.0"
) -> Iterator[Path]:
    """Install a module of that name whose Python file holds `source`, and yield the folder that it is in."""
    write_package(folder, name, source, version=version)
    monkeypatch.syspath_prepend(folder)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([before] if before else [])]))
    forget(name)
    try:
        yield folder
    finally:
        forget(name)


def write_package(folder: Path, name: str, source: str, *, version: str = "1.0") -> None:
    """Write a module's Python file, and what an installed package says of it.

    Python takes bytecode for that of a source of the same length and second, so bytecode of an earlier one goes.
    """
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(dedent(source))
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[treering.modules]\n{name} = {name}\n")


def forget(name: str) -> None:
    """Forget a module that was imported, so that it is read again."""
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
