"""verify-log over real logs: while they are written, over HTTP, and in several processes at once."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import pytest

from archive import STRETCH, TABLES, DataFolder
from merkle import Ed25519Signer
from tests.process.served import OWN, Served, run, run_json, serving
from tools.drill_copy import Book, Copy
from tools.verify_folder import PROCESSES_FROM, Request, verify_folder

pytestmark = pytest.mark.process


def _post(server: Served, number: int) -> None:
    events = [
        {"type": "t", "id": f"{number}-{n}", "keys": {"student": f"s{n}"}, "data": {"n": n}}
        for n in range(40)
    ]
    assert server.post(json.dumps(events).encode()).status_code == 200


def _post_all(server: Served) -> None:
    for number in range(1, 20):
        _post(server, number)


def test_a_log_is_verified_while_it_is_written(tmp_path: Path) -> None:
    """Folder and URL verify at every moment, with vault and seal, and each check goes on where the last one ended."""
    data, saved = tmp_path / "data", str(tmp_path / "saved")
    with serving(data) as server, ThreadPoolExecutor(1) as pool:
        vkey = run("keys", "vkey", "--data", str(data)).strip()
        _post(server, 0)
        run_json("verify-log", str(data), "--vkey", vkey, "--vault", "--save", saved)
        writing = pool.submit(_post_all, server)
        for _ in range(2):
            since = run_json(
                "verify-log", str(data), "--vkey", vkey, "--vault", "--since", saved, "--save", saved
            )
            assert since["findings"] == []
            assert run_json("verify-log", server.url, "--vkey", vkey)["findings"] == []
        writing.result()
        public = run_json("verify-log", server.url, "--vkey", vkey, "--since", saved)
        busy = run_json("verify-log", str(data))
        assert "an archiver is at work" in busy["remarks"][0]
    at_rest = run_json("verify-log", str(data), "--vkey", vkey, "--vault")
    assert (at_rest["remarks"], at_rest["entries"], at_rest["opened"]) == ([], 800 + OWN, 800)
    assert (public["entries"], public["root"]) == (at_rest["entries"], at_rest["root"])


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    """How a log is divided among processes changes nothing in what is found, in which order, or what is saved."""
    size = PROCESSES_FROM + STRETCH // 2
    leaves = [b"\x01\x01" + (1_700_000_000).to_bytes(8) + number.to_bytes(48) for number in range(size)]
    body = b"\x01\x01\x01\x00" + bytes(8 + 16 + 64)
    signer = Ed25519Signer("example.org/log", os.urandom(32))
    origin = leaves[0][:1] + b"\x02" + leaves[0][2:10] + b'{"control":"origin","origin":"example.org/log"}'
    copy = Copy({name: {} for name in TABLES}, b"", signer)
    rows = [body + crc32(body).to_bytes(4)] * (size - 1)
    copy.rewrite(Book([origin, *leaves[1:]], [b"", *rows], [1, *range(5_000, size, 5_000), size]))
    copy.write(DataFolder(tmp_path / "good"))
    for index in (5, STRETCH + 5, 2 * STRETCH + 5):
        copy.edit("rows", index, 40, b"x")
    copy.edit("leaves", STRETCH + 700, 30, b"x")
    del copy.tables["blocks"][max(copy.tables["blocks"])[:7] + b"\x0f"]
    copy.write(DataFolder(tmp_path / "bad"))
    good = [verify_folder(Request(tmp_path / "good", signer.verifier, processes=n)) for n in (1, 2)]
    assert good[0].findings == good[1].findings == []
    assert good[0].resume == good[1].resume
    bad = [verify_folder(Request(tmp_path / "bad", signer.verifier, processes=n)) for n in (1, 2)]
    assert bad[0].findings == bad[1].findings
    assert [finding.index for finding in bad[0].findings if finding.check == "row"] == [
        5,
        STRETCH + 5,
        2 * STRETCH + 5,
    ]
    assert {"root", "nodes", "blocks"} <= {finding.check for finding in bad[0].findings}
