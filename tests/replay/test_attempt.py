"""The words that tell what was running: read by another process, whatever became of the one that wrote them."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archive import Event
from reducers import Module, Reducer, Word, reducer
from replay import (
    IDLE,
    IMPORTING,
    Catalogue,
    Holding,
    Runner,
    attempts_file,
    index_of,
    read_attempts,
    word_of,
    write_catalogue,
)
from tests.world import World, event, tick_at


@pytest.mark.parametrize(("index", "beat"), [(0, 0), (7, 1), (2**53 - 2, 1023), (5, 1024)])
def test_a_word_gives_its_index_back(index: int, beat: int) -> None:
    """Whatever key of a tick it is at; and no word of an event is one of the two that are none."""
    word = word_of(index, beat)
    assert index_of(word) == index
    assert word not in {IDLE, IMPORTING}
    assert 0 < word < 1 << 64


def test_words_outlive_their_process(tmp_path: Path) -> None:
    """A process that ends by a signal leaves the word of its last attempt, and of that module alone."""
    path = tmp_path / "words"
    program = (
        "import os, pathlib, sys; from replay import attempts_file, word_of, IMPORTING;"
        "words = attempts_file(pathlib.Path(sys.argv[1]), ['a', 'b', 'ü']);"
        "words[1][0] = word_of(41); words[2][0] = IMPORTING; os.abort()"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert done.returncode < 0
    assert read_attempts(path) == {"a": IDLE, "b": word_of(41), "ü": IMPORTING}


@pytest.mark.parametrize("data", [b"", b"\2", (2).to_bytes(8, sys.byteorder), bytes(8) + b"x\ny"])
def test_what_is_no_file_of_words_says_nothing(tmp_path: Path, data: bytes) -> None:
    """A supervisor may look while a worker is making the file."""
    path = tmp_path / "words"
    assert read_attempts(path) == {}
    path.write_bytes(data)
    assert read_attempts(path) == {}


def test_a_new_file_is_not_the_old_one(tmp_path: Path) -> None:
    """What still maps the file of the worker before writes nothing into the new one."""
    old = attempts_file(tmp_path / "words", ["a"])
    new = attempts_file(tmp_path / "words", ["a"])
    old[0][0] = 7
    assert new[0][0] == IDLE


def test_who_finds_no_room_names_the_file(tmp_path: Path) -> None:
    """A worker is started again and again while the disk is full: its only word must say which disk that is."""
    catalogue = Catalogue("counts", "1", (), "0" * 16)
    writes: dict[str, Callable[[], object]] = {
        "words": lambda: attempts_file(tmp_path / "words", ["counts"]),
        "catalogue.json": lambda: write_catalogue(tmp_path, catalogue),
    }
    for name, write in writes.items():
        with no_room(), pytest.raises(OSError, match=f"{tmp_path}/{name}"):
            write()


@contextmanager
def no_room() -> Iterator[None]:
    """Let no file of this process grow, as under a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Written:
    """A word that remembers all that it ever was."""

    def __init__(self) -> None:
        self.all: list[int] = [IDLE]

    def __getitem__(self, at: int) -> int:
        """Return the word."""
        return self.all[-1]

    def __setitem__(self, at: int, value: int) -> None:
        """Store the word."""
        self.all.append(value)


def run(word: Word, *submissions: Any, reducers: tuple[Reducer[Any], ...]) -> World:
    """Fold a log in which these stand from index 2 on."""
    made = World(reducers=list(Module("module", reducers).reducers))
    made.append(list(submissions))
    holding = Holding(made.reducers)
    holding.attempt = word
    Runner([holding], made.vault()).step(made.source)
    return made


def test_every_event_is_announced_and_the_end_too() -> None:
    """Index after index, each before it is folded; nothing is announced when nothing runs."""
    word = Written()
    noticed: list[int | None] = []

    @reducer(default=int)
    def noticing(state: int, event: Event) -> int:
        noticed.append(index_of(word.all[-1]))
        return state + event.index

    run(word, event("ann"), event("bob"), event("ann"), reducers=(noticing,))
    assert noticed == [2, 3, 4]
    assert word.all[-1] == IDLE


def test_each_key_of_a_tick_is_announced_anew() -> None:
    """Many keys at one tick do not look like one that hangs."""
    word = Written()

    @reducer(ticks=60)
    def ticking(state: int, event: Event) -> int:
        return state + event.index

    sent = [event(name) for name in ("ann", "bob", "eve")]
    run(word, *sent, tick_at(1_700_000_040), reducers=(ticking,))
    at_tick = [one for one in word.all if index_of(one) == 5]
    assert len(set(at_tick)) == 3
    assert word.all[-1] == IDLE


def test_a_neighbour_cannot_change_an_event() -> None:
    """What an installed module does to its event, no other reducer sees, not even one of its own."""

    @reducer(default=int)
    def changing(state: int, event: Event) -> int:
        event.data["n"] = "changed"
        event.keys["student"] = "changed"
        return state + 1

    @reducer(default=list)
    def looking(state: list[Any], event: Event) -> list[Any]:
        return [*state, event.data["n"], event.keys["student"]]

    made = run(Written(), reducers=(changing, looking))
    made.append([event("ann", data={"n": 1 << 70}), event("ann", data={"n": [1]})])
    holding = Holding(made.reducers)
    Runner([holding], made.vault()).step(made.source)
    slot = holding.get(made.reducers[1], ("ann",))
    assert slot is not None
    assert slot.state == [1 << 70, "ann", [1], "ann"]
