"""The page at /: what the log holds, how fast it grows, how far behind each shard is, and the live states.

Rendered on the server, without scripts; it refreshes itself.  Everything that came from outside is escaped by
the template engine, and a strict content security policy stands behind that.
"""

from __future__ import annotations

from collections import deque
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
RATE_WINDOW_US = 10_000_000
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
    rate = Rate()

    @routes.get("/", response_class=HTMLResponse)
    async def overview(request: Request) -> HTMLResponse:
        state = readiness(services)
        state["rate"] = rate.seen(services.clock.now_us(), state["size"])
        context = {
            **state,
            **_checkpoint(services),
            "reducers": [_table(services, one.name) for one in services.registry],
        }
        return templates.TemplateResponse(request, "overview.html", context, headers=HEADERS)

    return routes


class Rate:
    """Entries a second over the last ten seconds, from the sizes that were seen.

    >>> rate = Rate()
    >>> rate.seen(0, 100), rate.seen(2_000_000, 300)
    (0.0, 100.0)
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()

    def seen(self, now_us: int, size: int) -> float:
        """Take note of a size and return the rate."""
        self._seen.append((now_us, size))
        while self._seen[0][0] < now_us - RATE_WINDOW_US and len(self._seen) > 2:
            self._seen.popleft()
        first_us, first = self._seen[0]
        return (size - first) * 1e6 / (now_us - first_us) if now_us > first_us else 0.0


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
    shown = [state_json(reducer, slot) for slot in rows[:STATES_SHOWN]]
    return {
        "name": name,
        "version": reducer.version,
        "fields": reducer.scope,
        "rebuilding": rebuilding,
        "rows": [
            {"key": list(one["key"].values()), "state": _short(one["state"]), "bad": one.get("quarantined")}
            for one in shown
        ],
    }


def _short(state: Any) -> str:
    text = state if isinstance(state, str) else msgspec.json.encode(state).decode()
    return text if len(text) <= TEXT_SHOWN else f"…{text[-TEXT_SHOWN:]}"
