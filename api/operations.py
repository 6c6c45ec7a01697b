"""For operators: is it alive (/healthz), may traffic come (/readyz), what is it doing (/metrics).

Alive means that this process answers; ready, that the archiver answers (it is asked every second, and may take five)
and has room for events, and every shard has states that are not being rebuilt.  Where the archiver waits for a person,
`stopped` says why, and what helps; where there is no room, `full` does; `cosigned` says how far witnesses are, where
there is a policy.  A module that does not run makes nothing
unready but itself: the answer names it, says why, and what helps.  A metric's label never names a person, a key or a
document.

How modules are is known to the supervisor, which writes it down (`replay.status`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, get_args

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from api.cosigned import cosigned_size
from api.full import REMEDY
from api.services import Services
from api.shelf import Shelf
from archive import Unavailable, parse_leaf, read_stopped
from replay import (
    STATUS_FILE,
    Catalogue,
    ModuleStatus,
    State,
    read_status,
    read_unsent,
    read_workers,
    remedy_in,
)

COUNTED_MAX = 10_000
COSIGNING_S_MAX = 120
"""An entry that waits longer for witnesses waits for a person: asking all of them again takes less than a minute."""


def router(services: Services) -> APIRouter:
    """Return the routes of operation."""
    routes = APIRouter(tags=["operations"])
    registry = CollectorRegistry()
    registry.register(_Metrics(services))

    @routes.get("/healthz", summary="This process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz", summary="Events can be kept and states be read")
    async def readyz() -> JSONResponse:
        answer = await services.read(lambda: readiness(services))
        return JSONResponse(answer, status_code=200 if answer["ready"] else 503)

    @routes.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        text = await services.read(lambda: generate_latest(registry))
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return routes


def published_or_zero(services: Services) -> int:
    """Return the published size, 0 before the first start of an archiver."""
    try:
        return services.published()
    except Unavailable:
        return 0


def readiness(services: Services) -> dict[str, Any]:
    """Return what is ready and what is not: for each shard the position of the module that is furthest behind."""
    size, shelf = published_or_zero(services), services.shelf
    statuses = read_status(services.folder.run / STATUS_FILE)
    modules = [
        _module(shelf, catalogue, size) | _condition(services, catalogue.module, statuses)
        for catalogue in shelf.modules()
    ]
    held = {name for name, status in statuses.items() if status.held} | _renewed(modules, statuses)
    missing = [name for name in shelf.missing() if name not in held]
    unseen = [name for name in shelf.missing() if name in held]
    modules += [
        {"module": name, "version": "", "shards": []} | _condition(services, name, statuses)
        for name in unseen
    ]
    running = [one for one in modules if one["module"] not in held]
    shards = [_least([one["shards"][shard] for one in running], shard, size) for shard in range(shelf.shards)]
    # Where no module at all is well, the states that are there still answer, as of where they stand.
    whole = not missing and (not running or all(one["position"] is not None for one in shards))
    full = _full(services)
    return {
        "ready": services.client.answers and whole and not full,
        "archiver": services.client.answers,
        **_stopped(services),
        **full,
        "size": size,
        **_cosigned(services),
        "shards": shards,
        "modules": modules,
        "states": _states(services),
    }


def _stopped(services: Services) -> dict[str, Any]:
    """Return why the archiver waits for a person, if it does."""
    stopped = None if services.client.connected else read_stopped(services.folder.stopped)
    if stopped is None:
        return {}
    about = {"reason": stopped.reason, "section": stopped.section, "since": _time(stopped.since_s)}
    return {"stopped": {**about, "remedy": stopped.remedy(services.folder.path)}}


def _full(services: Services) -> dict[str, Any]:
    """Return why nothing is kept of what is sent, if it is so."""
    full = services.full
    if not full.now(services.clock.now_us()):
        return {}
    return {"full": {"reason": full.reason, "since": _time(full.since_us / 1e6), "remedy": REMEDY}}


def _cosigned(services: Services) -> dict[str, Any]:
    """Return how much the outside sees, and for how long the first entry beyond has waited; nothing without a policy.

    While the log may not be read, nothing waits for witnesses.
    """
    if services.policy is None:
        return {}
    size, waiting_s = cosigned_size(services), 0.0
    with suppress(Unavailable), services.log() as log:
        if size < log.size:
            waiting_s = max(services.clock.now_us() / 1e6 - parse_leaf(log.leaf(size)).time_s, 0.0)
    return {"cosigned": {"size": size, "waiting_s": round(waiting_s)}}


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _renewed(modules: list[dict[str, Any]], statuses: Mapping[str, ModuleStatus]) -> set[str]:
    """Return the modules whose states are made again while the server runs, because somebody mended them."""
    whole = {one["module"] for one in modules if all(each["position"] is not None for each in one["shards"])}
    return {name for name, status in statuses.items() if status.renewed} - whole


def store_is_well(state: str) -> bool:
    """Return whether a state store does what it is there for, from what it says of itself (docs/state-stores.md).

    >>> store_is_well("local: there is no Redis"), store_is_well("catching up"), store_is_well("down: refused")
    (True, False, False)
    """
    return state == "ok" or state.partition(":")[0] == "local"


def store_remedy(state: str) -> str:
    """Return what helps a state store that does not do what it is there for; empty where it does.

    >>> store_remedy("ok"), store_remedy("catching up")
    ('', 'nothing, while it is being filled: that is done by itself; if it stays so: docs/state-stores.md')
    >>> store_remedy("down: Redis at localhost:6379 is a read-only replica: name the primary in redis_url")[:33]
    'name the primary in redis_url; or'
    """
    if store_is_well(state):
        return ""
    if state.partition(":")[0] != "down":
        return (
            "nothing, while it is being filled: that is done by itself; if it stays so: docs/state-stores.md"
        )
    helps = remedy_in(state) or "see whether Redis runs and answers"
    return f"{helps} (docs/state-stores.md); what it lacks is copied by itself then"


def _states(services: Services) -> dict[str, str]:
    status = services.states()
    return status._asdict() | {"remedy": store_remedy(status.state)}


def _module(shelf: Shelf, catalogue: Catalogue, size: int) -> dict[str, Any]:
    shards = [_shard(shelf, catalogue, shard, size) for shard in range(shelf.shards)]
    met = shelf.damage[catalogue.module]
    about = {"module": catalogue.module, "version": catalogue.version, "shards": shards}
    return about | ({"damage_met": met} if met else {})


def _condition(services: Services, name: str, statuses: Mapping[str, ModuleStatus]) -> dict[str, Any]:
    """Return what the supervisor says of a module; of one that it says nothing of, nothing."""
    status, data = statuses.get(name), services.folder.path
    if status is None:
        return {}
    return {
        "state": status.state,
        "level": status.level,
        "deaths": status.deaths,
        "since": _time(status.worst.since_s),
        "reason": status.reason(),
        "remedy": status.remedy(name, data),
        "remedies": status.remedies(name, data),
        "troubles": [
            {"shard": int(shard), "state": one.record.state, "level": one.record.level}
            | {"reason": one.reason(), "remedy": one.remedy(name, data)}
            for shard, one in status.troubles
        ],
    }


def _shard(shelf: Shelf, catalogue: Catalogue, shard: int, size: int) -> dict[str, Any]:
    """Return how far a shard is; one that is being rebuilt has no position, but says how far that is."""
    position = shelf.position(catalogue, shard)
    answer: dict[str, Any] = {
        "shard": shard,
        "position": position,
        "lag": None if position is None else max(size - position, 0),
    }
    if shelf.damaged(catalogue, shard):
        answer["damaged"] = True
    if position is None and (progress := shelf.rebuilding(catalogue, shard)) is not None:
        answer["rebuilding"] = {"position": progress[0], "until": progress[1]}
    return answer


def _least(modules: list[dict[str, Any]], shard: int, size: int) -> dict[str, Any]:
    nothing = {"shard": shard, "position": None, "lag": None}
    return max(modules, key=lambda one: (one["position"] is None, _behind(one, size)), default=nothing)


def _behind(shard: dict[str, Any], size: int) -> int:
    """Return how many entries a shard has not seen yet; all of them where that is not known."""
    if shard["lag"] is not None:
        return int(shard["lag"])
    return size - int(shard.get("rebuilding", {"position": 0})["position"])


class _Metrics(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterator[Metric]:
        """Name no metric in advance: reading them would need a running archiver."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands."""
        state, counters = readiness(self._services), self._services.counters
        yield GaugeMetricFamily("treering_log_size", "Published size of the log, entries.", state["size"])
        yield GaugeMetricFamily("treering_archiver_up", "1 if the archiver answers.", int(state["archiver"]))
        yield GaugeMetricFamily(
            "treering_disk_full", "1 if there is no room for events.", int("full" in state)
        )
        store = GaugeMetricFamily(
            "treering_state_store_ok", "1 if readers are answered as configured.", labels=["store"]
        )
        down = GaugeMetricFamily(
            "treering_state_store_down", "1 if somebody must look: /readyz says why.", labels=["store"]
        )
        of, how = [state["states"]["store"]], state["states"]["state"]
        store.add_metric(of, int(store_is_well(how)))
        down.add_metric(of, int(how.startswith("down:")))
        yield from (store, down)
        yield GaugeMetricFamily("treering_connections", "Open ingest WebSockets.", counters.connections)
        yield from _witnessed(state)
        lag = GaugeMetricFamily("treering_shard_lag", "Entries a shard has not seen yet.", labels=["shard"])
        for shard in state["shards"]:
            lag.add_metric([str(shard["shard"])], _behind(shard, state["size"]))
        yield lag
        yield from _of_modules(state)
        yield from _workers(self._services)
        yield _unsent(self._services)
        yield _quarantined(self._services.shelf)
        yield _refused(self._services.shelf)
        yield _stateless(self._services.shelf)
        yield _lacking(self._services.shelf)
        events = CounterMetricFamily("treering_events", "Events answered, by result.", labels=["result"])
        events.add_metric(["accepted"], counters.accepted)
        events.add_metric(["refused"], counters.refused)
        events.add_metric(["too_large"], counters.too_large)
        yield events


