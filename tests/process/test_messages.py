"""Messages between modules in a real server: each stands in the log once, whatever is killed; time passes by ticks.

The module under test is a package of its own, made for the test and found by its entry point, as anybody's would be:
each event about a student makes one reducer say one thing to a class, whose states another reducer keeps.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from archive import (
    DataFolder,
    Event,
    LogSource,
    PublishedSize,
    Vault,
    keys_of,
    load_size,
    open_entry,
    parse_row,
    read_event,
)
from reducers import (
    Registry,
    available,
    compose,
    digest_of_entries,
    fold,
    load,
    pair_of,
    source_of,
    state_digest,
)
from replay import replay_digests
from tests.process.served import PYTHON, Served, children, run_json

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

TALK = '''
from reducers import TICK, Emit, Event, reducer


@reducer(scope=("student",), version={version}, ticks={ticks})
def speaker(state: int, event: Event, emit: Emit) -> int:
    """Say each event to a class, once."""
    if event.type == "said":
        emit("talk.heard", keys={{"class": event.data["room"]}}, data=event.data["n"])
    return state + 1


@reducer(scope=("class",), version=1)
def listener(state: list[int], event: Event) -> list[int]:
    """Keep what was heard, in order."""
    return [*state, event.data] if event.source == "treering.module.talk" else state


REDUCERS = [speaker, listener]
'''


class Kept(NamedTuple):
    """An entry of the log, opened."""

    event: Event
    sender: str
    extra: dict[str, Any]


def install(site: Path, *, version: int = 1, ticks: int | None = None) -> None:
    """Install the module `talk` into a folder that is on the path, in place of what was there."""
    information = site / "talk-1.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: talk\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[treering.modules]\ntalk = talk\n")
    (site / "talk.py").write_text(TALK.format(version=version, ticks=ticks))
    shutil.rmtree(site / "__pycache__", ignore_errors=True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for packages that this process and all that it starts look into."""
    site = tmp_path / "site"
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv(
        "PYTHONDONTWRITEBYTECODE", "1"
    )  # a module that is replaced within a second is read anew
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("talk", None)


def started(data: Path, *flags: str) -> Served:
    """Start a server that may be killed."""
    command = [*PYTHON, "tools.cli", "serve", "--data", str(data), "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=data.parent)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Treering is ready: "), f"the server said {line!r}"
    return Served(data, line.split()[-1].rstrip("/"), process)


