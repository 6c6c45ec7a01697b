"""Modules: sets of reducers that are installed, loaded and isolated together.

What there is, is known without running anybody's code: built-in modules from a table, the others from the
entry points of installed packages.  Loading imports one module; whatever goes wrong in it becomes one
ModuleError with one message, and costs the others nothing.

    [project.entry-points."treering.modules"]
    essay = "essay_stats"                   # a Python module with REDUCERS = [...], or "essay_stats:MODULE"

>>> [ref.name for ref in available().values() if ref.kind == "builtin"]
['activity', 'writing', 'progress', 'classes']
>>> [each.name for each in load(available()["activity"]).reducers]
['event_count', 'last_activity', 'time_on_task']

An entry point that cannot be used at all (two of one name, an impossible name) is listed as well, with its
`fault`: whoever looks for a module that does not work finds it, and `load` raises what is wrong.  Names of
reducers are global; `compose` makes one registry of several modules.  Modules of the Learning Observer are
loaded by `reducers.lo`.  Which modules a server runs, and what keeps one from harming another, is the
business of `replay` and `tools`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from typing import Any, Literal

from reducers.base import Reducer
from reducers.errors import ModuleError, ReducerError
from reducers.guard import install
from reducers.purity import check_purity
from reducers.registry import Registry

GROUP = "treering.modules"
LO_GROUP = "lo_modules"
_GROUPS = {GROUP, LO_GROUP}
BUILTIN = {
    "activity": (
        "reducers.event_count:event_count",
        "reducers.last_activity:last_activity",
        "reducers.time_on_task:time_on_task",
    ),
    "writing": ("reducers.reconstruct:reconstruct",),
    "progress": ("reducers.student_progress:student_progress",),
    "classes": ("reducers.class_progress:class_progress",),
}
"""Where the reducers of each built-in module stand."""

Kind = Literal["builtin", "treering", "lo"]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """A set of reducers under one name; each of them knows it, once it is in one."""

    name: str
    reducers: tuple[Reducer[Any], ...]
    version: str = ""
    """Version of the package that it came with, for people."""

    def __post_init__(self) -> None:
        """Adopt the reducers; raise ModuleError for what is none, and for two of one name."""
        if not is_module_name(self.name):
            raise ModuleError(str(self.name), _BAD_NAME)
        object.__setattr__(self, "reducers", tuple(_adopted(self.name, self.reducers)))


@dataclasses.dataclass(frozen=True, slots=True)
class ModuleRef:
    """A module that could be loaded: where it stands, and nothing of what is in it."""

    name: str
    kind: Kind
    value: str
    """The object's address, as in the entry point: "package.module" or "package.module:attribute"."""
    version: str = ""
    """Version of the package that provides it."""
    fault: str = ""
    """Why it cannot be loaded, where that is known beforehand."""


_BAD_NAME = "a module's name is 1 to 64 letters, digits, '_', '-', and begins with a letter or '_'; rename it"


