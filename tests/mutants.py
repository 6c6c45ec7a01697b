r"""Small wrongs, one at a time: every way in which a line of source could have been written a little differently.

A *mutant* is a module with one such change.  If all tests pass with it, either nobody would notice that mistake, or
it is none.  `tests.mutate` runs the tests against each; docs/mutation.md lists those that live, and says why.

    comparisons     < becomes <= and >=; == becomes !=; one side of 0 <= x < n is left out
    arithmetic      + and -, << and >>, & and | change places; of a + b only a, only b, or b + a
    logic           and becomes or; an operand is left out; `not` is; a condition is always true, or never
    constants       n + 1, n - 1; another first byte; text that is empty, longer, or counts higher; True and False
    statements      a raise, a call, an assignment to a part, a return value is left out; a loop never runs
    calls           neighbouring arguments change places, a keyword or * is left out, `max` becomes `min`
    parts           a slice loses an end; a list, tuple, set or dictionary loses one element

Left alone: annotations, decorators, docstrings, imports, `__all__`, type aliases and the wording of errors.

>>> [str(mutant) for mutant, tree in mutants("def half(n):\n    return n >> 1")]
['half: return n >> 1 → return None', 'half: n >> 1 → n << 1', 'half: 1 → 2', 'half: 1 → 0']
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_COMPARISONS: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
_ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_PAIRS = [
    ("max", "min"),
    ("all", "any"),
    ("startswith", "endswith"),
    ("partition", "rpartition"),
    ("fullmatch", "match"),
]
_OTHER_NAME = {**dict(_PAIRS), **{b: a for a, b in _PAIRS}, "search": "match"}
_NO_EFFECT = {"reversed", "sorted", "strip"}
"""Calls that may be left out, their argument or object taking their place."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: in which function, what before, what after; the how-manieth of several that read alike."""

    where: str
    before: str
    after: str
    number: int
    line: int = field(compare=False)

    def __str__(self) -> str:
        again = f" (number {self.number})" if self.number > 1 else ""
        return f"{self.where}: {self.before} → {self.after}{again}"


@dataclass(frozen=True, slots=True)
class _Site:
    """Where a node hangs: `owner.field`, or its element `at`."""

    owner: ast.AST
    field: str
    at: int | None
    node: ast.AST
    where: str
    line: int

    def put(self, node: ast.AST) -> None:
        if self.at is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.at] = node


