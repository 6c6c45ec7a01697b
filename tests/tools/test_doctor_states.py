"""What doctor finds in states and messages: everything that is wrong, each with the command that helps."""

from __future__ import annotations

import json

import pytest

from api import SHARDS_FILE
from archive import DataFolder, LmdbStore, Write
from reducers import Module, Slot
from replay import STATE_TABLES, Holding, Unsent, complain, is_complained_of, on_folder, state_key
from tests.world import pages
from tools.doctor import check_messages, check_modules, examined, main
from tools.loading import states_place

pytestmark = pytest.mark.process


@pytest.fixture
def states(folder: DataFolder) -> LmdbStore:
    """Return the store of a module, essay, which has one shard and a state that stands still at each of 7 entries."""
    (folder.state / SHARDS_FILE).write_text("1\n")
    module = Module("essay", (pages,))
    place = states_place(folder.state, folder.partition, module, 0, 1)
    store = LmdbStore(place, STATE_TABLES)
    holding = Holding(module.reducers, store, "essay")
    for at in range(7):
        holding.put(pages, ("d", f"student {at}"), Slot(1, at, "ValueError: no", at))
    holding.save(2, bytes(32), {})
    return store


def test_each_state_that_stands_still_comes_with_its_command(folder: DataFolder, states: LmdbStore) -> None:
    """As many as one reads at night, and how many more there are; nothing is to be filled in."""
    states.close()
    (note,) = [one for one in check_modules(folder) if one.about == "reducer pages"]
    on = on_folder(folder.path)
    assert not note.good
    assert note.text == "7 states stand still, at entries 0, 1, 2, 3, 4 and 2 more"
    assert note.remedies == [
        f"treering retry pages {at}{on} (after a new version), or treering skip pages {at}{on}"
        for at in range(5)
    ]


def test_every_command_is_printed(
    folder: DataFolder, states: LmdbStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal each on a line of its own, in JSON in one list, of which the first stands alone as well."""
    states.close()
    assert main(["--data", str(folder.path)]) == 1
    assert capsys.readouterr().out.count("-> treering retry pages ") == 5
    assert main(["--data", str(folder.path), "--json"]) == 1
    notes = {note["about"]: note for note in json.loads(capsys.readouterr().out)["notes"]}
    assert len(notes["reducer pages"]["remedies"]) == 5
    assert notes["reducer pages"]["remedy"] == notes["reducer pages"]["remedies"][0]


@pytest.mark.parametrize("what", ["state", "marker", "complaint"])
def test_damaged_states_are_found_and_harm_no_other_check(
    folder: DataFolder, states: LmdbStore, what: str
) -> None:
    """Whether they cannot be read, or only somebody said so; with the folder that would have to go."""
    place = next(folder.state.glob("0/essay/*/0-of-1"))
    if what == "complaint":
        complain(place)
    else:
        table, key = (
            ("meta", b"snapshot") if what == "marker" else ("states", state_key("pages", ("d", "student 3")))
        )
        with states.view() as view:
            value = view.get(table, key)
        assert value is not None
        states.commit([Write(table, key, value[:-1] + b"\x01")])
    states.close()
    findings = [note for note in examined(folder) if not note.good]
    (note,) = [one for one in findings if "damaged" in one.text]
    assert note.about == "essay, shard 0"
    assert str(place) in note.remedy
    assert {one.about for one in findings} <= {"server", "essay, shard 0", "reducer pages"}
    assert is_complained_of(place) == (what == "complaint")  # who only looks leaves nothing


def test_messages_that_are_not_in_the_log_are_found(folder: DataFolder, states: LmdbStore) -> None:
    """With what to do; that somebody was erased, or a key folded again for a skip, is no finding."""
    states.close()
    unsent = Unsent(folder.run, 0)
    for at in (7, 9):
        unsent.add("essay", "pages", 1, "conflict", at=at, detail="said something else before")
    unsent.add("essay", "pages", 1, "erased", at=8)
    unsent.add("essay", "pages", 1, "superseded", at=6)
    unsent.add("essay", "pages", 0, "hops", at=8)  # an older version: over
    unsent.save(1.0)
    found = {(note.text, note.good, bool(note.remedy)) for note in check_messages(folder)}
    conflict = "what it said at 2 entries is not in the log (conflict), first at entry 7, last at entry 9"
    superseded = "what it said at 1 entries is not in the log (superseded), first at entry 6"
    assert found == {
        (f"{conflict}: said something else before", False, True),
        (
            "what it said at 1 entries is not in the log (erased), first at entry 8: whom it is about was erased",
            True,
            False,
        ),
        (
            f"{superseded}: it said something else before a skip or a retry, and what was said first stands",
            True,
            False,
        ),
    }
