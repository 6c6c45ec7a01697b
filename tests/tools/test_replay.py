"""treering replay: what it says, writes and refuses, and that a check finds what is not so."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest

from archive import Activate, LmdbStore, Retry, Skip, Write
from reducers import shipped
from replay import STATE_TABLES, generation_of, info_of, module_folder, shard_folder, state_key
from replay.layout import decode_stored, encode_stored
from tests.tools.left import Installed as Left
from tests.tools.left import package
from tests.world import event
from tools import replay, replay_hands
from tools.loading import identities

ESSAY = '''
    """Points of an essay."""
    from typing import Any, NamedTuple
    from reducers import Event, reducer

    @reducer(scope=("student", "doc_id"), version=1)
    def points(state: dict[str, Any], event: Event) -> dict[str, Any]:
        """Count what is not bad."""
        if event.type == "bad":
            raise ValueError("a bad one")
        return {"points": state.get("points", 0) + 1}

    REDUCERS = [points]
'''


class Copied(NamedTuple):
    """A copy of what was left."""

    data: Path


def run(capsys: pytest.CaptureFixture[str], left: Left | Copied, *argv: object) -> tuple[int, Any]:
    """Run treering replay with --json; return exit code and report."""
    code = replay.main(["--data", str(left.data), "--json", *map(str, argv)])
    printed = capsys.readouterr().out
    return code, json.loads(printed) if printed else None


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """Return what a server left behind: events of three students, and two attestations that are true."""
    made = Left(tmp_path_factory.mktemp("left") / "data")
    names = ("ann", "bob", "eve")
    made.append(*(event(name, doc_id="d") for name in names for _ in range(3)))
    made.attest("event_count", 6)
    made.append(*(event(name) for name in names))
    made.attest("event_count", 11)
    made.close()
    return made


@pytest.fixture
def left(original: Left, tmp_path: Path) -> Copied:
    """Return a copy of it, to do with what one likes."""
    shutil.copytree(original.data, tmp_path / "data")
    return Copied(tmp_path / "data")


# --- checking ------------------------------------------------------------------------------------


def test_what_workers_saved_is_what_the_log_says(left: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    """The live states of each module and the attestations are equal, and the numbers say how much was compared."""
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"], report["size"]) == (0, True, 16)
    assert report["compared"]["activity"] > 6
    assert report["attestations"]["equal"] == 2
    assert report["differences"] == report["incomplete"] == []
    assert replay.main(["--data", str(left.data), "--check"]) == 0
    printed = capsys.readouterr()
    assert "attestations: 2 of 2 equal\nequal: " in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_do_not_show(left: Copied, shards: int, capsys: pytest.CaptureFixture[str]) -> None:
    """However many shards a replay is folded as, its digest is the same, and so is the check."""
    _, alone = run(capsys, left)
    code, report = run(capsys, left, "--check", "--shards", shards)
    assert (code, report["state_digest"], report["shards"]) == (0, alone["state_digest"], shards)
    assert alone["equal"] is None


@contextmanager
def states(left: Copied, module: str, name: str, key: tuple[str, ...]) -> Any:
    """Return the store that holds a state of a shipped reducer, and the place of the state in it."""
    reducers = [one for one in shipped() if one.module == module]
    generation = generation_of([info_of(one) for one in reducers])
    place = state_key(name, key)
    for shard in range(2):
        folder = shard_folder(module_folder(left.data / "state", 0, module), generation, shard, 2)
        store = LmdbStore(folder, STATE_TABLES)
        try:
            with store.view() as view:
                value = view.get("states", place)
            if value is not None:
                yield store, place, value
                return
        finally:
            store.close()
    raise AssertionError("no such state")


def altered(value: bytes, **changes: object) -> bytes:
    """Return the value of a state with some of it changed, by somebody who knows of the checksum."""
    stored = decode_stored(value)
    assert stored is not None
    return encode_stored(int.from_bytes(value[:8]), msgspec.structs.replace(stored, **changes))


def test_what_readers_are_shown_in_place_of_the_state_is_compared(
    left: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state that is right, and shown to teachers as another, is found as well."""
    with states(left, "activity", "event_count", ("bob",)) as (store, place, value):
        store.commit([Write("states", place, altered(value, shown=b'{"events":999}'))])
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"]) == (1, False)
    assert report["differences"] == [{"name": "event_count", "key": ["bob"], "what": "shown otherwise"}]


