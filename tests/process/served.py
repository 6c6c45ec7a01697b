"""A real server for tests: `treering serve` on a free port of loopback, stopped by its process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from reducers import BUILTIN
from tools.spare import SPARE

# `verify=False`: no address here is https, and to load the certificates of a client costs more than a hundred requests.
START_S = 60.0
OWN = 2 + len(BUILTIN)
"""Entries of a new log's own: origin, start, and the activation of each module."""
PYTHON = [sys.executable, "-P", "-m"]


@dataclass
class Served:
    """A running server."""

    data: Path
    url: str
    process: subprocess.Popen[str]

    @property
    def socket_url(self) -> str:
        """Where the Learning Observer's clients connect."""
        return self.url.replace("http", "ws", 1) + "/wsapi/in/?ack=1"

    def get(self, path: str, **params: Any) -> httpx2.Response:
        """GET a path."""
        return httpx2.get(self.url + path, params=params, timeout=30, verify=False)

    def post(self, body: bytes, content_type: str = "application/json", **params: Any) -> httpx2.Response:
        """POST events."""
        headers = {"Content-Type": content_type}
        return httpx2.post(
            self.url + "/v1/events", content=body, params=params, headers=headers, timeout=30, verify=False
        )

    def child(self, module: str) -> int | None:
        """Return the process id of one of its services, such as "tools.archiver", or None; no spare is one."""
        for pid in children(self.process.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            waits = SPARE.encode() in command and not name.removeprefix("worker-")[:1].isdigit()
            if module.encode() in command and not waits:
                return pid
        return None

    def kill(self, module: str) -> bool:
        """Kill a service with SIGKILL; return whether it was there."""
        pid = self.child(module)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def up(self) -> bool:
        """Return whether the front reaches the archiver just now."""
        try:
            return bool(self.get("/readyz").json()["archiver"])
        except (httpx2.HTTPError, ValueError):
            return False

    def wait_ready(self) -> None:
        """Wait until every service is up and every shard has seen the whole log."""
        deadline = time.monotonic() + START_S
        answer: Any = None
        while time.monotonic() < deadline:
            try:
                answer = self.get("/readyz").json()
                if answer["ready"] and all(shard["lag"] == 0 for shard in answer["shards"]):
                    return
            except (httpx2.HTTPError, ValueError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"the server was not ready after {START_S:.0f} s: {answer}")


def children(pid: int) -> list[int]:
    """Return the process ids of the children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found


@contextmanager
def serving(data: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Start a server, and stop it with SIGTERM at the end; it must then have drained with exit code 0.

    `environment` is added to that of this process.
    """
    command = [*PYTHON, "tools.cli", "serve", "--data", str(data), "--port", "0", *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=data.parent, env={**os.environ, **(environment or {})}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Treering is ready: "), f"the server said {line!r}"
        yield Served(data, line.split()[-1].rstrip("/"), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "a server that was asked to stop did not drain"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run(*arguments: str, code: int = 0) -> str:
    """Run a treering command, assert its exit code, and return its standard output."""
    done = subprocess.run(
        [*PYTHON, "tools.cli", *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_json(*arguments: str, code: int = 0) -> Any:
    """Run a treering command with --json and return what it printed."""
    return msgspec.json.decode(run(*arguments, "--json", code=code))


def until(what: str, reached: Callable[[], bool], wait_s: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + wait_s
    while not reached():
        assert time.monotonic() < deadline, f"not reached: {what}"
        time.sleep(0.02)
