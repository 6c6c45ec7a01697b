"""The law of other processes: another interpreter, hash seed, time zone and folder give the same states.

Within one process, the order of a set, a cache in a global or the local time look constant.  So the test of a
reducer starts fresh interpreters, which import the reducer by its name and fold the same events: one the
whole, under one hash seed; another, under another seed and on the other side of the globe, the second half
only, from the stored states of the first.  What they find after each event, and what readers would be shown of
it, is compared by hash.

    parent  --(names, stored slots, events as JSON)-->  child: python -P -c "... main()"
            <--(two hashes for each event)------------

The parent's own folds stand in `reducers.laws`.  This is the one file of the package that is not pure: it is
part of a test, and runs in no server.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any

import msgspec

from archive import Event
from reducers import canonical
from reducers.base import Key, Reducer
from reducers.fold import Slot
from reducers.laws import Fault, Slots, step, trace, view_of

SECONDS_MAX = 60
_PLACES = (
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu"},
    {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns"},
)
_COMMAND = "import sys; sys.path[:] = {path!r}; from reducers.elsewhere import main; main()"


class Stored(msgspec.Struct, frozen=True):
    """A slot on its way to another process."""

    key: Key
    encoding: str
    changed_at: int
    error_index: int | None


class Task(msgspec.Struct, frozen=True):
    """What a child is to fold."""

    module: str
    file: str
    name: str
    slots: list[Stored]
    events: list[Event]


class Found(msgspec.Struct, frozen=True):
    """What a process finds after an event, as hashes."""

    states: str
    shown: str


class Elsewhere(msgspec.Struct, frozen=True):
    """By what name another process finds a reducer."""

    module: str
    file: str
    name: str


def place_of(reducer: Reducer[Any]) -> Elsewhere | None:
    """Return where `reducer` can be imported from, or None (made inside a function, or at a prompt)."""
    name = getattr(reducer.function, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
    file = getattr(module, "__file__", None)
    for attribute, value in list(vars(module).items()) if module is not None and file else ():
        if isinstance(value, Reducer) and value.function is reducer.function:
            return Elsewhere(str(name), str(Path(str(file)).resolve()), attribute)
    return None


def elsewhere(reducer: Reducer[Any], events: Sequence[Event]) -> Fault | None:
    """Other processes come to the same states, and show the same: under other hash seeds, and from stored states."""
    place = place_of(reducer)
    if place is None or not events:
        return None
    cut = len(events) // 2
    slots: Slots = {}
    trace(reducer, events[:cut], slots)
    stored = [_stored(reducer, key, slot) for key, slot in slots.items()]
    expected = digests(reducer, events)
    answers = _run(place, [(events, []), (events[cut:], stored)])
    for start, found in zip((0, cut), answers, strict=True):
        if isinstance(found, str):
            return Fault(len(events), found)
        for position, (was, now) in enumerate(zip(expected[start:], found, strict=True), start):
            if was != now:
                how = f"from the states stored after {start} events" if start else "from the beginning"
                return Fault(position + 1, _differs(was, now, how, events[position].index))
    return None


def _differs(was: Found, now: Found, how: str, index: int) -> str:
    if was.states != now.states:
        what = f"comes to other states at event {index}"
    else:
        what = f"comes to the same states, and its view shows them otherwise after event {index}"
    return f"another process, folding {how}, {what}; look for sets, hash(), globals, and the local time zone"


def digests(reducer: Reducer[Any], events: Sequence[Event], slots: Slots | None = None) -> list[Found]:
    """Return hashes of what stands after each event, and of what readers are shown of it."""
    held: Slots = {} if slots is None else slots
    found = []
    for event in events:
        rows = step(reducer, held, event)
        states = canonical.encode([[*row[:1], row[1].decode(), *row[2:]] for row in rows])
        views = [] if reducer.viewer is None else [view_of(reducer, held[row.key].state) for row in rows]
        found.append(Found(_hash(states), _hash(b"\n".join(views))))
    return found


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    """Be the child: read a task from standard input, and write the hashes to what was standard output.

    What the author's code prints goes to standard error, so that it is not taken for an answer.
    """
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    reducer = _find(task)
    slots = {
        one.key: Slot(reducer.decode(one.encoding.encode()), one.changed_at, None, one.error_index)
        for one in task.slots
    }
    with answer:
        answer.write(msgspec.json.encode(digests(reducer, task.events, slots)))


def _find(task: Task) -> Reducer[Any]:
    try:
        found = getattr(import_module(task.module), task.name)
    except (ImportError, AttributeError):  # a script, or a test file that is on no path
        spec = util.spec_from_file_location("reducers_under_test", task.file)
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found = getattr(module, task.name)
    assert isinstance(found, Reducer)
    return found


def _run(place: Elsewhere, parts: Sequence[tuple[Sequence[Event], list[Stored]]]) -> list[list[Found] | str]:
    """Run one child for each part, side by side; return the hashes of each, or what went wrong."""
    path = [str(Path(each).resolve()) for each in sys.path]
    command = [sys.executable, "-P", "-c", _COMMAND.format(path=path)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    children: list[subprocess.Popen[bytes]] = []
    try:
        for environment in _PLACES[: len(parts)]:
            env = {**os.environ, **environment}
            child = subprocess.Popen(command, env=env, cwd=os.sep, **pipes)  # type: ignore[call-overload]  # noqa: S603 - ourselves
            children.append(child)
        tasks = [Task(place.module, place.file, place.name, stored, list(some)) for some, stored in parts]
        return [_answer(child, task) for child, task in zip(children, tasks, strict=True)]
    finally:
        for child in children:
            child.kill()


def _answer(child: subprocess.Popen[bytes], task: Task) -> list[Found] | str:
    try:
        out, error = child.communicate(msgspec.json.encode(task), timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return f"another process did not come to an end within {SECONDS_MAX} s"
    if child.returncode or not out:
        last = error.decode(errors="replace").strip().rpartition("\n")[2]
        return f"another process could not fold the events: {last}"
    return msgspec.json.decode(out, type=list[Found])


def _stored(reducer: Reducer[Any], key: Key, slot: Slot[Any]) -> Stored:
    return Stored(key, reducer.encode(slot.state).decode(), slot.changed_at, slot.error_index)
