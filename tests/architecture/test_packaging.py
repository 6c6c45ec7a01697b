"""Six flat package names, kept from being taken for somebody else's.

`tools` and `api` are names that anyone may use.  With an editable install a foreign folder of such a name in
site-packages wins silently over ours, while from the root of the checkout ours wins and tests notice nothing.
So these tests look from elsewhere, in a fresh interpreter that ignores the environment (`-I`) and the current
directory (`-P`).
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.source import PACKAGES, ROOT

PARENTS = """
import importlib, json, pathlib, sys
print(json.dumps(sorted({str(pathlib.Path(importlib.import_module(n).__file__).parent.parent) for n in %r})))
"""


def parents(cwd: Path, before: str = "") -> list[str]:
    """Return the folders that a fresh interpreter, started in `cwd`, finds the six packages in."""
    command = [sys.executable, "-P", "-I", "-c", before + PARENTS % (PACKAGES,)]
    done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=60)
    found: list[str] = json.loads(done.stdout)
    return found


def stranger(folder: Path) -> Path:
    """Lay a foreign package `tools` into a folder, and return the folder."""
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "__init__.py").write_text('"""Not ours."""\n', "utf-8")
    return folder


def test_six_packages_have_one_parent_wherever_one_stands(tmp_path: Path) -> None:
    """From another directory, one that holds a folder `tools` of its own, all six packages are still ours."""
    assert parents(stranger(tmp_path)) == [str(ROOT)]


def test_only_the_front_loads_what_answers_http() -> None:
    """The other programs, of which there are many on a server, start without FastAPI: half the time, less memory."""
    others = ("archiver", "cell", "past", "replay", "serve", "verify_log", "warden", "witnessing", "worker")
    programs = ", ".join(f"tools.{name}" for name in others)
    code = f"import sys, {programs}; print(sorted({{'fastapi', 'pydantic', 'jinja2'}} & set(sys.modules)))"
    command = [sys.executable, "-P", "-I", "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "[]\n"


def test_a_stranger_on_the_path_is_noticed(tmp_path: Path) -> None:
    """The look of the test above does see a foreign `tools` that wins."""
    first = stranger(tmp_path / "site")
    assert parents(tmp_path, f"import sys; sys.path.insert(0, {str(first)!r})") == sorted(
        [str(ROOT), str(first)]
    )


def test_no_dependency_ships_one_of_our_names() -> None:
    """No installed distribution but ours brings a top-level package called like one of ours."""
    owners = importlib.metadata.packages_distributions()
    names = (*PACKAGES, "tests", "benchmarks")
    assert {name: owners[name] for name in names if set(owners.get(name, ())) - {"treering"}} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package: str) -> None:
    """PEP 561 wants a marker in each top-level package, or type checkers ignore our annotations."""
    assert (ROOT / package / "py.typed").is_file()


def test_commands_are_declared() -> None:
    """Installing the distribution puts `treering` and `verify-log` on the PATH."""
    scripts = importlib.metadata.entry_points(group="console_scripts")
    ours = {script.name: script.value for script in scripts if script.dist and script.dist.name == "treering"}
    assert ours == {"treering": "tools.cli:main", "verify-log": "tools.verify_log:main"}


@pytest.mark.parametrize("extra", [None, "dev"])
def test_the_lock_covers_what_is_declared(extra: str | None) -> None:
    """Each declared dependency is pinned, with hashes, at a version that the declaration allows."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = declared["optional-dependencies"][extra] if extra else declared["dependencies"]
    pins = pinned((ROOT / ("requirements-dev.lock" if extra else "requirements.lock")).read_text("utf-8"))
    for line in wanted:
        wish = Requirement(line)
        versions = pins.get(canonicalize_name(wish.name), [])
        assert versions, f"{wish.name} is not in the lock: make lock"
        assert all(version in wish.specifier for version in versions), (
            f"{line}: locked at {versions}: make lock"
        )


def pinned(lock: str) -> dict[str, list[str]]:
    r"""Return the pinned versions of a lock by name, having checked that each pin carries a hash.

    >>> pinned("a==1 ; python_version < '3.12' \\\n    --hash=sha256:00\n")
    {'a': ['1']}
    """
    pins: dict[str, list[str]] = {}
    blocks = lock.replace("\\\n", " ").splitlines()
    for block in (block for block in blocks if block.strip() and not block.lstrip().startswith("#")):
        requirement = Requirement(block.partition("--hash=")[0].strip())
        (pin,) = requirement.specifier
        assert pin.operator == "==", block
        assert "--hash=sha256:" in block, f"{requirement.name} has no hash"
        pins.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    return pins
