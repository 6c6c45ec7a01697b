"""A cell as a process: what it is kept from, what it survives, and what its worker learns when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archive import Event
from reducers import BUILTIN, ModuleError, available
from replay import CellDied, Done, Piece
from replay.cell_wire import Task, to_wire
from tests.vile import vile
from tools.cell_link import CellLink
from tools.confine import readable_folders

pytestmark = pytest.mark.process

VILE = Path(vile.__file__).parent
FULL = ["files", "memory", "network", "processes", "programs"]


@contextmanager
def cell(data: Path, name: str = "vile", seconds: float = 1.0) -> Iterator[CellLink]:
    """Run a cell of a module beside a data folder."""
    link = CellLink(name, memory_mb=100, seconds=seconds, readable=readable_folders(data, name))
    try:
        yield link
    finally:
        link.close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data folder with a key in it; the vile module is installed."""
    monkeypatch.setenv("PYTHONPATH", str(VILE))
    monkeypatch.setenv("TREERING_VAULT_KEY", "00" * 32)
    monkeypatch.syspath_prepend(str(VILE))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "vault.key").write_text("secret")
    return tmp_path


def piece(*types: str, **fields: Any) -> Piece:
    """Return what asks for these events of one student."""
    events = [
        Event(
            index=index,
            type=kind,
            source="t",
            keys={"student": "ann"},
            data=fields,
            received_ms=0,
            time_ms=0,
        )
        for index, kind in enumerate(types)
    ]
    tasks = [Task(place, 0, ("ann",)) for place in range(len(events))]
    return Piece(0, [to_wire(one) for one in events], tasks, [], [])


def state_of(link: CellLink, *types: str, **fields: Any) -> Any:
    """Return the encoding of the state after these events."""
    done = link.ask(piece(*types, **fields))
    assert isinstance(done, Done)
    assert done.halt is None
    return done.changed[-1].slot.encoding


def test_a_cell_says_what_it_is_and_what_it_is_kept_from(data: Path) -> None:
    """Its worker never imports the module, and knows its reducers all the same."""
    with cell(data) as link:
        hello = link.start()
        assert [one.name for one in hello.reducers] == ["evil", "stubborn"]
        assert (hello.version, hello.confined) == ("1.0", FULL)
        assert state_of(link, "page", "page") == b'{"events":2,"found":null}'


@pytest.mark.parametrize("path", ["{data}/keys/vault.key", "/proc/{pid}/environ", "/etc/passwd"])
def test_nothing_that_is_secret_can_be_read(data: Path, path: str) -> None:
    """No key file, no environment of its worker, nothing that is not installed code."""
    full = path.format(data=data, pid=os.getpid())
    assert Path(full).read_bytes(), "there is something to read"
    with cell(data) as link:
        link.start()
        assert state_of(link, "vile.steal", path=full) == b'{"events":1,"found":""}'
        installed = str(VILE / "vile.py")
        assert state_of(link, "vile.steal", path=installed) != b'{"events":2,"found":""}', "code can be read"


def test_its_own_environment_holds_no_secret(data: Path) -> None:
    """Not even of itself: what it was started with is five names."""
    program = "import os; print(sorted(os.environ))"
    from tools.cell_link import _environment

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "TREERING" not in done.stdout
    assert str(data) not in done.stdout


@pytest.mark.parametrize(
    ("deed", "kind", "reason"),
    [
        ("crash", "died", "Died: SIGSEGV"),
        ("leave", "died", "Died: exit code 3"),
        ("spin", "stalled", "Stalled: more than 1 s for one event"),
    ],
)
def test_a_worker_learns_how_its_cell_ended_and_at_which_task(
    data: Path, deed: str, kind: str, reason: str
) -> None:
    """Whatever the way, within bounds, and the process is gone."""
    with cell(data) as link:
        link.start()
        with pytest.raises(CellDied) as died:
            link.ask(piece("page", "page", f"vile.{deed}", "page"))
        assert (died.value.reason, died.value.task) == (reason, 2)
        assert (died.value.kind, died.value.ours) == (kind, True)
        assert link._process is not None
        assert link._process.returncode is not None


def test_a_cell_that_closes_its_pipe_is_dead(data: Path) -> None:
    """It may fold on for a moment, so its word says nothing; asked event by event, its worker knows all the same."""
    with cell(data) as link:
        link.start()
        assert link.ask(piece("page")).halt is None
        with pytest.raises(CellDied, match="Died: exit code 1"):
            _ask_often(link, "vile.shut")


def _ask_often(link: CellLink, deed: str) -> None:
    """Ask until something happens: what a cell answers before it notices is an answer."""
    for _ in range(50):
        link.ask(piece(deed))


@pytest.mark.parametrize(("deed", "kind"), [("hoard", "MemoryError"), ("exit", "SystemExit")])
def test_what_can_be_caught_is_told(data: Path, deed: str, kind: str) -> None:
    """The process lives on, and says where it halted."""
    with cell(data) as link:
        link.start()
        done = link.ask(piece("page", f"vile.{deed}"))
        assert done.halt is not None
        assert done.halt.task == 1
        assert done.halt.reason.startswith(kind)


def test_many_slow_events_are_not_one_that_hangs(data: Path) -> None:
    """Time is counted for each event: a piece may take longer than one of them."""
    with cell(data, seconds=2.0) as link:
        link.start()
        assert link.ask(piece(*["vile.doze"] * 6)).halt is None


def test_a_parent_cannot_be_killed(data: Path) -> None:
    """The cell's parent is this test."""
    with cell(data) as link:
        link.start()
        assert state_of(link, "vile.kill") == b'{"events":1,"found":null}'


def test_a_cell_leaves_no_process_behind(data: Path) -> None:
    """A child with a session of its own would outlive the cell, and take memory that nobody counts: there is none."""
    with cell(data) as link:
        link.start()
        assert state_of(link, "vile.fork") == b'{"events":1,"found":true}'


def test_a_cell_cannot_change_the_word_that_its_worker_reads(data: Path) -> None:
    """Larger, it is memory that counts for nobody; shorter, reading it kills the worker."""
    with cell(data) as link:
        link.start()
        assert state_of(link, "vile.stretch") == b'{"events":1,"found":0}'
        assert state_of(link, "page") == b'{"events":2,"found":null}', "its worker can still ask"


def test_a_module_that_is_not_there_is_one_message(data: Path) -> None:
    """And no death."""
    with cell(data, "nobody") as link, pytest.raises(ModuleError, match="is not installed"):
        link.start()


def test_what_leads_to_the_data_is_not_readable(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where data lies in a folder of installed code, the folder's other parts are named, and the data is not."""
    (data / "package.py").write_text("")
    (data / "run").mkdir()
    inner = data / "run" / "data"
    inner.mkdir()
    monkeypatch.setattr(sys, "path", [str(data)])
    named = {one for one in readable_folders(inner) if one.startswith(str(data))}
    assert named == {str(data / "package.py"), str(data / "keys")}


def test_every_module_that_comes_along_runs_in_a_cell(tmp_path: Path) -> None:
    """Also where this package is only linked to its sources, outside of the search path."""
    for name in BUILTIN:
        link = CellLink(
            name,
            memory_mb=100,
            seconds=1.0,
            readable=readable_folders(tmp_path, available()[name].value),
        )
        try:
            assert link.start().reducers
        finally:
            link.close()
