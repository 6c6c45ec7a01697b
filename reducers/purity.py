"""Reading a reducer's source for what it may not reach for, before it ever runs.

The function, and the functions and classes of its own package that it names, are read as syntax trees.  A
dotted name is followed from the globals of its module (so aliases do not hide anything), and judged by what
it leads to: also through a wrapper, a table of functions, or an object of the author's.  Names that cannot be
followed, such as attributes of a local variable, are left to the guard at run time.

An object of the author's that is only passed on is not read: of its class, those methods are whose names stand
in the code that is read (`LEXICON.knows(word)`, `HANDLERS[event.type].handle(event)`).

    essay.py:12:  from datetime import datetime as dt
    essay.py:20:      return Idle(dt.now())          -> reaches for the clock (datetime.datetime.now) at essay.py:20

What is only imported, or used by other code of the module, is no fault: a module may draw pictures at random.
Where a function stands: `reducers.listing`; which names are in it: `reducers.scopes`; what hangs on a value:
`reducers.inside`; what is out of reach: `reducers.forbidden`; what is watched at run time: `reducers.guard`.
"""

from __future__ import annotations

import datetime as dt
import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from reducers.base import Reducer
from reducers.errors import DefinitionError
from reducers.forbidden import CLASS_METHODS, CLOCK, kind_of, place, sentence
from reducers.inside import attribute, is_of, member, parts_of
from reducers.listing import Listing, file_of
from reducers.scopes import CALL, FREE, UNKNOWN, Absent, Key, Name

VALUES_MAX, MEMBERS_MAX = 20_000, 1_000
"""How many values are looked at for one function, and of one table: more are data, and none of them a function."""
OBJECTS_MAX = 1_000
"""How many objects of an author's classes are looked at for one function; of more, one of each class."""
_MAKING = ("__new__", "__init__", "__post_init__")
"""Methods that run where an object is made, and not where one is there."""
_IMPLIED = {CALL, "__getitem__", "__missing__", "__enter__", "__exit__"}
"""Methods that no source names."""
_ME: Any = object()
"""Stands for the first argument of a method: only its attributes are looked at."""
_PLAIN = (ModuleType, str, bytes, int, float, complex, type(None), type(UNKNOWN))


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
    return _Reading(root).found if isinstance(root, FunctionType) else []


class _Same:
    """A thing with what it belongs to, equal only to the very same: a table cannot be hashed, and may hold itself."""

    __slots__ = ("_owner", "_thing")

    def __init__(self, thing: Any, owner: Any) -> None:
        self._thing, self._owner = thing, owner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._thing is other._thing and self._owner is other._owner

    def __hash__(self) -> int:
        # Of both, since one method may belong to a thousand objects.
        return object.__hash__(self._thing) ^ 31 * object.__hash__(self._owner)


