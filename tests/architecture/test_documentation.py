"""What is written about the code is there, and is true.

Every module says what it is, every exported name and every test says what it promises, every command is in
the README and explains itself, and every link leads somewhere.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGES, ROOT, files, modules, shown
from tools.cli import COMMANDS

FIRST_COMMANDS = {"serve", "demo", "send", "verify-log", "replay", "keys"}


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_every_module_opens_with_its_idea(folder: str) -> None:
    """Someone who reads only the module docstrings should be able to find their way."""
    paths = modules(folder)
    assert paths, f"{folder}/ has no modules"
    silent = [shown(path) for path in paths if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == [], "Open each of these files with a docstring that says what it is."


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_documented(package: str) -> None:
    """What `__init__` exports is the public interface: listed, there, and saying what it is for."""
    module = importlib.import_module(package)
    if package == "tools":
        assert module.__all__ == [], "programs are run, not imported"
        return
    assert module.__all__, f"{package} exports nothing"
    objects = {name: getattr(module, name) for name in module.__all__}
    able = {
        name: value for name, value in objects.items() if inspect.isclass(value) or inspect.isroutine(value)
    }
    assert able, f"{package} exports no class and no function"
    silent = [name for name, value in able.items() if not says_something(value)]
    assert silent == [], "Give each of these a docstring that says what it is for."


def says_something(value: object) -> bool:
    """Tell whether a value has a docstring of its own; the signature that `dataclass` makes is none."""
    text = (vars(value).get("__doc__") if isinstance(value, type) else value.__doc__) or ""
    return bool(text) and not text.startswith(f"{getattr(value, '__name__', '')}(")


def test_every_test_states_its_promise() -> None:
    """A test's docstring says what is kept as long as it passes."""
    silent = [
        f"{shown(path)}:{node.lineno} {node.name}"
        for path in modules("tests")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == [], "Give each of these tests a docstring with its promise."


def test_every_command_is_in_the_readme() -> None:
    """Users know the commands that the README names, and each of these exists."""
    assert set(COMMANDS) >= FIRST_COMMANDS
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"^\| `treering ([a-z-]+)", readme, re.MULTILINE))
    assert named == set(COMMANDS), "Give each command a row of the table in README.md, and no other."


@pytest.mark.parametrize("name", [None, *sorted(COMMANDS)])
def test_every_command_explains_itself(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` answers with the usage, under the name that was typed, and that is a success."""
    assert exit_code("tools.cli", [*([name] if name else []), "--help"]) == 0
    usage = "usage: treering [--version] COMMAND" if name is None else f"usage: treering {name} "
    said = capsys.readouterr().out
    assert said.startswith(usage)
    if name is not None:
        assert "Exit codes: 0 " in said, f"Give the parser of {name} an epilog: tools.console.exit_codes."
        assert "tools." not in said, f"Name no module of ours in the help of {name}: users have commands."
        bare = [
            line.split() for line in said.splitlines() if re.fullmatch(r" +--(data|partition) [A-Z]+", line)
        ]
        assert not [one for one in bare if not explained(said, " ".join(one))], (
            "Give each option a help text."
        )


def explained(text: str, option: str) -> bool:
    """Tell whether the line below an option, in the help of a command, says more of it."""
    after = text.partition(f"  {option}\n")[2]
    return after.startswith("   ")


def test_verify_log_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """The auditor's command stands on its own, under its own name."""
    assert exit_code("tools.verify_log", ["--help"]) == 0
    assert "usage: verify-log" in capsys.readouterr().out


def exit_code(module: str, argv: list[str]) -> int | str | None:
    """Run a command's `main` and return its exit code, given back or raised."""
    try:
        code: int = importlib.import_module(module).main(argv)
    except SystemExit as stop:
        return stop.code
    return code


def test_every_page_has_a_title() -> None:
    """A page without a title is lost in a list of pages."""
    pages = files(".md")
    assert pages
    assert [shown(page) for page in pages if not page.read_text("utf-8").startswith("# ")] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    """A reader who follows a link inside the project arrives."""
    links = [(page, link) for page in files(".md") for link in local_links(page.read_text("utf-8"))]
    assert links
    assert [f"{shown(page)} -> {link}" for page, link in links if not arrives(page, link)] == []


def local_links(text: str) -> list[str]:
    """Return the targets of a page's links that stay inside the project.

    >>> local_links("[a](docs/b.md#c) [d](https://example.org) [e](#f)")
    ['docs/b.md']
    """
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))
    paths = [str(target).partition("#")[0] for target in targets if "://" not in target]
    return [path for path in paths if path and not path.startswith("mailto:")]


def arrives(page: Path, link: str) -> bool:
    """Tell whether a relative link names something that exists."""
    return (page.parent / link).exists()
