"""The supervisor: one on a folder, what it refuses before it changes anything, and children that cannot start."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from api import SHARDS_FILE
from archive import DataFolder, take_lock
from tools import children, placing, serve
from tools.process import EXIT_AGAIN, EXIT_GOOD, EXIT_USAGE
from tools.settings import Settings
from tools.standby import Standby

WAIT_S = 60.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """Return a folder that a server of two shards uses; a server that would start here ends at once, well."""

    async def supervise(settings: Settings, listener: socket.socket) -> int:
        del settings, listener
        return EXIT_GOOD

    monkeypatch.setattr(serve, "supervise", supervise)
    folder = DataFolder(tmp_path / "data")
    assert start(folder, "--shards", "2") == EXIT_GOOD
    return folder


def start(folder: DataFolder, *flags: str) -> int:
    """Run `treering serve` on a free port."""
    return serve.main(["--data", str(folder.path), "--port", "0", *flags])


def shards(folder: DataFolder) -> str:
    """Return how many shards the front will believe in."""
    return (folder.state / SHARDS_FILE).read_text()


def test_a_taken_port_changes_nothing(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that cannot listen leaves the running one's files alone, and the folder free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert start(folder, "--port", str(taken.getsockname()[1]), "--shards", "5") == EXIT_USAGE
    assert "Choose another with --port" in capsys.readouterr().err
    assert shards(folder) == "2\n"
    assert start(folder, "--shards", "5") == EXIT_GOOD
    assert shards(folder) == "5\n"


def test_one_folder_has_one_server(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one ends with a message before it changes anything; no lock is left when the first one ends."""
    held = take_lock(folder.run / serve.LOCK_FILE)
    assert start(folder, "--shards", "5") == EXIT_USAGE
    assert f"another server runs on {folder.path}; stop it first" in capsys.readouterr().err
    assert shards(folder) == "2\n"
    os.close(held)
    assert start(folder) == EXIT_GOOD
    os.close(take_lock(folder.run / serve.LOCK_FILE))


def test_children_do_not_hold_the_lock(folder: DataFolder) -> None:
    """What a killed supervisor leaves behind does not keep the next one from starting."""
    lock, listener = serve.prepare(Settings(data=folder.path, port=0))
    with listener:
        assert not os.get_inheritable(lock)
    os.close(lock)


@pytest.mark.parametrize("below", [".", "d"])
@pytest.mark.usefixtures("folder")
def test_a_file_is_no_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str) -> None:
    """It is refused like any other flag that cannot be right, and names what is in the way."""
    (tmp_path / "f").write_text("")
    assert serve.main(["--data", str(tmp_path / "f" / below), "--port", "0"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert str(tmp_path / "f") in said
    assert "choose another --data" in said


def test_a_name_that_no_log_can_have_starts_nothing(tmp_path: Path) -> None:
    """The supervisor refuses it: an archiver would do so again and again."""
    assert serve.main(["--data", str(tmp_path / "data"), "--origin", "class 7"]) == EXIT_USAGE
    assert not (tmp_path / "data").exists()


# --- children ------------------------------------------------------------------------------------


def test_a_child_that_cannot_be_started_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system refuses a process for a while: the server waits, and the child runs as soon as it can."""
    program = tmp_path / "program"

    async def scenario() -> None:
        child = children.Child("worker 0", [str(program)])
        keeping = asyncio.create_task(child.keep_running())
        while "could not be started" not in (said := capsys.readouterr().err):
            assert not keeping.done(), said
            await asyncio.sleep(0.01)
        program.write_text(f"#!{sys.executable}\nprint('ready', flush=True)\ninput()\n")
        program.chmod(0o700)
        await child.ready.wait()
        await child.stop()
        await keeping

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))


class Refused(children.Child):
    """A child of which a test is told when it could not run."""

    def __init__(self, name: str, command: list[str]) -> None:
        super().__init__(name, command)
        self.refused = asyncio.Event()

    def ended(self, code: int) -> bool:
        """Take note of it."""
        self.refused.set()
        return super().ended(code)


def test_a_child_that_could_not_run_is_said_to_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promise: who reads in the log that a process has no room to start reads, too, that it has started, once."""
    room = tmp_path / "room"
    test = f"import os, sys; os.path.exists({str(room)!r}) or sys.exit({EXIT_AGAIN})"
    code = f"{test}; print('ready', flush=True); input()"

    async def scenario() -> None:
        child = Refused("archiver", [sys.executable, "-c", code])
        keeping = asyncio.create_task(child.keep_running())
        await child.refused.wait()
        room.touch()
        await child.ready.wait()
        child.ready.clear()
        child.kill()
        await child.ready.wait()
        await child.stop()
        await keeping

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))
    assert capsys.readouterr().err.splitlines() == [
        "treering: archiver runs now",
        "treering: archiver ended (signal 9); starting it again",
    ]


