"""The guard: each thing out of reach raises while a reducer runs, by name and line, and nothing else does."""

# ruff: noqa: PLW0108, PTH116, PTH123, PTH208, DTZ011, SIM115 - how a reducer may not do it

from __future__ import annotations

import datetime as dt
import importlib
import logging
import os
import pickle
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
import warnings
import weakref
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from archive import Event
from reducers import ContractError, DefinitionError, PurityError, Slot, check, fold_one, reducer
from reducers.guard import active, install, running

EVENT = Event(
    index=3, type="t", source="s", keys={"student": "ann"}, data={}, received_ms=1_000, time_ms=1_000
)
TABLE: UserDict[str, Callable[[], Any]] = UserDict()
"""Of a library's class, so that nobody looks into it before a reducer runs."""


@reducer()
def indirect(state: int, event: Event) -> int:
    """Do what the table says: by a way that reading the source cannot follow."""
    TABLE["do"]()
    return state + event.index


def run(do: Callable[[], Any]) -> Slot[int]:
    """Fold one event over a reducer that does this."""
    TABLE["do"] = do
    return fold_one(indirect, None, EVENT)


OUT_OF_REACH: dict[str, tuple[Callable[[], Any], str]] = {
    "time": (lambda: getattr(time, "ti" + "me")(), "the clock (time.time)"),
    "monotonic": (lambda: time.monotonic_ns(), "the clock (time.monotonic_ns)"),
    "sleep": (lambda: time.sleep(0), "the clock (time.sleep)"),
    "gmtime": (lambda: time.gmtime(), "the clock (time.gmtime)"),
    "strftime": (lambda: time.strftime("%Y"), "the clock (time.strftime)"),
    "localtime": (lambda: time.localtime(0), "the machine it runs on (time.localtime)"),
    "today": (lambda: dt.date.today(), "the clock (time.time)"),
    "random": (lambda: random.random(), "chance (random.random)"),
    "choice": (lambda: random.choice([1, 2]), "chance (random.choice)"),
    "unseeded": (lambda: random.Random(), "chance (random.Random() without a seed)"),
    "system random": (lambda: random.SystemRandom().random(), "chance (random.urandom)"),
    "secrets": (lambda: secrets.token_hex(), "chance (random.urandom)"),
    "uuid": (lambda: uuid.uuid4(), "chance (uuid.uuid4)"),
    "urandom": (lambda: os.urandom(1), "chance (os.urandom)"),
    "numpy": (lambda: np.random.rand(), "chance (numpy.random.rand)"),
    "numpy, unseeded": (lambda: np.random.default_rng(), "chance (random.urandom)"),
    "environment": (lambda: os.environ.get("HOME"), "the machine it runs on (os.environ)"),
    "getenv": (lambda: os.getenv("HOME"), "the machine it runs on (os.environ)"),
    "pid": (lambda: os.getpid(), "the machine it runs on (os.getpid)"),
    "open": (lambda: open("/dev/null"), "files (open '/dev/null')"),
    "path": (lambda: Path("/dev/null").read_text(), "files (open '/dev/null')"),
    "listdir": (lambda: os.listdir("/"), "files (os.listdir '/')"),
    "socket": (lambda: socket.socket(), "the network (socket.__new__)"),
    "name": (lambda: socket.gethostname(), "the network (socket.gethostname)"),
    "url": (lambda: urllib.request.urlopen("http://127.0.0.1:9"), "the machine it runs on (os.environ)"),
    "process": (lambda: subprocess.run(["true"], check=False), "other processes (subprocess.Popen 'true')"),
    "system": (lambda: os.system("true"), "files (os.system"),
    "thread": (lambda: threading.Thread(target=int).start(), "other processes (threading.start_new_thread)"),
}


