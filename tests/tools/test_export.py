"""`treering export` and `treering receipt`: what is given away can be checked without us."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archive import (
    Archiver,
    Caches,
    DataFolder,
    Log,
    ManualClock,
    Opening,
    PublishedSize,
    SealFile,
)
from merkle import Bundle, Ed25519Signer, sign_note
from tests.api.front import Front
from tests.quota import files_at_most
from tests.world import connection, frames, raw_event
from tools import export, receipt

EVENT = b'{"type":"t","keys":{"student":"ann"},"n":%d}'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with 2 control entries, 300 events of ann and bob, and a late identity; it is at rest."""
    front = Front(tmp_path / "data")
    for number in range(0, 300, 50):
        front.archiver.step(
            [
                raw_event(EVENT % n, {"student": "ann" if n % 3 == 0 else "bob"})
                for n in range(number, number + 50)
            ]
        )
    front.archiver.step(
        frames(connection(), {"event": "a"}, {"event": "b", "user_id": "zoe"}, {"event": "c"})
    )
    front.close()
    return tmp_path / "data"


@pytest.fixture
def vkey(data: Path) -> str:
    """Return the log's verifier key."""
    return DataFolder(data).signer(os.urandom).verifier.encode()


@pytest.fixture
def tiles(data: Path, tmp_path: Path) -> Path:
    """Return the exported public log."""
    assert export.main(["tiles", str(tmp_path / "public"), "--data", str(data)]) == 0
    return tmp_path / "public"


