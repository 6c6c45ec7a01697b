"""What the tests of LO modules share: the lookalike, modules written for one test, and frames as events.

`server` is the independent judge: the loop of the Learning Observer's own server, transcribed from its protocol.
It knows nothing of our reducers: it has a dictionary of JSON texts, an event loop, and the functions.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from api import Connection
from archive import Event, read_event
from reducers import Module, ModuleRef, load
from reducers.lo_clock import EVENT_MS
from reducers.lo_helpers import EventField, KeyField, declaration_of
from reducers.lo_reducer import LoReducer

WRITING = "org.mitros.writing_analytics"
LOOKALIKE = ModuleRef("lookalike", "lo", "tests.reducers.lo_lookalike.module", "1.2")
HOME = "tests.reducers.lo_lookalike.reducers."
RECEIVED_US = 1_700_000_000_000_000


def lookalike() -> Module:
    """Return the lookalike, loaded."""
    return load(LOOKALIKE)


def named(module: Module, name: str) -> LoReducer:
    """Return a reducer of a module by the end of its name."""
    (found,) = [each for each in module.reducers if each.name == name or each.name.endswith("." + name)]
    assert isinstance(found, LoReducer)
    return found


def written(folder: Path, name: str, **files: str) -> ModuleRef:
    """Write a package of Python files into `folder`, and return the reference of its `module`."""
    package = folder / name
    package.mkdir()
    for file, source in {"__init__": "", **files}.items():
        (package / f"{file}.py").write_text(source, "utf-8")
    return ModuleRef(name, "lo", f"{name}.module")


def frames(*values: dict[str, Any], student: str = "ann", source: str = WRITING) -> list[Event]:
    """Return the events of a connection that says who it is first, and then sends these frames."""
    connection = Connection(b"12345678")
    lock = {"event": "lock_fields", "fields": {"source": source, "user_id": student}}
    connection.frame(json.dumps(lock).encode(), True, RECEIVED_US)
    return [event_of(connection, value, index) for index, value in enumerate(values)]


def event_of(connection: Connection, frame: dict[str, Any], index: int) -> Event:
    """Return the event of one frame, received `index` seconds after the first."""
    received_us = RECEIVED_US + 1_000_000 * index
    (kept,) = connection.frame(json.dumps(frame).encode(), True, received_us).submissions
    lock = json.loads(kept.extra.get("lock", b"{}"))
    return read_event(index, kept.form, kept.source, kept.keys, received_us // 1_000, kept.payload, lock)


def typed(text: str, at: int = 1, **fields: Any) -> dict[str, Any]:
    """Return the frame of a save that inserts `text` at a 1-based place of the document "essay"."""
    command = {"ty": "is", "s": text, "ibi": at}
    return {"event": "google_docs_save", "doc_id": "essay", "bundles": [{"commands": [command]}], **fields}


def internal(reducer: LoReducer, slots: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    """Return the internal states of a fold by key."""
    del reducer
    return {key: json.loads(slot.state.internal) for key, slot in slots.items()}


def server(python: ModuleType, events: Iterable[Event]) -> dict[Any, dict[tuple[str, ...], tuple[Any, Any]]]:
    """Return (internal, external) by key, for each entry of REDUCERS by its place, as that server would."""
    kvs: dict[tuple[int, tuple[str, ...], str], str] = {}

    async def all_of_them() -> None:
        for event in events:
            EVENT_MS.set(event.received_ms)
            for position, entry in enumerate(python.REDUCERS):
                await _one(kvs, position, entry, event)

    asyncio.run(all_of_them())
    found: dict[Any, dict[tuple[str, ...], tuple[Any, Any]]] = {}
    for position, key, kind in kvs:
        pair = (json.loads(kvs.get((position, key, each), '"never"')) for each in ("internal", "external"))
        if kind == "internal":
            internal_state, external_state = pair
            found.setdefault(position, {})[key] = internal_state, external_state
    return found


async def _one(kvs: dict[Any, str], position: int, entry: Any, event: Event) -> None:
    declared = declaration_of(entry["function"])
    assert declared is not None
    client = json.loads(json.dumps(event.data))
    for migrate in declared.host.migrators:
        client = migrate(client)
    listed = entry.get("scope", frozenset([KeyField.STUDENT]))
    fields = [field.event for field in listed if isinstance(field, EventField)]
    if entry["context"] != client["source"] or any(field not in client for field in fields):
        return
    client["auth"] = {"safe_user_id": event.keys["student"]}
    student = [event.keys["student"]] if KeyField.STUDENT in declared.scope else []
    both = sorted(
        field.event for field in declared.scope if isinstance(field, EventField) and field in listed
    )
    key = (*student, *(client[field] for field in both))
    state = json.loads(kvs.get((position, key, "internal"), "null"))
    if state is None:
        state = json.loads(json.dumps(declared.null_state))
        kvs[position, key, "internal"] = json.dumps(state)
    given = {"client": client, "server": {"time": event.received_ms / 1_000}, "metadata": {}}
    states = await declared.function(given, state)
    for kind, value in zip(("internal", "external"), states, strict=True):
        if value is not False:
            kvs[position, key, kind] = json.dumps(value)
