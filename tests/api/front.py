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
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.testclient import TestClient

from api import Place, Services, Shelf, create_app, open_states
from archive import (
    Answer,
    Archiver,
    ArchiverClient,
    Caches,
    DataFolder,
    LmdbStore,
    LogSource,
    ManualClock,
    NotFound,
    PublishedSize,
    Submission,
    Unavailable,
    Unknown,
)
from archive.seal import SealFile
from merkle import sign_note
from reducers import Module, Reducer, available, load
from replay import STATE_TABLES, Crew, Holding
from tests.world import CountingRandom, touchy
from tools.loading import states_place

ORIGIN = "example.org/log"


def all_modules() -> list[Module]:
    """Return every module that is installed, and one that raises."""
    refs = available().values()
    found = [built_in(ref.name) if ref.kind == "builtin" else load(ref) for ref in refs]
    return [*found, Module("touchy", (touchy,))]


@cache
def built_in(name: str) -> Module:
    """Return a module that comes with the package; loaded once, for that is a third of a front."""
    return load(available()[name])


@cache
def empty_store() -> bytes:
    """Return the file of a state store without states, as its first open leaves it: a front has one dozen of them."""
    with TemporaryDirectory() as folder:
        LmdbStore(folder, STATE_TABLES).close()
        return (Path(folder) / "data.mdb").read_bytes()


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
        self.modules = all_modules()
        self.stores: dict[Path, LmdbStore] = {}
        """By folder: one process must not open an environment twice, so the services are given those that are open."""
        self.crews = [self.crew(shard, shards) for shard in range(shards)]
        self.services = Services(
            folder=self.folder,
            client=self.direct,
            shelf=Shelf(self.folder.state, shards, self.open_store, [one.name for one in self.modules]),
            clock=ManualClock(),
            _source=self.source,
            _published=published,
            _vault=vault,
        )

    def open_store(self, place: Place) -> LmdbStore:
        """Return the store at a place, or raise NotFound."""
        if place.folder not in self.stores:
            raise NotFound(f"{place.folder}: nothing there")
        return self.stores[place.folder]

    def crew(self, shard: int, shards: int) -> Crew:
        """Return the crew of a shard, gone on from what it has saved."""
        holdings = []
        for module in self.modules:
            place = states_place(self.folder.state, 0, module, shard, shards)
            if place not in self.stores:
                if not place.exists():
                    place.mkdir(parents=True, mode=0o700)
                    (place / "data.mdb").write_bytes(empty_store())
                self.stores[place] = LmdbStore(place, STATE_TABLES)
            holding = Holding(module.reducers, self.stores[place], module.name)
            with self.source.open() as log:
                holding.resume(log)
            holdings.append(holding)
        return Crew(holdings, self.vault, shard=shard, shards=shards)

    def clear(self, shard: int) -> None:
        """Throw the states of a shard away, as a worker does that begins anew."""
        for store in self.stores_of(shard):
            Holding([], store).clear()

    @property
    def reducers(self) -> dict[str, Reducer[Any]]:
        """All reducers by name."""
        return {one.name: one for module in self.modules for one in module.reducers}

    def stores_of(self, shard: int) -> list[LmdbStore]:
        """Return the stores of all modules in one shard."""
        return [store for place, store in self.stores.items() if place.name.startswith(f"{shard}-of-")]

    def client(self) -> TestClient:
        """Return an HTTP client of the application."""
        return http_client(self.services)

    def reduce(self) -> None:
        """Let every worker catch up and save."""
        for crew in self.crews:
            while crew.step(self.source):
                pass
            crew.save(self.source)

    def close(self) -> None:
        """Close the environments."""
        for store in (self.log, self.vault._store, *self.stores.values()):
            store.close()


def http_client(services: Services) -> TestClient:
    """Return an HTTP client of an application, under a host name that may be used."""
    return TestClient(create_app(services), base_url="http://localhost:8400", raise_server_exceptions=True)


def not_started(path: Path) -> Services:
    """Return the services of a front whose archiver has never run."""
    folder = DataFolder(path)
    return Services(
        folder, DirectClient(None), Shelf(folder.state, 2, open_states, available()), ManualClock()
    )


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
