"""Pure meaning: state = fold(reducer, events).

All that the author of a reducer needs is here, and nothing in this package reads a clock, a file or a
network.

    from reducers import Event, reducer

The test to write for it is `from reducers.contract import check`.  Modules that are installed:
`available()`; reducers that come with the package: `shipped()`.  The author's guide is docs/reducers.md.
What drives reducers along the log is `replay`; what an event is, `archive.event`.
"""

from __future__ import annotations

from archive import Event
from reducers.base import VALUE_SIZE_MAX, Key, Reducer, certain_fields
from reducers.contract import check
from reducers.definition import reducer
from reducers.digest import (
    Identity,
    StatePair,
    digest_of_entries,
    entry_digest,
    leaf_data,
    pair_of,
    state_digest,
)
from reducers.errors import (
    ContractError,
    ContractNote,
    DataError,
    DefinitionError,
    ModuleError,
    PurityError,
    ReducerError,
    StateError,
    UnknownReducer,
)
from reducers.fold import Run, Slot, Word, addressed, fold, fold_one, fold_run, tell_errors
from reducers.guard import ONE_THREAD
from reducers.message import Emit, Message, Outbox, source_of
from reducers.modules import BUILTIN, Module, ModuleRef, available, compose, is_module_name, load, shipped
from reducers.reading import read
from reducers.registry import Registry
from reducers.ticks import SOURCE as TICK_SOURCE
from reducers.ticks import TICK, due, is_tick, tick, tick_of

__all__ = [
    "BUILTIN",
    "ONE_THREAD",
    "TICK",
    "TICK_SOURCE",
    "VALUE_SIZE_MAX",
    "ContractError",
    "ContractNote",
    "DataError",
    "DefinitionError",
    "Emit",
    "Event",
    "Identity",
    "Key",
    "Message",
    "Module",
    "ModuleError",
    "ModuleRef",
    "Outbox",
    "PurityError",
    "Reducer",
    "ReducerError",
    "Registry",
    "Run",
    "Slot",
    "StateError",
    "StatePair",
    "UnknownReducer",
    "Word",
    "addressed",
    "available",
    "certain_fields",
    "check",
    "compose",
    "digest_of_entries",
    "due",
    "entry_digest",
    "fold",
    "fold_one",
    "fold_run",
    "is_module_name",
    "is_tick",
    "leaf_data",
    "load",
    "pair_of",
    "read",
    "reducer",
    "shipped",
    "source_of",
    "state_digest",
    "tell_errors",
    "tick",
    "tick_of",
]
