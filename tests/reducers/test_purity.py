"""Reading a reducer's source: what it reaches for by name is a mistake of its definition, with file and line."""

# ruff: noqa: D103, DTZ011, PTH110, PTH123, PTH208 - what is wrong with these is what is to be found

from __future__ import annotations

import importlib
import os
import random
import subprocess as processes
import sys
import time as clock
import uuid
from datetime import UTC, date
from datetime import datetime as moment
from pathlib import Path
from random import choice, shuffle
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import pytest

from archive import Event
from reducers import DefinitionError, reducer
from reducers.purity import faults


def aliased(state: int, _event: Event) -> int:
    return state + int(clock.time())


def taken(state: int, _event: Event) -> int:
    return state + int(monotonic())


def now(state: str, _event: Event) -> str:
    return state + moment.now(UTC).isoformat()


def utcnow(state: str, _event: Event) -> str:
    make = moment.utcnow
    return state + make().isoformat()


def today(state: int, _event: Event) -> int:
    return state + date.today().year


def chosen(_state: int, event: Event) -> int:
    return choice([event.index])


def numbered(state: float, _event: Event) -> float:
    return state + np.random.rand()


def opened(state: str, _event: Event) -> str:
    with open("words.txt") as file:
        return state + file.read()


def listed(state: int, _event: Event) -> int:
    return state + len(os.listdir("."))


def exists(state: int, event: Event) -> int:
    return state + os.path.exists(event.data["path"])


def asked(state: str, _event: Event) -> str:
    return state + os.environ["HOME"]


def started(state: int, _event: Event) -> int:
    return state + processes.run(["true"], check=False).returncode


def inside(state: int, _event: Event) -> int:
    import time

    return state + int(time.time())


def inside_from(state: str, _event: Event) -> str:
    from uuid import uuid4 as fresh

    return state + fresh().hex


def in_a_lambda(state: list[int], _event: Event) -> list[int]:
    return sorted(state, key=lambda _: clock.time())


def helped(state: int, _event: Event) -> int:
    return state + help_out()


def help_out() -> int:
    return int(clock.time())


def defaulted(state: float, _event: Event, since: float = clock.time()) -> float:
    return state + since


PICK = random.Random(7).choice


def picked(state: int, event: Event) -> int:
    return state + PICK([event.index])


class Draft:
    """A helper whose method looks at the clock."""

    def finish(self) -> int:
        """Return the time."""
        return int(clock.time())


def drafted(state: int, _event: Event) -> int:
    draft = Draft()
    return state + draft.finish()


class Started(msgspec.Struct):
    """A state that begins with the present time."""

    at: float = msgspec.field(default_factory=clock.time)


def stated(state: Started, _event: Event) -> Started:
    return Started(state.at)


LINES = {
    aliased: "the clock (time.time)",
    taken: "the clock (time.monotonic)",
    now: "the clock (datetime.datetime.now)",
    utcnow: "the clock (datetime.datetime.utcnow)",
    today: "the clock (datetime.date.today)",
    chosen: "chance (random.choice)",
    numbered: "chance (numpy.random.rand)",
    opened: "files (io.open)",
    listed: "files (os.listdir)",
    exists: "files (posixpath.exists)",
    asked: "the machine it runs on (os.environ)",
    started: "other processes (subprocess.run)",
    inside: "the clock (time.time)",
    inside_from: "chance (uuid.uuid4)",
    in_a_lambda: "the clock (time.time)",
    helped: "the clock (time.time)",
    drafted: "the clock (time.time)",
    stated: "the clock (time.time)",
    defaulted: "the clock (time.time)",
}


@pytest.mark.parametrize("function", LINES, ids=lambda each: each.__name__)
def test_reaching_out_by_name_is_a_mistake_of_the_definition(function: Any) -> None:
    """Whatever alias, helper, class or import it goes by; the message has name, thing, file and line."""
    with pytest.raises(DefinitionError) as caught:
        reducer()(function)
    said = f"reducer {function.__name__!r} reaches for {LINES[function]} at reducers/test_purity.py:"
    assert str(caught.value).startswith(said)
    assert "; " in str(caught.value)


