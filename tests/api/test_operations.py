"""What operators are told of modules: who does not run, why, what helps, and that nobody else is the worse for it."""

from __future__ import annotations

import html
import re

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

from replay import (
    STATUS_FILE,
    Fault,
    Holding,
    ModuleStatus,
    Record,
    ShardStatus,
    Status,
    Workers,
    struck,
    write_status,
    write_workers,
)
from tests.api.front import Front

FAULT = Fault("died", 7, 5, 100.0, "SIGSEGV", "touchy")


def parked() -> Record:
    """Return the record of a module that died once too often."""
    return struck(struck(Record("cell"), FAULT), replace(FAULT, at_s=101.0))


def tell(front: Front, name: str, *records: Record) -> None:
    """Let the supervisor say this of a module's shards."""
    shards = {str(shard): ShardStatus(record, 1_000.0) for shard, record in enumerate(records)}
    front.services.folder.run.mkdir(exist_ok=True)
    write_status(front.services.folder.run / STATUS_FILE, {name: ModuleStatus(shards)})


def metrics(http: TestClient) -> str:
    """Return the metrics."""
    return http.get("/metrics").text


def test_a_parked_module_is_named_and_makes_nothing_unready(front: Front, http: TestClient) -> None:
    """It is as the worst of its shards; what is said of it holds nothing of any event but an index."""
    front.reduce()
    tell(front, "touchy", parked(), Record("shared", "running"))
    answer = http.get("/readyz")
    assert answer.status_code == 200
    (one,) = [one for one in answer.json()["modules"] if one["module"] == "touchy"]
    assert (one["state"], one["level"], one["deaths"]) == ("parked", "cell", 2)
    assert one["reason"] == "reducer touchy died at entry 7: SIGSEGV"
    on = f"--data {front.folder.path}"
    assert one["remedy"] == f"treering retry touchy {on} (once it is mended), or treering skip touchy 7 {on}"
    assert one["since"] == "1970-01-01T00:16:40Z"


def test_states_of_a_module_in_trouble_do_not_count(front: Front, http: TestClient) -> None:
    """The server is ready without them, and its shards are as far as the others are."""
    front.reduce()
    for store in [one for place, one in front.stores.items() if "touchy" in str(place)]:
        Holding([], store).clear()
    assert http.get("/readyz").status_code == 503
    tell(front, "touchy", parked())
    answer = http.get("/readyz")
    assert answer.status_code == 200
    assert [shard["lag"] for shard in answer.json()["shards"]] == [0, 0]


def test_a_module_that_never_was_there_is_named_too(front: Front, http: TestClient) -> None:
    """It has no states at all, and could not be loaded."""
    front.services.shelf.expected = frozenset({*front.services.shelf.expected, "broken"})
    front.reduce()
    assert http.get("/readyz").status_code == 503
    tell(front, "broken", Record("shared", "failed", failure="importing 'broken' failed"))
    answer = http.get("/readyz")
    assert answer.status_code == 200
    (one,) = [one for one in answer.json()["modules"] if one["module"] == "broken"]
    assert (one["state"], one["reason"], one["shards"]) == ("failed", "importing 'broken' failed", [])
    page = http.get("/").text
    assert "treering retry broken" in page
    assert "importing &#39;broken&#39; failed" in page


@pytest.mark.parametrize("told", [True, False])
def test_metrics_are_of_modules_and_reducers_and_name_nobody(
    front: Front, http: TestClient, *, told: bool
) -> None:
    """One state has the value 1; without a supervisor's word there is none, and the rest is there."""
    body = b'{"type":"bad","source":"t","keys":{"student":"ann"},"data":{}}'
    http.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    front.reduce()
    if told:
        tell(front, "touchy", Record("shared", "running"))
    found = metrics(http)
    states = dict(re.findall(r'treering_module_state\{module="touchy",state="(\w+)"\} (\d)', found))
    expected = {"starting": "0", "running": "1", "pausing": "0", "parked": "0", "failed": "0"}
    assert states == (expected if told else {})
    assert 'treering_module_lag{module="touchy",shard="0"} 0.0' in found
    assert 'treering_quarantined_keys{reducer="touchy"} 1.0' in found
    assert 'treering_quarantined_keys{reducer="event_count"} 0.0' in found
    assert "ann" not in found.replace("annot", "")


