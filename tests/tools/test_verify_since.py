"""verify-log --since, where nothing of what was verified is read again: all that is remembered must still count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from archive import STRETCH, DataFolder, rotation_body
from archive.entry import encode_control
from merkle import Cosigner, Ed25519Signer, Note, key_label, sign_note
from tests.archive.test_fsck import row
from tests.tools.test_verify_log import published
from tools import verify_log
from tools.drill_copy import Book, Copy

KEYS = [Ed25519Signer("example.org/log", bytes([n]) * 32) for n in (1, 2, 3)]
WITNESS = Cosigner("witness.example.org/w", b"w" * 32)
TIME_S = 1_700_000_000
ORIGIN = {"control": "origin", "origin": "example.org/log", "format": 1, "created": TIME_S}


def private(number: int, time_s: int = TIME_S) -> bytes:
    """Return a private leaf that commits to nothing."""
    return b"\x01\x01" + time_s.to_bytes(8) + number.to_bytes(48)


def book(size: int, first: int = 0) -> Book:
    """Return a log of so many entries; with another `first`, another log."""
    leaves = [encode_control(TIME_S, ORIGIN), *(private(first + n) for n in range(1, size))]
    return Book(leaves, [b"", *map(row, range(1, size))], [2, 500, 501, 1_000, STRETCH])


def made(of: Book, rotated: list[int]) -> Copy:
    """Return the log in a database; after each entry of `rotated` the next key signs."""
    copy = Copy({}, b"", KEYS[0])
    copy.rewrite(of)
    for key, note in copy.tables["checkpoints"].items():
        signer = KEYS[sum(int.from_bytes(key) > at + 1 for at in rotated)]
        copy.tables["checkpoints"][key] = sign_note(Note.decode(note).text, [signer])
    return copy


def rotate(of: Book, at: int, key: int) -> None:
    """Put a rotation to key number `key` into a log, in place of an entry or at the end."""
    of.leaves[at : at + 1] = [encode_control(TIME_S, rotation_body(at, KEYS[key - 1], KEYS[key]))]
    of.rows[at : at + 1] = [b""]


def add(of: Book, time_s: int = TIME_S) -> None:
    """Let a log grow by one entry and a commit."""
    of.leaves.append(private(len(of.leaves), time_s))
    of.rows.append(row(len(of.rows)))
    of.sizes.append(len(of.leaves))


class Before(NamedTuple):
    """A log of one whole stretch that was verified, in a folder and in public."""

    copy: Copy
    saved: Path
    """By the check of the folder."""
    seen: Path
    """By the check in public."""
    public: Path


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """Return such a log."""
    path = tmp_path_factory.mktemp("before")
    copy = made(book(STRETCH), [])
    copy.write(DataFolder(path / "data"))
    published(copy, path / "public")
    for place, saved in (("data", "saved"), ("public", "seen")):
        arguments = [str(path / place), "--vkey", KEYS[0].verifier.encode(), "--save", str(path / saved)]
        assert verify_log.main(arguments) == 0
    return Before(copy, path / "saved", path / "seen", path / "public")


def run(capsys: pytest.CaptureFixture[str], key: int, *arguments: object) -> tuple[int, Any]:
    """Run verify-log with a key; return exit code, and report or complaint."""
    capsys.readouterr()
    code = verify_log.main([*map(str, arguments), "--vkey", KEYS[key].verifier.encode(), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else said.err


def checks(report: Any) -> list[tuple[str, int | None]]:
    """Return check and index of each finding."""
    return [(one["check"], one["index"]) for one in report["findings"]]


def test_nothing_new_in_public_is_not_nothing_at_all(
    before: Before, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdict has the size, root and time of what was verified, and what is saved again is the same."""
    again = tmp_path / "again"
    code, report = run(capsys, 0, before.public, "--since", before.seen, "--save", again)
    assert (code, report["entries"], report["newest_s"]) == (0, STRETCH, TIME_S)
    assert report["root"] == before.copy.blocks[-1].root.hex()
    assert again.read_bytes() == before.seen.read_bytes()


