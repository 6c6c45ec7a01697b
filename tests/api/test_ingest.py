"""From a request body to submissions: the bytes as they came, nothing lost beside what is bad."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import Problem
from api.ingest import FIELDS_MAX, PART_BYTES, PART_EVENTS, Item, Rules, items, parts, split_body
from archive import ROW_EVENT, ROW_REFUSED, InvalidEvent, Submission, read_event
from reducers import VALUE_SIZE_MAX

NOW_US = 1_700_000_000_000_000
NO_RULES = Rules({})
XAPI = Rules.parse([("student", "$.actor.account.name"), ("id", "$.id")])
ANY_JSON = "application/json"
LINES = "application/x-ndjson"


def one(body: bytes, rules: Rules = NO_RULES) -> Submission:
    """Return the submission of a body that holds one good event."""
    (item,) = items(ANY_JSON, body, rules, NOW_US)
    assert item.bad is None
    return item.submission


def fault(body: bytes, rules: Rules = NO_RULES) -> str:
    """Return what is wrong with a body that holds one bad event, which must be recorded all the same."""
    (item,) = items(ANY_JSON, body, rules, NOW_US)
    assert item.bad is not None
    assert (item.submission.kind, item.submission.payload) == (ROW_REFUSED, body)
    assert item.submission.extra["reason"] == str(item.bad.error)[:500]
    return str(item.bad.error)


# --- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=utf-8", " application/json ;x=y"],
)
def test_one_event_is_the_whole_body(content_type: str) -> None:
    """An object is one event, and what is kept are its very bytes, white space and all."""
    body = b' \n{"keys": {"student":\t"ann"} , "n": 1.0 }\r\n'
    (item,) = items(content_type, body, NO_RULES, NOW_US)
    assert (item.submission.payload, item.submission.kind, item.bad) == (body, ROW_EVENT, None)


def test_an_array_gives_each_element_byte_for_byte() -> None:
    """Elements keep their spelling (spaces, escapes, 1.0, duplicate names); what stands between them is
    dropped.
    """
    parts = [
        b'{ "a" : 1.0 }',
        b'"\\u00e9"',
        b"[1,  2]",
        b"1e2",
        b'{"a":1,"a":2}',
        '"é"'.encode(),
        b"null",
        b"{}",
    ]
    body = b" [" + b" ,\n ".join(parts) + b" ] "
    found = items(ANY_JSON, body, NO_RULES, NOW_US)
    assert [item.submission.payload for item in found] == parts
    assert [item.bad for item in found] == [None] * len(parts)


def test_an_empty_array_holds_no_event() -> None:
    """No elements, no submissions."""
    assert items(ANY_JSON, b" [ ] ", NO_RULES, NOW_US) == []


@pytest.mark.parametrize("body", [b"[", b"[{},]", b'[{}] {"a":1}', b"[{} {}]", b'["\xff"]', b"[1"])
def test_an_array_that_is_torn_has_no_elements(body: bytes) -> None:
    """Where one event ends and the next begins cannot be guessed: the whole body is bad, and says so."""
    with pytest.raises(InvalidEvent, match=r"malformed JSON|invalid UTF-8 at byte 2"):
        items(ANY_JSON, body, NO_RULES, NOW_US)


@pytest.mark.parametrize(
    "content_type",
    [LINES, "application/ndjson", "application/jsonl;charset=utf-8", "application/x-jsonlines"],
)
def test_lines_are_events(content_type: str) -> None:
    """NDJSON: a line is an event; CRLF ends a line, too; blank lines are none, but are counted."""
    body = b'{"n":1}\r\n\n  \t\r\n{"n":2} \n[3]\n"torn'
    found = items(content_type, body, NO_RULES, NOW_US)
    assert [item.submission.payload for item in found] == [b'{"n":1}', b'{"n":2} ', b"[3]", b'"torn']
    assert [item.bad and item.bad.line for item in found] == [None, None, None, 6]


def test_a_bad_line_costs_only_itself() -> None:
    """Each line stands for itself: those beside a bad one are events like any."""
    lines = [b'{"n":1}', b'{"n":', b"\xff", b'{"n":1}{"n":2}', b'{"s":"\xff"}', b'{"n":5}']
    found = items(LINES, b"\n".join(lines), NO_RULES, NOW_US)
    assert [item.submission.payload for item in found] == lines
    assert [item.bad and item.bad.line for item in found] == [None, 2, 3, 4, 5, None]
    reasons = [str(item.bad.error) for item in found if item.bad]
    assert reasons[0].startswith("malformed JSON")
    assert reasons[1] == "invalid UTF-8 at byte 0"
    assert reasons[3] == "invalid UTF-8 at byte 6"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/cloudevents+json", "json"])
def test_other_content_is_another_media_type(content_type: str) -> None:
    """What we cannot take apart is refused with 415, naming what to send."""
    with pytest.raises(Problem, match="application/x-ndjson") as caught:
        split_body(content_type, b"{}")
    assert caught.value.status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"nul",
        b"{}{}",
        b"\xef\xbb\xbf{}",
        b"[" * 5_000,
        b"NaN",
        b'{"a":1e999}',
    ],
)
def test_a_body_that_is_no_json_is_bad(body: bytes) -> None:
    """A body that cannot be read is an error that says so, and never an exception of another kind."""
    try:
        assert "malformed JSON" in fault(body)
    except InvalidEvent as error:
        assert "malformed JSON" in str(error)  # noqa: PT017 - an array that is torn has no elements


@pytest.mark.parametrize("field", ["data", "skipped", "keys"])
def test_invalid_utf8_is_found_wherever_it_hides(field: str) -> None:
    """A field that nobody looks at may not be broken either: the event could never be shown."""
    body = b'{"keys":{"student":"ann"},"' + field.encode() + b'":{"student":"\xc3("}}'
    assert fault(body).startswith("invalid UTF-8 at byte")


def test_a_part_has_a_bound_in_bytes_and_large_events_one_each() -> None:
    """Between two parts others have their turn, so what is read in one go is bounded however large events are."""
    large = b'"' + b"x" * PART_BYTES + b'"'
    half = b'"' + b"x" * (PART_BYTES // 2 - 10) + b'"'
    body = [
        (1, large),
        (2, b"1"),
        (3, half),
        (4, half),
        (5, half),
        *((6 + n, b"1") for n in range(PART_EVENTS)),
    ]
    found = list(parts(body, NO_RULES, NOW_US))
    assert [len(part) for part in found] == [1, 3, PART_EVENTS, 1]
    assert [item.submission.payload for part in found for item in part] == [raw for _, raw in body]


# --- keys ----------------------------------------------------------------------------------------


def test_an_event_with_keys_is_ours() -> None:
    """Our own form: keys become text, source, producer and id are taken, the student is the subject."""
    body = {
        "type": "t",
        "source": "org.tool",
        "producer": "pad 7",
        "id": 17,
        "keys": {"student": 5, "doc_id": "d", "open": True, "part": 1.5},
        "data": {"n": 1},
    }
    sent = one(json.dumps(body).encode())
    assert (sent.form, sent.subject, sent.source, sent.sender, sent.id) == (
        "event",
        "student:5",
        "org.tool",
        "pad 7",
        "17",
    )
    assert sent.keys == {"student": "5", "doc_id": "d", "open": "true", "part": "1.5"}
    assert read_event(0, sent.form, sent.source, sent.keys, 0, sent.payload).data == {"n": 1}


def test_an_event_without_keys_is_ours_by_its_type_and_data() -> None:
    """An event about nobody need not say so: its id and producer count, and its data are its data."""
    sent = one(b'{"type":"opened","id":"k1","producer":"pad 7","data":{"page":1}}')
    assert (sent.form, sent.subject, sent.sender, sent.id, sent.keys) == (
        "event",
        "source:opened",
        "pad 7",
        "k1",
        {},
    )
    assert read_event(0, sent.form, sent.source, sent.keys, 0, sent.payload).data == {"page": 1}


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"opened","id":"a"}',
        b'{"type":"com.x","id":"a","specversion":"1.0","data":{}}',
        b'{"type":"NavigationEvent","id":"a","@context":"http://c","data":{}}',
        b'{"type":"opened","id":"a","data":{},"keys":["student"]}',
        b'{"id":"a","data":{}}',
    ],
)
def test_formats_that_use_our_words_are_not_ours(body: bytes) -> None:
    """What their id means is theirs to say, by a path; taken for ours, one of two events would be refused."""
    assert (one(body).form, one(body).id) == ("json", None)


def test_a_request_with_paths_is_taken_as_it_is() -> None:
    """Who says where fields stand sends something else than our form, though it have a type and data, too."""
    sent = one(b'{"type":"t","id":"a","actor":"ann","data":{"ms":3}}', Rules.parse([("student", "$.actor")]))
    assert (sent.form, sent.id, sent.subject) == ("json", None, "student:ann")


def test_nobody_is_anonymous_twice() -> None:
    """Who says the word that is shown for no producer is nobody, too: an id is looked for in one place."""
    assert one(b'{"keys":{},"producer":"anonymous"}').sender == one(b'{"keys":{}}').sender


def test_foreign_json_is_taken_as_it_is() -> None:
    """In JSON of another shape nothing is ours: no producer, no id, unless a path says where."""
    body = b'{"id":"a","producer":"p","source":"s","keys":["student"],"actor":{"account":{"name":"ann"}}}'
    sent = one(body)
    assert (sent.form, sent.subject, sent.sender, sent.id, sent.keys) == (
        "json",
        "source:s",
        "",
        None,
        {},
    )
    sent = one(body, XAPI)
    assert (sent.form, sent.subject, sent.sender, sent.id) == ("json", "student:ann", "", "a")
    assert sent.keys == {"student": "ann"}


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (b'{"source":"org.tool","type":"t"}', "source:org.tool"),
        (b'{"type":"t"}', "source:t"),
        (b'{"verb":{"id":"http://v"}}', "source:http://v"),
        (b'{"source":7}', "source:"),
        (b"[]", None),
        (b"17", "source:"),
        (b'{"keys":{},"source":"provisional:x"}', "source:provisional:x"),
    ],
)
def test_an_event_without_a_student_is_its_sources(body: bytes, subject: str | None) -> None:
    """It belongs to its source's own subject, and can never pass for anybody else's."""
    if subject is None:
        assert items(ANY_JSON, body, NO_RULES, NOW_US) == []
    else:
        assert one(body).subject == subject


def test_paths_find_keys_and_id() -> None:
    """Each parameter is a field and where its value stands: names, quotes, indices from both ends."""
    rules = Rules.parse(
        [("student", "$['a b'][0]"), ("doc_id", '$["x"].y[-1]'), ("class", "$.c"), ("id", "$.n")]
    )
    sent = one(b'{"a b":["ann"],"x":{"y":[1,2,3]},"c":"7b","n":4}', rules)
    assert (sent.keys, sent.id) == ({"student": "ann", "doc_id": "3", "class": "7b"}, "4")


def test_a_path_wins_over_the_events_own_key() -> None:
    """Who sends the request says where the student stands, in our own form as well."""
    rules = Rules.parse([("student", "$.data.who")])
    sent = one(b'{"keys":{"student":"ann","doc_id":"d"},"data":{"who":"bob"}}', rules)
    assert (sent.subject, sent.keys) == ("student:bob", {"student": "bob", "doc_id": "d"})


@pytest.mark.parametrize(
    "value", [b"null", b'""', b"[]", b"{}", b'["ann"]', b'{"name":"ann"}'], ids=lambda value: value.decode()
)
def test_a_key_that_is_no_scalar_is_missing(value: bytes) -> None:
    """An event whose key field is not there, or is no text or number, is bad; the message names field and
    path.
    """
    body = b'{"actor":{"account":{"name":' + value + b'}},"id":"a"}'
    where = r"student \(\$\.actor\.account\.name\)"
    assert re.fullmatch(rf"key field {where} is .*; expected a string or a number", fault(body, XAPI))
    own = b'{"keys":{"student":' + value + b"}}"
    assert re.fullmatch(r"key field keys.student is .*; expected a string or a number", fault(own))


@pytest.mark.parametrize(
    "body", [b'{"id":"a"}', b'{"actor":[],"id":1}', b'{"actor":{"account":1}}', b"17", b'"x"']
)
def test_a_path_that_leads_nowhere_is_a_missing_field(body: bytes) -> None:
    """A path through things that are not there, or have another shape, finds nothing and breaks nothing."""
    assert fault(body, XAPI).startswith("key field student ($.actor.account.name) is missing")


@pytest.mark.parametrize("body", [b'{"a":[1]}', b'{"a":[]}', b'{"a":{"0":"x"}}', b'{"a":"xyz"}'])
def test_an_index_beyond_the_end_finds_nothing(body: bytes) -> None:
    """Indices are checked against lists only."""
    assert "is missing" in fault(body, Rules.parse([("student", "$.a[5]")]))


def test_long_values_are_refused() -> None:
    """A key value may have 1,024 bytes of UTF-8, and not one more."""
    fits, over = "é" * (VALUE_SIZE_MAX // 2), "é" * (VALUE_SIZE_MAX // 2) + "x"
    assert one(json.dumps({"keys": {"student": fits}}).encode()).keys == {"student": fits}
    assert fault(json.dumps({"keys": {"student": over}}).encode()) == (
        "key field keys.student is longer than 1024 bytes"
    )
    assert "longer than 1024" in fault(json.dumps({"id": over}).encode(), Rules.parse([("id", "$.id")]))


def test_too_many_keys_are_refused() -> None:
    """Sixteen own key fields fit; with sixteen paths beside them the entry can still be written."""
    own = {f"k{number}": number for number in range(FIELDS_MAX)}
    rules = Rules.parse([(f"r{number}", "$.x") for number in range(FIELDS_MAX)])
    assert len(one(json.dumps({"keys": own, "x": 1}).encode(), rules).keys) == 2 * FIELDS_MAX
    assert "at most 16" in fault(json.dumps({"keys": {**own, "more": 1}}).encode())


@pytest.mark.parametrize(
    ("body", "rules", "expected"),
    [
        (b'{"keys":{},"id":"a"}', NO_RULES, "a"),
        (b'{"keys":{},"id":0}', NO_RULES, "0"),
        (b'{"keys":{},"id":null}', NO_RULES, None),
        (b'{"keys":{}}', NO_RULES, None),
        (b'{"id":"a"}', NO_RULES, None),
        (b'{"keys":{},"id":"a","n":"b"}', Rules.parse([("id", "$.n")]), "b"),
        (b'{"n":{"m":1e2}}', Rules.parse([("id", "$.n.m")]), "100.0"),
    ],
)
def test_where_an_id_comes_from(body: bytes, rules: Rules, expected: str | None) -> None:
    """The path, where one is given; else our own form's "id"; foreign JSON has none of itself."""
    assert one(body, rules).id == expected


