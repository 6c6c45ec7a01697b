"""The project's own source as data: files, imports, exported names.

The tests of this folder read the source rather than run it, so that they can judge a module that would not
even import.  Everything is found from the root of the checkout; nothing is cached, nothing is written.

The judges themselves are next door, one promise a file: layers, purity, packaging, documentation, tidiness.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("merkle", "archive", "reducers", "replay", "api", "tools")
"""The six rooms, each of which may use those before it."""

NOT_OURS = {"build", "dist", "data", "demo-data", "__pycache__", "node_modules", "out"}


class Import(NamedTuple):
    """One name taken from elsewhere: `from a.b import c` is ("a.b", "c"), `import a.b` is ("a.b", None)."""

    module: str
    name: str | None
    line: int

    @property
    def top(self) -> str:
        """The first part of the module's name: the distribution or room that it belongs to."""
        return self.module.partition(".")[0]


def imports(source: str) -> Iterator[Import]:
    """Yield every import of a module, also those inside functions, but not relative ones (own package)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (Import(node.module or "", alias.name, node.lineno) for alias in node.names)


def exported(package: str) -> set[str]:
    """Return what `__all__` of a room lists, or nothing where there is no literal `__all__`."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text("utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return set(ast.literal_eval(node.value))  # type: ignore[attr-defined]  # Assign and AnnAssign
    return set()


def modules(*folders: str) -> list[Path]:
    """Return the Python files of some folders of the checkout, in order."""
    return sorted(path for folder in folders for path in files(".py") if path.is_relative_to(ROOT / folder))


def files(*suffixes: str) -> list[Path]:
    """Return the files of the checkout that somebody wrote, by suffix or name; caches and data are not."""
    return sorted(path for path in walk(ROOT) if path.suffix in suffixes or path.name in suffixes)


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, keeping out of hidden and generated ones (but not out of `.ci`)."""
    for path in folder.iterdir():
        if path.is_dir():
            if path.name == ".ci" or not (
                path.name[0] == "." or path.name in NOT_OURS or path.suffix == ".egg-info"
            ):
                yield from walk(path)
        else:
            yield path


def shown(path: Path) -> str:
    """Return a path as a reader of a failure wants it: from the root of the checkout."""
    return path.relative_to(ROOT).as_posix()
