"""A state as it was: one key, folded in a process that may do what it likes."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archive import NotFound, Unavailable
from tests.api.front import Front, problem_of
from tests.world import event
from tools.past import Past, main
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
    ("key", "reducer", "size", "reason"),
    [
        (b'["ann"]', "event_count", "2", "no event of this key in the first 2 entries"),
        (b'["ann"]', "event_count", "99", "the log has only 6 entries, not 99"),
        (b'["ann"]', "nothing", "3", "no module here has a reducer named nothing"),
        (b"ann", "event_count", "3", "the key must be a JSON list of texts"),
        (b'["ann"]', "touchy", "3", "is not installed here"),
    ],
)
def test_what_cannot_be_answered_says_why(
    left: Front,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    key: bytes,
    reducer: str,
    size: str,
    reason: str,
) -> None:
    """Exit code 2, and the reason on standard error."""
    assert ask(left, monkeypatch, key, "--reducer", reducer, "--size", size) == EXIT_USAGE
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
