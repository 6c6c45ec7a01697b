"""The command `treering send`: what it makes of files and flags, and what it says in the end."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tools.double import Break, Double, double, events
from tools import player, send
from tools.send import Source, lines_of

FRAMES = b"".join(line.data + b"\n" for line in events(5))
STATEMENTS = b'{"id":1,"actor":"ann"}\n\n{"id":2,"actor":"bob"}\n'


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "PAUSE_S_MIN", 0.001)


@contextmanager
def running(*script: Break) -> Iterator[Double]:
    """A double on a thread of its own, because a command has its own event loop."""
    begun: list[tuple[Double, Callable[[], object]]] = []
    ready = threading.Event()

    async def serve() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with double(script) as server:
            begun.append((server, lambda: loop.call_soon_threadsafe(over.set)))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    server, stop = begun[0]
    try:
        yield server
    finally:
        stop()
        thread.join()


@contextmanager
def http_server() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that keeps all events but those with "bad" in them; yields its address and what it got."""
    seen: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer one batch."""
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, body))
            refused = {"error": {"status": 400, "detail": "malformed JSON"}}
            results = [refused if b"bad" in line else {"index": 1, "size": 9} for line in body.splitlines()]
            answer = json.dumps({"receipts": results}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def file(folder: Path, name: str, content: bytes) -> str:
    """A file with this content."""
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_files_of_frames_are_played_each_on_its_own_connection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain and packed files at once, a restart between: all is acknowledged, and the ledger agrees."""
    files = [file(tmp_path, "a.jsonl", FRAMES), file(tmp_path, "b.jsonl.gz", gzip.compress(FRAMES))]
    ledger = tmp_path / "ledger"
    with running(Break(3, 1, 1012)) as server:
        code = send.main(["--url", server.url, "--json", "--ledger", str(ledger), *files])
    result = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (result["events"], result["acknowledged"], result["unanswered"]) == (10, 10, 0)
    assert result["reconnects"] == 1
    records = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    acked = {(one["file"], one["line"]) for one in records if "acked" in one}
    assert acked == {(name, line) for name in files for line in range(1, 6)}
    assert sum("sent" in one for one in records) == result["sent"]


def test_a_repeated_file_gets_a_new_connection_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers of connections go on, so that a ledger's lines stay distinct."""
    name, ledger = file(tmp_path, "a.jsonl", FRAMES), tmp_path / "ledger"
    with running() as server:
        assert send.main(["--url", server.url, "--repeat", "3", "--ledger", str(ledger), name]) == 0
        assert [len(frames) for frames in server.received] == [5, 5, 5]
    assert "15 of 15 acknowledged" in capsys.readouterr().out
    records = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    assert {(one["connection"], one["frame"]) for one in records} == {
        (connection, frame) for connection in range(3) for frame in range(5)
    }


def test_other_files_are_posted_with_their_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NDJSON goes by HTTP, in batches; empty lines are not events."""
    name = file(tmp_path, "a.ndjson", STATEMENTS)
    with http_server() as (url, seen):
        code = send.main(["--url", url + "/", "--param", "student=$.actor", "--batch", "1", name])
    assert code == 0
    assert {path for path, _ in seen} == {"/v1/events?student=%24.actor"}
    assert sorted(body for _, body in seen) == sorted(
        line + b"\n" for line in STATEMENTS.split(b"\n") if line
    )
    assert "2 of 2 acknowledged" in capsys.readouterr().out


def test_a_refused_event_is_a_finding_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1; the first reasons are shown, the others counted."""
    name = file(tmp_path, "a.ndjson", b'{"id":1}\n' + b'{"bad":1}\n' * 7)
    with http_server() as (url, _):
        assert send.main(["--url", url, name]) == 1
    out, err = capsys.readouterr()
    assert "1 of 8 acknowledged, 7 refused" in out
    assert f"{name}, line 2: malformed JSON" in err
    assert err.count("malformed") == 5
    assert "and 2 more" in err


def test_a_server_that_is_not_there_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of both forms end with exit code 1 and say why."""
    files = [file(tmp_path, "a.jsonl", FRAMES), file(tmp_path, "b.ndjson", STATEMENTS)]
    with running() as server:
        url = server.url
    assert send.main(["--url", url, "--no-retry", "--json", *files]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["acknowledged"], result["unanswered"]) == (0, 7)
    assert sorted(line.partition(": ")[0] for line in result["failures"]) == files


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (FRAMES, "lo"),
        (gzip.compress(FRAMES), "lo"),
        (STATEMENTS, "ndjson"),
        (b"", "ndjson"),
        (b"\n[", "ndjson"),
    ],
    ids=["frames", "packed", "statements", "empty", "torn"],
)
def test_the_form_of_a_file_is_seen_in_its_first_line(tmp_path: Path, content: bytes, form: str) -> None:
    """An object with a string "event" is a frame; `--as` overrules."""
    path = Path(file(tmp_path, "a", content))
    assert Source.of(path, None).form == form
    assert Source.of(path, "lo").form == "lo"
    assert Source.of(path, None).events == len(list(lines_of(path)))


def test_lines_keep_their_bytes_and_numbers(tmp_path: Path) -> None:
    """Only the line feed is taken off; empty lines count for the numbering."""
    path = Path(file(tmp_path, "a", b' {"a":1}\r\n\n\xff\n{"torn'))
    assert list(lines_of(path)) == [(1, b' {"a":1}\r'), (3, b"\xff"), (4, b'{"torn')]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--url", "ftp://x", "FILE"],
        ["--url", "127.0.0.1:8400", "FILE"],
        ["--param", "student", "FILE"],
        ["--param", "student=actor", "FILE"],
        ["--rate", "0", "FILE"],
        ["--rate", "5", "--paced", "FILE"],
        ["--batch", "0", "FILE"],
        ["--in-flight", "-1", "FILE"],
        ["--as", "xml", "FILE"],
        ["--ledger", "no/such/folder", "FILE"],
        ["no-such-file"],
        ["TORN"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_before_anything_is_sent(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a line that names what is wrong."""
    names = {
        "FILE": file(tmp_path, "a", FRAMES),
        "TORN": file(tmp_path, "b", gzip.compress(FRAMES)[:-9]),
    }
    with pytest.raises(SystemExit) as stop:
        send.main([names.get(part, part) for part in argv])
    assert stop.value.code == 2
    assert "treering send: error: " in capsys.readouterr().err
