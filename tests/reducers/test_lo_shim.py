"""What stands in for the server and for the clock while modules of the Learning Observer are loaded and run."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest

from reducers.lo_clock import EVENT_MS, adopt
from reducers.lo_event import client_of
from reducers.lo_helpers import (
    EventField,
    apply_binned_time_on_task,
    apply_time_on_task,
    contents_for,
    get_nested_dict_value,
    remove_nested_dict_value,
    translate_json_keys,
)
from reducers.lo_shim import Host, NotForReducers, Placeholder
from tests.reducers.lo_world import frames

AT_MS = 1_700_000_000_250


def test_a_placeholder_takes_part_in_an_import_and_does_nothing() -> None:
    """Decorating, deriving, indexing, adding, asking: dashboards do all of that when they are imported."""
    host = Host("pages", importing=True)
    part: Any = Placeholder(host, "dash")

    class Derived(part.Component):  # type: ignore[misc]
        size = part.size + 1

    decorated = part.callback(part.Output("a"), part.Input("b"))(len)
    assert (decorated, Derived.__mro__[1:], list(part.pages), bool(part.flag)) == (len, (object,), [], False)
    assert isinstance(part["x"].y("z") | 1, Placeholder)


@pytest.mark.parametrize(
    "use", ["part()", "part.x", "part[0]", "list(part)", "bool(part)", "part + 1", "open(part)", "f(**part)"]
)
def test_a_placeholder_that_is_used_later_says_what_is_missing(use: str) -> None:
    """A reducer that needs what is not there is told by name, at the event, and not by a strange result."""
    part = Placeholder(Host("pages"), "learning_observer.rosters")
    with pytest.raises(NotForReducers, match=r"learning_observer\.rosters"):
        eval(use, {"part": part, "f": dict})


def clocks() -> dict[str, Any]:
    """Return the globals of a module that imported clocks in the usual ways, adopted."""
    names = {
        "time": time,
        "datetime": dt,
        "dt": dt.datetime,
        "date": dt.date,
        "now": time.time,
        "ns": time.monotonic_ns,
        "sleep": time.sleep,
        "other": len,
    }
    adopt(names)
    adopt(names)  # a module may be loaded again
    return names


CLOCKS = {
    "time.time()": AT_MS / 1_000,
    "now()": AT_MS / 1_000,
    "time.time_ns()": AT_MS * 1_000_000,
    "ns()": AT_MS * 1_000_000,
    "time.perf_counter()": AT_MS / 1_000,
    "dt.now().timestamp()": AT_MS / 1_000,
    "dt.utcnow().isoformat()": "2023-11-14T22:13:20.250000",
    "datetime.datetime.now(datetime.timezone.utc).isoformat()": "2023-11-14T22:13:20.250000+00:00",
    "datetime.datetime.today().hour": 22,
    "dt.now().astimezone().isoformat()": "2023-11-14T22:13:20.250000+00:00",
    "(dt.now() - datetime.timedelta(hours=1)).timestamp()": AT_MS / 1_000 - 3_600,
    "dt.fromtimestamp(0).isoformat()": "1970-01-01T00:00:00",
    "dt.fromisoformat('1970-01-02').timestamp()": 86_400.0,
    "dt.strptime('1970', '%Y').timestamp()": 0.0,
    "date.today().isoformat()": "2023-11-14",
    "date.fromtimestamp(0).isoformat()": "1970-01-01",
    "time.strftime('%H:%M')": "22:13",
    "time.strftime('%H', time.gmtime(0))": "00",
    "time.localtime().tm_hour": 22,
    "time.mktime(time.gmtime(86_400))": 86_400.0,
    "time.ctime()": "Tue Nov 14 22:13:20 2023",
    "time.asctime(time.gmtime(0))": "Thu Jan  1 00:00:00 1970",
    "time.timezone": 0,
    "time.struct_time": time.struct_time,
    "isinstance(datetime.datetime.now(), dt)": True,
    "other('ab')": 2,
}


@pytest.mark.parametrize("ask", CLOCKS)
def test_every_clock_shows_the_time_of_the_event(ask: str) -> None:
    """However a module asks for the time, and whatever zone the machine is in, the log has the answer."""
    token = EVENT_MS.set(AT_MS)
    try:
        assert eval(ask, clocks()) == CLOCKS[ask]
    finally:
        EVENT_MS.reset(token)


def test_datetimes_of_others_are_datetimes() -> None:
    """A library's datetime passes for one in the module, and the module's in the library."""
    names = clocks()
    token = EVENT_MS.set(AT_MS)
    try:
        assert isinstance(dt.datetime(2023, 1, 1, tzinfo=dt.UTC), names["dt"])
        assert isinstance(dt.date(2023, 1, 1), names["date"])
        assert isinstance(names["dt"].now(), dt.datetime)
        assert not isinstance(dt.date(2023, 1, 1), names["dt"])
    finally:
        EVENT_MS.reset(token)


def test_without_an_event_there_is_no_time() -> None:
    """Outside a fold a stand-in clock says so; and nobody may wait."""
    names = clocks()
    with pytest.raises(RuntimeError, match="there is no event"):
        names["now"]()
    with pytest.raises(RuntimeError, match="cannot wait"):
        names["sleep"](1)


def test_time_on_task_counts_short_gaps_whole_and_long_ones_as_the_threshold() -> None:
    """Times 0, 10, 100 and 130 with a threshold of 60 are 10 + 60 + 30 seconds; a first event is none."""
    state = None
    for second in (0.0, 10.0, 100.0, 130.0):
        state = apply_time_on_task(state, second, 60)
    assert state == {"saved_ts": 130.0, "total_time_on_task": 100.0}


def test_binned_time_on_task_is_shared_between_two_bins() -> None:
    """Time is counted in the bin in which it began, and what goes beyond its end in the next."""
    state = None
    for second in (0.0, 50.0, 95.0, 130.0, 1_000.0):
        state = apply_binned_time_on_task(state, second, 60, 100)
    assert state == {
        "saved_ts": 1_000.0,
        "current_bin": 1_000,
        "binned_time_on_task": {"0": 100.0, "100": 90.0},
    }


def test_nested_values_are_found_and_removed() -> None:
    """A path of names leads into nested objects; one that leads nowhere is a default, else a KeyError."""
    value = {"a": {"b": {"c": 7}}}
    assert get_nested_dict_value(value, "a.b.c") == 7
    assert get_nested_dict_value(value) == value
    assert get_nested_dict_value(value, "a.x.c", None) is None
    assert remove_nested_dict_value(value, "a.b.c") == 7
    assert value == {"a": {"b": {}}}
    for look in (get_nested_dict_value, remove_nested_dict_value):
        with pytest.raises(KeyError, match=r"no 'a\.b\.c' in"):
            look(value, "a.b.c")


def test_keys_are_translated_at_every_depth() -> None:
    """Also inside of what is renamed, and inside of lists."""
    assert translate_json_keys({"aB": [{"aB": 1}], "c": {"aB": 2}}, {"aB": "a_b"}) == {
        "c": {"a_b": 2},
        "a_b": [{"a_b": 1}],
    }


def test_utilities_are_there_under_their_names() -> None:
    """Hashes are those of that server, times are the event's, and decorators that need a server do nothing."""
    found = contents_for(Host("any"))
    util = found["learning_observer.util"]
    assert util["insecure_hash"](b"a") == "MD5_0cc175b9c0f1b6a831c399e269772661"
    assert util["secure_hash"](b"a").startswith("SHA512_697f2d856172cb83")
    assert util["timeparse"]("1970-01-02T00:00:00").timestamp() == 86_400
    token = EVENT_MS.set(AT_MS)
    assert (util["timestamp"](), util["get_seconds_since_epoch"]()) == (
        "2023-11-14T22:13:20.250000",
        AT_MS / 1_000,
    )
    EVENT_MS.reset(token)
    publish = found["learning_observer.communication_protocol.integration"]["publish_function"]
    assert publish("name")(len) is found["learning_observer.cache"]["async_memoization"]()(len) is len


def test_dashed_names_of_early_clients_get_underscores() -> None:
    """Known names at every depth, and the source; other names are the client's own business."""
    (event,) = frames({"event": "e", "event-type": "x", "a-b": [{"character-count": 3}]}, source="org.x-y")
    client = client_of(event)
    assert (client["event_type"], client["a-b"], client["source"]) == (
        "x",
        [{"character_count": 3}],
        "org.x_y",
    )


def test_nobody_says_of_himself_that_he_is_authenticated() -> None:
    """Who the student is comes from the key that the ingest found, whatever the frame says."""
    (event,) = frames({"event": "e", "auth": {"safe_user_id": "the head"}})
    assert client_of(event)["auth"]["safe_user_id"] == "testcase-ann"


def test_event_fields_are_values() -> None:
    """Two of one name are one field of a scope, and sort by it."""
    assert len({EventField("a"), EventField("a"), EventField("b")}) == 2
    assert min(EventField("b"), EventField("a")).name == "EventField.a"
    assert (str(EventField("a")), repr(EventField("a"))) == ("EventField.a", "<EventField.a>")
