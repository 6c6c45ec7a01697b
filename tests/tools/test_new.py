"""treering new module: what it makes can be installed, passes its own test and is found; it harms nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.served import serving
from tools import new
from tools.process import EXIT_GOOD, EXIT_USAGE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a new module is made and installed, below `site`; nothing is written by hand."""
    folder = tmp_path_factory.mktemp("new")
    assert new.main(["module", "essay-stats", "--dir", str(folder)]) == EXIT_GOOD
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    flags = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    run([*pip, *flags, str(folder / "essay-stats")], {"PIP_CACHE_DIR": str(folder / "cache")})
    return folder


@pytest.mark.process
def test_a_new_module_passes_its_test_and_is_found(site: Path) -> None:
    """As it was made, it keeps the contract in all processes, and is listed without being imported."""
    there = {"PYTHONPATH": os.pathsep.join([str(site / "site"), str(ROOT)])}
    ran = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(site / "essay-stats" / "tests")], there, site
    )
    assert "3 passed" in ran
    code = (
        "from reducers import available, load; ref = available()['essay-stats']; module = load(ref);"
        "print(ref.kind, ref.value, module.version, [each.name for each in module.reducers])"
    )
    listed = run(["-c", code], there, site)
    assert listed == "treering essay_stats 0.1.0 ['essay_stats_typing']\n"


@pytest.mark.process
def test_a_new_module_is_a_value_on_a_server(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started again runs it: an event goes in, and its view comes out."""
    monkeypatch.setenv("PYTHONPATH", str(site / "site"))
    event = {
        "type": "keystroke",
        "source": "org.example.editor",
        "keys": {"student": "ada"},
        "data": {"characters": 5},
    }
    with serving(site / "data") as server:
        receipt = server.post(json.dumps(event).encode()).json()["receipts"][0]
        asked = server.get("/v1/states/essay_stats_typing", student="ada", min_size=receipt["size"])
    assert asked.status_code == 200, asked.text
    assert asked.json()["state"] == {"keystrokes": 5, "longest_pause_s": 0.0}


def run(arguments: list[str], environment: dict[str, str], folder: Path = ROOT) -> str:
    """Run this Python; return what it printed, or fail with all that it said."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_what_is_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files for people, an object for programs, and the next step."""
    assert new.main(["module", "essay_stats", "--dir", str(tmp_path), "--json"]) == EXIT_GOOD
    told = json.loads(capsys.readouterr().out)
    assert told["package"] == "essay_stats"
    assert told["folder"] == str(tmp_path / "essay_stats")
    assert sorted(told["files"]) == sorted(
        path.relative_to(told["folder"]).as_posix()
        for path in Path(told["folder"]).rglob("*")
        if path.is_file()
    )
    assert new.main(["module", "other", "--dir", str(tmp_path)]) == EXIT_GOOD
    assert f"next: pip install --no-deps -e {tmp_path}/other && pytest" in capsys.readouterr().out


def test_nothing_of_the_pattern_is_left(tmp_path: Path) -> None:
    """Each place for a name is filled in, and each Python file can be compiled."""
    assert new.main(["module", "essay-stats", "--dir", str(tmp_path)]) == EXIT_GOOD
    for path in (tmp_path / "essay-stats").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "PACKAGE" not in text
            assert "NAME" not in text
            if path.suffix == ".py":
                compile(text, str(path), "exec")


def test_a_name_may_hold_a_word_of_the_pattern(tmp_path: Path) -> None:
    """Each word is filled in once, and what was filled in is left alone."""
    assert new.main(["module", "MY-NAME", "--dir", str(tmp_path)]) == EXIT_GOOD
    folder = tmp_path / "MY-NAME"
    assert "from MY_NAME.keystrokes import MY_NAME_typing" in (folder / "MY_NAME/__init__.py").read_text()
    assert 'packages = ["MY_NAME"]' in (folder / "pyproject.toml").read_text()


def test_a_dry_run_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what would be made, and leaves the folder as it was."""
    assert new.main(["module", "essay", "--dir", str(tmp_path), "--dry-run"]) == EXIT_GOOD
    assert "essay/pyproject.toml" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("7up", "cannot be a module's name"),
        ("two words", "cannot be a module's name"),
        ("../up", "cannot be a module's name"),
        ("a.b", "cannot be a module's name"),
        ("", "cannot be a module's name"),
        ("class", "cannot be a module's name"),
        ("essay-", "end with a letter or digit"),
        ("_x", "begin with a letter"),
        ("__x__", "cannot be a module's name"),
        ("test_", "cannot be a module's name"),
        ("a" * 65, "cannot be a module's name"),
        ("activity", "a module named 'activity' is installed already"),
        ("json", "there is a Python package 'json' already"),
        ("numpy", "there is a Python package 'numpy' already"),
        ("tools", "there is a Python package 'tools' already"),
        ("treering", "there is a Python package 'treering' already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    """One that is none, or that would hide what is there; nothing is written."""
    assert new.main(["module", name, "--dir", str(tmp_path)]) == EXIT_USAGE
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is overwritten, not even an empty folder or a link to nowhere; and nothing is made elsewhere."""
    (tmp_path / "essay").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("essay", "link"):
        assert new.main(["module", name, "--dir", str(tmp_path)]) == EXIT_USAGE
        assert "exists; nothing is overwritten" in capsys.readouterr().err
    assert new.main(["module", "other", "--dir", str(tmp_path / "nowhere")]) == EXIT_USAGE
    assert "there is no such folder" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["essay", "link"]


def test_a_module_is_there_wholly_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails half-way, nothing is left to clean up."""
    real = Path.write_text

    def full(self: Path, text: str, **more: str) -> int:
        if self.name.startswith("test_"):
            raise OSError(28, "No space left on device")
        return real(self, text, **more)

    monkeypatch.setattr(Path, "write_text", full)
    assert new.main(["module", "essay", "--dir", str(tmp_path)]) == EXIT_USAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [".", "tests"])
def test_none_is_made_in_our_own_checkout(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: a new contributor's checkout stays clean: its checks would judge the module, and refuse its imports."""
    assert new.main(["module", "essay_stats", "--dir", str(ROOT / place)]) == EXIT_USAGE
    assert "with --dir .." in capsys.readouterr().err
    assert not (ROOT / place / "essay_stats").exists()
