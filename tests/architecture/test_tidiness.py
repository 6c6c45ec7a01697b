"""Small things that are easier kept than restored.

Files stay short enough to read at one sitting, and none of them knows the machine that it was written on.
"""

from __future__ import annotations

import re

import pytest

from tests.architecture.source import PACKAGES, files, modules, shown

LINES_MAX = 400
LONGER: dict[str, int] = {}
"""Files that read like one thought though they are longer, with the size that they may not exceed."""


def whole(text: str) -> str:
    """Return a text without the tildes that keep this file from finding itself."""
    return text.replace("~", "")


FOREIGN = re.compile(
    whole(
        r"""
        (?<![\w.*]) /wo~rk/ | \.\./sha~red | /ro~ot/ | /opt/(py~pi|whe~els) | /tmp/ba~sh_
        | py~pi\.org | python~hosted | registry\.np~mjs | deb\.deb~ian | --(extra-)?index-u~rl | --find-li~nks
        """
    ),
    re.VERBOSE,
)
CODE = (".py", ".sh", ".toml", ".html", ".css", ".js", "Makefile", "run", ".gitignore")
TEXT = (".md", ".lock", ".json", ".jsonl", ".txt", ".yml", ".yaml", ".svg")


def test_source_files_stay_short() -> None:
    """A file that outgrows its size is split, or named in LONGER where a reviewer sees it."""
    sizes = source_sizes()
    assert sizes, "no source files"
    long = {name: size for name, size in sizes.items() if size > LONGER.get(name, LINES_MAX)}
    assert long == {}, (
        f"Split each of these files, one noun each, so that none has more than {LINES_MAX} lines."
    )


def test_exceptions_are_still_needed() -> None:
    """A file that became short again leaves the list of longer ones, so that it can only shrink."""
    sizes = source_sizes()
    assert [name for name in LONGER if sizes.get(name, 0) <= LINES_MAX] == []


def source_sizes() -> dict[str, int]:
    """Return the number of lines of each file of the six packages."""
    return {shown(path): len(path.read_text("utf-8").splitlines()) for path in modules(*PACKAGES)}


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """Paths and package indexes belong to a site; the project works, and reads well, at any."""
    found = [
        f"{shown(path)}:{number} {match.group()}"
        for path in files(*CODE, *TEXT)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (match := FOREIGN.search(line))
    ]
    assert found == []


@pytest.mark.parametrize("line", ["cd /wo~rk/main", "see ../sha~red/x", "pip --index-u~rl=x", "/ro~ot/.venv"])
def test_a_foreign_path_is_noticed(line: str) -> None:
    """The pattern of the test above does find what it is for."""
    assert FOREIGN.search(whole(line))


@pytest.mark.parametrize("line", ["docs/wo~rk/plan.md", "the workshop", "--no-emit-index-url", "shared/"])
def test_an_innocent_line_passes(line: str) -> None:
    """The pattern does not take ordinary words for paths."""
    assert not FOREIGN.search(whole(line))
