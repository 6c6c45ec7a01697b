"""One answer, checked against the log: what was altered in it is named, and nothing else is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from archive import DataFolder, Skip
from tests.api.front import http_client
from tests.tools.left import Left, package
from tests.world import event
from tools.past import answer as as_it_was
from tools.verify_state import main

ESSAY = '''
    """Points of an essay."""
    from typing import Any
    from reducers import Event, reducer

    def seen(state: dict[str, Any]) -> dict[str, Any]:
        return {"shown": state.get("points", 0)}

    @reducer(scope=("student",), version=1, view=seen)
    def essay_points(state: dict[str, Any], event: Event) -> dict[str, Any]:
        """Count what is not bad."""
        if event.type == "bad":
            raise ValueError("a bad one")
        return {"points": state.get("points", 0) + 1}

    @reducer()
    def essay_words(state: set[str], event: Event) -> set[str]:
        """Keep words in a set, which readers see as it is encoded."""
        return state | {f"{word}-{event.index}" for word in "every good boy deserves fruit at last".split()}

    def broken(state: int) -> int:
        raise ValueError("nothing to see")

    @reducer(view=broken)
    def essay_unseen(state: int, event: Event) -> int:
        """Count, and fail to show it."""
        return state + 1

    REDUCERS = [essay_points, essay_words, essay_unseen]
'''


NAMES = ("event_count", "last_activity", "essay_points", "essay_words", "essay_unseen")


class Answered:
    """A data folder that nothing runs on any more, and what its server had answered."""

    def __init__(self, path: Path) -> None:
        left = Left(path / "data")
        left.append(event("ann"), event("bob"), event("ann", "bad"), event("söre\u0301n"))
        left.front.reduce()
        self.answers: dict[str, Any] = {}
        with http_client(left.front.services) as http:
            for name in NAMES:
                response = http.get(f"/v1/states/{name}", params={"student": "ann"})
                assert response.status_code == 200, response.text
                self.answers[name] = response.json()
            self.page = http.get("/v1/states/event_count").json()
            left.append(event("ann"), event("zoe"))
            left.close()
        self.data = left.data


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a folder and answers of three reducers, one of a module that is installed for as long."""
    path = tmp_path_factory.mktemp("answered")
    with pytest.MonkeyPatch.context() as monkeypatch, package(path / "lib", "essay_v", ESSAY, monkeypatch):
        yield Answered(path)