@pytest.mark.parametrize("body", [b'{"keys":{},"id":""}', b'{"keys":{},"id":[]}', b'{"keys":{},"id":{}}'])
def test_an_id_that_is_no_scalar_is_refused(body: bytes) -> None:
    """An id that could not be compared is an error, not an event without one."""
    assert re.fullmatch(r"key field id is .*; expected a string or a number", fault(body))


def test_an_id_that_is_asked_for_must_be_there() -> None:
    """Whoever says where ids stand relies on them: an event without one is refused."""
    assert fault(b'{"actor":{"account":{"name":"ann"}}}', XAPI) == (
        "key field id ($.id) is missing; expected a string or a number"
    )


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "title"),
    [
        ("Student", "$.a", "Unknown parameter"),
        ("student", "a.b", "Unknown parameter"),
        ("", "$.a", "Unknown parameter"),
        ("a-b", "$.a", "Unknown parameter"),
        ("a" * 33, "$.a", "Unknown parameter"),
        ("student", "$.", "Malformed JSON path"),
        ("student", "$[", "Malformed JSON path"),
        ("student", "$.a b", "Malformed JSON path"),
        ("student", "$[?@.a ==", "Malformed JSON path"),
        ("student", "$..a", "Ambiguous JSON path"),
        ("student", "$.*", "Ambiguous JSON path"),
        ("student", "$.a[0,1]", "Ambiguous JSON path"),
        ("student", "$.a[0:1]", "Ambiguous JSON path"),
        ("student", "$[?@.a]", "Ambiguous JSON path"),
        ("student", "$" + "[?@" * 500 + "]" * 500, "Malformed JSON path"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, path: str, title: str) -> None:
    """A parameter that is no field with a path to one value is refused, by name."""
    with pytest.raises(Problem) as caught:
        Rules.parse([(name, path)])
    assert (caught.value.status, caught.value.title) == (400, title)
    assert f"parameter {name!r}" in str(caught.value)


def test_too_many_parameters_are_refused() -> None:
    """Sixteen key fields and an id, and not one more."""
    fields = [(f"f{number}", "$.a") for number in range(FIELDS_MAX)]
    assert len(Rules.parse([*fields, ("id", "$.id")]).keys) == FIELDS_MAX
    with pytest.raises(Problem, match="at most 16"):
        Rules.parse([*fields, ("more", "$.a")])


# --- properties ----------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["ann", "bob", "", 7, None, ["x"], "é" * 600])
statements = st.fixed_dictionaries(
    {"actor": st.fixed_dictionaries({"account": st.fixed_dictionaries({"name": names})}), "id": scalars},
    optional={"keys": values, "source": scalars, "verb": values},
)
lines = st.one_of(
    st.builds(lambda value: json.dumps(value).encode(), statements | values),
    st.builds(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), statements
    ),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"").rstrip(b"\r")),
    st.sampled_from([b"", b"  ", b'{"torn":', b'{"actor":{"account":{"name":"ann"}},"id":1}', b'"\xff"']),
)
spaces = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"])


