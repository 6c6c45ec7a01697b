"""The auditor's command: options, what it prints, exit codes, and the log as the public sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, parse_leaf
from merkle import (
    Bundle,
    Checkpoint,
    Cosigner,
    Ed25519Signer,
    Frontier,
    Note,
    encode_bundle,
    encode_tile,
    leaf_hash,
    sign_checkpoint,
    sign_note,
    tiles_between,
)
from tests.quota import files_at_most
from tests.tools.little_log import KEY, honest
from tools import verify_log
from tools.console import when
from tools.drill_copy import Book, Copy
from tools.verify_folder import Outcome

__all__ = ["honest"]

VKEY = KEY.verifier.encode()


@pytest.fixture
def data(honest: Copy, tmp_path: Path) -> Path:
    """Return the little log in a data folder."""
    honest.write(DataFolder(tmp_path / "data"))
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, Any]:
    """Run verify-log with --json; return exit code and report."""
    code = verify_log.main([*map(str, argv), "--json"])
    printed = capsys.readouterr().out
    return code, json.loads(printed) if printed else None


def checks(report: Any) -> list[str]:
    """Return the checks that found something, in order."""
    return sorted({finding["check"] for finding in report["findings"]})


def test_a_good_log(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the key it is verified; without, it agrees with itself, and that is said."""
    assert verify_log.main([str(data), "--vkey", VKEY]) == 0
    assert capsys.readouterr().out.startswith("verified: 626 entries, 27 blocks, root ")
    assert verify_log.main([str(data)]) == 0
    assert capsys.readouterr().out.startswith("self-consistent only (no --vkey given)")
    code, report = run(capsys, data, "--vkey", VKEY)
    assert (code, report["verified"], report["signatures"], report["entries"]) == (0, True, True, 626)


