# mypy: ignore-errors
# ruff: noqa: ARG001, DTZ005, ICN001, UP017 - as authors there write
"""Reducers in the manner of the Learning Observer."""

import asyncio
import datetime
import re
from time import time as seconds

import learning_observer.adapters
import learning_observer.kvs
import learning_observer.settings
import learning_observer.stream_analytics.time_on_task
import learning_observer.util
import pmss
from learning_observer.log_event import debug_log
from learning_observer.stream_analytics.helpers import (
    EventField,
    KeyField,
    Scope,
    kvs_pipeline,
    student_event_reducer,
)

from tests.reducers.lo_lookalike.typed import Text

pmss.parser("span", parent="string", choices=["short", "long"], transform=None)
pmss.register_field(name="pause_s", type=pmss.pmsstypes.TYPES.integer, description="A pause.", default=5)

doc_scope = Scope([KeyField.STUDENT, EventField("doc_id")])
tab_scope = Scope([KeyField.STUDENT, EventField("doc_id"), EventField("tab_id")])

_document = re.compile("https://docs[.]google[.]com/document/d/([^/]+)/")


def name_document(event):
    """Give an event that knows its page only the document's id."""
    found = _document.match(event.get("object", {}).get("url", ""))
    if found and not event.get("doc_id"):
        event["doc_id"] = found[1]
    return event


learning_observer.adapters.adapter.add_common_migrator(name_document, __file__)


@kvs_pipeline(scope=doc_scope)
async def text(event, internal_state):
    """Rebuild the text, with the help of another coroutine."""
    if event["client"]["event"] != "google_docs_save":
        return False, False
    document = Text(internal_state)
    for bundle in event["client"].pop("bundles"):  # whatever becomes of the event given
        await document.play(bundle["commands"])
    if learning_observer.settings.module_setting("lookalike", "verbose"):
        debug_log(document.json)
    return document.json, {"length": len(document.characters)}


@student_event_reducer(null_state={"seen": [], "by_type": {}})
async def history(event, internal_state):
    """Keep every event, by changing the state in place."""
    internal_state["seen"].append(event["client"]["event"])
    event["client"].clear()
    kinds = internal_state["by_type"]
    kinds[len(internal_state["seen"])] = True  # a number as a key, as JSON has none
    return internal_state, internal_state


@kvs_pipeline(scope=doc_scope, null_state={"count": 0})
async def saves(event, internal_state):
    """Count saves; at anything else, write nothing."""
    if event["client"]["event"] == "google_docs_save":
        return {"count": internal_state["count"] + 1}, False
    return False, False


@student_event_reducer(null_state={"at": {}})
async def opened(event, internal_state):
    """Note by the clock when a document was first seen, in four ways."""
    document = event["client"].get("doc_id")
    if document is None or document in internal_state["at"]:
        return False, False
    now = datetime.datetime.now()
    internal_state["at"][document] = [
        now.timestamp(),
        seconds(),
        datetime.datetime.now(datetime.timezone.utc).isoformat(),
        learning_observer.util.get_seconds_since_epoch(),
    ]
    return internal_state, internal_state


async def time_on_task(event, internal_state):
    """Add up the time, in steps of at most a pause."""
    internal_state = learning_observer.stream_analytics.time_on_task.apply_time_on_task(
        internal_state,
        event["server"]["time"],
        learning_observer.settings.module_setting("lookalike", "pause_s"),
    )
    return internal_state, internal_state


time_by_document = kvs_pipeline(scope=doc_scope)(time_on_task)
time_by_tab = kvs_pipeline(scope=tab_scope)(time_on_task)


@kvs_pipeline(scope=doc_scope, null_state={"count": 0})
async def loud(event, internal_state):
    """Count, and fail at an event of type "bad"."""
    if event["client"]["event"] == "bad":
        raise KeyError("bad")
    return {"count": internal_state["count"] + 1}, False


@student_event_reducer()
async def patient(event, internal_state):
    """Wait for the network, which nothing here does."""
    await asyncio.sleep(0)
    return {}, {}


@student_event_reducer()
async def stored(event, internal_state):
    """Use the key-value store, which is not there."""
    return await learning_observer.kvs.KVS()["key"], False


@student_event_reducer(null_state={"n": 0})
async def fetched(event, internal_state):
    """Count in a key-value state that is to hold what JSON does not have, once."""
    if event["client"]["event"] == "nan":
        return {"n": float("nan")}, False
    return {"n": internal_state["n"] + 1}, False


@kvs_pipeline(scope=Scope([EventField("doc_id")]), null_state={"students": []})
async def readers(event, internal_state):
    """Who was seen in a document: a key without a student."""
    name = event["client"]["auth"]["safe_user_id"]
    if name not in internal_state["students"]:
        internal_state["students"].append(name)
    return internal_state, internal_state
