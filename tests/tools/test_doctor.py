"""What doctor finds in a folder without a server: dead readers, a wrong clock, a full disk, open keys."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest

from api import SHARDS_FILE
from archive import DataFolder, PublishedLog, PublishedSize, parse_leaf
from replay import STATUS_FILE, Fault, ModuleStatus, Record, ShardStatus, struck, write_status
from tools import doctor
from tools.answering import Note
from tools.doctor import check_disk, check_log, check_modes, check_modules, examined, main

pytestmark = pytest.mark.process
Usage = namedtuple("Usage", "total used free")


def bad(notes: list[Note]) -> dict[str, Note]:
    """Return the findings, by what they are about."""
    return {note.about: note for note in notes if not note.good}


def test_a_server_that_does_not_run_is_one_finding(folder: DataFolder) -> None:
    """And what can be seen without it, is seen."""
    notes = examined(folder)
    assert bad(notes)["server"].remedy == f"treering serve --data {folder.path}"
    assert {"log", "clock", "readers", "keys", "disk of log"} <= {note.about for note in notes if note.good}


@pytest.mark.parametrize("how", ["cut short", "another key"])
def test_a_vault_that_opens_nothing_is_found(folder: DataFolder, how: str) -> None:
    """Nobody may ask for a person's events for weeks: it is found before, and says what to bring back."""
    assert {note.about for note in examined(folder) if note.good} >= {"vault"}
    database = folder.path / "vault" / "data.mdb"
    if how == "cut short":
        os.truncate(database, database.stat().st_size - 8_192)
    else:
        (key,) = (folder.path / "keys").glob("vault*")
        key.write_text(("1" if key.read_text()[0] == "0" else "0") + key.read_text()[1:])
    found = bad(examined(folder))["vault"]
    says = {"cut short": "restore the newest backup", "another key": "not the vault key it was made with"}
    assert says[how] in found.text