@given(st.lists(st.tuples(lines, spaces), max_size=8), st.sampled_from([NO_RULES, XAPI]))
def test_every_line_is_answered_and_kept_as_it_came(sent: list[tuple[bytes, bytes]], rules: Rules) -> None:
    """One result for each line that is not blank, in order: an event or a refusal, of exactly its bytes."""
    body = b"".join([line + end for line, end in sent])
    found = items(LINES, body, rules, NOW_US)
    numbered = [(number, line.rstrip(b"\r")) for number, line in enumerate(body.split(b"\n"), 1)]
    filled = [(number, line) for number, line in numbered if line.strip()]
    assert [item.submission.payload for item in found] == [line for _, line in filled]
    for item, (number, _) in zip(found, filled, strict=True):
        check(item, rules)
        assert item.bad is None or item.bad.line == number


@given(st.lists(statements | values, max_size=6), st.sampled_from([NO_RULES, XAPI]))
def test_every_element_is_answered_and_kept_as_it_came(sent: list[Any], rules: Rules) -> None:
    """An array and its elements as lines come to the same."""
    texts = [json.dumps(value).encode() for value in sent]
    found = items(ANY_JSON, b"[" + b",".join(texts) + b"]", rules, NOW_US)
    assert [item.submission.payload for item in found] == texts
    apart = [item for text in texts for item in items(LINES, text, rules, NOW_US)]
    assert [item.submission for item in found] == [item.submission for item in apart]
    for item in found:
        check(item, rules)


