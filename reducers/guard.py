"""The guard: while a reducer runs, what it may not reach for raises instead of answering.

A state must be a function of the log.  A reducer that reads a clock still gives *some* state, and nobody
notices until a replay gives another.  So clock, chance and environment are wrapped, and Python's audit hook
(PEP 578) sees files, sockets and processes; each raises PurityError while a reducer of this thread runs, and
costs nothing to speak of otherwise.

    fold_one                  running.reducer = reducer   (20 ns)
      the author's function
        some library
          time.time()         -> PurityError: reducer 'idle' reaches for the clock (time.time) at essay.py:12 ...

The same call raises at the same event in every fold, whatever ran before: that is why what goes on by the way
(an import, a warning's source line, the time zone database, a finaliser) is let through, since it happens in
one process and not in the next.  It is a guard against mistakes, not against malice, and C code that asks the
system itself passes unseen (`datetime.now` called by a library): that is found by `reducers.purity` and
`reducers.contract`.  The choice is argued in docs/adr/0045-purity.md.

>>> from reducers import shipped
>>> with active(shipped().get("event_count")):
...     import_module("time").time()
Traceback (most recent call last):
reducers.errors.PurityError: reducer 'event_count' reaches for the clock (time.time) at ...; use event.time_ms ...
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import CodeType, FrameType
from typing import Any, TypeVar

from reducers.errors import PurityError
from reducers.forbidden import AUDITED, CHANCE, CLOCK, MACHINE, kind_of, place, sentence

_WRAPPED = ("time", "random", "uuid", "os", "threading", "_thread", "numpy.random")
"""Modules whose functions are wrapped.  Of `os`, only those that no audit event announces."""
_OS = {
    "urandom",
    "getrandom",
    "getpid",
    "getppid",
    "getcwd",
    "getcwdb",
    "cpu_count",
    "uname",
    "times",
    "getloadavg",
}
ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)
"""The environment of whoever folds.  Linear algebra adds up in parts, one for each thread: with as many as there are
processors the last digits of a product, and with them a state, would depend on the machine."""
_NOW_ONLY = {"gmtime": 0, "strftime": 1, "asctime": 0}
"""Functions of `time` that read the clock only where the argument at this place is missing."""
_MACHINERY = {"reducers.base", "reducers.fold", "reducers.contract"}
"""Frames between the fold and the author's function."""

# Whoever stands on the stack between the reducer and the call, and may do it: see the module docstring.
_BY_THE_WAY = {
    "_frozen_importlib", "_frozen_importlib_external", "importlib._bootstrap", "importlib._bootstrap_external",
    "warnings", "linecache", "zoneinfo", "zoneinfo._common", "zoneinfo._tzpath", "logging", "weakref",
}  # fmt: skip
_OURS = {
    "replay",
    "tools",
    "api",
    "archive",
}  # a signal handler of the server interrupts the reducer anywhere


class _Running:
    """Which reducer runs just now; one at a time in a process, since folding is one thread's work."""

    __slots__ = ("frame", "installed", "reducer", "refused", "told")

    def __init__(self) -> None:
        self.reducer: Any = None
        self.frame: FrameType | None = None
        self.installed = False
        self.refused = ""
        """What was refused last, also where the reducer caught the exception; for `reducers.watching`."""
        self.told: Callable[[Exception], None] | None = None
        """Who is told of what a reducer raises: `reducers.fold.tell_errors`."""


running = _Running()
_entries: set[CodeType] = set()
F = TypeVar("F", bound=Callable[..., Any])


def entry(function: F) -> F:
    """Mark a function that sets `running.reducer`: what it calls, in its thread, is the reducer's doing."""
    _entries.add(function.__code__)
    return function


class active:  # noqa: N801 - used like a function
    """Guard what is called in a `with` block as if `reducer` called it: a view, or other code of its author."""

    __slots__ = ("_before", "_reducer")

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __enter__(self) -> None:
        if not running.installed:
            install()
        self._before = running.reducer, running.frame
        running.reducer, running.frame = self._reducer, sys._getframe(1)

    def __exit__(self, *_: object) -> None:
        running.reducer, running.frame = self._before


def install(numpy: bool = False) -> None:
    """Wrap what is loaded and not wrapped yet, and begin to listen to audit events.

    It stays for the life of the process: names that modules import by `from time import time` later are the
    wrapped ones.  Called before a module is loaded, and at the first fold.  numpy.random is wrapped when it is
    loaded, which may be in the middle of an event.  `numpy` says that the author of a reducer may use numpy: where
    numpy is there, its generators are loaded now (20 ms, 7 MB), so that no event waits for them.  What is loaded
    from now on has one thread for linear algebra (`ONE_THREAD`).
    """
    if not running.installed:
        running.installed = True
        sys.addaudithook(_on_audit)
        sys.meta_path.insert(0, _Late())
        _wrap_environment()
    for module in _WRAPPED:
        if module != "numpy.random" or module in sys.modules or (numpy and "numpy" in sys.modules):
            _wrap_module(import_module(module))