@pytest.fixture
def ann(data: Path, tmp_path: Path) -> Path:
    """Return ann's exported entries, with the tag key."""
    out = tmp_path / "ann"
    assert export.main(["subject", "student:ann", "--data", str(data), "--out", str(out), "--tag-key"]) == 0
    return out


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("size", [100, 700, 1_500])
def test_an_export_that_does_not_fit_can_be_done_again(
    data: Path, tmp_path: Path, size: int, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the checkpoint, a receipt or the list at the end: the file is named, and nothing of it stays."""
    out = tmp_path / "ann"
    if there:
        out.mkdir()
    command = ["subject", "student:ann", "--data", str(data), "--out", str(out), "--tag-key"]
    with files_at_most(size):
        assert export.main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"treering: export: {out}/")
    assert "File too large; make room, or name another folder" in said
    assert out.exists() == there
    assert not there or not list(out.iterdir())
    assert export.main(command) == 0


Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command with --json and returns what it prints, having checked its exit code."""

    def command(module: Any, *arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert module.main([*map(str, arguments), "--json"]) == code
        shown = capsys.readouterr()
        return json.loads(shown.out) if shown.out else shown.err

    return command


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder as any web server would, and yield its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# --- tiles ---------------------------------------------------------------------------------------


def test_tiles_are_exported_once(data: Path, tmp_path: Path, run: Run) -> None:
    """A dry run writes nothing; the first export all, the second nothing."""
    out = tmp_path / "public"
    assert run(export, "tiles", out, "--data", data, "--dry-run")["files"] == 5
    assert not out.exists()
    done = run(export, "tiles", out, "--data", data)
    assert (done["before"], done["size"], done["files"]) == (0, 306, 5)
    assert done["bytes"] == sum(path.stat().st_size for path in (out / "tile").rglob("*") if path.is_file())
    assert run(export, "tiles", out, "--data", data)["files"] == 0
    assert run(export, "tiles", out, "--data", data, "--dry-run")["before"] == 306


def test_tiles_hold_nothing_private(tiles: Path) -> None:
    """Nobody's name, no payload: 58 bytes an event, and the log's own control entries."""
    everything = b"".join(path.read_bytes() for path in tiles.rglob("*") if path.is_file())
    for secret in (b"ann", b"bob", b"zoe", b"student", b'"n"'):
        assert secret not in everything


def test_a_folder_of_another_log_is_refused(data: Path, tmp_path: Path, tiles: Path, run: Run) -> None:
    """Exit code 1, and what to do; nothing in it is changed."""
    note = (tiles / "checkpoint").read_text()
    (tiles / "checkpoint").write_text(note.replace("example.org/log\n", "example.org/other\n", 1))
    assert "name an empty one" in run(export, "tiles", tiles, "--data", data, code=1)
    assert "there is no database" in run(export, "tiles", tiles, "--data", tmp_path / "nothing", code=2)


# --- receipts ------------------------------------------------------------------------------------


def check(run: Run, vkey: str, folder: Path, index: int, *more: object, code: int = 0) -> Any:
    """Check a receipt of a subject's folder."""
    return run(receipt, "check", folder / f"entries/{index}.tlog-proof", "--vkey", vkey, *more, code=code)


def test_a_receipt_is_checked_offline(ann: Path, vkey: str, run: Run, tmp_path: Path) -> None:
    """Alone it shows that the entry is there; with its opening, which; with the event, that it is just these bytes."""
    alone = check(run, vkey, ann, 5)
    assert (alone["verified"], alone["index"], alone["opening"], alone["event"]) == (True, 5, None, False)
    opening, event = ann / "entries/5.opening.json", tmp_path / "event"
    event.write_bytes(EVENT % 3)
    whole = check(run, vkey, ann, 5, "--opening", opening, "--event", event)
    assert whole["opening"]["subject"] == "student:ann"
    assert (whole["opening"]["sequence"], whole["event"], whole["checkpoint"]["size"]) == (2, True, 306)


def test_what_does_not_belong_together_is_refused(ann: Path, vkey: str, run: Run, tmp_path: Path) -> None:
    """Another opening, another event, another key, an altered receipt: exit code 1 and the reason."""
    opening, event = ann / "entries/5.opening.json", tmp_path / "event"
    other = check(run, vkey, ann, 5, "--opening", ann / "entries/8.opening.json", code=1)
    assert "does not commit" in other["error"]
    event.write_bytes(EVENT % 4)
    assert (
        "not what was logged"
        in check(run, vkey, ann, 5, "--opening", opening, "--event", event, code=1)["error"]
    )
    event.write_bytes(EVENT % 3 + b"\n")
    assert "line ends" in check(run, vkey, ann, 5, "--opening", opening, "--event", event, code=1)["error"]
    text = (ann / "entries/5.tlog-proof").read_text()
    (ann / "entries/5.tlog-proof").write_text(text.replace("index 5\n", "index 6\n"))
    assert "not in the tree" in check(run, vkey, ann, 5, code=1)["error"]


def test_an_older_key_may_be_given_beside_the_newer(ann: Path, vkey: str, run: Run) -> None:
    """A log may have had several keys: one that signed the receipt is enough, and one that did not is not."""
    newer = Ed25519Signer("example.org/log", b"n" * 32).verifier.encode()
    for keys in ((vkey, newer), (newer, vkey)):
        arguments = [part for key in keys for part in ("--vkey", key)]
        assert run(receipt, "check", ann / "entries/5.tlog-proof", *arguments)["verified"] is True
    assert "signed" in check(run, newer, ann, 5, code=1)["error"]


def test_what_cannot_be_checked_is_said_to_be_so(ann: Path, vkey: str, run: Run) -> None:
    """Exit code 2: no file, no key, an event without its opening."""
    event = ann / "subject.json"
    assert "needs --opening" in check(run, vkey, ann, 5, "--event", event, code=2)
    assert "No such file" in check(run, vkey, ann, 4, code=2)
    assert "verifier key" in check(run, "nonsense", ann, 5, code=2)


# --- one subject ---------------------------------------------------------------------------------


def complete(run: Run, folder: Path, leaves: object, *more: object, code: int = 0) -> Any:
    """Check a subject's folder."""
    return run(receipt, "check-complete", folder, "--leaves", leaves, *more, code=code)


def test_a_subject_is_exported_for_its_owner_only(ann: Path) -> None:
    """Receipts and openings of ann's hundred entries; nobody else may read the folder; bob is not in it."""
    names = sorted(path.name for path in (ann / "entries").iterdir())
    assert len(names) == 200
    assert ann.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in ann.rglob("*"))
    payloads = {Opening.from_json(path.read_bytes()).payload for path in ann.glob("entries/*.opening.json")}
    assert payloads == {EVENT % n for n in range(0, 300, 3)}
    assert all(b"salt" not in path.read_bytes() for path in ann.glob("entries/*.tlog-proof"))


def test_a_subject_is_complete_against_any_copy(
    data: Path, ann: Path, tiles: Path, vkey: str, run: Run
) -> None:
    """From a folder and from a web server alike; without a key only as far as the copy goes."""
    with web_server(tiles) as url:
        for leaves in (tiles, url, f"{url}/"):
            answer = complete(run, ann, leaves, "--vkey", vkey)
            assert (answer["complete"], answer["signatures"]) == (True, True)
            assert answer["entries"] == {"student:ann": 100}
    assert complete(run, ann, tiles)["signatures"] is False
    del data


def test_a_late_identity_is_complete_too(
    data: Path, tmp_path: Path, tiles: Path, vkey: str, run: Run
) -> None:
    """What was sent before the name was known is exported with it, under the connection's own tag key."""
    out = tmp_path / "zoe"
    name = "student:testcase-zoe"
    exported = run(export, "subject", name, "--data", data, "--out", out, "--tag-key")
    assert exported["subjects"] == {name: 2, f"provisional:{(1).to_bytes(8).hex()}-0": 2}
    assert complete(run, out, tiles, "--vkey", vkey)["complete"] is True


def test_an_entry_that_was_left_out_is_found(ann: Path, tiles: Path, vkey: str, run: Run) -> None:
    """Whoever shortens the list, at its end or within, is found out by the tags."""
    manifest = json.loads((ann / "subject.json").read_text())
    indices = manifest["subjects"][0]["indices"]
    for at in (-1, 40):
        left = [*indices]
        gone = left.pop(at)
        manifest["subjects"][0]["indices"] = left
        (ann / "subject.json").write_text(json.dumps(manifest))
        answer = complete(run, ann, tiles, "--vkey", vkey, code=1)
        assert answer["complete"] is False
        assert gone in [one["index"] for one in answer["findings"]]


def test_a_copy_that_was_altered_convinces_nobody(ann: Path, tiles: Path, vkey: str, run: Run) -> None:
    """A leaf taken out of the copy, or changed in it, changes the root: exit code 1."""
    path = tiles / Bundle(1, 50).path()
    whole = path.read_bytes()
    path.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    assert "root" in complete(run, ann, tiles, "--vkey", vkey, code=1)["error"]
    path.write_bytes(whole[60:])
    assert "49 leaves, not 50" in complete(run, ann, tiles, "--vkey", vkey, code=1)["error"]


def test_a_file_of_the_folder_that_was_exchanged_is_found(
    ann: Path, tiles: Path, vkey: str, run: Run
) -> None:
    """A receipt or opening of another entry, or a missing receipt, is named with its entry."""
    entries = ann / "entries"
    (entries / "5.opening.json").write_bytes((entries / "8.opening.json").read_bytes())
    (entries / "11.tlog-proof").write_bytes((entries / "8.tlog-proof").read_bytes())
    (entries / "14.tlog-proof").unlink()
    answer = complete(run, ann, tiles, "--vkey", vkey, code=1)
    assert [one["index"] for one in answer["findings"]] == [5, 11, 14]


def test_an_older_copy_cannot_show_it(data: Path, ann: Path, vkey: str, run: Run, tmp_path: Path) -> None:
    """It ends before the entries that are spoken of; the command says to take a newer one."""
    store = DataFolder(data).open_log()
    with store.view() as view:
        (tmp_path / "checkpoint").write_bytes(Log(view, 306).covering(5)[1])
    store.close()
    assert "take a newer copy" in complete(run, ann, tmp_path, "--vkey", vkey, code=2)


def test_a_newer_copy_shows_it_as_well(data: Path, tmp_path: Path, vkey: str, run: Run) -> None:
    """Entries that came after the export are no finding: the list speaks of the size at which it was made."""
    run(export, "subject", "student:bob", "--data", data, "--out", tmp_path / "bob", "--tag-key")
    store, vault = DataFolder(data).open_log(read_only=False), DataFolder(data).open_vault(os.urandom)
    archiver = Archiver(
        "example.org/log",
        store,
        vault,
        caches=Caches(),
        seal=SealFile(data / "log/0/seal"),
        published=PublishedSize(data / "run/published-0", writable=True),
        clock=ManualClock(),
        random=os.urandom,
        sign=lambda text: sign_note(text, [DataFolder(data).signer(os.urandom)]),
    )
    archiver.open({})
    archiver.step([raw_event(EVENT % n, {"student": "bob"}) for n in range(7)])
    store.close()
    vault.close()
    run(export, "tiles", tmp_path / "newer", "--data", data)
    answer = complete(run, tmp_path / "bob", tmp_path / "newer", "--vkey", vkey)
    assert (answer["complete"], answer["size"], answer["leaves"]) == (True, 306, 314)


def test_without_the_tag_key_nothing_can_be_shown(data: Path, tmp_path: Path, tiles: Path, run: Run) -> None:
    """The key is given to those entitled only; without it the command says what to ask for."""
    out = tmp_path / "bob"
    run(export, "subject", "student:bob", "--data", data, "--out", out)
    assert "tag_key" not in (out / "subject.json").read_text()
    assert "--tag-key" in complete(run, out, tiles, code=2)
    assert "no log" in complete(run, out, tmp_path, code=2)


def test_an_export_is_not_mixed_with_anything(data: Path, ann: Path, run: Run, tmp_path: Path) -> None:
    """A folder that holds something is refused; a subject that nobody knows is not there; a dry run writes nothing."""
    assert "not an empty folder" in run(
        export, "subject", "student:bob", "--data", data, "--out", ann, code=2
    )
    assert "no subject" in run(
        export, "subject", "student:x", "--data", data, "--out", tmp_path / "x", code=2
    )
    dry = run(export, "subject", "student:bob", "--data", data, "--out", tmp_path / "x", "--dry-run")
    assert (dry["entries"], (tmp_path / "x").exists()) == (200, False)
