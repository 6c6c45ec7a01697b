"""The code digest: whatever of a package decides a state shows, and nothing else does."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reducers import BUILTIN, shipped
from reducers.sources import FOLLOWED, code_digest

REDUCER = """from reducers import Event, reducer


@reducer()
def count(state: int, event: Event) -> int:
    return state + STEP
"""
FILES = {
    "__init__.py": "",
    "count.py": "from .tables.steps import STEP\n" + REDUCER,
    "tables/__init__.py": "",
    "tables/steps.py": "import essays.deep as deep\nSTEP = deep.ONE\n",
    "deep.py": "import json\nONE = 1\n",
    "other.py": "UNUSED = 1\n",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that modules are imported from, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in {"essays", "papers", "alone"}]:
        del sys.modules[name]
    importlib.invalidate_caches()


def digest_of(site: Path, changes: dict[str, str], package: str = "essays") -> str:
    """Install the package with some files changed, and return the digest of its reducer."""
    for name, text in {**FILES, **changes}.items():
        path = site / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("essays", package), newline="")
    _forget()
    found: str = importlib.import_module(f"{package}.count").count.code_digest
    return found


@pytest.mark.parametrize(
    "changed", ["count.py", "tables/steps.py", "deep.py", "tables/__init__.py", "__init__.py"]
)
def test_whatever_of_the_package_it_stands_on_shows(site: Path, changed: str) -> None:
    """The file itself, what it imports by dots or in full, what that imports, and the packages they are in."""
    before = digest_of(site, {})
    assert digest_of(site, {changed: FILES[changed] + "# another\n"}) != before
    assert digest_of(site, {}) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"other.py": "UNUSED = 2\n"},
        {name: text.replace("\n", "\r\n") for name, text in FILES.items()},
    ],
    ids=["a file nobody imports", "line ends of another system"],
)
def test_nothing_else_shows(site: Path, changes: dict[str, str]) -> None:
    """States are not made anew for what cannot have changed them."""
    assert digest_of(site, changes) == digest_of(site, {})


def test_the_same_code_under_another_name_is_the_same_code(site: Path) -> None:
    """The digest speaks of files within the package, not of what the package is called."""
    plain = {"tables/steps.py": "from ..deep import ONE as STEP\n"}
    assert digest_of(site, plain) == digest_of(site, plain, "papers")


def test_the_layout_is_what_the_format_says(site: Path) -> None:
    """A line for each file, in the order of names; one file alone is the hash of its text (docs/formats/state.md)."""
    names = {"": "__init__.py", "count": "count.py", "deep": "deep.py", "tables": "tables/__init__.py"}
    names["tables.steps"] = "tables/steps.py"
    lines = [
        f"{name} {hashlib.sha256(FILES[path].encode()).hexdigest()}\n" for name, path in sorted(names.items())
    ]
    assert digest_of(site, {}) == hashlib.sha256("".join(lines).encode()).hexdigest()
    alone = "STEP = 1\n" + REDUCER
    (site / "alone.py").write_text(alone)
    assert importlib.import_module("alone").count.code_digest == hashlib.sha256(alone.encode()).hexdigest()


@pytest.mark.parametrize(
    "line",
    [
        "import essays.not_there",
        "from . import count",
        "from .....far import away",
        "from essays import *",
        "import json.decoder as essays_json",
    ],
)
def test_what_cannot_be_followed_is_left_to_the_import(site: Path, line: str) -> None:
    """A name that is no module, a circle, dots that lead out: the digest is there all the same."""
    late = f"def never() -> None:\n    {line}\n" if "*" not in line else line + "\n"
    assert len(digest_of(site, {"deep.py": FILES["deep.py"] + late})) == 64


def test_of_ours_only_reducers_are_followed() -> None:
    """What all reducers stand on is not part of each: an update of the server would rebuild every state."""
    assert {place.partition(":")[0] for places in BUILTIN.values() for place in places} == FOLLOWED
    named = {one.name: one for one in shipped()}
    own = hashlib.sha256(Path(sys.modules["reducers.event_count"].__file__ or "").read_bytes()).hexdigest()
    assert named["event_count"].code_digest == own
    place = sys.modules["reducers.class_progress"].__file__
    assert named["class_progress"].code_digest != hashlib.sha256(Path(place or "").read_bytes()).hexdigest()


@pytest.mark.parametrize("other", ["2", "state", "event in {1, 2}", "(lambda: 3)", "(lambda: 4)"])
def test_code_of_no_file_has_a_digest_of_its_own(other: str) -> None:
    """Functions typed at a prompt are told apart by what they do, constants included, and not by where they stand."""
    scope: dict[str, Callable[..., object]] = {}
    for name, value in {"one": "1", "again": "1", "other": other}.items():
        exec(f"def {name}(state, event): return {value}", scope)
    assert code_digest(scope["one"]) == code_digest(scope["again"]) != code_digest(scope["other"])
