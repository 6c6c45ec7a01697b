"""The page at /: what the log holds, how fast it grows, how far behind each shard is, and the live states.

Rendered on the server, without scripts; it refreshes itself.  Everything that came from outside is escaped by
the template engine, and a strict content security policy stands behind that.

States are not ordered by time, so the newest are found by looking at all; where there are too many for that, the
page shows the first by key, and says so.

That takes a tenth of a second in a large class, and the page is asked for by every tab every two seconds.  So it is
made once for all who look within a second, and in a thread: senders and dashboards must not wait for it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from heapq import nlargest
from itertools import islice
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from api.operations import COSIGNING_S_MAX, published_or_zero, readiness
from api.services import Services
from api.states import first_of, state_json
from archive import ArchiveError
from merkle import Checkpoint
from replay import Damaged, ReducerInfo, StoredSlot

FRESH_S = 1.0
"""How old a page may be that somebody is shown."""
STATES_SHOWN = 40
SCANNED = 2_000
"""States of a reducer and a shard that are looked at for the newest."""
SCANNED_BYTES = 4 << 20
"""And how large they may be together: texts are long."""
TEXT_SHOWN = 160
FIELDS_SHOWN, STATE_SHOWN = 20, 600
"""How much of a state is shown: fields, and characters."""
KEY_SHOWN, REASON_SHOWN = 100, 300
TROUBLES_SHOWN = 5
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
    routes, overview = APIRouter(include_in_schema=False), Overview(services)

    @routes.get("/", response_class=HTMLResponse)
    async def get_overview() -> HTMLResponse:
        return HTMLResponse(await overview.page(), headers=HEADERS)

    return routes


class Overview:
    """The page, made once for all who look at it within a second."""

    def __init__(self, services: Services) -> None:
        self._services = services
        environment = Environment(loader=PackageLoader("api"), autoescape=select_autoescape())
        self._template = environment.get_template("overview.html")
        self._making = asyncio.Lock()
        self._page, self._made_at = "", float("-inf")

    async def page(self) -> str:
        """Return the page as it was less than a second ago; who comes while it is made waits for that one."""
        loop = asyncio.get_running_loop()
        async with self._making:
            if loop.time() - self._made_at >= FRESH_S:
                size = published_or_zero(self._services)
                rate = self._services.rate.seen(self._services.clock.now_us(), size)
                self._page = await asyncio.to_thread(self._make, rate)
                self._made_at = loop.time()
            return self._page

    def _make(self, rate: float) -> str:
        return self._template.render(_context(self._services), rate=rate)


def _context(services: Services) -> dict[str, Any]:
    state, checkpoint = readiness(services), _checkpoint(services)
    return {
        **state,
        "connected": services.client.connected,
        "cosigning_s_max": COSIGNING_S_MAX,
        "waiting": [one["module"] for one in state["modules"] if one.get("state") in {"parked", "failed"}],
        "modules": [{**one, **troubles_of(one)} for one in sorted(state["modules"], key=_calm)],
        **checkpoint,
        # States of a log that may not be shown are not shown either.
        "reducers": []
        if checkpoint.get("unreadable")
        else [_table(services, info) for info in services.shelf.reducers()],
    }


def _calm(module: dict[str, Any]) -> int:
    """Return how little a module needs a person: those that wait for one stand first."""
    if module.get("state") in {"parked", "failed"}:
        return 0
    ails = module.get("reason") or any(one.get("damaged") or one["lag"] is None for one in module["shards"])
    return 1 if ails else 2


def troubles_of(module: dict[str, Any]) -> dict[str, list[str]]:
    """Return what is wrong with a module, in which shards, and every command that helps, a bounded number of each.

    >>> one = {"shard": 0, "reason": "reducer words died at entry 7: SIGSEGV", "remedy": "treering skip words 7"}
    >>> troubles_of({"troubles": [one, {**one, "shard": 1}], "remedies": [one["remedy"]]})
    {'lines': ['shards 0, 1: reducer words died at entry 7: SIGSEGV'], 'commands': ['treering skip words 7']}
    """
    shards: dict[str, list[str]] = {}
    for one in module.get("troubles", ()):
        shards.setdefault(_beginning(one["reason"]), []).append(str(one["shard"]))
    lines = [
        f"shard{'s' if len(each) > 1 else ''} {', '.join(each)}: {reason}" for reason, each in shards.items()
    ]
    more = "and {} more: treering doctor"
    return {"lines": bounded(lines, more), "commands": bounded(module.get("remedies", []), more)}


def bounded(lines: list[str], more: str, limit: int = TROUBLES_SHOWN) -> list[str]:
    """Return the first of some lines, and how many more there are.

    >>> bounded(["a", "b", "c"], "and {} more", 2)
    ['a', 'b', 'and 1 more']
    """
    rest = len(lines) - limit
    return lines if rest <= 0 else [*lines[:limit], more.format(rest)]


def _checkpoint(services: Services) -> dict[str, Any]:
    try:
        with services.log() as log:
            _, note = log.checkpoint()
    except ArchiveError as error:
        return {"origin": None, "root": None, "unreadable": str(error) if error.section else ""}
    checkpoint = Checkpoint.decode(note.decode().partition("\n\n")[0] + "\n")
    return {"origin": checkpoint.origin, "root": checkpoint.root.hex()}


def _table(services: Services, reducer: ReducerInfo) -> dict[str, Any]:
    """Return the states of a reducer that changed last, or its first ones by key, as rows of text."""
    name = reducer.name
    found: list[tuple[bytes, StoredSlot]] = []
    whole, rebuilding, damaged = True, False, False
    for shard in range(services.shelf.shards):
        try:
            _, reader, _ = services.shelf.standing(name, shard)
            some, all_of_them = reader.first(name, SCANNED, SCANNED_BYTES)
        except Damaged:
            damaged = True
        except ArchiveError:
            rebuilding = True
        else:
            found += some
            whole = whole and all_of_them
    slots = chosen(found, whole=whole)
    return {
        "name": name,
        "version": reducer.version,
        "fields": reducer.scope,
        "rebuilding": rebuilding,
        "damaged": damaged,
        "note": noted(len(found) if whole else len(slots), whole=whole),
        "rows": [_row(reducer, slot) for slot in slots],
    }


def chosen(found: list[tuple[bytes, StoredSlot]], *, whole: bool) -> list[StoredSlot]:
    """Return the states to show: the newest if `found` is the whole of them, else the first by key.

    Where it is not the whole, each shard's ended at the same bounds, and there may be more behind its last.
    """
    if not whole:
        return [slot for _, slot in first_of(found, STATES_SHOWN, SCANNED_BYTES)[0]]
    slots = [slot for _, slot in sorted(found, key=lambda one: one[0])]
    return nlargest(STATES_SHOWN, slots, lambda slot: slot.changed_at)


def noted(count: int, *, whole: bool) -> str:
    """Return what readers have to know of the choice; nothing where every state is shown.

    >>> noted(7, whole=True), noted(1_250, whole=True), noted(40, whole=False)
    ('', 'the 40 newest of 1,250', 'the first 40 by key: too many to look for the newest here')
    """
    if not whole:
        return f"the first {count} by key: too many to look for the newest here"
    return f"the {STATES_SHOWN} newest of {count:,}" if count > STATES_SHOWN else ""


def _row(reducer: ReducerInfo, slot: StoredSlot) -> dict[str, Any]:
    one = state_json(reducer, slot)
    state = msgspec.json.decode(one["state"])
    key = [_both_ends(value) for value in one["key"].values()]
    return {"key": key, "state": shown(state), "bad": one.get("quarantined")}


def shown(state: Any) -> str:
    """Return a state as a person reads it: durations and times of day for what ends in _ms, the end of long texts.

    Of many fields, the first are shown.

    >>> shown({"total_ms": 61_500, "last_ms": 1_700_000_000_000, "unknown": 0})
    'total 1 min 1 s · last 22:13:20 UTC · unknown 0'
    >>> shown({f"f{number}": 0 for number in range(2_500)})[-24:]
    'f19 0 · … and 2,480 more'
    """
    if not isinstance(state, dict):
        return _cut(state if isinstance(state, str) else msgspec.json.encode(state).decode())
    fields = [
        f"{_both_ends(name.removesuffix('_ms'))} {_value(name, value)}"
        for name, value in islice(state.items(), FIELDS_SHOWN)
    ]
    rest = len(state) - len(fields)
    text = _beginning(" · ".join(fields), STATE_SHOWN)
    return f"{text} · … and {rest:,} more" if rest else text


def _value(name: str, value: Any) -> str:
    if not name.endswith("_ms") or not isinstance(value, int):
        return _cut(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    if value >= EARLIEST_TIME_MS:
        return datetime.fromtimestamp(min(value, LATEST_TIME_MS) / 1_000, UTC).strftime("%H:%M:%S UTC")
    minutes, seconds = divmod(value // 1_000, 60)
    return f"{minutes} min {seconds} s" if minutes else f"{value / 1_000:.1f} s"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"…{text[-TEXT_SHOWN:]}"


def _beginning(text: str, most: int = REASON_SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _both_ends(text: str) -> str:
    """Return a key, the middle left out of a long one: keys that are alike may part late."""
    half = KEY_SHOWN // 2
    return text if len(text) <= KEY_SHOWN else f"{text[:half]}…{text[-half:]}"