def _witnessed(state: dict[str, Any]) -> Iterator[Metric]:
    """Yield how far witnesses are, where there is a policy."""
    if (cosigned := state.get("cosigned")) is not None:
        yield GaugeMetricFamily("treering_cosigned_size", "Entries the outside sees.", cosigned["size"])
        name, help_ = (
            "treering_cosigning_seconds",
            "How long the first entry beyond has waited for witnesses.",
        )
        yield GaugeMetricFamily(name, help_, cosigned["waiting_s"])


def _of_modules(state: dict[str, Any]) -> Iterator[Metric]:
    """Yield what is measured of each module; of its states, the one that it is in has the value 1."""
    condition = GaugeMetricFamily(
        "treering_module_state", "1 for the state it is in.", labels=["module", "state"]
    )
    deaths = CounterMetricFamily("treering_module_deaths", "Deaths and stops.", labels=["module"])
    lag = GaugeMetricFamily(
        "treering_module_lag", "Entries a module has not seen yet.", labels=["module", "shard"]
    )
    damage = CounterMetricFamily(
        "treering_damaged_reads", "Answers that were refused because states are damaged.", labels=["module"]
    )
    for one in state["modules"]:
        damage.add_metric([one["module"]], one.get("damage_met", 0))
        for name in get_args(State) if "state" in one else ():
            condition.add_metric([one["module"], name], int(name == one["state"]))
        deaths.add_metric([one["module"]], one.get("deaths", 0))
        for shard in one["shards"]:
            lag.add_metric([one["module"], str(shard["shard"])], _behind(shard, state["size"]))
    yield from (condition, deaths, lag, damage)