PHASES = '''
    """What students do."""
    from reducers import Event, reducer

    @reducer()
    def phase(state: str, event: Event) -> str:
        """Say what the student does."""
        return "writing" if event.type == "keystroke" else "idle"

    REDUCERS = [phase]
'''


def test_an_honest_server_that_was_started_again_is_not_accused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reducer may return a constant: read back from the store, an equal state is another object, and no change."""
    with package(tmp_path / "lib", "phases_a", PHASES, monkeypatch):
        made = Left(tmp_path / "data")
        made.append(event("ann", "keystroke"))
        made.front.reduce()
        made.front.crews = [made.front.crew(shard, 2) for shard in range(2)]
        made.append(event("ann", "keystroke"), event("ann", "keystroke"))
        made.close()
        code, report = run(capsys, made, "--check")
    assert (code, report["equal"], report["differences"]) == (0, True, [])


@pytest.mark.parametrize("how", ["values exchanged", "a second place", "a bit"])
def test_states_that_are_no_answer_are_not_called_equal(
    left: Copied, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state at another's place, or one that is torn, is no answer to anybody, and no proof of anything."""
    with states(left, "activity", "event_count", ("bob",)) as (store, place, value):
        torn = value[:-1] + bytes([value[-1] ^ 1])
        other = state_key("event_count", ("eve",))
        at = {"values exchanged": other, "a second place": place + b"x", "a bit": place}[how]
        store.commit([Write("states", at, torn if how == "a bit" else value)])
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"]) == (2, False)
    assert "states of module activity are damaged" in report["incomplete"][0]