def test_the_line_is_that_of_the_call() -> None:
    """Not of the decorator, nor of the function's first line."""
    (fault,) = faults(helped)
    line = int(fault.place.rpartition(":")[2])
    assert line == help_out.__code__.co_firstlineno + 1


def test_a_view_and_a_default_are_read_as_well() -> None:
    """They are the reducer's code like the function."""

    def count(state: int, _event: Event) -> int:
        return state + 1

    with pytest.raises(DefinitionError, match="reducer 'count' reaches for the clock"):
        reducer(view=lambda state: {"age": clock.time() - state})(count)
    with pytest.raises(DefinitionError, match="reducer 'count' reaches for chance"):
        reducer(default=lambda: choice([1, 2]))(count)


def test_a_part_of_a_package_that_is_not_loaded_is_judged_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numpy loads numpy.random when somebody first asks for it; asking is what must not happen."""
    monkeypatch.delitem(vars(np), "random", raising=False)
    assert [fault.what for fault in faults(numbered)] == ["numpy.random.rand"]


SALT = random.Random(7).random()  # at import, where it is nobody's business
NAMES = {"time": 1}


def draw() -> None:
    """Draw a picture at random: a function of the same file that no reducer uses."""
    shuffle([clock.time()])


def harmless(state: float, event: Event) -> float:
    """Use names that look like the clock and are not."""
    time = event.time_ms
    now = {"now": time}
    seeded = random.Random(event.index).random()
    when = moment.fromtimestamp(time / 1_000, UTC)
    name = uuid.UUID(int=event.index).hex
    path = os.path.join("a", "b")  # noqa: PTH118 - text only
    rng = np.random.default_rng(event.index)
    return (
        state
        + time
        + now["now"]
        + seeded
        + when.year
        + len(name)
        + len(path)
        + rng.random()
        + SALT
        + NAMES["time"]
    )


def test_what_is_pure_is_left_alone() -> None:
    """Imports, other functions of the file, seeds, and locals that are named like modules are no faults."""
    assert faults(harmless) == []
    assert reducer()(harmless).name == "harmless"


class Late:
    """A stand-in whose object is not there yet, as web frameworks have them."""

    def __getattr__(self, name: str) -> Any:
        """Raise whatever the author of such a thing thought of."""
        raise RuntimeError(f"no {name} outside of a request")


def test_a_stand_in_that_raises_when_it_is_looked_at_is_left_alone() -> None:
    """A definition does not fail because of what somebody else's object does."""
    late = Late()

    def using(state: int, _event: Event) -> int:
        return state + (late is None)

    assert faults(using) == []


def test_source_that_is_no_python_any_more_is_left_to_the_guard(tmp_path: Path) -> None:
    """Somebody edits the file while it is imported: the definition stands, as the code does."""
    file = tmp_path / "edited.py"
    file.write_text("def typed(state, event):\n    return state\n")
    scope: dict[str, Any] = {"__name__": "edited"}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    file.write_text("def typed(state, event:\n")
    assert faults(scope["typed"]) == []


def test_code_of_other_packages_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library does inside is found when it runs: its source may use anything, elsewhere."""
    (tmp_path / "somebody_else.py").write_text("import time\n\ndef other():\n    return time.time()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    other = importlib.import_module("somebody_else").other
    monkeypatch.delitem(sys.modules, "somebody_else")

    def calling(state: float, _event: Event) -> float:
        return state + float(other())

    assert [fault.what for fault in faults(other)] == ["time.time"]
    assert faults(calling) == []


def test_a_generator_of_ones_own_is_no_fault_of_the_definition() -> None:
    """It has a seed; that it goes on from event to event is for the contract to find."""
    assert faults(picked) == []


def test_code_without_source_is_left_to_the_guard() -> None:
    """A reducer typed at a prompt is defined all the same."""
    scope: dict[str, Any] = {"Event": Event}
    exec("import time\ndef typed(state: float, event: Event) -> float: return time.time()", scope)
    assert faults(scope["typed"]) == []
    assert faults(len) == []