@given(st.binary(max_size=60), st.sampled_from([ANY_JSON, LINES]))
def test_any_bytes_are_answered(body: bytes, content_type: str) -> None:
    """Whatever comes in, each part is an event or a refusal, or the whole is an InvalidEvent."""
    try:
        found = items(content_type, body, XAPI, NOW_US)
    except InvalidEvent:
        assert body.lstrip()[:1] == b"["
        return
    for item in found:
        check(item, XAPI)


def check(item: Item, rules: Rules) -> None:
    """Check what holds for every item: good ones can be read back, bad ones say why."""
    sent = item.submission
    if item.bad is None:
        assert sent.kind == ROW_EVENT
        assert sent.keys.keys() >= rules.keys.keys()
        assert all(0 < len(value.encode()) <= VALUE_SIZE_MAX for value in sent.keys.values())
        read_event(0, sent.form, sent.source, sent.keys, 0, sent.payload)
    else:
        assert (sent.kind, sent.keys, sent.id) == (ROW_REFUSED, {}, None)
        assert sent.subject == "refused:2023-11-14"
        assert sent.extra["reason"]


# --- what is the system's own --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"keys": {}, "producer": "module:progress"}, "field producer: 'module:progress' is reserved"),
        ({"keys": {}, "producer": "module:treering.tick"}, "field producer"),
        ({"keys": {}, "source": "treering"}, "field source: 'treering' is reserved"),
        ({"keys": {}, "source": "treering.module.progress"}, "field source"),
        ({"type": "treering"}, "field type: 'treering' is reserved"),
        ({"source": "treering." + "x" * 5_000}, "field source"),
        ({"keys": {}, "type": "treering.tick"}, "field type: 'treering.tick' is reserved"),
        ({"type": 7, "event": "treering.tick"}, "field event"),
        ({"verb": {"id": "treering.tick"}}, "field verb.id"),
        ({"keys": {"treering.tick": "1"}}, "key field: 'treering.tick' is reserved"),
    ],
)
def test_nobody_outside_can_be_the_system(event: Any, says: str) -> None:
    """An event that claims to be a message or a tick is refused by name, and kept as refused, from nobody."""
    body = json.dumps(event).encode()
    assert says in fault(body)
    assert "use another name" in fault(body)
    (item,) = items(ANY_JSON, body, NO_RULES, NOW_US)
    assert (item.submission.sender, item.submission.source, item.submission.keys) == ("", "", {})


