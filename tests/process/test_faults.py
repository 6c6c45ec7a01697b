"""The n-th system call that writes or syncs fails, or is the process's last, for each n.

LMDB writes below Python, so doubles cannot reach it; `strace` can.  One traced run lists the calls; then the run is
repeated once for each of them and each fault, and the log that is left is held against what the writer was told:

    acknowledged ⊆ survived ⊆ sent, in order, nothing twice; the log verifies; a new start goes on

A kill may come anywhere.  After an I/O error under the log nothing is acknowledged ever again.  Without space nothing
is kept, and the next try succeeds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from archive import (
    DataFolder,
    Log,
    LogSource,
    Tally,
    check_log,
    load_size,
    newest_seal,
    open_entry,
    parse_row,
)
from tests.process.writing import Run, start_again, write
from tools.process import EXIT_AGAIN, EXIT_STOP

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

CALLS = (
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "fdatasync",
    "fsync",
    "msync",
    "ftruncate",
    "fallocate",
    "rename",
)
SYNCS = frozenset({"fdatasync", "fsync", "msync"})
FAULTS = {"killed": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
LINE = re.compile(r"(?:\d+ +)?(\w+)\((?:\d+<([^>]*)>|\"([^\"]*)\")")


class Site(NamedTuple):
    """One call of the traced run: which, its number among its like, the file, and after which line it came."""

    call: str
    number: int
    file: str
    after: str


def strace(folder: Path, options: Iterable[str], first: int = 0) -> Run:
    """Run the writer under strace."""
    trace = folder / "trace"
    return write(folder / "data", first, ["strace", "-f", "-y", "-o", str(trace), *options])


def was_injected(folder: Path) -> bool:
    """Return whether the fault of a run did happen."""
    return re.search(r"\(INJECTED\)|killed by SIGKILL", (folder / "trace").read_text()) is not None


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Site]:
    """Return every call of a run without faults that concerns the data folder."""
    folder = tmp_path_factory.mktemp("traced")
    run = strace(folder, ["-e", f"trace={','.join(CALLS)}"])
    assert (run.code, run.lines[-1]) == (0, "done"), run.errors
    judge(folder, run)
    found, numbers, after = [], {call: count(1) for call in CALLS}, "start"
    for line in (folder / "trace").read_text().splitlines():
        if match := LINE.match(line):
            call, path = match[1], match[2] or match[3]
            number = next(numbers[call])
            if path.startswith(str(folder / "data")):
                found.append(Site(call, number, os.path.relpath(path, folder / "data"), after))
            elif said := re.search(r'"(ready|sent \d+|acked \d+|done)', line):
                after = said[1]
    return found


def survivors(folder: Path) -> dict[int, bytes]:
    """Return index and payload of every event, of a log in which nothing is found that should not be."""
    data = DataFolder(folder / "data")
    store, vault = data.open_log(), data.open_vault(os.urandom)
    try:
        with store.view() as view:
            log = Log(view, load_size(view))
            rows = zip(log.leaves(0, log.size), log.rows(0, log.size), strict=True)
            found = {
                index: open_entry(leaf, row, vault.data_key(row.subjects)).payload
                for (index, leaf), (_, stored) in rows
                if stored
                for row in (parse_row(stored),)
            }
        seal = newest_seal((data.log / "seal").read_bytes())
        source, verifier = LogSource(store, lambda: log.size), data.signer(os.urandom).verifier
        findings = list(check_log(source, log.size, verifier=verifier, vault=vault, seal=seal, tally=Tally()))
        assert findings == []
    finally:
        store.close()
        vault.close()
    return found


def judge(folder: Path, *runs: Run) -> dict[int, bytes]:
    """Hold the log against what its writers were told, one after the other."""
    found = survivors(folder)
    said = [line.split() for run in runs for line in run.lines]
    sent = [
        number.encode() for word, number, *_ in (line for line in said if len(line) > 1) if word == "sent"
    ]
    acked = {int(line[2]): line[1].encode() for line in said if line[0] == "acked"}
    assert {index: found.get(index) for index in acked} == acked, "acknowledged ⊆ survived, where it was said"
    survived = list(found.values())
    assert len(set(survived)) == len(survived), "nothing is kept twice"
    order = {payload: at for at, payload in enumerate(sent)}
    places = [order[payload] for payload in survived]
    assert places == sorted(places), "survived ⊆ sent, in order"
    return found


def expect(fault: str, site: Site, run: Run) -> None:
    """Hold the end of a run against what is promised for its fault."""
    words = [line.split()[0] for line in run.lines]
    assert "Traceback" not in run.errors, run.errors
    if fault == "killed":
        assert run.code in {-9, 137}
    elif site.file.startswith("log/0/caches"):
        assert (run.code, words[-1]) == (0, "done"), "caches are not needed"
    elif fault == "EIO":
        assert run.code == EXIT_STOP, "an I/O error stops the archiver for good"
        if "ready" in words:
            assert words[-1] == "failed", "and nothing is acknowledged any more"
    elif "ready" not in words or site.file == "log/0/seal":
        assert run.code == EXIT_AGAIN, "without space it is tried again"
    else:
        assert (run.code, words[-1]) == (0, "done"), "the next try has space"
        assert "unavailable" in words


def go_through(folder: Path, fault: str, site: Site) -> str:
    """Run a writer with a fault, judge, start again, judge again; return what is wrong."""
    folder.mkdir()
    run = strace(folder, ["-e", f"inject={site.call}:{FAULTS[fault]}:when={site.number}"])
    try:
        assert was_injected(folder), "the fault did not happen"
        expect(fault, site, run)
        judge(folder, run, start_again(folder / "data", 100))
    except Exception as error:  # noqa: BLE001 - all that went wrong is reported together
        return f"{fault} at {site}: {type(error).__name__}: {error}\n{run.errors}"
    return ""


def all_of(folder: Path, cases: list[tuple[str, Site]]) -> list[str]:
    """Go through all cases, two at a time; return what went wrong."""
    with ThreadPoolExecutor(2) as threads:
        work = [threads.submit(go_through, folder / str(at), *case) for at, case in enumerate(cases)]
        return [wrong for one in work if (wrong := one.result())]


def of_each_kind(sites: list[Site], phases: tuple[str, ...]) -> list[Site]:
    """Return the first site of each call to each file in some phases of the run."""
    return list(
        {(one.call, one.file, one.after): one for one in reversed(sites) if one.after in phases}.values()
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_of_each_kind_fails(tmp_path: Path, sites: list[Site], fault: str) -> None:
    """A kill anywhere in a batch with a new student and one with known ones; making a log, too, EIO in each sync and
    no space in each write.
    """
    chosen = of_each_kind(sites, ("start", "sent 1") if fault != "killed" else ("sent 1", "sent 3"))
    assert {one.call for one in chosen} >= {"writev", "pwrite64", "fdatasync"}
    assert {one.file for one in chosen} >= {"log/0/data.mdb", "vault/data.mdb", "log/0/seal"}
    if fault != "killed":
        chosen = [one for one in chosen if (one.call in SYNCS) == (fault == "EIO")]
    assert all_of(tmp_path, [(fault, site) for site in chosen]) == []


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("fault", FAULTS)
def test_any_call_fails(tmp_path: Path, sites: list[Site], fault: str) -> None:
    """Every single write and sync of a run, each with every fault."""
    assert len(sites) > 60
    assert all_of(tmp_path, [(fault, site) for site in sites]) == []


def test_the_judge_of_this_page_bites(tmp_path: Path) -> None:
    """An event that was acknowledged and is not there, one kept twice, and one out of order are found."""
    run = write(tmp_path / "data", 100)
    found = judge(tmp_path, run)
    assert len(found) == 8
    index = max(found)
    for wrong in (
        [*run.lines, f"acked 107 {index + 1} {index + 2}"],
        [line.replace("acked 101 ", "acked 100 ") for line in run.lines],
        [line for line in run.lines if line != "sent 103"],
        run.lines[::-1],
    ):
        with pytest.raises((AssertionError, KeyError)):
            judge(tmp_path, run._replace(lines=wrong))
