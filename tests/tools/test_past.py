"""A state as it was: one key, folded in a process that may do what it likes."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archive import NotFound, Unavailable
from tests.api.front import Front, problem_of
from tests.tools.left import package
from tests.world import event
from tools.past import EXIT_NO_STATE, Past, main
from tools.process import EXIT_GOOD, EXIT_USAGE


@pytest.fixture
def left(tmp_path: Path) -> Front:
    """Return what a server left behind: three events of one student and one of another, in a closed folder."""
    front = Front(tmp_path / "data")
    for student in ("ann", "bob", "ann", "ann"):
        front.archiver.step([event(student)])
    front.reduce()
    front.close()
    return front


def ask(front: Front, monkeypatch: pytest.MonkeyPatch, key: bytes, *more: str) -> int:
    """Run the program with a key on its standard input."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(key)))
    return main(["--data", str(front.folder.path), *more])


def test_a_state_as_it_was(
    left: Front, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The state after each size, with the root that it stands on."""
    found = {}
    for size in (3, 4, 5, 6):
        arguments = ("--reducer", "event_count", "--size", str(size))
        assert ask(left, monkeypatch, b'["ann"]', *arguments) == EXIT_GOOD
        body = json.loads(capfdbinary.readouterr().out)
        assert body["position"] == body["checkpoint"]["size"] == size
        found[size] = body["state"]["events"]
    assert found == {3: 1, 4: 1, 5: 2, 6: 3}


@pytest.mark.parametrize(
    ("key", "reducer", "size", "code", "reason"),
    [
        (
            b'["ann"]',
            "event_count",
            "2",
            EXIT_NO_STATE,
            "no event of this key in the first 2 entries (skipped ones aside)",
        ),
        (b'["ann"]', "event_count", "99", EXIT_NO_STATE, "the log has only 6 entries, not 99"),
        (b'["ann"]', "nothing", "3", EXIT_NO_STATE, "no module here has a reducer named nothing"),
        (b"ann", "event_count", "3", EXIT_USAGE, "the key must be a JSON list of texts"),
        (b'["ann"]', "touchy", "3", EXIT_USAGE, "is not installed here"),
        (b'["ann", "x"]', "event_count", "3", EXIT_USAGE, "takes other fields"),
    ],
)
def test_what_cannot_be_answered_says_why(
    left: Front,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    key: bytes,
    reducer: str,
    size: str,
    code: int,
    reason: str,
) -> None:
    """One exit code for what there is not, another for what cannot be told; the reason is on standard error."""
    assert ask(left, monkeypatch, key, "--reducer", reducer, "--size", size) == code
    assert reason in capfd.readouterr().err


@pytest.mark.process
def test_the_front_asks_in_a_process_of_its_own(left: Front) -> None:
    """Answers come back as they are, refusals as errors, and what takes too long is ended."""
    ask_it = Past(left.folder)
    assert asyncio.run(ask_it("event_count", ("ann",), 5))["state"] == {"events": 2}
    with pytest.raises(NotFound, match="no event of this key"):
        asyncio.run(ask_it("event_count", ("ann",), 2))
    with pytest.raises(Unavailable, match="use treering replay"):
        asyncio.run(Past(left.folder, wait_s=0.0)("event_count", ("ann",), 5))


PRYING = """
    import os, sys
    from reducers import Event, reducer

    {deed}

    try:
        with open({key!r}, "rb") as file:
            FOUND = "reads a key of %d bytes" % len(file.read())
    except OSError as error:
        FOUND = type(error).__name__
    print("debug", FOUND)

    @reducer(scope=("student",))
    def prying(state: dict, event: Event) -> dict:
        print("debug", event.type)
        return {{"events": state.get("events", 0) + 1, "found": FOUND}}

    REDUCERS = [prying]
"""

Installed = Callable[[str], Front]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Return what makes a folder in which a module ran that looks for keys and prints; `deed` is done at its import."""
    with ExitStack() as stack:

        def make(deed: str = "") -> Front:
            source = PRYING.format(key=str(tmp_path / "data" / "keys" / "vault.key"), deed=deed)
            stack.enter_context(package(tmp_path / "site", "prying", source, monkeypatch))
            front = Front(tmp_path / "data")
            front.archiver.step([event("ann"), event("ann")])
            front.reduce()
            front.close()
            assert (tmp_path / "data" / "keys" / "vault.key").is_file()
            return front

        yield make


@pytest.mark.process
def test_a_module_that_is_not_built_in_is_folded_where_it_reaches_no_key(installed: Installed) -> None:
    """Anybody can ask for the past, whatever level a module has: its code runs in a cell; what it prints is lost."""
    answer = asyncio.run(Past(installed("").folder)("prying", ("ann",), 4))
    assert answer["state"] == {"events": 2, "found": "PermissionError"}


@pytest.mark.process
@pytest.mark.parametrize(
    ("deed", "says"),
    [
        ('if "tools.cell" in sys.orig_argv: os._exit(3)', "module prying ended its process"),
        (
            'if "tools.cell" in sys.orig_argv: bytearray(1 << 40)',
            "importing 'prying' failed with MemoryError",
        ),
    ],
)
def test_what_a_module_breaks_is_unavailable_and_not_missing(
    installed: Installed, deed: str, says: str
) -> None:
    """Nobody is told that there is no state where nobody could look; a cell has an end of its memory, too."""
    with pytest.raises(Unavailable, match=says):
        asyncio.run(Past(installed(deed).folder)("prying", ("ann",), 4))


@pytest.mark.process
def test_a_reducer_that_is_not_installed_any_more_is_unavailable(left: Front) -> None:
    """Its catalogue says that there are states: that they cannot be folded is not that there are none."""
    with pytest.raises(Unavailable, match="is not installed here"):
        asyncio.run(Past(left.folder)("touchy", ("ann",), 3))


@pytest.mark.process
def test_what_is_printed_is_no_part_of_the_answer_and_memory_is_bounded(left: Front) -> None:
    """Standard output belongs to nobody else while a process answers; what it may take has an end."""
    code = """
import resource, sys
from tools import past
bound = past.limit_memory
def printing(more):
    bound(more)
    print("debug", resource.getrlimit(resource.RLIMIT_DATA)[1] < 1 << 40)
past.limit_memory = printing
sys.exit(past.alone())
"""
    arguments = ["--data", str(left.folder.path), "--reducer", "event_count", "--size", "5"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=b'["ann"]',
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["state"] == {"events": 2}
    assert done.stderr == b"debug True\n"


def test_at_size_over_http(tmp_path: Path) -> None:
    """`?at_size=` takes a whole key and a size that there is; whoever cannot fold the past says so."""
    front = Front(tmp_path / "data")
    front.archiver.step([event("ann")])
    front.reduce()
    with front.client() as http:
        assert "does not fold" in problem_of(http.get("/v1/states/event_count?student=ann&at_size=3"), 503)

        async def folded(name: str, key: Any, size: int) -> dict[str, Any]:
            return {"reducer": name, "key": key, "position": size}

        front.services.past = folded
        body = http.get("/v1/states/event_count?student=ann&at_size=3").json()
        assert body == {"reducer": "event_count", "key": ["ann"], "position": 3}
        assert "'student'" in problem_of(http.get("/v1/states/event_count?at_size=3"), 400)
        assert "not 9 yet" in problem_of(http.get("/v1/states/event_count?student=ann&at_size=9"), 404)
    front.close()