@pytest.mark.parametrize("how", ["removed", "empty"])
def test_a_module_whose_states_nobody_can_name_is_not_passed_over(
    left: Copied, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its states may answer teachers again tomorrow: that the others are equal says nothing of them."""
    catalogue = left.data / "state" / "0" / "activity" / "catalogue.json"
    catalogue.unlink()
    if how == "empty":
        catalogue.touch()
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"]) == (2, False)
    assert [one for one in report["incomplete"] if one.startswith("module activity: ")]
    assert replay.main(["--data", str(left.data), "--check"]) == 2
    assert "NOT ALL COMPARED" in capsys.readouterr().out


def test_an_active_module_without_any_states_is_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log says that it was in use; that nothing is left of its states is no reason to call the rest equal."""
    left = Left(tmp_path / "data")
    left.append(event("ann"))
    left.steer(Activate("activity", identities([one for one in shipped() if one.module == "activity"])))
    left.close()
    assert run(capsys, left, "--check")[0] == 0
    shutil.rmtree(left.data / "state" / "0" / "activity")
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"]) == (2, False)
    assert report["incomplete"] == [
        "module activity: it is active, and has no live states; start the server, they are made anew"
    ]


def test_a_backup_is_checked_by_its_attestations(left: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup has no live states, and whoever audits it has no server to start: what is attested is judged."""
    shutil.rmtree(left.data / "state")
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"], report["compared"]) == (0, True, None)
    assert report["attestations"]["equal"] == 2
    assert ["a backup has none" in note for note in report["notes"]] == [True]
    assert replay.main(["--data", str(left.data), "--check"]) == 0
    assert "a backup has none" in capsys.readouterr().out


def test_a_state_that_was_altered_is_named(left: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever edits a live state, or removes one, is found, under its reducer and key."""
    with states(left, "activity", "event_count", ("bob",)) as (store, place, value):
        store.commit([Write("states", place, altered(value, encoding=b'{"events":9}'))])
    with states(left, "activity", "event_count", ("eve",)) as (store, place, value):
        store.commit([Write("states", place, None)])
    code, report = run(capsys, left, "--check", "--shards", 3)
    assert (code, report["equal"]) == (1, False)
    assert report["differences"] == [
        {"name": "event_count", "key": ["bob"], "what": "differs"},
        {"name": "event_count", "key": ["eve"], "what": "missing"},
    ]
    assert replay.main(["--data", str(left.data), "--check"]) == 1
    printed = capsys.readouterr().out
    assert "event_count bob: differs in the live states" in printed
    assert "DIFFERENT: " in printed


def test_an_attestation_that_is_not_so_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """True ones are equal, a false one is DIFFERENT, one that a retry excuses is superseded by it."""
    left = Left(tmp_path / "data")
    left.append(*(event(name) for name in ("ann", "bob", "ann")))
    left.attest("event_count", 3)
    false = left.attest("event_count", 4, "a" * 64)
    excused = left.attest("last_activity", 4, "b" * 64)
    retry = left.steer(Retry(reducer="last_activity", index=2))
    left.close()
    code, report = run(capsys, left, "--check")
    found = report["attestations"]
    assert (code, found["equal"], found["superseded"], found["different"]) == (1, 1, 1, 1)
    assert {(one["entry"], one["verdict"], one["by"]) for one in found["not_equal"]} == {
        (false, "different", None),
        (excused, "superseded", retry),
    }
    replay.main(["--data", str(left.data), "--check"])
    printed = capsys.readouterr().out
    assert f"entry {false}: 2 states of event_count at size 4: DIFFERENT" in printed
    assert f"superseded by entry {retry}" in printed
    assert "attestations: 1 of 3 equal" in printed
    code, report = run(capsys, left, "--check", "--until", false)
    assert (code, report["attestations"]["equal"], report["attestations"]["different"]) == (0, 1, 0)


def test_a_skip_that_came_later_leaves_attestations_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was attested before the skip still holds at its size, and live states hold with it: one pass for both."""
    left = Left(tmp_path / "data")
    (first, *_) = left.append(event("ann"), event("bob"), event("ann"))
    left.attest("event_count", 5)
    left.steer(Skip("event_count", first))
    left.append(event("ann"))
    left.attest("event_count", 8)
    left.close()
    for shards in (1, 3):
        code, report = run(capsys, left, "--check", "--shards", shards)
        assert (code, report["attestations"]["equal"]) == (0, 2)


def test_shards_are_compared_where_they_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard that stopped in the middle is held against a replay to its own position, and nobody is kept waiting."""
    left = Left(tmp_path / "data")
    left.append(*(event(name) for name in ("ann", "bob", "eve", "kim")))
    left.front.reduce()
    left.append(*(event(name) for name in ("ann", "bob", "eve", "kim")))
    crew = left.front.crews[0]
    while crew.step(left.front.source):
        pass
    crew.save(left.front.source)
    left.close(reduce=False)
    code, report = run(capsys, left, "--check")
    assert (code, report["equal"], report["size"]) == (0, True, 10)
    assert report["compared"]["activity"] >= 8


def test_states_of_another_log_are_found(
    left: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Live states name the root that they stand on; that of another log is not compared in silence."""
    other = Left(tmp_path / "other")
    other.append(*(event("zoe") for _ in range(20)))
    other.close()
    (left.data / "state").rename(tmp_path / "state")
    (other.data / "state").rename(left.data / "state")
    code, report = run(capsys, left, "--check")
    assert code == 2
    assert any("the replay ends at 16" in one or "of another log" in one for one in report["incomplete"])


# --- modules -------------------------------------------------------------------------------------


def test_a_module_of_somebody_else_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Installed modules are found and checked, quarantined keys included."""
    with package(tmp_path / "lib", "essay_a", ESSAY, monkeypatch):
        left = Left(tmp_path / "data")
        left.append(event("ann", doc_id="d"), event("ann", "bad", doc_id="d"), event("ann", doc_id="d"))
        left.close()
        code, report = run(capsys, left, "--check", "--module", "essay_a")
        assert (code, report["compared"], report["states"]) == (0, {"essay_a": 1}, 1)
        assert run(capsys, left, "--check")[0] == 0


def test_a_module_that_does_not_load_costs_the_others_nothing(
    left: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said and left out; without live states it is no reason to fail."""
    with package(tmp_path / "lib", "broken_a", "import nothing_of_this_name", monkeypatch):
        code, report = run(capsys, left, "--check")
        assert (code, [one["module"] for one in report["left_out"]]) == (0, ["broken_a"])


def test_a_module_with_live_states_that_does_not_load_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its states are shown to people, and cannot be checked: that must not read as equal."""
    with package(tmp_path / "lib", "essay_b", ESSAY, monkeypatch):
        left = Left(tmp_path / "data")
        left.append(event("ann", doc_id="d"))
        left.close()
    with package(tmp_path / "lib", "essay_b", "import nothing_of_this_name", monkeypatch):
        code, report = run(capsys, left, "--check")
    assert code == 2
    assert report["incomplete"] == ["module essay_b: it cannot be loaded, and has live states"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (("version=1", "version=2"), 2, "version 2 is installed, the live states are of version 1"),
        (("what is not bad.", "all that is not bad."), 0, "made by other code of the same version"),
        (("+ 1}", "+ 2}"), 1, "made by other code of the same version"),
    ],
)
def test_other_code_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    code: int,
    says: str,
) -> None:
    """Another version cannot be compared; other code of the same version is compared, and said."""
    with package(tmp_path / "lib", "essay_c", ESSAY, monkeypatch):
        left = Left(tmp_path / "data")
        left.append(event("ann", doc_id="d"))
        left.attest("points", 3)
        left.close()
    with package(tmp_path / "lib", "essay_c", ESSAY.replace(*change), monkeypatch):
        found, report = run(capsys, left, "--check")
    assert found == code
    assert any(says in one for one in [*report["incomplete"], *report["notes"]])
    assert report["attestations"]["other_code"] == 1


# --- choosing ------------------------------------------------------------------------------------


def test_a_part_can_be_asked_for(left: Copied, capsys: pytest.CaptureFixture[str]) -> None:
    """One reducer, one module, an earlier size: the digest is that of just this."""
    _, count = run(capsys, left, "--reducer", "event_count")
    _, both = run(capsys, left, "--reducer", "event_count", "--reducer", "last_activity", "--check")
    _, early = run(capsys, left, "--reducer", "event_count", "--until", 6)
    assert (count["states"], both["states"], early["states"]) == (3, 6, 2)
    assert (both["equal"], both["compared"]["activity"]) == (True, 6)
    assert len({one["state_digest"] for one in (count, both, early)}) == 3
    _, module = run(capsys, left, "--module", "writing")
    assert module["states"] == 3


def test_a_snapshot_is_gone_on_from_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What workers saved, and the rest of the log, come to what the whole log comes to; nothing is written."""
    left = Left(tmp_path / "data")
    left.append(*(event(name, doc_id="d") for name in ("ann", "bob")))
    left.front.reduce()
    left.append(*(event(name, doc_id="d") for name in ("ann", "eve")))
    left.close(reduce=False)
    before = {path: path.read_bytes() for path in (left.data / "state").rglob("data.mdb")}
    whole = run(capsys, left)[1]
    code, report = run(capsys, left, "--from-snapshot")
    assert (code, report["state_digest"]) == (0, whole["state_digest"])
    part = run(capsys, left, "--from-snapshot", "--reducer", "event_count")[1]
    assert part["state_digest"] == run(capsys, left, "--reducer", "event_count")[1]["state_digest"]
    assert {path: path.read_bytes() for path in before} == before
    code = replay.main(["--data", str(left.data), "--from-snapshot", "--until", "3"])
    assert (code, "or beyond it" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--check", "--from-snapshot"], "leave --from-snapshot out"),
        (["--check", "--key", "student=ann", "--reducer", "event_count"], "verify-state"),
        (["--key", "student=ann"], "--key takes one --reducer"),
        (["--reducer", "event_count", "--key", "name=ann"], "this reducer takes student=…"),
        (
            ["--reducer", "event_count", "--key", "student=zoe"],
            "no event of this key in the first 16 entries (skipped ones aside)",
        ),
        (["--reducer", "nope"], "there is none; there are "),
        (["--module", "nope"], "--module nope: is not installed; installed are activity, "),
        (["--module", "activity", "--module", "nope"], "--module nope: is not installed"),
        (["--until", "17"], "only 16 entries, not 17"),
        (["--until", "soon"], "neither a size nor a time"),
        (["--shards", "-1"], "--shards -1: 1 to 64"),
        (["--shards", "1000000"], "--shards 1000000: 1 to 64"),
        (["--jobs", "1000000"], "--jobs 1000000: 1 to 64"),
        (["--seconds-per-event", "-1"], "--seconds-per-event is 0.1 to 3600, not -1"),
        (["--seconds-per-event", "nan"], "--seconds-per-event is 0.1 to 3600, not nan"),
        (["--from-snapshot", "--shards", "3"], "the snapshots are of 2 shards"),
        (["--out", "states.csv"], "must end in .jsonl or .parquet"),
        (["--out", "/nowhere/at/all/states.jsonl"], "No such file"),
    ],
)
def test_what_cannot_be_done_is_said(
    left: Copied, argv: Sequence[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and one sentence that says what to do."""
    code = replay.main(["--data", str(left.data), *argv])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.startswith("treering replay: ")
    assert says in printed.err


def test_nothing_to_compare_with_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log whose server never ran here has no live states: --check cannot be done, a replay can."""
    left = Left(tmp_path / "data")
    left.append(event("ann"))
    left.close()
    (left.data / "state" / "shards").unlink()
    assert replay.main(["--data", str(left.data), "--check"]) == 2
    assert "start the server once" in capsys.readouterr().err
    assert run(capsys, left)[0] == 0
    assert replay.main(["--data", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize("until", [5, 1])
def test_where_nothing_was_compared_nothing_is_called_equal(
    left: Copied, until: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first attestation, and before where live states stand, there is nothing to hold a replay against."""
    assert replay.main(["--data", str(left.data), "--check", "--until", str(until)]) == 2
    printed = capsys.readouterr().out
    assert "NOT COMPARED: nothing to compare with" in printed
    assert "equal: " not in printed
    code, report = run(capsys, left, "--check", "--until", until)
    assert (code, report["equal"]) == (2, None)


# --- one key -------------------------------------------------------------------------------------


def test_one_key_is_folded_alone(
    left: Copied, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Given on the command line or, so that no list of processes shows it, on standard input."""
    arguments = ["--data", str(left.data), "--reducer", "event_count"]
    assert replay.main([*arguments, "--key", "student=ann"]) == 0
    line = json.loads(capfdbinary.readouterr().out)
    assert (line["key"], line["state"]["events"], line["position"]) == ({"student": "ann"}, 4, 16)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"student":"ann"}')))
    assert replay.main([*arguments, "--key", "-", "--until", "4"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["state"]["events"] == 2
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"ann")))
    assert replay.main([*arguments, "--key", "-"]) == 2


# --- files ---------------------------------------------------------------------------------------


def test_both_forms_of_a_file_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines and Parquet tell the same states, keys, places and quarantines; only their owner may read them."""
    parquet: Any = importlib.import_module("pyarrow.parquet")
    with package(tmp_path / "lib", "essay_d", ESSAY, monkeypatch):
        left = Left(tmp_path / "data")
        left.append(
            event("ann", doc_id="d"), event("ann", "bad", doc_id="d"), event("söre\u0301n", doc_id="d")
        )
        left.close()
        report: Any = None
        lines_file, parquet_file = tmp_path / "out.jsonl", tmp_path / "out.parquet"
        for file in (lines_file, parquet_file):
            code, report = run(capsys, left, "--out", file, "--shards", 3)
            assert code == 0
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in lines_file.read_text().splitlines()]
    table = parquet.read_table(parquet_file)
    assert table.schema.metadata[b"treering.root"].decode() == report["root"]
    rows = table.to_pylist()
    assert len(lines) == len(rows) == report["states"]
    order = [(one["reducer"], list(one["key"].values())) for one in lines]
    assert order == sorted(order)
    for line, row in zip(lines, rows, strict=True):
        assert (line["reducer"], line["version"], line["position"]) == (
            row["reducer"],
            row["version"],
            row["position"],
        )
        assert (json.loads(row["state"]), line["changed_at"]) == (line["state"], row["changed_at"])
        keys = {name.removeprefix("key_"): row[name] for name in row if name.startswith("key_")}
        assert {name: value for name, value in keys.items() if value is not None} == line["key"]
        bad = line["quarantined"] or {"index": None, "error": None}
        assert (row["quarantined"], row["error"]) == (bad["index"], bad["error"])
    assert any(line["quarantined"] == {"index": 3, "error": "ValueError: a bad one"} for line in lines)


def test_lines_may_go_to_standard_output(left: Copied, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Then the report goes to standard error, so that a pipe gets states and nothing else."""
    assert replay.main(["--data", str(left.data), "--out", "-", "--reducer", "event_count"]) == 0
    printed = capfdbinary.readouterr()
    assert [json.loads(line)["key"]["student"] for line in printed.out.splitlines()] == ["ann", "bob", "eve"]
    assert b"replayed: 3 states" in printed.err


@pytest.mark.process
def test_a_reader_of_lines_may_stop(left: Copied) -> None:
    """`| head` gets what it wants, the verdict is said all the same, and there is no traceback."""
    call = "import sys; from tools.replay import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", call, "--data", str(left.data), "--out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate(timeout=60)
    assert (process.returncode, b"replayed: " in said, b"Error" in said) == (0, True, False), said


def test_a_file_that_is_there_is_replaced_by_force_only(
    left: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of states may be all that is left of an evening: nothing is folded, and it stays as it is."""
    file = tmp_path / "x.jsonl"
    file.write_text("before")
    arguments = ["--data", str(left.data), "--out", str(file)]
    assert replay.main(arguments) == 2
    assert (file.read_text(), "add --force" in capsys.readouterr().err) == ("before", True)
    assert replay.main([*arguments, "--force"]) == 0
    assert file.read_text().startswith('{"reducer":')


def test_without_pyarrow_it_is_said_what_to_install(
    left: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is folded, and without leaving a file behind; lines can be written all the same."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert replay.main(["--data", str(left.data), "--out", str(tmp_path / "x.parquet")]) == 2
    assert "pip install 'treering[parquet]'" in capsys.readouterr().err
    assert replay.main(["--data", str(left.data), "--out", str(tmp_path / "x.jsonl")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "x.jsonl"]


def test_a_file_that_could_not_be_finished_is_not_there(
    left: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stood under the name before stays; no half a file takes its place."""
    (tmp_path / "x.jsonl").write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    arguments = ["--data", str(left.data), "--out", str(tmp_path / "x.jsonl")]
    assert replay.main([*arguments, "--force"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert (tmp_path / "x.jsonl").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "x.jsonl"]


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.process
def test_several_processes_find_what_one_finds(
    left: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However shards are divided among processes, report, file and findings are the same; so are errors."""
    with states(left, "activity", "event_count", ("bob",)) as (store, place, value):
        store.commit([Write("states", place, altered(value, encoding=b'{"events":9}'))])
    reports = []
    with package(tmp_path / "lib", "essay_e", ESSAY, monkeypatch):
        for jobs in (1, 2):
            file = tmp_path / f"{jobs}.jsonl"
            code, report = run(capsys, left, "--check", "--shards", 3, "--jobs", jobs, "--out", file)
            assert code == 1
            del report["jobs"]
            reports.append((report, file.read_bytes()))
    assert reports[0] == reports[1]


SIGNALLING = """
    import multiprocessing, os, resource
    from reducers import Event, reducer

    try:
        os.kill(multiprocessing.parent_process().pid, 0)
        FOUND = "signals its parent"
    except AttributeError:
        FOUND = "alone"
    except PermissionError:
        FOUND = "kept to itself"
    CORES = resource.getrlimit(resource.RLIMIT_CORE)[1]

    @reducer(scope=("student",))
    def signalling(state: dict, event: Event) -> dict:
        return {"found": FOUND, "cores": CORES}

    REDUCERS = [signalling]
"""


@pytest.mark.process
def test_a_module_in_a_process_that_folds_signals_nobody(
    left: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever replays with several processes is not ended by what is replayed, and no core holds what it read."""
    file = tmp_path / "out.jsonl"
    with package(tmp_path / "lib", "signalling_a", SIGNALLING, monkeypatch):
        code, _ = run(capsys, left, "--module", "signalling_a", "--shards", 2, "--jobs", 2, "--out", file)
    states = [json.loads(line)["state"] for line in file.read_text().splitlines()]
    assert (code, states[0]) == (0, {"found": "kept to itself", "cores": 0})
    assert all(one == states[0] for one in states)


DEADLY = """
    import os
    from reducers import Event, reducer

    def end() -> None:
        os._exit(9)

    @reducer(scope=("student",))
    def deadly(state: dict, event: Event) -> dict:
        if event.index == 5:
            DO
        return {"n": 1}

    REDUCERS = [deadly]
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("end()", "ended its process (code 9) at"),
        ("while True: pass", "does not get over"),
    ],
)
@pytest.mark.parametrize("argv", [["--jobs", "1"], ["--jobs", "2"], ["--key", "student=bob"]])
def test_a_module_that_ends_or_holds_up_its_process_is_named(
    left: Copied,
    does: str,
    says: str,
    argv: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replay ends with a sentence that says which module, at which entry, and what to do."""
    arguments = ["--data", str(left.data), "--reducer", "deadly", "--seconds-per-event", "1", *argv]
    with package(tmp_path / "lib", "deadly_a", DEADLY.replace("DO", does), monkeypatch):
        assert replay.main(arguments) == 2
    said = capsys.readouterr().err
    assert f"module deadly_a {says} entry 5: treering skip deadly 5" in said, said


def dies(job: object, own: object, pipe: object, words: object) -> None:
    """Be a hand that is killed."""
    del job, own, pipe, words
    os._exit(9)


@pytest.mark.process
def test_a_process_that_dies_is_noticed(
    left: Copied, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no result of the shards that are left: it could not be done."""
    monkeypatch.setattr(replay_hands, "work", dies)
    assert replay.main(["--data", str(left.data), "--jobs", "2", "--shards", "2"]) == 2
    assert "a process that folds died (code 9)" in capsys.readouterr().err
