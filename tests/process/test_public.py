"""A running server's log, exported beside it, served by any web server, and checked by strangers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

from merkle import Tile, TlogProof, decode_tile, leaf_hash
from tests.process.served import OWN, run, run_json, serving

pytestmark = pytest.mark.process

LINES = "application/x-ndjson"


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder with Python's own web server, as a process, and yield its address."""
    command = [sys.executable, "-P", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split("(")[1].split(")")[0].rstrip("/")
        finally:
            process.kill()


def test_strangers_check_a_running_server(tmp_path: Path) -> None:
    """Receipts from HTTP and WebSocket, tiles exported twice while it runs, and a subject shown to be complete."""
    data, public, ann = tmp_path / "data", tmp_path / "public", tmp_path / "ann"
    with serving(data) as server:
        body = b"\n".join(b'{"id":"%d","keys":{"student":"s%d"},"n":%d}' % (n, n % 5, n) for n in range(700))
        first = server.post(body, LINES, receipt=1, id="$.id").json()["receipts"][0]
        receipt = tmp_path / "first.tlog-proof"
        receipt.write_text(first["proof"])
        opening = tmp_path / "opening.json"
        opening.write_bytes(server.get(f"/v1/events/{first['index']}/opening").content)
        event = tmp_path / "event.json"
        event.write_bytes(body.split(b"\n")[0])
        assert run_json("export", "tiles", str(public), "--data", str(data))["size"] == 700 + OWN
        with connect(server.socket_url + "&receipt=1", compression=None) as socket:
            socket.send(json.dumps({"event": "e", "n": 1}))
            socket.send(json.dumps({"event": "e", "user_id": "ann"}))
            acks = [one for one in (json.loads(socket.recv()) for _ in range(3)) if one["status"] == "ack"]
        assert [one["proof"].startswith("c2sp.org/tlog-proof@v1\n") for one in acks] == [True, True]
        run("export", "subject", "student:testcase-ann", "--data", str(data), "--out", str(ann), "--tag-key")
        assert run_json("export", "tiles", str(public), "--data", str(data))["before"] == 700 + OWN
        vkey = run("keys", "vkey", "--data", str(data)).strip()
        tile = server.get(f"/log/{Tile(0, 0).path()}")
        assert tile.headers["cache-control"].endswith("immutable")
        live = run_json("receipt", "check-complete", str(ann), "--leaves", server.url, "--vkey", vkey)
        assert live["complete"] is True
    leaf = TlogProof.decode(receipt.read_bytes()).extra
    assert decode_tile(tile.content)[first["index"]] == leaf_hash(leaf)
    checked = (
        "receipt",
        "check",
        str(receipt),
        "--vkey",
        vkey,
        "--opening",
        str(opening),
        "--event",
        str(event),
    )
    assert run_json(*checked)["event"] is True
    with web_server(public) as url:
        assert httpx2.get(f"{url}/{Tile(0, 0).path()}").content == tile.content
        there = run_json("receipt", "check-complete", str(ann), "--leaves", url, "--vkey", vkey)
    assert there == live
    assert sum(there["entries"].values()) == 3