def test_time_goes_on_from_where_it_stood_in_public(
    before: Before, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first new entry must not be earlier than the last one that was verified."""
    grown = before.copy.book()
    add(grown, TIME_S - 500)
    published(made(grown, []), tmp_path)
    code, report = run(capsys, 0, tmp_path, "--since", before.seen)
    assert (code, checks(report)) == (1, [("time", STRETCH)])
    grown = before.copy.book()
    grown.leaves[-1] = private(STRETCH - 1, TIME_S + 9)  # verified as far as 1,000, and read again from 0
    early = Book(grown.leaves[:1_000], grown.rows[:1_000], [1_000])
    early.leaves[-1] = grown.leaves[999] = private(999, TIME_S + 5)
    grown.leaves[1_000:] = [private(n, TIME_S + 5) for n in range(1_000, STRETCH)]
    published(made(early, []), tmp_path / "early")
    published(made(grown, []), tmp_path / "late")
    assert run(capsys, 0, tmp_path / "early", "--save", tmp_path / "saved")[0] == 0
    assert run(capsys, 0, tmp_path / "late", "--since", tmp_path / "saved")[0] == 0


@pytest.mark.parametrize("public", [False, True])
def test_a_fork_that_was_kept_is_found_where_reading_begins(
    before: Before, public: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of the very size at which the check goes on, of another log: found, whether the log grew or not."""
    fork = made(book(STRETCH, first=9), [])
    (tmp_path / "kept").write_bytes(fork.tables["checkpoints"][STRETCH.to_bytes(8)])
    grown = before.copy.book()
    add(grown)
    for name, copy in (("same", before.copy), ("grown", made(grown, []))):
        if public:
            published(copy, tmp_path / name)
        else:
            copy.write(DataFolder(tmp_path / name))
        since = ["--since", before.seen if public else before.saved]
        code, report = run(capsys, 0, tmp_path / name, *since, "--checkpoint", tmp_path / "kept")
        assert (code, checks(report)) == (1, [("kept", STRETCH - 1)])


def test_witnesses_of_a_fork_are_found_before_since(
    before: Before, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was cosigned may be smaller than what was verified; it must lead there, or nothing is called cosigned."""
    policy = tmp_path / "policy"
    policy.write_text(f"log {KEYS[0].verifier.encode()}\nwitness w {WITNESS.verifier.encode()}\nquorum w\n")
    for name, source in (("fork", made(book(STRETCH, first=9), [])), ("log", before.copy)):
        copy, text = before.copy.copy(), Note.decode(source.tables["checkpoints"][(1_000).to_bytes(8)]).text
        copy.cosigned = sign_note(text, [KEYS[0], WITNESS.at(1)])
        copy.write(DataFolder(tmp_path / name))
        code, report = run(capsys, 0, tmp_path / name, "--since", before.saved, "--policy", policy)
        assert (code, report["cosigned"]) == (1 if name == "fork" else 0, 1_000)
        assert checks(report) == ([("kept", 999)] if name == "fork" else [])


def test_a_change_of_key_before_since_is_no_accusation(
    before: Before, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In public it is not read again, so the log's first key does not lead to the last: which to bring is said."""
    rotating = before.copy.book()
    rotate(rotating, 500, 1)
    published(made(rotating, [500]), tmp_path / "early")
    assert run(capsys, 0, tmp_path / "early", "--save", tmp_path / "saved")[0] == 0
    add(rotating)
    published(made(rotating, [500]), tmp_path / "late")
    since = ["--since", tmp_path / "saved"]
    code, said = run(capsys, 0, tmp_path / "late", *since)
    assert code == 2
    assert f"signed by: {key_label(KEYS[1].verifier)}" in said
    assert "bring the key of later" in said
    assert run(capsys, 1, tmp_path / "late", *since)[0] == 0
    rotate(rotating, STRETCH + 1, 2)  # and once more, which is read: it leads back to the second key only
    rotating.sizes.append(STRETCH + 2)
    add(rotating)
    published(made(rotating, [500, STRETCH + 1]), tmp_path / "later")
    code, said = run(capsys, 0, tmp_path / "later", *since)
    assert code == 2
    assert "bring the key of later" in said
    for key in (1, 2):
        assert run(capsys, key, tmp_path / "later", *since)[0] == 0


def test_a_strange_key_on_another_history_is_still_a_finding(
    before: Before, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the log does not continue what was verified, no key that one might bring would mend it."""
    forged = made(book(STRETCH, first=9), [0, 0])
    published(forged, tmp_path)
    code, report = run(capsys, 0, tmp_path, "--since", before.seen)
    assert code == 1
    assert ("checkpoint", None) in checks(report)
