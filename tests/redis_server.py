"""Real Redis servers for tests: on free ports of loopback, stopped by their process id, nothing kept on disk.

    with RedisServer(folder) as server:
        server.url                      # redis://127.0.0.1:<port>
        server.flush(); server.stop(); server.start()        # the same port, and empty: nothing was saved
        server.hang(); server.wake()    # the kernel takes connections, nobody answers

`RedisCluster` starts three of them as one Cluster.  Commands go through `redis-cli`, so that what a test does to a
server does not go through the client under test.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

START_S = 20.0
HOST = "127.0.0.1"


class RedisServer:
    """One `redis-server`, started by `with` or `start()`."""

    def __init__(self, folder: Path, *options: str, password: str = "", port: int = 0) -> None:
        self.folder, self.options, self.password = folder, options, password
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"redis://{f':{self.password}@' if self.password else ''}{HOST}:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        if self.process is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", HOST, "--dir", str(self.folder)]
        command += ["--save", "", "--logfile", "redis.log", *self.options]
        if self.password:
            command += ["--requirepass", self.password]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while "PONG" not in self.try_cli("PING"):
            assert time.monotonic() < deadline, (self.folder / "redis.log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server; what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def hang(self) -> None:
        """Stop the process without ending it: connections stay, answers do not come."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let a hanging server go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Delete everything."""
        self.cli("FLUSHALL")

    def names(self) -> list[str]:
        """Return the names of all keys."""
        return sorted(self.cli("--scan").split())

    def cli(self, *arguments: str) -> str:
        """Run one command and return what it printed; it must succeed."""
        done = self._cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_cli(self, *arguments: str) -> str:
        """Run one command and return what it printed, whatever that is."""
        return self._cli(*arguments).stdout

    def _cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["redis-cli", "-h", HOST, "-p", str(self.port), *self._cli_options(), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def _cli_options(self) -> list[str]:
        return ["-a", self.password, "--no-auth-warning"] if self.password else []

    def __enter__(self) -> RedisServer:
        """Start; what does not come up is not left behind."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


class RedisCluster:
    """Three masters that share the slots, without replicas."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [
            RedisServer(
                folder / str(number),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-port", str(free_port())),
            )
            for number in range(3)
        ]
        self._joined = False

    @property
    def url(self) -> str:
        """Where a client connects: all nodes are named, any of them would do."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start the nodes, join them if they are strangers, and wait until each calls the cluster whole."""
        for node in self.nodes:
            node.start()
        addresses = [f"{HOST}:{node.port}" for node in self.nodes]
        if not self._joined:
            self.nodes[0].cli("--cluster", "create", *addresses, "--cluster-yes")
            self._joined = True
        deadline = time.monotonic() + START_S
        while not all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in self.nodes):
            assert time.monotonic() < deadline, self.nodes[0].cli("CLUSTER", "INFO")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill the nodes."""
        for node in self.nodes:
            node.stop()

    def flush(self) -> None:
        """Delete everything on every node."""
        for node in self.nodes:
            node.flush()

    def names(self) -> list[str]:
        """Return the names of all keys of all nodes."""
        return sorted(key for node in self.nodes for key in node.names())

    def __enter__(self) -> RedisCluster:
        """Start; what does not come up is not left behind."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
