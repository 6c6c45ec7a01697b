"""The core knows no clock, no chance, no files and no threads.

What is pure can be run anywhere, replayed by seed, and proved; so time, randomness and I/O arrive as
arguments, and the modules that could fetch them are not even imported.  `hash()` is out too: its answers for
text change from process to process.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, imports, modules, shown

PURE_FOLDERS = ("merkle", "reducers")
PURE_FILES = (
    "archive/event.py",
    "archive/entry.py",
    "archive/bundles.py",
    "archive/block.py",
    "archive/plan.py",
    "archive/cutting.py",
    "archive/datakey.py",
    "archive/drafting.py",
    "archive/twin.py",
    "archive/keyring.py",
)
EXCEPT = {
    "reducers/conforming.py": "makes an expression out of a type, once, where a reducer is defined",
    "reducers/elsewhere.py": "runs in authors' tests only: it starts other interpreters, to see whether they agree",
    "reducers/modules.py": "looks, when a program starts, which modules are installed",
}

# fmt: off
IMPURE_MODULES = {
    "asyncio", "concurrent", "ctypes", "fcntl", "fileinput", "glob", "http", "io", "logging",
    "mmap", "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select", "selectors",
    "shelve", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib", "uuid", "lmdb", "httpx2", "redis",
}
# fmt: on
IMPURE_CALLS = {"open", "input", "print", "eval", "exec", "hash", "id", "__import__"}
IMPURE_METHODS = {"now", "utcnow", "today", "read_bytes", "read_text", "write_bytes", "write_text", "urandom"}


def pure_files() -> list[Path]:
    """Return every file that promises purity; that each one is there is part of the promise."""
    folders = [path for path in modules(*PURE_FOLDERS) if shown(path) not in EXCEPT]
    return [*folders, *(ROOT / name for name in PURE_FILES)]


def impurities(source: str) -> list[str]:
    """Return the imports and calls of a module that reach beyond its arguments."""
    found = [
        f"line {item.line}: imports {item.module}" for item in imports(source) if item.top in IMPURE_MODULES
    ]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                found.append(f"line {node.lineno}: calls {name}()")
            case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_METHODS:
                found.append(f"line {node.lineno}: calls .{name}()")
            case _:
                pass
    return found


def test_the_core_reaches_for_nothing_outside() -> None:
    """A plan, a proof and a fold depend on their arguments alone."""
    found = {shown(path): impurities(path.read_text("utf-8")) for path in pure_files()}
    wrong = {path: faults for path, faults in found.items() if faults}
    assert wrong == {}, (
        "Take time, chance, files and threads as arguments, or move this to a room that may have them."
    )


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import path",
        "def f():\n    import random",
        "from datetime import datetime\ndatetime.now()",
        "open('x')",
        "key = hash('a')",
        "import concurrent.futures",
    ],
)
def test_an_impurity_is_noticed(source: str) -> None:
    """The check of the test above does find each kind of reaching out."""
    assert len(impurities(source)) == 1


def test_parsing_a_date_is_pure() -> None:
    """Reading a time that was given is not the same as asking for the time."""
    assert impurities("from datetime import datetime\ndatetime.fromisoformat('2026-01-01')") == []
