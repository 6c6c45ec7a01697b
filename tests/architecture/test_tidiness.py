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

# Written in pieces, so that this file passes its own test.
FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.*])/wo" r"rk/",
            r"\.\./sha" r"red",
            r"/ro" r"ot/",
            r"/opt/py" r"pi",
            r"/opt/whe" r"els",
            r"/tmp/ba" r"sh_",
            r"pypi\.o" r"rg",
            r"pythonho" r"sted",
            r"registry\.np" r"mjs",
            r"deb\.deb" r"ian",
            r"--(extra-)?index-u" r"rl",
            r"--find-li" r"nks",
        ]
    )
)
WRITTEN = (
    ".py",
    ".md",
    ".toml",
    ".lock",
    ".sh",
    ".html",
    ".css",
    ".js",
    ".json",
    ".jsonl",
    ".txt",
    ".yml",
    ".yaml",
)


def test_source_files_stay_short() -> None:
    """A file that outgrows its size is split, or named in LONGER where a reviewer sees it; it never grows unseen."""
    sizes = {shown(path): len(path.read_text("utf-8").splitlines()) for path in modules(*PACKAGES)}
    assert sizes, "no source files"
    assert {name: size for name, size in sizes.items() if size > LONGER.get(name, LINES_MAX)} == {}


def test_exceptions_are_still_needed() -> None:
    """A file that became short again leaves the list of longer ones, so that the list can only shrink."""
    sizes = {shown(path): len(path.read_text("utf-8").splitlines()) for path in modules(*PACKAGES)}
    assert [name for name in LONGER if sizes.get(name, 0) <= LINES_MAX] == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """Paths and package indexes belong to a site; the project works, and reads well, at any."""
    found = [
        f"{shown(path)}:{number} {match.group()}"
        for path in files(*WRITTEN, "Makefile", "run", ".gitignore")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (match := FOREIGN.search(line))
    ]
    assert found == []


@pytest.mark.parametrize("line", ["cd /work/main", "see ../shared/x", "pip --index-url=x", "/root/.venv"])
def test_a_foreign_path_is_noticed(line: str) -> None:
    """The pattern of the test above does find what it is for."""
    assert FOREIGN.search(line)


@pytest.mark.parametrize(
    "line", ["docs/work/plan.md", "the workshop", "uv pip compile --no-emit-index", "shared/"]
)
def test_an_innocent_line_passes(line: str) -> None:
    """The pattern does not take ordinary words for paths."""
    assert not FOREIGN.search(line)
