"""Promise: the log says which software took it up, and whoever has the same software computes the same digests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from archive import Archiver, DataFolder, Log, control_body, parse_leaf, size_of
from reducers import shipped
from tools import archiver, cli, keys
from tools.archiver import begin, build
from tools.process import EXIT_GOOD, EXIT_USAGE
from tools.settings import load
from tools.software import (
    PACKAGES,
    PAGES,
    code_digest,
    installed,
    native_digest,
    normalised,
    packages_digest,
    software,
    sources,
)

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "archive" / "software.json").read_text("utf-8"))
ROOT = Path(__file__).resolve().parents[2]


def bodies(data: Path) -> list[dict[str, object]]:
    """Return the bodies of all control entries of a log."""
    store = DataFolder(data).open_log()
    try:
        with store.view() as view:
            log = Log(view, size_of(view))
            return [control_body(parse_leaf(bytes(leaf))) for _, leaf in log.leaves(0, log.size)]
    finally:
        store.close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data folder of a new log, to which nobody has written."""
    monkeypatch.delenv("TREERING_VAULT_KEY", raising=False)
    monkeypatch.setattr(DataFolder, "take_locks", lambda _: [])  # all archivers of a test are in one process
    folder = DataFolder(tmp_path / "data")
    folder.create()
    return folder.path


def packages_at(site: Path, versions: dict[str, str]) -> list[str]:
    """Lay the metadata of distributions into a folder; return it as a path to look along."""
    for number, (name, version) in enumerate(versions.items()):
        folder = site / f"n{number}-0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no\n"
        )
    return [str(site)]


# --- the two constructions ------------------------------------------------------------------------


def test_the_code_digest_is_that_of_the_format() -> None:
    """The golden vector: paths in order, each with the hash of its text with LF."""
    code = VECTOR["code"]
    assert sha256(code["lines"].encode()).hexdigest() == code["digest"]
    assert code_digest({path: text.encode() for path, text in code["files"].items()}) == code["digest"]


