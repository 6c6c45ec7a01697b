"""Reading a reducer's source for what it may not reach for, before it ever runs.

The function, and the functions and classes of its own package that it names, are read as syntax trees.  A
dotted name is followed from the globals of its module (so aliases do not hide anything), and judged by what
it leads to.  Names that cannot be followed, such as attributes of a local variable, are left to the guard at
run time.

    essay.py:12:  from datetime import datetime as dt
    essay.py:20:      return Idle(dt.now())          -> reaches for the clock (datetime.datetime.now) at essay.py:20

What is only imported, or used by other code of the module, is no fault: a module may draw pictures at random.
What the names are: `reducers.forbidden`; what is watched at run time: `reducers.guard`.
"""

from __future__ import annotations

import ast
import datetime as dt
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from reducers.errors import DefinitionError
from reducers.forbidden import CLASS_METHODS, CLOCK, kind_of, place, sentence

_UNKNOWN = object()


class Fault(NamedTuple):
    """One thing that a reducer reaches for: its kind, its full name, and the file and line."""

    kind: str
    what: str
    place: str


def check_purity(name: str, *functions: Callable[..., Any] | None) -> None:
    """Raise DefinitionError for the first thing that functions of the reducer `name` reach for."""
    for function in functions:
        for fault in faults(function) if function is not None else ():
            raise DefinitionError(sentence(name, *fault))


def faults(function: Callable[..., Any]) -> list[Fault]:
    """Return what a function reaches for by name, in the order of its source; without source, nothing."""
    root: Any = inspect.unwrap(function)
    if not isinstance(root, FunctionType):
        return []
    found: list[Fault] = []
    seen: set[Any] = set()
    todo: list[Any] = [root]
    while todo:
        one = todo.pop(0)
        if one in seen or not _same_package(one, root):
            continue
        seen.add(one)
        for node, module in _nodes_of(one):
            found += _judge(node, module, todo)
    return found


def _same_package(one: Any, root: FunctionType) -> bool:
    return str(one.__module__).partition(".")[0] == str(root.__module__).partition(".")[0]


def _nodes_of(one: Any) -> Iterator[tuple[ast.AST, dict[str, Any]]]:
    """Yield the syntax trees of a function or class, with the names that its module defines."""
    try:
        tree, filename = _tree("".join(inspect.findsource(one)[0])), inspect.getsourcefile(one)
    except (OSError, TypeError, SyntaxError):  # none, or one that was edited since
        return
    for node in ast.walk(tree):
        if _is_that(node, one):
            yield node, {**_names_of(one), "__file__": filename}


def _is_that(node: ast.AST, one: Any) -> bool:
    if isinstance(one, FunctionType):
        made = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        return made and _first_line(node) == one.__code__.co_firstlineno
    return isinstance(node, ast.ClassDef) and node.name == one.__name__


def _names_of(one: Any) -> dict[str, Any]:
    if isinstance(one, FunctionType):
        return {**one.__globals__, **closed_over(one)}
    module = sys.modules.get(one.__module__)
    return dict(vars(module)) if module is not None else {}


def closed_over(function: Any) -> dict[str, Any]:
    """Return what a function takes from the functions around it, as far as that is assigned yet."""
    found = {}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
        with suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


@functools.lru_cache(maxsize=16)
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


def _first_line(node: Any) -> int:
    """Return the line that `co_firstlineno` names: that of the first decorator, if there is one."""
    decorators = getattr(node, "decorator_list", [])
    return int((decorators[0] if decorators else node).lineno)


def _judge(node: ast.AST, names: dict[str, Any], todo: list[Any]) -> list[Fault]:
    known = {**names, **_imported(node)}
    for local in _locals(node) - set(_imported(node)):
        known[local] = _UNKNOWN
    found = []
    for chain in _chains(node):
        fault = _follow(chain, known, todo)
        if fault is not None:
            found.append(Fault(*fault, place(names["__file__"], chain[0].lineno)))
    return found