def is_module_name(name: object) -> bool:
    """Return whether this can name a module (and hence a folder, and an element of the log)."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def available() -> dict[str, ModuleRef]:
    """Return all modules that are installed, by name, built-in ones first; imports none of them."""
    refs = {name: ModuleRef(name, "builtin", " ".join(places)) for name, places in BUILTIN.items()}
    found: dict[str, list[tuple[str, ModuleRef]]] = {}
    for package, ref in sorted(_installed(), key=lambda pair: (pair[0], pair[1].kind, pair[1].value)):
        found.setdefault(ref.name, []).append((package, ref))
    for name, candidates in sorted(found.items()):
        key = f"{candidates[0][0] or 'unknown package'}:{name}" if name in refs else name
        refs[key] = _chosen(name, candidates)
    return refs


def load(ref: ModuleRef) -> Module:
    """Import a module and return it; raise ModuleError, and no other exception, where that fails."""
    if ref.fault:
        raise ModuleError(ref.name, ref.fault)
    foreign = (
        ref.kind != "builtin"
    )  # who only asks what comes with the package, as the archiver does, is left alone
    if foreign:
        install()  # before the module's own imports, so that names which they take are the guarded ones
    try:
        module = _load_lo(ref) if ref.kind == "lo" else _load(ref)
        if foreign:
            install(numpy=True)
        for each in module.reducers:
            check_purity(each.name, each.function, each.viewer)  # again: now it can see all of the file
    except ModuleError as error:
        raise error if error.name == ref.name else ModuleError(ref.name, str(error)) from error
    except ReducerError as error:
        raise ModuleError(ref.name, str(error)) from error
    except BaseException as error:  # also SystemExit: a module that exits at import ends only itself
        raise ModuleError(ref.name, _import_failed(ref, error)) from error
    return module


def compose(modules: Iterable[Module]) -> tuple[Registry, list[ModuleError]]:
    """Return a registry of all reducers of these modules, and what had to be left out.

    A module is left out as a whole if its name, or the name of one of its reducers, is taken by one before
    it in `modules`.
    """
    registry, errors = Registry(), list[ModuleError]()
    owners: dict[str, str] = {}
    names: set[str] = set()
    for module in modules:
        taken = [each.name for each in module.reducers if each.name in owners]
        if module.name in names:
            errors.append(ModuleError(module.name, "another module has the same name; remove one of them"))
        elif taken:
            owner = owners[taken[0]]
            reason = f"its reducer {taken[0]!r} is named like one of module {owner!r}; pass another name="
            errors.append(ModuleError(module.name, reason))
        else:
            names.add(module.name)
            for each in module.reducers:
                registry.register(each)
                owners[each.name] = module.name
    return registry, errors


def shipped() -> Registry:
    """Return a new registry of the reducers that come with this package."""
    refs = available()
    registry, errors = compose(load(refs[name]) for name in BUILTIN)
    assert not errors, errors
    return registry


def _adopted(name: str, reducers: Any) -> list[Reducer[Any]]:
    if not isinstance(reducers, list | tuple):
        raise ModuleError(name, f"REDUCERS must be a list of reducers, not {reducers!r}")
    seen: set[str] = set()
    for each in reducers:
        if not isinstance(each, Reducer):
            raise ModuleError(name, f"{each!r} in REDUCERS is not a reducer; decorate it with @reducer(...)")
        if each.name in seen:
            raise ModuleError(name, f"two of its reducers are named {each.name!r}; pass another name= to one")
        seen.add(each.name)
    # Ours look at what clients send, and tests hold them to their types: they need not be asked at every event.
    ours = {"fits": None} if name in BUILTIN else {}
    return [dataclasses.replace(each, module=name, **ours) for each in reducers]


def _installed() -> Iterator[tuple[str, ModuleRef]]:
    """Yield (package, module) for each entry point; of packages of one name, the first on the path counts.

    `metadata.entry_points` would do the same, but one package whose file is damaged would hide all others.
    """
    seen: set[str] = set()
    for each in metadata.distributions():
        package = str(each.metadata["Name"] or "")
        plain = re.sub(r"[-_.]+", "-", package).lower()
        if plain and plain in seen:
            continue
        seen.add(plain)
        try:
            yield from [
                (package, _ref_of(point, each)) for point in each.entry_points if point.group in _GROUPS
            ]
        except Exception as error:  # noqa: BLE001 - whatever a damaged file does to the parser
            if _names_us(each):
                fault = f"the entry points of package {package!r} cannot be read ({error}); install it again"
                yield package, ModuleRef(package, "treering", "", fault=fault)


def _names_us(package: metadata.Distribution) -> bool:
    try:
        text = package.read_text("entry_points.txt") or ""
    except (OSError, ValueError):
        return False
    return any(group in text for group in _GROUPS)


def _ref_of(point: metadata.EntryPoint, package: metadata.Distribution) -> ModuleRef:
    kind: Kind = "lo" if point.group == LO_GROUP else "treering"
    fault = "" if is_module_name(point.name) else _BAD_NAME
    return ModuleRef(point.name, kind, point.value, str(package.metadata["Version"] or ""), fault)


def _chosen(name: str, candidates: list[tuple[str, ModuleRef]]) -> ModuleRef:
    """Return the one module of that name, or one that says why there is none."""
    first = candidates[0][1]
    if name in BUILTIN:
        fault = f"package {candidates[0][0]!r} names a module like the built-in {name!r}; rename it"
        return dataclasses.replace(first, fault=fault)
    if len(candidates) == 1:
        return first
    if len({package for package, _ in candidates}) == 1 and len({ref.kind for _, ref in candidates}) == 2:
        return next(ref for _, ref in candidates if ref.kind == "treering")  # one author, both ways
    places = ", ".join(f"{ref.value!r} of package {package!r}" for package, ref in candidates)
    return dataclasses.replace(
        first, fault=f"two entry points have this name: {places}; remove or rename one"
    )


def _load(ref: ModuleRef) -> Module:
    if ref.kind == "builtin":
        return Module(ref.name, tuple(_object_at(place) for place in ref.value.split()), ref.version)
    found = _object_at(ref.value)
    if isinstance(found, Module):
        if found.name != ref.name:
            reason = f"its entry point names a Module called {found.name!r}; give both one name"
            raise ModuleError(ref.name, reason)
        return dataclasses.replace(found, version=found.version or ref.version)
    reducers: Any = found if isinstance(found, list | tuple) else getattr(found, "REDUCERS", None)
    if reducers is None:
        raise ModuleError(
            ref.name, f"{ref.value!r} is no module: it has no REDUCERS = [...], and is no reducers.Module"
        )
    return Module(ref.name, reducers, ref.version)


def _load_lo(ref: ModuleRef) -> Module:
    try:
        load_lo = import_module("reducers.lo").load_lo
    except (ImportError, AttributeError) as error:
        raise ModuleError(ref.name, "modules of the Learning Observer cannot be loaded here") from error
    module = load_lo(ref)
    assert isinstance(module, Module)
    return module


def _object_at(place: str) -> Any:
    path, _, attributes = place.partition("[")[0].partition(
        ":"
    )  # in brackets: extras, as in `package:object [extra]`
    found: Any = import_module(path.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        found = getattr(found, attribute)
    return found


def _import_failed(ref: ModuleRef, error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an error that cannot say what it is must not stop the others
        text = ""
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"importing {ref.value!r} failed with {said}"
