"""The command `treering demo`, as far as it goes without a server: the class, the child, the port."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.tools.double import Break, double
from tools import player
from tools.demo import Classroom, Failed, check_commands, command, free_port, main, running, wait_until_ready
from tools.ledger import Tally
from tools.send import main as send_main


def test_students_write_until_the_lesson_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Essay after essay on connections of their own; at the end, nothing that was sent is unanswered."""
    monkeypatch.setattr(player, "PAUSE_S_MIN", 0.001)
    monkeypatch.setattr("tools.classroom._Writer.key_ms", lambda _: 1)
    monkeypatch.setattr("tools.classroom._Writer.pause_ms", lambda _: 1)
    tally = Tally()

    async def scene() -> None:
        async with double([Break(9, 5, 1012)]) as server:
            acknowledged = 0

            def advance(n: int) -> None:
                nonlocal acknowledged
                acknowledged += n
                if len(server.received) >= 5 and acknowledged > 100:
                    students.stop()

            students = Classroom(server.url, tally, advance)
            await students.run(2, lambda: 0, words=3)
            users = {json.loads(frame).get("user_id") for frames in server.received for frame in frames} - {
                None
            }
            assert users == {"student-01", "student-02"}

    asyncio.run(scene())
    assert tally.failures == []
    assert tally.acknowledged == tally.events > 100
    assert tally.reconnects == 1


def test_the_server_is_started_as_users_start_it() -> None:
    """By this Python, past any folder named `tools` that lies where one stands."""
    assert command(Path("d"), 5) == [
        *(sys.executable, "-P", "-m", "tools.cli", "serve"),
        *("--data", "d", "--host", "127.0.0.1", "--port", "5"),
    ]


def test_what_to_type_can_be_pasted() -> None:
    """A folder with a space in its name is quoted."""
    assert check_commands(Path("my data")).split("\n") == [
        "  verify-log 'my data'",
        "  treering replay --data 'my data' --check",
    ]


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a server is started: otherwise the students would type into someone else's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Failed, match=f"port {port}: .*another with --port"):
            free_port(port)
        assert main(["--port", str(port), "--seconds", "1"]) == 1
    assert f"port {port}" in capsys.readouterr().err
    assert free_port(0) > 0


@pytest.mark.process
def test_a_server_that_ends_tells_its_last_words() -> None:
    """What the child said is not lost with it."""
    argv = [sys.executable, "-c", "print('no room on the disk'); raise SystemExit(4)"]

    async def scene() -> None:
        with running(argv, 1) as server, pytest.raises(Failed, match=r"exit code 4.*\n.*no room on the disk"):
            await wait_until_ready(server)

    asyncio.run(scene())


@pytest.mark.process
def test_the_server_is_asked_to_drain_and_waited_for() -> None:
    """SIGTERM to the child alone, in a session of its own, so that Ctrl-C does not reach it first."""
    code = "import signal,sys; signal.sigwait([signal.SIGTERM]); sys.exit(7)"
    blocked = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK,[signal.SIGTERM]); {code}"
    with running([sys.executable, "-c", blocked], 1) as server:
        while b"sigwait" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes():
            pass
        own_session = Path(f"/proc/{server.process.pid}/stat").read_text().split()[5]
        assert int(own_session) == server.process.pid
    assert server.process.returncode in {7, -signal.SIGTERM}


@pytest.mark.parametrize("argv", [["--port", "x"], ["--port", "70000"], ["--students", "0"], ["more"]])
def test_wrong_usage_is_told(argv: list[str]) -> None:
    """Exit code 2, before anything is started."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2


@pytest.mark.parametrize("program", [main, send_main])
def test_help_is_a_success(program: object, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` shows the usage under the name that users type."""
    assert callable(program)
    with pytest.raises(SystemExit) as stop:
        program(["--help"])
    assert stop.value.code == 0
    assert "usage: treering " in capsys.readouterr().out