def ended(server: Served, *, kill: bool = False) -> None:
    """Let a server drain, or kill all of its processes at once."""
    if kill:
        for pid in [server.process.pid, *children(server.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    else:
        server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(60)
    assert kill or code == 0, "a server that was asked to stop did not drain"
    assert server.process.stdout is not None
    server.process.stdout.close()


@contextmanager
def serving(data: Path, *flags: str) -> Iterator[Served]:
    """Start a server, which drains at the end; where the test fails, it is killed."""
    server = started(data, *flags)
    try:
        yield server
    except BaseException:
        ended(server, kill=True)
        raise
    ended(server)


def batch(first: int, size: int) -> bytes:
    """Return events number `first` and on, as NDJSON; each has an id, so that it may be sent again."""
    lines = []
    for n in range(first, first + size):
        keys, said = {"student": f"s{n % 17}"}, {"n": n, "room": f"r{n % 3}"}
        lines.append(
            json.dumps({"id": f"e{n}", "producer": "test", "type": "said", "keys": keys, "data": said})
        )
    return "\n".join(lines).encode()


def post(server: Served, body: bytes) -> bool:
    """Post events; return whether all of them are kept."""
    try:
        answer = server.post(body, "application/x-ndjson")
        return answer.status_code == 200 and all("index" in one for one in answer.json()["receipts"])
    except (httpx2.HTTPError, ValueError):
        return False


@contextmanager
def reading(data: Path) -> Iterator[tuple[LogSource, Vault]]:
    """Open a log, published or not, and its vault."""
    folder = DataFolder(data)
    store, vault = folder.open_log(), folder.open_vault(os.urandom)
    with store.view() as view:
        size = load_size(view)
    yield LogSource(store, lambda: size), vault
    store.close()
    vault.close()


def events_of(source: LogSource, vault: Vault) -> dict[int, Kept]:
    """Return every event of a log by index, checked against its leaf."""
    found = {}
    with source.open() as log:
        for (index, leaf), (_, row) in zip(log.leaves(0, log.size), log.rows(0, log.size), strict=True):
            if row:
                one = parse_row(row)
                entry = open_entry(leaf, one, vault.data_key(one.subjects))
                header, received_ms = entry.header, entry.header.received_us // 1_000
                event = read_event(
                    index, header.form, header.source, keys_of(header), received_ms, entry.payload
                )
                found[index] = Kept(event, header.sender, header.extra)
    return found


def opened(data: Path) -> dict[int, Kept]:
    """Return every event of a log by index."""
    with reading(data) as (source, vault):
        return events_of(source, vault)


def registry() -> Registry:
    """Return all reducers that are installed."""
    sys.modules.pop("talk", None)
    found, errors = compose(load(ref) for ref in available().values() if not ref.fault)
    assert errors == []
    return found


def check_states(data: Path, shards: Sequence[int] = (1, 2, 5)) -> None:
    """The saved states are those of a replay, as so many shards, and of a fold of a plain list."""
    for number in shards:
        answer = run_json("replay", "--data", str(data), "--check", "--shards", str(number))
        assert answer["equal"] is True, answer
    reducers = registry()
    with reading(data) as (source, vault):
        size = source.published()
        replayed = replay_digests(source, reducers, vault, size=size)
        events = [one.event for _, one in sorted(events_of(source, vault).items())]
    for name in ("speaker", "listener"):
        one = reducers.get(name)
        by_hand = state_digest(pair_of(one, key, slot) for key, slot in fold(one, events).items())
        ours = {identity: digest for identity, digest in replayed.items() if identity[0] == name}
        assert ours, f"{name} has no states"
        assert digest_of_entries(ours) == by_hand, f"{name} is not the fold of the log"


def settled(server: Served) -> int:
    """Wait until nobody has anything more to say, and return the size of the log."""
    while True:
        server.wait_ready()
        size = PublishedSize(DataFolder(server.data).published).get()
        time.sleep(0.3)
        server.wait_ready()
        if PublishedSize(DataFolder(server.data).published).get() == size:
            return size


def test_killed_while_modules_talk(tmp_path: Path, site: Path) -> None:
    """Workers, the archiver or all at once: each event has one message in the end, and the states are the fold."""
    install(site)
    data, total, size, draw = tmp_path / "data", 3_000, 100, random.Random(11)
    server, killed = started(data, "--shards", "2"), Counter[str]()
    try:
        for round_, first in enumerate(range(0, total, size)):
            while not post(server, batch(first, size)):
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 0.15))
            if round_ in (9, 19):
                ended(server, kill=True)
                killed["all"] += 1
                server = started(data, "--shards", "2")
            elif round_ % 2:
                victim = ("tools.archiver", "tools.worker", "tools.worker")[round_ // 2 % 3]
                killed[victim] += server.kill(victim)
        settled(server)
        check_states(data)
    except BaseException:
        ended(server, kill=True)
        raise
    ended(server)
    assert killed["all"] == 2
    assert killed["tools.archiver"] >= 3
    assert killed["tools.worker"] >= 6
    kept = opened(data)
    inputs = {index for index, one in kept.items() if one.event.type == "said"}
    said = [one for one in kept.values() if one.sender == "module:talk"]
    assert len(inputs) == total
    assert Counter(one.extra["cause"] for one in said) == Counter(inputs), "an event has no message, or two"
    assert all(one.event.data == kept[one.extra["cause"]].event.data["n"] for one in said)
    assert all(one.event.source == source_of("talk") and one.extra["hops"] == 1 for one in said)
    assert run_json("verify-log", str(data), "--vault")["verified"] is True


def test_old_events_are_said_once_whatever_is_rebuilt_or_upgraded(tmp_path: Path, site: Path) -> None:
    """States that were deleted are folded again without a new message; a new version speaks from its activation on."""
    install(site)
    data = tmp_path / "data"

    def talked(then: Callable[[], None] = lambda: None, *, new: int = 0, shards: str = "2") -> int:
        then()
        with serving(data, "--shards", shards) as server:
            first = sum(events)
            if new:
                assert post(server, batch(first, new))
                events.append(new)
            settled(server)
            check_states(data, shards=[5])
        return sum(one.sender == "module:talk" for one in opened(data).values())

    events: list[int] = []
    assert talked(new=50) == 50
    assert talked(lambda: shutil.rmtree(data / "state"), shards="3") == 50
    assert talked(lambda: install(site, version=2)) == 50
    assert talked(new=20) == 70
    assert talked(lambda: shutil.rmtree(data / "state")) == 70


def test_idle_time_becomes_state_without_any_event(tmp_path: Path, site: Path) -> None:
    """A server logs one tick a second for a reducer that asks for it, and a replay counts the same."""
    install(site, ticks=1)
    data = tmp_path / "data"
    with serving(data, "--shards", "2") as server:
        assert post(server, batch(0, 2))
        state: Any = 0
        deadline = time.monotonic() + 30
        while state < 4:
            assert time.monotonic() < deadline, f"time stands still at {state}"
            state = server.get("/v1/states/speaker", student="s0").json().get("state", 0)
            time.sleep(0.1)
    ticks = [one for one in opened(data).values() if one.sender == "module:treering.tick"]
    seconds = [int(one.event.keys["treering.tick"]) for one in ticks]
    assert len(seconds) >= 3
    assert seconds == sorted(set(seconds)), "a second is there twice, or time went backwards"
    assert all(one.event.time_ms == 1_000 * second for one, second in zip(ticks, seconds, strict=True))
    check_states(data)
