"""Where a module runs after what it did, as a table: each row is a history, and where it leads."""

from __future__ import annotations

import pytest

from replay import (
    LEVELS,
    Fault,
    Kind,
    Level,
    Record,
    State,
    begun,
    interrupted,
    not_loaded,
    reached,
    rested,
    retried,
    struck,
)
from replay.escalation import FAULTS_MAX, PAUSE_S, PAUSE_S_MAX, WINDOW_S

Step = tuple[Kind, int | None, int, float]
"""A fault: its kind, the index of the event, where the states stood, and when it was."""


def after(level: Level, *steps: Step) -> Record:
    """Return the record of a module after these faults, each of them after its pause."""
    record = Record(level)
    for kind, index, position, at_s in steps:
        record = struck(rested(record, at_s), Fault(kind, index, position, at_s, "test"))
    return record


TABLE: dict[str, tuple[Level, tuple[Step, ...], Level, State]] = {
    "its own doing disturbs others once": ("shared", (("died", 7, 5, 0),), "cell", "pausing"),
    "standing still is its own doing": ("shared", (("stalled", 7, 5, 0),), "cell", "pausing"),
    "memory is its own doing": ("shared", (("memory", 7, 5, 0),), "cell", "pausing"),
    "a state without encoding, too": ("shared", (("stopped", 7, 5, 0),), "cell", "pausing"),
    "dying of its import, too": ("shared", (("died", None, 5, 0),), "cell", "pausing"),
    "a kill may be somebody else's": ("shared", (("killed", 7, 5, 0),), "shared", "starting"),
    "the second one is not": ("shared", (("killed", 7, 5, 0), ("killed", 7, 5, 1)), "cell", "pausing"),
    "unless there was progress": ("shared", (("killed", 7, 5, 0), ("killed", 9, 8, 1)), "shared", "starting"),
    "or they are far apart": (
        "shared",
        (("killed", 7, 5, 0), ("killed", 7, 5, WINDOW_S)),
        "shared",
        "starting",
    ),
    "crowding is no fault": ("shared", (("slow", None, 5, 0),), "own", "starting"),
    "alone nobody is crowded, so that is one": (
        "own",
        (("slow", 7, 5, 0), ("slow", 7, 5, 1)),
        "cell",
        "pausing",
    ),
    "nor is anybody in a cell": ("cell", (("slow", 7, 5, 0), ("slow", 7, 5, 1)), "cell", "parked"),
    "keeping others waiting is none yet": ("shared", (("blocking", 7, 5, 0),), "own", "starting"),
    "unless it stands still where nobody waits": (
        "shared",
        (("blocking", 7, 5, 0), ("stalled", 7, 5, 9)),
        "cell",
        "pausing",
    ),
    "beyond that event, it may try again": (
        "shared",
        (("blocking", 7, 5, 0), ("stalled", 9, 8, 9)),
        "own",
        "pausing",
    ),
    "alone it may try again": ("own", (("died", 7, 5, 0),), "own", "pausing"),
    "but not for ever": ("own", (("died", 7, 5, 0), ("died", 7, 5, 9)), "cell", "pausing"),
    "a cell may try again": ("cell", (("died", 7, 5, 0),), "cell", "pausing"),
    "twice at one event is enough": ("cell", (("died", 7, 5, 0), ("died", 7, 5, 9)), "cell", "parked"),
    "at another event of the same slice, too": (
        "cell",
        (("died", 7, 5, 0), ("died", 6, 5, 9)),
        "cell",
        "parked",
    ),
    "at one event, wherever it began": ("cell", (("died", 7, 5, 0), ("died", 7, 6, 9)), "cell", "parked"),
    "progress forgives": ("cell", (("died", 7, 5, 0), ("died", 9, 8, 9)), "cell", "pausing"),
    "but not ten times in ten minutes": (
        "cell",
        tuple(("died", n, n, float(n)) for n in range(FAULTS_MAX)),
        "cell",
        "parked",
    ),
    "from shared to parked, it dies three times": (
        "shared",
        (("died", 7, 5, 0), ("died", 7, 5, 1), ("died", 7, 5, 3)),
        "cell",
        "parked",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name: str) -> None:
    """Each history leads where the table says, and every fault in it is counted."""
    level, steps, then, state = TABLE[name]
    record = after(level, *steps)
    assert (record.level, record.state) == (then, state)
    assert record.deaths == sum(
        kind != "blocking" and (kind != "slow" or level != "shared") for kind, *_ in steps
    )


def test_pauses_grow_and_end() -> None:
    """Each fault within the window doubles the pause, up to a minute; then it is started."""
    pauses = []
    for count in range(1, FAULTS_MAX):
        steps: list[Step] = [("died", n, n, 0.0) for n in range(count)]
        record = after("cell", *steps)
        pauses.append(record.until_s)
        assert rested(record, record.until_s - 0.01).state == "pausing"
        assert rested(record, record.until_s).state == "starting"
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert pauses[-1] == PAUSE_S_MAX


def test_progress_beyond_the_event_forgets_the_fault() -> None:
    """Saved up to the event is not beyond it."""
    record = after("cell", ("died", 7, 5, 0))
    assert reached(record, 7).last is not None
    beyond = reached(record, 8)
    assert (beyond.last, beyond.strikes, beyond.state) == (None, (), "running")
    assert struck(beyond, Fault("died", 9, 8, 1.0, "test")).state == "pausing"


def test_what_cannot_be_loaded_waits_for_a_person() -> None:
    """No pause ends it; a retry runs it by itself, where it disturbs nobody."""
    record = not_loaded(Record("shared"), "no module named x")
    assert (record.state, record.failure) == ("failed", "no module named x")
    assert rested(record, 1e9) == record
    assert (retried(record).level, retried(record).state) == ("own", "starting")


def test_a_retry_gives_a_parked_module_new_strikes_in_its_cell() -> None:
    """What it did is counted still, and not held against it."""
    parked = after("cell", ("died", 7, 5, 0), ("died", 7, 5, 9))
    again = retried(parked)
    assert (again.level, again.state, again.deaths) == ("cell", "starting", 2)
    assert struck(again, Fault("died", 7, 5, 20.0, "test")).state == "pausing"


def test_a_worker_that_is_killed_while_nothing_runs_is_nobodys_fault() -> None:
    """Its module is started again soon, where it was."""
    record = interrupted(reached(Record("own"), 5), 10.0)
    assert (record.level, record.state, record.deaths) == ("own", "pausing", 0)
    assert rested(record, 10.0 + PAUSE_S).state == "starting"


@pytest.mark.parametrize(
    ("before", "level"),
    [
        (None, "shared"),
        (Record("shared", "running"), "shared"),
        (after("cell", ("died", 7, 5, 0), ("died", 7, 5, 9)), "cell"),
        (reached(after("cell", ("died", 7, 5, 0)), 8), "shared"),
        (not_loaded(Record("shared"), "no module named x"), "shared"),
    ],
)
def test_a_new_server_begins_where_nobody_is_disturbed(before: Record | None, level: Level) -> None:
    """Who did harm and is not beyond it begins in a cell, parked or not; everybody else as configured."""
    record = begun("shared", before)
    assert (record.level, record.state) == (level, "starting")


@pytest.mark.parametrize("level", LEVELS)
def test_a_rotten_entry_parks_a_module_where_it_runs(level: Level) -> None:
    """It is nobody's doing: no death, no move to where it could do less, and no second try that would end the same."""
    record = after(level, ("rotten", 7, 5, 0.0))
    assert (record.level, record.state, record.deaths, record.strikes) == (level, "parked", 0, ())
    assert record.last is not None
    assert record.last.index == 7
    assert begun(level, record).state == "starting", "a start after a restore tries it"
    assert retried(record).state == "starting"
