"""Promise: a question for one key is answered for exactly the key that was meant, or refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tools.left import Installed, package
from tests.world import event
from tools import replay


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log of students whose names look like something else."""
    left = Installed(tmp_path_factory.mktemp("left") / "data")
    left.append(*(event(name) for name in ("None", "True", "7", "7.50", "[]", "")))
    left.close()
    return left.data


def ask(data: Path, monkeypatch: pytest.MonkeyPatch, *argv: str, given: bytes = b"") -> int:
    """Ask for one key, with something on standard input."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(given)))
    return replay.main(["--data", str(data), "--reducer", "event_count", *argv])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b'{"student":null}', "field student must be a text or a number"),
        (b'{"student":true}', "field student must be a text or a number"),
        (b'{"student":[]}', "field student must be a text or a number"),
        (b'{"student":{}}', "field student must be a text or a number"),
        (b'{"student":NaN}', "field student must be a text or a number"),
        (b'{"student":"\\ud800"}', "field student must be a text or a number"),
        (b'{"student":"' + b"x" * 1_025 + b'"}', "no longer than 1,024 bytes"),
        (b'{"student":"7","student":"8"}', "field student stands more than once"),
        (b'{"student":"7","class":"8"}', "this reducer takes student="),
        (b'["student"]', "no JSON object"),
        (b"[" * 60_000, "no JSON object"),
        (b'{"student":"\xff"}', "no JSON object"),
    ],
)
def test_what_is_no_text_or_number_is_refused(
    data: Path, given: bytes, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student called "None" must not be answered for when nobody was named."""
    assert ask(data, monkeypatch, "--key", "-", given=given) == 2
    printed = capsys.readouterr()
    assert (printed.out, says in printed.err) == ("", True)


@pytest.mark.parametrize(
    ("given", "student"),
    [(b'{"student":7}', "7"), (b'{"student":7.50}', "7.50"), (b'{"student":"None"}', "None")],
)
def test_a_number_is_the_text_that_was_written(
    data: Path,
    given: bytes,
    student: str,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Nothing of it is rounded, or written in another way."""
    assert ask(data, monkeypatch, "--key", "-", given=given) == 0
    assert json.loads(capfdbinary.readouterr().out)["key"] == {"student": student}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("student=7", "student=None"), "field student stands more than once; give it once"),
        (("student",), "--key student: give it as FIELD=VALUE"),
        (("-", "student=7"), "--key -: give it as FIELD=VALUE"),
    ],
)
def test_a_field_is_given_once_and_with_a_value(
    data: Path,
    argv: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither the last of two counts in silence, nor is one without a value a student without a name."""
    assert ask(data, monkeypatch, *(part for one in argv for part in ("--key", one))) == 2
    assert says in capsys.readouterr().err


RAISES = """
    from reducers import reducer


    def counted(data):
        return {}["missing"]


    @reducer(scope=("student",), version=1)
    def failing(state: int, event) -> int:
        return counted(event.data)


    REDUCERS = [failing]
"""


def test_the_author_learns_where_a_reducer_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Promise: a replay of one key names file, line and function on standard error; the state names none of them."""
    left = Installed(tmp_path / "data")
    (index,) = left.append(event("ann"))
    left.close()
    with package(tmp_path / "site", "failing", RAISES, monkeypatch) as site:
        asked = ["--data", str(left.data), "--reducer", "failing", "--key", "student=ann"]
        assert replay.main(asked) == 0
        printed = capfd.readouterr()
        assert replay.main(asked[:-2]) == 0
    line = f"treering replay: entry {index}: raised in {site / 'failing.py'}:6, counted\n"
    assert printed.err == line
    assert "KeyError" in printed.out
    assert "failing.py" not in printed.out
    assert "raised in" not in capfd.readouterr().err, "only who asks for a key is told"
