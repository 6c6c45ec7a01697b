"""The part of the Learning Observer that reducers use, implemented anew from its protocol.

A reducer of such a module looks like this, and is an async function of (event, internal state) that returns
(internal state, external state):

    @kvs_pipeline(scope=Scope([KeyField.STUDENT, EventField("doc_id")]), null_state={"count": 0})
    async def saves(event, internal_state):
        ...
        return internal_state, internal_state

Here the decorator wraps nothing: it notes function, scope and first state for `reducers.lo`, which makes a
reducer of them.  Beside it stand the time-on-task functions, settings, and a few utilities; times are those
of the event (`reducers.lo_clock`), and settings have the defaults that the module registers.

>>> apply_time_on_task(apply_time_on_task(None, 100.0, 60), 130.0, 60)
{'saved_ts': 130.0, 'total_time_on_task': 30.0}

How a module gets to see these instead of the real ones: `reducers.lo_shim`.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from reducers.lo_clock import EventDatetime, event_seconds
from reducers.lo_shim import Host, NotForReducers

AsyncReducer = Callable[[Any, Any], Awaitable[Any]]
KeyField = enum.Enum("KeyField", ["STUDENT", "CLASS", "RESOURCE", "TEACHER"])
KeyStateType = enum.Enum("KeyStateType", ["INTERNAL", "EXTERNAL"])


@dataclass(frozen=True, order=True, repr=False)
class EventField:
    """A field of the event as part of a reducer's key; ValueError where it could not be one."""

    event: str
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not all(letter.isalnum() or letter in "._-" for letter in self.event) or not self.event.strip(
            "._-"
        ):
            raise ValueError(f"EventField({self.event!r}): use letters, digits, '.', '_' and '-'")
        object.__setattr__(self, "name", f"EventField.{self.event}")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Scope(frozenset[Any]):
    """A set of key fields and event fields."""


class ScopeFieldError(Exception):
    """A scope has a field that it cannot have; part of the interface, never raised here."""


@dataclass(frozen=True, eq=False)
class Declaration:
    """What the decorator was told."""

    function: AsyncReducer
    scope: frozenset[Any]
    null_state: Any
    host: Host


def declaration_of(value: Any) -> Declaration | None:
    """Return what the decorator noted of a function, or None where it was not decorated."""
    found = getattr(value, "lo_declaration", None)
    return found if isinstance(found, Declaration) else None


# --- learning_observer.stream_analytics ----------------------------------------------------------


def kvs_pipeline_for(host: Host) -> Callable[..., Any]:
    """Return the decorator as the modules of this host see it."""

    def kvs_pipeline(
        null_state: Any = None,
        scope: Any = None,
        module_override: str | None = None,
        qualname_override: str | None = None,
    ) -> Callable[[AsyncReducer], AsyncReducer]:
        fields = frozenset([KeyField.STUDENT]) if scope is None else frozenset(scope)

        def decorate(function: AsyncReducer) -> AsyncReducer:
            if module_override is not None:
                function.__module__ = module_override
            if qualname_override is not None:
                function.__qualname__ = qualname_override

            @functools.wraps(function)
            async def declared(*_: Any, **__: Any) -> Any:
                raise NotForReducers(f"{qualified_name(function)} is run by the system, and by nobody else")

            declared.__dict__["lo_declaration"] = Declaration(function, fields, null_state, host)
            return declared

        return decorate

    return kvs_pipeline


def qualified_name(function: Any) -> str:
    """Return `module.qualname`, by which the Learning Observer names a reducer."""
    return f"{function.__module__}.{function.__qualname__}"


def default_time_on_task_state() -> dict[str, Any]:
    """Return the time-on-task state before any event."""
    return {"saved_ts": None, "total_time_on_task": 0}


def apply_time_on_task(internal_state: Any, current_timestamp: float, time_delta_threshold: float) -> Any:
    """Add the time since the last event, at most the threshold; all in seconds."""
    state = default_time_on_task_state() if internal_state is None else internal_state
    last = current_timestamp if state["saved_ts"] is None else state["saved_ts"]
    state["total_time_on_task"] += min(time_delta_threshold, current_timestamp - last)
    state["saved_ts"] = current_timestamp
    return state


def default_binned_time_on_task_state() -> dict[str, Any]:
    """Return the state of time on task by bins, before any event."""
    return {"saved_ts": None, "binned_time_on_task": {}, "current_bin": None}


