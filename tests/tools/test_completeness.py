"""What `check-complete` says is what it has shown: under a tag key, and of a name only where an opening ties it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import pytest

from archive import DataFolder
from tests.api.front import Front
from tests.world import event
from tools import export, receipt

ANN = "student:ann"


class Given(NamedTuple):
    """What an auditor is given: ann's folder, the public leaves, the log's key."""

    ann: Path
    public: Path
    vkey: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Return the folder of ann, who has three entries, and what else an auditor is given."""
    path = tmp_path_factory.mktemp("exported")
    front = Front(path / "data")
    front.archiver.step([event("ann"), event("bob"), event("ann"), event("ann")])
    front.close()
    assert export.main(["tiles", str(path / "public"), "--data", str(path / "data")]) == 0
    arguments = ["subject", ANN, "--data", str(path / "data"), "--out", str(path / "ann"), "--tag-key"]
    assert export.main(arguments) == 0
    vkey = DataFolder(path / "data").signer(os.urandom).verifier.encode()
    return Given(path / "ann", path / "public", vkey)


@pytest.fixture
def given(exported: Given, tmp_path: Path) -> Given:
    """Return the same, to be altered."""
    return exported._replace(ann=Path(copytree(exported.ann, tmp_path / "ann")))


class Said(NamedTuple):
    """What the command answered."""

    code: int
    out: str
    error: str
    json: Any


def check(given: Given, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run the command twice, for people and for programs."""
    arguments = ["check-complete", str(given.ann), "--leaves", str(given.public), "--vkey", given.vkey]
    capsys.readouterr()
    code = receipt.main(arguments)
    shown = capsys.readouterr()
    assert receipt.main([*arguments, "--json"]) == code
    printed = capsys.readouterr().out
    return Said(code, shown.out, shown.err, json.loads(printed) if printed else None)


def rewrite(given: Given, **changes: Any) -> None:
    """Change what subject.json says of its first subject; `subjects` replaces the list itself."""
    path = given.ann / "subject.json"
    manifest = json.loads(path.read_text())
    if "subjects" in changes:
        manifest["subjects"] = changes["subjects"]
    else:
        manifest["subjects"][0] |= changes
    path.write_text(json.dumps(manifest))


def openings(given: Given) -> list[Path]:
    """Return the files of the openings."""
    return sorted(given.ann.glob("entries/*.opening.json"))


def test_a_name_is_vouched_for_by_the_openings(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """All three are there and name ann: that is what is said, of the tag key and of her."""
    said = check(given, capsys)
    assert said.code == 0
    assert said.out == (
        "complete: 3 entries under this tag key among the first 6, each once, and no other\n"
        "  the key is that of student:ann: so say the openings of 3 of them\n"
        "whether entries of other subjects concern them also is not shown: none is listed\n"
    )
    (one,) = said.json["subjects"]
    assert one == {"name": ANN, "named": True, "entries": 3, "opened": 3, "missing": 0, "also": 0}


def test_openings_that_are_not_there_are_counted(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is missing may have been erased, or kept back; the others still say whose the key is."""
    openings(given)[0].unlink()
    said = check(given, capsys)
    assert said.code == 0
    assert "so say the openings of 2 of them" in said.out
    assert "1 opening is not there (erased, rotten, or kept back)" in said.out
    (one,) = said.json["subjects"]
    assert (one["named"], one["opened"], one["missing"]) == (True, 2, 1)


def test_a_name_without_openings_is_the_sender_s_claim(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another name under ann's key, her openings deleted: the list is complete, and whose it is was not shown."""
    rewrite(given, name="student:bob")
    for path in openings(given):
        path.unlink()
    said = check(given, capsys)
    assert said.code == 0
    assert "complete: 3 entries under this tag key" in said.out
    assert "that the key is that of student:bob is the sender's claim: no opening shows it" in said.out
    assert "3 openings are not there" in said.out
    assert said.json["subjects"][0]["named"] is False


def test_a_key_that_was_made_up_names_nobody(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """Under a random key there is no entry, and that says nothing of ann."""
    rewrite(given, tag_key="5" * 64, indices=[])
    said = check(given, capsys)
    assert said.code == 0
    assert said.out.startswith("complete: no entry under this tag key among the first 6\n")
    assert "sender's claim" in said.out
    assert said.json["subjects"][0]["named"] is False


def test_one_opening_that_names_another_is_a_finding(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    """As long as one opening is there, another name cannot be put over it."""
    rewrite(given, name="student:bob")
    for path in openings(given)[1:]:
        path.unlink()
    said = check(given, capsys)
    assert said.code == 1
    assert "is number 1 of student:ann" in said.out


def test_a_link_that_leads_nowhere_is_no_erased_entry(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something was put there that cannot be read: a finding, not one of those that are not there."""
    path = openings(given)[0]
    path.unlink()
    path.symlink_to("nowhere")
    said = check(given, capsys)
    assert said.code == 1
    assert "opening.json: No such file" in said.out


@pytest.mark.parametrize(
    ("subjects", "says"),
    [
        ([], "names no subject: nothing can be shown"),
        ([{"name": ANN, "indices": [], "tag_key": "5" * 64}] * 2, "names student:ann twice"),
        ([{"name": ANN, "indices": [], "tag_key": "55"}], "not 64 hexadecimal digits"),
        ([{"name": ANN, "indices": [], "tag_key": "x" * 64}], "not 64 hexadecimal digits"),
    ],
)
def test_a_list_that_says_nothing_is_refused(
    given: Given, subjects: list[Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listed, one twice, no key that could have tags: never "complete"."""
    rewrite(given, subjects=subjects)
    said = check(given, capsys)
    assert (said.code, said.out) == (1, "")
    assert says in said.error


def test_that_several_subjects_are_one_person_is_not_said(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each list is complete under its own key; who put them together is the sender."""
    manifest = json.loads((given.ann / "subject.json").read_text())
    other = {"name": "provisional:1-0", "indices": [], "tag_key": "5" * 64}
    rewrite(given, subjects=[*manifest["subjects"], other])
    said = check(given, capsys)
    assert said.code == 0
    assert said.out.endswith("that these are one person is the sender's claim\n")


NASTY = "student:ann\x1b[2K\rcomplete\u202e"


def test_a_name_cannot_write_over_the_verdict(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a name are shown as escapes, in the verdict, in findings and in errors."""
    whole = json.loads((given.ann / "subject.json").read_text())["subjects"][0]
    for changes in ({}, {"indices": whole["indices"][1:]}, {"tag_key": "x"}):
        rewrite(given, subjects=[{**whole, **changes, "name": NASTY}])
        said = check(given, capsys)
        assert said.code == 1
        assert all(line.isprintable() for line in (said.out + said.error).splitlines())
    for path in openings(given):
        path.unlink()
    rewrite(given, subjects=[{**whole, "name": NASTY}])
    said = check(given, capsys)
    assert said.code == 0
    assert "student:ann\\x1b[2K\\rcomplete\\u202e is the sender's claim" in said.out
    assert said.json["subjects"][0]["name"] == NASTY
