"""Promise: docs/settings.md lists what can be set, all of it and nothing else, and every command finds the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGES, ROOT, modules
from tools import backup, bisecting, cli, doctor, export, keys, replay, serve, upgrade, verify_state
from tools.settings import Limits, Settings, load

PAGE = (ROOT / "docs/settings.md").read_text("utf-8")
IN_WORDS = {
    "origin": "a random name",
    "seal": "beside the log",
    "policy": "none",
    "page_hosts": "none",
    "modules": "all",
    "module": "none",
    "redis_url": "none",
    "host_names": "none",
}
"""How the page says that a setting has no value, or an empty one."""


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the one table below a heading, without its head."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    yield from ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:])


def shown(value: object) -> str:
    """Return a default as the page has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_table_has_every_setting_with_its_default_and_no_other() -> None:
    """A setting that nobody reads of is not there for its users."""
    table = {name: default for name, _, _, default, _ in rows("Where a setting comes from")}
    plain = Settings()
    assert list(table) == [one.name for one in fields(Settings)]
    assert {name for name in table if getattr(plain, name) in (None, ())} == set(IN_WORDS)
    assert table == {name: IN_WORDS.get(name, shown(getattr(plain, name))) for name in table}


def test_variables_and_flags_are_those_that_are_read() -> None:
    """A variable is the name in capitals; a flag stands there if `serve` has it, and no flag of `serve` is left out."""
    variables, flags = {}, {}
    for name, variable, flag, _, _ in rows("Where a setting comes from"):
        variables[name], flags[name] = variable, flag
    assert variables == {name: "" if name == "module" else f"TREERING_{name.upper()}" for name in variables}
    known = set(re.findall(r"--[a-z-]+", serve.parser().format_help())) - {"--help", "--config"}
    assert {flag for flag in flags.values() if flag} == known
    assert all(flag in {"", f"--{name.replace('_', '-')}"} for name, flag in flags.items())


def test_limits_of_a_module_are_listed_with_their_defaults() -> None:
    """What one module is given, if nothing is said."""
    table = {name: re.sub(r"^that of all, `", "", default) for name, default, _ in rows("One module")}
    assert table == {one.name: str(getattr(Limits(), one.name)) for one in fields(Limits)}


def test_every_variable_that_the_source_names_is_on_the_page() -> None:
    """A new one is either a setting or explained."""
    source = "".join(path.read_text("utf-8") for path in modules(*PACKAGES))
    named = set(re.findall(r"TREERING_[A-Z_]*[A-Z]", source))
    assert {"TREERING_VAULT_KEY", "TREERING_KERNEL"} <= named
    assert {name for name in named if f"`{name}`" not in PAGE} == set()


def test_the_example_is_a_file_that_is_taken(tmp_path: Path) -> None:
    """As it stands on the page, typed off."""
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found
    (file := tmp_path / "treering.toml").write_text(found[1])
    settings = load({}, {}, file)
    assert settings.limits("writing") == Limits("own", 2_048, 2.0)
    assert (settings.host_names, settings.spare_workers) == (("log.example.org",), 2)


PARSERS = {
    "backup": (backup.parser, ["b"]),
    "bisect": (bisecting.parser, ["--reducer", "r", "--save-trace", "t"]),
    "doctor": (doctor.parser, []),
    "export subject": (export.parser, ["subject", "student:ann", "--out", "o"]),
    "export tiles": (export.parser, ["tiles", "o"]),
    "keys history": (keys.parser, ["history"]),
    "keys rotate": (keys.parser, ["rotate"]),
    "keys vkey": (keys.parser, ["vkey"]),
    "replay": (replay.parser, []),
    "upgrade": (upgrade.parser, []),
    "verify-state": (verify_state.parser, ["-"]),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_command_looks_where_the_server_of_the_same_environment_keeps_its_data(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag, else the variable, else ./data; otherwise doctor reports a server down that runs."""
    parser, arguments = PARSERS[name]
    monkeypatch.delenv("TREERING_DATA", raising=False)
    assert parser().parse_args(arguments).data == Settings().data
    monkeypatch.setenv("TREERING_DATA", "elsewhere")
    assert parser().parse_args(arguments).data == load({}, {"TREERING_DATA": "elsewhere"}, None).data
    assert parser().parse_args([*arguments, "--data", "here"]).data == Path("here")


@pytest.mark.parametrize("name", ["skip", "doctor", "backup"])
def test_a_command_as_a_whole_goes_by_the_variable(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked of the whole command: its message names the folder in which it looked."""
    monkeypatch.setenv("TREERING_DATA", str(tmp_path / "mine"))
    more = {"skip": ["r", "1"], "backup": [str(tmp_path / "b")]}
    assert cli.main([name, *more.get(name, [])]) == 2
    assert str(tmp_path / "mine") in capsys.readouterr().err