def test_a_full_disk_is_said_once_and_that_it_is_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promise: a status that cannot be written for hours is one line of the log, and another when it can."""
    folder, wrongs = DataFolder(tmp_path / "data"), list[int]()
    folder.create()

    def write(place: Path, _: object) -> None:
        tried.append(place.name)
        if wrongs:
            raise OSError(wrongs[-1], os.strerror(wrongs[-1]), str(place))

    monkeypatch.setattr(serve, "write_workers", write)
    monkeypatch.setattr(placing, "write_status", write)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        household = serve.Household(Settings(data=folder.path), listener, ["activity"])
    monkeypatch.setattr(
        Standby, "pids", property(lambda _: [len(tried)])
    )  # another list of workers at each look
    said = {}
    for name, wrong in {
        "room": 0,
        "full": errno.ENOSPC,
        "quota": errno.EDQUOT,
        "right": errno.EACCES,
        "end": 0,
    }.items():
        wrongs[:] = [wrong] if wrong else []
        tried = list[str]()
        for _ in range(3):
            household.look_once()
        said[name] = capsys.readouterr().err
        assert tried == (["modules.json"] * 3 if wrong else ["modules.json", "run"] * 3), (
            "after one, no other is tried"
        )
    assert said == {
        "room": "",
        "full": "treering: the status is not written: no space left; make room, nothing has to be restarted\n",
        "quota": "",
        "right": "treering: the status is not written: Permission denied\n",
        "end": "treering: the status is written again\n",
    }


def test_the_end_of_a_healthy_process_is_noticed_and_followed_by_a_start_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long pauses may be, there is none after a healthy life, and ends are not looked for now and then."""
    monkeypatch.setattr(children, "HEALTHY_S", 0.0)
    monkeypatch.setattr(children, "PAUSE_S_MIN", 3_600.0)
    monkeypatch.setattr(children, "EXIT_LOOK_S", 3_600.0)
    child = children.Child("front", [sys.executable, "-c", "print('ready', flush=True); input()"])

    async def scenario() -> None:
        keeping = asyncio.create_task(child.keep_running())
        seen = set[int]()
        while len(seen) < 3:
            await child.ready.wait()
            assert child.pid is not None
            seen.add(child.pid)
            child.ready.clear()
            child.kill()
        await child.stop()
        await keeping

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))


def test_a_stop_during_a_start_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is being started while it is told to stop ends at once, though nobody tells it again."""
    spawn = asyncio.create_subprocess_exec
    made: list[asyncio.subprocess.Process] = []
    child = children.Child("front", ["cat"])

    async def slow(*command: str, **options: Any) -> asyncio.subprocess.Process:
        await child.stop()
        made.append(await spawn(*command, **options))
        return made[-1]

    async def scenario() -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
        await child.keep_running()
        assert [process.returncode is None for process in made] == [False]

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))


def test_what_a_child_leaves_behind_does_not_hold_it_up(tmp_path: Path) -> None:
    """A process that it started keeps the pipe open: its end is noticed all the same, and nothing of it is left."""
    program, heard = tmp_path / "program", list[bytes]()
    program.write_text(
        f"#!{sys.executable}\nimport os, time\n"
        "if os.fork() == 0:\n    time.sleep(3600)\n"
        "print(os.getpid(), flush=True)\nos._exit(4)\n"
    )
    program.chmod(0o700)

    async def scenario() -> None:
        child = children.Child("worker 0", [str(program)])
        child.heard = heard.append
        keeping = asyncio.create_task(child.keep_running())
        while len(heard) < 2:
            assert not keeping.done()
            await asyncio.sleep(0.01)
        await child.stop()
        await keeping

    asyncio.run(asyncio.wait_for(scenario(), WAIT_S))
    for line in heard:
        group = int(line)
        left = [one for one in Path("/proc").glob("[0-9]*/stat") if _group_of(one) == group]
        assert left == [], "a process of its group is left"


def _group_of(stat: Path) -> int | None:
    """Return the process group in a /proc/<pid>/stat, or None for one that is gone, or a zombie."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[2])
