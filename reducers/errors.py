"""What can go wrong with a reducer, by who should do what about it.

An exception *inside* a reducer is none of these: it is data, kept in a `reducers.fold.Slot`.
Errors about the log itself live in `archive`.
"""

from __future__ import annotations


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


class ContractError(ReducerError):
    """A reducer breaks a law of `reducers.contract`: fix it before its states are trusted.

    It carries `reducer` (its name), `law`, and `prefix_size`: how many of the events given suffice to show
    it.
    """

    def __init__(self, reducer: str, law: str, prefix_size: int, message: str) -> None:
        shown = f"smallest failing prefix: {prefix_size} events"
        super().__init__(f"reducer {reducer!r} breaks the law of {law}: {message} ({shown})")
        self.reducer = reducer
        self.law = law
        self.prefix_size = prefix_size
