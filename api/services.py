"""What the routes work with: one value, made by the program that composes the server, with no globals.

The log and the states are read from memory-mapped files that other processes write; they are opened when
first needed, because a server may answer before its archiver has made them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, TypeVar

from api.bodies import Bodies
from api.full import Full
from api.rate import Rate
from api.shelf import Place, Shelf
from archive import (
    Answer,
    ArchiverClient,
    Clock,
    DataFolder,
    LmdbStore,
    Log,
    LogSource,
    NotFound,
    PublishedLog,
    PublishedSize,
    Receipt,
    Refusal,
    Stopped,
    Store,
    Submission,
    Unavailable,
    Vault,
    read_stopped,
    settle,
)
from merkle import Policy
from reducers import Key
from replay import STATE_MAP_SIZE, STATE_TABLES, STATUS_FILE, Status, read_status

T = TypeVar("T")
LOOK_S = 0.25
"""How often whoever waits for the archiver looks whether it still answers."""


def open_states(place: Place) -> Store:
    """Open the states of one shard on this machine for reading; raise NotFound while there are none."""
    return LmdbStore(place.folder, STATE_TABLES, read_only=True, map_size=STATE_MAP_SIZE)


class Past(Protocol):
    """Where states as they were come from: (reducer, key, size) -> the answer that /v1/states gives."""

    async def __call__(self, name: str, key: Key, size: int) -> dict[str, Any]:
        """Return the state of a key at `size`; raise NotFound or Unavailable."""


@dataclass(slots=True)
class Counters:
    """What the front counts; no label ever names a person."""

    accepted: int = 0
    refused: int = 0
    connections: int = 0
    too_large: int = 0


@dataclass
class Services:
    """A running front: the archiver's client, the log, the vault, the states."""

    folder: DataFolder
    client: ArchiverClient
    shelf: Shelf
    clock: Clock
    counters: Counters = field(default_factory=Counters)
    rate: Rate = field(default_factory=Rate)
    bodies: Bodies = field(default_factory=Bodies)
    full: Full = field(default_factory=Full)
    say: Callable[[str], None] = lambda _: None
    """Tells the operator something."""
    page_hosts: frozenset[str] = frozenset()
    """Hosts of web pages that may open the ingest socket, beside those that this server is asked by."""
    slow: bool = False
    """Whether reading states may have to wait for another machine: then a thread does it."""
    states: Callable[[], Status] = lambda: Status("lmdb", "ok")
    """How the place is where states are read."""
    leaving: Callable[[], bool] = lambda: False
    """Whether this front is about to end: then streams end, and their readers come back to the next one."""
    past: Past | None = None
    """Folds one key up to a size, in a process of its own; without it, there is only the present."""
    policy: Policy | None = None
    """Which witnesses must have cosigned what the outside sees: `api.cosigned`."""
    _source: LogSource | None = None
    _published: PublishedSize | None = None
    _vault: Vault | None = None
    _opening: Lock = field(default_factory=Lock)
    """A thread reads, too, and an environment must not be opened twice in a process."""

    def log(self, size: int | None = None) -> AbstractContextManager[Log]:
        """Return the log up to its published size, or a smaller one.

        Raises Unavailable before the first start, and where the archiver refuses the database because it is not the
        one that was sealed; entering it does, where the database is an older copy by what was published.
        """
        stopped = None if self.client.connected else read_stopped(self.folder.stopped)
        if stopped is not None and stopped.refuses_log:
            raise _down(stopped)
        try:
            with self._opening:
                self._source = self._source or PublishedLog(self.folder.open_log(), self.published)
        except NotFound as error:
            raise self._not_yet(error) from None
        return self._source.open(size)

    def check(self) -> None:
        """Raise Unavailable where nothing may be shown, states neither: they are of a log that is not there."""
        with self.log():
            pass

    def published(self) -> int:
        """Return the published size; raise Unavailable before the archiver's first start."""
        try:
            with self._opening:
                self._published = self._published or PublishedSize(self.folder.published)
        except NotFound as error:
            raise self._not_yet(error) from None
        return self._published.get()

    def _not_yet(self, error: NotFound) -> Unavailable:
        """Return why nothing is there: nobody is about to start where the archiver waits for a person."""
        stopped = read_stopped(self.folder.stopped)
        return Unavailable(str(error)) if stopped is None else _down(stopped)

    async def ready(self, wait_s: float) -> None:
        """Wait until the archiver takes events; raise Unavailable, with why it is down, if it does not in time.

        One that holds the connection and does not answer takes none either: what is sent to it would wait, with nobody
        to tell for how long, and who gives up and sends again has sent it twice.
        """
        try:
            await self.client.ready(wait_s)
        except Unavailable:
            if (stopped := read_stopped(self.folder.stopped)) is None:
                raise
            raise _down(stopped) from None
        room = False
        while not room:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self.client.room()
                room = True
            if self.client.connected and not self.client.answers:
                raise Unavailable("the archiver does not answer; try again shortly")

    async def answering(self) -> None:
        """Wait until the archiver answers and has room, for as long as it is there; raise Unavailable if it is away."""
        while True:
            await self.client.room()
            await self.client.ready()
            if self.client.answers:
                return
            await asyncio.sleep(LOOK_S)

    async def read(self, ask: Callable[[], T]) -> T:
        """Return what reading states gives, without holding up others while it waits."""
        return await asyncio.to_thread(ask) if self.slow else ask()

    def waits(self, module: str, shard: int) -> str:
        """Return why a module does nothing in a shard until a person looks, or nothing."""
        status = read_status(self.folder.run / STATUS_FILE).get(module)
        found = None if status is None else status.shards.get(str(shard))
        return "" if found is None or not found.waits else found.reason()

    def woken(self, size: int) -> None:
        """Take note that the log was published up to `size`."""
        self.rate.seen(self.clock.now_us(), size)

    def heard(self, answers: Sequence[Answer]) -> None:
        """Take note of whether what was sent together was kept: all of it is, or none."""
        if answers and (self.full.reason or isinstance(answers[-1], Refusal)):
            size, _ = self.client.checkpoint
            if said := self.full.heard(answers[-1], self.clock.now_us(), size):
                self.say(f"front: {said}")

    def settle(self, size: int, submissions: Sequence[Submission]) -> list[Receipt | None]:
        """Return the receipts of those submissions that stand in the log from index `size` on."""
        with self.log() as log:
            return settle(log, self.vault, size, submissions)

    @property
    def vault(self) -> Vault:
        """The vault; raise Unavailable before the archiver's first start."""
        try:
            with self._opening:
                self._vault = self._vault or self.folder.open_vault(os.urandom)
        except NotFound as error:
            raise Unavailable(str(error)) from None
        return self._vault


def _down(stopped: Stopped) -> Unavailable:
    """Return what is said to whoever asks while the archiver waits for a person."""
    return Unavailable(
        f"the archiver is down until a person looks: {stopped.reason}", section=stopped.section
    )
