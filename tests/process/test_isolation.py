"""A module can harm only itself: a real server beside a module that does everything that a module should not.

Whatever it does, the others answer all the while what a replay without it gives; it is known that it was it, and
where; it ends in a cell, is parked, and is shown to whoever looks.  A person says `skip`, and it catches up, with the
states that a replay gives.  Nothing here depends on how long anything takes: waits end when what they wait for is
there, or fail.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import Shelf, open_states
from archive import DataFolder, LogSource, PublishedSize
from reducers import Module, available, load, shipped
from replay import STATUS_FILE, Digests, ModuleStatus, StateReader, live_digests, read_status, replay_digests
from tests.process.served import Served, run, run_json, serving
from tests.vile import vile

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

VILE = Path(vile.__file__).parent
WAIT_S = 60.0
CONFIGURATION = "memory_mb = 200\nseconds_per_event = 2.0\nshards = 1\n"
PARKED = {
    "crash": "died",
    "leave": "died",
    "shut": "died",
    "spin": "stalled",
    "hoard": "memory",
    "deep": "stopped",
    "exit": "stopped",
    "odd": "stopped",
}
"""Deeds after which a module cannot go on, and what is said of it."""
USUAL = {"crash", "spin", "hoard"}
"""Those that are tried in every run."""


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(VILE))
    monkeypatch.syspath_prepend(str(VILE))


@contextmanager
def school(tmp_path: Path, *lines: str) -> Iterator[Class]:
    """Run a server with the vile module, and a class that keeps sending and reading."""
    file = tmp_path / "config.toml"
    file.write_text(CONFIGURATION + "\n".join(lines))
    with serving(tmp_path / "data", "--config", str(file)) as server:
        made = Class(server)
        made.work()
        yield made


class Class:
    """Students whose events are counted while somebody else misbehaves."""

    def __init__(self, server: Served) -> None:
        self.server, self.sent = server, 0
        self.folder = DataFolder(server.data)

    def send(self, kind: str, student: str, **data: Any) -> dict[str, int]:
        """Send an event and return its receipt."""
        keys = {"student": student}
        body = json.dumps({"type": kind, "source": "test", "keys": keys, "data": {"n": 1, **data}})
        (receipt,) = self.server.post(body.encode()).json()["receipts"]
        return dict(receipt)

    def deed(self, name: str, **data: Any) -> int:
        """Have a deed done, and return its index."""
        return self.send(f"vile.{name}", "mallory", **data)["index"]

    def work(self) -> None:
        """Send an event and read it back from another module: however slowly that is served, it must be right."""
        receipt = self.send("page", f"student-{self.sent % 3}")
        self.sent += 1
        answer = self.server.get(
            "/v1/states/event_count", student=f"student-{(self.sent - 1) % 3}", min_size=receipt["size"]
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"]["events"] == (self.sent + 2) // 3

    def work_until(self, reached: Callable[[ModuleStatus], bool], name: str = "vile") -> ModuleStatus:
        """Work until the supervisor says this of a module."""
        deadline, status = time.monotonic() + WAIT_S, None
        while time.monotonic() < deadline:
            self.work()
            status = read_status(self.folder.run / STATUS_FILE).get(name)
            if status is not None and reached(status):
                return status
            time.sleep(0.1)
        raise AssertionError(f"module {name} stays as it is: {status}")

    def caught_up(self) -> None:
        """Work until the vile module has seen everything."""
        self.work_until(lambda one: one.state == "running")
        deadline, answer = time.monotonic() + WAIT_S, None
        while time.monotonic() < deadline:
            answer = self.server.get("/readyz").json()
            if all(shard["lag"] == 0 for one in answer["modules"] for shard in one["shards"]):
                return
            time.sleep(0.1)
        raise AssertionError(f"the modules never saw everything: {answer}")


def states(folder: DataFolder, names: list[str]) -> tuple[int, Digests]:
    """Return position and digests of the live states of some reducers; the server has ended."""
    shelf = Shelf(folder.state, 1, open_states)
    readers = list[StateReader]()
    for catalogue in shelf.modules():
        if {info.name for info in catalogue.reducers} & set(names):
            reader = shelf.reader(catalogue, 0)
            assert reader is not None
            readers.append(reader)
    positions, digests = live_digests(readers, names)
    assert len(set(positions)) == 1, "these modules stand at different positions"
    return positions[0], digests


def check_states(folder: DataFolder, modules: list[Module]) -> None:
    """The live states of these modules are those that a replay of the log, without any other module, gives."""
    reducers = [one for module in modules for one in module.reducers]
    size, live = states(folder, [one.name for one in reducers])
    source = LogSource(folder.open_log(), PublishedSize(folder.published).get)
    assert live, "there are no states to compare"
    assert live == replay_digests(source, reducers, folder.open_vault(os.urandom), size=size)


def built_in() -> list[Module]:
    """Return the modules that come with the server."""
    names = sorted({one.module for one in shipped()})
    return [load(available()[name]) for name in names]


@pytest.mark.parametrize(
    "deed", [pytest.param(one, marks=[] if one in USUAL else [pytest.mark.long]) for one in PARKED]
)
def test_harm_ends_in_a_cell_then_parked_and_a_skip_mends_it(tmp_path: Path, deed: str) -> None:
    """Others never notice more than a pause; the culprit is named everywhere, and goes on after a skip."""
    with school(tmp_path) as they:
        index = they.deed(deed)
        parked = they.work_until(lambda one: one.state == "parked")
        fault = parked.fault
        assert fault is not None
        assert (parked.level, fault.kind, fault.index) == ("cell", PARKED[deed], index)
        check_shown(they, index)
        run("skip", fault.reducer or "evil", str(index), "--data", str(they.server.data))
        they.caught_up()
        assert run_json("doctor", "--data", str(they.server.data), code=1)["good"] is False, "stubborn stands"
    check_states(they.folder, built_in())
    check_states(they.folder, [load(available()["vile"])])


def check_shown(they: Class, index: int) -> None:
    """Whoever looks finds the module, what it did, and what to do about it."""
    ready = they.server.get("/readyz")
    (shown,) = [one for one in ready.json()["modules"] if one["module"] == "vile"]
    assert ready.status_code == 200, "one module that is parked makes the whole server unready"
    assert (shown["state"], shown["level"], shown["deaths"]) == ("parked", "cell", 3)
    on = f"--data {they.server.data}"
    remedy = f"treering retry vile {on} (once it is mended), or treering skip evil {index} {on}"
    assert shown["remedy"] == remedy
    metrics = they.server.get("/metrics").text
    assert 'treering_module_state{module="vile",state="parked"} 1.0' in metrics
    assert 'treering_module_deaths_total{module="vile"} 3.0' in metrics
    assert remedy in they.server.get("/").text
    notes = run_json("doctor", "--data", str(they.server.data), code=1)["notes"]
    assert [one["remedy"] for one in notes if one["about"] == "module vile"] == [remedy]


def test_what_is_held_off_changes_nothing(tmp_path: Path) -> None:
    """No parent is killed, no lie is believed, no neighbour's event is changed: the module goes on where it is."""
    with school(tmp_path) as they:
        for deed in ("kill", "print", "mutate"):
            they.deed(deed)
            they.caught_up()
            assert they.server.process.poll() is None, f"{deed}: the supervisor was killed"
            status = read_status(they.folder.run / STATUS_FILE)
            assert (status["vile"].level, status["vile"].state, status["vile"].deaths) == (
                "shared",
                "running",
                0,
            ), deed
            assert status["activity"].state == "running", deed
    check_states(they.folder, built_in())


