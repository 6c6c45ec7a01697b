"""Promise: of an author's objects, what the code asks of them is read, and nothing that nobody calls."""

# ruff: noqa: ARG005, D102, PTH123 - each shape is a reducer's body, and is said by its name

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archive import Event
from reducers import DefinitionError, reducer
from reducers.purity import OBJECTS_MAX, faults

HERE = Path(__file__)


class Lexicon:
    """Data that is loaded at import, as the refusal of files tells authors to."""

    def __init__(self, path: Path) -> None:
        with open(path) as file:
            self.words = frozenset(file.read().split())

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        return cls(path)

    def knows(self, word: str) -> bool:
        return word in self.words

    def again(self) -> bool:
        return self.knows("again") and self.now() != ""

    def __call__(self) -> str:
        return self.now()

    def __getitem__(self, word: str) -> str:
        return word + self.now()

    def __enter__(self) -> str:
        return self.now()

    def __exit__(self, *_: object) -> None:
        """End."""

    def now(self) -> str:
        return datetime.now(UTC).isoformat()

    @property
    def age(self) -> str:
        return self.now()


class Word:
    """Is made anew for each event."""

    def __init__(self, text: str = "") -> None:
        self.text = text

    def size(self) -> int:
        return len(self.text)

    def now(self) -> str:
        return datetime.now(UTC).isoformat()


class Dated(Word):
    """Looks at the clock where it is made."""

    def __init__(self) -> None:
        super().__init__(self.now())


@dataclass
class Since:
    """Looks at the clock by a default."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Rule:
    """Holds what it does."""

    does: Callable[[Event], str]


LEXICON = Lexicon.load(HERE)
MODELS: dict[str, Any] = {"words": LEXICON, "more": [LEXICON]}
CLASSES: dict[str, Any] = {"word": Word}
RULES = [Rule(lambda event: datetime.now(UTC).isoformat())]
RULES_PURE = [Rule(lambda event: event.type)]


def count(text: str, lexicon: Lexicon) -> int:
    """Return how many words a lexicon knows."""
    return sum(lexicon.knows(word) for word in text.split())


def ask(lexicon: Lexicon) -> str:
    """Ask a lexicon for the time."""
    return lexicon.now()


def default(event: Event, lexicon: Lexicon = LEXICON) -> bool:
    """Have an object as a default."""
    return lexicon.knows(event.type)


def local(event: Event) -> Any:
    """Take an object out of a table by way of a variable, and call a method of it."""
    model = MODELS.get(event.type)
    return model and model.again()


def called(event: Event) -> Any:
    """Take an object out of a table by way of a variable, and call it."""
    model = MODELS[event.type]
    return model()


def entered(event: Event) -> Any:
    """Enter an object."""
    with LEXICON as time:
        return time + event.type


PURE: dict[str, Callable[[Any, Event], Any]] = {
    "passed on to a function": lambda state, event: count(str(event.data), LEXICON),
    "passed on to a library": lambda state, event: sorted([LEXICON], key=str),
    "a method": lambda state, event: LEXICON.knows(event.type),
    "an attribute": lambda state, event: event.type in LEXICON.words,
    "a method of one of a table": lambda state, event: MODELS.get("words", LEXICON).knows(event.type),
    "a default": lambda state, event: default(event),
    "an object that is made": lambda state, event: Word(event.type).size(),
    "of a class in a table": lambda state, event: CLASSES["word"](event.type).size(),
    "what an object holds": lambda state, event: RULES_PURE[event.index].does(event),
}
IMPURE: dict[str, Callable[[Any, Event], Any]] = {
    "asked by a function": lambda state, event: ask(LEXICON),
    "a method": lambda state, event: LEXICON.now(),
    "a method that calls another": lambda state, event: LEXICON.again(),
    "a property": lambda state, event: LEXICON.age,
    "a property of one of a table": lambda state, event: MODELS.get("words", LEXICON).age,
    "a method of one of a table": lambda state, event: MODELS[event.type].again(),
    "a method of one of a table in a table": lambda state, event: MODELS["more"][event.index].now(),
    "by way of a variable": lambda state, event: local(event),
    "called by way of a variable": lambda state, event: called(event),
    "called": lambda state, event: LEXICON(),
    "called out of a table": lambda state, event: MODELS[event.type](),
    "asked by a key": lambda state, event: LEXICON[event.type],
    "entered": lambda state, event: entered(event),
    "an object that is made": lambda state, event: Word(event.type).now(),
    "of a class in a table": lambda state, event: CLASSES[event.type](event.type).now(),
    "where it is made": lambda state, event: Dated(),
    "by a default where it is made": lambda state, event: Since(),
    "what an object holds": lambda state, event: RULES[event.index].does(event),
}


@pytest.mark.parametrize("shape", PURE)
def test_what_nobody_calls_is_let_be(shape: str) -> None:
    """The object has a clock and files in it, beside what the reducer uses."""
    assert faults(PURE[shape]) == []


@pytest.mark.parametrize("shape", IMPURE)
def test_what_is_asked_of_an_object_is_found(shape: str) -> None:
    """By whatever way the reducer comes to it, the line is that of the method."""
    found = faults(IMPURE[shape])
    assert {fault.what for fault in found} == {"datetime.datetime.now"}, found


def test_data_that_is_loaded_at_import_makes_a_reducer() -> None:
    """What the refusal of files tells an author to do is not refused."""

    def lexical(state: int, event: Event) -> int:
        return state + count(str(event.data), LEXICON)

    def loading(state: int, event: Event) -> int:
        return state + count(str(event.data), Lexicon.load(HERE))

    assert reducer()(lexical).name == "lexical"
    with pytest.raises(DefinitionError, match=r"reaches for files \(io.open\)"):
        reducer()(loading)


WORDS = [Word(str(number)) for number in range(OBJECTS_MAX)]
AND_ONE: list[Any] = [WORDS, [LEXICON]]


def test_many_objects_do_not_hide_one_of_another_class() -> None:
    """Of a table of data that are objects some are looked at; of each class, one at least."""
    assert faults(lambda state, event: [each.size() for each in WORDS]) == []
    found = faults(lambda state, event: AND_ONE[0][event.index].again())
    assert [fault.what for fault in found] == []
    found = faults(lambda state, event: AND_ONE[event.index][0].again())
    assert {fault.what for fault in found} == {"datetime.datetime.now"}
