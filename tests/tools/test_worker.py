"""A worker's beginning and end: it waits for a log, and ends when it is told to, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from archive import DataFolder, LogSource, NotFound, PublishedSize
from replay import Crew
from tools import worker
from tools.process import EXIT_GOOD
from tools.wakeups import Wakeups
from tools.worker import open_source, tail


class Waits(Wakeups):
    """Wake-ups whose time passes only in a test: `then` says what happens during each wait."""

    def __init__(self, then: Callable[[Waits], None], *, stopped: bool = False) -> None:
        self.stopped, self.heard, self.waited, self._then = stopped, True, 0.0, then

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.waited += seconds
        self._then(self)


def stop(waits: Waits) -> None:
    """Tell a worker to stop, as SIGTERM does."""
    waits.stopped = True


class Far(Crew):
    """A crew with so many slices before it; each takes a second of `clock`."""

    def __init__(self, slices: int) -> None:
        self.left, self.position, self.saved_at, self.clock, self._saved = slices, 0, list[int](), 0.0, 0

    @property
    def unsaved(self) -> bool:
        """Whether the position moved since the last save."""
        return self.position != self._saved

    @property
    def to_attest(self) -> bool:
        """Whether a size to attest was reached: never."""
        return False

    def step(self, source: LogSource) -> int:
        """Fold a slice."""
        del source
        self.clock += 1.0
        assert self.clock < 1_000, "folds on, and is killed"
        taken = min(self.left, 1)
        self.left, self.position = self.left - taken, self.position + taken
        return taken

    def save(self, source: LogSource) -> None:
        """Note where the states stood."""
        del source
        self.saved_at.append(self.position)
        self._saved = self.position


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Return a folder in which no archiver ever ran."""
    folder = DataFolder(tmp_path / "data")
    folder.create()
    return folder


@pytest.mark.parametrize(("slices", "saved"), [(10**6, 2), (1, 1)])
def test_a_worker_told_to_stop_saves_where_it_stands(
    monkeypatch: pytest.MonkeyPatch, slices: int, saved: int
) -> None:
    """The little that is left is folded; of much, what two seconds allow.  The rest is for the next start."""
    runner = Far(slices)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: runner.clock))
    tail(runner, cast("LogSource", None), Waits(stop, stopped=True))
    assert runner.saved_at == [saved]


def test_a_worker_far_behind_notices_that_it_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never sleeps, and looks all the same: the end of the supervisor gives no signal."""
    runner = Far(10**6)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: runner.clock))
    tail(runner, cast("LogSource", None), Waits(stop))
    assert runner.saved_at[-1] == 3


def test_a_worker_that_waits_for_a_log_can_be_stopped(folder: DataFolder) -> None:
    """No archiver ever comes; the wait is one that SIGTERM ends."""
    waits = Waits(stop)
    assert open_source(folder, waits) is None
    assert 0 < waits.waited < 1


def test_stopped_before_there_was_a_log_is_a_good_end(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had nothing to fold, and leaves nothing."""
    monkeypatch.setattr(worker, "Wakeups", lambda _: Waits(stop))
    arguments = ["--data", str(folder.path), "--shard", "0", "--shards", "1"]
    assert worker.main(arguments) == EXIT_GOOD
    assert list(folder.state.iterdir()) == []


def test_a_worker_waits_for_the_first_word_of_a_new_file(folder: DataFolder) -> None:
    """A log that reads 0 has not been opened yet: a worker that believed it would throw its states away."""
    folder.open_log(read_only=False).close()
    written = PublishedSize(folder.published, writable=True)

    def publish(waits: Waits) -> None:
        assert waits.waited < 10, "waits on, though there is a log"
        if waits.waited > 3 * worker.START_POLL_S:
            written.set(2)

    waits = Waits(publish)
    source = open_source(folder, waits)
    assert source is not None
    assert waits.waited > 3 * worker.START_POLL_S


def test_a_worker_waits_until_the_archiver_has_spoken(folder: DataFolder) -> None:
    """After a power cut the published word may be older than the states that were saved: it is not believed before."""
    folder.open_log(read_only=False).close()
    PublishedSize(folder.published, writable=True).set(2)

    def speak(waits: Waits) -> None:
        assert waits.waited < 10, "waits on, though the archiver has spoken"
        waits.heard = waits.waited > 3 * worker.START_POLL_S

    waits = Waits(speak)
    waits.heard = False
    assert open_source(folder, waits) is not None
    assert waits.waited > 3 * worker.START_POLL_S


def test_no_log_at_all_is_not_found_in_the_end(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor then starts the worker again."""
    clock = iter(range(10**6))
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(NotFound):
        open_source(folder, Waits(lambda _: None))
