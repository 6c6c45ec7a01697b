"""What an operator types: doctor, retry, skip, undo, against a real server and without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replay import STATUS_FILE, ModuleStatus, read_status
from tests.process.served import Served, run, run_json, serving

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

WAIT_S = 60.0
EVENT = b'{"type":"page","source":"t","keys":{"student":"ann"},"data":{"secret":"what ann wrote"}}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a server with one event, for tests that do it no harm."""
    with serving(tmp_path_factory.mktemp("site") / "data", "--shards", "1") as made:
        made.wait_ready()
        assert made.post(EVENT).status_code == 200
        made.wait_ready()
        yield made


def event_index(server: Served) -> int:
    """Return the index of the only event."""
    answer = server.get("/v1/states/event_count", student="ann").json()
    assert answer["state"]["events"] == 1
    return next(
        n for n in range(answer["position"]) if server.get(f"/v1/events/{n}").json()["kind"] == "event"
    )


def test_doctor_finds_nothing_where_nothing_is_wrong(server: Served) -> None:
    """Exit code 0; each module, shard and disk was looked at."""
    answer = run_json("doctor", "--data", str(server.data))
    assert answer["good"] is True
    abouts = {note["about"] for note in answer["notes"]}
    assert abouts >= {"server", "log", "clock", "readers", "keys", "module activity", "activity, shard 0"}


def test_doctor_names_what_is_open_to_others(server: Served) -> None:
    """And the command that closes it."""
    key = server.data / "keys" / "vault.key"
    key.chmod(0o644)
    try:
        notes = run_json("doctor", "--data", str(server.data), code=1)["notes"]
    finally:
        key.chmod(0o600)
    assert [note["remedy"] for note in notes if not note["good"]] == [f"chmod go= {key}"]


def test_doctor_cannot_look_where_there_is_no_log(tmp_path: Path) -> None:
    """Exit code 2, for a folder that is none."""
    run("doctor", "--data", str(tmp_path / "nothing"), code=2)


def test_a_skip_shows_no_more_than_it_has_to(server: Served) -> None:
    """Index, type and module; with --dry-run nothing is written."""
    index, data = event_index(server), ("--data", str(server.data))
    size = server.get("/readyz").json()["size"]
    about = run_json("skip", "event_count", str(index), *data, "--dry-run")
    assert about == {
        "module": "activity",
        "reducer": "event_count",
        "index": index,
        "type": "page",
        "decision": f"reducer event_count of module activity is to pass over entry {index} (page)",
    }
    assert server.get("/readyz").json()["size"] == size


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("skip", "nobody", "2"), 2),
        (("skip", "event_count", "0"), 2),
        (("skip", "event_count", "99999"), 2),
        (("retry", "nobody"), 2),
        (("retry", "activity"), 1),
        (("retry", "event_count", "{event}"), 1),
        (("undo", "nobody"), 2),
        (("undo", "activity"), 1),
    ],
)
def test_what_cannot_be_decided_is_refused(server: Served, arguments: tuple[str, ...], code: int) -> None:
    """Unknown names, control entries and entries that are not there; and where there is nothing to decide."""
    size = server.get("/readyz").json()["size"]
    known = [one.format(event=event_index(server)) for one in arguments]
    run(*known, "--data", str(server.data), code=code)
    assert server.get("/readyz").json()["size"] == size


def test_a_retry_of_what_does_not_stand_still_can_be_forced(server: Served) -> None:
    """Whoever knows better than what can be seen may say so."""
    index, data = event_index(server), ("--data", str(server.data))
    about = run_json("retry", "event_count", str(index), "--force", "--dry-run", *data)
    assert about["index"] == index