@pytest.fixture(autouse=True)
def _whole_guard() -> None:
    """Let the guard know of numpy, as loading a module does."""
    install(numpy=True)


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_what_is_out_of_reach_raises_and_quarantines(name: str) -> None:
    """The error names the reducer, the thing, the file and line, and what to do; two folds agree on it."""
    do, thing = OUT_OF_REACH[name]
    slot = run(do)
    assert slot == run(do)
    assert slot.error_index == 3
    assert slot.error is not None
    assert slot.error.startswith(f"PurityError: reducer 'indirect' reaches for {thing}")
    with active(indirect), pytest.raises(PurityError, match=r" at reducers/test_guard\.py:\d+; "):
        do()


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_outside_of_a_reducer_all_of_it_works(name: str) -> None:
    """The guard is there for reducers; whoever drives them has a clock, files and sockets."""
    run(OUT_OF_REACH[name][0])
    do, _ = OUT_OF_REACH[name]
    try:
        kept = do()
    except OSError:  # nobody listens there
        return
    if hasattr(kept, "close"):
        kept.close()


def _import_afresh() -> Any:
    for name in ("colorsys", "this_module_is_nowhere"):
        sys.modules.pop(name, None)
    return importlib.import_module("colorsys").rgb_to_hsv(0.1, 0.2, 0.3)


def _warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_: None
        warnings.warn("once in a process", stacklevel=1)


class _Finalised:
    """Something whose last reference goes away while a reducer happens to run."""

    done = 0

    def __del__(self) -> None:
        """Look at the clock, as temporary files and connections do."""
        time.time()
        type(self).done += 1