def test_a_module_that_always_raises_stands_still_key_by_key(tmp_path: Path) -> None:
    """An exception is part of the fold: nothing is moved, states are quarantined, and counted."""
    with school(tmp_path) as they:
        they.caught_up()
        keys = min(they.sent, 3)
        assert f'treering_quarantined_keys{{reducer="stubborn"}} {keys}.0' in they.server.get("/metrics").text
        notes = run_json("doctor", "--data", str(they.server.data), code=1)["notes"]
        assert [one["about"] for one in notes if not one["good"]] == ["reducer stubborn"]


def test_a_cell_cannot_read_the_keys(tmp_path: Path) -> None:
    """Where a shared module could read any file of the server, one in a cell finds it closed."""
    with school(tmp_path, '[module.vile]\nisolation = "cell"') as they:
        they.work_until(lambda one: one.state == "running")
        key = they.folder.vault_key
        receipt = they.send("vile.steal", "mallory", path=str(key))
        they.server.wait_ready()
        answer = they.server.get("/v1/states/evil", student="mallory", min_size=receipt["size"])
        assert answer.json().get("state") == {"events": 1, "found": ""}, answer.text
        status = read_status(they.folder.run / STATUS_FILE)["vile"]
        assert (status.level, status.deaths) == ("cell", 0)
        assert "files" in status.confined
    assert key.is_file(), "there was something to steal"


def test_a_module_that_cannot_be_imported_costs_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is failed, with one message; mended and retried, it runs, without a restart."""
    place = tmp_path / "modules"
    (place / "broken-1.dist-info").mkdir(parents=True)
    (place / "broken-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken\nVersion: 1\n"
    )
    (place / "broken-1.dist-info" / "entry_points.txt").write_text("[treering.modules]\nbroken = broken\n")
    (place / "broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setenv("PYTHONPATH", str(place))
    with school(tmp_path) as they:
        status = they.work_until(lambda one: one.state == "failed", "broken")
        assert "nowhere_to_be_found" in status.reason()
        assert they.server.get("/readyz").json()["ready"] is True
        (place / "broken.py").write_text(
            "from reducers import Event, reducer\n\n\n"
            "@reducer()\ndef mended(state: int, event: Event) -> int:\n    return state + 1\n\n\n"
            "REDUCERS = [mended]\n"
        )
        run("retry", "broken", "--data", str(they.server.data))
        deadline = time.monotonic() + WAIT_S
        while they.server.get("/v1/states/mended", student="student-0").status_code != httpx2.codes.OK:
            they.work()
            assert time.monotonic() < deadline, "it was mended, and never ran"
