"""treering bisect: two versions, and two machines, part at an event that is named with key and field."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from archive import DataFolder
from tests.tools.left import Left, package, write_package
from tests.world import event
from tools.bisecting import main
from tools.tracing import Job

pytestmark = pytest.mark.process

ESSAY = '''
    """Words of an essay."""
    from typing import Any
    from reducers import Event, reducer

    @reducer(scope=("student",), version=1)
    def words(state: dict[str, Any], event: Event) -> dict[str, Any]:
        """Count words by length, two levels deep."""
        by = dict(state.get("by", {}))
        length = str(event.data % 5)
        by[length] = {"count": by.get(length, {"count": 0})["count"] + 1}
        return {"by": by}

    REDUCERS = [words]
'''
SIZE = 3_300
PARTS_AT = 2_103


class Room(NamedTuple):
    """A log of some thousand entries, and two versions of a module."""

    data: Path
    ours: Path
    theirs: Path


def from_event_on(index: int, *, until: int = 1 << 60) -> str:
    """Return the module as it would be if it counted double in a stretch of the log."""
    return ESSAY.replace('["count"] + 1', f'["count"] + (2 if {index} <= event.index < {until} else 1)')


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Return a room; the installed version is ours, the other parts from it at one event."""
    path = tmp_path_factory.mktemp("room")
    with pytest.MonkeyPatch.context() as monkeypatch, package(path / "ours", "essay_w", ESSAY, monkeypatch):
        left = Left(path / "data")
        names = ("ann", "bob", "söre\u0301n")
        left.append(*(event(names[n % 3], data=n) for n in range(1_200)))
        left.attest("words", 1_000)
        left.append(*(event(names[n % 3], data=n) for n in range(SIZE - left.front.archiver.head.size)))
        left.close(reduce=False)
        write_package(path / "theirs", "essay_w", from_event_on(PARTS_AT))
        yield Room(left.data, path / "ours", path / "theirs")


def run(capfd: pytest.CaptureFixture[str], room: Room, *argv: object) -> tuple[int, Any]:
    """Run treering bisect with --json; return exit code and report."""
    code = main(["--data", str(room.data), "--reducer", "words", "--json", *map(str, argv)])
    printed = capfd.readouterr()
    return code, json.loads(printed.out) if printed.out else printed.err


def test_two_versions_part_where_one_of_them_changed(room: Room, capfd: pytest.CaptureFixture[str]) -> None:
    """Event, key and field are named, and only the stretch between two attested sizes was traced."""
    code, report = run(capfd, room, "--other", room.theirs)
    assert code == 1
    assert (report["entry"], report["agreed_at"], report["differ_at"]) == (PARTS_AT, 2_000, 3_000)
    assert (report["from"], report["to"]) == (2_000, 3_000)
    (place,) = report["places"]
    assert place["theirs"] == place["ours"] + 1
    assert place["path"].endswith("['count']")
    assert report["ours"]["code_digest"] != report["theirs"]["code_digest"]
    assert main(["--data", str(room.data), "--reducer", "words", "--other", str(room.theirs)]) == 1
    printed = capfd.readouterr().out
    assert "both come to the same at size 2,000, and not at size 3,000" in printed
    assert "they part at entry 2,103, in the state of {" in printed
    assert f"{place['path']}: {place['ours']} here, {place['theirs']} there" in printed


