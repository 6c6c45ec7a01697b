r"""Finding a function or a class in the file that it stands in, and the names in it: each file is parsed once.

A function is found by the line that `co_firstlineno` names, a class by its qualified name; two of one name (in an
`if`, say) are both found.  To ask `inspect` for each class would parse the whole file for each.

>>> source = ["class A:", "    class B:", "        def f(self): ...", "def g():", "    class C: ..."]
>>> list(_made_in("\n".join(source)))
['A', 4, 'A.B', 'g.<locals>.C', 3]

What names are: `reducers.scopes`.  Who reads them: `reducers.purity`.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import sys
from collections import deque
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from reducers.scopes import Name, names_in

_Nodes = dict[int | str, list[ast.AST]]


class Listing:
    """The files that one check comes to."""

    def __init__(self, first: Any) -> None:
        """Begin with none; `first` is what the first parameter of a function is bound to."""
        self._first = first
        self._files: dict[str, _Nodes] = {}
        self._names: dict[ast.AST, list[Name]] = {}

    def names_of(self, one: Any, package: str) -> Iterator[Name]:
        """Yield the names in a function or class, in the order of its source; without source, none."""
        for node in self._nodes_of(one):
            if node not in self._names:
                self._names[node] = list(names_in(node, package, self._first))
            yield from self._names[node]

    def _nodes_of(self, one: Any) -> list[ast.AST]:
        try:
            file = file_of(one)
        except (OSError, TypeError):  # of C code, or made at a prompt
            return []
        if file not in self._files:
            self._files[file] = _in_file(file, one)
        key = one.__code__.co_firstlineno if isinstance(one, FunctionType) else one.__qualname__
        return self._files[file].get(key, [])


def file_of(one: Any) -> str:
    """Return the file that a function or class stands in; raise OSError or TypeError where there is none."""
    return inspect.getsourcefile(one) or inspect.getfile(one)


def _in_file(file: str, one: Any) -> _Nodes:
    linecache.checkcache(file)
    known = one.__globals__ if isinstance(one, FunctionType) else vars(sys.modules[one.__module__])
    try:
        return _made_in("".join(linecache.getlines(file, known)))
    except (SyntaxError, RecursionError):  # one that was edited since, or is deeper than there is stack left
        return {}


@functools.lru_cache(maxsize=16)
def _made_in(source: str) -> _Nodes:
    """Return the functions in a source by their first line, and the classes by their qualified name."""
    found: _Nodes = {}
    todo: deque[tuple[ast.AST, str]] = deque([(ast.parse(source), "")])
    while todo:
        node, inside = todo.popleft()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found.setdefault(_first_line(node), []).append(node)
            inside += f"{getattr(node, 'name', '<lambda>')}.<locals>."
        elif isinstance(node, ast.ClassDef):
            found.setdefault(inside + node.name, []).append(node)
            inside += f"{node.name}."
        todo.extend((each, inside) for each in ast.iter_child_nodes(node))
    return found


def _first_line(node: Any) -> int:
    """Return the line of the first decorator, if there is one."""
    decorators = getattr(node, "decorator_list", [])
    return int((decorators[0] if decorators else node).lineno)