def test_a_reader_that_was_killed_is_found(folder: DataFolder) -> None:
    """It pins pages of the log until the archiver clears it: told, but no finding: an idle log keeps it."""
    opened = "import os, sys; from archive import DataFolder; store = DataFolder(sys.argv[1]).open_log();"
    holds = opened + "print('open', flush=True); input()"
    dies = opened + "view = store.view(); view.__enter__(); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c"]
    with subprocess.Popen(
        [*command, holds, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        done = subprocess.run([*command, dies, str(folder.path)], check=False, timeout=60)
        notes = list(check_log(folder))
        holder.communicate("\n", timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert bad(notes) == {}
    (found,) = [note for note in notes if note.about == "readers"]
    assert "1 dead processes hold readers" in found.text


def test_a_clock_behind_the_log_is_found(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's time never goes back, so its newest entry would be from the future."""
    assert bad(list(check_log(folder))) == {}
    monkeypatch.setattr("tools.doctor.time.time", lambda: 1_000_000.0)
    assert "behind the newest entry" in bad(list(check_log(folder)))["clock"].text


@pytest.mark.parametrize(
    ("ahead_s", "says"),
    [
        (-90_000, "the newest entry is 90,000 s old"),
        (-0.4, "the newest entry is 0 s old"),
        (0.4, "the newest entry is 0 s old"),
        (1, "the newest entry's time is 1 s ahead of this clock"),
        (59, "the newest entry's time is 59 s ahead of this clock"),
    ],
)
def test_a_clock_that_is_a_little_behind_is_no_finding_and_makes_nothing_younger_than_now(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, ahead_s: float, says: str
) -> None:
    """A newest entry may be ahead of a clock by less than a minute; nothing is said to be -30 s old."""
    store = folder.open_log()
    with PublishedLog(store, PublishedSize(folder.published).get).open() as log:
        newest_s = parse_leaf(log.leaf(log.size - 1)).time_s
    store.close()
    monkeypatch.setattr("tools.doctor.time.time", lambda: newest_s - ahead_s)
    (note,) = [one for one in check_log(folder) if one.about == "clock"]
    assert (note.text, note.good) == (says, True)


@pytest.mark.parametrize(("free", "good"), [(10 << 30, True), (500 << 20, False)])
def test_little_room_is_found_before_there_is_none(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, free: int, *, good: bool
) -> None:
    """For log and states, which may lie on different disks."""
    monkeypatch.setattr("tools.doctor.shutil.disk_usage", lambda _: Usage(20 << 30, (20 << 30) - free, free))
    assert [note.good for note in check_disk(folder)] == [good, good]


def test_keys_that_others_may_read_are_found(folder: DataFolder) -> None:
    """Each with the command that closes it; a closed folder is good."""
    assert bad(list(check_modes(folder))) == {}
    folder.log_key.chmod(0o640)
    assert [note.remedy for note in check_modes(folder)] == [f"chmod go= {folder.log_key}"]


def test_a_parked_module_comes_with_the_command_that_helps(folder: DataFolder) -> None:
    """Its reason names the reducer and the entry, and nothing that is in it."""
    fault = Fault("died", 7, 5, 100.0, "SIGSEGV", "words")
    record = struck(struck(Record("cell"), fault), fault)
    status = ModuleStatus({"0": ShardStatus(record, 0.0)}, confined=["memory"])
    write_status(folder.run / STATUS_FILE, {"essay": status})
    note = bad(examined(folder))["module essay"]
    assert "reducer words died at entry 7: SIGSEGV" in note.text
    assert "this kernel does not keep its cell from files" in note.text
    on = f"--data {folder.path}"
    assert note.remedy == f"treering retry essay {on} (once it is mended), or treering skip words 7 {on}"


def test_each_trouble_of_a_module_is_a_finding_of_its_own(folder: DataFolder) -> None:
    """Two shards that are parked at different entries need two commands; a version that went back needs undo."""
    faults = [Fault("died", index, 5, 100.0, "SIGSEGV", "words") for index in (7, 9)]
    records = [struck(struck(Record("cell"), fault), fault) for fault in faults]
    shards = {str(shard): ShardStatus(record, 0.0) for shard, record in enumerate(records)}
    older = ShardStatus(Record("shared", "failed", failure="went back", went_back=True), 0.0)
    statuses = {"essay": ModuleStatus(shards), "older": ModuleStatus({"0": older, "1": older})}
    write_status(folder.run / STATUS_FILE, statuses)
    (folder.state / SHARDS_FILE).write_text("2\n")
    found = [(note.about, note.remedy) for note in check_modules(folder) if not note.good]
    on = f"--data {folder.path}"
    assert found == [
        ("module essay", f"treering retry essay {on} (once it is mended), or treering skip words 7 {on}"),
        ("module essay", f"treering retry essay {on} (once it is mended), or treering skip words 9 {on}"),
        ("module older", f"treering undo older {on}"),
    ]


# --- where a person must look ----------------------------------------------------------------------


def test_a_database_that_is_an_older_copy_comes_with_the_page_that_helps(folder: DataFolder) -> None:
    """Not with a missing entry of a table: the handbook has a section for it, and the folder is named."""
    size = PublishedSize(folder.published).get() + 11
    PublishedSize(folder.published, writable=True).set(size)
    note = bad(examined(folder))["log"]
    assert f"of the {size:,} entries that were published, it is an older copy" in note.text
    assert note.remedy.startswith('docs/recovery.md, "The database is older than its seal": ')
    assert f"treering restore BACKUP --data {folder.path}" in note.remedy


def test_what_a_module_says_cannot_forge_a_line(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason of a module is its author's text: it is shown as one line, and no terminal obeys it."""
    note = Note("module x", "no\ngood     log  \x1b[2Jall is well", False, "treering\nretry x")
    monkeypatch.setattr(doctor, "examined", lambda *_: [note])
    assert main(["--data", str(folder.path)]) == 1
    shown = capsys.readouterr().out
    assert (shown.count("\n"), "\x1b" in shown) == (2, False)


@pytest.mark.parametrize("server", ["notaurl", "http://[::1", "http://", "ftp://127.0.0.1", "127.0.0.1:8400"])
def test_an_address_that_is_none_is_a_matter_of_usage(
    folder: DataFolder, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what one looks like; nothing is examined as if it had not been said."""
    assert main(["--data", str(folder.path), "--server", server]) == 2
    assert "not an address such as http://127.0.0.1:8400" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("total", "free", "text"),
    [
        (64 << 20, 38 << 20, "38 MiB of 64 are free: less than 1 GiB is left"),
        (1 << 40, 40 << 30, "40,960 MiB of 1,048,576 are free: less than 5% is left"),
        (1 << 40, 400 << 30, "409,600 MiB of 1,048,576 are free"),
    ],
)
def test_a_disk_that_is_not_full_is_not_called_full(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, total: int, free: int, text: str
) -> None:
    """Promise: whoever is told to make room is told which bound was passed."""
    monkeypatch.setattr("tools.doctor.shutil.disk_usage", lambda _: SimpleNamespace(total=total, free=free))
    assert {note.text for note in check_disk(folder)} == {text}
