"""Loading modules of the Learning Observer: what is read of them, what is refused, and what stands in meanwhile.

What their reducers do is tested in test_lo_fold.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from api.lo import KEY_FIELDS
from reducers import Event, ModuleError, ModuleRef, available, compose, fold, load, shipped
from reducers.lo import ROUTED, scope_of
from reducers.lo_helpers import EventField, KeyField
from tests.reducers.lo_world import HOME, WRITING, frames, internal, lookalike, named, typed, written

HEADER = """
from learning_observer.stream_analytics.helpers import *
from learning_observer.stream_analytics.helpers import EventField, KeyField, Scope, kvs_pipeline
from learning_observer.stream_analytics.helpers import student_event_reducer
NAME = "Essays"
"""
COUNT = """
@student_event_reducer(null_state={"n": 0})
async def count(event, state):
    return {"n": state["n"] + 1}, False
"""
LISTED = 'REDUCERS = [{"context": "org.example", "function": count}]\n'
TWICE = LISTED.replace("}]", "}, {'context': 'd', 'function': first}]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder whose packages can be imported, until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_module_is_loaded_as_it_stands() -> None:
    """Names are those of that server, scopes are by our fields, and a version is 1 unless the list names one."""
    module = lookalike()
    found = {each.name.removeprefix(HOME): (each.scope, each.version) for each in module.reducers}
    assert (module.name, module.version) == ("lookalike", "1.2")
    assert found == {
        "text": (("student", "doc_id"), 1),
        "history": (("student",), 1),
        "saves": (("student",), 1),
        "opened": (("student",), 1),
        "time_on_task": (("student", "doc_id"), 1),
        "time_on_task-student-doc_id-tab_id": (("student", "doc_id", "tab_id"), 1),
        "loud": (("student", "doc_id"), 3),
        "patient": (("student",), 1),
        "stored": (("student",), 1),
        "fetched": (("student",), 1),
        "readers": (("doc_id",), 1),
    }
    assert {each.module for each in module.reducers} == {"lookalike"}


def test_reducers_of_such_modules_stand_beside_ours() -> None:
    """They go into one registry with those that are shipped; loading again gives equal reducers."""
    registry, errors = compose(
        [lookalike(), *(load(available()[name]) for name in ("activity", "writing", "progress", "classes"))]
    )
    assert (len(registry), errors) == (11 + len(shipped()), [])
    again, _ = compose(
        [lookalike(), *(load(available()[name]) for name in ("activity", "writing", "progress", "classes"))]
    )
    assert again.fingerprint() == registry.fingerprint()


@pytest.mark.parametrize(
    ("declared", "listed", "scope", "required"),
    [
        ("S", "S", ("student",), ()),
        ("S doc_id", "S doc_id", ("student", "doc_id"), ()),
        ("doc_id tab_id S", "tab_id S doc_id", ("student", "doc_id", "tab_id"), ()),
        ("S doc_id", "S", ("student",), ()),
        ("S", "S doc_id", ("student",), ("doc_id",)),
        ("S tab_id", "S doc_id", ("student",), ("doc_id",)),
        ("doc_id", "doc_id", ("doc_id",), ()),
        ("a doc_id", "a doc_id", ("doc_id", "a"), ()),
        ("C T", "S", ("class", "teacher"), ()),
        ("R S", "R S", ("student", "resource"), ()),
        ("", "", (), ()),
    ],
)
def test_two_scopes_that_disagree_mean_what_they_mean_there(
    declared: str, listed: str, scope: tuple[str, ...], required: tuple[str, ...]
) -> None:
    """A key has the decorator's key fields and the event fields of both; an event must have those of the list."""
    assert scope_of(fields(declared), fields(listed)) == (scope, required)


def fields(text: str) -> set[KeyField | EventField]:
    """Return the fields of such a text as "S doc_id"."""
    short = {"S": KeyField.STUDENT, "C": KeyField.CLASS, "R": KeyField.RESOURCE, "T": KeyField.TEACHER}
    return {short[word] if word in short else EventField(word) for word in text.split()}


def test_a_scope_that_no_entry_could_be_found_by_is_refused(folder: Path) -> None:
    """Entries are routed by the fields that the ingest finds: a reducer without one would never see an event."""
    assert set(ROUTED) == {"student", *KEY_FIELDS}
    reducer = COUNT.replace("student_event_reducer(", "kvs_pipeline(scope=Scope([EventField('tab_id')]), ")
    listed = "REDUCERS = [{'context': 'c', 'function': count, 'scope': Scope([EventField('tab_id')])}]"
    with pytest.raises(ModuleError, match=r"REDUCERS\[0\]: its scope is tab_id: .* needs one of these"):
        load(written(folder, "tabs", module=HEADER + reducer + listed))