def check(data: Path, answer: Any, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    """Run the command with an answer on standard input."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(body)))
    return main(["-", "--data", str(data), *more])


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_is_true_is_verified(
    answered: Answered, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever came to the log since; quarantines, sets and views that fail included; without a server."""
    answer = answered.answers[name]
    assert name != "essay_unseen" or answer["state"] == {"view_failed": "ValueError"}
    assert ("quarantined" in answer) == (name == "essay_points")
    assert check(answered.data, answer, monkeypatch) == 0
    size = answer["position"]
    assert capsys.readouterr().out == f"verified: {name} at size {size}: state, digest, root and code agree\n"


def altered(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what alters an answer."""
    return lambda answer: {**answer, **changes}


EMPTY = {"size": 0, "root": sha256(b"").hexdigest()}
"""The checkpoint of a log without entries, of which every log is a continuation."""


def with_state(state: bytes) -> Callable[[Any], bytes]:
    """Return what gives an answer another state, as it is written."""
    return lambda answer: json.dumps({**answer, "state": "HERE"}).encode().replace(b'"HERE"', state)


ALTERED: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "the state": (altered(state={"shown": 2}), ["$['state']['shown']"]),
    "a member more": (lambda one: {**one, "state": {**one["state"], "x": 1}}, ["$['state']['x']"]),
    "the digest": (altered(state_digest="0" * 64), ["$['state_digest']"]),
    "the root": (altered(checkpoint={"size": 6, "root": "0" * 64}), ["$['checkpoint']['root']"]),
    "a root that covers nothing": (altered(checkpoint=EMPTY), ["$['checkpoint']['size']"]),
    "where it stands still": (altered(quarantined={"index": 5, "error": "?"}), ["$['quarantined']['index']"]),
    "that it stands still": (lambda one: {k: v for k, v in one.items() if k != "quarantined"}, ["$['quarantined']"]),
    "an earlier position": (altered(position=4), ["$['state_digest']", "$['quarantined']"]),
    "before the key": (altered(position=2), ["$['state']", "$['state_digest']", "$['quarantined']"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_what_was_altered_is_named(
    answered: Answered, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each thing that differs is found by its path, with both values, and nothing else is."""
    change, paths = ALTERED[name]
    answer = change(answered.answers["essay_points"])
    assert check(answered.data, answer, monkeypatch, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verified"] is False
    assert [one["path"] for one in report["differences"]] == paths
    assert check(answered.data, answer, monkeypatch) == 1
    printed = capsys.readouterr().out
    assert all(f"{path}: the log gives " in printed for path in paths)
    assert "NOT VERIFIED: essay_points" in printed


@pytest.mark.parametrize("change", [{"version": 2}, {"code_digest": "5872" * 16}])
def test_an_answer_of_other_code_is_neither_true_nor_false(
    answered: Answered,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The installed code cannot judge it: it is said what to install, and that the root was checked."""
    answer = {**answered.answers["essay_points"], **change, "state": {"shown": 77}}
    assert check(answered.data, answer, monkeypatch) == 2
    printed = capsys.readouterr().out
    code = answer["code_digest"][:12]
    assert f"made by version {answer['version']}, code {code}…; installed is version 1, code " in printed
    assert "its root is that of this log" in printed
    assert "the log gives" not in printed
    assert check(answered.data, answer, monkeypatch, "--json") == 2
    assert json.loads(capsys.readouterr().out)["verified"] is None


def test_a_wrong_root_is_found_whatever_is_installed(
    answered: Answered, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The root does not depend on a reducer."""
    answer = {**answered.answers["essay_points"], "version": 2, "checkpoint": {"size": 6, "root": "0" * 64}}
    assert check(answered.data, answer, monkeypatch) == 1
    printed = capsys.readouterr().out
    assert "$['checkpoint']['root']: the log gives" in printed
    assert "made by version 2" in printed


def test_the_text_of_an_error_is_not_compared(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for people, and may differ between machines that agree."""
    answer = dict(answered.answers["essay_points"])
    answer["quarantined"] = {**answer["quarantined"], "error": "ValueError: in other words"}
    assert check(answered.data, answer, monkeypatch) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (altered(position=99), "the answer speaks of 99"),
        (altered(reducer="nope"), "no reducer 'nope' is installed"),
        (altered(key={"name": "ann"}), "is not one of essay_points"),
        (lambda _: b"[", "not the answer"),
        (lambda _: b"{}", "missing required field"),
        (lambda _: b"\xff", "not the answer"),
        (altered(position=-1), "not the answer"),
        (altered(checkpoint={"size": -1, "root": ""}), "not the answer"),
        (with_state(b'{"shown": 99}, "state": {"shown": 1}'), "member 'state' stands 2 times"),
        (with_state(b'{"shown": 99, "sh\\u006fwn": 1}'), "member 'shown' stands 2 times"),
        (with_state(b"[" * 3_000 + b"]" * 3_000), "nested too deeply"),
    ],
)
def test_what_cannot_be_checked_is_usage(
    answered: Answered,
    change: Callable[[Any], Any],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No verdict, exit code 2, and one sentence."""
    assert check(answered.data, change(answered.answers["essay_points"]), monkeypatch) == 2
    printed = capsys.readouterr()
    assert (printed.out, says in printed.err) == ("", True), printed.err


@pytest.mark.parametrize("depth", range(800, 1_100, 20))
def test_depth_is_never_more_than_a_difference(
    answered: Answered, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near the limit of what can be read, one part of the check may manage what the next cannot: no traceback."""
    deep = with_state(b"[" * depth + b"]" * depth)(answered.answers["essay_points"])
    assert check(answered.data, deep, monkeypatch) in {1, 2}
    assert check(answered.data, deep, monkeypatch, "--json") in {1, 2}


def test_what_an_answer_holds_does_not_reach_the_terminal_as_it_is(
    answered: Answered, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences in a state are shown, not obeyed: they could write "verified" over the verdict."""
    nasty = "\x1b[2K\rverified\u202e"
    for change in ({"state": {nasty: nasty}}, {"code_digest": nasty}, {"reducer": nasty}):
        check(answered.data, {**answered.answers["essay_points"], **change}, monkeypatch)
        printed = capsys.readouterr()
        assert all(line.isprintable() for line in (printed.out + printed.err).splitlines())
        assert "\x1b" not in printed.out + printed.err


def test_a_page_of_states_is_told_apart(
    answered: Answered, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever saved the answer of a listing is told to ask for one key; a file that is not there is no page."""
    (tmp_path / "page.json").write_text(json.dumps(answered.page))
    arguments: Sequence[str] = ["--data", str(answered.data)]
    assert main([str(tmp_path / "page.json"), *arguments]) == 2
    assert "a page of states; ask for one key" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere.json"), *arguments]) == 2


def test_an_answer_about_the_past_is_verified(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ?at_size= gives holds at each size; its checkpoint is that of the size itself."""
    for size in (3, 5, 7):
        folder = DataFolder(answered.data)
        answer = json.loads(msgspec.json.encode(as_it_was(folder, "essay_v", "essay_points", ("ann",), size)))
        assert answer["position"] == size
        assert check(answered.data, answer, monkeypatch) == 0


def test_a_skip_that_the_server_had_read_already_is_an_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The position of an answer may be before a skip that is in its state: it holds, and that is said."""
    left = Left(tmp_path / "data")
    (first, *_) = left.append(event("ann"), event("ann"))
    left.front.reduce()
    left.append(event("ann"))
    left.steer(Skip("event_count", first))
    left.front.reduce()
    with http_client(left.front.services) as http:
        answer = http.get("/v1/states/event_count", params={"student": "ann"}).json()
    left.close()
    assert check(left.data, answer, monkeypatch) == 0
    capsys.readouterr()
    early = {**answer, "position": answer["position"] - 1}  # the skip is the last entry
    assert check(left.data, early, monkeypatch, "--json") == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "a skip or retry, already" in note
