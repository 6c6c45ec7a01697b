"""Promise: to read a reducer, each file is parsed once, and what is found in it is the class or function itself."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest

from reducers.purity import faults

CLASSES = 150
MANY = """
class H{n}:
    def handle(self, state):
        return state + {n}
"""
TWINS = """
import time


class Old:
    class Row:
        at = time.time()

    def clean(self):
        return time.time()


class New:
    class Row:
        at = 0

    def clean(self):
        return 0


def new(state, event):
    return New.Row(), New().clean()


def old(state, event):
    return Old.Row()
"""

Written = Callable[[str], ModuleType]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Give a function that imports a module of this source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> ModuleType:
        (tmp_path / "listed.py").write_text(source)
        monkeypatch.delitem(sys.modules, "listed", raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("listed")

    return write


def test_a_file_of_many_classes_is_parsed_once(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a table of 150 handlers loads in no time."""
    source = "".join(MANY.format(n=number) for number in range(CLASSES))
    source += f"HANDLERS = {{str(n): globals()[f'H{{n}}'] for n in range({CLASSES})}}\n"
    source += "def many(state, event):\n    return HANDLERS[event.type]().handle(state)\n"
    many = written(source).many
    parse = Mock(side_effect=ast.parse)
    monkeypatch.setattr(ast, "parse", parse)
    assert faults(many) == []
    assert parse.call_count == 1


def test_a_class_is_found_by_where_it_stands(written: Written) -> None:
    """Another of its name, in another class, is not taken for it."""
    module = written(TWINS)
    assert faults(module.new) == []
    assert [fault.what for fault in faults(module.old)] == ["time.time"]
    sys.modules.pop("listed")


def test_a_class_in_a_function_is_found(written: Written) -> None:
    """Its qualified name says so."""
    source = "import time\ndef made():\n    class Row:\n        at = time.time()\n    return Row\n"
    module = written(source + "Row = made()\ndef rows(state, event):\n    return Row()\n")
    assert [fault.place.rpartition(":")[2] for fault in faults(module.rows)] == ["4"]
