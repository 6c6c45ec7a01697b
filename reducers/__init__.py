"""Pure meaning: state = fold(reducer, events).

All that the author of a reducer needs is here, and nothing in this package reads a clock, a file or a
network.

    from reducers import Event, reducer

The test to write for it is `from reducers.contract import check`.  Reducers that come with the package:
`shipped()`.  What drives reducers along the log is `replay`; what an event is, `archive.event`.
"""

from __future__ import annotations

from archive import Event
from reducers.base import Key, Reducer, reducer
from reducers.contract import check
from reducers.digest import (
    Identity,
    StatePair,
    digest_of_entries,
    entry_digest,
    leaf_data,
    pair_of,
    state_digest,
)
from reducers.errors import ContractError, DefinitionError, ReducerError, StateError, UnknownReducer
from reducers.fold import Slot, fold, fold_one
from reducers.registry import Registry, shipped

__all__ = [
    "ContractError",
    "DefinitionError",
    "Event",
    "Identity",
    "Key",
    "Reducer",
    "ReducerError",
    "Registry",
    "Slot",
    "StateError",
    "StatePair",
    "UnknownReducer",
    "check",
    "digest_of_entries",
    "entry_digest",
    "fold",
    "fold_one",
    "leaf_data",
    "pair_of",
    "reducer",
    "shipped",
    "state_digest",
]