def test_the_same_version_does_not_part(room: Room, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing differs, after each single event."""
    code, report = run(capfd, room, "--other", room.ours)
    assert (code, report["parted"], report["from"], report["to"]) == (0, False, 0, SIZE)
    assert main(["--data", str(room.data), "--reducer", "words", "--other", str(room.ours)]) == 0
    assert "nothing differs: after each of entries 0 to 3,299" in capfd.readouterr().out


def test_no_entries_are_called_none(room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Up to size 0 there is nothing to look at, and no entry -1."""
    arguments = ["--data", str(room.data), "--reducer", "words", "--until", "0"]
    assert main([*arguments, "--other", str(room.ours)]) == 0
    assert capfd.readouterr().out == "nothing differs: there are no entries to look at\n"
    assert main([*arguments, "--save-trace", str(tmp_path / "trace")]) == 0
    assert capfd.readouterr().out.endswith("trace: 0 changes in no entries\n")


def test_what_differed_for_a_while_only_is_found(
    room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A state that is the same again at every attested size: nothing narrows it, so everything is traced."""
    body = ESSAY.replace(
        'return {"by": by}', 'return {"by": by, "x": 1} if event.index == 1_300 else {"by": by}'
    )
    write_package(tmp_path, "essay_w", body)
    code, report = run(capfd, room, "--other", tmp_path)
    assert (code, report["entry"], report["from"], report["differ_at"]) == (1, 1_300, 0, None)
    assert report["places"] == [{"path": "$['x']", "theirs": 1}]
    early = from_event_on(PARTS_AT).replace(
        'return {"by": by}', 'return {"by": by, "x": 1} if event.index == 1_300 else {"by": by}'
    )
    write_package(tmp_path, "essay_w", early)
    assert run(capfd, room, "--other", tmp_path)[1]["entry"] == PARTS_AT
    assert run(capfd, room, "--other", tmp_path, "--from-start")[1]["entry"] == 1_300
    assert run(capfd, room, "--other", tmp_path, "--until", 1_300)[0] == 0


def test_a_higher_version_that_means_the_same_does_not_part(
    room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The version itself is no difference: what is compared is what states hold."""
    write_package(tmp_path, "essay_w", ESSAY.replace("version=1", "version=2"))
    code, report = run(capfd, room, "--other", tmp_path)
    assert (code, report["theirs"]["version"]) == (0, 2)


def test_two_machines_part_where_one_of_them_errs(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One writes down what it makes of the log, the other compares: event, key and field are named."""
    broken, trace = tmp_path / "broken", tmp_path / "trace"
    write_package(broken, "essay_w", from_event_on(700))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(broken), os.environ["PYTHONPATH"]]))
    code, report = run(capfd, room, "--save-trace", trace, "--with-states", "--until", 1_500)
    assert (code, report["start"], report["stop"]) == (0, 0, 1_500)
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600
    monkeypatch.undo()
    code, report = run(capfd, room, "--against", trace)
    assert (code, report["entry"], report["to"]) == (1, 700, 1_500)
    (place,) = report["places"]
    assert place["theirs"] == place["ours"] + 1


def test_a_machine_that_contradicts_an_attestation_saves_that_stretch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the last attestation of this version and code that it agrees with, up to the first that it does not."""
    with package(
        tmp_path / "lib",
        "essay_x",
        ESSAY.replace("def words", "def lines").replace("[words]", "[lines]"),
        monkeypatch,
    ):
        left = Left(tmp_path / "data")
        left.append(*(event("ann", data=n) for n in range(2_500)))
        left.attest("lines", 1_000)
        at = left.attest("lines", 2_000, "a" * 64)
        left.close(reduce=False)
        code = main(
            ["--data", str(left.data), "--reducer", "lines", "--save-trace", str(tmp_path / "t"), "--json"]
        )
        report = json.loads(capfd.readouterr().out)
        assert (code, at > 2_000) == (0, True)
        assert (report["start"], report["stop"], report["agreed"], report["parted"]) == (
            1_000,
            2_000,
            1_000,
            2_000,
        )
        assert report["lines"] == 1_001
        code = main(["--data", str(left.data), "--reducer", "lines", "--against", str(tmp_path / "t")])
        assert (code, "nothing differs" in capfd.readouterr().out) == (0, True)


def test_digests_alone_name_event_and_key(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A trace without states names no field, and says how to get it; it holds no state of anybody."""
    trace = tmp_path / "trace"
    before = os.environ["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(room.theirs), before]))
    assert run(capfd, room, "--save-trace", trace)[0] == 0
    assert b"count" not in trace.read_bytes()
    monkeypatch.setenv("PYTHONPATH", before)
    code, report = run(capfd, room, "--against", trace)
    assert (code, report["entry"], report["places"]) == (1, PARTS_AT, [])
    main(["--data", str(room.data), "--reducer", "words", "--against", str(trace)])
    assert "let it be made with --with-states" in capfd.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "line", "nonsense", "another log", "another reducer", "nothing"])
def test_a_trace_that_is_no_trace_of_this_is_refused(
    room: Room, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cut off, a line missing, other bytes, of another log or reducer: no verdict, and a sentence."""
    trace = tmp_path / "trace"
    if damage != "nothing":
        assert run(capfd, room, "--save-trace", trace, "--until", 1_100)[0] == 0
        lines = trace.read_bytes().splitlines(keepends=True)
        if damage == "cut":
            lines = [*lines[:-1], lines[-1][:-1]]
        elif damage == "line":
            del lines[-2]
        elif damage == "nonsense":
            lines[0] = b"[]\n"
        elif damage == "another log":
            head = json.loads(lines[0])
            lines[0] = json.dumps({**head, "root": "0" * 64}).encode() + b"\n"
        else:
            lines[0] = lines[0].replace(b'"words"', b'"other"')
        trace.write_bytes(b"".join(lines))
    code, said = run(capfd, room, "--against", trace)
    assert (code, said.startswith("treering bisect: ")) == (2, True), said


def test_what_cannot_be_compared_is_usage(
    room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No such reducer, folder or size; a version that does not load says why."""
    write_package(tmp_path / "broken", "essay_w", "import nothing_of_this_name")
    for argv, says in (
        (["--other", tmp_path / "nowhere"], "name a folder"),
        (["--other", tmp_path / "broken"], "nothing_of_this_name"),
        (["--other", room.ours, "--until", "9999"], "only 3300 entries"),
        (["--save-trace", tmp_path / "no" / "where"], "No such file"),
    ):
        code, said = run(capfd, room, *argv)
        assert (code, says in said) == (2, True), said
    code = main(["--data", str(room.data), "--reducer", "nope", "--other", str(room.ours)])
    assert (code, "no reducer 'nope'" in capfd.readouterr().err) == (2, True)
    assert DataFolder(room.data).log.is_dir()


@pytest.mark.parametrize("argv", [[], ["--from-start"]])
def test_a_folder_without_the_reducer_is_refused(
    room: Room, tmp_path: Path, argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The installed code is never held against itself: a folder too deep, empty, or of something else is named."""
    write_package(tmp_path / "lib" / "essay_w", "essay_w", from_event_on(PARTS_AT))
    write_package(tmp_path / "strange", "strange", ESSAY.replace("words", "strange"))
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "lib", tmp_path / "strange", tmp_path / "empty"):
        code, said = run(capfd, room, "--other", folder, *argv)
        assert (code, f"--other {folder}: " in said) == (2, True), said
        assert str(room.ours / "essay_w.py") in said, said


def test_a_saved_trace_does_not_tell_where_files_lie(
    room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It goes to another machine."""
    assert run(capfd, room, "--save-trace", tmp_path / "trace", "--until", 10)[0] == 0
    assert str(room.ours).encode() not in (tmp_path / "trace").read_bytes()


def test_a_version_that_stops_says_where(
    room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What runs out of memory in one version is no difference of states, and no verdict: it is said."""
    body = ESSAY.replace(
        "        by = dict",
        "        if event.index == 1_500:\n            raise MemoryError\n        by = dict",
    )
    write_package(tmp_path, "essay_w", body)
    code, said = run(capfd, room, "--other", tmp_path)
    assert (code, "stopped at entry 1500: MemoryError" in said) == (2, True), said


def test_a_module_that_prints_does_not_spoil_the_trace(
    room: Room, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it prints goes elsewhere; results are the same."""
    body = ESSAY.replace("    REDUCERS", '    print("hello")\n    REDUCERS')
    write_package(tmp_path, "essay_w", body)
    assert run(capfd, room, "--other", tmp_path, "--until", 1_000)[0] == 0


SIGNALLING = """
    import os, resource
    from reducers import Event, reducer

    print("debug")
    try:
        os.kill(os.getppid(), 0)
        FOUND = "signals its parent"
    except PermissionError:
        FOUND = "kept to itself"
    CORES = resource.getrlimit(resource.RLIMIT_CORE)[1]

    @reducer(scope=("student",))
    def words(state: dict, event: Event) -> dict:
        return {"found": FOUND, "cores": CORES}

    REDUCERS = [words]
"""


def test_a_module_that_is_traced_signals_nobody_and_prints_into_no_trace(room: Room, tmp_path: Path) -> None:
    """Another version of a module comes from anywhere: it ends nobody's processes, and leaves no core."""
    write_package(tmp_path, "essay_w", SIGNALLING)
    job = Job(str(room.data), 0, "words", 0, 10, states=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tools.tracing"],
        input=msgspec.json.encode(job),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        timeout=60,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[1][-1] == {"found": "kept to itself", "cores": 0}
    assert b"debug" in done.stderr
