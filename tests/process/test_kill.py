"""kill -9 of every service under load: what was acknowledged is kept, in order, and nothing is invented.

The sender's ledger says what was sent and what was acknowledged; the log, opened with its vault after everything has
ended, says what survived.  No human helps: the supervisor starts again what was killed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from archive import (
    ROW_EVENT,
    ROW_FRAME,
    DataFolder,
    Log,
    load_size,
    open_entry,
    parse_row,
)
from tests.process.served import PYTHON, Served, run, run_json, serving
from tools.classroom import classroom

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

KILLS, MANY, RATE = 6, 30, "600"
"""Each of three services twice in every run; MANY are for the long ones.

There is load for longer than the kills take, however slow the machine: a sender that was held up catches up by one
second's worth at most.
"""
KEPT = frozenset({ROW_EVENT, ROW_FRAME})
ALONE = [("tools.archiver",), ("tools.worker",)]
SERVICES = ("tools.archiver", "tools.worker", "tools.front")


class Survivor(NamedTuple):
    """An entry that a sender sent: its connection and frame (None over HTTP), its bytes."""

    connection: bytes | None
    frame: int | None
    payload: bytes


@cache
def typed(students: int) -> dict[str, list[bytes]]:
    """Return the frames of so many students, by name; at the rate of these tests, 2 s of load for each."""
    sessions = classroom(seed=5, students=students, words=210)
    return {one.user_id: [frame for _, frame in one.frames] for one in sessions}


def survivors(data: Path) -> dict[int, Survivor]:
    """Return every event and protocol frame of the log by index, opened and checked against its leaf."""
    folder = DataFolder(data)
    store, vault = folder.open_log(), folder.open_vault(os.urandom)
    found = {}
    with store.view() as view:
        log = Log(view, load_size(view))
        for (index, leaf), (_, data_row) in zip(log.leaves(0, log.size), log.rows(0, log.size), strict=True):
            if data_row and (row := parse_row(data_row)).kind in KEPT:
                opened = open_entry(leaf, row, vault.data_key(row.subjects))
                extra = opened.header.extra
                found[index] = Survivor(extra.get("conn"), extra.get("frame"), opened.payload)
    store.close()
    vault.close()
    return found


def kill_at_random(
    server: Served, sender: subprocess.Popen[str], ledger: Path, services: tuple[str, ...], kills: int
) -> int:
    """Kill the services in turn, at random moments, while the sender runs; return how many were killed.

    It begins when something was sent: on a busy machine all could be over before the sender has connected.
    """
    draw, killed = random.Random(7), 0
    while sender.poll() is None and not (ledger.exists() and ledger.stat().st_size):
        time.sleep(0.02)
    while killed < kills and sender.poll() is None:
        # What is killed over and over before it has done anything is another test: nobody could be served by it.
        while services in ALONE and sender.poll() is None and not server.up():
            time.sleep(0.02)
        time.sleep(draw.uniform(0.2, 0.9))
        if sender.poll() is None:
            killed += server.kill(services[killed % len(services)])
    return killed


def sending(server: Served, ledger: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `treering send` with a ledger."""
    command = [
        *PYTHON,
        "tools.cli",
        "send",
        "--url",
        server.url,
        "--ledger",
        str(ledger),
        "--json",
        *arguments,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended(sender: subprocess.Popen[str]) -> Any:
    """Wait for the sender and return what it reports; everything must have been acknowledged in the end."""
    out, _ = sender.communicate(timeout=200)
    report = json.loads(out)
    assert sender.returncode == 0, report
    return report


def ledger_lines(ledger: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a ledger."""
    for line in ledger.read_bytes().splitlines():
        yield msgspec.json.decode(line)


def check_everything(data: Path) -> None:
    """The log verifies with its key and its vault."""
    vkey = run("keys", "vkey", "--data", str(data)).strip()
    assert run_json("verify-log", str(data), "--vkey", vkey, "--vault")["verified"] is True


TIMES = pytest.mark.parametrize(
    "kills", [KILLS, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(1_200)])]
)


@TIMES
@pytest.mark.parametrize("services", [SERVICES, *ALONE], ids=["any service", "the archiver", "workers"])
def test_killed_while_a_class_types(tmp_path: Path, services: tuple[str, ...], kills: int) -> None:
    """Acknowledged ⊆ survived ⊆ sent by connection and frame, no gap in any connection, states equal replay.

    Where the front survives, no sender even notices: no connection ends, and every frame is kept exactly once.
    """
    data, ledger, lines = tmp_path / "data", tmp_path / "ledger.ndjson", {}
    for name, frames in typed(3 * kills).items():
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"\n".join(frames) + b"\n")
        lines[str(path)] = frames
    with serving(data) as server:
        sender = sending(server, ledger, "--rate", RATE, *lines)
        killed = kill_at_random(server, sender, ledger, services, kills)
        report = ended(sender)
        server.wait_ready()
        assert run_json("replay", "--data", str(data), "--check")["equal"] is True
    assert killed == kills, f"the load was over after {killed} kills"
    check_everything(data)
    found = survivors(data)
    _check_frames(found, lines, ledger)
    if services in ALONE:
        assert report["reconnects"] == 0, "a sender noticed"
        sent = sorted(frame for frames in lines.values() for frame in frames)
        assert sorted(one.payload for one in found.values()) == sent, "a frame is missing, or kept twice"
    else:
        assert report["reconnects"] > 0, "no kill was felt by any sender"


def _check_frames(found: dict[int, Survivor], lines: dict[str, list[bytes]], ledger: Path) -> None:
    sent: dict[tuple[str, int], dict[int, bytes]] = defaultdict(dict)
    acked: list[tuple[int, int, bytes]] = []
    for one in ledger_lines(ledger):
        payload = lines[one["file"]][one["line"] - 1]
        if one.get("sent"):
            sent[one["file"], one["connection"]][one["frame"]] = payload
        if one.get("acked"):
            acked.append((one["index"], one["frame"], payload))
    for index, frame, payload in acked:
        assert (found[index].frame, found[index].payload) == (frame, payload), (
            f"entry {index} is not what was acked"
        )
    survived: dict[bytes | None, dict[int | None, bytes]] = defaultdict(dict)
    for index, kept in sorted(found.items()):
        assert kept.frame not in survived[kept.connection], f"entry {index}: a frame is kept twice"
        survived[kept.connection][kept.frame] = kept.payload
    for connection in survived.values():
        assert list(connection) == list(range(len(connection))), "a connection has a gap, or is out of order"
        assert any(connection.items() <= frames.items() for frames in sent.values()), "something was invented"


@TIMES
def test_killed_while_batches_are_sent_with_ids(tmp_path: Path, kills: int) -> None:
    """Over HTTP with ids, every acknowledged event is kept exactly once whatever was killed meanwhile."""
    data, ledger, file = tmp_path / "data", tmp_path / "ledger.ndjson", tmp_path / "events.ndjson"
    lines = [b'{"id":"e%06d","who":"s%02d","n":%d}' % (n, n % 40, n) for n in range(3_000 * kills)]
    file.write_bytes(b"\n".join(lines) + b"\n")
    rules = ("--param", "student=$.who", "--param", "id=$.id", "--batch", "100", "--rate", "2000")
    with serving(data) as server:
        sender = sending(server, ledger, *rules, str(file))
        killed = kill_at_random(server, sender, ledger, SERVICES, kills)
        ended(sender)
        server.wait_ready()
        assert run_json("replay", "--data", str(data), "--check")["equal"] is True
    assert killed == kills, f"the load was over after {killed} kills"
    check_everything(data)
    found = survivors(data)
    acked = {one["line"]: one["index"] for one in ledger_lines(ledger) if one.get("acked")}
    assert len(acked) == len(lines)
    assert all(found[index].payload == lines[line - 1] for line, index in acked.items())
    kept = sorted(one.payload for one in found.values())
    assert kept == sorted(lines), "an event is missing, or kept twice"