def get_time_bin(timestamp: float, bin_size: int) -> int:
    """Return the beginning of the bin of a time, in seconds."""
    return int(timestamp // bin_size * bin_size)


def apply_binned_time_on_task(
    internal_state: Any, current_timestamp: float, time_delta_threshold: float, bin_size: int
) -> Any:
    """Add the time since the last event, at most the threshold, to the bin it began in and to the next."""
    state = default_binned_time_on_task_state() if internal_state is None else internal_state
    last = current_timestamp if state["saved_ts"] is None else state["saved_ts"]
    begin = get_time_bin(last, bin_size) if state["current_bin"] is None else state["current_bin"]
    until, edge = last + min(time_delta_threshold, current_timestamp - last), begin + bin_size
    bins = state["binned_time_on_task"]
    bins[str(begin)] = bins.get(str(begin), 0) + min(until, edge) - last
    if until >= edge:
        bins[str(edge)] = bins.get(str(edge), 0) + until - edge
    state["saved_ts"] = current_timestamp
    state["current_bin"] = get_time_bin(current_timestamp, bin_size)
    return state


# --- learning_observer.util ----------------------------------------------------------------------

_RAISE = object()


def get_nested_dict_value(d: Any, key_str: str | None = None, default: Any = _RAISE) -> Any:
    """Return the value at "a.b.c" in nested dicts; `default`, else KeyError, where there is none."""
    found = d
    for key in filter(None, (key_str or "").split(".")):
        if not isinstance(found, dict) or key not in found:
            if default is _RAISE:
                raise KeyError(f"no {key_str!r} in {d!r}")
            return default
        found = found[key]
    return found


def remove_nested_dict_value(d: Any, key_str: str) -> Any:
    """Remove and return the value at "a.b.c" in nested dicts; KeyError where there is none."""
    path, _, last = key_str.rpartition(".")
    inner = get_nested_dict_value(d, path)
    if not isinstance(inner, dict) or last not in inner:
        raise KeyError(f"no {key_str!r} in {d!r}")
    return inner.pop(last)


def translate_json_keys(d: Any, translations: dict[str, str]) -> Any:
    """Rename keys at every depth, in place, and return `d`."""
    for item in list(d.values()) if isinstance(d, dict) else d if isinstance(d, list) else ():
        translate_json_keys(item, translations)
    if isinstance(d, dict):
        for old in [key for key in d if key in translations]:
            d[translations[old]] = d.pop(old)
    return d


def timestamp() -> str:
    """Return the time of the event as ISO 8601 in UTC, without a zone."""
    return EventDatetime.fromtimestamp(event_seconds()).isoformat()


def timeparse(text: str) -> datetime:
    """Return the time that an ISO 8601 text says."""
    return EventDatetime.fromisoformat(text)


def secure_hash(text: bytes) -> str:
    """Return the hash that the Learning Observer takes where forgery matters."""
    return "SHA512_" + hashlib.sha3_512(text).hexdigest()


def insecure_hash(text: bytes) -> str:
    """Return the hash that it takes where a short name is enough."""
    return "MD5_" + hashlib.md5(text, usedforsecurity=False).hexdigest()


# --- everything, by module -----------------------------------------------------------------------


def contents_for(host: Host) -> dict[str, dict[str, Any]]:
    """Return what the stand-in modules hold, by their names, for the modules of this host."""

    def module_setting(module_name: str, setting: str | None = None, default: Any = None) -> Any:  # noqa: ARG001
        return host.settings.get(setting or "", default)

    def register_field(name: str, **attributes: Any) -> None:
        host.settings[name] = attributes.get("default")

    def add_common_migrator(migrator: Callable[[Any], Any], file: Any = None) -> None:  # noqa: ARG001
        host.migrators.append(migrator)

    fields = {
        "KeyField": KeyField,
        "KeyStateType": KeyStateType,
        "EventField": EventField,
        "Scope": Scope,
        "ScopeFieldError": ScopeFieldError,
    }
    kvs_pipeline = kvs_pipeline_for(host)
    return {
        "learning_observer": {},
        "learning_observer.adapters.adapter": {"add_common_migrator": add_common_migrator},
        "learning_observer.adapters.helpers": {"rename_json_keys": translate_json_keys},
        "learning_observer.cache": {"async_memoization": lambda: _as_it_is},
        "learning_observer.communication_protocol.integration": {"publish_function": lambda _: _as_it_is},
        "learning_observer.constants": {"USER": "user", "USER_ID": "user_id"},
        "learning_observer.log_event": {"debug_log": _quiet},
        "learning_observer.settings": {"module_setting": module_setting},
        "learning_observer.stream_analytics.fields": fields,
        "learning_observer.stream_analytics.helpers": {
            **fields,
            "kvs_pipeline": kvs_pipeline,
            "student_event_reducer": kvs_pipeline,  # the student is what a scope is by default
            "fully_qualified_function_name": qualified_name,
        },
        "learning_observer.stream_analytics.time_on_task": {
            function.__name__: function
            for function in (
                default_time_on_task_state,
                apply_time_on_task,
                default_binned_time_on_task_state,
                get_time_bin,
                apply_binned_time_on_task,
            )
        },
        "learning_observer.util": {
            "get_seconds_since_epoch": event_seconds,
            **{
                function.__name__: function
                for function in (
                    get_nested_dict_value,
                    remove_nested_dict_value,
                    translate_json_keys,
                    timestamp,
                    timeparse,
                    secure_hash,
                    insecure_hash,
                )
            },
        },
        "pmss": {"register_field": register_field},
    }


def _as_it_is(function: Any) -> Any:
    return function


def _quiet(*_: Any, **__: Any) -> None:
    """Log nothing: a reducer has no log."""