def test_a_finding_is_printed_with_its_place(
    honest: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person reads which entry, what differs and since which checkpoint; a program reads the same as JSON."""
    copy = honest.copy()
    copy.edit("rows", 100, 50, b"\0\0\0")
    copy.write(DataFolder(tmp_path / "data"))
    assert verify_log.main([str(tmp_path / "data"), "--vkey", VKEY]) == 1
    printed = capsys.readouterr().out
    assert "entry 100: row: private row: checksum differs" in printed
    assert "[right up to checkpoint 98; first in doubt: 122]" in printed
    assert "NOT VERIFIED" in printed
    (finding,) = run(capsys, tmp_path / "data", "--vkey", VKEY)[1]["findings"]
    assert (finding["index"], finding["kind"], finding["good"], finding["bad"]) == (100, "altered", 98, 122)


def test_a_key_in_a_file_and_another_log_s_key(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key may stand in a file; with another key no checkpoint is accepted."""
    (tmp_path / "vkey").write_text(VKEY + "\n")
    assert run(capsys, data, "--vkey", tmp_path / "vkey")[0] == 0
    other = Ed25519Signer("example.org/drill", b"o" * 32).verifier.encode()
    code, report = run(capsys, data, "--vkey", other)
    assert (code, checks(report)) == (1, ["checkpoint"])


def test_what_was_saved_is_gone_on_from(
    honest: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--save writes after a good check only; --since reads the rest, and knows a log that was set back."""
    early, saved = honest.copy(), tmp_path / "saved"
    early.keep(10)
    early.reseal()
    early.write(DataFolder(tmp_path / "early"))
    honest.write(DataFolder(tmp_path / "late"))
    assert run(capsys, tmp_path / "early", "--vkey", VKEY, "--save", saved)[0] == 0
    code, report = run(capsys, tmp_path / "late", "--vkey", VKEY, "--since", saved, "--save", saved)
    assert (code, report["entries"], report["blocks"]) == (0, 626, 17)
    before = saved.read_bytes()
    code, report = run(capsys, tmp_path / "early", "--vkey", VKEY, "--since", saved, "--save", saved)
    assert (code, checks(report), saved.read_bytes()) == (1, ["since"], before)


def test_a_check_that_cannot_be_saved_is_told_all_the_same(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict took the time; a full disk, or a folder that is not there, costs the saved check alone."""
    save = verify_log.save

    def on_a_full_disk(path: Path, outcome: Outcome) -> bool:
        with files_at_most(100):
            return save(path, outcome)

    for saved, how in ((tmp_path / "saved", on_a_full_disk), (tmp_path / "nowhere/saved", save)):
        monkeypatch.setattr(verify_log, "save", how)
        for more in ([], ["--json"]):
            code = verify_log.main([str(data), "--vkey", VKEY, "--save", str(saved), *more])
            said = capsys.readouterr()
            assert (code, "626" in said.out, "verified" in said.out) == (2, True, True)
            assert f"verify-log: {saved}" in said.err
            assert "the log was checked, and the check was not saved" in said.err
        assert not saved.exists()


def test_the_verdict_says_how_old_the_newest_entry_is(
    honest: Copy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that was frozen, or a server that shows an old log, verifies: only its age tells."""
    newest = parse_leaf(honest.book().leaves[-1]).time_s
    published(honest, tmp_path / "public")
    for place in (data, tmp_path / "public"):
        assert verify_log.main([str(place), "--vkey", VKEY]) == 0
        assert f"\nnewest entry: {when(newest)}\n" in capsys.readouterr().out
        assert run(capsys, place, "--vkey", VKEY)[1]["newest_s"] == newest
    other = Ed25519Signer(KEY.name, b"o" * 32).verifier.encode()
    assert run(capsys, data, "--vkey", other)[1]["newest_s"] is None, (
        "of what is not verified nothing is said"
    )


def test_a_checkpoint_that_was_kept(
    honest: Copy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any signed checkpoint of the log must be a part of it; one that its key did not sign is a mistake."""
    kept = tmp_path / "kept"
    kept.write_bytes(honest.tables["checkpoints"][(98).to_bytes(8)])
    assert run(capsys, data, "--vkey", VKEY, "--checkpoint", kept)[0] == 0
    kept.write_bytes(sign_checkpoint(Checkpoint(KEY.name, 99, bytes(32)), KEY))
    code, report = run(capsys, data, "--vkey", VKEY, "--checkpoint", kept)
    assert (code, checks(report)) == (1, ["kept"])
    kept.write_bytes(sign_checkpoint(Checkpoint(KEY.name, 98, bytes(32)), Ed25519Signer(KEY.name, bytes(32))))
    assert run(capsys, data, "--vkey", VKEY, "--checkpoint", kept)[0] == 2


def test_a_checkpoint_of_another_log(
    honest: Copy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a key, too, what was kept of one log is not compared with another one in silence."""
    other = Ed25519Signer("example.org/other", bytes(32))
    kept = tmp_path / "kept"
    kept.write_bytes(sign_checkpoint(Checkpoint(other.name, 98, honest.blocks[4].root), other))
    code, report = run(capsys, data, "--checkpoint", kept)
    assert (code, checks(report)) == (1, ["kept"])
    assert "'example.org/other'" in report["findings"][0]["detail"]


def test_a_policy_where_nobody_has_cosigned(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks for witnesses is told that there are none."""
    witness = Cosigner("witness.example.org", b"w" * 32)
    (tmp_path / "policy").write_text(f"witness w {witness.verifier.encode()}\nquorum w\n")
    code, report = run(capsys, data, "--vkey", VKEY, "--policy", tmp_path / "policy")
    assert (code, checks(report)) == (1, ["quorum"])


def test_a_seal_that_lies_elsewhere(
    honest: Copy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--seal names it; where none is, that is said and is no finding."""
    (data / "log" / "0" / "seal").rename(tmp_path / "seal")
    code, report = run(capsys, data)
    assert code == 0
    assert "no seal at" in report["remarks"][0]
    code, report = run(capsys, data, "--seal", tmp_path / "seal")
    assert (code, report["remarks"]) == (0, [])
    early = honest.copy()
    early.keep(3)
    early.write(DataFolder(tmp_path / "early"))
    code, report = run(capsys, tmp_path / "early", "--seal", tmp_path / "seal")
    assert (code, checks(report)) == (1, ["seal"])


def test_a_file_with_damaged_pages_is_not_opened(
    honest: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged pages are found before LMDB maps the file, which could end the check; --anyway reads on."""
    copy = honest.copy()
    copy.after.append("page")
    copy.write(DataFolder(tmp_path / "data"))
    code, report = run(capsys, tmp_path / "data", "--vkey", VKEY)
    assert (code, checks(report), report["entries"]) == (1, ["structure"], 0)
    assert "entries were not read" in report["remarks"][0]
    code, report = run(capsys, tmp_path / "data", "--vkey", VKEY, "--anyway")
    assert (code, checks(report), report["entries"]) == (1, ["structure"], 626)


@pytest.mark.parametrize(
    "argv",
    [
        ["{}/nowhere"],
        ["{}/data", "--vkey", "nonsense"],
        ["{}/data", "--vault"],
        ["{}/data", "--since", "{}/nowhere"],
        ["{}/data", "--since", "{}/data/log/0/seal"],
        ["{}/data", "--checkpoint", "{}/data/log/0/seal"],
        ["{}/data", "--policy", "{}/data/log/0/seal"],
        ["http://127.0.0.1:9", "--vault"],
    ],
)
def test_what_cannot_be_checked_is_usage(
    data: Path, argv: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing there, no key, a file of another kind: exit code 2, a sentence, and no verdict."""
    assert verify_log.main([one.format(data.parent) for one in argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("verify-log: ")


# --- in public -----------------------------------------------------------------------------------


def published(copy: Copy, folder: Path, note: bytes | None = None) -> dict[str, Path]:
    """Lay a log out as C2SP tlog-tiles has it, by its leaves alone; return its files by path."""
    leaves = copy.book().leaves
    last = max(copy.tables["checkpoints"])
    files = {"checkpoint": copy.tables["checkpoints"][last] if note is None else note}
    rows = [[leaf_hash(leaf) for leaf in leaves]]
    while len(rows[-1]) >= 256:
        full = len(rows[-1]) // 256
        rows.append([Frontier.of(rows[-1][256 * n : 256 * n + 256]).root() for n in range(full)])
    for tile in tiles_between(0, len(leaves)):
        start = 256 * tile.index
        files[tile.path()] = encode_tile(rows[tile.level][start : start + tile.width])
        if tile.level == 0:
            files[Bundle(tile.index, tile.width).path()] = encode_bundle(leaves[start : start + tile.width])
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return {path: folder / path for path in files}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve tmp_path/public on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    (tmp_path / "public").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "public")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("below", ["", "log"])
def test_a_log_over_http(
    honest: Copy, served: str, below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A URL is checked by its public part, given as the log's prefix or as the server's address."""
    published(honest, tmp_path / "public" / below)
    code, report = run(capsys, served + "/", "--vkey", VKEY, "--save", tmp_path / "saved")
    assert (code, report["entries"], report["control"]) == (0, 626, 2)
    assert report["root"] == honest.blocks[-1].root.hex()
    assert run(capsys, served, "--vkey", VKEY, "--since", tmp_path / "saved")[0] == 0
    assert run(capsys, served + "/nothing", "--vkey", VKEY)[0] == 2


def test_what_only_knows_the_public_part_does_not_go_on_in_a_folder(
    honest: Copy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A saved check without blocks cannot be continued where blocks are checked; the other way round it can."""
    published(honest, tmp_path / "public")
    assert run(capsys, tmp_path / "public", "--save", tmp_path / "saved")[0] == 0
    assert run(capsys, data, "--since", tmp_path / "saved")[0] == 2
    assert run(capsys, data, "--save", tmp_path / "saved")[0] == 0
    assert run(capsys, tmp_path / "public", "--since", tmp_path / "saved")[0] == 0


def test_a_partial_tile_may_be_gone_once_the_full_one_is_there(
    honest: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to an older checkpoint, the full tile and bundle do for the partial ones (C2SP tlog-tiles)."""
    early = honest.copy()
    early.keep(12)
    files = published(early, tmp_path / "public")
    published(honest, tmp_path / "public", files["checkpoint"].read_bytes())
    for path in ("tile/0/001.p/10", "tile/entries/001.p/10"):
        files[path].unlink()
    code, report = run(capsys, tmp_path / "public", "--vkey", VKEY)
    assert (code, report["findings"], report["entries"]) == (0, [], early.blocks[-1].size)


PUBLIC = {
    "bit in a bundle": ("tile/entries/000", ["nodes", "root"]),
    "bit in a late bundle": ("tile/entries/002.p/114", ["nodes", "root"]),
    "bit in a tile": ("tile/0/001", ["nodes"]),
    "bit in a higher tile": ("tile/1/000.p/2", ["nodes"]),
    "bit in the checkpoint": ("checkpoint", ["checkpoint"]),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_one_bit_in_public(
    honest: Copy, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bit that flips in anything public is found, by the check that is about it."""
    path, expected = PUBLIC[name]
    file = published(honest, tmp_path / "public")[path]
    content = file.read_bytes()
    # In the checkpoint, a bit that leaves it readable: another one would make it no checkpoint at all.
    at = next(
        at
        for at in range(len(content) - 8, 0, -1)
        if path != "checkpoint" or bytes((content[at], content[at] ^ 1)).isalnum()
    )
    file.write_bytes(content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :])
    code, report = run(capsys, tmp_path / "public", "--vkey", VKEY)
    assert (code, checks(report)) == (1, expected)


@pytest.mark.parametrize(("path", "expected"), [("tile/entries/001", ["leaves"]), ("tile/0/000", ["nodes"])])
def test_what_is_not_published_is_found(
    honest: Copy, path: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle or a tile that is not there is missing, not passed over."""
    published(honest, tmp_path / "public")[path].unlink()
    code, report = run(capsys, tmp_path / "public", "--vkey", VKEY)
    assert (code, checks(report)) == (1, expected)


SIGNED: dict[str, tuple[int, bytes, str]] = {
    "another origin": (0, b'{"control":"origin","origin":"example.org/drilm"}', "origin"),
    "a second origin": (9, b'{"control":"origin","origin":"example.org/drill"}', "origin"),
    "a forged change of key": (9, b'{"control":"rotate"}', "keys"),
    "an entry of no form": (9, b"{", "entry"),
}


@pytest.mark.parametrize("name", SIGNED)
def test_what_must_not_be_signed_is_found_in_public(
    honest: Copy, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control entries that no log may have are found, whoever signed them."""
    index, body, expected = SIGNED[name]
    forged, book = honest.copy(), honest.book()
    book.leaves[index] = b"\x01\x02" + book.leaves[index][2:10] + body
    forged.rewrite(book)
    published(forged, tmp_path / "public")
    code, report = run(capsys, tmp_path / "public", "--vkey", VKEY)
    assert (code, checks(report)) == (1, [expected])


def test_a_long_log_in_public(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beyond 65,536 entries there is a third level of tiles; it is compared, and a check goes on across it."""
    size, time = 66_000, (1_700_000_000).to_bytes(8)
    origin = b"\x01\x02" + time + b'{"control":"origin","origin":"example.org/drill"}'
    book = Book(
        [origin, *(b"\x01\x01" + time + n.to_bytes(48) for n in range(1, size))], [b""] * size, [65_000, size]
    )
    copy = Copy({}, b"", KEY)
    copy.rewrite(book)
    early = Copy({}, b"", KEY)
    early.rewrite(Book(book.leaves[:65_000], book.rows[:65_000], [65_000]))
    published(early, tmp_path / "early")
    files = published(copy, tmp_path / "public")
    saved = tmp_path / "saved"
    assert run(capsys, tmp_path / "early", "--vkey", VKEY, "--save", saved)[0] == 0
    code, report = run(capsys, tmp_path / "public", "--vkey", VKEY, "--since", saved, "--save", saved)
    assert (code, report["root"]) == (0, copy.blocks[-1].root.hex())
    assert run(capsys, tmp_path / "public", "--vkey", VKEY, "--since", saved)[0] == 0
    for path, index in (("tile/2/000.p/1", 0), ("tile/1/001.p/1", 65_536), ("tile/1/000", 0)):
        content = files[path].read_bytes()
        files[path].write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
        findings = run(capsys, tmp_path / "public", "--vkey", VKEY)[1]["findings"]
        assert [(one["check"], one["index"]) for one in findings] == [("nodes", index)]
        files[path].write_bytes(content)
    book.leaves[65_536] = book.leaves[65_536][:2] + bytes(8) + book.leaves[65_536][10:]
    copy.rewrite(book)
    published(copy, tmp_path / "public")
    findings = run(capsys, tmp_path / "public", "--vkey", VKEY)[1]["findings"]
    assert [(one["check"], one["index"]) for one in findings] == [("time", 65_536)]


def test_a_history_rewritten_in_public(
    honest: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the right key nothing shows in it; a kept checkpoint, a saved check or a witness shows it."""
    published(honest, tmp_path / "before")
    assert run(capsys, tmp_path / "before", "--vkey", VKEY, "--save", tmp_path / "saved")[0] == 0
    forged, book = honest.copy(), honest.book()
    book.leaves[300] = book.leaves[300][:-1] + bytes((book.leaves[300][-1] ^ 1,))
    forged.rewrite(book)
    published(forged, tmp_path / "after")
    assert run(capsys, tmp_path / "after", "--vkey", VKEY)[0] == 0
    code, report = run(capsys, tmp_path / "after", "--vkey", VKEY, "--since", tmp_path / "saved")
    assert (code, checks(report)) == (1, ["since"])
    kept = tmp_path / "before" / "checkpoint"
    code, report = run(capsys, tmp_path / "after", "--vkey", VKEY, "--checkpoint", kept)
    assert (code, checks(report)) == (1, ["kept"])


def test_witnesses_in_public(honest: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a policy, the checkpoint must bear enough of its witnesses' signatures."""
    witness = Cosigner("witness.example.org", b"w" * 32)
    (tmp_path / "policy").write_text(f"witness w {witness.verifier.encode()}\nquorum w\n")
    published(honest, tmp_path / "public")
    code, report = run(capsys, tmp_path / "public", "--vkey", VKEY, "--policy", tmp_path / "policy")
    assert (code, checks(report)) == (1, ["quorum"])
    note = tmp_path / "public" / "checkpoint"
    note.write_bytes(sign_note(Note.decode(note.read_bytes()).text, [KEY, witness.at(1)]))
    assert run(capsys, tmp_path / "public", "--vkey", VKEY, "--policy", tmp_path / "policy")[0] == 0
