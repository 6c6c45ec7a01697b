"""Promise: whoever presses Ctrl-C while a replay runs reads one line, and finds no half file and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from replay import index_of, read_attempts
from tests.tools.left import Installed, package
from tests.world import event
from tools import replay
from tools.console import EXIT_INTERRUPTED
from tools.process import PYTHON

SLOW = '''
    from reducers import Event, reducer

    @reducer(scope=("student",))
    def slow(state: int, event: Event) -> int:
        """Take for ever."""
        while True:
            pass

    REDUCERS = [slow]
'''
WAIT_S = 60.0


def test_ctrl_c_while_a_module_is_imported_is_no_fault_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a module raises at its import is its error, but for this: the replay ends, and leaves nobody out."""
    left = Installed(tmp_path / "data")
    left.append(event("ann"))
    left.close()
    with package(tmp_path / "lib", "slow_b", "raise KeyboardInterrupt", monkeypatch):
        with pytest.raises(KeyboardInterrupt):
            replay.main(["--data", str(left.data)])
        assert replay.main(["--data", str(left.data), "--module", "activity"]) == 0


def folding(temporary: Path) -> int:
    """Return how many processes have begun with an event."""
    words = [read_attempts(path).values() for path in temporary.glob("treering-*/*")]
    return sum(index_of(word) is not None for found in words for word in found if word)


def alive(session: int) -> int:
    """Return how many processes of a session run: what nobody has asked after is dead, too."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        found += int(of) == session and state != "Z"
    return found


@pytest.mark.process
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_replay_leaves_nothing_behind(
    tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal sends Ctrl-C to all of its processes: those that fold say nothing, and are ended."""
    (temporary := tmp_path / "tmp").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    with package(tmp_path / "lib", "slow_a", SLOW, monkeypatch):
        left = Installed(tmp_path / "data")
        left.append(*(event(f"student {n}") for n in range(20)))
        left.close(reduce=False)
        command = [
            *PYTHON,
            "tools.cli",
            "replay",
            "--data",
            str(left.data),
            "--module",
            "slow_a",
            "--jobs",
            str(jobs),
        ]
        command += ["--seconds-per-event", "3600", "--out", str(out / "states.jsonl")]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        ) as process:
            deadline = time.monotonic() + WAIT_S
            while folding(temporary) < jobs:
                assert time.monotonic() < deadline, "it never began"
                time.sleep(0.02)
            assert [one.name for one in out.iterdir()] == [f".states.jsonl.{process.pid}"]
            os.killpg(process.pid, signal.SIGINT)
            said, complained = process.communicate(timeout=WAIT_S)
    assert (process.returncode, said, complained) == (EXIT_INTERRUPTED, b"", b"treering: interrupted\n")
    assert [*out.iterdir(), *temporary.iterdir()] == []
    while alive(process.pid):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.02)
