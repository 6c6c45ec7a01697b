"""For operators: is it alive (/healthz), may traffic come (/readyz), what is it doing (/metrics).

Alive means that this process answers; ready, that the archiver is reachable and every shard has states that
are not being rebuilt.  A metric's label never names a person, a key or a document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from api.services import Services
from api.shelf import Shelf
from archive import Unavailable
from replay import Catalogue


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
    modules = [_module(shelf, catalogue, size) for catalogue in shelf.modules()]
    shards = [_least([one["shards"][shard] for one in modules], shard, size) for shard in range(shelf.shards)]
    whole = not shelf.missing() and all(one["position"] is not None for one in shards)
    return {
        "ready": services.client.connected and whole,
        "archiver": services.client.connected,
        "size": size,
        "shards": shards,
        "modules": modules,
    }


def _module(shelf: Shelf, catalogue: Catalogue, size: int) -> dict[str, Any]:
    shards = [_shard(shelf, catalogue, shard, size) for shard in range(shelf.shards)]
    return {"module": catalogue.module, "version": catalogue.version, "shards": shards}


def _shard(shelf: Shelf, catalogue: Catalogue, shard: int, size: int) -> dict[str, Any]:
    """Return how far a shard is; one that is being rebuilt has no position, but says how far that is."""
    position = shelf.position(catalogue, shard)
    answer: dict[str, Any] = {
        "shard": shard,
        "position": position,
        "lag": None if position is None else max(size - position, 0),
    }
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
        yield GaugeMetricFamily(
            "treering_archiver_up", "1 if the archiver is reachable.", int(state["archiver"])
        )
        yield GaugeMetricFamily("treering_connections", "Open ingest WebSockets.", counters.connections)
        lag = GaugeMetricFamily("treering_shard_lag", "Entries a shard has not seen yet.", labels=["shard"])
        for shard in state["shards"]:
            lag.add_metric([str(shard["shard"])], _behind(shard, state["size"]))
        yield lag
        events = CounterMetricFamily("treering_events", "Events answered, by result.", labels=["result"])
        events.add_metric(["accepted"], counters.accepted)
        events.add_metric(["refused"], counters.refused)
        events.add_metric(["too_large"], counters.too_large)
        yield events
