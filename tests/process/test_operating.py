"""What an operator types: doctor, retry, skip, undo, against a real server and without one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay import STATUS_FILE, read_status
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
        (("undo", "nobody"), 2),
        (("undo", "activity"), 1),
    ],
)
def test_what_cannot_be_decided_is_refused(server: Served, arguments: tuple[str, ...], code: int) -> None:
    """Unknown names, control entries and entries that are not there; and where there is nothing to decide."""
    size = server.get("/readyz").json()["size"]
    run(*arguments, "--data", str(server.data), code=code)
    assert server.get("/readyz").json()["size"] == size


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
