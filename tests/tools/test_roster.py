"""Who is hired: what a module names must be something that the log takes, and is nobody else's trouble."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from archive import (
    Activate,
    ActiveReducer,
    DataFolder,
    InvalidEvent,
    MemoryStore,
    Unavailable,
    Write,
    identity_of,
)
from reducers import ModuleError, Slot
from replay import STATE_TABLES, Crew, Holding, complain, is_complained_of, state_key
from tests.replay.stored import REDUCERS, save, tables, world
from tools import roster
from tools.reporting import Reporter

FINE = ActiveReducer("words", 1, ("student",), "0" * 64)


class Archiver:
    """Takes what is steered, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.steered = error, list[Any]()

    def __call__(self, _: Path) -> Archiver:
        """Be one's own client."""
        return self

    def __enter__(self) -> Archiver:
        """Be connected."""
        return self

    def __exit__(self, *_: object) -> None:
        """Be closed."""

    def steer(self, entry: Any) -> None:
        """Take an entry."""
        self.steered.append(entry)
        if self.error is not None:
            raise self.error


def made(path: Path, shard: int = 0) -> roster.Roster:
    """Return the roster of one module in a shard."""
    folder = DataFolder(path)
    folder.create()
    arguments = Namespace(name="worker-0", module=["essay"], shard=shard, shards=2, level="own")
    source: Any = None
    return roster.Roster(folder, source, arguments, Reporter(-1))


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize(
    "reducers",
    [
        [FINE] * 201,
        [ActiveReducer("x", 1, ("f" * 65,), "0" * 64)],
        [ActiveReducer(f"r{n}", 1, tuple(f"{m}" * 40 for m in range(10)), "0" * 64) for n in range(200)],
    ],
    ids=["too many reducers", "too long a field", "too long an entry"],
)
def test_an_activation_that_can_be_no_entry_is_its_modules_error(
    reducers: list[ActiveReducer], shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every shard, before the archiver is asked: the others of the worker are hired all the same."""
    monkeypatch.setattr(roster, "DirectClient", archiver := Archiver())
    with pytest.raises(ModuleError, match="the log refuses its reducers"):
        made(tmp_path, shard)._activate("essay", Activate("essay", tuple(reducers)))
    assert archiver.steered == []


def test_an_activation_that_the_archiver_refuses_is_its_modules_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason; one that it cannot take just now is nobody's error."""
    entry = Activate("essay", (FINE,))
    monkeypatch.setattr(roster, "DirectClient", Archiver(InvalidEvent("no")))
    with pytest.raises(ModuleError, match="refuses"):
        made(tmp_path)._activate("essay", entry)
    monkeypatch.setattr(roster, "DirectClient", Archiver(Unavailable("not now")))
    with pytest.raises(Unavailable):
        made(tmp_path)._activate("essay", entry)


def test_an_activation_is_appended_once_for_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first of them."""
    entry = Activate("essay", (FINE,))
    monkeypatch.setattr(roster, "DirectClient", archiver := Archiver())
    for shard in (0, 1):
        made(tmp_path, shard)._activate("essay", entry)
    assert archiver.steered == [entry]


# --- states that somebody complained of ------------------------------------------------------------


class Whole(Crew):
    """A crew of one module."""

    def __init__(self, holding: Holding) -> None:
        self.holding, self.stopped = holding, {}

    @property
    def holdings(self) -> list[Holding]:
        """Return the module."""
        return [self.holding]


@pytest.mark.parametrize("damaged", [True, False])
@pytest.mark.parametrize("complained", [True, False])
def test_a_module_whose_states_are_damaged_stops_if_somebody_complained(
    tmp_path: Path, *, damaged: bool, complained: bool
) -> None:
    """A complaint is looked into, and dropped if there is nothing in it; without one, nobody looks all the time."""
    store = MemoryStore(STATE_TABLES)
    save(store, world(), {("d", "ann"): Slot(1, 2)})
    if damaged:
        store.commit([Write("states", state_key("pages", ("d", "ann")), b"rot")])
    holding, one = Holding(REDUCERS, store, "essay"), made(tmp_path)
    place = one._places["essay"] = tmp_path / "essay"
    place.mkdir()
    if complained:
        complain(place)
    before = tables(store)
    one.look(Whole(holding))
    assert tables(store) == before  # a save may still come: it must find what it replaces
    if damaged and complained:
        assert holding.stopped is not None
        assert holding.stopped.told.startswith("Damaged: its stored states were damaged (")
        assert (holding.stopped.kind, is_complained_of(place)) == ("killed", True)
    else:
        assert holding.stopped is None
        assert not is_complained_of(place)


@pytest.mark.parametrize("other", [True, False])
def test_a_module_whose_states_were_removed_stops_and_begins_anew(tmp_path: Path, *, other: bool) -> None:
    """What it saved into a file without a name, or beside another one, nobody could read."""
    store = MemoryStore(STATE_TABLES)
    save(store, world(), {("d", "ann"): Slot(1, 2)})
    holding, one = Holding(REDUCERS, store, "essay"), made(tmp_path)
    place = one._places["essay"] = tmp_path / "essay"
    place.mkdir()
    (place / "data.mdb").write_bytes(b"states")
    one._files["essay"] = identity_of(place / "data.mdb")
    one.look(Whole(holding))
    assert holding.stopped is None
    (place / "data.mdb").rename(tmp_path / "away")
    if other:
        (place / "data.mdb").write_bytes(b"states")
    one.look(Whole(holding))
    assert holding.stopped is not None
    assert holding.stopped.kind == "killed"
    assert holding.stopped.told.startswith("Lost: its stored states were removed")