class _Late:
    """Sees to it that numpy.random is wrapped whoever loads it, and when: authors import numpy in a function, too."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that wraps what it has loaded."""
        if name != "numpy.random":
            return None
        finders = [each for each in sys.meta_path if each is not self]
        specs = (each.find_spec(name, path, target) for each in finders)
        spec = next((each for each in specs if each is not None), None)
        if spec is not None and spec.loader is not None:
            load: Any = spec.loader.exec_module
            setattr(spec.loader, "exec_module", _then_wrapping(load))  # noqa: B010 - of this object, and not of its class
        return spec


def _then_wrapping(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def exec_module(module: Any) -> None:
        load(module)
        _wrap_module(module)

    return exec_module


def _wrap_module(module: Any) -> None:
    for name, value in list(vars(module).items()):
        kind = kind_of(module.__name__, name)
        if name in _NOW_ONLY and module.__name__ == "time":
            kind = CLOCK
        wanted = callable(value) and not inspect.isclass(value) and kind is not None
        if module.__name__ == "os" and name not in _OS:
            wanted = False
        if wanted and kind is not None and not hasattr(value, "__guarded__"):
            setattr(module, name, _wrapped(value, kind, f"{module.__name__}.{name.lstrip('_')}"))
    if module.__name__ == "random" and not hasattr(module.Random.seed, "__guarded__"):
        module.Random.seed = _wrapped_seed(module.Random.seed)


def _wrapped(original: Callable[..., Any], kind: str, what: str) -> Callable[..., Any]:
    spared = _NOW_ONLY.get(what.removeprefix("time."), -1) if what.startswith("time.") else -1

    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if running.reducer is not None and (spared < 0 or len(args) <= spared or args[spared] is None):
            _refuse(kind, what)
        return original(*args, **kwargs)

    guarded.__guarded__ = True  # type: ignore[attr-defined]
    return guarded


def _wrapped_seed(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let a generator be seeded by a value, and not by the system."""

    @functools.wraps(original)
    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        if a is None and running.reducer is not None:
            _refuse(CHANCE, "random.Random() without a seed")
        original(self, a, version)

    seed.__guarded__ = True  # type: ignore[attr-defined]
    return seed


def _wrap_environment() -> None:
    environment: Any = import_module("os").environ
    environment.update(ONE_THREAD)  # libraries read it when they are loaded
    kind = type(environment)
    for name in ("__getitem__", "__iter__", "__setitem__"):
        setattr(kind, name, _wrapped(getattr(kind, name), MACHINE, "os.environ"))


def _on_audit(event: str, args: tuple[Any, ...]) -> None:
    if running.reducer is None:
        return
    kind = AUDITED.get(event.partition(".")[0])
    if kind is not None and not (event == "open" and "/zoneinfo/" in str(args[0])):
        shown = f"{event} {args[0]!r}" if args and isinstance(args[0], str | bytes) else event
        _refuse(kind, shown)


def _refuse(kind: str, what: str) -> None:
    """Raise PurityError, unless the call is not the reducer's own."""
    reducer = running.reducer
    where = place_of(sys._getframe(2), reducer)
    if where is not None:
        running.refused = sentence(reducer.name, kind, what, where)
        raise PurityError(running.refused)


def place_of(frame: FrameType | None, reducer: Any) -> str | None:
    """Return "file:line" of the author's code that leads to `frame`, or None if it is let through.

    The author's code is the innermost frame of the package that defines the reducer, else the outermost below
    the fold.
    """
    package = str(getattr(reducer.function, "__module__", "")).partition(".")[0]
    inner: FrameType | None = None
    outer: FrameType | None = None
    while frame is not None:
        if frame.f_code in _entries:
            return _shown(inner or outer)
        name = str(frame.f_globals.get("__name__", ""))
        top = name.partition(".")[0]
        if name in _BY_THE_WAY or top in _OURS or frame.f_code.co_name == "__del__":
            return None
        if name not in _MACHINERY:
            outer = frame
            if inner is None and top == package:
                inner = frame
        if frame is running.frame:
            return _shown(inner or outer)
        frame = frame.f_back
    return None  # another thread's call


def _shown(frame: FrameType | None) -> str:
    return "an unknown place" if frame is None else place(frame.f_code.co_filename, frame.f_lineno)