ALLOWED: dict[str, Callable[[], Any]] = {
    "an import": _import_afresh,
    "a warning": _warn,
    "a log line": lambda: logging.getLogger("reducers.test").warning("a line"),
    "a time zone": lambda: ZoneInfo.no_cache("Asia/Kathmandu"),
    "a seeded generator": lambda: random.Random(7).choice([1, 2, 3]),
    "a seeded generator of numpy": lambda: np.random.default_rng(7).random(),
    "a time that is given": lambda: (time.gmtime(0), time.strftime("%Y", time.gmtime(0))),
    "a date that is given": lambda: dt.datetime.fromtimestamp(0, dt.UTC).isoformat(),
    "a date that is read": lambda: dt.datetime.strptime("2026-01-01 +0000", "%Y-%m-%d %z"),
    "a uuid that is given": lambda: uuid.UUID(int=7),
    "a name that is derived": lambda: uuid.uuid5(uuid.NAMESPACE_URL, "x"),
    "a path that is only text": lambda: Path("/a/b").name,
    "a finaliser": lambda: _Finalised(),
    "a weak reference": lambda: (weakref.finalize(_Finalised(), time.time), None),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_happens_by_the_way_is_let_through(name: str) -> None:
    """It happens in one process and not in the next, so it must not quarantine in either."""
    for _ in range(2):
        assert run(ALLOWED[name]) == Slot(3, 3)


def test_a_finaliser_runs_to_its_end() -> None:
    """An object of somebody else, that dies while a reducer runs, is still cleaned up."""
    before = _Finalised.done
    run(lambda: _Finalised())
    assert _Finalised.done == before + 1


def test_a_signal_of_the_server_may_come_while_a_reducer_runs() -> None:
    """Its handler looks at the clock and at files, as a watchdog does, and the reducer goes on."""
    world: dict[str, Any] = {"__name__": "tools.watchdog", "time": time, "os": os, "seen": []}
    exec("def handler(*_): seen.append((time.monotonic(), os.listdir('/')))", world)
    before = signal.signal(signal.SIGUSR1, world["handler"])
    try:
        assert run(lambda: signal.raise_signal(signal.SIGUSR1)) == Slot(3, 3)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(world["seen"]) == 1


def test_other_threads_have_their_clock_meanwhile() -> None:
    """The worker's own threads go on while a reducer runs."""
    asked, answers = threading.Event(), list[float]()
    go = threading.Event()

    def ask() -> None:
        go.wait(10)
        answers.append(time.time())
        answers.append(len(os.listdir("/")))
        asked.set()

    thread = threading.Thread(target=ask)
    thread.start()

    def wait() -> None:
        go.set()
        asked.wait(10)

    slot = run(wait)
    thread.join(10)
    assert slot == Slot(3, 3)
    assert len(answers) == 2


def test_the_guard_is_down_after_a_reducer_however_it_ends() -> None:
    """Neither an exception nor a cancellation leaves it up."""

    def cancel() -> None:
        raise KeyboardInterrupt

    run(lambda: 1 // 0)
    with pytest.raises(KeyboardInterrupt):
        run(cancel)
    assert running.reducer is None
    assert time.time() > 0


def test_a_view_is_guarded_as_its_reducer_is() -> None:
    """What readers are shown is a function of the state, and so the same for every reader."""

    @reducer(view=lambda _: TABLE["do"]())
    def viewed(state: int, _event: Event) -> int:
        return state

    TABLE["do"] = lambda: time.time()
    with pytest.raises(PurityError, match=r"reducer 'viewed' reaches for the clock \(time\.time\)"):
        viewed.view(0)
    assert running.reducer is None


def _start() -> int:
    return TABLE["start"]()  # type: ignore[no-any-return]


def test_a_first_state_is_guarded_as_its_reducer_is() -> None:
    """Where modules are loaded, it shows at the definition; a later change of heart shows in the contract."""
    TABLE["start"] = time.time_ns

    def begun(state: int, _event: Event) -> int:
        return state

    with pytest.raises(DefinitionError, match=r"reducer 'begun' reaches for the clock \(time\.time_ns\)"):
        reducer(default=_start)(begun)
    TABLE["start"] = int
    made = reducer(default=_start)(begun)
    TABLE["start"] = time.time_ns
    with pytest.raises(ContractError, match=r"law of purity: .*the clock \(time\.time_ns\)"):
        check(made, [EVENT], processes=False)


def test_a_name_taken_before_the_guard_stood_is_found_by_the_contract() -> None:
    """What only C code sees, such as datetime.now of a library, is seen by the profiler of the test."""
    for do, thing in (
        (lambda: dt.datetime.now(dt.UTC), r"the clock \(datetime\.datetime\.now\)"),
        (lambda: os.stat("/"), r"files \(os\.stat\)"),
    ):
        TABLE["do"] = do
        with pytest.raises(ContractError, match=f"breaks the law of purity: .*{thing}"):
            check(indirect, [EVENT], processes=False)


def test_a_reducer_that_swallows_the_error_is_still_found_by_the_contract() -> None:
    """It gets no answer, so its state is the same everywhere; but its author should know."""

    def swallow() -> None:
        try:
            TABLE["time"]()
        except Exception:  # noqa: BLE001 - as such a reducer would
            return

    TABLE["time"] = time.time
    assert run(swallow) == Slot(3, 3)
    with pytest.raises(ContractError, match=r"law of purity: .*the clock \(time\.time\)"):
        check(indirect, [EVENT], processes=False)


def test_the_names_that_modules_take_are_guarded_too() -> None:
    """`from time import time` gives the guarded function once the guard stands."""
    from time import time as taken

    slot = run(lambda: taken())
    assert slot.error is not None
    assert "time.time" in slot.error


def test_the_reducers_frame_is_named_and_not_the_librarys() -> None:
    """The line is that of the author's file, though the call is deep in somebody else's."""
    slot = run(lambda: uuid.uuid1())
    assert slot.error is not None
    assert " at reducers/test_guard.py:" in slot.error


def test_who_folds_nothing_is_left_alone() -> None:
    """The archiver asks which reducers come with the package; its clock is the one that Python came with."""
    code = (
        "import time; from reducers import fold, shipped; before = time.time; registry = shipped();"
        "assert time.time is before; fold(registry.get('event_count'), []); assert time.time is before;"
        "from reducers import Event;"
        "event = Event(index=0, type='t', source='s', keys={'student': 'a'}, data=0, received_ms=0, time_ms=0);"
        "fold(registry.get('event_count'), [event]); assert time.time is not before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_functions_keep_their_names() -> None:
    """What is wrapped looks as before, so that it can be pickled and documented."""
    assert (time.time.__name__, time.time.__module__) == ("time", "time")
    assert pickle.loads(pickle.dumps(time.time)) is time.time