def _workers(services: Services) -> Iterator[Metric]:
    """Yield how many workers run and how many stand by, if the supervisor says so."""
    if (known := read_workers(services.folder.run)) is not None:
        yield GaugeMetricFamily("treering_workers", "Worker processes.", len(known.running))
        yield GaugeMetricFamily("treering_spare_workers", "Workers that stand by.", len(known.spares))


def _unsent(services: Services) -> Metric:
    """Return what modules said that is not in the log: at how many events, for the version that runs."""
    family = CounterMetricFamily(
        "treering_messages_unsent",
        "Events at which a reducer said what could not be sent.",
        labels=["module", "reducer", "kind"],
    )
    shelf = services.shelf
    found = read_unsent(services.folder.run, shelf.shards, shelf.modules())
    for place, one in sorted(found.items()):
        family.add_metric(place, one.count)
    return family


def _quarantined(shelf: Shelf) -> Metric:
    """Return how many states of each reducer stand still; counting ends at COUNTED_MAX for each shard."""
    family = GaugeMetricFamily(
        "treering_quarantined_keys", "States that stand still at an event.", labels=["reducer"]
    )
    for catalogue in shelf.modules():
        counts = dict.fromkeys((info.name for info in catalogue.reducers), 0)
        for shard in range(shelf.shards):
            for name, _ in _still(shelf, catalogue, shard):
                counts[name] = counts.get(name, 0) + 1
        for name, count in sorted(counts.items()):
            family.add_metric([name], count)
    return family


def _refused(shelf: Shelf) -> Metric:
    """Return how often saved states were of no use to their worker, by module."""
    family = CounterMetricFamily(
        "treering_states_refused", "Saved states that were not used, and made anew.", labels=["module"]
    )
    for catalogue in shelf.modules():
        count = 0
        for shard in range(shelf.shards):
            with suppress(Unavailable):
                reader = shelf.reader(catalogue, shard)
                count += 0 if reader is None else reader.refused()
        family.add_metric([catalogue.module], count)
    return family


def _stateless(shelf: Shelf) -> Metric:
    """Return which reducers have not one state: perhaps no event ever has all fields of their scope."""
    family = GaugeMetricFamily("treering_reducer_stateless", "1 if it has no state yet.", labels=["reducer"])
    for catalogue in shelf.modules():
        without = {info.name for info in shelf.stateless(catalogue)}
        for info in catalogue.reducers:
            family.add_metric([info.name], int(info.name in without))
    return family


def _lacking(shelf: Shelf) -> Metric:
    """Return how many events each reducer passed over for want of a field of its scope."""
    family = CounterMetricFamily(
        "treering_events_without_scope", "Events that lack a field of its scope.", labels=["reducer"]
    )
    for catalogue in shelf.modules():
        for name, count in shelf.lacking(catalogue).items():
            family.add_metric([name], count)
    return family


def _still(shelf: Shelf, catalogue: Catalogue, shard: int) -> list[tuple[str, int]]:
    """Return what stands still in a shard; nothing where there is no answer: other metrics do not wait for it."""
    try:
        reader = shelf.reader(catalogue, shard)
        return [] if reader is None else reader.quarantined(COUNTED_MAX)
    except Unavailable:
        return []
