"""The page at /: what the log holds, how fast it grows, how far behind each shard is, and the live states.

Rendered on the server, without scripts; it refreshes itself.  Everything that came from outside is escaped by
the template engine, and a strict content security policy stands behind that.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, select_autoescape

from api.operations import readiness
from api.services import Services
from api.states import state_json
from archive import ArchiveError
from merkle import Checkpoint

STATES_SHOWN = 40
TEXT_SHOWN = 160
EARLIEST_TIME_MS = 315_532_800_000
"""1980: a smaller number of milliseconds is a duration."""
LATEST_TIME_MS = 253_402_300_799_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def router(services: Services) -> APIRouter:
    """Return the route of the page."""
    routes = APIRouter(include_in_schema=False)
    environment = Environment(loader=PackageLoader("api"), autoescape=select_autoescape())
    templates = Jinja2Templates(env=environment)

    @routes.get("/", response_class=HTMLResponse)
    async def overview(request: Request) -> HTMLResponse:
        state = readiness(services)
        state["rate"] = services.rate.seen(services.clock.now_us(), state["size"])
        context = {
            **state,
            **_checkpoint(services),
            "reducers": [_table(services, one.name) for one in services.registry],
        }
        return templates.TemplateResponse(request, "overview.html", context, headers=HEADERS)

    return routes


def _checkpoint(services: Services) -> dict[str, Any]:
    try:
        with services.log() as log:
            _, note = log.checkpoint()
    except ArchiveError:
        return {"origin": None, "root": None}
    checkpoint = Checkpoint.decode(note.decode().partition("\n\n")[0] + "\n")
    return {"origin": checkpoint.origin, "root": checkpoint.root.hex()}


def _table(services: Services, name: str) -> dict[str, Any]:
    """Return the newest states of a reducer as rows of text."""
    reducer = services.registry.get(name)
    rows, rebuilding = [], False
    for shard in range(services.shards):
        try:
            rows += [slot for _, slot in services.reader(shard).scan(name, limit=STATES_SHOWN)[1]]
        except ArchiveError:
            rebuilding = True
    rows.sort(key=lambda slot: slot.changed_at, reverse=True)
    states = [state_json(reducer, slot) for slot in rows[:STATES_SHOWN]]
    return {
        "name": name,
        "version": reducer.version,
        "fields": reducer.scope,
        "rebuilding": rebuilding,
        "rows": [
            {"key": list(one["key"].values()), "state": shown(one["state"]), "bad": one.get("quarantined")}
            for one in states
        ],
    }


def shown(state: Any) -> str:
    """Return a state as a person reads it: durations and times of day for what ends in _ms, the end of long texts.

    >>> shown({"total_ms": 61_500, "last_ms": 1_700_000_000_000, "unknown": 0})
    'total 1 min 1 s · last 22:13:20 UTC · unknown 0'
    """
    if not isinstance(state, dict):
        return _cut(state if isinstance(state, str) else msgspec.json.encode(state).decode())
    return " · ".join(f"{name.removesuffix('_ms')} {_value(name, value)}" for name, value in state.items())


def _value(name: str, value: Any) -> str:
    if not name.endswith("_ms") or not isinstance(value, int):
        return _cut(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    if value >= EARLIEST_TIME_MS:
        return datetime.fromtimestamp(min(value, LATEST_TIME_MS) / 1_000, UTC).strftime("%H:%M:%S UTC")
    minutes, seconds = divmod(value // 1_000, 60)
    return f"{minutes} min {seconds} s" if minutes else f"{value / 1_000:.1f} s"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"…{text[-TEXT_SHOWN:]}"