def test_an_older_version_runs_only_if_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with a message that names the command; after that command it runs, without a restart.

    Without a server, doctor says so, and what to type.
    """
    place = tmp_path / "modules"
    info = place / "essay-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: essay\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[treering.modules]\nessay = essay\n")
    monkeypatch.setenv("PYTHONPATH", str(place))
    data = tmp_path / "data"

    def installed(version: int) -> None:
        (place / "essay.py").write_text(
            f"from reducers import Event, reducer\n\n\n@reducer(version={version})\n"
            "def words(state: int, event: Event) -> int:\n    return state + 1\n\n\nREDUCERS = [words]\n"
        )

    installed(2)
    with serving(data, "--shards", "1") as server:
        server.wait_ready()
    assert (
        run_json("doctor", "--data", str(data), code=1)["notes"][0]["remedy"]
        == f"treering serve --data {data}"
    )
    installed(1)
    with serving(data, "--shards", "1") as server:
        server.wait_ready()
        status = read_status(data / "run" / STATUS_FILE)["essay"]
        assert status.state == "failed"
        assert "treering undo essay" in status.reason()
        run("undo", "essay", "--data", str(data))
        deadline = time.monotonic() + WAIT_S
        while read_status(data / "run" / STATUS_FILE)["essay"].state != "running":
            assert time.monotonic() < deadline, "it was undone, and never ran"
            time.sleep(0.1)


FRAIL = """from reducers import Event, reducer


@reducer(version=VERSION)
def words(state: int, event: Event) -> int:
    if event.type in BAD:
        raise SystemExit(event.index)
    return state + 1


REDUCERS = [words]
"""


class Frail:
    """A module that cannot stand some events, installed beside a server with two shards."""

    def __init__(self, place: Path) -> None:
        self.place = place
        info = place / "frail-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frail\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[treering.modules]\nfrail = frail\n")
        self.install(1, ["worse", "worst"])

    def install(self, version: int, bad: list[str]) -> None:
        """Install a version that stops at these types of events."""
        text = FRAIL.replace("VERSION", str(version)).replace("BAD", repr(bad))
        (self.place / "frail.py").write_text(text)


def until(server: Served, reached: Callable[[ModuleStatus], bool]) -> ModuleStatus:
    """Wait until the supervisor says this of the module, while the server stays ready for everybody else."""
    deadline, status = time.monotonic() + WAIT_S, None
    while time.monotonic() < deadline:
        ready = server.get("/readyz")
        assert ready.status_code == 200, ready.text
        status = read_status(server.data / "run" / STATUS_FILE)["frail"]
        if reached(status):
            return status
        time.sleep(0.1)
    raise AssertionError(f"the module stays as it is: {status}")


def harm(server: Served, kind: str) -> int:
    """Send an event of a type and return its index."""
    body = EVENT.replace(b"page", kind.encode())
    return int(server.post(body).json()["receipts"][0]["index"])


def test_an_old_skip_answers_nothing_and_a_retry_brings_new_code_to_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a skip, the next poisonous event parks the module for good; mended, it runs in both shards at once.

    All the while the server is ready: only this module is not.
    """
    frail = Frail(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", str(frail.place))
    with serving(tmp_path / "data", "--shards", "2") as server:
        data = ("--data", str(server.data))
        server.wait_ready()
        first = harm(server, "worse")
        until(server, lambda one: one.state == "parked")
        run("skip", "words", str(first), *data)
        until(server, lambda one: one.state == "running" and not one.held)
        harm(server, "worst")
        parked = until(server, lambda one: one.state == "parked")
        for _ in range(40):  # the warden looks every second
            time.sleep(0.1)
            again = read_status(server.data / "run" / STATUS_FILE)["frail"]
            assert (again.state, again.deaths) == ("parked", parked.deaths)
        frail.install(2, [])
        run("retry", "frail", *data)
        until(server, lambda one: one.state == "running" and not one.held)
        deadline = time.monotonic() + WAIT_S
        while True:
            ready = server.get("/readyz")
            assert ready.status_code == 200, ready.text
            (frails,) = [one for one in ready.json()["modules"] if one["module"] == "frail"]
            if all(shard["lag"] == 0 for shard in frails["shards"]):
                break
            assert time.monotonic() < deadline, f"a shard keeps the old code: {frails}"
            time.sleep(0.1)
        answer = server.get("/v1/states/words", student="ann").json()
        assert answer["state"] == 1, "the new version has folded the last event and passed over the first"
