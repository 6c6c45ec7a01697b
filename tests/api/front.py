"""A whole front in one process: the application over a real archiver, a real data folder and real workers.

    front = Front(folder)
    with front.client() as http:
        http.post("/v1/events", json={"keys": {"student": "ann"}})
        front.reduce()

Only the socket between the front and its archiver is left out: `DirectClient` has the methods of
`archive.ArchiverClient` and calls the archiver at once.  It can go away (`connected = False`), and lose what is
under way (`lose_at`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from api import Services, create_app, state_folder
from archive import (
    Answer,
    Archiver,
    ArchiverClient,
    Caches,
    DataFolder,
    LmdbStore,
    LogSource,
    ManualClock,
    PublishedSize,
    Submission,
    Unavailable,
    Unknown,
)
from archive.seal import SealFile
from merkle import sign_note
from reducers import Registry, shipped
from replay import STATE_TABLES, Runner, StateReader, States
from tests.world import CountingRandom, run, touchy

ORIGIN = "example.org/log"


class DirectClient(ArchiverClient):
    """An archiver client without a socket."""

    def __init__(self, archiver: Archiver | None) -> None:
        super().__init__(Path("unused"))
        self.archiver = archiver
        self.is_connected = archiver is not None
        self.submitted: list[Submission] = []
        self.lose_at: int | None = None
        """Submissions from this number (0-based) on are lost, or kept, and nobody is told which."""
        self.lost_are_kept = False

    @property
    def connected(self) -> bool:
        """Whether the archiver can be reached."""
        return self.is_connected

    async def start(self) -> None:
        """Do nothing: there is no connection."""

    async def stop(self) -> None:
        """Do nothing: there is no connection."""

    async def ready(self, wait_s: float = 10.0) -> None:
        """Raise Unavailable if the archiver is down, without a wait."""
        del wait_s
        if not self.is_connected:
            raise Unavailable("the archiver is not running; try again shortly")

    def submit(self, submissions: Sequence[Submission]) -> asyncio.Future[list[Answer]]:
        """Append at once."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        first = len(self.submitted)
        self.submitted += submissions
        lost = self.lose_at is not None and first >= self.lose_at
        if not self.is_connected or self.archiver is None:
            future.set_exception(Unavailable("the archiver is not running; try again shortly"))
        elif lost and not self.lost_are_kept:
            future.set_exception(Unknown("the archiver went away; this event may be kept or not"))
        else:
            answers = self.archiver.step(submissions)
            self.checkpoint = (self.archiver.head.size, self.archiver.root)
            if lost:
                future.set_exception(Unknown("the archiver went away; this event may be kept or not"))
            else:
                future.set_result(answers)
        return future


class Front:
    """A data folder with all that runs on it."""

    def __init__(self, path: Path, shards: int = 2) -> None:
        self.folder = DataFolder(path)
        for part in ("keys", "run"):
            (path / part).mkdir(parents=True)
        self.folder.log.mkdir(parents=True)
        random = CountingRandom()
        self.signer = self.folder.signer(random, ORIGIN)
        self.log = self.folder.open_log(read_only=False)
        self.vault = vault = self.folder.open_vault(random, read_only=False)
        published = PublishedSize(self.folder.published, writable=True)
        self.source = LogSource(self.log, published.get)
        self.archiver = Archiver(
            ORIGIN,
            self.log,
            vault,
            caches=Caches(),
            seal=SealFile(self.folder.log / "seal"),
            published=published,
            clock=ManualClock(),
            random=random,
            sign=lambda text: sign_note(text, [self.signer]),
        )
        self.archiver.open({"software": "test"})
        self.direct = DirectClient(self.archiver)
        self.direct.checkpoint = (self.archiver.head.size, self.archiver.root)
        self.registry = shipped()
        self.registry.register(touchy)
        self.stores = [
            LmdbStore(state_folder(self.folder, shard, shards), STATE_TABLES) for shard in range(shards)
        ]
        self.runners = [
            Runner(self.registry, vault, shard=shard, shards=shards, states=States(store))
            for shard, store in enumerate(self.stores)
        ]
        # One process must not open an environment twice, so the services are given those that are open.
        self.services = Services(
            folder=self.folder,
            client=self.direct,
            registry=self.registry,
            shards=shards,
            clock=ManualClock(),
            _source=self.source,
            _published=published,
            _vault=vault,
            _readers={n: StateReader(store, self.registry) for n, store in enumerate(self.stores)},
        )

    def client(self) -> TestClient:
        """Return an HTTP client of the application."""
        return http_client(self.services)

    def reduce(self) -> None:
        """Let every worker catch up and save."""
        for runner in self.runners:
            run(runner, self.source)
            runner.save(self.source)

    def close(self) -> None:
        """Close the environments."""
        for store in (self.log, self.vault._store, *self.stores):
            store.close()


def http_client(services: Services) -> TestClient:
    """Return an HTTP client of an application, under a host name that may be used."""
    return TestClient(create_app(services), base_url="http://localhost:8400", raise_server_exceptions=True)


def not_started(path: Path) -> Services:
    """Return the services of a front whose archiver has never run."""
    registry: Registry = shipped()
    return Services(DataFolder(path), DirectClient(None), registry, 2, ManualClock())


def problem_of(response: Any, status: int) -> str:
    """Return the detail of a problem response, having checked its form (RFC 9457)."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert set(body) >= {"type", "title", "status", "detail"}
    assert ("retry-after" in response.headers) == (status == 503)
    detail: str = body["detail"]
    return detail
