"""The code digest: which code made a state, so that other code is never taken for it.

A reducer is not only its function.  Whoever mends a table in a file beside it changes what the states mean, and a
replay that called the result by the old name would prove nothing.  So the digest covers the file that defines the
function and every file *of the same package* that it imports, and that those import: found by reading the source, so
that nothing has to be run, and the order of imports does not show.

What other packages hold is not covered (their versions are the installation's business), nor what is imported under a
name made at run time, nor compiled code: who changes such a thing raises `version`.  Of the reducers that come with
Treering only reducers are followed, not what all of them stand on; digests in the start entry tell that.

>>> def count(state: int, event: object) -> int:
...     return state + 1
>>> len(code_digest(count))
64

Who asks is `reducers.definition`; where the digest is written down: docs/formats/state.md.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from types import CodeType
from typing import Any

_OURS = "reducers"
FOLLOWED = frozenset(
    f"{_OURS}.{name}"
    for name in (
        "class_progress",
        "event_count",
        "last_activity",
        "reconstruct",
        "student_progress",
        "time_on_task",
    )
)
"""Files of our own that define reducers."""


def code_digest(function: Callable[..., Any]) -> str:
    """Return the hex SHA-256 of a function's source: of its file, and of those of its package that it imports.

    Line ends are LF, so that checkouts of any system agree.  One file gives the hash of its text; more give the hash
    of a line "name SP hash LF" for each, in the order of names within the package.  Code typed at a prompt has no
    file; there the byte code stands in, which only the same interpreter reproduces.
    """
    plain: Any = inspect.unwrap(function)
    try:
        lines, _ = inspect.findsource(plain)
    except OSError:
        return _digest(repr(_meaning(plain.__code__)))
    text, home = "".join(lines), str(plain.__module__)
    digests = {name.partition(".")[2]: _digest(source) for name, source in _closure(home, text)}
    if len(digests) == 1:
        return _digest(text)
    return _digest("".join(f"{name} {digests[name]}\n" for name in sorted(digests)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _meaning(code: CodeType) -> list[object]:
    """Return what byte code does, without where it was typed."""
    found: list[object] = [code.co_code.hex(), code.co_names, code.co_varnames]
    for one in code.co_consts:
        if isinstance(one, CodeType):
            found.append(_meaning(one))
        else:
            found.append(sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one))
    return found


def _closure(home: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield (module name, source) of a module and of all that it stands on in its own package."""
    module = sys.modules.get(home)
    inside = home if hasattr(module, "__path__") else home.rpartition(".")[0]
    seen, todo = {home}, [(home, text, inside)]
    while todo:
        name, source, package = todo.pop()
        yield name, source
        for each in _imported(source, package):
            if each not in seen and _followed(each, home) and (found := _source(each)) is not None:
                seen.add(each)
                todo.append((each, *found))


def _followed(name: str, home: str) -> bool:
    top = home.partition(".")[0]
    return name in FOLLOWED if top == _OURS else name.partition(".")[0] == top


@lru_cache(maxsize=256)
def _imported(source: str, package: str) -> tuple[str, ...]:
    """Return the full names of what a source may import; an attribute looks like a module until it is looked for."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    # A package is run before what is in it.
    return tuple(dict.fromkeys(parent for name in names for parent in _parents(name)))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the module of a `from` in full; dots count packages upwards from `package`."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _parents(name: str) -> Iterator[str]:
    """Yield a dotted name and all above it, outermost first."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _source(name: str) -> tuple[str, str] | None:
    """Return the source of a module and the package that its dots start from; None for what is no Python file."""
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(name)
        get_source: Any = getattr(spec.loader, "get_source", None) if spec is not None else None
        text = None if get_source is None else get_source(name)
    except (ImportError, ValueError, AttributeError, SyntaxError, UnicodeDecodeError):
        return None  # an attribute, or something that cannot be imported: then the import itself says so
    if spec is None or text is None:
        return None
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    return text, package
