"""What can go wrong with a reducer, by who should do what about it.

An exception *inside* a reducer is none of these: it is data, kept in a `reducers.fold.Slot`.
Errors about the log itself live in `archive`.
"""

from __future__ import annotations

from typing import Any


class ReducerError(Exception):
    """Base of all errors of this package."""


class DefinitionError(ReducerError):
    """The decorator or the registration is wrong: the author must change the code."""


class StateError(ReducerError):
    """A state cannot be encoded or decoded: fix the reducer, or rebuild its states by replay.

    It carries `reducer`, the reducer's name.
    """

    def __init__(self, reducer: str, message: str) -> None:
        super().__init__(f"reducer {reducer!r}: {message}")
        self.reducer = reducer


class UnknownReducer(ReducerError):
    """No reducer has this name: use one of `known`."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no reducer is named {name!r}; registered: {', '.join(known) or 'none'}")
        self.name = name
        self.known = known


class DataError(ReducerError):
    """An event's data is not of the type that a reducer reads it as: read it with a default, or widen the type."""


class PurityError(ReducerError):
    """A reducer reached for a clock, chance, a file or another process: what it needs must come in an event.

    Raised inside the reducer, at the same event in every fold, so it quarantines like any exception.
    """


class ModuleError(ReducerError):
    """A module cannot be used, and why: its author or whoever installed it must act.  Others load all the same.

    It carries `name`, the module's, and `reason`.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"module {name!r}: {reason}")
        self.name = name
        self.reason = reason


class ContractNote(UserWarning):
    """A law could not be checked for this reducer; the warning says what to change so that it can."""


class ContractError(ReducerError):
    """A reducer breaks a law of `reducers.contract`: fix it before its states are trusted.

    It carries `reducer` (its name), `law`, `prefix_size` (how many of the events given suffice to show it),
    and `events`, those of them that are needed.
    """

    def __init__(
        self,
        reducer: str,
        law: str,
        prefix_size: int,
        message: str,
        events: tuple[Any, ...] = (),
        shown: str = "",
    ) -> None:
        size = f"smallest failing prefix: {prefix_size} events"
        needed = f"; it takes these {len(events)}:\n{shown}" if events else ""
        super().__init__(f"reducer {reducer!r} breaks the law of {law}: {message} ({size}{needed})")
        self.reducer = reducer
        self.law = law
        self.prefix_size = prefix_size
        self.events = events
