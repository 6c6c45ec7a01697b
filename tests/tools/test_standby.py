"""Spares that stand by: small programs that stand by as `tools.worker --spare` does, or fail to in some way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tools import children, standby
from tools.standby import Standby

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

WAIT_S = 60.0
GOOD = "echo standing by; read -r orders; echo taken; echo $orders; exec cat"
DEAF = "echo standing by; exec sleep 3600"
WRONG = "echo standing by; read -r orders; echo what; exec sleep 3600"
MUTE = "exec sleep 3600"
SHORT = "exit 7"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long where a spare does not do what it should."""
    monkeypatch.setattr(standby, "LOOK_S", 0.02)
    monkeypatch.setattr(standby, "SETTLE_S", 0.0)
    monkeypatch.setattr(standby, "TAKE_S", 0.3)


def made(script: str, count: int = 1) -> Standby:
    """Return spares that run a shell script."""
    return Standby(["/bin/sh", "-c", script], count)


def scenario(spares: Standby, told: Callable[[], Awaitable[None]]) -> None:
    """Run something beside the spares, and stop them: whatever happened, no process may be left."""
    started: list[Process] = []
    spawn = children.spawned

    async def counted(command: list[str]) -> Process:
        started.append(await spawn(command))
        return started[-1]

    async def run() -> None:
        keeping = asyncio.create_task(spares.keep())
        await told()
        keeping.cancel()
        await spares.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standby, "spawned", counted)
        asyncio.run(asyncio.wait_for(run(), WAIT_S))
    assert [one.pid for one in started if Path(f"/proc/{one.pid}").exists()] == [], "a process is left"


async def until(reached: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not reached():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.01)


async def ended(process: Process) -> None:
    """Let a process that was taken come to its end."""
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


def test_a_spare_takes_its_orders_and_another_one_stands_by() -> None:
    """The process that is given out is the one that stood by, and knows what it was told."""
    spares = made(GOOD)

    async def told() -> None:
        assert await spares.take("worker 0", []) is None, "there is none yet"
        await until(lambda: bool(spares.pids))
        (pid,) = spares.pids
        process = await spares.take("worker 0", ["--shard", "0"])
        assert process is not None
        assert process.pid == pid
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline()) == ["--shard", "0"]
        await until(lambda: bool(spares.pids))
        assert spares.pids != [pid]
        await ended(process)

    scenario(spares, told)


@pytest.mark.parametrize("script", [DEAF, WRONG], ids=["hangs", "says something else"])
def test_a_spare_that_does_not_take_its_orders_is_killed(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever waits for it is told that there is none, and starts a worker from nothing; nobody waits for a third."""
    spares = made(script, 3)

    async def told() -> None:
        await until(lambda: len(spares.pids) == 3)
        assert await spares.take("worker 0", []) is None

    scenario(spares, told)
    assert capsys.readouterr().err.count("does not answer, and is killed") == standby.TRIES


def test_of_two_spares_the_second_one_helps_where_the_first_one_hangs() -> None:
    """A process that was stopped by a signal takes no orders; it is not waited for."""
    spares = made(GOOD, 2)

    async def told() -> None:
        await until(lambda: len(spares.pids) == 2)
        first, second = spares.pids
        os.kill(first, signal.SIGSTOP)
        process = await spares.take("worker 0", [])
        assert process is not None
        assert process.pid == second
        await ended(process)

    scenario(spares, told)


def test_a_spare_that_died_is_never_given_out_and_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    """It may die just before it is needed, or long before."""
    spares = made(GOOD)

    async def told() -> None:
        await until(lambda: bool(spares.pids))
        (pid,) = spares.pids
        os.kill(pid, signal.SIGKILL)
        assert await spares.take("worker 0", []) is None
        await until(lambda: bool(spares.pids))
        os.kill(spares.pids[0], signal.SIGKILL)
        await until(lambda: "a spare worker ended (signal 9)" in capsys.readouterr().err)
        await until(lambda: bool(spares.pids))
        assert spares.pids != [pid]

    scenario(spares, told)


@pytest.mark.parametrize("script", [SHORT, MUTE], ids=["ends at once", "never stands by"])
def test_what_never_stands_by_is_tried_again_ever_more_rarely(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine on which no worker can start is not kept busy by starting some."""
    monkeypatch.setattr(standby, "START_S", 0.05)
    spares, said = made(script), list[str]()

    async def told() -> None:
        while len(said) < 4:
            said.extend(capsys.readouterr().err.splitlines())
            await asyncio.sleep(0.01)
        assert spares.pids == []
        assert spares._pause_s >= 2**4 * 0.02

    scenario(spares, told)
    assert all(line.startswith("treering: no spare worker stands by: it ") for line in said)


def test_a_spare_that_cannot_be_started_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system refuses a process for a while: as soon as there can be one, it stands by."""
    program = tmp_path / "program"
    spares = Standby([str(program)], 1)

    async def told() -> None:
        await until(lambda: "no spare worker stands by: " in capsys.readouterr().err)
        program.write_text(f"#!/bin/sh\n{GOOD}\n")
        program.chmod(0o700)
        await until(lambda: bool(spares.pids))

    scenario(spares, told)


def test_stop_ends_one_that_is_just_starting() -> None:
    """Nobody has heard of it yet, and nobody would end it later."""
    spares = made(MUTE)

    async def told() -> None:
        await until(lambda: spares._starting is not None)

    scenario(spares, told)


def test_without_spares_nothing_is_started() -> None:
    """`spare_workers = 0` costs nothing, and whoever asks is told so at once."""
    spares = made("exit 1", 0)

    async def told() -> None:
        await asyncio.sleep(0.1)
        assert (await spares.take("worker 0", []), spares.pids) == (None, [])

    scenario(spares, told)


def test_the_next_one_waits_until_things_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has just taken over catches up; on a small machine, a start would take its time."""
    monkeypatch.setattr(standby, "SETTLE_S", 3600.0)
    spares = made(GOOD)

    async def told() -> None:
        await until(lambda: bool(spares.pids))
        process = await spares.take("worker 0", [])
        assert process is not None
        await asyncio.sleep(0.2)
        assert spares.pids == []
        await ended(process)

    scenario(spares, told)