def test_a_scope_that_nobody_could_ask_for_is_refused(folder: Path) -> None:
    """A field that is named like a parameter of the questions about states would make its keys unreadable."""
    scope = "Scope([KeyField.STUDENT, EventField('limit')])"
    reducer = COUNT.replace("student_event_reducer(", f"kvs_pipeline(scope={scope}, ")
    listed = f"REDUCERS = [{{'context': 'c', 'function': count, 'scope': {scope}}}]"
    with pytest.raises(ModuleError, match=r"REDUCERS\[0\]: .* scope field 'limit' is a parameter"):
        load(written(folder, "limits", module=HEADER + reducer + listed))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "has no list REDUCERS"),
        ("REDUCERS = 7", "has no list REDUCERS"),
        ("REDUCERS = [7]", r"REDUCERS\[0\]: expected a dict"),
        (COUNT + "REDUCERS = [{'function': count}]", r"REDUCERS\[0\]: 'context' must be the name of a source"),
        ("REDUCERS = [{'context': 'c', 'function': print}]", "is no reducer that was declared here"),
        (COUNT.replace("async ", "") + LISTED, "must be an `async def`"),
        (COUNT.replace("0", "{1, print}") + LISTED, r"REDUCERS\[0\]: "),
        (COUNT.replace("0", "float('nan')") + LISTED, "nan is not a JSON number"),
        (COUNT + LISTED.replace("}]", ", 'version': 'x'}]"), "version must be a whole number"),
        (COUNT + LISTED.replace("}]", ", 'scope': ['student']}]"), "KeyFields and EventFields, not 'student'"),
        (COUNT + LISTED.replace("}]", ", 'scope': [EventField('student')]}]"), "use KeyField.STUDENT"),
        (COUNT + "first = count" + COUNT + TWICE, "two functions are named wrong.module.count"),
        ("EventField('a b')", "use letters, digits"),
        ("import a_library_that_is_not_here", "No module named 'a_library_that_is_not_here'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_used_says_why(folder: Path, source: str, complaint: str) -> None:
    """Whatever is wrong with a module is one ModuleError that names the place; nothing of it stays imported."""
    ref = written(folder, "wrong", module=HEADER + source)
    with pytest.raises(ModuleError, match=complaint):
        load(ref)
    assert not [
        name for name in sys.modules if name.partition(".")[0] in {"wrong", "learning_observer", "pmss"}
    ]
    (folder / "wrong" / "module.py").write_text(HEADER + COUNT + LISTED + "# mended\n", "utf-8")
    assert [each.name for each in load(ref).reducers] == ["wrong.module.count"]


def test_the_real_server_is_neither_needed_nor_used(folder: Path) -> None:
    """Where the real package is installed, or even imported, a module sees the stand-in, and the real one is
    there again afterwards.
    """
    real = sys.modules["learning_observer"] = ModuleType("learning_observer")
    try:
        module = load(written(folder, "essays", module=HEADER + COUNT + LISTED))
        assert sys.modules["learning_observer"] is real
    finally:
        del sys.modules["learning_observer"]
    assert internal(
        named(module, "count"), fold(named(module, "count"), frames({"event": "e"}, source="org.example"))
    )


def test_settings_are_the_defaults_that_the_module_registers(folder: Path) -> None:
    """No configuration of a machine reaches a state: a setting is what the module says, else None."""
    source = (
        HEADER
        + """
import pmss
import learning_observer.settings as settings
pmss.register_field(name="pause", type=pmss.pmsstypes.TYPES.integer, default=7)

@student_event_reducer()
async def count(event, state):
    return [settings.module_setting("essays", each) for each in ("pause", "other")], False
"""
    )
    count = named(load(written(folder, "configured", module=source + LISTED)), "count")
    assert internal(count, fold(count, frames({"event": "e"}, source="org.example"))) == {
        ("testcase-ann",): [7, None]
    }


def test_names_that_the_decorator_overrides_count(folder: Path) -> None:
    """A reducer that was written in a notebook is called what its author calls it."""
    source = HEADER + COUNT.replace(
        "null_state", 'module_override="essays", qualname_override="n", null_state'
    )
    module = load(written(folder, "notebook", module=source + LISTED))
    assert [each.name for each in module.reducers] == ["essays.n"]


CHANGES = {
    "the function": lambda source: source.replace("+ 1", "+ 2"),
    "the source of its events": lambda source: source.replace("org.example", "org.other"),
    "the first state": lambda source: source.replace('"n": 0', '"n": 1'),
    "what an event must have": lambda source: source.replace("}]", ", 'scope': Scope([EventField('a')])}]"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_code_digest_tells_what_decides_the_states(folder: Path, change: str) -> None:
    """States are rebuilt when the function's file changes, and when its list entry in another file does."""
    before, after = (HEADER + COUNT, LISTED), tuple(map(CHANGES[change], (HEADER + COUNT, LISTED)))
    digests = []
    for name, (code, listed) in {"one": before, "two": before, "three": after}.items():
        module = f"{HEADER}\nfrom {name}.reducers import count\n{listed}"
        (reducer,) = load(written(folder, name, module=module, reducers=code)).reducers
        digests.append(reducer.code_digest)
    assert digests[0] == digests[1] != digests[2]


def test_the_code_digest_tells_of_a_helper_of_the_same_package(folder: Path) -> None:
    """A change in a file that the reducer's file imports makes its states anew, as docs/lo-modules.md says."""
    digests = []
    for name, step in {"four": 1, "five": 1, "six": 2}.items():
        code = HEADER + "from .steps import STEP\n" + COUNT.replace("+ 1", "+ STEP")
        module = f"{HEADER}\nfrom {name}.reducers import count\n{LISTED}"
        ref = written(folder, name, module=module, reducers=code, steps=f"STEP = {step}\n")
        (reducer,) = load(ref).reducers
        digests.append(reducer.code_digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_migrator_that_fails_is_left_out(folder: Path) -> None:
    """A function that changes events and raises, or returns nothing of use, leaves that event as it was; one that
    asks for the time is told that of the event.
    """
    source = (
        HEADER
        + COUNT.replace('{"n": state["n"] + 1}', 'event["client"]')
        + """
import time
from learning_observer.adapters.adapter import add_common_migrator as add
add(lambda event: {**event, "first": time.time()}, __file__)
add(lambda event: event["missing"], __file__)
add(lambda event: None, __file__)
add(lambda event: open("/dev/null"), __file__)
add(lambda event: {**event, "last": print}, __file__)
"""
    )
    count = named(load(written(folder, "migrating", module=source + LISTED)), "count")
    ((state,),) = [list(internal(count, fold(count, frames({"event": "e"}, source="org.example"))).values())]
    assert state["first"] == 1_700_000_000.0
    assert "last" not in state


def test_files_and_chance_are_out_of_reach(folder: Path) -> None:
    """The guard of all reducers holds for these, too, and names the place in the author's code."""
    source = (
        HEADER
        + """
import random

@student_event_reducer()
async def count(event, state):
    return random.random(), False
"""
    )
    count = named(load(written(folder, "random_essays", module=source + LISTED)), "count")
    (slot,) = fold(count, frames({"event": "e"}, source="org.example")).values()
    assert slot.error is not None
    assert slot.error.startswith("PurityError: reducer 'random_essays.module.count' reaches for chance")
    assert "random_essays/module.py:" in slot.error


def test_an_entry_point_is_found_without_importing_it() -> None:
    """What is installed is known by its name before any of its code runs."""
    refs = [ref for ref in available().values() if ref.kind == "lo"]
    assert all(isinstance(ref, ModuleRef) for ref in refs)
    assert "learning_observer" not in sys.modules


def test_states_do_not_depend_on_the_process() -> None:
    """Under other hash seeds and in another time zone, states and digests are the same bytes."""
    program = """
from reducers import fold, pair_of, state_digest
from tests.reducers.lo_world import *
events = frames(typed("abc"), {"event": "keystroke"}, typed("d", 2, tab_id="t.0"))
pairs = [pair_of(r, k, s) for r in lookalike().reducers for k, s in fold(r, events).items()]
print(state_digest(pairs).hex(), sorted(r.code_digest for r in lookalike().reducers))
"""
    seen = set()
    for seed, zone in (("1", "UTC"), ("2", "America/New_York"), ("3", "Asia/Kolkata")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def test_a_document_that_only_a_migrator_knows_is_not_found_without_a_student() -> None:
    """Where the student is not in the key, the ingest's own field is what finds an entry's shard."""
    readers, text = (named(lookalike(), name) for name in ("readers", "time_on_task"))
    page = {"event": "keystroke", "object": {"url": "https://docs.google.com/document/d/essay/edit"}}
    events = frames(page)
    assert fold(readers, events) == {}
    assert set(fold(text, events)) == {("testcase-ann", "essay")}
    assert set(fold(readers, frames(typed("a")))) == {("essay",)}


def test_an_event_that_is_no_object_is_passed_over() -> None:
    """Anything may stand in the log; what could not be a frame is none of these reducers' business."""
    odd = [
        Event(index=0, type=kind, source=WRITING, keys={"student": "a"}, data=data, received_ms=0, time_ms=0)
        for kind, data in (("", {}), ("e", [1]), ("e", None), ("lock_fields", {}))
    ]
    assert fold(named(lookalike(), "history"), odd) == {}
