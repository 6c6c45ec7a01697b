"""The files of a new module: what `treering new module` writes, with NAME and PACKAGE to be filled in.

They are one small example that works as it stands (how much a student types, and the longest pause), made to
be changed: a typed state, typed reading of an event, a value on a dashboard, and the test that keeps all of
it a function of the log.  What is explained at length in docs/reducers.md is only named here.
"""

from __future__ import annotations

import re

PYPROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "NAME"
version = "0.1.0"
description = "A module of Treering."
requires-python = ">=3.11"
# Treering is not named here, since it is on no public index: install this module beside it.
dependencies = []

[project.entry-points."treering.modules"]
NAME = "PACKAGE"

[tool.setuptools]
packages = ["PACKAGE"]
"""

INIT = '''\
"""NAME: a module of Treering.  The reducers listed here are what it adds to a server."""

from PACKAGE.keystrokes import PACKAGE_typing

REDUCERS = [PACKAGE_typing]
'''

REDUCER = '''\
"""How much a student types, and the longest pause between two keystrokes.

The function at the end is called for each event of a student, in the order of the log.  It returns a new
state, or the one it was given if nothing changed.  It must give the same answer in every replay, so the time
comes from the event, and nothing is read from a clock, a file or the network.
"""

from __future__ import annotations

import msgspec

from reducers import Event, read, reducer


class Keystroke(msgspec.Struct):
    """What is expected in the data of a "keystroke" event; other fields are ignored."""

    characters: int = 1


class Typing(msgspec.Struct, frozen=True):
    """What is kept for each student."""

    keystrokes: int = 0
    longest_pause_ms: int = 0
    latest_ms: int | None = None
    """Latest time of a keystroke, by the client's clock (Unix milliseconds), which may go backwards."""


def shown(state: Typing) -> dict[str, float]:
    """Return what dashboards see of a state."""
    return {"keystrokes": state.keystrokes, "longest_pause_s": state.longest_pause_ms / 1_000}


@reducer(scope=("student",), version=1, view=shown)  # raise the version when the meaning changes
def PACKAGE_typing(state: Typing, event: Event) -> Typing:
    """Count keystrokes, and keep the longest pause between two of them."""
    if event.type != "keystroke":
        return state
    stroke = read(event, Keystroke, default=None)
    if stroke is None:  # a client that sends something else changes nothing
        return state
    latest_ms = event.time_ms if state.latest_ms is None else state.latest_ms
    return Typing(
        keystrokes=state.keystrokes + stroke.characters,
        longest_pause_ms=max(state.longest_pause_ms, event.time_ms - latest_ms),
        latest_ms=max(latest_ms, event.time_ms),
    )
'''

TEST = '''\
"""The tests of NAME: what it computes, and that this is a function of the log."""

from __future__ import annotations

from typing import Any

from PACKAGE.keystrokes import PACKAGE_typing
from reducers import Event, available, check, fold, load


def at(index: int, second: int, student: str = "ada", data: Any = None, kind: str = "keystroke") -> Event:
    """Return the event at `index` of a log, sent at this second."""
    return Event(
        index=index,
        type=kind,
        source="org.example.editor",
        keys={"student": student},
        data={} if data is None else data,
        received_ms=1_000 * second,
        time_ms=1_000 * second,
    )


EVENTS = [
    at(0, 10),
    at(1, 12, "ben"),
    at(2, 13, data={"characters": 5}),
    at(3, 20, data={"characters": "many"}),
    at(4, 25, kind="mouseclick"),
    at(5, 73, data={"characters": 2}),
    at(6, 74, "ben"),
    at(7, 40),
    at(8, 105),
]


def test_keystrokes_are_counted_and_the_longest_pause_is_kept() -> None:
    """What does not fit the type, and other events, change nothing; what comes late makes no pause longer."""
    slot = fold(PACKAGE_typing, EVENTS)[("ada",)]
    assert PACKAGE_typing.view(slot.state) == {"keystrokes": 10, "longest_pause_s": 60.0}


def test_states_are_a_function_of_the_log() -> None:
    """Whatever the shards, restarts, replays and processes (see the guide for reducers)."""
    check(PACKAGE_typing, EVENTS)


def test_the_module_is_found() -> None:
    """Once it is installed, a server finds it by its entry point."""
    assert [each.name for each in load(available()["NAME"]).reducers] == ["PACKAGE_typing"]
'''

README = """\
# NAME

A module of Treering. Its reducers are in `PACKAGE/`, and are listed in `PACKAGE/__init__.py`.

    pip install --no-deps -e .          # into the environment where Treering is
    pytest                              # the contract: pure, the same for any shards, restarts and processes
    treering serve                      # start it again; it runs all modules that are installed

Send something, and look at what it makes of it:

    curl http://127.0.0.1:8400/v1/events -H 'Content-Type: application/json' -d '{
      "type": "keystroke", "source": "org.example.editor",
      "keys": {"student": "ada"}, "data": {"characters": 5}}'
    curl 'http://127.0.0.1:8400/v1/states/PACKAGE_typing?student=ada'

How to write reducers is explained in Treering's `docs/reducers.md`.
"""


_WORDS = re.compile("PACKAGE|NAME")


def files(name: str, package: str) -> dict[str, str]:
    """Return the files of a new module: path below its folder → text.

    >>> sorted(files("essay-stats", "essay_stats"))[:2]
    ['README.md', 'essay_stats/__init__.py']
    """
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{package}/__init__.py": INIT,
        f"{package}/keystrokes.py": REDUCER,
        f"tests/test_{package}.py": TEST,
    }
    words = {"PACKAGE": package, "NAME": name}  # in one go: a name may hold one of these words itself
    return {path: _WORDS.sub(lambda match: words[match[0]], text) for path, text in texts.items()}
