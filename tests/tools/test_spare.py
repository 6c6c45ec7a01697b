"""A spare from the inside: what it has done when it stands by, what it has not, and when it begins anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reducers import BUILTIN, available
from tests.vile import vile
from tools import spare
from tools.process import EXIT_GOOD, PYTHON
from tools.reporting import Reporter
from tools.spare import Orders, read_orders, search_path, stand_by

VILE = Path(vile.__file__).parent
COMMAND = [*PYTHON, "tools.worker", "--spare"]


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the name of this process, and its garbage collector, as they are."""
    monkeypatch.setattr(spare, "name_process", lambda _: None)
    monkeypatch.setattr(spare, "quiet_collector", lambda: None)


class Said(Reporter):
    """A reporter that keeps what was said; `then` happens when the spare stands by."""

    def __init__(self, write: int, then: bytes = b"") -> None:
        self.lines, self._orders, self._write = list[bytes](), then, write
        self.gave_back = False

    def _line(self, data: bytes) -> None:
        self.lines.append(data)
        if data == b"standing by":
            os.write(self._write, self._orders)
            os.close(self._write)

    def give_back_stdout(self) -> None:
        """Take note of it."""
        self.gave_back = True


def stood_by(orders: bytes) -> tuple[Orders | None, Said]:
    """Let a spare stand by, and be told something."""
    read, write = os.pipe()
    reporter = Said(write, orders)
    try:
        return stand_by(reporter, read), reporter
    finally:
        os.close(read)


def test_a_spare_knows_what_is_installed_and_has_loaded_what_comes_with_the_server() -> None:
    """That is what costs time, and the same for every worker."""
    orders, reporter = stood_by(b'["--shard","0"]\n')
    assert orders is not None
    assert orders.arguments == ["--shard", "0"]
    assert list(orders.warm.loaded) == list(BUILTIN)
    assert orders.warm.refs == available()
    assert reporter.lines == [b"standing by", b"taken"]


@pytest.mark.parametrize("orders", [b"", b'["--shard"', b"\xff\n", b"{}\n", b"[7]\n"])
def test_without_orders_that_can_be_read_it_ends(orders: bytes) -> None:
    """Its supervisor is gone, or is none: it becomes nobody."""
    assert stood_by(orders)[0] is None


def test_orders_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gives what is there; many modules make a long line."""
    pieces = iter([b'["--module",', b'"a"]', b"\n"])
    monkeypatch.setattr(os, "read", lambda *_: next(pieces))
    assert read_orders(0) == ["--module", "a"]


def test_what_is_installed_while_it_waits_makes_it_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old spare must not run what was there when it started: it becomes a worker that was started just now."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = available

    def available_then_installed() -> object:
        found = known()
        (tmp_path / "essay-1.dist-info").mkdir()  # while it is starting is as bad as later
        return found

    class BeganAnewError(Exception):
        """The process is another one now."""

    def execv(program: str, arguments: list[str]) -> None:
        raise BeganAnewError(program, arguments)

    monkeypatch.setattr(spare, "available", available_then_installed)
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(BeganAnewError) as raised:
        stood_by(b'["--shard","0"]\n')
    assert raised.value.args == (
        sys.executable,
        [sys.executable, "-P", "-m", "tools.worker", "--shard", "0"],
    )


def test_the_search_path_tells_what_was_installed_upgraded_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them makes or removes a folder beside the packages."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing")])
    seen = [search_path()]
    for step in ((tmp_path / "essay-1").mkdir, (tmp_path / "essay-1").rmdir, (tmp_path / "missing").mkdir):
        step()
        os.utime(tmp_path, ns=(0, len(seen)))  # a coarse clock could give two steps one time
        seen.append(search_path())
    assert len({str(one) for one in seen}) == len(seen)


@contextmanager
def running(*more: str, path: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a real spare until it stands by."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen([*COMMAND, *more], env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"standing by\n"
            yield process
        finally:
            process.kill()


@pytest.mark.process
def test_a_spare_ends_with_its_supervisor() -> None:
    """Its standard input ends, and so does it, well: nothing is left of a server that was killed."""
    with running() as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == EXIT_GOOD


@pytest.mark.process
def test_a_spare_holds_nothing_of_a_server(tmp_path: Path) -> None:
    """No log, no vault, no states are open, no key was read, and no module of anybody else is in its memory."""
    data = tmp_path / "data"
    data.mkdir()
    with running("--data", str(data), path=str(VILE)) as process:
        proc = Path("/proc") / str(process.pid)
        opened = [one.readlink() for one in (proc / "fd").iterdir()]
        assert not [one for one in opened if one.is_relative_to(tmp_path)]
        assert list(data.iterdir()) == []
        maps = (proc / "maps").read_text()
        assert str(tmp_path) not in maps
        assert (proc / "comm").read_text() == "worker-spare\n"


@pytest.mark.process
def test_nobody_elses_module_is_loaded_by_a_spare() -> None:
    """It is found, since it is installed; but its code has not run."""
    script = (
        "import os, sys; from tools.reporting import Reporter; from tools.spare import stand_by\n"
        "orders = stand_by(Reporter(os.dup(1)))\n"
        "print('vile' in orders.warm.refs, 'vile' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        input=b"[]\n",
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(VILE)},
    )
    assert done.stdout.splitlines()[-1] == b"True False"