@pytest.mark.parametrize(
    "event",
    [
        {"keys": {"treering": "1"}, "type": "treerings", "producer": "module", "source": "treerings"},
        {"producer": "module:progress", "type": "no keys, so nobody's producer"},
        {"keys": {}, "data": {"source": "treering", "type": "treering.tick"}},
    ],
)
def test_names_that_only_resemble_are_free(event: Any) -> None:
    """What is reserved is no more than what the system uses."""
    submission = one(json.dumps(event).encode())
    assert not submission.sender.startswith("module:")


@pytest.mark.parametrize("parameter", ["treering.tick", "treering"])
def test_no_parameter_names_a_key_field_of_the_system(parameter: str) -> None:
    """A rule of a request gives fields plain names only."""
    if "." in parameter:
        with pytest.raises(Problem, match="treering"):
            Rules.parse([(parameter, "$.n")])
    else:
        assert one(b'{"n": 1}', Rules.parse([(parameter, "$.n")])).keys == {"treering": "1"}


def test_a_path_is_bounded() -> None:
    """It is gone through for each event, and named in each answer: small requests, large answers."""
    assert Rules.parse([("student", "$" + "[0]" * 60)]).keys
    with pytest.raises(Problem, match="at most 200 characters"):
        Rules.parse([("student", "$" + "[0]" * 80)])


@pytest.mark.parametrize(
    ("value", "what"), [({"a": 1}, "an object"), ([1], "an array"), ("", "empty"), (None, "missing")]
)
def test_a_key_field_that_is_there_is_not_called_missing(value: Any, what: str) -> None:
    """Promise: who looks for a fault is told what stands there."""
    body = json.dumps({"type": "a", "keys": {"student": value}, "data": {}}).encode()
    assert fault(body) == f"key field keys.student is {what}; expected a string or a number"
