"""Of a log that changed its key, a checkpoint counts only under the key whose turn it was; a lone receipt warns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import pytest

from archive import DataFolder
from merkle import Ed25519Signer, Note, key_label, sign_note
from tests.world import event
from tools import export, keys, receipt
from tools.archiver import build

ANN = "student:ann"


class Rotated(NamedTuple):
    """A log's two keys, and ann's folder and the public log from before the change and from after it."""

    path: Path
    old: Ed25519Signer
    new: Ed25519Signer

    def vkeys(self, names: str) -> list[str]:
        """Return the arguments that give some of the keys, by a word such as "old new"."""
        known = {"old": self.old, "new": self.new}
        return [part for name in names.split() for part in ("--vkey", known[name].verifier.encode())]

    def sign_again(self, place: str, signer: Ed25519Signer) -> None:
        """Let another key sign the checkpoint of a folder."""
        path = self.path / place / "checkpoint"
        path.write_bytes(sign_note(Note.decode(path.read_bytes()).text, [signer]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rotated:
    """Return a log of two commits and a change of its key between them."""
    path = tmp_path_factory.mktemp("rotated")
    folder = DataFolder(path / "data")
    folder.create()

    def grow() -> None:
        archiver = build(folder, None, None)
        archiver.open({"software": "test"})
        archiver.step([event("ann"), event("bob"), event("ann")])

    def exported(suffix: str) -> Ed25519Signer:
        data = ["--data", str(path / "data")]
        assert export.main(["tiles", str(path / f"public-{suffix}"), *data]) == 0
        assert export.main(["subject", ANN, "--out", str(path / f"ann-{suffix}"), "--tag-key", *data]) == 0
        return folder.signer(os.urandom)

    grow()
    old = exported("before")
    assert keys.main(["rotate", "--data", str(path / "data")]) == 0
    exported("between")
    grow()
    return Rotated(path, old, exported("after"))


@pytest.fixture
def rotated(made: Rotated, tmp_path: Path) -> Rotated:
    """Return what was exported, to be altered."""
    for when in ("before", "between", "after"):
        for what in ("public", "ann"):
            copytree(made.path / f"{what}-{when}", tmp_path / f"{what}-{when}")
    return made._replace(path=tmp_path)


def complete(
    rotated: Rotated, folder: str, leaves: str, names: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Check that a folder is complete; return exit code and all that was said."""
    capsys.readouterr()
    arguments = ["check-complete", str(rotated.path / folder), "--leaves", str(rotated.path / leaves)]
    code = receipt.main([*arguments, *rotated.vkeys(names)])
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("folder", "leaves", "names"),
    [
        ("ann-after", "public-after", "new"),
        ("ann-after", "public-after", "old new"),
        ("ann-after", "public-after", "new old"),
        ("ann-before", "public-after", "old new"),
        ("ann-between", "public-after", "old new"),
        ("ann-before", "public-before", "old"),
        ("ann-after", "public-after", ""),
    ],
)
def test_a_change_of_key_is_followed(
    rotated: Rotated, folder: str, leaves: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders from before and after it are complete, in whichever order the keys are given."""
    code, said = complete(rotated, folder, leaves, names, capsys)
    assert (code, said.startswith("complete")) == (0, True)


@pytest.mark.parametrize("places", [["public-after"], ["ann-after"], ["public-after", "ann-after"]])
def test_a_log_that_was_carried_on_under_the_old_key_is_refused(
    rotated: Rotated, places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its leaves say that the key's time is over: no checkpoint of later counts under it, though it is given."""
    for place in places:
        rotated.sign_again(place, rotated.old)
    code, said = complete(rotated, "ann-after", "public-after", "old new", capsys)
    assert code == 1
    assert f"is not signed by the key of that size, {key_label(rotated.new.verifier)}" in said


def test_a_key_whose_time_had_not_come_is_refused(
    rotated: Rotated, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was exported before the change is signed by the key of then."""
    rotated.sign_again("ann-before", rotated.new)
    code, said = complete(rotated, "ann-before", "public-after", "old new", capsys)
    assert code == 1
    assert f"is not signed by the key of that size, {key_label(rotated.old.verifier)}" in said


@pytest.mark.parametrize("names", ["old new", "new old"])
def test_leaves_that_do_not_lead_to_a_known_key_are_refused(
    rotated: Rotated, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy from before the change may be one that a thief carried on: who knows the new key asks for a newer."""
    code, said = complete(rotated, "ann-before", "public-before", names, capsys)
    assert code == 1
    assert f"do not lead to the key {key_label(rotated.new.verifier)}" in said
    assert "take a copy that is signed by the present key" in said


@pytest.mark.parametrize("names", ["old", "old new"])
def test_a_copy_that_ends_at_the_change_is_taken_with_a_warning(
    rotated: Rotated, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the new key, which has not signed it yet: whoever has the old one could have made it all."""
    code, said = complete(rotated, "ann-between", "public-between", names, capsys)
    assert code == 0
    assert said.startswith("warning: the copy ends where the log changed its key")
    assert f"{key_label(rotated.old.verifier)}: whoever has that" in said


def check(rotated: Rotated, folder: str, names: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    """Check the receipt of ann's first entry; return what was said, and the same as JSON."""
    index = json.loads((rotated.path / folder / "subject.json").read_text())["subjects"][0]["indices"][0]
    file = str(rotated.path / folder / f"entries/{index}.tlog-proof")
    capsys.readouterr()
    assert receipt.main(["check", file, *rotated.vkeys(names)]) == 0
    said = capsys.readouterr().out
    assert receipt.main(["check", file, *rotated.vkeys(names), "--json"]) == 0
    return said, json.loads(capsys.readouterr().out)


def test_a_receipt_under_a_retired_key_says_so(rotated: Rotated, capsys: pytest.CaptureFixture[str]) -> None:
    """A receipt holds no rotation: that whoever has the old key could have made it is said, and what to do."""
    said, answer = check(rotated, "ann-before", "old new", capsys)
    (warning,) = answer["warnings"]
    assert f"warning: {warning}\n" in said
    assert f"under a retired key, {key_label(rotated.old.verifier)}" in warning
    assert "compare with check-complete, or ask for a receipt under the present key" in warning
    assert answer["retired"] is True


@pytest.mark.parametrize(
    ("folder", "names"),
    [("ann-after", "old new"), ("ann-after", "new"), ("ann-before", "old"), ("ann-before", "new old")],
)
def test_a_receipt_under_the_last_key_has_no_warning(
    rotated: Rotated, folder: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last key that is given is the present one, as far as anybody said; of several, it is said which that is."""
    said, answer = check(rotated, folder, names, capsys)
    assert (answer["warnings"], "warning" in said) == ([], False)
    last = rotated.new if names.endswith("new") else rotated.old
    assert answer["key"] == key_label(last.verifier)
    assert (f"{answer['key']}, taken for the present key: it was given last\n" in said) == (" " in names)


@pytest.mark.parametrize("names", ["old", "old old"])
def test_of_a_single_key_it_is_said_that_its_time_is_not_known(
    rotated: Rotated, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who forges under a stolen key hands that key out, too: a line says what would tell, and null stands for it."""
    line = (
        "by one key: whether the log has given it up is not known; "
        "--vkey again for each that `treering keys history` lists, the present one last\n"
    )
    said, answer = check(rotated, "ann-before", names, capsys)
    assert line in said
    assert (answer["retired"], answer["warnings"]) == (None, [])
    for more, retired in (("old new", True), ("new old", False)):
        said, answer = check(rotated, "ann-before", more, capsys)
        assert "by one key" not in said
        assert answer["retired"] is retired
