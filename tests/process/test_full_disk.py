"""A disk fills up under load, and has room again: nobody is lied to, nothing acknowledged is lost, nobody is called.

Producers get 503 and are told when to try again; a WebSocket is closed with 1012 before anything has a gap; an
archiver or a worker that must start on the full disk tries until it can, and names the file that it has no room for.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.process.served import Served, run, run_json, serving
from tests.process.small_disk import SmallDisk, may_mount, small_disk

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

DISK = "tmpfs" if may_mount() else "limit"
RESTART = 1012
WAIT_S = 60.0


def events(number: int, count: int = 20, size: int = 4_000) -> bytes:
    """Return some events with ids, of some size, about some students."""
    lines = [
        json.dumps({"id": f"{number}-{n}", "who": f"s{number % 7}", "pad": os.urandom(size // 2).hex()})
        for n in range(count)
    ]
    return "\n".join(lines).encode()


class Sender:
    """Sends batches and notes what was acknowledged."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.acked: dict[int, bytes] = {}
        self._number = 0

    def send(self) -> Any:
        """Send one batch; return the response."""
        self._number += 1
        body = events(self._number)
        answer = self.server.post(body, "application/x-ndjson", student="$.who", id="$.id")
        if answer.status_code == 200:
            for line, receipt in zip(body.splitlines(), answer.json()["receipts"], strict=True):
                if "index" in receipt:
                    self.acked[receipt["index"]] = line
        return answer

    def until(self, status: int) -> Any:
        """Send until the answer has this status; any other answer must be 200 or 503."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            answer = self.send()
            if answer.status_code == status:
                return answer
            assert answer.status_code in {200, 503}, answer.text
            time.sleep(0.02)
        raise AssertionError(f"no {status} within {WAIT_S:.0f} s")


def type_on(server: Served, sent: int) -> tuple[list[int], int | None]:
    """Send frames over a WebSocket; return the frames that were acknowledged and the code it was closed with."""
    acked: list[int] = []
    with connect(server.socket_url, compression=None) as socket:
        try:
            for number in range(sent):
                socket.send(
                    json.dumps({"event": "typed", "user_id": "ann", "pad": "x" * 20_000, "n": number})
                )
            while len(acked) < sent:
                answer = json.loads(socket.recv(timeout=WAIT_S))
                if answer["status"] == "ack":
                    acked.append(answer["frame"])
        except ConnectionClosed as closed:
            return acked, None if closed.rcvd is None else closed.rcvd.code
    return acked, None


def test_a_full_disk_is_survived_by_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Full, a restart of every service while full, empty again: all without a person, and all promises kept."""
    go_through(tmp_path, DISK)
    what_was_said(capfd.readouterr().err, tmp_path)


@pytest.mark.long
def test_a_limit_on_files_is_survived_by_everything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A quota that ends in the middle of a write looks different from below; the same promises hold."""
    go_through(tmp_path, "limit")
    what_was_said(capfd.readouterr().err, tmp_path)


def go_through(tmp_path: Path, kind: str) -> None:
    """Fill the disk of a running server, look, and empty it."""
    with small_disk(kind, tmp_path) as disk:
        with serving(disk.data) as server:
            sender = Sender(server)
            assert sender.send().status_code == 200
            disk.fill(server)
            while_full(server, sender)
            while_down(server, sender)
            disk.empty(server)
            sender.until(200)
            acked, code = type_on(server, 50)
            assert (acked, code) == (list(range(50)), None)
            server.wait_ready()
            assert "full" not in server.get("/readyz").json()
            assert "treering_disk_full 0.0" in server.get("/metrics").text
            assert run_json("replay", "--data", str(disk.data), "--check")["equal"] is True
            check(disk, server, sender)
        vkey = run("keys", "vkey", "--data", str(disk.data)).strip()
        assert run_json("verify-log", str(disk.data), "--vkey", vkey, "--vault")["verified"] is True


def while_full(server: Served, sender: Sender) -> None:
    """The archiver runs on: producers are refused, and readers are served."""
    archiver = server.child("tools.archiver")
    refused = sender.until(503)
    assert refused.headers["retry-after"] == "1"
    acked, code = type_on(server, 200)
    assert acked == list(range(len(acked))), "acknowledged frames have no gap"
    assert (len(acked) < 200, code) == (True, RESTART)
    assert server.get("/v1/events/0").status_code == 200
    ready = server.get("/readyz")
    assert (ready.status_code, ready.json()["archiver"]) == (503, True)
    assert "no space left" in ready.json()["full"]["reason"]
    assert "treering_disk_full 1.0" in server.get("/metrics").text
    assert "no room: events are not kept" in server.get("/").text
    assert server.child("tools.archiver") == archiver, "a full disk is no reason to die"


def while_down(server: Served, sender: Sender) -> None:
    """Services that are killed on the full disk come back when there is room; until then it is 503."""
    for module in ("tools.archiver", "tools.worker"):
        assert server.kill(module)
    refused = sender.until(503)
    assert refused.headers["retry-after"] == "1"


def what_was_said(errors: str, folder: Path) -> None:
    """Whoever reads the server's log at night sees when it began and ended, and where there was no room."""
    stamp = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
    lines = [stamp.sub("", line, count=1) for line in errors.splitlines() if stamp.match(line)]
    front = [line for line in lines if line.startswith("front: ")]
    assert [line.partition(str(folder))[0] for line in front] == [
        "front: events are not kept: ",
        "front: events are kept again",
    ]
    nameless = [line for line in lines if line.startswith("worker") and str(folder) not in line]
    assert not [line for line in nameless if "No space" in line or "File too large" in line]


def check(disk: SmallDisk, server: Served, sender: Sender) -> None:
    """Whatever was acknowledged is there, where it was said."""
    assert len(sender.acked) >= 20
    for index, line in sender.acked.items():
        assert server.get(f"/v1/events/{index}").json()["payload"].encode() == line
    assert disk.data.exists()