class _Reading:
    """Reads a function, and what it leads to in its package, breadth first and each thing once."""

    def __init__(self, root: FunctionType) -> None:
        self.found: list[Fault] = []
        self._package = str(root.__module__).partition(".")[0]
        self._listing = Listing(_ME)
        self._todo: deque[tuple[Any, Any]] = deque([(root, None)])
        self._read: set[_Same] = set()
        self._taken: set[_Same] = set()
        self._objects: list[Any] = []
        self._kinds: set[type] = set()
        self._mentioned: dict[str, None] = {}
        while self._todo:
            one, owner = self._todo.popleft()
            if is_of(one, self._package) and (same := _Same(one, owner)) not in self._read:
                self._read.add(same)
                self._judge(one, owner)

    def _judge(self, one: Any, owner: Any) -> None:
        known = _names_of(one)
        for name in self._listing.names_of(one, str(known.get("__package__") or "")):
            fault = self._follow(name, known, owner)
            if fault is not None:
                self.found.append(Fault(*fault, place(file_of(one), name.line)))

    def _follow(self, name: Name, known: dict[str, Any], me: Any) -> tuple[str, str] | None:
        """Return (kind, full name) of what a dotted name leads to if that is out of reach."""
        value, owner = self._first_of(name, known, me), None
        if value is not me and (fault := value_fault(value)) is not None:
            return fault
        for position, part in enumerate(name.rest):
            if value is UNKNOWN:
                return self._mention(name.rest, position)
            if part in _IMPLIED and ((fault := self._take(value, owner)) or not self._is_object(value)):
                return fault
            if (fault := _part_fault(value, part)) is not None:
                return fault
            value, owner = self._part(value, part)
            if (fault := value_fault(value)) is not None:
                return fault
        return self._take(value, owner)

    def _first_of(self, name: Name, known: dict[str, Any], me: Any) -> Any:
        if name.bound is _ME:
            return UNKNOWN if me is None or not name.rest else me
        if name.bound is FREE:
            return known.get(name.first, getattr(sys.modules["builtins"], name.first, UNKNOWN))
        return name.bound

    def _part(self, value: Any, part: str | Key) -> tuple[Any, Any]:
        if isinstance(part, Key):
            return member(value, part, self._package)
        return attribute(value, part, self._package)

    def _is_object(self, value: Any) -> bool:
        """Return whether a value is an object of a class of the author's."""
        return not isinstance(value, (type, Reducer, *_PLAIN)) and is_of(type(value), self._package)

    def _mention(self, rest: tuple[str | Key, ...], position: int) -> tuple[str, str] | None:
        """Note names that code asks of what nobody knows, from a position on: it may be any object that was seen."""
        is_method = len(rest) > 1 and rest[-1] == CALL and isinstance(rest[-2], str)
        parts = rest[position : -1 if is_method else None]
        names = {"__getitem__" if isinstance(each, Key) else each: None for each in parts}
        new = [name for name in names if name not in self._mentioned and name not in _MAKING]
        self._mentioned.update(dict.fromkeys(new))
        seen = [(each, name) for each in self._objects for name in new]
        faults = [self._take(*attribute(each, name, self._package)) for each, name in seen]
        return next(filter(None, faults), None)

    def _take(self, value: Any, owner: Any) -> tuple[str, str] | None:
        """Judge all that hangs on a value, and put what of it can be read on the list of what is to be read."""
        hanging = deque([(value, owner)])
        while hanging:
            value, owner = hanging.popleft()
            if (fault := value_fault(value)) is not None:
                return fault
            if isinstance(value, FunctionType | type):
                self._todo.append((value, owner))
            elif isinstance(value, MethodType):
                self._todo.append((value.__func__, value.__self__))
            hanging.extend(self._parts(value, owner))
        return None

    def _parts(self, value: Any, owner: Any) -> Iterator[tuple[Any, Any]]:
        """Yield what hangs on a value directly, the first time that it is asked for."""
        same = _Same(value, owner)
        if isinstance(value, _PLAIN) or same in self._taken or len(self._taken) >= VALUES_MAX:
            return
        self._taken.add(same)
        yield from (attribute(value, name, self._package) for name in self._asked_of(value))
        parts = (each for each in parts_of(value, owner) if not isinstance(each[0], _PLAIN))
        yield from islice(parts, MEMBERS_MAX)

    def _asked_of(self, value: Any) -> list[str]:
        """Return the names that are asked of a class or object of the author's, and keep it for those to come."""
        makes = isinstance(value, type) and is_of(value, self._package)
        is_new = len(self._objects) < OBJECTS_MAX or type(value) not in self._kinds
        if not (makes or (self._is_object(value) and is_new)):
            return []
        self._objects.append(value)
        self._kinds.add(type(value))
        return [*self._mentioned, *(_MAKING if makes else ())]


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


def _part_fault(value: Any, name: str | Key) -> tuple[str, str] | None:
    """Judge a part by its name, where it could be gone or be made anew each time."""
    if isinstance(name, Key):
        return None
    if isinstance(value, ModuleType):
        kind = kind_of(value.__name__, name)
        return None if kind is None else (kind, f"{value.__name__}.{name}")
    if isinstance(value, type) and issubclass(value, dt.date) and name in CLASS_METHODS:
        return CLOCK, f"{value.__module__}.{value.__qualname__}.{name}"
    return None


def value_fault(value: Any) -> tuple[str, str] | None:
    """Judge a value by where it was defined, whatever name it has here."""
    if isinstance(value, Absent):
        module, _, name = value.__name__.rpartition(".")
        return None if (kind := kind_of(module, name)) is None else (kind, value.__name__)
    if isinstance(value, _PLAIN):
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
