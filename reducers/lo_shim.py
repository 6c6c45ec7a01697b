"""What stands in for the Learning Observer while one of its modules is imported.

Such a module imports the whole server that it was written for: helpers, settings, queries, dashboards, rosters.
Its reducers need a dozen functions of that.  So, for the time of the import, a finder in front of all others
serves `learning_observer` itself: what reducers need is implemented (`reducers.lo_helpers`), and anything else
is a `Placeholder`, which takes part in whatever happens at import, does nothing, and says what is wrong if it
is used later.

>>> host = Host("essays")
>>> with stood_in(host):
...     import learning_observer.kvs, learning_observer.util
>>> learning_observer.util.get_nested_dict_value({"a": {"b": 7}}, "a.b")
7
>>> learning_observer.kvs.KVS()
Traceback (most recent call last):
reducers.lo_shim.NotForReducers: learning_observer.kvs.KVS is not there for a reducer; ...

It stands in even where the real one is installed: what a reducer does must not depend on what else a machine
has, nor on the settings of a server (docs/adr/0046-learning-observer-modules.md).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

STOOD_IN = frozenset(
    {
        "learning_observer",
        "pmss",
        "dash",
        "dash_bootstrap_components",
        "dash_renderjson",
        "lo_dash_react_components",
        "aiohttp",
        "aiohttp_session",
        "awe_components",
        "awe_languagetool",
    }
)
"""Packages that are never really imported: the server, its settings, its pages, its language services."""


class NotForReducers(RuntimeError):
    """A reducer used a part of the Learning Observer that is not there for it: do it from event and state."""


@dataclass(eq=False)
class Host:
    """What one module is imported into: its settings, its migrators, and whether the import is going on."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Defaults of the settings that the module registered, by their names."""
    migrators: list[Callable[[Any], Any]] = field(default_factory=list)
    """Functions by which the module changes each event before its reducers see it."""
    importing: bool = False

    def inert(self, name: str) -> None:
        """Raise NotForReducers that names `name`, unless the module is being imported."""
        if not self.importing:
            raise NotForReducers(
                f"{name} is not there for a reducer; all that it may use are its event and its state"
            )


class Placeholder:
    """Something of the Learning Observer that no reducer needs: usable in any way at import, and not later."""

    __slots__ = ("_host", "_name")

    def __init__(self, host: Host, name: str) -> None:
        self._host, self._name = host, name

    def __repr__(self) -> str:
        return f"<placeholder for {self._name}>"

    def __fspath__(self) -> str:
        self._host.inert(self._name)
        return repr(self)

    def __getattr__(self, name: str) -> Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._more(f".{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return another placeholder or, as a decorator, what is decorated."""
        called = self._more("()")
        if len(args) == 1 and not kwargs and (inspect.isroutine(args[0]) or inspect.isclass(args[0])):
            return args[0]
        return called

    def __getitem__(self, key: Any) -> Placeholder:
        return self._more(f"[{key!r}]")

    def __iter__(self) -> Iterator[Any]:
        self._host.inert(self._name)
        return iter(())

    def __bool__(self) -> bool:
        self._host.inert(self._name)
        return False

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        self._host.inert(self._name)
        return ()

    def __add__(self, other: Any) -> Placeholder:
        return self._more(" + ...")

    __radd__ = __or__ = __ror__ = __truediv__ = __add__

    def _more(self, suffix: str) -> Placeholder:
        self._host.inert(self._name)
        return Placeholder(self._host, self._name + suffix)


class _Finder(MetaPathFinder, Loader):
    """Serves the packages of STOOD_IN, each with all modules that anyone asks for."""

    def __init__(self, host: Host, contents: dict[str, dict[str, Any]]) -> None:
        self.host, self.contents = host, contents

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - of the protocol
        target: ModuleType | None = None,  # noqa: ARG002 - of the protocol
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if _is_stood_in(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:  # noqa: ARG002 - of the protocol
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(self.contents.get(module.__name__, {}))

        def missing(name: str) -> Placeholder:
            if name.startswith("__"):
                raise AttributeError(name)
            return Placeholder(self.host, f"{module.__name__}.{name}")

        module.__dict__["__getattr__"] = missing


@contextmanager
def stood_in(host: Host) -> Iterator[None]:
    """Let `learning_observer` and the rest of STOOD_IN be imported from here, until the block ends.

    What was imported of the real ones is put back then.  Modules imported in the block keep the stand-ins.
    """
    from reducers.lo_helpers import contents_for  # noqa: PLC0415 - it needs Host

    finder = _Finder(host, contents_for(host))
    displaced = _take_out()
    sys.meta_path.insert(0, finder)
    host.importing = True
    try:
        for name in finder.contents:  # all of them: modules use parts that they did not import
            import_module(name)
        yield
    finally:
        host.importing = False
        sys.meta_path.remove(finder)
        _take_out()
        sys.modules.update(displaced)


def _take_out() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _is_stood_in(name)}


def _is_stood_in(name: str) -> bool:
    return name.partition(".")[0] in STOOD_IN