def test_two_parked_shards_name_two_remedies(front: Front, http: TestClient) -> None:
    """Each with the shard it is about; the module itself is as the worst of them."""
    other = replace(FAULT, index=9)
    front.reduce()
    tell(front, "touchy", parked(), struck(struck(Record("cell"), other), replace(other, at_s=101.0)))
    (one,) = [one for one in http.get("/readyz").json()["modules"] if one["module"] == "touchy"]
    on = f"--data {front.folder.path}"
    retry = f"treering retry touchy {on} (once it is mended), or"
    assert one["remedies"] == [f"{retry} treering skip touchy {index} {on}" for index in (7, 9)]
    assert [(each["shard"], each["remedy"]) for each in one["troubles"]] == list(enumerate(one["remedies"]))


def test_a_shard_in_trouble_is_not_hidden_by_one_that_runs(front: Front, http: TestClient) -> None:
    """It runs in both, but in one of them in a cell, at an event that it died of."""
    front.reduce()
    hanging = replace(parked(), state="running")
    tell(front, "touchy", Record("shared", "running"), hanging)
    (one,) = [one for one in http.get("/readyz").json()["modules"] if one["module"] == "touchy"]
    assert (one["state"], one["level"], one["deaths"]) == ("running", "cell", 2)
    assert one["reason"] == "reducer touchy died at entry 7: SIGSEGV"


def test_nobody_waits_for_states_of_a_module_that_was_mended(front: Front, http: TestClient) -> None:
    """They are made again beside everything else; once they are there, they count again."""
    front.reduce()
    for store in [one for place, one in front.stores.items() if "touchy" in str(place)]:
        Holding([], store).clear()
    status = ModuleStatus({"0": ShardStatus(Record("own", "running"), 1_000.0)}, renewed=True)
    front.services.folder.run.mkdir(exist_ok=True)
    write_status(front.services.folder.run / STATUS_FILE, {"touchy": status})
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("state", "value", "down"),
    [
        ("ok", 1, 0),
        ("local", 1, 0),
        ("local: refused", 1, 0),
        ("catching up", 0, 0),
        ("down: refused", 0, 1),
    ],
)
def test_the_state_store_has_a_metric(
    front: Front, http: TestClient, state: str, value: int, down: int
) -> None:
    """An alarm can be set on it: readers are slower, or wait, while it is 0; where it is down, somebody must look."""
    front.services.states = lambda: Status("redis", state)
    assert f'treering_state_store_ok{{store="redis"}} {value}.0' in metrics(http)
    assert f'treering_state_store_down{{store="redis"}} {down}.0' in metrics(http)


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("ok", ""),
        ("local: Redis at a:1 cannot be reached: start it, or correct redis_url", ""),
        ("catching up", "nothing, while it is being filled"),
        ("down: Redis at a:1 refuses user or password: correct redis_url", "correct user and password in"),
        ("down: Redis at a:1 is a read-only replica: <name>", "name the primary in redis_url"),
        (
            "down: Redis at a:1 answered ResponseError: what is this",
            "see whether Redis runs and answers (docs",
        ),
    ],
)
def test_a_state_store_that_is_not_well_is_shown_with_what_helps(
    front: Front, http: TestClient, state: str, remedy: str
) -> None:
    """Each reason has its own remedy, in /readyz and on the page, where it is escaped; one that is well has none."""
    front.services.states = lambda: Status("redis", state)
    told = http.get("/readyz").json()["states"]
    assert (told["store"], told["state"], bool(told["remedy"])) == ("redis", state, bool(remedy))
    assert told["remedy"].startswith(remedy)
    page = http.get("/").text
    shown = f"State store redis: {html.escape(state)}<" in page
    assert shown is (state != "ok")
    assert html.escape(told["remedy"]) in page


def test_workers_are_counted_where_a_supervisor_says_how_many_there_are(
    front: Front, http: TestClient
) -> None:
    """A front that runs by itself, as in a container of its own, shows no number that it does not know."""
    assert "treering_workers" not in http.get("/metrics").text
    front.folder.run.mkdir(exist_ok=True)
    write_workers(front.folder.run, Workers({"worker 0": 11, "worker 1": 12}, [13], 1))
    text = http.get("/metrics").text
    assert "treering_workers 2.0" in text
    assert "treering_spare_workers 1.0" in text
