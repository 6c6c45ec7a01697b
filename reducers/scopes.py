r"""Dotted names in source, each with what is bound around it: which `open` is Python's, and which is somebody's own.

A name is local to the function that binds it, however that is done: by a parameter, an assignment, an import, a
loop, `except E as name`, a capture of `match`, or a `def` or `class` inside.  What is bound in a class is seen by its
own statements and not by its methods, and what a comprehension binds stays in it.

    def words(state, event):
        match event.data:
            case {"name": open}:            # binds it, so that
                return open.split()         # -> open.split, of which nothing is known

Where a container is only counted, asked or gone through, the name says so, as Python would: `kind in HANDLERS` is
HANDLERS.__contains__.  What names lead to is followed and judged by `reducers.purity`.

>>> tree = ast.parse("def f(state, time):\n    return time.time() + clock.time()").body[0]
>>> [(name.first, name.rest, name.bound is UNKNOWN) for name in names_in(tree)]
[('time', ('time',), True), ('clock', ('time',), False)]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import resolve_name
from typing import Any, NamedTuple


class _Mark:
    """Stands for a value that is not there."""


UNKNOWN: Any = _Mark()
"""The value of a name that is bound in a place where nothing is known of it."""
FREE: Any = _Mark()
"""The value of a name that nothing on the way binds: it is the module's, or Python's."""

_Bound = Mapping[str, Any]
_SKIPPED = {"annotation", "returns", "decorator_list"}


class Key(NamedTuple):
    """A part of a name that stands in brackets, such as the "draft" of HANDLERS["draft"]."""

    value: str | int


class Name(NamedTuple):
    """A dotted name as it stands in source."""

    line: int
    first: str
    rest: tuple[str | Key, ...]
    bound: Any
    """What its first part is bound to, or FREE."""


class _Scope(NamedTuple):
    package: str
    """Where relative imports start from."""
    here: _Bound
    inner: _Bound
    """What functions that stand here see of it."""

    def function(self, bound: _Bound) -> _Scope:
        both = {**self.inner, **bound}
        return _Scope(self.package, both, both)

    def class_body(self, bound: _Bound) -> _Scope:
        return _Scope(self.package, {**self.inner, **bound}, self.inner)

    def comprehension(self, bound: _Bound) -> _Scope:
        return _Scope(self.package, {**self.here, **bound}, {**self.inner, **bound})


def names_in(node: ast.AST, package: str = "", first: Any = UNKNOWN) -> Iterator[Name]:
    """Yield each dotted name in a function or class, annotations and decorators left out.

    Relative imports start from `package`.  `first` is the value of the function's first parameter, if it is known.
    """
    scope = _Scope(package, {}, {})
    yield from _function(node, scope, first) if _is_function(node) else _names(node, scope)


def _names(node: ast.AST, scope: _Scope) -> Iterator[Name]:
    if isinstance(node, ast.Attribute | ast.Name) or _key_of(node) is not None:
        yield from _dotted(node, scope)
    elif _is_function(node):
        yield from _function(node, scope)
    elif isinstance(node, ast.ClassDef):
        yield from _all([*node.bases, *node.keywords], scope)
        yield from _all(node.body, scope.class_body(_bound_by(node.body, scope.package)))
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        yield from _comprehension(node, scope)
    elif (pair := _asked(node)) is not None:
        container, how = pair
        yield from _dotted(container, scope, how)
        yield from _all([each for each in _children(node) if each is not container], scope)
    else:
        yield from _all(_children(node), scope)


def _all(nodes: Iterable[ast.AST], scope: _Scope) -> Iterator[Name]:
    for each in nodes:
        yield from _names(each, scope)


def _dotted(node: ast.AST, scope: _Scope, *more: str) -> Iterator[Name]:
    parts: list[str | Key] = [*more]
    inner: Any = node
    while isinstance(inner, ast.Attribute) or _key_of(inner) is not None:
        parts.insert(0, _key_of(inner) or inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield Name(node.lineno, inner.id, tuple(parts), scope.here.get(inner.id, FREE))  # type: ignore[attr-defined]
    else:
        yield from _names(inner, scope)


def _key_of(node: ast.AST) -> Key | None:
    match node:
        case ast.Subscript(slice=ast.Constant(value=str() | int() as value)):
            return Key(value)
    return None


def _function(node: Any, scope: _Scope, first: Any = UNKNOWN) -> Iterator[Name]:
    yield from _all([*node.args.defaults, *filter(None, node.args.kw_defaults)], scope)
    body = node.body if isinstance(node.body, list) else [node.body]
    bound = {each.arg: UNKNOWN for each in ast.walk(node.args) if isinstance(each, ast.arg)}
    if positional := [*node.args.posonlyargs, *node.args.args]:
        bound[positional[0].arg] = first
    yield from _all(body, scope.function({**bound, **_bound_by(body, scope.package)}))


def _comprehension(node: Any, scope: _Scope) -> Iterator[Name]:
    targets = [each.target for each in node.generators]
    yield from _iterated(node.generators[0].iter, scope)
    scope = scope.comprehension(_bound_by(targets, scope.package))
    for place, each in enumerate(node.generators):
        yield from _iterated(each.iter, scope) if place else ()
        yield from _all([each.target, *each.ifs], scope)
    yield from _all([each for each in _children(node) if not isinstance(each, ast.comprehension)], scope)


def _iterated(node: ast.AST, scope: _Scope) -> Iterator[Name]:
    yield from (
        _dotted(node, scope, "__iter__")
        if isinstance(node, ast.Attribute | ast.Name)
        else _names(node, scope)
    )


def _asked(node: ast.AST) -> tuple[ast.AST, str] | None:
    """Return (dotted name, method) where nothing is taken out of what a name leads to, or only what it yields."""
    match node:
        case ast.Compare(
            ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute() | ast.Name() as container]
        ):
            return container, "__contains__"
        case ast.Call(func=ast.Name(id="len"), args=[ast.Attribute() | ast.Name() as container]):
            return container, "__len__"
        case ast.For(iter=ast.Attribute() | ast.Name() as container):
            return container, "__iter__"
    return None


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for field, value in ast.iter_fields(node):
        if field not in _SKIPPED:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, ast.AST):
                    yield each


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _bound_by(nodes: Iterable[ast.AST], package: str) -> dict[str, Any]:
    """Return what statements bind in their own scope: imports to what is loaded, all else to UNKNOWN."""
    stored: dict[str, Any] = {}
    imported: dict[str, Any] = {}
    todo = list(nodes)
    while todo:
        node = todo.pop()
        stored.update(dict.fromkeys(_stored_by(node), UNKNOWN))
        imported.update(_imported_by(node, package))
        if isinstance(node, ast.comprehension):
            todo += [node.iter, *node.ifs]
        elif not _is_function(node) and not isinstance(node, ast.ClassDef):
            todo += ast.iter_child_nodes(node)
    return {**stored, **imported}


def _stored_by(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _imported_by(node: ast.AST, package: str) -> dict[str, Any]:
    """Return what an import binds, as far as it is loaded."""
    bound: dict[str, Any] = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            bound[alias.asname or name] = sys.modules.get(name, UNKNOWN)
    elif isinstance(node, ast.ImportFrom):
        module = _module_of(node, package)
        for alias in node.names:
            found = vars(module).get(alias.name, UNKNOWN) if module is not None else UNKNOWN
            bound[alias.asname or alias.name] = found
    return bound


def _module_of(node: ast.ImportFrom, package: str) -> Any:
    name = "." * node.level + (node.module or "")
    try:
        return sys.modules.get(resolve_name(name, package))
    except ImportError:  # dots that lead out of the package: the import itself says so
        return None