def test_what_counts_as_source_is_as_the_format_says(tmp_path: Path) -> None:
    """The golden vector: Python and C anywhere in the six folders, what pages are made of below `api` alone."""
    for path in VECTOR["sources"]["there"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    assert sorted(sources(tmp_path)) == VECTOR["sources"]["counted"]


def test_the_digest_of_compiled_files_is_that_of_the_format() -> None:
    """The golden vector: bytes as they are, no line ends are changed; and none at all for no files."""
    native = VECTOR["native"]
    assert sha256(native["lines"].encode()).hexdigest() == native["digest"]
    assert (
        native_digest({name: bytes.fromhex(data) for name, data in native["files"].items()})
        == native["digest"]
    )
    assert native_digest({}) is None


def test_the_digest_of_packages_is_that_of_the_format(tmp_path: Path) -> None:
    """The golden vector, read from the metadata of distributions as they lie on a disk."""
    packages = VECTOR["packages"]
    assert sha256(packages["lines"].encode()).hexdigest() == packages["digest"]
    found = installed(packages_at(tmp_path, packages["installed"]))
    assert packages_digest(found) == packages["digest"]
    assert set(found) == set(map(normalised, packages["installed"]))


def test_settings_are_named_by_the_text_of_the_format(tmp_path: Path) -> None:
    """The golden vector; an address that may hold a password leaves no trace."""
    expected, file = VECTOR["configuration"], tmp_path / "treering.toml"
    file.write_text(expected["toml"], "utf-8")
    settings = load({}, {}, file)
    text = settings.text()
    members = json.loads(text)
    assert settings.digest() == sha256(text.encode()).hexdigest()
    assert text.startswith(expected["begins"])
    assert text == json.dumps(members, sort_keys=True)
    assert {name: members[name] for name in expected["members"]} == expected["members"]
    assert not set(members) & set(expected["left_out"])


# --- what is read ---------------------------------------------------------------------------------


def test_every_source_file_counts_and_nothing_else(tmp_path: Path) -> None:
    """A change of any file of the six packages shows, be it Python, C or a page's; tests and caches do not."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    found, before = sources(tmp_path), code_digest(sources(tmp_path))
    assert {"merkle/text.py", "archive/_kernel.c", "tools/software.py", "api/templates/overview.html"} <= set(
        found
    )
    (tmp_path / "tests").mkdir()
    for path in ("tests/test_x.py", "merkle/x.html", "merkle/x.txt"):
        (tmp_path / path).write_text("x")
    assert code_digest(sources(tmp_path)) == before
    changes = {"archive/_kernel.c": b"/**/", "merkle/text.py": b"", "reducers/added.py": b""}
    for path, text in {**changes, "api/templates/overview.html": b"<p>"}.items():
        (tmp_path / path).write_bytes(text)
        assert code_digest(sources(tmp_path)) != before
        before = code_digest(sources(tmp_path))


def test_the_first_package_on_the_path_counts_and_a_broken_one_harms_nothing(tmp_path: Path) -> None:
    """As Python would import it; what pip left behind, or nobody can read, is passed over."""
    first = packages_at(tmp_path / "a", {"Some.Package": "1"})
    second = packages_at(tmp_path / "b", {"some_package": "2", "other": "3", "nameless": ""})
    (tmp_path / "b" / "~ther-1.dist-info").mkdir()
    torn = tmp_path / "b" / "torn-1.dist-info"
    torn.mkdir()
    (torn / "METADATA").write_bytes(b"Name: torn\nVersion: \xff\n")
    assert installed([*first, *second]) == {"some-package": "1", "other": "3"}


def test_whatever_is_shipped_counts() -> None:
    """What a wheel takes along besides source and markers for type checkers: each of its suffixes counts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    data = project["tool"]["setuptools"]["package-data"]
    assert {Path(pattern).suffix for pattern in data["api"]} == PAGES
    assert data == {"*": ["py.typed"], "api": data["api"]}


@pytest.mark.parametrize("wanted", ["auto", "python"])
def test_the_kernel_that_runs_is_named_by_its_bytes(wanted: str) -> None:
    """By the files that were loaded, if they were built, so that other bytes show; null where the twin runs."""
    code = "import json, tools.software; print(json.dumps(tools.software.software()['native']))"
    environment = {**os.environ, "TREERING_KERNEL": wanted}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    built = {path.name.removesuffix(suffix): path for path in (ROOT / "archive").glob(f"_kernel*{suffix}")}
    files = {name: path.read_bytes() for name, path in built.items() if wanted == "auto"}
    assert json.loads(done.stdout) == native_digest(files)


# --- where it is said -----------------------------------------------------------------------------


def test_every_start_says_which_software_it_is(data: Path) -> None:
    """Of the server, of a change of key: digests that whoever has the installation computes again."""
    begin(build(DataFolder(data), "example.org/log", None), DataFolder(data), {"purpose": "serve"})
    assert keys.main(["rotate", "--data", str(data)]) == EXIT_GOOD
    first, second = (body for body in bodies(data) if body["control"] == "start")
    same = {"control": "start", "header": 2, **software(), "reducers": shipped().fingerprint()}
    assert first == {**same, "purpose": "serve"}
    assert second == {**same, "purpose": "rotate"}


def test_the_server_says_its_settings_besides(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest that the supervisor gives stands in the start entry of the archiver."""

    async def serve(folder: DataFolder, opened: Archiver) -> None:
        del folder
        opened.close()

    monkeypatch.setattr(archiver, "serve", serve)
    monkeypatch.setattr(DataFolder, "take_locks", lambda _: [])
    assert archiver.main(["--data", str(data), "--configuration", "ab" * 32]) == EXIT_GOOD
    start = bodies(data)[1]
    assert (start["purpose"], start["configuration"]) == ("serve", "ab" * 32)
    assert start["code"] == code_digest(sources())


def test_the_version_is_told_as_the_log_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for people first, then the digests to compare; the same as an object for programs."""
    assert cli.main(["--version"]) == EXIT_GOOD
    first, *others = capsys.readouterr().out.splitlines()
    found = software()
    assert first == found["software"]
    assert others == [f"{name} {found[name] or 'none'}" for name in ("code", "native", "packages", "python")]
    assert cli.main(["--version", "--json"]) == EXIT_GOOD
    assert json.loads(capsys.readouterr().out) == found
    assert cli.main(["--version", "--yaml"]) == EXIT_USAGE
    assert "usage: treering --version [--json]" in capsys.readouterr().err
