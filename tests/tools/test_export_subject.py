"""A subject's folder holds what also concerns them and what rotted, and `check-complete` says what of it is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from archive import DataFolder, Opening
from tests.api.front import Front
from tests.archive.rotting import CLOSED, FORM, NUMBER, rot_file
from tests.world import connection, event, frames, raw_event
from tools import export, receipt

ANN, ZOE, BEFORE = "student:ann", "student:testcase-zoe", "provisional:0000000000000001-0"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a log: 2 and 4 of ann, 3 of bob, 5 of a source and about both, and a connection that becomes zoe's."""
    front = Front(tmp_path / "data")
    front.archiver.step([event("ann"), event("bob"), event("ann")])
    front.archiver.step([raw_event(b'{"about":"both"}', {}, also=[ANN, "student:bob"])])
    front.archiver.step(frames(connection(), {"event": "a"}, {"event": "b", "user_id": "zoe"}))
    front.close()
    return tmp_path / "data"


class Folder:
    """What the commands do with one subject's folder, and say."""

    def __init__(self, data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self.name, self.capsys = data, name, capsys
        self.path = data.parent / name.replace(":", "-")
        self.public = data.parent / "public"
        self.vkey = DataFolder(data).signer(os.urandom).verifier.encode()

    def export(self, *more: str) -> tuple[int, str]:
        """Export the subject; return exit code and what was said."""
        arguments = ["subject", self.name, "--data", str(self.data), "--out", str(self.path), "--tag-key"]
        code = export.main([*arguments, *more])
        return code, self.capsys.readouterr().out

    def check(self) -> tuple[int, str, Any]:
        """Check that it is complete; return exit code, what was said, and the same as JSON."""
        assert export.main(["tiles", str(self.public), "--data", str(self.data)]) == 0
        command = ["check-complete", str(self.path), "--leaves", str(self.public), "--vkey", self.vkey]
        self.capsys.readouterr()
        code = receipt.main(command)
        said = self.capsys.readouterr().out
        assert receipt.main([*command, "--json"]) == code
        return code, said, json.loads(self.capsys.readouterr().out)

    def files(self) -> list[str]:
        """Return the names of receipts and openings."""
        return sorted(path.name for path in (self.path / "entries").iterdir())

    def manifest(self) -> Any:
        """Return subject.json."""
        return json.loads((self.path / "subject.json").read_text())

    def rewrite(self, manifest: Any) -> None:
        """Replace subject.json."""
        (self.path / "subject.json").write_text(json.dumps(manifest))


@pytest.fixture
def ann(data: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    """Return ann's folder, which is not there yet."""
    return Folder(data, ANN, capsys)


# --- what also concerns her ------------------------------------------------------------------------


def test_what_also_concerns_her_is_exported_with_receipt_and_opening(ann: Folder) -> None:
    """It is in a list of its own, and counted apart."""
    code, said = ann.export()
    assert (code, said) == (
        0,
        f"exported: 2 entries of {ANN}, and 1 that also concern them, with receipts and openings\n",
    )
    (listed,) = ann.manifest()["subjects"]
    assert (listed["indices"], listed["also"]) == ([2, 4], [5])
    opening = Opening.from_json((ann.path / "entries/5.opening.json").read_bytes())
    assert opening.payload == b'{"about":"both"}'
    assert (ann.path / "entries/5.tlog-proof").exists()


def test_what_is_shown_and_what_is_only_listed_are_told_apart(ann: Folder) -> None:
    """Her own are all there are; the other is listed, and that it is all is not claimed."""
    ann.export()
    code, said, answer = ann.check()
    assert code == 0
    assert said.startswith("complete: 2 entries under this tag key")
    assert said.endswith(
        "listed only: 1 entry of other subjects that concerns them also; that this is all is not shown\n"
    )
    assert (answer["subjects"][0]["entries"], answer["subjects"][0]["also"]) == (2, 1)


@pytest.mark.parametrize(
    ("file", "other"),
    [("5.tlog-proof", "4.tlog-proof"), ("5.opening.json", "4.opening.json"), ("5.tlog-proof", None)],
)
def test_what_also_concerns_her_must_belong_to_its_leaf(ann: Folder, file: str, other: str | None) -> None:
    """Another's receipt or opening, or no receipt, is a finding there as well."""
    ann.export()
    entries = ann.path / "entries"
    if other is None:
        (entries / file).unlink()
    else:
        (entries / file).write_bytes((entries / other).read_bytes())
    code, _, answer = ann.check()
    assert (code, [one["index"] for one in answer["findings"]]) == (1, [5])


@pytest.mark.parametrize(("also", "found"), [([5, 5], 5), ([4], 4), ([99], 99), ([-1], -1)])
def test_a_list_of_what_also_concerns_her_names_each_once(ann: Folder, also: list[int], found: int) -> None:
    """One that stands twice, one that is her own, one that is no entry: all are findings."""
    ann.export()
    manifest = ann.manifest()
    manifest["subjects"][0]["also"] = also
    ann.rewrite(manifest)
    code, _, answer = ann.check()
    assert (code, [one["index"] for one in answer["findings"]]) == (1, [found])


@pytest.mark.parametrize(("version", "found"), [(1, []), (2, [3])])
def test_an_opening_names_whom_it_also_concerns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: int,
    found: list[int],
) -> None:
    """Another's entry shows nothing about her unless its header names her; older headers do not, and are let pass."""
    monkeypatch.setattr("archive.archiver.HEADER_VERSION", version)
    monkeypatch.setattr("archive.drafting.told", lambda one: one)
    front = Front(tmp_path / "data")
    front.archiver.step([event("ann"), raw_event(b'{"about":"her"}', {}, also=[ANN])])
    front.close()
    ann = Folder(tmp_path / "data", ANN, capsys)
    ann.export()
    assert ann.manifest()["subjects"][0]["also"] == [3]
    code, _, answer = ann.check()
    assert (code, [one["index"] for one in answer["findings"]]) == (1 if found else 0, found)


def test_another_s_entry_is_not_passed_off_as_one_that_also_concerns_her(ann: Folder) -> None:
    """What is about others alone, or about one of them and bob, may be listed; its opening says that it is not hers."""
    ann.export()
    bob = Folder(ann.data, "student:bob", ann.capsys)
    bob.export()
    entries = ann.path / "entries"
    for name in ("3.tlog-proof", "3.opening.json"):
        (entries / name).write_bytes((bob.path / "entries" / name).read_bytes())
    manifest = ann.manifest()
    manifest["subjects"][0]["also"] = [3, 5]
    ann.rewrite(manifest)
    code, _, answer = ann.check()
    (finding,) = answer["findings"]
    assert (code, finding["index"]) == (1, 3)
    assert "does not name student:ann" in finding["detail"]


def test_an_own_entry_is_no_other_s_though_nobody_can_open_it(ann: Folder) -> None:
    """What was erased is in one of the lists only, as everything is."""
    ann.export()
    manifest = ann.manifest()
    manifest["subjects"][0]["also"] = [4]
    ann.rewrite(manifest)
    (ann.path / "entries/4.opening.json").unlink()
    code, _, answer = ann.check()
    assert (code, [one["detail"] for one in answer["findings"]]) == (1, [f"it is listed twice for {ANN}"])


def test_an_own_entry_is_not_hidden_among_those_of_others(ann: Folder) -> None:
    """Her tag is in its leaf, and her name in its opening."""
    ann.export()
    manifest = ann.manifest()
    manifest["subjects"][0] |= {"indices": [2], "also": [4, 5]}
    ann.rewrite(manifest)
    code, said, answer = ann.check()
    assert code == 1
    assert {one["index"] for one in answer["findings"]} == {4}
    assert "beyond the 1 listed" in said
    assert "is its first subject" in said


# --- what rotted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [CLOSED, FORM, NUMBER])
def test_a_rotten_row_of_another_stops_no_export(ann: Folder, place: int) -> None:
    """Hers are written; the other is named, for it may concern her, and the exit code says so."""
    rot_file(DataFolder(ann.data), 3, place)
    code, said = ann.export()
    assert code == 1
    assert said.endswith(
        "entry 3 cannot be read: it may be theirs, or concern them also (docs/recovery.md)\n"
    )
    assert ann.files() == [f"{n}.{kind}" for n in (2, 4, 5) for kind in ("opening.json", "tlog-proof")]
    assert ann.check()[0] == 0


@pytest.mark.parametrize("place", [CLOSED, FORM, NUMBER])
def test_a_rotten_row_of_hers_has_its_receipt_only(ann: Folder, place: int) -> None:
    """Whichever byte changed: the entry is listed, its opening is not there, and the list is complete."""
    rot_file(DataFolder(ann.data), 4, place)
    code, said = ann.export()
    assert code == 1
    assert "entry 4 is rotten, and has its receipt only" in said
    assert ("4.tlog-proof" in ann.files(), "4.opening.json" in ann.files()) == (True, False)
    code, said, _ = ann.check()
    assert (code, "1 opening is not there" in said) == (0, True)


def test_a_rotten_row_is_told_to_programs(ann: Folder) -> None:
    """Those that cannot be read, those that rotted, and those whose keys are gone are three lists."""
    rot_file(DataFolder(ann.data), 3, NUMBER)
    rot_file(DataFolder(ann.data), 4)
    code, said = ann.export("--json")
    answer = json.loads(said)
    assert code == 1
    assert (answer["also"], answer["rotten"], answer["unread"], answer["closed"]) == ([5], [4], [3], [])


# --- whom she was before ---------------------------------------------------------------------------


def test_a_provisional_subject_that_was_cut_from_the_list_is_found(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The opening of her binding names it: a folder that does not list it leaves something out."""
    zoe = Folder(data, ZOE, capsys)
    assert zoe.export()[0] == 0
    assert zoe.check()[0] == 0
    manifest = zoe.manifest()
    binding = manifest["subjects"][0]["indices"][0]
    assert [one["name"] for one in manifest["subjects"]] == [ZOE, BEFORE]
    manifest["subjects"].pop()
    zoe.rewrite(manifest)
    code, said, answer = zoe.check()
    assert code == 1
    assert f"it binds {BEFORE}, which is not listed: it was left out" in said
    assert [one["index"] for one in answer["findings"]] == [binding]
