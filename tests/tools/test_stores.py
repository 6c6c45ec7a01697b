"""Copies in Redis never stop a worker, and one module's trouble is no other's."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from archive import StorageFailed
from replay import Damaged, Holding, Stopped, note_trouble, trouble_in
from tools import stores


class Copy:
    """A mirror that does so many steps, and then what it is told."""

    def __init__(self, then: Exception | str = "ok", steps: int = 2) -> None:
        self.then, self.steps, self.state, self.trouble = then, steps, "ok", ""

    def step(self) -> bool:
        """Do a step."""
        self.steps -= 1
        if self.steps < 0 and isinstance(self.then, Exception):
            raise self.then
        self.state = self.then if isinstance(self.then, str) else "ok"
        self.trouble = self.state.removeprefix("down: ") if self.state.startswith("down: ") else ""
        return self.steps >= 0


class Rounds(Event):
    """Lets so many rounds be made."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def wait(self, timeout: float | None = None) -> bool:
        """Count a round; a pause after trouble is none."""
        self.rounds -= timeout == stores.MIRROR_EVERY_S
        return self.rounds < 0


def mirrored(rounds: int = 3, states: Path = Path("nowhere"), **copies: Copy) -> list[str]:
    """Let these modules be mirrored, whose states lie in a folder, and return those that still are."""
    pairs: Any = [(Holding([], module=name), copy, states) for name, copy in copies.items()]
    for holding, copy, _ in pairs:
        copy.holding = holding
    stores._mirror(pairs, Rounds(rounds))
    return [holding.module for holding, _, _ in pairs]


@pytest.mark.parametrize("error", [Damaged("essay", "rot"), StorageFailed("torn"), KeyError("a bug")])
def test_trouble_with_one_copy_is_said_once_and_no_others(
    error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is tried again, and all others are copied meanwhile."""
    well = Copy(steps=5)
    assert mirrored(essay=Copy(error), words=well) == ["essay", "words"]
    assert well.steps < 0
    said = capfd.readouterr().err
    assert said.count("module essay: ") == 1
    assert said.count("states go on without it") == 1


def test_a_module_that_was_let_go_is_left_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """Its store is closed under its mirror: that is no finding, and nothing to try again."""

    class Closed(Copy):
        holding: Holding

        def step(self) -> bool:
            self.holding.stopped = Stopped("words", 7, "Died")
            raise StorageFailed("closed")

    assert mirrored(essay=Closed(), words=Copy()) == ["words"]
    assert capfd.readouterr().err == ""


def test_a_redis_that_is_down_is_said_once_for_all(capfd: pytest.CaptureFixture[str]) -> None:
    """Not for each module that it keeps a copy of."""
    down = "down: Redis at localhost:1 cannot be reached"
    mirrored(essay=Copy(down), words=Copy(down))
    assert capfd.readouterr().err.count("cannot be reached") == 1


def test_why_there_is_no_copy_stands_beside_the_states_while_it_is_so(tmp_path: Path) -> None:
    """The front reads it there: of itself it cannot see it.  What a worker of before said is no word of this one's."""
    why = "Redis at localhost:1 is a read-only replica"
    mirrored(states=tmp_path, essay=Copy(f"down: {why}"))
    assert trouble_in(tmp_path) == why
    assert [one.stat().st_mode & 0o777 for one in tmp_path.iterdir()] == [0o600]
    mirrored(states=tmp_path, essay=Copy())
    assert trouble_in(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    mirrored(states=tmp_path / "removed", essay=Copy(f"down: {why}"))
    assert trouble_in(tmp_path / "removed") == ""


def test_a_word_is_only_written_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times a second nothing is to be said."""
    written: list[str] = []

    def note(folder: Path, trouble: str) -> None:
        written.append(trouble)
        note_trouble(folder, trouble)

    monkeypatch.setattr(stores, "note_trouble", note)
    mirrored(5, tmp_path, essay=Copy("down: full"))
    assert written == ["full"]
