"""Promise: where states lie is the operator's to say, and nothing that is not ours is removed to make room for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from archive import DataFolder, Unavailable
from replay import is_memory_folder
from tools import stores
from tools.stores import forget_gone, place_states


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """A data folder, whose memory is below the test's own."""
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(stores, "memory_folder", lambda _: _made(memory / "treering-0-ours"))
    monkeypatch.setattr(stores, "is_memory_folder", lambda path: path.parent == memory)
    made = DataFolder(tmp_path / "data")
    made.path.mkdir()
    return made


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize("mode", ["lmdb", "auto", "redis"])
def test_what_an_operators_link_leads_to_is_used_and_kept(
    folder: DataFolder, tmp_path: Path, mode: str
) -> None:
    """States may lie on another disk; what else lies there is none of our business."""
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "thesis.txt").write_text("precious")
    folder.state.symlink_to(tmp_path / "fast")
    place_states(folder, mode)
    assert folder.state.readlink() == tmp_path / "fast"
    assert (folder.state / "thesis.txt").read_text() == "precious"


def test_states_in_memory_do_not_take_an_operators_link_away(folder: DataFolder, tmp_path: Path) -> None:
    """The two say different things, so a person must choose."""
    (tmp_path / "fast").mkdir()
    folder.state.symlink_to(tmp_path / "fast")
    with pytest.raises(Unavailable, match="remove that link, or set state_store to lmdb"):
        place_states(folder, "memory")
    assert folder.state.is_symlink()


def test_a_disk_that_is_not_there_is_waited_for_by_a_person(folder: DataFolder, tmp_path: Path) -> None:
    """States made in its place would fill the wrong disk."""
    folder.state.symlink_to(tmp_path / "unmounted")
    with pytest.raises(Unavailable, match="is that disk there"):
        forget_gone(folder)
    assert folder.state.is_symlink()


def test_our_own_memory_comes_and_goes(folder: DataFolder) -> None:
    """What we made in memory is ours to remove, with its link, also when the machine has forgotten it."""
    place_states(folder, "memory")
    memory = folder.state.readlink()
    (memory / "states").write_text("derived")
    place_states(folder, "memory")
    assert (folder.state / "states").exists()
    place_states(folder, "lmdb")
    assert (memory.exists(), folder.state.is_symlink(), list(folder.state.iterdir())) == (False, False, [])
    place_states(folder, "memory")
    memory.rmdir()
    forget_gone(folder)
    assert not folder.state.is_symlink()


def test_our_memory_is_known_by_its_name(tmp_path: Path) -> None:
    """Of this user, in the machine's memory, and nowhere else."""
    mine = f"treering-{os.getuid()}-0123"
    assert is_memory_folder(Path("/dev/shm") / mine)
    assert not is_memory_folder(tmp_path / mine)
    assert not is_memory_folder(Path("/dev/shm/other"))
