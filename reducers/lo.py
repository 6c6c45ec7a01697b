"""Modules of the Learning Observer, unchanged: `load_lo` makes one of ours of a Python module of theirs.

Such a module is an entry point of the group `lo_modules` and names a Python module with a list

    REDUCERS = [{"context": "org.mitros.writing_analytics", "scope": Scope([...]), "function": reconstruct}, ...]

*context* is the source whose events the reducer sees.  *scope* is declared twice, here and in the decorator of
the function, and the two may disagree; then it is as on that server: a key has the fields of the event that
both name, and an event must have the fields that the list names.  *default* is what readers see where there is
no state.  Everything else that the Python module holds (queries, dashboards, downloads) is left alone.

>>> from reducers.lo_helpers import EventField, KeyField
>>> scope_of({KeyField.STUDENT, EventField("doc_id")}, {KeyField.STUDENT, EventField("doc_id")})
(('student', 'doc_id'), ())
>>> scope_of({KeyField.STUDENT}, {KeyField.STUDENT, EventField("doc_id")})
(('student',), ('doc_id',))

What stands in for the server while the module is imported: `reducers.lo_shim`.  How the functions are run:
`reducers.lo_reducer`.  How to install such a module: docs/lo-modules.md.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec

from reducers import canonical
from reducers.definition import _checked_name, _checked_version, refuse_reserved
from reducers.errors import DefinitionError, ModuleError
from reducers.lo_clock import adopt
from reducers.lo_event import Envelopes, canonical_source
from reducers.lo_helpers import Declaration, EventField, KeyField, declaration_of, qualified_name
from reducers.lo_reducer import NULL, LoReducer, LoState, Step, json_of
from reducers.lo_shim import Host, stood_in
from reducers.modules import Module, ModuleRef
from reducers.sources import code_digest

ROUTED = ("student", "class", "doc_id", "resource", "teacher")
"""Fields by which entries of the Learning Observer's clients find their shard (`api.lo`), the student first."""
ADAPTER = "treering/lo/v2"
"""Raised when this adapter gives the same functions other states; part of the code digest."""


def load_lo(ref: ModuleRef) -> Module:
    """Import the module that `ref` names, and return it as one of ours.

    Raises ModuleError where it is not one, and whatever the module raises when it is imported; nothing of it
    stays imported then.
    """
    path, _, attribute = ref.value.partition(":")
    path, before = path.strip(), set(sys.modules)
    host = Host(ref.name)
    try:
        with stood_in(host):
            found: Any = import_module(path)
        for name in filter(None, attribute.strip().split(".")):
            found = getattr(found, name)
        return module_of(found, ref.name, ref.version)
    except BaseException:
        for name in set(sys.modules) - before:
            if _is_within(name, _package_of(path)):
                del sys.modules[name]
        raise


def module_of(found: ModuleType, name: str, version: str = "") -> Module:
    """Return our module of an imported Python module of theirs; raise ModuleError that says what is wrong."""
    entries = getattr(found, "REDUCERS", None)
    if not isinstance(entries, list | tuple):
        raise ModuleError(name, f"{found.__name__!r} has no list REDUCERS, so there is nothing to fold")
    plans: dict[str, _Plan] = {}
    for position, entry in enumerate(entries):
        try:
            _add(plans, _plan_of(entry))
        except (DefinitionError, TypeError, ValueError) as error:
            raise ModuleError(name, f"REDUCERS[{position}]: {error}") from error
    packages = {_package_of(found.__name__)}
    packages |= {_package_of(_home(plan.declaration.function)) for plan in plans.values()}
    _give_clocks(packages)
    envelopes: dict[Host, Envelopes] = {}
    for plan in plans.values():
        host = plan.declaration.host
        envelopes.setdefault(host, Envelopes(host.migrators))
    reducers = [_reducer(plan, envelopes[plan.declaration.host]) for plan in plans.values()]
    return Module(name, tuple(reducers), version)


@dataclass(frozen=True)
class _Plan:
    """One reducer as its list entry and its decorator describe it."""

    name: str
    declaration: Declaration
    scope: tuple[str, ...]
    required: tuple[str, ...]
    contexts: frozenset[str]
    version: int
    default: bytes
    """Canonical JSON of what readers see where there is no state."""