def mutants(source: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield each mutant of a module with its tree, ready for `compile`; the tree is lent until the next step."""
    tree = ast.parse(source)
    seen: Counter[tuple[str, str, str]] = Counter()
    for site in list(_sites(tree, "", 1)):
        before = _shown(site.node)
        for other in _alternatives(site.node, site.owner):
            ast.fix_missing_locations(ast.copy_location(other, site.node))
            after = _shown(other)
            seen[site.where, before, after] += 1
            mutant = Mutant(site.where, before, after, seen[site.where, before, after], site.line)
            site.put(other)
            yield mutant, tree
            site.put(site.node)


def _shown(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]


# --- where ---------------------------------------------------------------------------------------


def _sites(owner: ast.AST, where: str, line: int, *, wording: bool = False) -> Iterator[_Site]:
    """Yield every node below `owner` that may be changed; `wording` is for texts of errors, which are not."""
    for name, value in ast.iter_fields(owner):
        if name in {"annotation", "returns", "decorator_list", "bases", "msg"}:
            continue
        nodes = value if isinstance(value, list) else [value]
        for at, node in enumerate(nodes):
            if not isinstance(node, ast.AST) or _is_left_alone(node, owner):
                continue
            if wording and (isinstance(node, ast.JoinedStr) or _is_text(node)):
                continue
            # Inside a formatted text positions are not to be relied on (before Python 3.12).
            here = (
                line
                if isinstance(owner, ast.JoinedStr | ast.FormattedValue)
                else getattr(node, "lineno", line)
            )
            inner = f"{where}.{node.name}".lstrip(".") if isinstance(node, _NAMED) else where
            yield _Site(owner, name, at if isinstance(value, list) else None, node, inner, here)
            yield from _sites(node, inner, here, wording=wording or isinstance(node, ast.Raise))


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_left_alone(node: ast.AST, owner: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) if isinstance(owner, ast.Module):
            return name[:1].isupper() and not name.isupper()  # a type's other name
    return False


# --- what ----------------------------------------------------------------------------------------


def _alternatives(node: ast.AST, owner: ast.AST) -> Iterator[ast.AST]:
    """Yield what could stand in the place of a node."""
    for kind, others in _BY_KIND.items():
        if isinstance(node, kind):
            yield from others(node)
    if isinstance(node, ast.stmt):
        yield from _left_out(node, owner)


def _with(node: Any, **fields: Any) -> Any:
    """Return a copy of a node with some fields changed; the rest is shared."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def _comparisons(node: ast.Compare) -> Iterator[ast.AST]:
    for at, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            yield _with(node, ops=[*node.ops[:at], other(), *node.ops[at + 1 :]])
    if len(node.ops) > 1:
        yield _with(node, ops=node.ops[:-1], comparators=node.comparators[:-1])
        yield ast.Compare(node.comparators[0], node.ops[1:], node.comparators[1:])


def _sums(node: ast.BinOp) -> Iterator[ast.AST]:
    if type(node.op) in _ARITHMETIC:
        yield _with(node, op=_ARITHMETIC[type(node.op)]())
    if isinstance(node.op, ast.Add):
        yield node.left
        yield node.right
        if not (_is_number(node.left) or _is_number(node.right)):
            yield _with(node, left=node.right, right=node.left)


def _is_number(node: ast.AST) -> bool:
    """Tell whether an operand is surely a number: then a sum is the same from either side."""
    match node:
        case ast.Constant(value=int()) | ast.BinOp(op=ast.LShift() | ast.Mult()):
            return True
        case ast.Call(func=ast.Name(id="len" | "int")):
            return True
    return False


def _conditions(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    for at in range(len(node.values)):
        rest = [*node.values[:at], *node.values[at + 1 :]]
        yield rest[0] if len(rest) == 1 else _with(node, values=rest)


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool(value):
            others: list[Any] = [not value]
        case int(value):
            others = [value + 1, value - 1]
        case bytes(value):
            others = [bytes([value[0] ^ 1]) + value[1:], value[:-1]] if value else [b"x"]
            others += [one.encode("latin-1") for one in _counted(value.decode("latin-1"))]
        case str(value):
            others = ["", value + "x", *_counted(value)] if value else ["x"]
        case _:
            others = []
    for other in others:
        yield ast.Constant(other)


def _counted(text: str) -> list[str]:
    """Return a text with each of its numbers one higher: patterns are full of bounds.

    >>> _counted("[0-9]{0,19}x")
    ['[1-9]{0,19}x', '[0-10]{0,19}x', '[0-9]{1,19}x', '[0-9]{0,20}x']
    """
    numbers = re.finditer("[0-9]+", text)
    return [text[: one.start()] + str(int(one[0]) + 1) + text[one.end() :] for one in numbers]


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    args, func = node.args, node.func
    for at in range(len(args) - 1):
        first, second = args[at : at + 2]
        if ast.dump(first) != ast.dump(second):
            yield _with(node, args=[*args[:at], second, first, *args[at + 2 :]])
    for at, arg in enumerate(args):
        if isinstance(arg, ast.Starred):
            yield _with(node, args=[*args[:at], *args[at + 1 :]])
    for at in range(len(node.keywords)):
        yield _with(node, keywords=[*node.keywords[:at], *node.keywords[at + 1 :]])
    match func:
        case ast.Name(id=name) if name in _OTHER_NAME:
            yield _with(node, func=ast.Name(_OTHER_NAME[name], ast.Load()))
        case ast.Attribute(attr=name) if name in _OTHER_NAME:
            yield _with(node, func=_with(func, attr=_OTHER_NAME[name]))
        case ast.Name(id=name) if name in _NO_EFFECT:
            yield args[0]
        case ast.Attribute(attr=name) if name in _NO_EFFECT:
            yield func.value


def _slices(node: ast.Subscript) -> Iterator[ast.AST]:
    for end in ("lower", "upper", "step"):
        if getattr(node.slice, end, None) is not None:
            yield _with(node, slice=_with(node.slice, **{end: None}))


def _displays(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Dict):
        for at in range(len(node.keys)):
            keys, values = ([*all_[:at], *all_[at + 1 :]] for all_ in (node.keys, node.values))
            yield ast.Dict(keys, values)
    elif len(node.elts) > 1 and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        for at in range(len(node.elts)):
            yield _with(node, elts=[*node.elts[:at], *node.elts[at + 1 :]])


def _branches(node: Any) -> Iterator[ast.AST]:
    yield _with(node, test=ast.Constant(False))
    if not isinstance(node, ast.While):  # a loop without end is no mistake worth the wait
        yield _with(node, test=ast.Constant(True))


def _loops(node: ast.For) -> Iterator[ast.AST]:
    yield _with(node, iter=ast.Tuple([], ast.Load()))


def _filters(node: ast.comprehension) -> Iterator[ast.AST]:
    if node.ifs:
        yield _with(node, ifs=[])


def _updates(node: ast.AugAssign) -> Iterator[ast.AST]:
    if type(node.op) in _ARITHMETIC:
        yield _with(node, op=_ARITHMETIC[type(node.op)]())


_BY_KIND: dict[type | tuple[type, ...], Callable[[Any], Iterator[ast.AST]]] = {
    ast.Compare: _comparisons,
    ast.BinOp: _sums,
    ast.BoolOp: _conditions,
    ast.UnaryOp: lambda node: iter([node.operand]),
    ast.Constant: _constants,
    ast.Call: _calls,
    ast.Subscript: _slices,
    (ast.List, ast.Tuple, ast.Set, ast.Dict): _displays,
    (ast.If, ast.IfExp, ast.While): _branches,
    ast.For: _loops,
    ast.comprehension: _filters,
    ast.AugAssign: _updates,
}


def _left_out(node: ast.stmt, owner: ast.AST) -> Iterator[ast.AST]:
    """Yield what is there without a statement."""
    match node:
        case ast.Raise() if not (isinstance(owner, ast.If) and len(owner.body) == 1):
            yield ast.Pass()  # else it is the same as a condition that is never true
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