def _chains(node: ast.AST) -> Iterator[list[Any]]:
    """Yield each dotted name as [node, "first", "second", ...], annotations and decorators left out."""
    if isinstance(node, ast.Attribute | ast.Name):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value  # type: ignore[assignment]
        if isinstance(inner, ast.Name):
            yield [node, inner.id, *reversed(parts)]
        else:
            yield from _chains(inner)
        return
    skipped = {"annotation", "returns", "decorator_list"}
    for field, value in ast.iter_fields(node):
        if field not in skipped:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, ast.AST):
                    yield from _chains(each)


def _follow(chain: list[Any], known: dict[str, Any], todo: list[Any]) -> tuple[str, str] | None:
    """Return (kind, full name) of what a dotted name leads to if that is out of reach.

    Functions and classes on the way are put on the list of what is still to be read.
    """
    _, first, *rest = chain
    value = known.get(first, getattr(sys.modules["builtins"], first, _UNKNOWN))
    if (fault := value_fault(value)) is not None:
        return fault
    for name in rest:
        if isinstance(value, ModuleType):
            if (kind := kind_of(value.__name__, name)) is not None:
                return kind, f"{value.__name__}.{name}"
        elif isinstance(value, type) and issubclass(value, dt.date) and name in CLASS_METHODS:
            return CLOCK, f"{value.__module__}.{value.__qualname__}.{name}"
        value = _attribute(value, name)
        if (fault := value_fault(value)) is not None:
            return fault
    if isinstance(value, FunctionType | type):
        todo.append(value)
    return None


def _attribute(value: Any, name: str) -> Any:
    """Return an attribute without running anybody's code; of a package, also a part that is not loaded yet."""
    if not isinstance(value, ModuleType | type):
        return _UNKNOWN
    found = vars(value).get(name, _UNKNOWN)
    if found is _UNKNOWN and hasattr(value, "__path__"):
        return ModuleType(f"{value.__name__}.{name}")
    return found


def value_fault(value: Any) -> tuple[str, str] | None:
    """Judge a value by where it was defined, whatever name it has here."""
    if isinstance(value, ModuleType | str | int) or value is _UNKNOWN:
        return None
    owner = _known(value, "__self__")
    if isinstance(owner, type) and issubclass(owner, dt.date):
        name = _known(value, "__name__")
        return (CLOCK, f"{owner.__module__}.{owner.__qualname__}.{name}") if name in CLASS_METHODS else None
    for module, name in _homes(value):
        if (kind := kind_of(module, name)) is not None:
            return kind, f"{module}.{name}"
    return None


def _homes(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the (module, name) under which a function or class is known; C code goes by private names."""
    name, module = _known(value, "__name__"), _known(value, "__module__")
    owner, chance = _known(value, "__self__"), sys.modules.get("random")
    if chance is not None and isinstance(owner, chance.Random):
        # random.random and its like are methods of one hidden generator; others are somebody's own, with a seed.
        if owner is vars(chance).get("_inst"):
            yield "random", str(name)
    elif isinstance(name, str) and isinstance(module, str):
        yield {"posix": "os", "_io": "io"}.get(module, module), name


def _known(value: Any, name: str) -> Any:
    """Return an attribute, or None; a stand-in that fetches its object late may raise anything."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - then it is not known yet
        return None


def _imported(node: ast.AST) -> dict[str, Any]:
    """Return what the imports inside a function bind, as far as it is loaded."""
    bound: dict[str, Any] = {}
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            for alias in each.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                bound[alias.asname or name] = sys.modules.get(name, _UNKNOWN)
        elif isinstance(each, ast.ImportFrom) and each.level == 0:
            module = sys.modules.get(each.module or "")
            for alias in each.names:
                bound[alias.asname or alias.name] = (
                    vars(module).get(alias.name, _UNKNOWN) if module else _UNKNOWN
                )
    return bound


def _locals(node: ast.AST) -> set[str]:
    """Return the names that parameters and assignments make local."""
    bound = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    stored = {
        each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    return bound | stored