def _plan_of(entry: Any) -> _Plan:
    if not isinstance(entry, dict):
        raise DefinitionError(f"expected a dict with 'context' and 'function', not {entry!r:.80}")
    context, declaration = entry.get("context"), declaration_of(entry.get("function"))
    if not isinstance(context, str) or not context:
        raise DefinitionError(f"'context' must be the name of a source, not {context!r:.80}")
    if declaration is None:
        raise DefinitionError(
            f"'function' {entry.get('function')!r:.80} is no reducer that was declared here: decorate it with "
            "kvs_pipeline or student_event_reducer, and do not import its module before it is loaded"
        )
    if not inspect.iscoroutinefunction(declaration.function):
        raise DefinitionError(f"{qualified_name(declaration.function)} must be an `async def`")
    json_of(declaration.null_state)
    scope, required = scope_of(declaration.scope, entry.get("scope", {KeyField.STUDENT}))
    refuse_reserved(scope, _name_of(declaration))
    return _Plan(
        name=_name_of(declaration),
        declaration=declaration,
        scope=scope,
        required=required,
        contexts=frozenset([canonical_source(context)]),
        version=_checked_version(entry.get("version", 1), _name_of(declaration)),
        default=json_of(entry.get("default", {})),
    )


def _add(plans: dict[str, _Plan], plan: _Plan) -> None:
    """Add a plan; a reducer for several sources is one, and one function with several scopes is several."""
    same = plans.get(plan.name)
    if same is None:
        plans[plan.name] = plan
    elif same.declaration.function is not plan.declaration.function:
        raise DefinitionError(f"two functions are named {plan.name}; rename one")
    elif (same.scope, same.required) == (plan.scope, plan.required):
        plans[plan.name] = replace(same, contexts=same.contexts | plan.contexts)
    else:
        fields = [*plan.scope, *plan.required]
        name = _checked_name("-".join([_name_of(plan.declaration), *(_plain(field) for field in fields)]))
        if name == plan.name:
            raise DefinitionError(f"{plan.name} stands twice in the list, with scopes of the same fields")
        _add(plans, replace(plan, name=name))


def scope_of(declared: Iterable[Any], listed: Iterable[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the key's fields, and those that an event must have besides, of a reducer's two scopes.

    `declared` is the decorator's, `listed` that of REDUCERS.  Raises DefinitionError for a scope that cannot
    be folded here.
    """
    declared, listed = _fields(declared), _fields(listed)
    keys = {field.name.lower() for field in declared if isinstance(field, KeyField)}
    both = {field.event for field in declared & listed if isinstance(field, EventField)}
    required = {field.event for field in listed if isinstance(field, EventField)} - both
    if "student" in both | required:
        raise DefinitionError("EventField('student') would be taken for the student; use KeyField.STUDENT")
    scope = tuple(sorted(keys | both, key=lambda name: (ROUTED.index(name) if name in ROUTED else 9, name)))
    if scope and scope[0] not in ROUTED:
        raise DefinitionError(
            f"its scope is {', '.join(scope)}: entries are found by {', '.join(ROUTED)}, so it needs one of these"
        )
    return scope, tuple(sorted(required))


def _fields(scope: Iterable[Any]) -> frozenset[Any]:
    fields = frozenset(scope)
    for field in fields:
        if not isinstance(field, KeyField | EventField):
            raise DefinitionError(f"a scope holds KeyFields and EventFields, not {field!r:.80}")
    return fields


def _reducer(plan: _Plan, envelopes: Envelopes) -> LoReducer:
    declaration = plan.declaration
    return LoReducer(
        name=plan.name,
        version=plan.version,
        scope=plan.scope,
        state_type=LoState,
        code_digest=_digest(plan),
        function=Step(declaration.function, declaration.null_state, envelopes),
        default=LoState,
        viewer=lambda state: shown(state, plan.default),
        decoder=msgspec.json.Decoder(LoState),
        contexts=plan.contexts,
        required=plan.required,
        envelopes=envelopes,
    )


def shown(state: LoState, default: bytes) -> Any:
    """Return what readers see: the external state if it was written, else the internal, else the default."""
    found = state.internal if state.external is None else state.external
    return msgspec.json.decode(default if found == NULL else found)


def _digest(plan: _Plan) -> str:
    """Return the hash of all that decides the states: the function's code, and what its declarations say."""
    declaration = plan.declaration
    parts = [ADAPTER, code_digest(declaration.function), sorted(plan.contexts), list(plan.required)]
    return hashlib.sha256(canonical.encode(parts) + json_of(declaration.null_state)).hexdigest()


def _name_of(declaration: Declaration) -> str:
    return _checked_name(_plain(qualified_name(declaration.function)))


def _plain(name: str) -> str:
    return name.replace("<", "").replace(">", "")


def _home(function: Any) -> str:
    """Return the name of the Python module in which a function was written, whatever it calls itself."""
    return str(function.__globals__.get("__name__", ""))


def _package_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _give_clocks(packages: set[str]) -> None:
    """Let the imported modules of these packages read the time of the event instead of a clock."""
    for name, module in list(sys.modules.items()):
        if any(_is_within(name, package) for package in packages):
            adopt(vars(module))
