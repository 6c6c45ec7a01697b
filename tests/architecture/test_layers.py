"""Imports go one way, and each room has its own few dependencies.

    merkle <- archive <- reducers <- replay <- api <- tools        ("is used by")

A room may use what stands to its left, by the names that `__init__` exports, and the third-party packages of
its row in `MAY_USE`.  A new dependency is a line here, where a reviewer sees which room it enters
(docs/adr/0001-import-direction.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGES, ROOT, Import, exported, imports, modules, shown

MAY_USE: dict[str, set[str]] = {
    "merkle": {"cryptography"},
    "archive": {"cryptography", "lmdb", "msgspec", "numpy"},
    "reducers": {"msgspec"},
    "replay": {"msgspec", "numpy", "redis"},
    "api": {
        "fastapi",
        "httpx2",
        "jinja2",
        "jsonpath_rfc9535",
        "msgspec",
        "prometheus_client",
        "pydantic",
        "starlette",
    },
    "tools": {
        "httptools",
        "httpx2",
        "msgspec",
        "prometheus_client",
        "pyarrow",  # an extra, for `treering replay --out FILE.parquet`
        "rich",
        "uvicorn",
        "uvloop",
        "websockets",
    },
}
"""Third-party packages by room; the standard library is free, but for the pure files (test_purity.py)."""

ARCHIVE_VALUES = {"Event"}
"""All that `reducers` may know of the archive: its values, never its store."""


def faults(room: str, source: str, *, exports: dict[str, set[str]]) -> list[str]:
    """Return what is wrong with the imports of one module of a room, a sentence each."""
    return [f"line {item.line}: {fault}" for item in imports(source) if (fault := judge(room, item, exports))]


def judge(room: str, item: Import, exports: dict[str, set[str]]) -> str:
    """Return what is wrong with one import, or nothing."""
    if item.top == room or item.top in sys.stdlib_module_names:
        return ""
    if item.top not in PACKAGES:
        return "" if item.top in MAY_USE[room] else f"{room} may not use {item.top}"
    if PACKAGES.index(item.top) > PACKAGES.index(room):
        return f"{room} may not use {item.top}, which is built on it"
    if item.module != item.top:
        return f"name the package: from {item.top} import ..., not {item.module}"
    if item.name is not None and item.name not in exports.get(item.top, set()):
        return f"{item.top} does not export {item.name}"
    if room == "reducers" and item.top == "archive" and item.name not in ARCHIVE_VALUES:
        return f"reducers know the archive's values {sorted(ARCHIVE_VALUES)} only, not {item.name}"
    return ""


@pytest.mark.parametrize("room", PACKAGES)
def test_a_room_uses_only_what_stands_to_its_left(room: str) -> None:
    """Mathematics can be read without the archive, the archive without HTTP, and so on along the row."""
    paths = modules(room)
    assert paths, f"{room}/ has no modules"
    exports = {other: exported(other) for other in PACKAGES if (ROOT / other / "__init__.py").exists()}
    found = {shown(path): faults(room, path.read_text("utf-8"), exports=exports) for path in paths}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("merkle", "import archive", "built on it"),
        ("archive", "def f():\n    from replay import step", "built on it"),
        ("merkle", "import lmdb", "may not use lmdb"),
        ("api", "import lmdb.tool", "may not use lmdb"),
        ("tools", "import redis", "may not use redis"),
        ("replay", "from fastapi import FastAPI", "may not use fastapi"),
        ("archive", "from merkle.hashing import leaf_hash", "name the package"),
        ("archive", "from merkle import secret", "does not export"),
        ("reducers", "from archive import Store", "values"),
        ("tools", "from tests.faults import Crash", "may not use tests"),
    ],
)
def test_a_wrong_import_is_noticed(room: str, source: str, complaint: str) -> None:
    """The judge of the test above does find each kind of wrong import."""
    (fault,) = faults(room, source, exports={"merkle": {"leaf_hash"}, "archive": {"Event", "Store"}})
    assert complaint in fault


def test_right_imports_pass() -> None:
    """The judge lets through what the rule allows: one's own room, the left, and the standard library."""
    source = (
        "import os, lmdb\nfrom archive.plan import plan\nfrom merkle import leaf_hash\nfrom . import seal"
    )
    assert faults("archive", source, exports={"merkle": {"leaf_hash"}}) == []


def test_every_room_stands_in_the_checkout() -> None:
    """The six packages are here, and no seventh one has grown beside them unnoticed."""
    here = {path.parent.name for path in Path(ROOT).glob("*/__init__.py")}
    assert here - {"benchmarks"} == set(PACKAGES)
