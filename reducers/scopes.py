r"""Dotted names in source, each with what is bound around it: which `open` is Python's, and which is somebody's own.

A name is local to the function that binds it, however that is done: by a parameter, an assignment, an import, a
loop, `except E as name`, a capture of `match`, or a `def` or `class` inside.  What is bound in a class is seen by its
own statements and not by its methods, and what a comprehension binds stays in it.

    def words(state, event):
        match event.data:
            case {"name": open}:            # binds it, so that
                return open.split()         # -> open.split, of which nothing is known

Where something is only called, counted, asked or gone through, the name says so, as Python would: `kind in HANDLERS`
is HANDLERS.__contains__.  What hangs on no name, as the `score` of `MODELS.get(kind).score()`, is a name without a
first part.  What names lead to is followed and judged by `reducers.purity`.

>>> tree = ast.parse("def f(state, time):\n    return time.time() + clock.time()").body[0]
>>> [(name.first, name.rest, name.bound is UNKNOWN) for name in names_in(tree)]
[('time', ('time', '__call__'), True), ('clock', ('time', '__call__'), False)]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import resolve_name
from types import ModuleType
from typing import Any, NamedTuple


class _Mark:
    """Stands for a value that is not there."""


UNKNOWN: Any = _Mark()
"""The value of a name that is bound in a place where nothing is known of it."""
FREE: Any = _Mark()
"""The value of a name that nothing on the way binds: it is the module's, or Python's."""

CALL = "__call__"
"""The last part of a name that is called."""

_Bound = Mapping[str, Any]
_SKIPPED = {"annotation", "returns", "decorator_list"}


class Absent(ModuleType):
    """Stands for a module that is not loaded, or for a name in one: an import in a function may be still to come."""


class Key(NamedTuple):
    """A part of a name that stands in brackets, such as the "draft" of HANDLERS["draft"]."""

    value: str | int


class Name(NamedTuple):
    """A dotted name as it stands in source."""

    line: int
    first: str
    rest: tuple[str | Key, ...]
    bound: Any
    """What its first part is bound to, or FREE; UNKNOWN where it has none."""


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


_Step = Name | tuple[ast.AST, _Scope]
"""A name that was found, or a node that is still to be gone through."""


def names_in(node: ast.AST, package: str = "", first: Any = UNKNOWN) -> Iterator[Name]:
    """Yield each dotted name in a function or class, annotations and decorators left out.

    Relative imports start from `package`.  `first` is the value of the function's first parameter, if it is known.
    Of a class, only its own statements are gone through: its methods and the classes in it are read by themselves.
    What is deep, such as 800 `elif`, is a long list here and no deep stack.
    """
    scope = _Scope(package, {}, {})
    todo = _function(node, scope, first) if _is_function(node) else _own_steps(node, scope)
    todo.reverse()
    while todo:
        step = todo.pop()
        if isinstance(step, Name):
            yield step
        else:
            todo.extend(reversed(_steps(*step)))


def _own_steps(node: ast.AST, scope: _Scope) -> list[_Step]:
    if not isinstance(node, ast.ClassDef):
        return [(node, scope)]
    own = [each for each in node.body if not _is_function(each) and not isinstance(each, ast.ClassDef)]
    return _class(node, own, scope)


def _steps(node: ast.AST, scope: _Scope) -> list[_Step]:
    """Return the names that a node is, and the nodes in it that have some, in the order of the source."""
    if isinstance(node, ast.Attribute | ast.Name) or _key_of(node) is not None:
        return _dotted(node, scope)
    if _is_function(node):
        return _function(node, scope)
    if isinstance(node, ast.ClassDef):
        return _class(node, node.body, scope)
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return _comprehension(node, scope)
    container, *how = _asked(node)
    if container is None:
        return _all(_children(node), scope)
    steps = _dotted(container, scope, how[0])
    steps += [step for more in how[1:] for step in _dotted(container, scope, more) if isinstance(step, Name)]
    return steps + _all([each for each in _children(node) if each is not container], scope)


def _all(nodes: Iterable[ast.AST], scope: _Scope) -> list[_Step]:
    return [(each, scope) for each in nodes]


def _class(node: ast.ClassDef, statements: list[ast.stmt], scope: _Scope) -> list[_Step]:
    body = scope.class_body(_bound_by(node.body, scope.package))
    return [*_all([*node.bases, *node.keywords], scope), *_all(statements, body)]


def _dotted(node: ast.AST, scope: _Scope, *more: str) -> list[_Step]:
    parts: list[str | Key] = [*more]
    inner: Any = node
    while isinstance(inner, ast.Attribute) or _key_of(inner) is not None:
        parts.insert(0, _key_of(inner) or inner.attr)
        inner = inner.value
    line: int = node.lineno  # type: ignore[attr-defined]
    if isinstance(inner, ast.Name):
        return [Name(line, inner.id, tuple(parts), scope.here.get(inner.id, FREE))]
    of_unknown = [Name(line, "", tuple(parts), UNKNOWN)] if parts else []
    return [(inner, scope), *of_unknown]


def _key_of(node: ast.AST) -> Key | None:
    match node:
        case ast.Subscript(slice=ast.Constant(value=str() | int() as value)):
            return Key(value)
    return None


def _function(node: Any, scope: _Scope, first: Any = UNKNOWN) -> list[_Step]:
    body = node.body if isinstance(node.body, list) else [node.body]
    bound = {each.arg: UNKNOWN for each in ast.walk(node.args) if isinstance(each, ast.arg)}
    if positional := [*node.args.posonlyargs, *node.args.args]:
        bound[positional[0].arg] = first
    inside = scope.function({**bound, **_bound_by(body, scope.package)})
    defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    return [*_all(defaults, scope), *_all(body, inside)]


def _comprehension(node: Any, scope: _Scope) -> list[_Step]:
    targets = [each.target for each in node.generators]
    steps = _iterated(node.generators[0].iter, scope)
    scope = scope.comprehension(_bound_by(targets, scope.package))
    for place, each in enumerate(node.generators):
        steps += _iterated(each.iter, scope) if place else []
        steps += _all([each.target, *each.ifs], scope)
    return steps + _all([each for each in _children(node) if not isinstance(each, ast.comprehension)], scope)


def _iterated(node: ast.AST, scope: _Scope) -> list[_Step]:
    if isinstance(node, ast.Attribute | ast.Name):
        return _dotted(node, scope, "__iter__")
    return [(node, scope)]


def _asked(node: ast.AST) -> tuple[ast.AST | None, *tuple[str, ...]]:
    """Return (what a name leads to, methods) where it is only counted, called or the like, as Python would do that."""
    match node:
        case ast.Compare(
            ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute() | ast.Name() as container]
        ):
            return container, "__contains__"
        case ast.Call(func=ast.Name(id="len"), args=[ast.Attribute() | ast.Name() as container]):
            return container, "__len__"
        case ast.For(iter=ast.Attribute() | ast.Name() as container):
            return container, "__iter__"
        case ast.withitem(context_expr=ast.Attribute() | ast.Name() as manager):
            return manager, "__enter__", "__exit__"
        case ast.Call(func=called):
            return called, CALL
        case ast.Subscript(value=container):  # a key that is told only at run time
            return container, "__getitem__", "__missing__"
    return (None,)


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
    """Return what an import binds: what is loaded, or what stands for what is not."""
    if isinstance(node, ast.Import):
        names = [
            (each.asname, each.name if each.asname else each.name.partition(".")[0]) for each in node.names
        ]
        return {alias or name: sys.modules.get(name) or Absent(name) for alias, name in names}
    if isinstance(node, ast.ImportFrom):
        module = _module_of(node, package)
        return {each.asname or each.name: of_module(module, each.name) for each in node.names}
    return {}


def _module_of(node: ast.ImportFrom, package: str) -> ModuleType:
    name = "." * node.level + (node.module or "")
    try:
        name = resolve_name(name, package)
    except ImportError:  # dots that lead out of the package: the import itself says so
        return ModuleType(name)
    return sys.modules.get(name) or Absent(name)


def of_module(module: ModuleType, name: str) -> Any:
    """Return a name of a module; of one that is not loaded, and of a package, what stands for it."""
    found = vars(module).get(name, UNKNOWN)
    if found is UNKNOWN and (isinstance(module, Absent) or hasattr(module, "__path__")):
        return Absent(f"{module.__name__}.{name}")
    return found
